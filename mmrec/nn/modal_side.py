"""A side whose entities are embedded from any subset of their modalities.

The mechanism of SiBraR (Ganhoer et al., RecSys 2024) and of MuBraR (the same group, TORS 2025).

Letters in names: N entities, M modalities, K modalities drawn for a cell, L cells of a batch,
P entities a modality that are projected, Q = M P (modality, entity) pairs, modality first, R rows
of a stack, C common width, D output width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.nn.branch import Branch
from mmrec.nn.modalities import ModalityDraws, entity_lists, first_times
from mmrec.nn.projections import Projection
from mmrec.nn.sides import Encoded, Listed, Side
from mmrec.nn.tables import Constant, occurrences, rows

Aggregation = Literal["mean", "max"]


MOST_DRAWN = 1.5
"""Draws of a modality, per entity, up to which a batch lists those that it needs: of evenly drawn
entities 78 % then. Of more of them the lists save less than they cost."""


class _Pairs(NamedTuple):
    """Projected (modality, entity) pairs, and where a batch's draws lie among them."""

    h_QC: Tensor
    size: int
    """P."""
    place_KL: Tensor
    """(K, L) or (1, L): the place of a cell's entity among the P of a drawn modality."""
    entity_P: Tensor | None
    """The entities of the first modality; None where they are all of the side's, in order."""


@dataclass(frozen=True)
class ModalRules:
    """How a side of modalities is put together."""

    aggregation: Aggregation
    normalize_input: bool
    """Rows are scaled to length 1 before the branch."""
    input_dropout: float
    """Share of the branch's input that is zeroed in training."""
    eval_names: tuple[str, ...]
    """The modalities that are averaged for scoring unless others are asked for."""


class ModalSide(Side):
    """Entity = mean over modalities m of branch(projection_m(raw_m)), from any subset of them.

    The mechanism of SiBraR (one branch for all modalities) and of MuBraR (one each). In training
    only a cell's drawn modalities are averaged; without draws all that the entity has. Of three and
    more draws a repeat counts nowhere, so that drawing all is averaging all. Of two it counts as
    any other, in batch normalisation and, where dropout tells the two apart, in the mean.

    Without dropout all rows of the STACK of drawn rows that belong to one (modality, entity) pair
    are equal. So the branch is run once on the TABLE of pairs, batch normalisation weighting each
    by how often it was drawn; of all pairs, or of those that the batch lists (`needed`), which are
    fewer in a small batch. All give the same numbers.
    """

    path: Literal["table", "stack"] = "table"
    """Which of the two is taken; tests set it. Dropout always takes the stack."""
    input_dropout: Tensor

    def __init__(
        self,
        projections: dict[str, Projection],
        branches: Sequence[Branch],
        draws: ModalityDraws | None,
        present_NM: NDArray[np.bool_],
        rules: ModalRules,
    ) -> None:
        """Put a side together.

        Args:
            projections: one a modality, in the modalities' order.
            branches: one for all modalities, or one each.
            draws: None averages all available modalities in training.
            present_NM: which entity has which modality.
            rules: all else.
        """
        super().__init__()
        self.names = tuple(projections)
        self.projections = nn.ModuleList(projections.values())
        self.branches = nn.ModuleList(branches)
        self.draws = draws
        self.rules = rules
        self.complete = bool(present_NM.all())
        dtype = torch.get_default_dtype()
        self.present_MN = Constant(torch.from_numpy(np.ascontiguousarray(present_NM.T)).to(dtype))
        self.register_buffer("input_dropout", torch.tensor(rules.input_dropout), persistent=False)

    # --- training

    def needed(self, entity: Tensor, drawn: Tensor | None) -> Listed | None:
        """The entities that a batch needs of each modality; None where it needs most of them.

        For batches as they are made: the length of a list depends on the draws.

        Args:
            entity: (...) int64.
            drawn: (..., K) int64; None where training averages all modalities.
        """
        num_modalities, num_entities = self.present_MN.value.shape
        num_drawn = num_modalities if drawn is None else drawn.shape[-1]
        if entity.numel() * num_drawn > MOST_DRAWN * num_entities * num_modalities:
            return None
        cell_L = entity.reshape(-1)
        if drawn is None:
            every_M1 = torch.arange(num_modalities, device=entity.device)[:, None]
            entity_PM, place_KL = entity_lists(
                cell_L, every_M1.expand(-1, len(cell_L)), num_entities, num_modalities
            )
            return Listed(entity_PM, place_KL[0].view(*entity.shape, 1))
        drawn_KL = drawn.reshape(len(cell_L), -1).T
        entity_PM, place_KL = entity_lists(cell_L, drawn_KL, num_entities, num_modalities)
        return Listed(entity_PM, place_KL.T.reshape(drawn.shape))

    def encode(
        self,
        entity: Tensor,
        drawn: Tensor | None = None,
        keep: Tensor | None = None,
        listed: Listed | None = None,
    ) -> Encoded:
        if self.rules.input_dropout and keep is None:
            raise ValueError("a side with dropout needs its mask in the batch's `extra`")
        cell_L = entity.reshape(-1)
        pairs = self._project(cell_L, listed)
        if self.draws is None:
            embedding_LD, buffers = self._encode_all(pairs, cell_L, keep)
            return Encoded(embedding_LD.view(*entity.shape, -1), buffers=buffers)
        if drawn is None:
            raise ValueError(
                f"sampling {self.draws.sampling!r} needs the drawn modalities in the batch's"
                " `extra`; make batches with the model's `epoch_batches`"
            )
        drawn_KL = drawn.reshape(len(cell_L), -1).T
        fresh_KL = None
        if not self.complete and self.draws.drawn > 1:
            fresh_KL = first_times(drawn_KL).to(pairs.h_QC.dtype)
        count_KL = fresh_KL if self.draws.drawn > 2 else None
        flat, buffers = self._encode_drawn(pairs, drawn_KL, keep, count_KL)
        shape = entity.shape
        views = tuple(view_LD.view(*shape, -1) for view_LD in flat)
        embedding = self._combined(flat, count_KL).view(*shape, -1)
        fresh = None if fresh_KL is None else tuple(x_L.view(shape) for x_L in fresh_KL)
        return Encoded(embedding, views, fresh, buffers)

    def _project(self, cell_L: Tensor, listed: Listed | None) -> "_Pairs":
        """Project what is listed, or all."""
        if listed is None:
            h_QC = torch.cat([project() for project in self.projections])
            size, place_KL, entity_P = self.present_MN.value.shape[1], cell_L[None], None
        else:
            lists = listed.entity_PM.unbind(1)
            h_QC = torch.cat([f(list_P) for f, list_P in zip(self.projections, lists, strict=True)])
            size, place_KL = len(listed.entity_PM), listed.place.reshape(len(cell_L), -1).T
            entity_P = lists[0]
        return _Pairs(self._normalized(h_QC), size, place_KL, entity_P)

    def _normalized(self, h_RC: Tensor) -> Tensor:
        if not self.rules.normalize_input:
            return h_RC
        # As `F.normalize`, whose division has a gradient that takes half as long again.
        length_R1 = torch.linalg.vector_norm(h_RC, dim=-1, keepdim=True)
        return h_RC * length_R1.clamp(min=1e-12).reciprocal()

    def _takes_table(self, keep: Tensor | None) -> bool:
        return keep is None and self.path == "table"

    def _encode_drawn(
        self,
        pairs: "_Pairs",
        drawn_KL: Tensor,
        keep: Tensor | None,
        count_KL: Tensor | None,
    ) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """K times (L, D); `count_KL` is how often each row counts in batch normalisation."""
        pair_KL = drawn_KL * pairs.size + pairs.place_KL
        count_R = None if count_KL is None else count_KL.reshape(-1)
        if self._takes_table(keep):
            if count_R is None:
                weight_Q = occurrences(pair_KL.reshape(-1), pairs.h_QC)
            else:
                zero_Q = pairs.h_QC.new_zeros(len(pairs.h_QC))
                weight_Q = zero_Q.index_add(0, pair_KL.reshape(-1), count_R)
            z_QD, buffers = self._branch_table(pairs.h_QC, weight_Q)
            # One look-up a view: slices of a common one would make gradients full of zeros.
            return [rows(z_QD, pair_L) for pair_L in pair_KL], buffers
        h_KLC = self._dropped(rows(pairs.h_QC, pair_KL), keep)
        z_RD, buffers = self._branch_stack(h_KLC.flatten(0, 1), drawn_KL.reshape(-1), count_R)
        return z_RD.view(*drawn_KL.shape, -1).unbind(), buffers

    def _combined(self, views: Sequence[Tensor], count_KL: Tensor | None) -> Tensor:
        """(L, D) over the drawn modalities, all of which are there."""
        if self.rules.aggregation == "max":
            return reduce(torch.maximum, views)
        if count_KL is None:
            return sum(views[1:], views[0]) / len(views)
        total_LD = sum(c_L[:, None] * z_LD for c_L, z_LD in zip(count_KL, views, strict=True))
        return total_LD / count_KL.sum(0)[:, None]

    def _encode_all(
        self, pairs: "_Pairs", cell_L: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(L, D)."""
        present_MN = self.present_MN.value
        num_modalities = len(present_MN)
        (place_L,) = pairs.place_KL
        if self._takes_table(keep):
            count_P = occurrences(place_L, pairs.h_QC[: pairs.size])
            entity_P = pairs.entity_P
            present_MP = present_MN if entity_P is None else present_MN[:, entity_P]
            z_QD, buffers = self._branch_table(pairs.h_QC, (present_MP * count_P).reshape(-1))
            z_MPD = z_QD.view(num_modalities, pairs.size, -1)
            return rows(self._aggregate(z_MPD, present_MP), place_L), buffers
        every_M1 = torch.arange(num_modalities, device=cell_L.device)[:, None]
        h_MLC = self._dropped(rows(pairs.h_QC, every_M1 * pairs.size + place_L), keep)
        present_ML = present_MN[:, cell_L]
        modality_R = every_M1.expand_as(present_ML).reshape(-1)
        z_RD, buffers = self._branch_stack(h_MLC.flatten(0, 1), modality_R, present_ML.reshape(-1))
        z_MLD = z_RD.view(*present_ML.shape, -1)
        return self._aggregate(z_MLD, present_ML), buffers

    def _dropped(self, h_KLC: Tensor, keep: Tensor | None) -> Tensor:
        if keep is None:
            return h_KLC
        keep_KLC = keep.reshape(h_KLC.shape[1], h_KLC.shape[0], -1).transpose(0, 1)
        return h_KLC * keep_KLC / (1 - self.input_dropout)

    def _branch_table(self, h_QC: Tensor, weight_Q: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(Q, D) of the table of pairs, which lies modality by modality."""
        parts = len(self.branches)
        done = [
            cast(Branch, branch).train_rows(h, weight)
            for branch, h, weight in zip(
                self.branches, h_QC.chunk(parts), weight_Q.chunk(parts), strict=True
            )
        ]
        return torch.cat([z for z, _ in done]), _named(buffers for _, buffers in done)

    def _branch_stack(
        self, h_RC: Tensor, modality_R: Tensor, weight_R: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(R, D) of a stack of rows, each from the branch of its modality.

        Several branches all run on all rows, so that no shape depends on data.
        """
        if len(self.branches) == 1:
            z_RD, buffers = cast(Branch, self.branches[0]).train_rows(h_RC, weight_R)
            return z_RD, _named([buffers])
        parts, found = [], []
        for place, branch in enumerate(self.branches):
            mine_R = (modality_R == place).to(h_RC.dtype)
            weight = mine_R if weight_R is None else mine_R * weight_R
            z_RD, buffers = cast(Branch, branch).train_rows(h_RC, weight)
            parts.append(mine_R[:, None] * z_RD)
            found.append(buffers)
        return sum(parts[1:], parts[0]), _named(found)

    def _aggregate(self, z_MPD: Tensor, present_MP: Tensor) -> Tensor:
        """(P, D) over the modalities that are there; an entity without any gets zeros."""
        if self.rules.aggregation == "mean":
            if self.complete:
                return z_MPD.mean(0)
            total_PD = (z_MPD * present_MP[..., None]).sum(0)
            return total_PD / present_MP.sum(0).clamp(min=1)[..., None]
        if self.complete:
            return z_MPD.amax(0)
        there_MP1 = present_MP[..., None] > 0
        best_PD = z_MPD.masked_fill(~there_MP1, -torch.inf).amax(0)
        return torch.where(there_MP1.any(0), best_PD, 0.0)

    # --- scoring

    def table(self, modalities: Sequence[str] | None = None) -> Tensor:
        """(N, D) embeddings from `modalities`, by default those of the evaluation.

        An entity that has none of them gets a row of zeros.

        Raises:
            KeyError: a modality was not trained.
            ValueError: no modality is named.
        """
        names = self.rules.eval_names if modalities is None else tuple(modalities)
        if not names:
            raise ValueError("embeddings need at least one modality")
        places = [self._place(name) for name in names]
        z_MND = torch.stack([self._evaluated(place) for place in places])
        return self._aggregate(z_MND, self.present_MN.value[places])

    def alone(self, name: str) -> Tensor:
        """(N, D) embeddings from one modality; rows of nan where it is missing."""
        place = self._place(name)
        there_N1 = self.present_MN.value[place][:, None] > 0
        return torch.where(there_N1, self._evaluated(place), torch.nan)

    def _evaluated(self, place: int) -> Tensor:
        branch = self.branches[place if len(self.branches) > 1 else 0]
        return branch(self._normalized(self.projections[place]()))

    def _place(self, name: str) -> int:
        if name not in self.names:
            raise KeyError(f"no modality {name!r} was trained; there are: {', '.join(self.names)}")
        return self.names.index(name)


def _named(found: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {f"branches.{at}.{k}": v for at, buffers in enumerate(found) for k, v in buffers.items()}

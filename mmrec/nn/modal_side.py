"""A side whose entities are embedded from any subset of their modalities.

The mechanism of SiBraR (Ganhoer et al., RecSys 2024) and of MuBraR (the same group, TORS 2025).

Letters in names: N entities, M modalities, K modalities drawn for a cell, L cells of a batch,
P entities whose modalities are projected, Q = M P of their (modality, entity) pairs, modality
first, R rows of a stack, C common width, D output width.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.nn.branch import Branch
from mmrec.nn.modalities import ModalityDraws
from mmrec.nn.projections import Projection
from mmrec.nn.sides import Encoded, Side
from mmrec.nn.tables import Constant, rows

Aggregation = Literal["mean", "max"]


class _Pairs(NamedTuple):
    """Projected (modality, entity) pairs, and where a batch's cells lie among them."""

    h_QC: Tensor
    at_L: Tensor
    """(L,) place of each cell's entity among the P entities."""
    size: int
    """P."""
    whole: bool
    """Whether the P entities are all of the side's, in order."""


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
    only a cell's drawn modalities are averaged; without draws all that the entity has.

    Without dropout all rows of the stack that belong to one (modality, entity) pair are equal. So
    the branch is run once on the TABLE of all pairs, batch normalisation weighting each by how
    often it was drawn, unless the STACK of all drawn rows is shorter. Both give the same numbers.
    """

    path: Literal["auto", "table", "stack"] = "auto"
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

    def encode(
        self, entity: Tensor, drawn: Tensor | None = None, keep: Tensor | None = None
    ) -> Encoded:
        if self.rules.input_dropout and keep is None:
            raise ValueError("a side with dropout needs its mask in the batch's `extra`")
        cell_L = entity.reshape(-1)
        pairs = self._project(cell_L)
        if self.draws is None:
            embedding_LD, buffers = self._encode_all(pairs, cell_L, keep)
            return Encoded(embedding_LD.view(*entity.shape, -1), buffers=buffers)
        if drawn is None:
            raise ValueError(
                f"sampling {self.draws.sampling!r} needs the drawn modalities in the batch's"
                " `extra`; make batches with the model's `epoch_batches`"
            )
        drawn_KL = drawn.reshape(len(cell_L), -1).T
        flat, buffers = self._encode_drawn(pairs, drawn_KL, keep)
        views = tuple(view_LD.view(*entity.shape, -1) for view_LD in flat)
        distinct = None
        if not self.complete and self.draws.drawn == 2:
            distinct = (drawn[..., 0] != drawn[..., 1]).to(views[0].dtype)
        return Encoded(self._combined(views), views, distinct, buffers)

    def _project(self, cell_L: Tensor) -> "_Pairs":
        """Project all entities, or the batch's cells if they are fewer."""
        num_entities = self.present_MN.value.shape[1]
        whole = num_entities <= len(cell_L)
        h_QC = torch.cat([project(None if whole else cell_L) for project in self.projections])
        at_L = cell_L if whole else torch.arange(len(cell_L), device=cell_L.device)
        size = num_entities if whole else len(cell_L)
        return _Pairs(self._normalized(h_QC), at_L, size, whole)

    def _normalized(self, h_RC: Tensor) -> Tensor:
        return F.normalize(h_RC, dim=-1, eps=1e-12) if self.rules.normalize_input else h_RC

    def _takes_table(self, num_pairs: int, num_rows: int, keep: Tensor | None) -> bool:
        if self.path == "auto":
            return keep is None and num_pairs <= num_rows
        return self.path == "table" and keep is None

    def _encode_drawn(
        self, pairs: "_Pairs", drawn_KL: Tensor, keep: Tensor | None
    ) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """K times (L, D)."""
        pair_KL = drawn_KL * pairs.size + pairs.at_L
        if self._takes_table(len(pairs.h_QC), pair_KL.numel(), keep):
            once_R = pairs.h_QC.new_ones(pair_KL.numel())
            weight_Q = pairs.h_QC.new_zeros(len(pairs.h_QC)).index_add(
                0, pair_KL.reshape(-1), once_R
            )
            z_QD, buffers = self._branch_table(pairs.h_QC, weight_Q)
            # One look-up a view: slices of a common one would make gradients full of zeros.
            return [rows(z_QD, pair_L) for pair_L in pair_KL], buffers
        h_KLC = self._dropped(rows(pairs.h_QC, pair_KL), keep)
        z_RD, buffers = self._branch_stack(h_KLC.flatten(0, 1), drawn_KL.reshape(-1), None)
        return z_RD.view(*drawn_KL.shape, -1).unbind(), buffers

    def _combined(self, views: Sequence[Tensor]) -> Tensor:
        """(..., D) over the drawn modalities, all of which are there."""
        if self.rules.aggregation == "mean":
            return sum(views[1:], views[0]) / len(views)
        return reduce(torch.maximum, views)

    def _encode_all(
        self, pairs: "_Pairs", cell_L: Tensor, keep: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(L, D)."""
        present_MN = self.present_MN.value
        num_modalities = len(present_MN)
        if self._takes_table(len(pairs.h_QC), num_modalities * len(cell_L), keep):
            count_P = cell_L.new_ones(len(cell_L)).to(pairs.h_QC.dtype)
            present_MP = present_MN if pairs.whole else present_MN[:, cell_L]
            if pairs.whole:
                count_P = pairs.h_QC.new_zeros(pairs.size).index_add(0, cell_L, count_P)
            z_QD, buffers = self._branch_table(pairs.h_QC, (present_MP * count_P).reshape(-1))
            z_MPD = z_QD.view(num_modalities, pairs.size, -1)
            return rows(self._aggregate(z_MPD, present_MP), pairs.at_L), buffers
        every_M1 = torch.arange(num_modalities, device=cell_L.device)[:, None]
        h_MLC = self._dropped(rows(pairs.h_QC, every_M1 * pairs.size + pairs.at_L), keep)
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

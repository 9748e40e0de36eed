"""Which modalities a side has, which of them an entity has, and drawing some for a training cell.

Letters in names: N entities, M modalities, K modalities drawn for a cell, L cells, P entities
of a modality's list.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.data.dataset import INTERACTIONS, Category, Dense, Feature, Tags
from mmrec.nn.tables import Constant

Sampling = Literal["none", "single", "pairwise", "central"]

RANDOM_RANGE = 2**31
"""Random integers are uniform below this; taken modulo a few modalities their bias is nil."""


def modality_names(
    wanted: Sequence[str] | None, features: Mapping[str, Feature], side: str
) -> tuple[str, ...]:
    """The modalities of a side in their fixed order: interactions first, then by alphabet.

    Args:
        wanted: the names; None means interactions and every dense, tags and category feature.
        features: what the dataset has for the side.
        side: what the side is called in errors.

    Raises:
        KeyError: a name is unknown.
        ValueError: a name occurs twice, none is given, or a feature is called "interactions".
        TypeError: a feature is of a kind that cannot be projected.
    """
    if INTERACTIONS in features:
        raise ValueError(f"no {side} feature may be called {INTERACTIONS!r}, the training rows")
    able = sorted(n for n, f in features.items() if isinstance(f, Dense | Tags | Category))
    if wanted is None:
        return (INTERACTIONS, *able)
    if not wanted or len(set(wanted)) < len(wanted):
        raise ValueError(f"{side} modalities must be distinct, at least one, got {list(wanted)}")
    for name in wanted:
        if name != INTERACTIONS and name not in features:
            have = ", ".join((INTERACTIONS, *able))
            raise KeyError(f"no {side} modality {name!r}; there are: {have}")
        if name in features and name not in able:
            kind = features[name].kind
            raise TypeError(f"{side} modality {name!r} is of kind {kind!r}: it has no projection")
    return tuple(sorted(wanted, key=lambda name: (name != INTERACTIONS, name)))


def presence(
    names: Sequence[str], features: Mapping[str, Feature], num_entities: int
) -> NDArray[np.bool_]:
    """(N, M) which entity has which modality; interactions, a row that may be empty, all have."""
    columns = [
        np.ones(num_entities, dtype=bool) if name == INTERACTIONS else features[name].present
        for name in names
    ]
    return np.stack(columns, axis=1)


class ModalityDraws(nn.Module):
    """Draws modalities for cells, each uniformly among those that the cell's entity has.

    "single" draws one; "pairwise" `num` of them, ordered and without replacement; "central" the
    central modality, then `num - 1` of the others. What an entity lacks to `num` is made up by
    drawing its first one again. The first modalities are the same whatever `num` is.
    """

    def __init__(
        self, sampling: Sampling, present_NM: NDArray[np.bool_], central: int, num: int = 2
    ) -> None:
        """Order the modalities of each entity.

        Args:
            sampling: "single", "pairwise" or "central".
            present_NM: which entity has which modality.
            central: the place of the central modality; only "central" looks at it.
            num: how many a cell draws; "single" always draws one.

        Raises:
            ValueError: more are to be drawn than there are.
        """
        super().__init__()
        self.sampling = sampling
        self.drawn = 1 if sampling == "single" else num
        num_modalities = present_NM.shape[1]
        if self.drawn > num_modalities:
            there = f"there {'is' if num_modalities == 1 else 'are'} {num_modalities}"
            raise ValueError(f"sampling {sampling!r} draws {self.drawn} modalities, {there}")
        priority_M = np.arange(num_modalities)
        if sampling == "central":
            priority_M = np.argsort(priority_M != central, kind="stable")
        order_NM = priority_M[np.argsort(~present_NM[:, priority_M], axis=1, kind="stable")]
        self.order_NM = Constant(torch.from_numpy(order_NM))
        self.count_N = Constant(torch.from_numpy(present_NM.sum(1)))

    def forward(self, entity: Tensor, random: Tensor) -> Tensor:
        """(..., K) indices into the modalities.

        Args:
            entity: (...) int64.
            random: (..., 2) int64, uniform in [0, RANDOM_RANGE).
        """
        count = self.count_N.value[entity].clamp(min=1)
        first = random[..., 0] % count
        if self.sampling == "central":
            first = torch.zeros_like(first)
        ranks = [first]
        if self.drawn > 1:
            step = 1 + random[..., 1] % (count - 1).clamp(min=1)
            ranks.append((first + step) % count)
        ranks += _further(ranks, self.drawn, count, random)
        return self.order_NM.value[entity[..., None], torch.stack(ranks, -1)]


def _further(ranks: list[Tensor], num: int, count: Tensor, random: Tensor) -> list[Tensor]:
    """Ranks from the third to the `num`-th, none drawn before; the first again where none is left.

    They take what the first two leave of their random integers, so that a cell meets the same
    first two however many it draws. Of M modalities the bias is M! / 2^62.
    """
    if num <= 2:
        return []
    others = (count - 1).clamp(min=1)
    left = random[..., 0] // count * (RANDOM_RANGE // others + 1) + random[..., 1] // others
    taken = list(ranks)
    for place in range(2, num):
        remaining = (count - place).clamp(min=1)
        rank = left % remaining
        left = left // remaining
        # The rank-th of those that are not taken.
        for lower in torch.stack(taken, -1).sort(-1).values.unbind(-1):
            rank = rank + (rank >= lower)
        taken.append(torch.where(place < count, rank, ranks[0]))
    return taken[2:]


def first_times(drawn_KL: Tensor) -> Tensor:
    """(K, L) bool: whether a drawn modality is none of those that its cell drew before it."""
    # A Python loop over the few draws: nothing here depends on data.
    return torch.stack([(drawn_KL[:k] != drawn_KL[k]).all(0) for k in range(len(drawn_KL))])


def entity_lists(
    cell_L: Tensor, drawn_KL: Tensor, num_entities: int, num_modalities: int
) -> tuple[Tensor, Tensor]:
    """The distinct entities that each modality is drawn for, so that others need no projection.

    Args:
        cell_L: the entity of each cell.
        drawn_KL: the modalities that each cell draws.
        num_entities: N.
        num_modalities: M.

    Returns:
        (P, M) int64 lists in ascending order, filled up with entity 0, and (K, L) int64 where in
        its modality's list the entity of each draw lies. P is rounded up, by an eighth at most, so
        that the shapes of an epoch's batches are few: oneDNN keeps a kernel for each.
    """
    pair_KL = drawn_KL * num_entities + cell_L
    needed_MN = torch.zeros(num_modalities * num_entities, dtype=torch.bool, device=cell_L.device)
    needed_MN[pair_KL.reshape(-1)] = True
    needed_MN = needed_MN.view(num_modalities, num_entities)
    rank_MN = needed_MN.cumsum(1) - 1
    longest = int(rank_MN[:, -1].max()) + 1
    step = 1 << max(longest.bit_length() - 4, 0)
    size = min(-(-longest // step) * step, num_entities)
    entity_PM = torch.zeros(size, num_modalities, dtype=torch.int64, device=cell_L.device)
    modality_Q, entity_Q = needed_MN.nonzero().unbind(1)
    entity_PM[rank_MN[modality_Q, entity_Q], modality_Q] = entity_Q
    return entity_PM, rank_MN.view(-1)[pair_KL]


def central_index(names: Sequence[str], central: str, side: str) -> int:
    """The place of the central modality among `names`; KeyError if it is not there."""
    if central not in names:
        raise KeyError(f"the central modality {central!r} is no {side} one: {', '.join(names)}")
    return list(names).index(central)

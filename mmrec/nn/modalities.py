"""Which modalities a side has, which of them an entity has, and drawing some for a training cell.

Letters in names: N entities, M modalities, K modalities drawn for a cell.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.data.dataset import Category, Dense, Feature, Tags
from mmrec.nn.tables import Constant

INTERACTIONS = "interactions"

Sampling = Literal["none", "single", "pairwise", "central"]

DRAWN: dict[Sampling, int] = {"none": 0, "single": 1, "pairwise": 2, "central": 2}
"""How many modalities a cell draws."""

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

    "single" draws one; "pairwise" an ordered pair without replacement; "central" the central
    modality, then one of the others. An entity with one modality has it drawn twice.
    """

    def __init__(self, sampling: Sampling, present_NM: NDArray[np.bool_], central: int) -> None:
        """Order the modalities of each entity.

        Args:
            sampling: "single", "pairwise" or "central".
            present_NM: which entity has which modality.
            central: the place of the central modality; only "central" looks at it.

        Raises:
            ValueError: pairs are to be drawn from fewer than two modalities, or an entity lacks
                the central one.
        """
        super().__init__()
        self.sampling = sampling
        self.drawn = DRAWN[sampling]
        num_modalities = present_NM.shape[1]
        if self.drawn > num_modalities:
            raise ValueError(
                f"sampling {sampling!r} draws {self.drawn} modalities, there is {num_modalities}"
            )
        priority_M = np.arange(num_modalities)
        if sampling == "central":
            lacking = np.flatnonzero(~present_NM[:, central])
            if lacking.size:
                raise ValueError(
                    f"{lacking.size} entities, such as {lacking[0]}, lack the central modality"
                )
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
        if self.drawn == 1:
            return self.order_NM.value[entity, first][..., None]
        step = 1 + random[..., 1] % (count - 1).clamp(min=1)
        ranks = torch.stack((first, (first + step) % count), -1)
        return self.order_NM.value[entity[..., None], ranks]


def central_index(names: Sequence[str], central: str, side: str) -> int:
    """The place of the central modality among `names`; KeyError if it is not there."""
    if central not in names:
        raise KeyError(f"the central modality {central!r} is no {side} one: {', '.join(names)}")
    return list(names).index(central)

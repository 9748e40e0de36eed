"""A dataset before it is split, and the filters that come before a split.

Letters in names: E interactions, U users, I items.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmrec.data.dataset import Dense, Feature, Pairs
from mmrec.data.features import Scale, rescaled, take

Split = Literal["given", "random", "leave-one-out", "cold-item", "cold-user"]


@dataclass(frozen=True)
class Raw:
    """What a folder holds: all interactions in one list, and a table a modality."""

    name: str
    num_users: int
    num_items: int
    pairs: Pairs
    """(E, 2)."""
    features: Mapping[str, Feature] = field(default_factory=dict)
    user_features: Mapping[str, Feature] = field(default_factory=dict)
    label: NDArray[np.int64] | None = None
    """(E,) 0 train, 1 valid, 2 test, where the file says so."""
    rating: NDArray[np.float64] | None = None
    """(E,)."""
    ordered: bool = False
    """Whether the rows of a user are in order of time."""
    default_split: Split = "random"
    notes: tuple[str, ...] = ()


def scaled(raw: Raw, scale: Scale) -> Raw:
    """`raw` with its dense modalities, of items and of users, scaled as `rescaled` says."""
    notes: list[str] = []
    sides: list[dict[str, Feature]] = []
    for side in (raw.features, raw.user_features):
        features = dict(side)
        for name, feature in side.items():
            if isinstance(feature, Dense):
                features[name], said = rescaled(feature, name, scale)
                notes += said
        sides.append(features)
    return dataclasses.replace(
        raw, features=sides[0], user_features=sides[1], notes=(*raw.notes, *notes)
    )


def with_min_rating(raw: Raw, least: float) -> Raw:
    """Only the interactions rated `least` or better; ids stay as they are.

    Raises:
        ValueError: there are no ratings, or none is as high.
    """
    if raw.rating is None:
        raise ValueError(f"dataset {raw.name!r} has no ratings: min_rating={least} cannot apply")
    keep_E = raw.rating >= least
    if not keep_E.any():
        raise ValueError(f"dataset {raw.name!r} has no rating of {least} or better")
    note = f"min_rating {least:g}: {int(keep_E.sum())} of {len(keep_E)} interactions kept"
    return _kept(raw, keep_E, note)


def with_k_core(raw: Raw, k: int) -> Raw:
    """Only users and items with at least `k` interactions each, counted among those that stay.

    Removing an item may leave a user with too few, so this goes on until nothing changes. Those
    who stay are numbered anew without gaps, in their old order, and feature rows follow.

    Raises:
        ValueError: `k` is below 1, or nobody stays.
    """
    if k < 1:
        raise ValueError(f"k_core must be at least 1, got {k}")
    keep_E = np.ones(len(raw.pairs), dtype=np.bool_)
    user_E, item_E = raw.pairs[:, 0], raw.pairs[:, 1]
    while True:
        degree_U = np.bincount(user_E[keep_E], minlength=raw.num_users)
        degree_I = np.bincount(item_E[keep_E], minlength=raw.num_items)
        few_E = keep_E & ((degree_U[user_E] < k) | (degree_I[item_E] < k))
        if not few_E.any():
            break
        keep_E &= ~few_E
    if not keep_E.any():
        raise ValueError(f"k_core={k} leaves nothing of dataset {raw.name!r}")
    users, items = np.flatnonzero(degree_U), np.flatnonzero(degree_I)
    note = (
        f"k_core {k}: {len(users)} of {raw.num_users} users, {len(items)} of {raw.num_items}"
        f" items, {int(keep_E.sum())} of {len(keep_E)} interactions kept"
    )
    kept = _kept(raw, keep_E, note)
    pairs = np.stack(
        [np.searchsorted(users, kept.pairs[:, 0]), np.searchsorted(items, kept.pairs[:, 1])], axis=1
    )
    return dataclasses.replace(
        kept,
        num_users=len(users),
        num_items=len(items),
        pairs=pairs,
        features={name: take(feature, items) for name, feature in raw.features.items()},
        user_features={name: take(feature, users) for name, feature in raw.user_features.items()},
    )


def _kept(raw: Raw, keep_E: NDArray[np.bool_], note: str) -> Raw:
    return dataclasses.replace(
        raw,
        pairs=raw.pairs[keep_E],
        label=None if raw.label is None else raw.label[keep_E],
        rating=None if raw.rating is None else raw.rating[keep_E],
        notes=(*raw.notes, note),
    )

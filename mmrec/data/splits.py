"""Who is held out: the file's own labels, warm random, the latest, cold items, cold users.

Letters in names: E interactions, U users.
"""

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from mmrec.data.checks import seal
from mmrec.data.dataset import Dataset
from mmrec.data.raw import Raw, Split

SPLIT_SEED = 42
"""Splits are fixed under this seed, so that runs under many seeds meet one split."""
ONE_IN = 10
"""One in so many (rounded up) is held out for valid, and as many again for test."""
TRAIN, VALID, TEST = 0, 1, 2

_Labels = NDArray[np.int64]


def split(raw: Raw, how: Split | None = None, seed: int = SPLIT_SEED) -> Dataset:
    """Split, checked and made read-only.

    `how` is one of
      * given: the file's own labels;
      * random: per user, a tenth (rounded up) to valid and to test each, the rest to train;
      * leave-one-out: a user's latest interaction is test, the one before valid (ties in time
        keep file order);
      * cold-item, cold-user: all interactions of a tenth (rounded up) of the items or users that
        have any are valid, of another tenth test;
      * None: what the dataset's format names (`Raw.default_split`).
    Under random and leave-one-out, users with fewer than three interactions stay in train. A user
    without training rows cannot be ranked for, so, cold users aside, such a user's valid and test
    rows are dropped, and a note says how many.

    Args:
        raw: the interactions.
        how: see above.
        seed: of random, cold-item and cold-user; the others draw nothing.

    Raises:
        ValueError: unknown `how`; labels or an order of time are needed and not there; a part
            would be empty.
    """
    how = how or raw.default_split
    if how not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {how!r}")
    rng = np.random.default_rng(seed)
    match how:
        case "given":
            label_E = _given(raw)
        case "random":
            label_E = _random(raw, rng)
        case "leave-one-out":
            label_E = _leave_one_out(raw)
        case "cold-item":
            label_E = _cold(raw.pairs[:, 1], rng)
        case "cold-user":
            label_E = _cold(raw.pairs[:, 0], rng)
    trained_U = np.zeros(raw.num_users, dtype=np.bool_)
    trained_U[raw.pairs[label_E == TRAIN, 0]] = True
    keep_E = trained_U[raw.pairs[:, 0]] | (how == "cold-user")
    notes, dropped = raw.notes, int((~keep_E).sum())
    if dropped:
        notes = (*notes, f"{dropped} valid and test rows of users without training rows dropped")
    parts = (raw.pairs[keep_E & (label_E == part)] for part in (TRAIN, VALID, TEST))
    return seal(
        Dataset(
            raw.name,
            raw.num_users,
            raw.num_items,
            *parts,
            features=raw.features,
            user_features=raw.user_features,
            split=how,
            notes=notes,
            ordered=raw.ordered and _in_order(raw.pairs[keep_E, 0], label_E[keep_E]),
        )
    )


def _in_order(user_E: NDArray[np.int64], label_E: _Labels) -> bool:
    """Whether each user's rows are train, then valid, then test."""
    order_E = np.argsort(user_E, kind="stable")
    user_E, label_E = user_E[order_E], label_E[order_E]
    return not ((user_E[1:] == user_E[:-1]) & (label_E[1:] < label_E[:-1])).any()


def _given(raw: Raw) -> _Labels:
    if raw.label is None:
        raise ValueError(
            f"dataset {raw.name!r} comes without a split; choose random, cold-item, cold-user"
            + (" or leave-one-out" if raw.ordered else "")
        )
    return raw.label


def _random(raw: Raw, rng: np.random.Generator) -> _Labels:
    place_E, count_E = _place(raw.pairs[:, 0], rng.random(len(raw.pairs)))
    held_E = -(-count_E // ONE_IN)
    label_E = np.where(place_E < held_E, TEST, np.where(place_E < 2 * held_E, VALID, TRAIN))
    return np.where(count_E < 3, TRAIN, label_E)


def _leave_one_out(raw: Raw) -> _Labels:
    if not raw.ordered:
        raise ValueError(
            f"dataset {raw.name!r} has neither timestamps nor sequences:"
            " leave-one-out needs an order of time"
        )
    latest_first = -np.arange(len(raw.pairs))
    place_E, count_E = _place(raw.pairs[:, 0], latest_first)
    label_E = np.where(place_E == 0, TEST, np.where(place_E == 1, VALID, TRAIN))
    return np.where(count_E < 3, TRAIN, label_E)


def _place(user_E: NDArray[np.int64], key_E: NDArray) -> tuple[_Labels, _Labels]:
    """(place of each row among its user's rows by ascending key, number of the user's rows)."""
    order = np.lexsort((key_E, user_E))
    count_U = np.bincount(user_E)
    first_U = np.cumsum(count_U) - count_U
    place_E = np.empty(len(user_E), dtype=np.int64)
    place_E[order] = np.arange(len(user_E)) - first_U[user_E[order]]
    return place_E, count_U[user_E]


def _cold(id_E: NDArray[np.int64], rng: np.random.Generator) -> _Labels:
    shuffled = rng.permutation(np.unique(id_E))
    held = -(-len(shuffled) // ONE_IN)
    label_N = np.full(int(id_E.max()) + 1, TRAIN, dtype=np.int64)
    label_N[shuffled[:held]] = VALID
    label_N[shuffled[held : 2 * held]] = TEST
    return label_N[id_E]

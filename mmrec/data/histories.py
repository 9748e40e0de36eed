"""What users did before, in order of time: what models of sequences are trained on and rank by.

Letters in names: U users, E interactions, B users asked for, L length of a history, T targets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmrec.data.dataset import Dataset, Part, starts_of

NOTHING = -1
"""Stands in a history where there is no item."""


@dataclass(frozen=True)
class Histories:
    """The items of every user, the latest one last: user u's are `items[starts[u]:starts[u+1]]`."""

    starts: NDArray[np.int64]
    """(U + 1,)."""
    items: NDArray[np.int64]
    """(E,)."""

    def last(self, user_B: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """(B, length) the latest items, the latest one last; `NOTHING` in front of shorter ones."""
        return self.before(self.starts[user_B + 1], user_B, length)

    def before(
        self, end_B: NDArray[np.int64], user_B: NDArray[np.int64], length: int
    ) -> NDArray[np.int64]:
        """(B, length) the items right before the positions `end_B` of `items`, as in `last`."""
        at_BL = end_B[:, None] + np.arange(-length, 0)
        there_BL = at_BL >= self.starts[user_B][:, None]
        return np.where(there_BL, self.items[np.where(there_BL, at_BL, 0)], NOTHING)


def histories(data: Dataset, part: Part) -> Histories:
    """What is known of every user when a part is ranked: train, and at test valid after it.

    Raises:
        ValueError: the dataset is not in order of time.
    """
    require_ordered(data)
    pairs = data.train if part == "valid" else np.concatenate([data.train, data.valid])
    order_E = np.argsort(pairs[:, 0], kind="stable")
    starts = starts_of(np.bincount(pairs[:, 0], minlength=data.num_users))
    return Histories(starts, np.ascontiguousarray(pairs[order_E, 1]))


@dataclass(frozen=True)
class Targets:
    """Training rows of a model that says what comes next: each item that has one before it."""

    user: Tensor
    """(T,) int64, ascending."""
    item: Tensor
    """(T,) int64."""
    history: Tensor
    """(T, L) int64, what came before, the latest last, `NOTHING` in front."""


def targets(data: Dataset, length: int) -> Targets:
    """Every training item but a user's first, by user, then by time.

    Raises:
        ValueError: the dataset is not in order of time, or no user has two training items.
    """
    train = histories(data, "valid")
    require_next(data, train)
    user_E = np.repeat(np.arange(data.num_users), np.diff(train.starts))
    at_T = np.flatnonzero(np.arange(len(user_E)) > train.starts[user_E])
    history_TL = train.before(at_T, user_E[at_T], length)
    return Targets(*map(torch.from_numpy, (user_E[at_T], train.items[at_T], history_TL)))


def require_next(data: Dataset, train: Histories) -> None:
    """ValueError unless some user has two training items, so that one comes after another."""
    if np.diff(train.starts).max() < 2:
        raise ValueError(
            f"dataset {data.name!r}: no user has two training items, so that nothing comes next"
        )


def require_ordered(data: Dataset) -> None:
    """ValueError unless every user's rows are in order of time, across the parts."""
    if not data.ordered:
        raise ValueError(
            f"dataset {data.name!r}, split {data.split!r}, is not in order of time, train before"
            " valid before test: a model of sequences needs that, as --split leave-one-out gives"
            " it of data with timestamps or sequences"
        )

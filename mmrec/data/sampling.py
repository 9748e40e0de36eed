"""Every random draw of a run, keyed so that it can be made again: epoch order, negatives, masks.

All draws are made on the CPU: the same seed gives the same rows on any device.

Letters in names: E training interactions, N negatives a row, P distinct training items,
Q distinct ids.
"""

import hashlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from mmrec.data.dataset import Dataset

Stream = Literal["init", "order", "negatives", "modalities", "edges", "dropout"]


@dataclass(frozen=True)
class Draws:
    """The source of a run's randomness.

    A generator is keyed by (seed, stream, epoch) and by nothing else, so that a resumed run needs
    no generator state, and runs under one seed meet the same draws whatever else they differ in.
    """

    seed: int

    def generator(self, stream: Stream, epoch: int = 0) -> torch.Generator:
        """A fresh CPU generator for one stream of one epoch (`init` has epoch 0)."""
        if stream not in get_args(Stream):
            raise KeyError(f"no stream {stream!r}; streams are {', '.join(get_args(Stream))}")
        key = hashlib.sha256(f"mmrec/{self.seed}/{stream}/{epoch}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(key[:8], "big") >> 1)


@dataclass(frozen=True)
class BatchShape:
    """How many rows a step has, and how many negatives a row."""

    size: int
    negatives: int


@dataclass(frozen=True)
class TrainingPairs:
    """The training interactions as tensors, with what drawing negatives needs."""

    user: Tensor
    """(E,) int64 on the CPU."""
    item: Tensor
    """(E,) int64 on the CPU."""
    keys: Tensor
    """(E,) sorted `user * num_items + item`, to ask whether a pair was seen."""
    pool: Tensor
    """(P,) the distinct training items, ascending: only these are drawn as negatives."""
    num_items: int
    device: torch.device

    @classmethod
    def of(cls, data: Dataset, device: torch.device | str = "cpu") -> "TrainingPairs":
        """From a dataset.

        Raises:
            ValueError: a user has interacted with every item of the pool, so that no negative
                exists (the message names the user).
        """
        user, item = (torch.from_numpy(np.ascontiguousarray(data.train[:, c])) for c in (0, 1))
        pool = torch.unique(item)
        fullest = torch.bincount(user, minlength=1)
        if int(fullest.max()) >= len(pool):
            raise ValueError(
                f"user {int(fullest.argmax())} has interacted with all {len(pool)} training items:"
                " no negative can be drawn"
            )
        keys = torch.unique(user * data.num_items + item)
        return cls(user, item, keys, pool, data.num_items, torch.device(device))

    def __len__(self) -> int:
        return len(self.user)

    def seen(self, user: Tensor, item: Tensor) -> Tensor:
        """Whether each pair is a training interaction; any shapes that broadcast."""
        wanted = user * self.num_items + item
        at = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
        return self.keys[at] == wanted


def distinct(*ids: Tensor) -> tuple[Tensor, *tuple[Tensor, ...]]:
    """(Q,) every id once, ascending, then for each argument where in that list its ids are.

    For models that map features: a batch of 2,048 rows meets an item three times or more, and one
    product serves all. Entries may be repeated at the end of the list, as lanes of unlike length
    need it: nothing points to them.
    """
    listed_Q, place = torch.unique(torch.cat([i.reshape(-1) for i in ids]), return_inverse=True)
    parts = place.split([i.numel() for i in ids])
    return listed_Q, *(part.view(i.shape) for part, i in zip(parts, ids, strict=True))


def item_places(positive_B: Tensor, negative_BN: Tensor) -> dict[str, Tensor]:
    """The distinct `items` (Q,) of a batch, and where among them its rows' are.

    `positive_at` is (B,), `negative_at` (B, N).
    """
    items, positive_at, negative_at = distinct(positive_B, negative_BN)
    return {"items": items, "positive_at": positive_at, "negative_at": negative_at}


@dataclass(frozen=True)
class EpochRows:
    """One epoch of training rows, in the order in which they are met, on the run's device."""

    user: Tensor
    """(E,)."""
    positive: Tensor
    """(E,)."""
    negative: Tensor
    """(E, N)."""


def bpr_epoch(data: TrainingPairs, draws: Draws, epoch: int, negatives: int) -> EpochRows:
    """Every training interaction once, in a fresh order, each with `negatives` unseen items.

    Negatives are i.i.d. uniform over the training items, with replacement, redrawn while they are
    training positives of the user (as both released code bases do).
    """
    order_E = torch.randperm(len(data), generator=draws.generator("order", epoch))
    user_E, positive_E = data.user[order_E], data.item[order_E]
    negative_EN = draw_negatives(data, user_E, negatives, draws.generator("negatives", epoch))
    return EpochRows(*(t.to(data.device) for t in (user_E, positive_E, negative_EN)))


def draw_negatives(
    data: TrainingPairs, user_E: Tensor, negatives: int, rng: torch.Generator
) -> Tensor:
    """(E, negatives) items that the users did not interact with in training."""
    user_M = user_E.repeat_interleave(negatives)
    negative_M = data.pool[torch.randint(len(data.pool), user_M.shape, generator=rng)]
    wrong_R = data.seen(user_M, negative_M).nonzero()[:, 0]
    while len(wrong_R):
        drawn_R = data.pool[torch.randint(len(data.pool), wrong_R.shape, generator=rng)]
        negative_M[wrong_R] = drawn_R
        wrong_R = wrong_R[data.seen(user_M[wrong_R], drawn_R)]
    return negative_M.view(len(user_E), negatives)

"""Nuisance knobs, such as the learning rate: every arm of a study gets the same number of tries.

The tries are planned, not searched: the arm's own settings first, then a scrambled Sobol sequence,
the same shares of every arm's ranges. So they have names before the first one runs, can be made in
any order and on any number of machines, and the choice does not depend on which ended first. They
see validation only, under the first seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import qmc

from mmrec.config import get
from mmrec.study.ranges import Range
from mmrec.training import RunConfig

LEARNING_RATE = Range(3e-4, 1e-2, log=True)
WEIGHT_DECAY = Range(1e-7, 1e-3, log=True)
REGULARISER = "model.reg_weight"
SEQUENCE_SEED = 0


def learning_rate_and_regulariser(run: RunConfig) -> dict[str, Range]:
    """The two knobs that the field tunes for every model.

    The regulariser is the model's own over the range that its authors searched, or the weight
    decay where they searched none.
    """
    published = [level for level in type(run.model).search_space.get(REGULARISER, ()) if level > 0]
    if len(published) > 1:
        regulariser = {REGULARISER: Range(min(published), max(published), log=True)}
    else:
        regulariser = {"train.weight_decay": WEIGHT_DECAY}
    return {"train.lr": LEARNING_RATE, **regulariser}


@dataclass(frozen=True)
class Tuning:
    """How the nuisance knobs of a study's arms are chosen."""

    trials: int = 20
    """Tries an arm, its own settings among them; 0 or 1 leaves those."""
    each: bool = False
    """Whether every condition of an arm is tuned by itself, in place of the first one only."""
    knobs: Callable[[RunConfig], Mapping[str, Range]] = learning_rate_and_regulariser
    fixed: frozenset[str] = field(default_factory=frozenset)
    """Dotted paths that are not tuned, since somebody has set them."""

    def __post_init__(self) -> None:
        if self.trials < 0:
            raise ValueError(f"the number of tuning trials must be at least 0, got {self.trials}")

    def ranges(self, run: RunConfig) -> dict[str, Range]:
        """Dotted path -> where it is looked for, for an arm."""
        return {path: r for path, r in self.knobs(run).items() if path not in self.fixed}

    def points(self, run: RunConfig) -> list[dict[str, Any]]:
        """The tries of an arm: dotted path -> value, the arm's own settings first."""
        ranges = self.ranges(run)
        if self.trials < 2 or not ranges:
            return []
        own = {path: get(run, path) for path in ranges}
        sobol = qmc.Sobol(len(ranges), seed=SEQUENCE_SEED)
        # A Sobol sequence is balanced over a power of two of its points.
        shares = sobol.random_base2(int(np.ceil(np.log2(self.trials))))[: self.trials - 1]
        drawn = [
            {path: r.at(share) for (path, r), share in zip(ranges.items(), row, strict=True)}
            for row in shares.tolist()
        ]
        return [own, *drawn]

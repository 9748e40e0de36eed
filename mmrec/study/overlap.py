"""Whose next item two arms both find: hits in common, and claims about them.

A user is found by a trial if the test objective that the trial kept of the user, such as NDCG@10,
is above 0: something that the user takes is in the list. Zhu et al. (arXiv 2503.23333) tell by such
overlaps which modality a fused model goes by; how they define them is not known.

Letters in names: S seeds, U users.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import ClassVar, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmrec.stats import SMALLEST, Paired, Verdict, bootstrap_t, judge_better
from mmrec.study import text
from mmrec.study.claims import Absent, ClaimData, ClaimTest, Where, best_cell, span, worded

Found = NDArray[np.bool_]
"""(U,) whether a trial found each user's item."""

HITS = ["one", "other", "seed", "found_one", "found_other", "both", "users"]
"""Columns of `shared_hits`."""


class Shared(NamedTuple):
    """How many users two trials find."""

    one: int
    other: int
    both: int
    users: int

    @classmethod
    def of(cls, one_U: Found, other_U: Found) -> "Shared":
        """Of the same users in the same order; ValueError if they cannot be."""
        if one_U.shape != other_U.shape:
            raise ValueError(f"trials rank for {len(one_U)} and {len(other_U)} users")
        both = int((one_U & other_U).sum())
        return cls(int(one_U.sum()), int(other_U.sum()), both, len(one_U))

    @property
    def jaccard(self) -> float:
        """Found by both over found by either (Jaccard 1901); nan if nobody is found."""
        return _ratio(self.both, self.one + self.other - self.both)

    @property
    def share(self) -> float:
        """The share of those that `one` finds which `other` finds too; nan if it finds nobody."""
        return _ratio(self.both, self.one)

    @property
    def independent(self) -> "Shared":
        """As many each, and both as often as if one had nothing to do with the other."""
        expected = _ratio(self.one * self.other, self.users)
        return self._replace(both=expected)  # pyright: ignore[reportArgumentType] - a mean count

    @property
    def turned(self) -> "Shared":
        """The same with `other` first."""
        return self._replace(one=self.other, other=self.one)


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


def hits(where: Where, data: ClaimData) -> tuple[str, Mapping[int, Found]]:
    """The best cell in words, and by seed whom it finds.

    Raises:
        Absent: no trial fits, or one of them kept nothing of its users.
    """
    side = best_cell(where, data)
    found = {}
    for seed, name in side.rows["hash"].items():
        kept_U = data.per_user(str(name))
        if kept_U is None:
            raise Absent(f"{side.words} kept nothing of its users under seed {seed}")
        found[int(str(seed))] = kept_U > 0
    return side.words, found


def shared_hits(arms: Iterable[str], condition: str, data: ClaimData) -> pd.DataFrame:
    """One row a pair of arms and seed of both: counts of users, columns `HITS`.

    Arms that have no trial under the condition, or none that kept its users, are left out.
    """
    found: dict[str, Mapping[int, Found]] = {}
    for arm in arms:
        try:
            _, found[arm] = hits(Where({"arm": arm, "condition": condition}), data)
        except Absent:
            continue
    rows = [
        (one, other, seed, *Shared.of(found[one][seed], found[other][seed]))
        for one, other in combinations(found, 2)
        for seed in sorted(found[one].keys() & found[other].keys())
    ]
    return pd.DataFrame(rows, columns=HITS)


@dataclass(frozen=True)
class OverlapsMore(ClaimTest):
    """`cell` shares more of its hits with `with_` than with `than`: Jaccard, paired by seed."""

    cell: Where
    with_: Where
    than: Where
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the mean overlap with `than`."""
    by_users: ClassVar[bool] = True

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        words, mine = hits(self.cell, data)
        (near_words, near), (far_words, far) = (hits(w, data) for w in (self.with_, self.than))
        seeds = sorted(mine.keys() & near.keys() & far.keys())
        if not seeds:
            raise Absent(f"no seed in common: {words}, {near_words}, {far_words}")
        near_S, far_S = (
            np.array([Shared.of(mine[seed], side[seed]).jaccard for seed in seeds])
            for side in (near, far)
        )
        if np.isnan([near_S, far_S]).any():
            raise Absent(f"under some seed nobody is found by {words} and what it is compared with")
        verdict = judge_better(Paired.of(near_S, far_S), alpha, self.smallest)
        missing = len(mine.keys() | near.keys() | far.keys()) - len(seeds)
        said = [
            f"{words} shares {text.score(float(near_S.mean()), 3)} of hits with {near_words},"
            f" {text.score(float(far_S.mean()), 3)} with {far_words} (found by both over found by"
            " either)",
            f"{missing} seeds are not in all" if missing else "",
            f"bootstrap-t {span(bootstrap_t(near_S - far_S, alpha))}",
        ]
        return worded(replace(verdict, unit="overlap of hits"), 1 - alpha, said)

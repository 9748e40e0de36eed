"""Claims about means over several cells, such as all conditions in which one modality is left.

They follow the one procedure of `mmrec.study.claims`: seeds are the replicates, differences are
paired by seed, and here each side has one number a seed, the mean over its cells. No cell is chosen
and none is left out on one side only: sides that are means over conditions must have the same ones,
or the easier conditions would decide.

Letters in names: C cells, S seeds, U users.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from mmrec.stats import SMALLEST, Paired, Vector, Verdict, bootstrap_t, judge_better, user_interval
from mmrec.study import text
from mmrec.study.claims import (
    Absent,
    ClaimData,
    ClaimTest,
    Where,
    cells_by_seeds,
    judge_worse,
    span,
    with_users,
    worded,
)
from mmrec.study.contrasts import loss_by_user

MOST_NAMES = 3
"""Conditions that a reason lists."""


@dataclass(frozen=True)
class _Mean:
    """What several cells come to."""

    value_S: pd.Series
    """Mean over the cells, by the seeds that all of them have."""
    rows: pd.DataFrame
    """Their trials under these seeds."""
    conditions: frozenset[str]
    words: str

    def users(self, seed: int, data: ClaimData) -> Vector | None:
        """(U,) test objective under a seed, mean over the cells; None if it was not kept."""
        vectors = [data.per_user(name) for name in self.rows.loc[self.rows["seed"] == seed, "hash"]]
        kept = [v for v in vectors if v is not None]
        return np.mean(kept, axis=0) if len(kept) == len(vectors) else None


def _mean(where: Where, data: ClaimData, column: str) -> _Mean:
    """The mean over all cells that fit.

    Raises:
        Absent: there are none, or one of their conditions has more cells than another, so that the
            mean would weigh them by accident.
    """
    rows = where.of(data.rows())
    table_CS, note = cells_by_seeds(rows, column)
    rows = rows[rows["cell"].isin(table_CS.index) & rows["seed"].isin(table_CS.columns)]
    first = rows.drop_duplicates("cell")
    counts = first["condition"].value_counts()
    words = _words(first, len(counts)) + (f", {note}" if note else "")
    if counts.min() < counts.max():
        raise Absent(
            f"{words}: {counts.index[0]} has {text.count(int(counts.iloc[0]), 'cell')},"
            f" {counts.index[-1]} {counts.iloc[-1]}: a mean would weigh them unlike"
        )
    return _Mean(table_CS.mean(), rows, frozenset(counts.index), words)


def _words(first: pd.DataFrame, conditions: int) -> str:
    """What the mean is of: a cell's label, or the arms and how many cells; a row a cell."""
    if len(first) == 1:
        return str(first["label"].iloc[0])
    arms = [arm for arm in dict.fromkeys(first["arm"]) if arm] if "arm" in first else []
    under = f" under {conditions} conditions" if conditions > 1 else ""
    return f"{', '.join(arms)} (mean of {len(first)} cells{under})".lstrip()


def _require_alike(one: _Mean, other: _Mean) -> None:
    """Absent unless means over conditions are over the same ones; two single ones may differ."""
    apart = sorted(one.conditions ^ other.conditions)
    if apart and max(len(one.conditions), len(other.conditions)) > 1:
        named = ", ".join(apart[:MOST_NAMES]) + ", ..." * (len(apart) > MOST_NAMES)
        raise Absent(
            f"{one.words} and {other.words} are not under the same conditions: on one side only are"
            f" {named}"
        )


def _common(sides: Sequence[_Mean]) -> tuple[list[int], str]:
    """The seeds that all sides have, and in words how many others there are.

    Raises:
        Absent: there is none.
    """
    seeds = [set(side.value_S.index) for side in sides]
    common = sorted(set.intersection(*seeds))
    if not common:
        raise Absent(f"no seed in common: {', '.join(side.words for side in sides)}")
    missing = len(set.union(*seeds)) - len(common)
    return common, f"{missing} seeds are not in all" if missing else ""


@dataclass(frozen=True)
class MeanBetter(ClaimTest):
    """The mean over all cells of `cells` is better on test than the mean over those of `than`.

    No cell is chosen, as `mmrec.study.claims.Better` does: all that fit are averaged in a seed.
    """

    cells: Where
    than: Where
    column: str = ""
    """What is averaged, such as `measure.item_cosine`; empty: the test objective. Of another column
    "better" says "greater"."""
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the mean of `than`."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        column = self.column or data.test
        left, right = (_mean(where, data, column) for where in (self.cells, self.than))
        if set(left.rows["cell"]) & set(right.rows["cell"]):
            raise Absent(f"both sides have cells in common: {left.words}, {right.words}")
        _require_alike(left, right)
        seeds, missing = _common((left, right))
        left_S, right_S = (side.value_S.loc[seeds].to_numpy(float) for side in (left, right))
        verdict = judge_better(Paired.of(left_S, right_S), alpha, self.smallest)
        words = [
            f"{left.words} {text.score(float(left_S.mean()))} against {right.words}"
            f" {text.score(float(right_S.mean()))}",
            missing,
            f"bootstrap-t {span(bootstrap_t(left_S - right_S, alpha))}",
        ]
        verdict = worded(replace(verdict, unit=column.removeprefix("test.")), 1 - alpha, words)
        if column != data.test:
            return verdict
        rows = [side.rows[side.rows["seed"].isin(seeds)] for side in (left, right)]
        return with_users(verdict, data, rows)


# --- what is kept


@dataclass(frozen=True)
class _Kept:
    """The share that the mean over some cells is of another mean."""

    cells: _Mean
    of: _Mean

    @classmethod
    def between(cls, cells: Where, of: Where, data: ClaimData) -> "_Kept":
        """Of the test objective."""
        return cls(_mean(cells, data, data.test), _mean(of, data, data.test))

    def share(self, seeds: list[int]) -> Vector:
        """(S,) by seed.

        Raises:
            Absent: under a seed there is nothing to keep.
        """
        whole_S = self.of.value_S.loc[seeds]
        if not (whole_S > 0).all():
            raise Absent(f"under seed {(whole_S > 0).idxmin()} {self.of.words} has nothing to lose")
        return (self.cells.value_S.loc[seeds] / whole_S).to_numpy(float)

    def words(self, seeds: list[int]) -> str:
        """`A (mean of 5 cells under 5 conditions) keeps 54.0 % of A baseline`."""
        share = 100 * float(self.share(seeds).mean())
        return f"{self.cells.words} keeps {share:.1f} % of {self.of.words}"

    def users(self, seeds: list[int], data: ClaimData) -> Vector | None:
        """(U,) whose mean is the share that is kept, averaged over seeds; None if not known."""
        kept = []
        for seed in seeds:
            part_U, whole_U = self.cells.users(seed, data), self.of.users(seed, data)
            if part_U is None or whole_U is None:
                return None
            kept.append(1 - loss_by_user(whole_U, part_U))
        return np.mean(kept, axis=0)


@dataclass(frozen=True)
class RetainsMore(ClaimTest):
    """Some cells keep a larger share of what another cell has than it is so on another side.

    Under a seed, the share is the mean over all cells of `cells` over the mean over those of `of`
    (in general one cell). The effect is the difference of the two shares: .01 is a percentage
    point.
    """

    cells: Where
    of: Where
    than_cells: Where
    than_of: Where
    smallest: float = SMALLEST
    """Smallest effect of interest, in shares: .01 is a percentage point."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        left = _Kept.between(self.cells, self.of, data)
        right = _Kept.between(self.than_cells, self.than_of, data)
        _require_alike(left.cells, right.cells)
        _require_alike(left.of, right.of)
        seeds, missing = _common((left.cells, left.of, right.cells, right.of))
        left_S, right_S = left.share(seeds), right.share(seeds)
        # Shares are of each side's own whole already: with a base of 1, `smallest` counts
        # percentage points, and `relative` is the effect.
        pair = replace(Paired.of(left_S, right_S), base=1.0)
        verdict = judge_better(pair, alpha, self.smallest)
        verdict = replace(verdict, unit=f"{data.objective} kept as a share")
        words = [
            f"{left.words(seeds)}, {right.words(seeds)}",
            missing,
            f"bootstrap-t {span(bootstrap_t(left_S - right_S, alpha))}",
        ]
        verdict = worded(verdict, 1 - alpha, words)
        users = [side.users(seeds, data) for side in (left, right)]
        if users[0] is None or users[1] is None:
            return verdict
        low, high = user_interval(users[0] - users[1])
        return replace(verdict, user_low=low, user_high=high)


@dataclass(frozen=True)
class _AgainstShare(ClaimTest):
    """What cells keep of another, against a share that is given.

    `effect` is the share that is kept, `relative` the change that this is. It is judged over seeds
    by the paired differences from the share that is given.
    """

    cells: Where
    of: Where
    by: float = 0.5
    """Share of `of` that is lost at the limit."""
    smallest: float = SMALLEST
    """Smallest distance of interest from the limit, in shares: .01 is a percentage point."""

    def __post_init__(self) -> None:
        if not 0 < self.by < 1:
            raise ValueError(f"a loss by a share between 0 and 1 is judged, got by={self.by}")

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        kept = _Kept.between(self.cells, self.of, data)
        seeds, missing = _common((kept.cells, kept.of))
        share_S, limit = kept.share(seeds), 1 - self.by
        pair = replace(Paired.of(share_S, np.full(len(seeds), limit)), base=1.0)
        verdict = self.verdict(pair, alpha)
        words = [
            f"{kept.words(seeds)}; the limit is {100 * limit:.3g} %",
            missing,
            f"bootstrap-t {span(bootstrap_t(share_S, alpha))}",
        ]
        ends = {"low": verdict.low + limit, "high": verdict.high + limit}
        effect = verdict.effect + limit
        verdict = replace(verdict, effect=effect, relative=effect - 1, **ends)
        verdict = replace(verdict, unit="share kept")
        verdict = worded(verdict, 1 - alpha, words)
        users_U = kept.users(seeds, data)
        if users_U is None:
            return verdict
        low, high = user_interval(users_U)
        return replace(verdict, user_low=low, user_high=high)

    @abstractmethod
    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        """What the differences from the limit say."""


@dataclass(frozen=True)
class Drops(_AgainstShare):
    """The mean over `cells` is below what `of` has by more than the share `by`: a steep fall."""

    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        return judge_worse(pair, alpha, self.smallest)


@dataclass(frozen=True)
class Holds(_AgainstShare):
    """The mean over `cells` is below what `of` has by less than the share `by`, or above it."""

    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        return judge_better(pair, alpha, self.smallest)

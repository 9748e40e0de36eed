"""Claims that name the size of a gain, such as "better by at least 20 %".

They follow the one procedure of `mmrec.study.claims`: seeds are the replicates, and numbers are
paired by seed.

Letters in names: S seeds.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats as sps

from mmrec.stats import ALPHA, NAN, Paired, Vector, Verdict, bootstrap_t, judge_better
from mmrec.study import text
from mmrec.study.claims import (
    Absent,
    ClaimData,
    ClaimTest,
    Side,
    Where,
    best_cell,
    span,
    with_users,
    worded,
)


@dataclass(frozen=True)
class BetterBy(ClaimTest):
    """The best cell of `cell` is better on test than the best one of `than` by a share, or more.

    Judged by the differences x - (1 + share) y, seed by seed: supported if their interval is above
    0, refuted if it is below. `effect` is the gain achieved, mean x over mean y less 1, and its
    interval the gains that this test would not refuse (Fieller 1954), so that it is above `share`
    exactly when the claim is supported.
    """

    cell: Where
    than: Where
    share: float
    """The gain that is claimed: .2 is "by at least 20 %"."""

    def __post_init__(self) -> None:
        if not self.share > 0:
            raise ValueError(
                f"a gain by a share above 0 is judged, got share={self.share}; Better takes any"
            )

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        left, right = best_cell(self.cell, data), best_cell(self.than, data)
        if left.cell == right.cell:
            raise Absent(f"both sides are one cell: {left.words}")
        seeds = left.rows.index.intersection(right.rows.index).sort_values()
        if seeds.empty:
            raise Absent(f"no seed in common: {left.words}, {right.words}")
        x_S, y_S = (side.rows.loc[seeds, data.test].to_numpy(float) for side in (left, right))
        if not y_S.mean() > 0:
            raise Absent(f"{right.words} has nothing that a share could be of")
        return self._judged((left, right), (x_S, y_S), data, alpha)

    def _judged(
        self, sides: tuple[Side, Side], values: tuple[Vector, Vector], data: ClaimData, alpha: float
    ) -> Verdict:
        (left, right), (x_S, y_S) = sides, values
        base, wanted_S = float(y_S.mean()), (1 + self.share) * y_S
        pair = Paired.of(x_S, wanted_S)
        # No smallest effect of interest: a gain of just the share claimed is not refuted.
        verdict = judge_better(pair, alpha, smallest=0.0)
        gain, (low, high) = float(x_S.mean()) / base - 1, gain_interval(x_S, y_S, alpha)
        ends = "" if math.isnan(low) else f" ({text.interval(low, high, text.percent)})"
        missing = len(left.rows.index.union(right.rows.index)) - len(x_S)
        words = [
            f"{left.words} {text.score(float(x_S.mean()))} against"
            f" {right.words} {text.score(base)}",
            f"gain {text.percent(gain)}{ends}, claimed {text.percent(self.share)} or more",
            f"{missing} seeds are not in both" if missing else "",
            f"beyond the claim by {text.signed(pair.effect)} {text.metric(data.objective)},"
            f" {span((verdict.low, verdict.high))},"
            f" bootstrap-t {span(bootstrap_t(x_S - wanted_S, alpha))}",
        ]
        verdict = replace(verdict, effect=gain, relative=gain, low=low, high=high)
        verdict = replace(verdict, unit="share gained", mde=verdict.mde / base)
        return self._with_users(worded(verdict, 1 - alpha, words), data, sides)

    def _with_users(self, verdict: Verdict, data: ClaimData, sides: tuple[Side, Side]) -> Verdict:
        """As `with_users`, in shares of the mean that is compared with."""
        seeds = sides[0].rows.index.intersection(sides[1].rows.index)
        rows = [side.rows.loc[seeds] for side in sides]
        base = float(rows[1][data.test].mean())
        found = with_users(verdict, data, rows)
        return replace(found, user_low=found.user_low / base, user_high=found.user_high / base)


def gain_interval(x_S: Vector, y_S: Vector, alpha: float = ALPHA) -> tuple[float, float]:
    """Interval at 1 - alpha of mean x over mean y, less 1, of pairs (Fieller 1954).

    The gains g at which a paired t test of x against (1 + g) y finds nothing. Two nan where they
    are no interval: with one seed, or where the mean of y is not told from 0.
    """
    n = len(x_S)
    if n < 2:
        return NAN, NAN
    (xx, xy), (_, yy) = np.cov(x_S, y_S)
    x, y = float(x_S.mean()), float(y_S.mean())
    weight = float(sps.t.isf(alpha / 2, n - 1)) ** 2 / n
    # (x - q y)^2 <= weight * variance of (x - q y), a quadratic in the ratio q = 1 + g.
    square, middle, rest = y**2 - weight * yy, x * y - weight * xy, x**2 - weight * xx
    if square <= 0:
        return NAN, NAN
    half = math.sqrt(max(middle**2 - square * rest, 0.0))
    return (middle - half) / square - 1, (middle + half) / square - 1

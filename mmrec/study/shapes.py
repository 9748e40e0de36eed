"""Claims about how a score runs over the levels of one factor: where it rises, falls, is best.

They follow the one procedure of `mmrec.study.claims`: seeds are the replicates, and what levels
differ in is paired by seed. Nothing is chosen by validation here, since every level takes part.

`where` says which cells; it should hold the other factors fixed. Where it leaves several cells at
each level, a level's value under a seed is their mean, as long as all levels have equally many: on
sweeps they do not, and the claim is not tested rather than read off unlike company. Of the named
column cells without enough seeds are passed over, as everywhere.

Letters in names: L levels, J other levels, S seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from mmrec.stats import (
    ALPHA,
    MIN_SEEDS,
    NAN,
    SMALLEST,
    Paired,
    Vector,
    Verdict,
    best_level,
    bootstrap_t,
    judge_better,
)
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
from mmrec.study.contrasts import judge_spread


@dataclass(frozen=True)
class _Line:
    """A column over the levels of a factor."""

    levels: Sequence[Any]
    """In ascending order."""
    y_LS: Vector
    """Each level under the seeds that all cells have."""
    rows: Mapping[Any, pd.DataFrame]
    """The trials behind each level."""
    note: str
    """What was left out."""

    def words(self, path: str) -> str:
        """Every level's mean."""
        means = zip(self.levels, self.y_LS.mean(1), strict=True)
        return f"{path}: " + ", ".join(f"{_shown(level)} {mean:.4g}" for level, mean in means)

    def at(self, level: Any, path: str) -> int:
        """The place of a level.

        Raises:
            Absent: there is no such level.
        """
        if level not in self.levels:
            have = ", ".join(map(_shown, self.levels))
            raise Absent(f"no finished trials at {path} = {_shown(level)}; there are: {have}")
        return self.levels.index(level)


@dataclass(frozen=True)
class Rises(ClaimTest):
    """The value rises over the levels up to `upto`.

    Judged by one linear contrast: under each seed the least-squares line of the value on the
    level's rank, so that levels count as equally far apart, as whoever chose 5, 10, 20, 40 or 0,
    0.1, 1, 10 meant them; then the paired t test over seeds. The effect is what the line climbs
    from the lowest level to the highest. A trend is not a rise at every step: the means are told.

    Refuted if it falls, or climbs by less than the smallest effect of interest either way.
    """

    path: str
    upto: float
    where: Where = field(default_factory=Where)
    column: str = ""
    """What runs over the levels; empty for the test objective."""
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the value at the lowest level."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        line = _line(self, data, lambda level: level <= self.upto)
        if len(line.levels) < 2:
            one = _shown(line.levels[0])
            raise Absent(f"{self.path} has one level up to {_shown(self.upto)}: {one}")
        rank_L = np.arange(len(line.levels)) - (len(line.levels) - 1) / 2
        slope_S = rank_L @ line.y_LS / (rank_L @ rank_L)
        climb_S = slope_S * (len(line.levels) - 1)
        base = float(line.y_LS[0].mean())
        pair = replace(Paired.of(climb_S, np.zeros_like(climb_S)), base=base)
        direct = Paired.of(line.y_LS[-1], line.y_LS[0])
        ends = span(direct.interval(alpha))
        words = [
            line.words(self.path),
            "climb of the line through them, levels counted as equally far apart",
            f"the highest level less the lowest {direct.effect:+.3g} {ends}",
            f"bootstrap-t {span(bootstrap_t(climb_S, alpha))}",
            line.note,
        ]
        verdict = replace(judge_better(pair, alpha, self.smallest), unit=_unit(self, data))
        return worded(verdict, 1 - alpha, words)


@dataclass(frozen=True)
class Declines(ClaimTest):
    """Beyond a level the value falls: the mean of the levels above it is below its own.

    Refuted if it is above, or inside +- the smallest effect of interest.
    """

    path: str
    beyond: float
    where: Where = field(default_factory=Where)
    column: str = ""
    """What runs over the levels; empty for the test objective."""
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the value at `beyond`."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        line = _line(self, data, lambda level: level >= self.beyond)
        if line.at(self.beyond, self.path) == len(line.levels) - 1:
            raise Absent(f"no finished trial has {self.path} beyond {_shown(self.beyond)}")
        mean_S, at_S = line.y_LS[1:].mean(0), line.y_LS[0]
        words = [
            f"mean of {text.count(len(line.levels) - 1, 'level')} beyond {_shown(self.beyond)}"
            f" against it; {line.words(self.path)}",
            f"bootstrap-t {span(bootstrap_t(mean_S - at_S, alpha))}",
            line.note,
        ]
        verdict = judge_worse(Paired.of(mean_S, at_S), alpha, self.smallest)
        verdict = worded(replace(verdict, unit=_unit(self, data)), 1 - alpha, words)
        at, *far = (line.rows[level] for level in line.levels)
        # The vectors that users kept are of the objective.
        return verdict if self.column else with_users(verdict, data, [pd.concat(far), at])


@dataclass(frozen=True)
class BestLevel(ClaimTest):
    """One level is better than every other; see `judge_best`.

    The effect is its difference to the best of the others, negative where that one is better.
    """

    path: str
    level: Any
    where: Where = field(default_factory=Where)
    column: str = ""
    """What runs over the levels; empty for the test objective. Of another column "better" says
    "greater"."""
    lowest: bool = False
    """Whether less is better, as of a cost."""
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the best other level's value."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        line = _line(self, data)
        at = line.at(self.level, self.path)
        others = [level for level in line.levels if level != self.level]
        if not others:
            raise Absent(f"{self.path} has one level: {_shown(self.level)}")
        sign_LS = -line.y_LS if self.lowest else line.y_LS
        verdict = judge_best(sign_LS, at, alpha, self.smallest)
        if self.lowest:  # in the column's own sign, and a share of its own size
            verdict = replace(
                verdict, effect=-verdict.effect, relative=-verdict.relative,
                low=-verdict.high, high=-verdict.low,
            )  # fmt: skip
        rival = others[int(np.delete(sign_LS, at, 0).mean(1).argmax())]
        chances = zip(line.levels, best_level(sign_LS), strict=True)
        words = [
            f"{_shown(self.level)} against the best other, {_shown(rival)}",
            line.words(self.path),
            "probability of being best: "
            + ", ".join(f"{_shown(level)} {chance:.0%}" for level, chance in chances),
            line.note,
        ]
        verdict = worded(replace(verdict, unit=_unit(self, data)), 1 - alpha, words)
        if self.column:
            return verdict
        sides = [line.rows[self.level], line.rows[rival]]
        return with_users(verdict, data, sides, ALPHA / len(others))


def judge_best(
    y_LS: ArrayLike, at: int, alpha: float = ALPHA, smallest: float = SMALLEST
) -> Verdict:
    """The claim that the level in row `at` is better than each of the others.

    Supported if it is better than every other one by its own paired t test (intersection-union
    test, Berger 1982: the largest p counts and needs no correction); refuted if some other level is
    better (Bonferroni over the others), or if its lead over the best other is inside +- `smallest`;
    else not separable.

    All is read off one interval of that lead, the smallest true difference to another level. It is
    at least as large as the smallest lower bound, and at most as large as any upper bound, of which
    the smallest is taken and must therefore hold together with the others. So it does not matter
    that the best other level was found by the numbers that judge it. The effect itself, the
    difference to the level that came out best, looks smaller than it is.

    Args:
        y_LS: levels by seeds, the greater the better.
        at: row of the level that is claimed to be the best.
        alpha: level of the test and of the interval.
        smallest: smallest lead of interest, as a share of the best other level's mean.

    Raises:
        ValueError: fewer than two levels, or numbers that are not finite.
    """
    y_LS = np.asarray(y_LS, np.float64)
    if y_LS.ndim != 2 or len(y_LS) < 2:
        raise ValueError(f"need two levels or more by seeds, got shape {y_LS.shape}")
    pairs = [Paired.of(y_LS[at], other_S) for other_S in np.delete(y_LS, at, 0)]
    nearest = min(pairs, key=lambda pair: pair.effect)
    effects_J = np.array([pair.effect for pair in pairs])
    p_J = np.array([pair.p() for pair in pairs])
    ahead = np.where(effects_J > 0, p_J, 1.0).max()
    behind = min(1.0, len(pairs) * np.where(effects_J < 0, p_J, 1.0).min())
    low = min(pair.interval(alpha)[0] for pair in pairs)
    high = min(pair.interval(alpha / len(pairs))[1] for pair in pairs)
    margin = smallest * abs(nearest.base)
    words, detail = "not separable", ""
    if low > 0:
        words = "supported"
        detail = f"but by less than the smallest effect of interest ({smallest:.0%})"
        detail *= high < margin
    elif high < 0:
        words, detail = "refuted", "another level is better"
    elif -margin < low and high < margin:
        words, detail = "refuted", f"the lead is inside +-{smallest:.0%} of the best other level"
    seeds = nearest.n
    return Verdict(
        words if seeds >= MIN_SEEDS else "too few seeds",
        nearest.effect,
        nearest.relative,
        low,
        high,
        p=float(min(ahead, behind)) if seeds > 1 else NAN,
        mde=nearest.mde,
        n=seeds,
        detail=detail,
    )


@dataclass(frozen=True)
class Flat(ClaimTest):
    """All levels give the same, inside the smallest effect of interest.

    Equivalent if the differences of all pairs are inside +- `smallest` of the mean over all, by t
    intervals that hold together; refuted by the F test of levels with seeds as blocks; else not
    separable (see `judge_spread`, which judges the opposite claim). Levels that differ for certain,
    but all inside that range, are equivalent. `p` is that of the nearer verdict: only one of the
    two can be false. The effect is the best level less the worst, found on test, so that it looks
    larger than it is; its interval does not.
    """

    path: str
    where: Where = field(default_factory=Where)
    column: str = ""
    """What runs over the levels; empty for the test objective."""
    smallest: float = SMALLEST
    """Smallest difference of interest, as a share of the mean over all levels."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        line = _line(self, data)
        if len(line.levels) < 2:
            raise Absent(f"{self.path} has one level: {_shown(line.levels[0])}")
        base = float(line.y_LS.mean())
        spread = judge_spread(line.y_LS, base, alpha, self.smallest)
        margin = self.smallest * abs(base)
        verdict = replace(spread, p=min(spread.p, _p_inside(line.y_LS, margin)))
        if spread.verdict != "too few seeds":
            inside, told = spread.high < margin, spread.verdict == "supported"
            word = "equivalent" if inside else "refuted" if told else "not separable"
            verdict = replace(verdict, verdict=word)
        verdict = replace(verdict, unit=_unit(self, data))
        return worded(verdict, 1 - alpha, [line.words(self.path), line.note])


# --- pieces of the tests


def _p_inside(y_LS: Vector, margin: float) -> float:
    """Least level at which the differences of all pairs are inside +- `margin` together."""
    pairs = [Paired.of(one_S, other_S) for one_S, other_S in combinations(y_LS, 2)]
    p = max(max(pair.p_above(-margin), pair.p_below(margin)) for pair in pairs)
    return min(1.0, 2 * len(pairs) * p)


def _line(
    test: Rises | Declines | BestLevel | Flat,
    data: ClaimData,
    wanted: Callable[[float], bool] | None = None,
) -> _Line:
    """The test's column over those levels of its factor that are wanted, which must be numbers.

    Raises:
        Absent: nothing fits, a column is not there, or levels have different numbers of cells.
    """
    path, rows = test.path, test.where.of(data.rows())
    if path not in rows:
        raise Absent(f"the trials have no column {path!r}")
    rows = rows[rows[path].notna()]
    if wanted:
        number = pd.to_numeric(rows[path], errors="coerce")
        if number.isna().any():
            odd = rows.loc[number.isna(), path].iloc[0]
            raise Absent(f"{path} has a level that is no number: {odd}")
        rows = rows[number.map(wanted).astype(bool)]
    if rows.empty:
        raise Absent(f"no finished trial has a wanted level of {path} where {test.where}")
    table, note = cells_by_seeds(rows, test.column or data.test)
    level_of = dict(zip(rows["cell"], rows[path], strict=True))
    cells: dict[Any, list[str]] = {}
    for cell in table.index.sort_values():
        cells.setdefault(level_of[cell], []).append(cell)
    levels = sorted(cells, key=lambda level: (isinstance(level, str), level))
    counts = {level: len(cells[level]) for level in levels}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{_shown(level)} {count}" for level, count in counts.items())
        words = f"levels of {path} have different numbers of cells ({shown})"
        words += ": `where` must hold the other factors fixed"
        raise Absent(f"{words}; {note}" if note else words)
    y_LS = np.array([table.loc[cells[level]].to_numpy(float).mean(0) for level in levels])
    rows = rows[rows["seed"].isin(table.columns)]
    behind = {level: rows[rows["cell"].isin(cells[level])] for level in levels}
    return _Line(levels, y_LS, behind, note)


def _unit(test: Rises | Declines | BestLevel | Flat, data: ClaimData) -> str:
    return (test.column or data.test).removeprefix("test.")


def _shown(level: Any) -> str:
    """A level as a reader wrote it: a column that also has holes holds 3 as 3.0."""
    return text.number(level) if isinstance(level, int | float | np.number) else str(level)

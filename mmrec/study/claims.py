"""Claims: sentences from papers, and the tests that judge them on a study's finished trials.

A test is a plain value. It chooses cells by validation, judges them on test, and never fails
because something is missing: what is not there makes the verdict "not tested", with the reason.

Validation and test share a seed's luck, so that a cell chosen and judged under one seed looks
better than it is. Therefore a "best cell" is, under each seed, the one that the *other* seeds'
validation means choose. Where they agree that is the best cell itself; `detail` says if they do
not. Simulated with 176 equal cells, 5 seeds and a correlation of .8 between validation and test:
choosing by all seeds called the best cell better than a 177th one in 20 % of studies, this way in
5 %, and without bias.

Letters in names: C cells, S seeds, U users.
"""

import functools
import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from mmrec.stats import (
    ALPHA,
    MIN_SEEDS,
    NAN,
    SMALLEST,
    Anova,
    Paired,
    Verdict,
    anova,
    bootstrap_t,
    explained,
    holm,
    holm_levels,
    jackknife,
    judge_better,
    judge_equivalent,
    polynomial,
    user_interval,
)

_COMPARE = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_RULE = re.compile(r"(>=|<=|==|!=|>|<)\s*(.+)")


class Absent(Exception):
    """What a claim needs is not among the trials; `ClaimTest.evaluate` makes it a verdict."""


@dataclass(frozen=True)
class ClaimData:
    """The finished trials of a study, and what its models' users got."""

    trials: pd.DataFrame
    """One row a trial: hash, cell, label, seed, condition; factors by dotted path; `valid.*`,
    `test.*` and `measure.*`. Rows without a test score are passed over."""
    objective: str
    """Such as `ndcg@10`."""
    per_user: Callable[[str], np.ndarray | None]
    """Hash -> (U,) test objective, users in one order for all trials; None if it was not kept."""

    @property
    def valid(self) -> str:
        """The column by which cells are chosen."""
        return f"valid.{self.objective}"

    @property
    def test(self) -> str:
        """The column by which claims are judged."""
        return f"test.{self.objective}"

    def rows(self) -> pd.DataFrame:
        """The trials that can be judged.

        Raises:
            ValueError: a cell has two rows for one seed.
        """
        rows = self.trials[_column(self.trials, self.test).notna()]
        twice = rows[rows.duplicated(["cell", "seed"])]
        if len(twice):
            row = twice.iloc[0]
            raise ValueError(f"cell {row['cell']} has more than one trial under seed {row['seed']}")
        return rows


@dataclass(frozen=True)
class Where:
    """Which cells: those whose every named column fits, and whose label is `label` if given.

    A condition is a value ("equal to"), a tuple or list ("one of"), or a string that starts with
    one of > >= < <= == != and goes on with a number. A missing value fits nothing.
    """

    conditions: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None

    def __post_init__(self) -> None:
        for name, wanted in self.conditions.items():
            rule = _rule(wanted)
            if rule:
                try:
                    float(rule[2])
                except ValueError:
                    raise ValueError(f"{name}: {wanted!r} compares with no number") from None

    def __str__(self) -> str:
        words = [] if self.label is None else [self.label]
        for name, wanted in self.conditions.items():
            words.append(f"{name} {wanted if _rule(wanted) else f'= {wanted}'}")
        return " and ".join(words) or "all cells"

    def of(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows that fit.

        Raises:
            Absent: none does, or a column is not there.
        """
        fits = pd.Series(True, index=rows.index)
        conditions = dict(self.conditions)
        if self.label is not None:
            conditions["label"] = self.label
        for name, wanted in conditions.items():
            fits &= _fits(_column(rows, name), wanted)
        if not fits.any():
            raise Absent(f"no finished trial fits: {self}")
        return rows[fits]


def _rule(wanted: Any) -> re.Match[str] | None:
    return _RULE.fullmatch(wanted) if isinstance(wanted, str) else None


def _fits(values: pd.Series, wanted: Any) -> pd.Series:
    rule = _rule(wanted)
    if rule:
        numbers = pd.to_numeric(values, errors="coerce")
        return _COMPARE[rule[1]](numbers, float(rule[2])) & numbers.notna()
    return values.isin(wanted if isinstance(wanted, tuple | list) else [wanted]) & values.notna()


def _column(rows: pd.DataFrame, name: str) -> pd.Series:
    if name not in rows:
        raise Absent(f"the trials have no column {name!r}")
    return rows[name]


def cells_by_seeds(rows: pd.DataFrame, column: str) -> tuple[pd.DataFrame, str]:
    """Cells by the seeds that they have in common, and in words what that left out.

    Cells that miss so many seeds that no verdict were left are passed over if others have enough.
    """
    _column(rows, column)
    # `pivot_table` would drop what is missing, and average what is there twice.
    values = rows.pivot(index="cell", columns="seed", values=column)  # noqa: PD010
    count_C = values.notna().sum(axis=1)
    enough_C = count_C >= max(1, min(MIN_SEEDS, int(count_C.max())))
    kept = values[enough_C]
    common = kept.loc[:, kept.notna().all()]
    if common.empty:
        raise Absent(f"no seed has {column} in all of {len(values)} cells")
    words = []
    if len(kept) < len(values):
        words.append(f"{len(values) - len(kept)} of {len(values)} cells passed over: too few seeds")
    if common.shape[1] < values.shape[1]:
        words.append(f"{common.shape[1]} of {values.shape[1]} seeds are common to the cells")
    return common, "; ".join(words)


@dataclass(frozen=True)
class Side:
    """What stands on one side of a comparison."""

    cell: str
    """The best cell by validation over all seeds."""
    rows: pd.DataFrame
    """One row a seed, indexed by it."""
    words: str


def best_cell(where: Where, data: ClaimData) -> Side:
    """The cell with the highest validation mean; of equal ones the first by id.

    The row of a seed is that of the cell which the other seeds choose (see the file's top).
    """
    rows = where.of(data.rows())
    table, note = cells_by_seeds(rows, data.valid)
    table = table.sort_index()
    cell = str(table.mean(axis=1).idxmax())
    words = str(rows.loc[rows["cell"] == cell, "label"].iloc[0])
    if len(table) == 1:
        return Side(cell, rows.set_index("seed"), words)
    others = {s: table.drop(columns=s) if table.shape[1] > 1 else table for s in table.columns}
    chosen = [(values.mean(axis=1).idxmax(), s) for s, values in others.items()]
    rows = rows.set_index(["cell", "seed"]).loc[chosen].reset_index("cell")
    words += f" (best of {len(table)} by validation"
    if set(rows["cell"]) != {cell}:
        words += f"; without the judged seed one of {len(set(rows['cell']))} cells"
    return Side(cell, rows, words + f"; {note})" if note else words + ")")


class ClaimTest(ABC):
    """How a claim is judged."""

    by_users: ClassVar[bool] = False
    """Whether what is judged is counted from the vectors that trials kept of their users; for all
    other claims users decide nothing."""

    def evaluate(self, data: ClaimData, alpha: float = ALPHA) -> Verdict:
        """The verdict at level `alpha`; `p` does not depend on it."""
        try:
            return self.judge(data, alpha)
        except Absent as reason:
            return Verdict("not tested", unit=data.objective, detail=str(reason))

    @abstractmethod
    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        """As `evaluate`; may raise Absent."""


def _measured(side: Side, column: str) -> pd.DataFrame:
    """Its rows that have a value in the column.

    Raises:
        Absent: there is no such column, or none of them has.
    """
    rows = side.rows[_column(side.rows, column).notna()]
    if rows.empty:
        raise Absent(f"{column} was not measured: {side.words}")
    return rows


@dataclass(frozen=True)
class _Comparison(ClaimTest):
    cell: Where
    than: Where
    smallest: float = SMALLEST
    """Smallest effect of interest, as a share of the mean of `than`."""
    column: str = ""
    """What is compared in the cells that validation chose, such as `measure.item_cosine`; empty
    for the test objective. Of another column "better" says "greater"."""

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        left, right = best_cell(self.cell, data), best_cell(self.than, data)
        if left.cell == right.cell:
            raise Absent(f"both sides are one cell: {left.words}")
        column = self.column or data.test
        sides = [_measured(side, column) for side in (left, right)]
        seeds = sides[0].index.intersection(sides[1].index).sort_values()
        if seeds.empty:
            raise Absent(f"no seed in common: {left.words}, {right.words}")
        sides = [rows.loc[seeds] for rows in sides]
        left_S, right_S = (rows[column].to_numpy(float) for rows in sides)
        pair = Paired.of(left_S, right_S)
        words = [f"{left.words} against {right.words}"]
        missing = len(left.rows.index.union(right.rows.index)) - len(seeds)
        if missing:
            words.append(f"{missing} seeds are not in both")
        words.append(f"bootstrap-t {span(bootstrap_t(left_S - right_S, alpha))}")
        verdict = replace(self.verdict(pair, alpha), unit=column.removeprefix("test."))
        verdict = worded(verdict, self.level(alpha, verdict.verdict), words)
        # The vectors that users kept are of the objective.
        return with_users(verdict, data, sides) if column == data.test else verdict

    @abstractmethod
    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        """What the differences say."""

    def level(self, alpha: float, verdict: str) -> float:
        """Level of the interval that a verdict is read off."""
        return 1 - alpha


@dataclass(frozen=True)
class Better(_Comparison):
    """The best cell of `cell` is better on test than the best cell of `than`."""

    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        return judge_better(pair, alpha, self.smallest)


@dataclass(frozen=True)
class Worse(_Comparison):
    """The best cell of `cell` is worse on test than the best cell of `than`."""

    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        return judge_worse(pair, alpha, self.smallest)


@dataclass(frozen=True)
class Cheaper(Worse):
    """The best cell of `cell` costs less than the best cell of `than`: "worse" says "less"."""

    column: str = "cost.epoch_seconds"


@dataclass(frozen=True)
class Equivalent(_Comparison):
    """The best cells of both sides are as good as each other, inside the smallest of interest."""

    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        return judge_equivalent(pair, alpha, self.smallest)

    def level(self, alpha: float, verdict: str) -> float:
        return 1 - 2 * alpha if verdict == "equivalent" else 1 - alpha


@dataclass(frozen=True)
class NoWorse(Equivalent):
    """The best cell of `cell` is worse by less than the smallest effect of interest, or better."""

    def verdict(self, pair: Paired, alpha: float) -> Verdict:
        return judge_equivalent(pair, alpha, self.smallest, one_sided=True)

    def level(self, alpha: float, verdict: str) -> float:
        return 1 - 2 * alpha


@dataclass(frozen=True)
class MainlyThroughRatio(ClaimTest):
    """The objective depends on two positive factors mainly through their ratio.

    Over the cells where both are above 0, a cubic in log(numerator / denominator) must hold more
    than half of the true variance between cells, and more than a cubic in the log of either factor
    alone: on a grid where one factor spans more decades than the other, that factor alone would put
    more than half of its variance on the ratio too. Refuted if the share is below half, or one
    factor alone holds more. Without any dependence (analysis of variance with seeds as blocks) the
    question has no answer: not separable.

    `effect` is the ratio's share, its interval from a jackknife over seeds (see `stats.jackknife`).
    """

    numerator: str
    denominator: str
    where: Where = field(default_factory=Where)
    share: float = 0.5

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        rows = _both_positive(self.where.of(data.rows()), self.numerator, self.denominator)
        table, note = cells_by_seeds(rows, data.test)
        logs_C2, y_CS = self._places(rows, table), table.to_numpy(float)
        seeds = y_CS.shape[1]
        if seeds < 3:  # leaving one out must leave two
            detail = f"{seeds} seeds; a share needs 3, a verdict {MIN_SEEDS}"
            return Verdict("too few seeds", n=seeds, unit="share of variance", detail=detail)
        ratio_C = logs_C2[:, 0] - logs_C2[:, 1]
        shares = explained(y_CS, [_cubic(x_C) for x_C in (ratio_C, *logs_C2.T)])
        whole = jackknife(shares[0])
        parts = [replace(whole, effect=whole.effect - self.share)]
        parts += [jackknife(shares[0] - rival) for rival in shares[1:]]
        result = anova(y_CS, ["cell"])
        p = max(result["cell"].p, _compound(parts))
        low, high = np.clip(whole.interval(alpha), 0, 1).tolist()
        verdict = Verdict(
            _compound_words(parts, p, alpha),
            effect=float(np.clip(whole.effect, 0, 1)),
            low=low,
            high=high,
            p=p,
            n=seeds,
            unit="share of variance",
        )
        words = [*self._words(shares, ratio_C, y_CS, result), note]
        return worded(verdict, 1 - alpha, words)

    def _words(
        self, shares: np.ndarray, ratio_C: np.ndarray, y_CS: np.ndarray, result: Anova
    ) -> list[str]:
        cells, seeds = y_CS.shape
        curve = polynomial(
            ratio_C, y_CS.mean(1), [seeds] * cells, 3, mse=result.mse, df_error=result.df_error
        )
        gate = result["cell"]
        return [
            f"{cells} cells; any dependence: F = {gate.f:.3g}, p = {gate.p:.2g}",
            f"share of the ratio {shares[0, 0]:.2f}, of {self.numerator} alone {shares[1, 0]:.2f},"
            f" of {self.denominator} alone {shares[2, 0]:.2f}",
            f"lack of fit to a cubic in log-ratio: F = {curve.lack_f:.3g}, p = {curve.lack_p:.2g}",
        ]

    def _places(self, rows: pd.DataFrame, table: pd.DataFrame) -> np.ndarray:
        """(C, 2) logs of both factors, in the order of the table."""
        places = rows.drop_duplicates("cell").set_index("cell").loc[table.index]
        places = places[[self.numerator, self.denominator]].astype(float)
        if places.duplicated().any():
            one = places[places.duplicated()].iloc[0].to_dict()
            raise Absent(f"several cells have {one}: `where` must tell them apart")
        for name in places:
            if places[name].nunique() < 2:
                raise Absent(f"{name} has one level: its ratio is the other factor")
        logs_C2 = np.log(places.to_numpy())
        if len(np.unique(_rounded(logs_C2[:, 0] - logs_C2[:, 1]))) < 5:
            raise Absent("fewer than 5 distinct ratios: a cubic in them fits anything")
        return logs_C2


@dataclass(frozen=True)
class Collapses(ClaimTest):
    """Beyond a ratio of two factors the model collapses.

    The cells above `above` (averaged) against the best cell by validation inside `ridge`: the
    objective falls, and each measure moves as named. Supported needs all of these, refuted any one
    the other way, or an objective inside +- the smallest effect of interest.
    """

    numerator: str
    denominator: str
    rises: tuple[str, ...] = ("measure.mean_cosine",)
    falls: tuple[str, ...] = ("measure.effective_rank",)
    above: float = 10.0
    ridge: tuple[float, float] = (1e-2, 1.0)
    where: Where = field(default_factory=Where)
    smallest: float = SMALLEST

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        far, near = self._sides(data)
        best = best_cell(Where(), replace(data, trials=near))
        cells, note = cells_by_seeds(far, data.test)
        seeds = cells.columns.intersection(best.rows.index)
        if seeds.empty:
            raise Absent(f"no seed in common: {best.words} and the cells above {self.above:g}")
        base = best.rows.loc[seeds]
        far = far[far["cell"].isin(cells.index) & far["seed"].isin(seeds)]
        fall = self._change(data.test, far, base)
        moves = {name: self._change(name, far, base) for name in (*self.rises, *self.falls)}
        parts = [replace(fall, effect=-fall.effect)]
        for name, move in moves.items():
            parts.append(move if name in self.rises else replace(move, effect=-move.effect))
        p = _compound(parts)
        ends, margin = fall.interval(alpha), self.smallest * abs(fall.base)
        words = [
            f"mean of {len(cells)} cells with {self.numerator} / {self.denominator} above"
            f" {self.above:g} against {best.words}",
            note,
            *(f"{m} {v.effect:+.3g} {span(v.interval(alpha))}" for m, v in moves.items()),
        ]
        verdict = _compound_words(parts, p, alpha)
        if verdict == "not separable" and -margin < ends[0] and ends[1] < margin:
            verdict = "refuted"
            words.append(f"the change is inside +-{self.smallest:.0%} of the base")
        result = Verdict(verdict, fall.effect, fall.relative, *ends, p=p, mde=fall.mde, n=fall.n)
        result = worded(replace(result, unit=data.objective), 1 - alpha, words)
        return with_users(result, data, [far, base])

    def _sides(self, data: ClaimData) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows beyond the ratio, and those inside the ridge."""
        rows = _both_positive(self.where.of(data.rows()), self.numerator, self.denominator)
        place = _rounded(np.log((rows[self.numerator] / rows[self.denominator]).astype(float)))
        low, high, above = _rounded(np.log([*self.ridge, self.above]))
        far, near = rows[place > above], rows[(place >= low) & (place <= high)]
        name = f"{self.numerator} / {self.denominator}"
        if far.empty:
            most = float(np.exp(place.max()))
            raise Absent(f"no cell has {name} above {self.above:g}; the largest is {most:.4g}")
        if near.empty:
            raise Absent(f"no cell has {name} in {self.ridge[0]:g} to {self.ridge[1]:g}")
        return far, near

    @staticmethod
    def _change(column: str, far: pd.DataFrame, base: pd.DataFrame) -> Paired:
        """A column's mean over the far cells less the base's value, per seed."""
        mean_S = _column(far, column).groupby(far["seed"]).mean().loc[base.index]
        pairs = pd.DataFrame({"far": mean_S, "base": _column(base, column)}).dropna()
        if pairs.empty:
            raise Absent(f"{column} was not measured")
        return Paired.of(pairs["far"].to_numpy(float), pairs["base"].to_numpy(float))


@dataclass(frozen=True)
class Claim:
    """A sentence that can be wrong, who says so, and how it is judged."""

    text: str
    source: str
    test: ClaimTest
    topic: str = ""
    """What many claims share, such as "text knockout hurts"; the report counts verdicts by it."""
    arm: str = ""
    """The arm that the claim is about, if it is about one."""


def decide(
    claims: Sequence[Claim], data: ClaimData, alpha: float = ALPHA
) -> list[tuple[Claim, Verdict]]:
    """Every claim with its verdict, after Holm over those that had enough seeds to be tested.

    Each such claim is judged again at the level that Holm leaves to it, so that its interval and
    its verdict say the same.
    """
    data = replace(data, per_user=functools.cache(data.per_user))
    # Where users decide nothing, their vectors are read once only, for the final numbers.
    blind = replace(data, per_user=lambda _: None)
    first = [c.test.evaluate(data if c.test.by_users else blind, alpha) for c in claims]
    decided = ("not tested", "too few seeds")
    p_M = [NAN if v.verdict in decided else v.p for v in first]
    verdicts = []
    for claim, level, corrected in zip(claims, holm_levels(p_M, alpha), holm(p_M), strict=True):
        own = alpha if np.isnan(corrected) else float(level)
        verdict = claim.test.evaluate(data, own)
        verdicts.append((claim, replace(verdict, p_corrected=float(corrected))))
    return verdicts


# --- pieces of the tests


def _both_positive(rows: pd.DataFrame, numerator: str, denominator: str) -> pd.DataFrame:
    return Where({numerator: ">0", denominator: ">0"}).of(rows)


def _rounded(values: Any) -> Any:
    """To 9 decimals: logs of equal ratios of levels differ in their last bits."""
    return np.round(values, 9)


def _cubic(x_C: np.ndarray) -> np.ndarray:
    """(C, d) powers 1 to 3 of x, fewer if x has few values."""
    degree = min(3, len(np.unique(_rounded(x_C))) - 1)
    return np.vander((x_C - x_C.mean()) / x_C.std(), degree + 1, increasing=True)[:, 1:]


def _compound(parts: Sequence[Paired]) -> float:
    """P of a claim that several differences are all above 0, the first being the main one.

    Towards "supported" all must pass, so the largest counts. Towards "refuted" the main one counts
    if it is below 0; else the smallest of the others below 0, times their number. In either case
    two-sided, so that the chance of a false refutation stays below the level in all.
    """
    p = [1.0 if np.isnan(part.p()) else part.p() for part in parts]
    wrong = [q for q, part in zip(p[1:], parts[1:], strict=True) if part.effect < 0]
    if parts[0].effect < 0:
        return p[0]
    return min(1.0, min(wrong) * (len(parts) - 1)) if wrong else max(p)


def _compound_words(parts: Sequence[Paired], p: float, alpha: float) -> str:
    if min(part.n for part in parts) < MIN_SEEDS:
        return "too few seeds"
    if p >= alpha:
        return "not separable"
    return "refuted" if any(part.effect < 0 for part in parts) else "supported"


def judge_worse(pair: Paired, alpha: float = ALPHA, smallest: float = SMALLEST) -> Verdict:
    """The claim that a mean difference is below 0; see `mmrec.stats.judge_better`."""
    turned = judge_better(replace(pair, effect=-pair.effect), alpha, smallest)
    return replace(
        turned, effect=pair.effect, relative=pair.relative, low=-turned.high, high=-turned.low
    )


def worded(verdict: Verdict, level: float, words: Sequence[str]) -> Verdict:
    """Its `detail` put between the words and the level of its interval; empty words are dropped."""
    parts = [*words, verdict.detail, f"interval at {100 * level:.3g} %"]
    return replace(verdict, detail="; ".join(part for part in parts if part))


def span(ends: tuple[float, float]) -> str:
    """An interval for a verdict's `detail`."""
    return f"[{ends[0]:.3g}, {ends[1]:.3g}]"


def with_users(
    verdict: Verdict, data: ClaimData, sides: Sequence[pd.DataFrame], alpha: float = ALPHA
) -> Verdict:
    """The interval over users added, if the vectors of all trials were kept.

    `alpha` is below its default only to make up for sides that were chosen on test.
    """
    means = []
    for rows in sides:
        vectors = [data.per_user(name) for name in rows["hash"]]
        kept = [v for v in vectors if v is not None]
        if not kept or len(kept) < len(vectors):
            return verdict
        means.append(np.mean(kept, axis=0))
    low, high = user_interval(means[0] - means[1], alpha)
    return replace(verdict, user_low=low, user_high=high)

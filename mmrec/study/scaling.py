"""How cost grows with size: what is measured, the exponents of its growth, and claims about them.

A method's cost at N nodes is taken as a power of N, of which the exponent b is of interest:
log y = a + b log N. Each seed gives a series over all sizes, and so a slope of its own; seeds are
the replicates, as everywhere. A constant cost hides the power where N is small, so that the slope
is taken over the upper half of a method's sizes (on a log scale) only.

Letters in names: N sizes, S seeds.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mmrec.stats import MIN_SEEDS, Paired, Vector, Verdict
from mmrec.study import text
from mmrec.study.claims import Absent, Claim, ClaimData, ClaimTest, worded
from mmrec.study.verdicts import OPENING, Judged, level

QUANTITIES = {"seconds": "time", "mib": "memory"}
"""Columns of what is measured, and their names in prose."""
PILOT = -1
"""The seed of the measurements that find out how far a method goes; no number rests on them."""


@dataclass(frozen=True)
class Problem:
    """What one measurement works on."""

    nodes: int
    seed: int
    """Of the random inputs."""
    device: str = "cpu"


@dataclass(frozen=True)
class Method:
    """One way to do the work."""

    name: str
    prepare: Callable[[Problem], Callable[[], object]]
    """Makes inputs and weights; the step that it returns is what is measured."""
    note: str = ""
    """What a reader should know of it, in a sentence."""


@dataclass(frozen=True)
class Scaling:
    """A question about growth. Plain values: a script declares one.

    Raises:
        ValueError: fewer than two sizes or not in rising order, or two methods of one name.
    """

    name: str
    question: str
    script: str
    """Its file, which the measuring process loads too."""
    work: str
    """What is measured, in words."""
    methods: tuple[Method, ...]
    sizes: tuple[int, ...]
    claims: tuple[Claim, ...]
    check: Callable[[], None]
    """Raises unless the methods that should agree do; run before anything is measured."""
    code: tuple[str, ...]
    """Modules whose code decides the numbers: where it changes, measurements are made anew."""
    version: int = 1
    """To be raised where the script itself changes what is measured."""
    seeds: int = MIN_SEEDS
    seconds: float = 5.0
    """Longest step: where a method would pass it, its sizes end."""
    smoke_sizes: tuple[int, ...] = ()
    smoke_seeds: int = 2

    def __post_init__(self) -> None:
        check_sizes(self.sizes)
        names = [method.name for method in self.methods]
        if len(set(names)) < len(names):
            raise ValueError(f"methods need names of their own, got {', '.join(names)}")

    def method(self, name: str) -> Method:
        """The method called `name`."""
        for method in self.methods:
            if method.name == name:
                return method
        known = ", ".join(method.name for method in self.methods)
        raise KeyError(f"no method {name!r}; there are: {known}")


def check_sizes(sizes: Sequence[int]) -> None:
    """ValueError unless there are two or more whole sizes above 0 in rising order."""
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)) or sizes[0] < 1:
        raise ValueError(f"give two or more sizes in rising order, got {list(sizes)}")


@dataclass(frozen=True)
class ScalingTables:
    """Everything that a report of a scaling study is drawn from."""

    run: dict[str, Any]
    """Question, command line, versions, hardware, limits; see `mmrec.study.measuring`."""
    rows: pd.DataFrame
    """One row a measurement: `method nodes seed seconds mib runs`, and how it was made."""
    pilots: pd.DataFrame
    """The same of the pilot."""
    unreached: pd.DataFrame
    """`method nodes reason`: the first size that each method did not reach."""
    claims: Sequence[Judged]

    @property
    def answer(self) -> str:
        """The answer to the study's question."""
        return answer(self)


# --- exponents


@dataclass(frozen=True)
class Slopes:
    """The exponents of one method's growth, one a seed."""

    slope_S: Vector
    at_S: Vector
    """Log of the fitted cost at the largest size."""
    sizes: tuple[int, ...]
    """What was fitted."""

    @property
    def pair(self) -> Paired:
        """The exponents against 0, for their mean and interval."""
        return Paired.of(self.slope_S, np.zeros(len(self.slope_S)))


def series(rows: pd.DataFrame, method: str, quantity: str) -> pd.DataFrame:
    """Sizes by seeds of one method, where every seed has a value.

    Raises:
        Absent: nothing of the method is there, or no size has all seeds.
        ValueError: a size has two values for one seed, or one that is not above 0.
    """
    own = rows[rows["method"] == method]
    if own.empty:
        raise Absent(f"{method} was not measured")
    # `pivot_table` would average what is there twice.
    table = own.pivot(index="nodes", columns="seed", values=quantity)  # noqa: PD010
    table = table.dropna().sort_index()
    if table.empty:
        raise Absent(f"{method}: no size was measured under all seeds")
    if not (table > 0).all(axis=None):
        raise ValueError(f"{method}: {quantity} must be above 0, got {table.min(axis=None)}")
    return table


def slopes(rows: pd.DataFrame, method: str, quantity: str) -> Slopes:
    """The exponents over the upper half of a method's sizes, at least two of them.

    Raises:
        Absent: the method has fewer than two sizes.
    """
    table = series(rows, method, quantity)
    if len(table) < 2:
        raise Absent(f"{method} reached one size only: growth needs two")
    middle = math.sqrt(float(table.index[0]) * float(table.index[-1]))
    upper = table[table.index >= middle]
    upper = upper if len(upper) > 1 else table.iloc[-2:]
    x_N = np.log(upper.index.to_numpy(float))
    log_NS = np.log(upper.to_numpy(float))
    slope_S = least_squares(x_N, log_NS)
    at_S = log_NS.mean(0) + slope_S * (x_N[-1] - x_N.mean())
    return Slopes(slope_S, at_S, tuple(int(n) for n in upper.index))


def least_squares(x_N: Vector, y_NS: Vector) -> Vector:
    """(S,) the slope of each column of `y_NS` on `x_N`."""
    centred_N = x_N - x_N.mean()
    return centred_N @ y_NS / (centred_N @ centred_N)


def interval(value_S: Vector) -> tuple[float, float, float]:
    """(mean, low, high) over seeds at 95 %; no interval for one seed."""
    pair = Paired.of(value_S, np.zeros(len(value_S)))
    return (pair.effect, *pair.interval())


# --- claims


def evidence(rows: pd.DataFrame) -> ClaimData:
    """The measurements in the form that claims are judged on."""
    return ClaimData(trials=rows, objective="seconds", per_user=lambda _: None)


@dataclass(frozen=True)
class _Growth(ClaimTest):
    method: str
    quantity: str
    """A column: one of `QUANTITIES`."""
    exponent: float

    def judge(self, data: ClaimData, alpha: float) -> Verdict:
        found = slopes(data.trials, self.method, self.quantity)
        pair = Paired.of(found.slope_S, np.full(len(found.slope_S), self.exponent))
        low, high = (self.exponent + end for end in pair.interval(alpha))
        verdict = Verdict(
            self.words(low, high) if pair.n >= MIN_SEEDS else "too few seeds",
            effect=self.exponent + pair.effect,
            low=low,
            high=high,
            p=pair.p(),
            mde=pair.mde,
            n=pair.n,
            unit=f"exponent of {QUANTITIES[self.quantity]}",
        )
        ends = f"{found.sizes[0]:,} to {found.sizes[-1]:,}"
        words = [f"{self.bound} {self.exponent:g}", f"N = {ends} ({len(found.sizes)} sizes)"]
        return worded(verdict, 1 - alpha, words)

    @property
    @abstractmethod
    def bound(self) -> str:
        """What the claim says of the exponent, in words."""

    @abstractmethod
    def words(self, low: float, high: float) -> str:
        """The verdict of an interval."""


@dataclass(frozen=True)
class GrowsAtMost(_Growth):
    """A cost grows with an exponent below `exponent`; refuted if its interval is above."""

    @property
    def bound(self) -> str:
        return "claimed: below"

    def words(self, low: float, high: float) -> str:
        below, above = high < self.exponent, low > self.exponent
        return "supported" if below else "refuted" if above else "not separable"


@dataclass(frozen=True)
class GrowsAtLeast(_Growth):
    """A cost grows with an exponent above `exponent`; refuted if its interval is below."""

    @property
    def bound(self) -> str:
        return "claimed: above"

    def words(self, low: float, high: float) -> str:
        below, above = high < self.exponent, low > self.exponent
        return "supported" if above else "refuted" if below else "not separable"


# --- the answer in one sentence


def answer(tables: ScalingTables) -> str:
    """What became of the first claim, and the exponents of time and memory of every method."""
    where = tables.run["host"]
    parts = []
    if tables.run["smoke"]:
        parts.append(f"A smoke run on {where}, no verdicts meant")
    elif tables.claims:
        claim, verdict = tables.claims[0]
        opening = OPENING[verdict.verdict].format(where)
        parts.append(f"{opening}: {claim.text.rstrip('.')}{_numbers(verdict)}")
    for method in tables.run["methods"]:
        try:
            found = [slopes(tables.rows, method, quantity) for quantity in QUANTITIES]
        except Absent as reason:
            parts.append(str(reason))
            continue
        grown = " and ".join(
            f"{name} as N^{slope.pair.effect:.2f}"
            for slope, name in zip(found, QUANTITIES.values(), strict=True)
        )
        top = int(series(tables.rows, method, "seconds").index[-1])
        parts.append(f"{method} (to N = {top:,}): {grown}")
    return "; ".join(parts) + "."


def _numbers(verdict: Verdict) -> str:
    if math.isnan(verdict.effect):
        return f" ({verdict.detail})"
    ends = text.interval(verdict.low, verdict.high, lambda end: f"{end:.2f}")
    seeds = text.count(verdict.n, "seed")
    return f" ({verdict.unit} {verdict.effect:.2f}, {level(verdict)}interval {ends}, {seeds})"

"""Numbers and names as a reader should meet them, on a page or in a terminal."""

import math
from collections.abc import Callable
from typing import Any

DASH = "\u2013"
"""Stands for a number that is missing."""
MINUS = "\u2212"
"""As wide as a plus sign, so that signed columns line up."""


def number(value: Any, digits: int = 4) -> str:
    """`digits` significant digits, without a tail of zeros; a dash for what is missing.

    Text, booleans and integers pass as they are.
    """
    if value is None:
        return DASH
    if isinstance(value, bool | str):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return DASH
    if number.is_integer() and abs(number) < 1e9:
        shown = f"{int(number):,}" if abs(number) >= 1e4 else str(int(number))
        return shown.replace("-", MINUS)
    return f"{number:.{digits}g}".replace("e-0", "e-").replace("e+0", "e+").replace("-", MINUS)


def score(value: float, digits: int = 4) -> str:
    """A metric in [0, 1]: four decimals, all of them, so that columns line up."""
    return DASH if math.isnan(value) else f"{value:.{digits}f}".replace("-", MINUS)


def signed(value: float, digits: int = 4) -> str:
    """A difference of metrics, with its sign."""
    return DASH if math.isnan(value) else f"{value:+.{digits}f}".replace("-", MINUS)


def percent(value: float, digits: int = 1) -> str:
    """A signed share, e.g. `+6.3 %`."""
    return DASH if math.isnan(value) else f"{100 * value:+.{digits}f} %".replace("-", MINUS)


def interval(low: float, high: float, show: Callable[[float], str] = score) -> str:
    """`0.0150 to 0.0270`, or a dash when there is none."""
    if math.isnan(low) or math.isnan(high):
        return DASH
    return f"{show(low)} to {show(high)}"


def p_value(value: float) -> str:
    """`0.012`, or `< 0.001`."""
    if math.isnan(value):
        return DASH
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min`, `2.1 h`."""
    if math.isnan(seconds):
        return DASH
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


COSTS = {
    "cost.parameters": "trained parameters",
    "cost.epoch_seconds": "seconds an epoch",
    "cost.peak_mib": "peak memory in MiB",
    "cost.converged_epoch": "epoch that reaches 99 % of the best",
}
"""The columns of `mmrec.study.costs`, in words."""


def metric(name: str) -> str:
    """What was measured, in prose: `NDCG@10` for `ndcg@10`, with its stratum if it has one.

    A cost or measure goes by its words; what is none of these stays as it is.
    """
    if name in COSTS:
        return COSTS[name]
    if name.startswith("measure."):
        return words(short(name))
    stem, at, rest = name.partition("@")
    if not at:
        return name
    k, _, stratum = rest.partition(":")
    shown = (
        stem.upper() if stem in ("ndcg", "map", "mrr", "arp", "aplt", "pl", "f1") else stem.title()
    )
    return f"{shown}{at}{k}" + (f", {stratum.replace('-', ' ')}" if stratum else "")


def short(path: str) -> str:
    """The last part of a dotted path: `alpha` for `model.alpha`."""
    return path.rsplit(".", 1)[-1]


def count(n: int, noun: str) -> str:
    """`1 seed`, `5 seeds`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def words(name: str) -> str:
    """`effective rank` for `effective_rank`."""
    return name.replace("_", " ")


def wide(values: Any) -> bool:
    """Whether numbers want a logarithmic axis: all positive, wider than a factor of 30."""
    numeric = [float(v) for v in values if isinstance(v, int | float) and not math.isnan(v)]
    return len(numeric) == len(values) > 0 and min(numeric) > 0 and max(numeric) / min(numeric) > 30

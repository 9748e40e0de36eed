"""What a study asks its report to draw: plain values, which `mmrec.reports` reads.

A study that declares no views gets those that its factors suggest (`default_views`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeatMap:
    """Mean test objective over two factors: one square a cell, holes shown with their reason.

    Where `y` is 0 and that row has one cell only, `x` is taken to be without effect there (a
    temperature under a weight of 0), and the cell is drawn over the whole width.
    """

    x: str
    """Dotted path, e.g. `model.tau`."""
    y: str
    """Dotted path, e.g. `model.alpha`."""


@dataclass(frozen=True)
class RatioCurve:
    """Objective against one factor over another, on a log axis; a numerator of 0 is a band."""

    numerator: str
    denominator: str


@dataclass(frozen=True)
class MainEffects:
    """Each factor's levels, averaged over all the others."""

    factors: tuple[str, ...]


@dataclass(frozen=True)
class Measures:
    """Numbers about the trained state, such as a collapse, against a factor or a ratio of two."""

    names: tuple[str, ...]
    """As in the columns `measure.<name>`."""
    over: str | tuple[str, str]
    """A dotted path, or (numerator, denominator)."""


@dataclass(frozen=True)
class CellForest:
    """Every cell's mean and interval, best first by validation; for conditions and models."""


View = HeatMap | RatioCurve | MainEffects | Measures | CellForest


def default_views(levels: Mapping[str, Sequence[Any]], measures: Sequence[str]) -> tuple[View, ...]:
    """What to draw when a study does not say.

    Args:
        levels: the distinct values of each factor, by dotted path.
        measures: names of the measures that trials recorded.

    Returns:
        Every factor's main effect; every cell in a row; a heat map if exactly two factors have at
        most 30 levels each; measures over the factor with the most levels.
    """
    turned = {path: values for path, values in levels.items() if len(values) > 1}
    views: list[View] = []
    small = [path for path, values in turned.items() if len(values) <= 30]
    if len(turned) == 2 and len(small) == 2:
        views.append(HeatMap(x=small[1], y=small[0]))
    views.append(CellForest())
    if turned:
        views.append(MainEffects(tuple(turned)))
    if turned and measures:
        views.append(Measures(tuple(measures), over=max(turned, key=lambda p: len(turned[p]))))
    return tuple(views)

"""Pictures of curves over one factor, a line a level of another, and of quality against cost.

Names go through `drawn`, since plotly reads some HTML.
"""

from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.maps import Row
from mmrec.reports.markup import drawn
from mmrec.study import text

MOST_BANDS = 4
"""Lines of a curve above which shaded intervals would cover each other: bars take their place."""
MOST_TICKS = 12
MOST_KEYS = 16
"""Cells of a front that the picture itself names."""
_APART = 0.04
"""Share of the axis that two ticks need between them."""
_DODGE = 0.07
"""Between lines at one place, where places are words."""
_NUDGE = 0.006
"""The same where they are numbers and intervals are bars."""
_DASHES = ("dash", "dot", "dashdot", "longdash", "longdashdot")
_PIXELS = 7
"""Of a letter in the key of a front."""

Scale = Literal["linear", "log", "levels"]


def scale(values: list[Any]) -> Scale:
    """How places lie on the axis: words, and numbers from 0 over decades, at even distances."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values):
        return "levels"
    if text.wide(numbers):
        return "log"
    return "levels" if text.wide([abs(v) for v in numbers if v]) else "linear"


def curve(table: pd.DataFrame, x: str, by: str, value: str) -> go.Figure:
    """A line a level of `by`; rings mark the base's level of `x`, dashed lines the controls."""
    line, controls = table[table["x"].notna()], table[table["x"].isna()]
    levels = list(dict.fromkeys(line["x"]))
    how, names = scale(levels), list(dict.fromkeys(line["by"]))
    words = any(isinstance(level, str | bool) for level in levels)
    fig = theme.figure(height=440)
    rings: list[tuple[float, float]] = []
    for nth, name in enumerate(names):
        part = line[(line["by"] == name) & line["mean"].notna()]
        shaded = not words and len(names) <= MOST_BANDS
        step = 0.0 if shaded else _DODGE if words else _NUDGE
        at = _places(part["x"].tolist(), levels, how, step * (nth - (len(names) - 1) / 2))
        look = theme.mark(nth)
        if shaded:
            fig.add_trace(band(part, at, look))
        fig.add_trace(_line(part, at, name, look, bars=not shaded, joined=not words))
        rings += zip(np.array(at)[part["base"]], part.loc[part["base"], "mean"], strict=True)
    ends = _ends(levels, how)
    for nth, row in enumerate(controls.to_dict("records")):
        fig.add_trace(_level(row, ends, _DASHES[nth % len(_DASHES)]))
    if rings:
        fig.add_trace(_rings(rings, f"{x} of the base"))
    fig.update_layout(showlegend=True, legend_title_text=drawn(by) if by else None)
    fig.update_xaxes(title_text=drawn(x), **_axis(levels, how))
    return fig.update_yaxes(title_text=drawn(value))


def _places(values: list[Any], levels: list[Any], how: Scale, aside: float) -> list[float]:
    """Where levels lie on the axis, moved by a share `aside` of a level's room or of the axis."""
    if how == "levels":
        return [levels.index(value) + aside for value in values]
    low, high = float(min(levels)), float(max(levels))
    if how == "log":
        return [float(value) * (high / low) ** aside for value in values]
    return [float(value) + aside * (high - low) for value in values]


def _axis(levels: list[Any], how: Scale) -> dict[str, Any]:
    """Ticks at the levels themselves, where they are few and apart."""
    if how == "levels":
        return {**theme.levels(levels), "range": [-0.45, len(levels) - 0.55]}
    kind = {"type": "log"} if how == "log" else {}
    place = np.sort(np.log(levels) if how == "log" else np.asarray(levels, float))
    apart = np.diff(place, append=np.inf).min() >= _APART * np.ptp(place)
    if len(levels) > MOST_TICKS or not apart:
        return kind
    return {**kind, "tickvals": levels, "ticktext": [text.number(level) for level in levels]}


def _ends(levels: list[Any], how: Scale) -> list[float]:
    """Where lines across the whole picture begin and end."""
    if how == "levels":
        return [-0.4, len(levels) - 0.6]
    low, high = float(min(levels)), float(max(levels))
    if how == "log":
        return [low / 1.1, high * 1.1]
    return [low - 0.03 * (high - low), high + 0.03 * (high - low)]


def _line(
    part: pd.DataFrame, at: list[float], name: Any, look: dict[str, str], bars: bool, joined: bool
) -> go.Scatter:
    facts = part[["x", "mean", "low", "high", "n"]].itertuples(index=False)
    hover = [
        f"{drawn(text.number(x))}: {text.number(mean)}"
        f" ({text.interval(low, high, text.number)}), n = {n}"
        for x, mean, low, high, n in facts
    ]
    hollow = ["-open" if few else "" for few in part["half"].isna()]
    trace = go.Scatter(
        x=at,
        y=part["mean"].to_numpy(float),
        mode="lines+markers" if joined else "markers",
        name=drawn(text.number(name)) if name != "" else "mean over seeds",
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        line={"color": look["color"], "width": 2},
        marker={
            "size": 8,
            "color": look["color"],
            "symbol": [look["symbol"] + end for end in hollow],
        },
    )
    if bars:
        half = part["half"].to_numpy(float)
        trace.error_y = {"array": half, "color": look["color"], "thickness": 1.4, "width": 3}
    return trace


def band(part: pd.DataFrame, at: list[float], look: dict[str, str]) -> go.Scatter:
    """The area between `low` and `high`, where there is an interval, in the colour of a line."""
    known = part["low"].notna().to_numpy()
    across, low, high = (np.asarray(v, float)[known] for v in (at, part["low"], part["high"]))
    red, green, blue = (int(look["color"][place : place + 2], 16) for place in (1, 3, 5))
    return go.Scatter(
        x=[*across, *across[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )


def _level(row: Row, ends: list[float], dash: str) -> go.Scatter:
    """A control: the same everywhere, its interval at the right end."""
    name, half = drawn(row["by"]), row["half"]
    return go.Scatter(
        x=ends,
        y=[row["mean"]] * 2,
        error_y={"array": [0, half], "color": theme.GREY, "thickness": 1.4, "width": 3},
        mode="lines",
        name=name,
        line={"color": theme.GREY, "width": 1.6, "dash": dash},
        text=[f"{name}: {text.number(row['mean'])}, n = {row['n']}"] * 2,
        hovertemplate="%{text}<extra></extra>",
    )


def _rings(places: list[tuple[float, float]], name: str) -> go.Scatter:
    return go.Scatter(
        x=[x for x, _ in places],
        y=[y for _, y in places],
        mode="markers",
        name=drawn(name),
        marker={"symbol": "circle-open", "size": 17, "color": theme.GREY, "line": {"width": 2}},
        hoverinfo="skip",
    )


def pareto(
    table: pd.DataFrame, names: list[str], cost: str, by: str, metric: str, *, each: bool
) -> go.Figure:
    """Every cell with its intervals; steps join the cells on the front, which the margin names.

    Args:
        table: of `sweeps.pareto`.
        names: what to call its rows.
        cost: in words.
        by: what colours stand for, or nothing.
        metric: in words.
        each: whether every level of `by` has a front of its own.
    """
    table = table.assign(name=names, nth=np.arange(1, len(table) + 1))
    groups = list(dict.fromkeys(table.loc[~table["control"], "by"].dropna()))
    if all(isinstance(group, int | float) for group in groups):
        groups.sort()
    fig = theme.figure(height=480)
    fronts = table[table["front"]]
    for nth, (_, part) in enumerate(fronts.groupby("by") if each else [("", fronts)]):
        fig.add_trace(_steps(part, _DASHES[nth % len(_DASHES)] if nth else "solid"))
    shown = [(group, table[(table["by"] == group) & ~table["control"]]) for group in groups]
    for nth, (group, part) in enumerate(shown):
        word = drawn(f"{by} = {text.number(group)}") if by else "cells"
        fig.add_trace(_points(part, word, theme.mark(nth)))
    if table["control"].any():
        look = {"symbol": "diamond", "color": theme.GREY}
        fig.add_trace(_points(table[table["control"]], "controls", look))
    key = fronts.head(MOST_KEYS)
    lines = [f"{nth}  {drawn(name)}" for nth, name in zip(key["nth"], key["name"], strict=True)]
    if len(fronts) > len(key):
        lines.append(f"… {len(fronts) - len(key)} more")
    fig.add_annotation(
        text="<b>front</b><br>" + "<br>".join(lines), xref="paper", yref="paper", x=1.01, y=1.0,
        xanchor="left", yanchor="top", align="left", showarrow=False, font={"size": 12},
    )  # fmt: skip
    widest = max(len(line) for line in ["front", *lines])
    fig.update_layout(showlegend=True, margin_r=30 + _PIXELS * min(widest, 64))
    fig.update_xaxes(title_text=drawn(cost))
    if text.wide(table["cost"].tolist()):
        fig.update_xaxes(type="log")
    return fig.update_yaxes(title_text=f"test {drawn(metric)}")


def _steps(part: pd.DataFrame, dash: str) -> go.Scatter:
    """The best quality that a cost can buy; numbers stand above the steps, where no cell is."""
    return go.Scatter(
        x=part["cost"].to_numpy(),
        y=part["mean"].to_numpy(),
        mode="lines+text",
        name="front",
        text=[f"{nth}\u2002" for nth in part["nth"]],
        textposition="top left",
        textfont={"size": 13},
        line={"color": theme.GREY, "width": 2, "shape": "hv", "dash": dash},
        hoverinfo="skip",
    )


def _points(part: pd.DataFrame, name: str, look: dict[str, str]) -> go.Scatter:
    bar = {"color": look["color"], "thickness": 1.0, "width": 0}
    facts = part[["name", "mean", "low", "high", "cost", "n"]].itertuples(index=False)
    return go.Scatter(
        x=part["cost"].to_numpy(),
        y=part["mean"].to_numpy(),
        error_x={"array": (part["cost_high"] - part["cost"]).to_numpy(), **bar},
        error_y={"array": (part["high"] - part["mean"]).to_numpy(), **bar},
        mode="markers",
        name=name,
        marker={
            "size": np.where(part["front"], 11, 7).tolist(),
            "symbol": look["symbol"],
            "color": look["color"],
        },
        text=[
            f"{drawn(label)}<br>{text.number(mean)} ({text.interval(low, high, text.number)})"
            f" at {text.number(cost)}, n = {n}"
            for label, mean, low, high, cost, n in facts
        ],
        hovertemplate="%{text}<extra></extra>",
    )

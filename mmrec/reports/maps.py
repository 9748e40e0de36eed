"""Pictures over two factors: squares of a grid, points of a search.

Names go through `drawn`, since plotly reads some HTML; numbers are shown by the page's formats.
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.study import text

Row = Mapping[Hashable, Any]
"""A row of a table."""


def heat_map(table: pd.DataFrame, x: str, y: str, metric: str) -> go.Figure:
    """Squares of the mean with interval and n; hatched holes; the best by validation framed."""
    xs, ys = sorted(table["x"].dropna().unique()), sorted(table["y"].unique())
    shape = (len(ys), max(len(xs), 1))
    mean, hover = np.full(shape, np.nan), np.full(shape, "", object)
    small = shape[1] > 9
    marks, notes = [], []
    for row in table.to_dict("records"):
        i = ys.index(row["y"])
        columns = range(shape[1]) if row["spans"] else [xs.index(row["x"])]
        middle = (columns[0] + columns[-1]) / 2
        mean[i, list(columns)] = row["mean"]
        hover[i, list(columns)] = _square_hover(row, x, y, metric)
        if math.isnan(row["mean"]):
            marks += [hatch(j, i) for j in columns]
            notes.append(note(middle, i, drawn(hole_word(row["reason"])), size=10))
        else:
            size = 10 if small else 13
            words = _square_text(row, small and not row["spans"])
            notes.append(note(middle, i, words, size, _ink(row, table)))
        if row["best"]:
            marks.append(_frame(columns[0], columns[-1], i))
    heat = go.Heatmap(
        z=mean,
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        colorscale="Cividis",
        xgap=2,
        ygap=2,
        colorbar={
            "title": {"text": drawn(metric), "side": "right"},
            "thickness": 12,
            "outlinewidth": 0,
        },
    )
    fig = theme.figure(heat, height=110 + (38 if small else 52) * shape[0])
    fig.update_layout(shapes=marks, annotations=notes)
    fig.update_xaxes(**theme.levels(xs), title_text=drawn(x), showgrid=False)
    fig.update_yaxes(**theme.levels(ys), title_text=drawn(y), showgrid=False, autorange="reversed")
    return fig


def _square_text(row: Row, small: bool) -> str:
    if small:
        return f"{row['mean']:.3f}"
    half = "" if math.isnan(row["half"]) else f"±{row['half']:.4f}, "
    return f"{row['mean']:.4f}<br><span style='font-size:10px'>{half}n={row['n']}</span>"


def _square_hover(row: Row, x: str, y: str, metric: str) -> str:
    place = "any" if row["spans"] else drawn(text.number(row["x"]))
    lines = [f"{drawn(y)} = {drawn(text.number(row['y']))}, {drawn(x)} = {place}"]
    if math.isnan(row["mean"]):
        lines.append(f"no score: {drawn(row['reason'])}")
    else:
        lines.append(f"test {drawn(metric)} {text.score(row['mean'])}")
        lines.append(f"interval {text.interval(row['low'], row['high'])}, n = {row['n']}")
    return "<br>".join([*lines, "best by validation"] if row["best"] else lines)


def hole_word(reason: str) -> str:
    """Why a square is empty, in a word."""
    for word in ("failed", "stopped", "running", "interrupted", "sealed"):
        if word in reason:
            return word
    return "not run"


def hatch(j: int, i: int) -> dict[str, Any]:
    """Diagonal lines over the square in column j, row i: visible without colour."""
    parts = []
    for k in range(-3, 4):
        shift = k / 4
        low, high = max(-0.48, -0.48 - shift), min(0.48, 0.48 - shift)
        parts.append(f"M {j + low},{i + low + shift} L {j + high},{i + high + shift}")
    line = {"color": theme.GREY, "width": 1}
    return {"type": "path", "path": " ".join(parts), "line": line, "opacity": 0.6}


def _frame(first: int, last: int, i: int) -> dict[str, Any]:
    line = {"color": theme.RED, "width": 3.5}
    corners = {"x0": first - 0.48, "x1": last + 0.48, "y0": i - 0.48, "y1": i + 0.48}
    return {"type": "rect", "line": line, **corners}


def note(
    x: float, y: float, words: str, size: int = 12, color: str | None = None
) -> dict[str, Any]:
    """Words in the middle of a square."""
    font = {"size": size} if color is None else {"size": size, "color": color}
    return {"x": x, "y": y, "text": words, "showarrow": False, "font": font}


def _ink(row: Row, table: pd.DataFrame) -> str:
    """Black or white, whichever reads on the square (cividis is dark below its middle)."""
    low, high = table["mean"].min(), table["mean"].max()
    return "#fff" if row["mean"] < (low + high) / 2 else "#000"


def search_map(table: pd.DataFrame, x: str, y: str, metric: str) -> go.Figure:
    """Every suggested trial in its place, coloured by validation; the selected one is a star."""
    fig = theme.figure(height=460)
    low, span = table["value"].min(), max(table["value"].max() - table["value"].min(), 1e-12)
    shade = [str(c) for c in sample_colorscale("Cividis", list((table["value"] - low) / span))]
    table = table.assign(shade=shade, group=table["state"].mask(table["best"], "best"))
    for group, (name, symbol, size) in _MARKS.items():
        part = table[table["group"] == group]
        if len(part):
            line = {"width": 1, "color": theme.GREY}
            marker = {"symbol": symbol, "size": size, "color": part["shade"].tolist(), "line": line}
            fig.add_trace(_points(part, name, marker))
    bar = {"title": {"text": f"validation {drawn(metric)}", "side": "right"}, "thickness": 12}
    scale = {"colorscale": "Cividis", "cmin": low, "cmax": low + span, "showscale": True}
    only_bar = {**scale, "color": [low], "colorbar": {**bar, "outlinewidth": 0}}
    fig.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=only_bar, showlegend=False))
    axes = ((fig.update_xaxes, x, table["x"]), (fig.update_yaxes, y, table["y"]))
    for update, title, values in axes:
        log = {"type": "log", "exponentformat": "power", "dtick": 1} if text.wide(values) else {}
        update(title_text=drawn(title), **log)
    return fig


_MARKS = {
    "stopped": ("stopped", "x", 7),
    "done": ("done", "circle", 10),
    "best": ("best by validation", "star", 16),
}


def _points(part: pd.DataFrame, name: str, marker: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=part["x"].to_numpy(),
        y=part["y"].to_numpy(),
        name=name,
        mode="markers",
        marker=marker,
        text=[drawn(label) for label in part["label"]],
        customdata=part["value"].to_numpy(),
        hovertemplate="%{text}<br>%{customdata:.4f}<extra></extra>",
    )

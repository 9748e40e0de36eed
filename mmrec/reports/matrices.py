"""Pictures of arms by conditions and of arms by topics: a square each, its words inside.

Names go through `drawn`, since plotly reads some HTML.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.maps import Row, hatch, hole_word, note
from mmrec.reports.markup import broken, drawn
from mmrec.stats import ALPHA
from mmrec.study import text

WIDEST = 0.5
"""Relative change at which the colours end."""
_ROW = 26
"""Pixels."""
MARKS = {
    "supported": ("✓", "#009E73"),
    "refuted": ("✗", "#E8833A"),
    "equivalent": ("=", "#7CC4F2"),
    "not separable": ("~", "#C3C8CE"),
    "too few seeds": ("…", "#DFE2E5"),
    "not tested": ("", "#F4F4F2"),
    "mixed": ("≠", "#F0E442"),
}
"""Verdict -> its sign and its colour; mixed: several claims that differ."""


def _matrix(
    table: pd.DataFrame, columns: list[str], trace: dict[str, Any], marks: list[Any], wide: bool
) -> go.Figure:
    """Squares of `trace` at the rows of a ladder, headings on top."""
    ladder = theme.ladder(dict(zip(table["arm"], table["group"], strict=True)))
    heat = go.Heatmap(hovertemplate="%{text}<extra></extra>", xgap=2, ygap=2, **trace)
    lines = 1 + max(name.count("<br>") for name in columns)
    margin = {"l": 70, "r": 20, "t": 24 + 17 * lines + 24 * (not wide), "b": 20}
    height = margin["t"] + margin["b"] + _ROW * ladder.size
    fig = theme.figure(heat, height=height, margin=margin)
    shapes = [mark for mark in marks if "path" in mark]
    fig.update_layout(shapes=shapes, annotations=[mark for mark in marks if "path" not in mark])
    at = {"tickvals": list(range(len(columns))), "ticktext": columns}
    fig.update_xaxes(**at, side="top", showgrid=False, showline=False, ticks="", tickangle=0)
    return fig.update_yaxes(**ladder.axis, showgrid=False, showline=False, ticks="")


def _grid(table: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray, list[Any]]:
    """Empty squares and hovers, and for every row of the table its place (i, j)."""
    ladder = theme.ladder(dict(zip(table["arm"], table["group"], strict=True)))
    names = list(dict.fromkeys(table[column]))
    shape = (ladder.size, len(names))
    rows = zip(table["arm"], table[column], strict=True)
    places = [(int(ladder.place[arm]), names.index(name)) for arm, name in rows]
    return np.full(shape, np.nan), np.full(shape, "", object), places


def condition_map(table: pd.DataFrame, metric: str) -> go.Figure:
    """Relative changes, 0 in the middle of the colours; bold where the corrected p is small."""
    change, hover, places = _grid(table, "condition")
    limit = float(np.nanmin([WIDEST, max(table["relative"].abs().max(), 0.01)]))
    marks = []
    for row, (i, j) in zip(table.to_dict("records"), places, strict=True):
        change[i, j] = row["relative"]
        hover[i, j] = _change_hover(row, metric)
        if math.isnan(row["relative"]):
            word = text.DASH if row["reason"] == "not planned" else hole_word(row["reason"])
            marks += [hatch(j, i), note(j, i, drawn(word), size=10)]
        else:
            words = text.percent(row["relative"])
            words = f"<b>{words}</b>" if row["p_corrected"] < ALPHA else words
            dark = abs(row["relative"]) > 0.8 * limit
            marks.append(note(j, i, words, 12, "#fff" if dark else "#000"))
    trace = {
        "z": change,
        "text": hover,
        "colorscale": theme.LOSS_TO_GAIN,
        "zmin": -limit,
        "zmax": limit,
        "colorbar": {"thickness": 12, "outlinewidth": 0, "tickformat": "+.0%"},
    }
    names = dict.fromkeys(table["condition"])
    return _matrix(table, [condition_words(name) for name in names], trace, marks, wide=True)


def condition_words(name: str) -> str:
    """A condition over two or three short lines: `image+text=`, `noise`, `@eval`."""
    parts = name.replace("=", "=\n").replace("@", "\n@").replace("<-", "<-\n").split("\n")
    return "<br>".join(drawn(part) for part in parts)


def _change_hover(row: Row, metric: str) -> str:
    place = f"{drawn(row['arm'])}, {drawn(row['condition'])}"
    if math.isnan(row["relative"]):
        return f"{place}<br>no number: {drawn(row['reason'])}"
    return f"{place}<br>{text.percent(row['relative'])}, {difference(row, metric)}"


def difference(row: Row, metric: str) -> str:
    """`+0.0123 NDCG@10`, its interval with the level, seeds and p."""
    parts = [f"{text.signed(row['effect'])} {drawn(metric)}"]
    if not math.isnan(row["low"]):
        ends = text.interval(row["low"], row["high"], text.signed)
        parts.append(f"{100 * row['level']:.3g} % interval {ends}")
        parts.append(f"corrected p {text.p_value(row['p_corrected'])}")
    return f"{'<br>'.join(parts)}, n = {row['n']}"


def verdict_map(table: pd.DataFrame) -> go.Figure:
    """Verdicts as colours, signs and sizes of effect; several claims of one square are one sign."""
    found = table.groupby(["arm", "topic"], sort=False)
    shown = found.first().reset_index()
    shown["verdict"] = [one if same else "mixed" for one, same in _common(found["verdict"])]
    shown["claims"] = found.size().to_numpy()
    kind, hover, places = _grid(shown, "topic")
    order = list(MARKS)
    marks = []
    for row, (i, j) in zip(shown.to_dict("records"), places, strict=True):
        sign, _ = MARKS[row["verdict"]]
        kind[i, j] = order.index(row["verdict"])
        one = row["claims"] == 1
        size = text.percent(row["relative"]) if one and not math.isnan(row["relative"]) else ""
        hover[i, j] = "<br>".join(
            [f"{drawn(row['arm'])}: {drawn(row['topic'])}", f"{drawn(row['verdict'])} {size}"]
        )
        if row["verdict"] == "not tested":
            marks.append(hatch(j, i))
        words = f"<b>{sign}</b> {size}".strip() if sign else ""
        marks.append(note(j, i, words, 12, "#000"))
    scale = [
        (end / len(order), colour)
        for place, (_, colour) in enumerate(MARKS.values())
        for end in (place, place + 1)
    ]
    limits = {"zmin": -0.5, "zmax": len(order) - 0.5, "colorscale": scale, "showscale": False}
    names = dict.fromkeys(shown["topic"])
    topics = [broken(topic, min(20, max(10, 140 // len(names)))) for topic in names]
    fig = _matrix(shown, topics, {"z": kind, "text": hover, **limits}, marks, wide=False)
    for verdict in order:
        if verdict in set(shown["verdict"]):
            fig.add_trace(_legend_entry(verdict))
    room = 44 - fig.layout.margin.b  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    fig.update_layout(height=fig.layout.height + room, margin_b=44)  # pyright: ignore[reportAttributeAccessIssue]
    return fig.update_layout(legend={"y": 0, "yanchor": "top"}, showlegend=True)


def _common(verdicts: Any) -> list[tuple[str, bool]]:
    """The first verdict of each group, and whether all of it agree."""
    return [(str(group.iloc[0]), len(set(group)) == 1) for _, group in verdicts]


def _legend_entry(verdict: str) -> go.Scatter:
    sign, colour = MARKS[verdict]
    marker = {"symbol": "square", "size": 13, "color": colour}
    return go.Scatter(
        x=[None], y=[None], mode="markers", marker=marker, name=f"{sign} {verdict}".strip()
    )

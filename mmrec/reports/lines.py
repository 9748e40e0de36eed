"""Pictures of a number against a factor or a ratio: means, intervals, single seeds.

Names go through `drawn`, since plotly reads some HTML; numbers are shown by the page's formats.
"""

import math
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.study import text


def ratio_curve(
    table: pd.DataFrame, points: pd.DataFrame, ratio: str, zero: str, metric: str
) -> go.Figure:
    """Mean and confidence band over a log axis, every seed's point, and ratio 0 as a level band."""
    line, seeds = table[table["ratio"] > 0], points[points["ratio"] > 0]
    ends = [line["ratio"].min() / 1.5, line["ratio"].max() * 1.5]
    again = line[line["n"] > 1]
    sparse = _sparse(line)
    traces = [
        *_zero_band(table[table["ratio"] == 0], ends, zero),
        *([] if sparse else _band(line, "ratio")),
    ]
    traces.append(
        go.Scatter(
            x=seeds["ratio"].to_numpy(),
            y=seeds["value"].to_numpy(),
            text=[
                f"{drawn(label)}, seed {seed}"
                for label, seed in zip(seeds["label"], seeds["seed"], strict=True)
            ],
            mode="markers",
            name="one seed",
            marker={"symbol": "circle-open", "size": 6, "color": theme.GREY},
            hovertemplate="%{text}<br>%{y:.4f}<extra></extra>",
        )
    )
    mean = _line(again if sparse else line, "ratio", "mean over seeds")
    if sparse:
        mean.mode = "markers"
        mean.error_y = {"array": again["half"], "color": theme.BLUE, "thickness": 1.5}
    traces.append(mean)
    fig = theme.figure(*traces, height=440)
    fig.update_xaxes(type="log", title_text=drawn(ratio), exponentformat="power", dtick=1)
    fig.update_yaxes(title_text=f"test {drawn(metric)}")
    return fig


def _sparse(table: pd.DataFrame) -> bool:
    """Whether few places have several seeds, as in a search: a line would join noise."""
    return 2 * int((table["n"] > 1).sum()) < len(table)


def _line(table: pd.DataFrame, x: str, name: str, **more: Any) -> go.Scatter:
    facts = table[[x, "mean", "low", "high", "n"]].itertuples(index=False)
    hover = [
        f"{drawn(text.number(at))}: {text.number(mean)}"
        f" ({text.interval(low, high, text.number)}), n = {n}"
        for at, mean, low, high, n in facts
    ]
    return go.Scatter(
        x=table[x].to_numpy(),
        y=table["mean"].to_numpy(),
        mode="lines+markers",
        name=name,
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        line={"color": theme.BLUE, "width": 2},
        marker={"size": 7, "color": theme.BLUE},
        **more,
    )


def _band(table: pd.DataFrame, x: str, **more: Any) -> list[go.Scatter]:
    """The area between `low` and `high`, where there is an interval."""
    known = table[table["low"].notna()]
    if known.empty:
        return []
    across = [*known[x], *known[x][::-1]]
    edge = [*known["high"], *known["low"][::-1]]
    return [_area(across, edge, theme.BAND, "95 % interval over seeds", **more)]


def _zero_band(rows: pd.DataFrame, ends: list[float], name: str, **more: Any) -> list[Any]:
    """A horizontal line at the mean of ratio 0, with its interval."""
    if rows.empty:
        return []
    row = rows.iloc[0]
    line = go.Scatter(
        x=ends,
        y=[row["mean"]] * 2,
        mode="lines",
        name=drawn(name),
        line={"color": theme.ORANGE, "width": 2, "dash": "dash"},
        hovertemplate=f"{text.number(row['mean'])}, n = {row['n']}<extra></extra>",
        **more,
    )
    if math.isnan(row["low"]):
        return [line]
    edge = [row["low"], row["low"], row["high"], row["high"]]
    shaded = {**more, "showlegend": False}
    return [_area([*ends, *ends[::-1]], edge, "rgba(230,159,0,0.18)", drawn(name), **shaded), line]


def _area(x: list[float], y: list[float], colour: str, name: str, **more: Any) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        fill="toself",
        fillcolor=colour,
        mode="lines",
        line={"width": 0},
        name=name,
        hoverinfo="skip",
        **more,
    )


def measures(table: pd.DataFrame, at: str, zero: str) -> go.Figure:
    """One panel a measure; on a log axis a place of 0 is a level line."""
    names = list(dict.fromkeys(table["measure"]))
    above = [v for v in table["at"] if isinstance(v, str) or v > 0]
    log = text.wide(above)
    fig, places, down = theme.panels([text.words(name) for name in names])
    for first, (name, (row, col)) in enumerate(zip(names, places, strict=False)):
        part = table[table["measure"] == name].sort_values("at")
        line = part[part["at"] > 0] if log else part
        show = {"showlegend": first == 0}
        traces: list[Any] = []
        if log:
            off = part[part["at"] == 0]
            ends = [line["at"].min() / 1.5, line["at"].max() * 1.5]
            traces += _zero_band(off, ends, zero, **show)
        mean = _line(line, "at", "mean over seeds", **show)
        if _sparse(line):
            mean.update(mode="markers")
        else:
            traces += _band(line, "at", **show)
        traces.append(mean)
        fig.add_traces(traces, rows=row, cols=col)
        scale = {"type": "log", "exponentformat": "power", "dtick": 1} if log else {}
        fig.update_xaxes(title_text=drawn(at), row=row, col=col, **scale)
    fig = theme.style(fig, 70 + 270 * down)
    return fig.update_layout(legend_y=1.0 + 0.14 / down, margin_t=70)


def main_effects(table: pd.DataFrame, metric: str) -> go.Figure:
    """One panel a factor, levels at even distances, intervals over seeds, one common y axis."""
    names = list(dict.fromkeys(table["factor"]))
    fig, places, down = theme.panels(names, shared_yaxes=True)
    for name, (row, col) in zip(names, places, strict=False):
        part = table[table["factor"] == name].reset_index(drop=True)
        part = part.assign(place=part.index)
        trace = _line(part, "place", name, showlegend=False)
        trace.error_y = {"array": part["half"].to_numpy(), "color": theme.BLUE, "thickness": 1.5}
        whole = part["cells"] == part["of"]
        trace.update(marker_symbol=["circle" if full else "circle-open" for full in whole])
        fig.add_trace(trace, row=row, col=col)
        fig.update_xaxes(**theme.levels(part["level"].tolist()), row=row, col=col)
    fig = theme.style(fig, 80 + 260 * down, margin_t=40)
    return fig.update_yaxes(title_text=f"test {drawn(metric)}", col=1)

"""Pictures of arms down an axis: changes, gates, tries of tuning, published numbers.

Names go through `drawn`, since plotly reads some HTML.
"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.maps import Row
from mmrec.reports.markup import drawn
from mmrec.reports.matrices import difference
from mmrec.study import text

_SLOT = 10
"""Pixels of one of several dots of an arm."""
_STEP = 24
"""Pixels of an arm that has one line to itself."""


def _groups(table: pd.DataFrame) -> dict[str, str]:
    return dict(zip(table["arm"], table["group"], strict=True))


def _level(x: float, **line: Any) -> dict[str, Any]:
    """A vertical line through all of a panel."""
    return {"x": x, "line": {"color": theme.GREY, "width": 1.5, **line}, "layer": "below"}


def reach(table: pd.DataFrame) -> tuple[float, float]:
    """The ends of the forest's axis; endless intervals of two seeds would hide all the rest."""
    low, high = min(table["effect"].min(), 0.0), max(table["effect"].max(), 0.0)
    beyond = 0.6 * (high - low) or 1e-3
    lowest, highest = table[["low", "effect"]].min().min(), table[["high", "effect"]].max().max()
    return max(low - beyond, min(lowest, 0.0)), min(high + beyond, max(highest, 0.0))


def condition_forest(table: pd.DataFrame, metric: str) -> go.Figure:
    """Every arm's differences, one mark a condition; hollow marks have one seed, no interval."""
    table = table[table["n"] > 0]
    names = list(dict.fromkeys(table["condition"]))
    room = len(names) + 1
    ladder = theme.ladder(_groups(table), room)
    fig = theme.figure(height=130 + _SLOT * ladder.size)
    for nth, name in enumerate(names):
        part = table[table["condition"] == name]
        look = theme.mark(nth)
        hollow = ["-open" if few else "" for few in part["low"].isna()]
        trace = go.Scatter(
            x=part["effect"].to_numpy(),
            y=[ladder.place[arm] + nth - (len(names) - 1) / 2 for arm in part["arm"]],
            error_x={
                "array": (part["high"] - part["effect"]).to_numpy(),
                "color": look["color"],
                "thickness": 1.2,
                "width": 2,
            },
            mode="markers",
            name=drawn(name),
            marker={
                "size": 7,
                "color": look["color"],
                "symbol": [look["symbol"] + h for h in hollow],
            },
            text=[_difference_hover(row, metric) for row in part.to_dict("records")],
            hovertemplate="%{text}<extra></extra>",
        )
        fig.add_trace(trace)
    fig.add_vline(**_level(0))
    for band in theme.bands(ladder, room):
        fig.add_shape(band)
    fig.update_yaxes(**ladder.axis, showgrid=False, ticks="")
    least, most = reach(table)
    margin = 0.03 * (most - least)
    ends = [least - margin, most + margin]
    return fig.update_xaxes(title_text=f"difference of test {drawn(metric)}", range=ends)


def _difference_hover(row: Row, metric: str) -> str:
    place = f"{drawn(row['arm'])}, {drawn(row['condition'])}"
    return f"{place}<br>{text.percent(row['relative'])}<br>{difference(row, metric)}"


def fillers(table: pd.DataFrame, metric: str) -> go.Figure:
    """One panel a knocked set, one dot a filler, a line between the farthest ones.

    What is replaced at evaluation only stands below, hollow, on a dotted line.
    """
    sets = list(dict.fromkeys(table["knocked"]))
    ladder = theme.ladder(_groups(table))
    fig, places, down = theme.panels(sets, shared_yaxes=True)
    marks = {name: theme.mark(n) for n, name in enumerate(dict.fromkeys(table["filler"]))}
    seen: set[str] = set()
    for name, (row, col) in zip(sets, places, strict=False):
        part = table[table["knocked"] == name]
        both = len(set(part["when"])) > 1
        for when, rows in part.groupby("when", sort=False):
            down_by = 0.22 * both * (1 if when == "eval" else -1)
            dash = "dot" if when == "eval" else "solid"
            fig.add_trace(_ranges(rows, ladder, down_by, dash), row=row, col=col)
            for filler, dots in rows.groupby("filler", sort=False):
                label = f"{filler}, replaced at evaluation only" if when == "eval" else str(filler)
                trace = _dots(dots, ladder, down_by, marks[str(filler)], when == "eval")
                trace.update(
                    name=drawn(label), legendgroup=drawn(label), showlegend=label not in seen
                )
                seen.add(label)
                fig.add_trace(trace, row=row, col=col)
        fig.add_vline(**_level(0), row=row, col=col)  # pyright: ignore[reportArgumentType]
    fig = theme.style(fig, 110 + down * (40 + _STEP * ladder.size), margin_t=80)
    fig.update_layout(legend_y=1.0 + 34 / (_STEP * ladder.size * down))
    fig.update_yaxes(**ladder.axis, ticks="")
    return fig.update_xaxes(tickformat="+.0%", title_text=f"change of {drawn(metric)}")


def _ranges(rows: pd.DataFrame, ladder: theme.Ladder, down_by: float, dash: str) -> go.Scatter:
    """A line from the lowest to the highest dot of each arm."""
    x: list[Any] = []
    y: list[Any] = []
    for arm, part in rows.groupby("arm", sort=False):
        x += [part["relative"].min(), part["relative"].max(), None]
        y += [ladder.place[str(arm)] + down_by] * 2 + [None]
    line = {"color": theme.GREY, "width": 2, "dash": dash}
    return go.Scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False)


def _dots(
    dots: pd.DataFrame, ladder: theme.Ladder, down_by: float, mark: dict[str, str], hollow: bool
) -> go.Scatter:
    hover = [
        f"{drawn(row['arm'])}, {drawn(row['knocked'])} = {drawn(row['filler'])}"
        f"<br>{text.percent(row['relative'])}"
        f" ({text.interval(row['low'], row['high'], text.percent)}), n = {row['n']}"
        for row in dots.to_dict("records")
    ]
    return go.Scatter(
        x=dots["relative"].to_numpy(),
        y=[ladder.place[arm] + down_by for arm in dots["arm"]],
        mode="markers",
        marker={**mark, "symbol": mark["symbol"] + "-open" * hollow, "size": 8},
        text=hover,
        hovertemplate="%{text}<extra></extra>",
    )


def gates(table: pd.DataFrame) -> go.Figure:
    """One panel a modality; hollow where it was replaced in training; lines at 0, 0.5 and 1."""
    modalities, names = (list(dict.fromkeys(table[key])) for key in ("modality", "condition"))
    room = len(names) + 1
    ladder = theme.ladder(_groups(table), room)
    fig, places, down = theme.panels(modalities, shared_yaxes=True)
    for modality, (row, col) in zip(modalities, places, strict=False):
        for nth, name in enumerate(names):
            part = table[(table["modality"] == modality) & (table["condition"] == name)]
            look = theme.mark(nth)
            hollow = ["-open" if out else "" for out in part["replaced"]]
            trace = go.Scatter(
                x=part["mean"].to_numpy(),
                y=[ladder.place[arm] + nth - (len(names) - 1) / 2 for arm in part["arm"]],
                error_x={"array": part["half"].to_numpy(), "color": look["color"], "width": 2},
                mode="markers",
                marker={**look, "symbol": [look["symbol"] + h for h in hollow], "size": 8},
                name=drawn(name),
                legendgroup=drawn(name),
                showlegend=modality == modalities[0],
                text=[drawn(f"{arm}, {name}") for arm in part["arm"]],
                hovertemplate="%{text}<br>%{x:.3f}<extra></extra>",
            )
            fig.add_trace(trace, row=row, col=col)
        for x, dash in ((0, "solid"), (0.5, "dot"), (1, "solid")):
            fig.add_vline(**_level(x, dash=dash), row=row, col=col)  # pyright: ignore[reportArgumentType]
    inside = _SLOT * ladder.size * down
    fig = theme.style(fig, 130 + down * 40 + inside, margin_t=80)
    fig.update_layout(legend_y=1.0 + 34 / inside)
    fig.update_yaxes(**ladder.axis, ticks="", showgrid=False)
    least, most = min(table["mean"].min(), 0.0), max(table["mean"].max(), 1.0)
    return fig.update_xaxes(title_text="gate after training", range=[least - 0.06, most + 0.06])


def tuning(table: pd.DataFrame, tries: pd.DataFrame, metric: str) -> go.Figure:
    """Every try a tick, the arm's own settings hollow, the chosen ones full."""
    groups = dict(zip(table["of"], table["group"], strict=True))
    ladder = theme.ladder(groups)
    y = {name: ladder.place[name] for name in groups}
    joined = [
        value
        for row in table.to_dict("records")
        for value in ((row["default"], y[row["of"]]), (row["best"], y[row["of"]]), (None, None))
    ]
    line = {"color": theme.GREY, "width": 2}
    ticks = {"symbol": "line-ns-open", "size": 9, "color": theme.GREY}
    own = {"symbol": "circle-open", "size": 9, "color": theme.ORANGE, "line": {"width": 2}}
    chosen = {"symbol": "circle", "size": 9, "color": theme.BLUE}
    traces = [
        go.Scatter(
            x=[x for x, _ in joined], y=[at for _, at in joined], mode="lines", line=line,
            hoverinfo="skip", showlegend=False,
        ),
        _points(tries["valid"], [y[name] for name in tries["of"]], "a try", ticks, tries["knobs"]),
        _points(table["default"], list(y.values()), "own settings", own, table["of"]),
        _points(table["best"], list(y.values()), "chosen", chosen, table["knobs"]),
    ]  # fmt: skip
    fig = theme.figure(*traces, height=110 + _STEP * ladder.size)
    fig.update_yaxes(**ladder.axis, ticks="")
    return fig.update_xaxes(title_text=f"validation {drawn(metric)}")


def means(table: pd.DataFrame, against: str = "") -> go.Figure:
    """One panel a name in column `panel`, each with an axis of its own: means and intervals.

    Names in column `label` go down the page by `group`; `show` has the words of a mean and its
    interval. A vertical line stands at `against`, hollow marks have one seed and no interval.
    """
    panels = list(dict.fromkeys(table["panel"]))
    ladder = theme.ladder(dict(zip(table["label"], table["group"], strict=True)))
    across = 4 if len(panels) == 4 else 3
    fig, places, down = theme.panels(panels, across, shared_yaxes=True)
    for panel, (row, col) in zip(panels, places, strict=False):
        part = table[table["panel"] == panel]
        y = [ladder.place[label] for label in part["label"]]
        dots = _points(part["mean"], y, panel, {"size": 8, "color": theme.BLUE}, part["label"])
        dots.update(
            showlegend=False,
            error_x={"array": part["half"].to_numpy(float), "color": theme.BLUE, "width": 2},
            marker_symbol=["circle-open" if few else "circle" for few in part["half"].isna()],
            text=[drawn(words) for words in part["label"] + ": " + part["show"]],
            hovertemplate="%{text}<extra></extra>",
        )
        fig.add_trace(dots, row=row, col=col)
        for at in part.loc[part["label"] == against, "mean"]:
            fig.add_vline(**_level(at, dash="dot"), row=row, col=col)
    fig = theme.style(fig, 90 + down * (70 + _STEP * ladder.size), margin_t=40)
    return fig.update_yaxes(**ladder.axis, ticks="")


def _points(
    x: pd.Series, y: list[float], name: str, marker: dict[str, Any], words: pd.Series
) -> go.Scatter:
    return go.Scatter(
        x=x.to_numpy(),
        y=y,
        mode="markers",
        name=name,
        marker=marker,
        text=[drawn(word) for word in words],
        hovertemplate="%{text}<br>%{x:.4f}<extra></extra>",
    )


def published(table: pd.DataFrame, metric: str) -> go.Figure:
    """One panel a condition: ours with its interval, theirs as a diamond."""
    names = list(dict.fromkeys(table["condition"]))
    ladder = theme.ladder(dict.fromkeys(table["model"], ""))
    fig, places, down = theme.panels(names, shared_yaxes=True)
    theirs = {"symbol": "diamond-open", "size": 9, "color": theme.ORANGE, "line": {"width": 2}}
    mine = {"symbol": "circle", "size": 7, "color": theme.BLUE}
    for name, (row, col) in zip(names, places, strict=False):
        part = table[table["condition"] == name]
        y = [ladder.place[model] for model in part["model"]]
        ours = _points(part["ours"], y, "ours, 95 % interval over seeds", mine, part["model"])
        half = (part["ours_high"] - part["ours"]).to_numpy(np.float64)
        ours.update(error_x={"array": half, "color": theme.BLUE, "width": 2})
        for trace in (_points(part["published"], y, "published", theirs, part["model"]), ours):
            trace.update(legendgroup=trace.name, showlegend=name == names[0])
            fig.add_trace(trace, row=row, col=col)
    inside = _STEP * ladder.size * down
    fig = theme.style(fig, 110 + down * 40 + inside, margin_t=80)
    fig.update_layout(legend_y=1.0 + 34 / inside)
    fig.update_yaxes(**ladder.axis, ticks="")
    return fig.update_xaxes(title_text=f"test {drawn(metric)}", rangemode="tozero")

"""Pictures of trials and cells one by one: scores, learning curves, the course of a search.

Names go through `drawn`, since plotly reads some HTML; numbers are shown by the page's formats.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.study import text


def forest(table: pd.DataFrame, metric: str) -> go.Figure:
    """Every cell a line, best validation mean on top; controls are diamonds, the best a star."""
    symbols = np.where(
        table["best"], "star", np.where(table["phase"] == "control", "diamond", "circle")
    )
    colours = np.where(
        table["best"], theme.RED, np.where(table["phase"] == "control", theme.GREEN, theme.BLUE)
    )
    trace = go.Scatter(
        x=table["test"].to_numpy(),
        y=list(range(len(table))),
        error_x={
            "array": table["test_half"].to_numpy(),
            "color": theme.GREY,
            "thickness": 1.5,
        },
        mode="markers",
        marker={
            "symbol": symbols.tolist(),
            "color": colours.tolist(),
            "size": np.where(table["best"], 13, 8).tolist(),
        },
        text=[drawn(label) for label in table["label"]],
        hovertemplate="%{text}<br>%{x:.4f}<extra></extra>",
        showlegend=False,
    )
    fig = theme.figure(
        trace, height=118 + 22 * len(table), margin={"l": 70, "r": 20, "t": 38, "b": 50}
    )
    names = [drawn(label) for label in table["label"]]
    fig.update_yaxes(
        tickvals=list(range(len(table))), ticktext=names, autorange="reversed", ticks=""
    )
    return fig.update_xaxes(title_text=f"test {drawn(metric)}")


_CURVES = {
    "best": ("best cell", theme.RED, "solid", 2.2, "star"),
    "done": ("other finished", theme.BLUE, "solid", 1.0, None),
    "stopped": ("stopped early (cross: where)", theme.ORANGE, "solid", 1.4, "x"),
    "failed": ("failed or interrupted", theme.GREY, "dot", 1.4, "triangle-down"),
}


def learning_curves(table: pd.DataFrame, best: str | None, metric: str) -> go.Figure:
    """Validation over epochs; stopped and failed curves end in a mark."""
    kind = table["state"].where(table["state"].isin(["done", "stopped"]), "failed")
    kind = kind.mask((table["cell"] == best) & (table["state"] == "done"), "best")
    traces = []
    for group in ("done", "failed", "stopped", "best"):
        part = table[kind == group]
        if part.empty:
            continue
        name, colour, dash, width, symbol = _CURVES[group]
        x, y, words = _joined(part)
        look: dict[str, Any] = {"color": colour, "width": width, "dash": dash}
        traces.append(
            go.Scatter(
                x=x,
                y=y,
                text=words,
                name=name,
                mode="lines",
                line=look,
                legendgroup=group,
                opacity=0.55 if group == "done" else 1,
                hovertemplate="%{text}<br>epoch %{x}: %{y:.4f}<extra></extra>",
            )
        )
        if symbol in ("x", "triangle-down"):
            last = part.groupby("hash", sort=False).tail(1)
            traces.append(
                go.Scatter(
                    x=last["epoch"].to_numpy(),
                    y=last["value"].to_numpy(),
                    mode="markers",
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=group,
                    marker={"symbol": symbol, "size": 9, "color": colour},
                )
            )
    fig = theme.figure(*traces, height=440)
    fig.update_xaxes(title_text="epoch")
    return fig.update_yaxes(title_text=f"validation {drawn(metric)}")


def _joined(part: pd.DataFrame) -> tuple[list[Any], list[Any], list[str]]:
    """All curves in one line with gaps: one trace instead of sixty."""
    x: list[Any] = []
    y: list[Any] = []
    words: list[str] = []
    for _, curve in part.groupby("hash", sort=False):
        label = f"{drawn(curve['label'].iloc[0])}, seed {curve['seed'].iloc[0]}"
        x += [*curve["epoch"].tolist(), None]
        y += [*curve["value"].tolist(), None]
        words += [label] * (len(curve) + 1)
    return x, y, words


_STATES = {"done": ("circle", theme.BLUE), "stopped": ("x-thin-open", theme.ORANGE)}


def history(table: pd.DataFrame, metric: str) -> go.Figure:
    """Every trial of the search in the order of its start, and the best finished one so far."""
    traces = [*_by_state(table, "number", "value")]
    traces.append(
        go.Scatter(
            x=table["number"].to_numpy(),
            y=table["best"].to_numpy(),
            mode="lines",
            name="best finished so far",
            line={"color": theme.RED, "width": 2, "shape": "hv"},
            hoverinfo="skip",
        )
    )
    fig = theme.figure(*traces, height=380)
    fig.update_xaxes(title_text="trial, in the order of starting")
    return fig.update_yaxes(title_text=f"validation {drawn(metric)}")


def _by_state(table: pd.DataFrame, x: str, y: str, **more: Any) -> Iterator[go.Scatter]:
    for state, (symbol, colour) in _STATES.items():
        part = table[table["state"] == state]
        if len(part):
            yield go.Scatter(
                x=part[x].to_numpy(),
                y=part[y].to_numpy(),
                mode="markers",
                name=state,
                marker={
                    "symbol": symbol,
                    "size": 7,
                    "color": colour,
                    "line": {"width": 1.6 if symbol != "circle" else 0, "color": colour},
                },
                text=[drawn(name) for name in part["hash"]],
                hovertemplate="%{text}<br>%{x:.4g}: %{y:.4f}<extra></extra>",
                **more,
            )


def slices(table: pd.DataFrame, metric: str) -> go.Figure:
    """One panel a factor: the validation objective of every trial of the search."""
    names = list(dict.fromkeys(table["factor"]))
    fig, places, down = theme.panels(names, shared_yaxes=True)
    for first, (name, (row, col)) in enumerate(zip(names, places, strict=False)):
        part = table[table["factor"] == name]
        fig.add_traces(
            list(_by_state(part, "level", "value", showlegend=first == 0)), rows=row, cols=col
        )
        if text.wide(part["level"]):
            fig.update_xaxes(type="log", exponentformat="power", dtick=1, row=row, col=col)
    fig = theme.style(fig, 100 + 270 * down)
    fig.update_layout(legend_y=1.0 + 0.12 / down, margin_t=70)
    return fig.update_yaxes(title_text=f"validation {drawn(metric)}", col=1)


def importance(table: pd.DataFrame, title: str) -> go.Figure:
    """Bars of the share of each effect, the largest on top."""
    top = table.head(12).iloc[::-1]
    bars = go.Bar(
        x=top["share"].to_numpy(),
        y=[drawn(name) for name in top["effect"]],
        orientation="h",
        marker={"color": theme.BLUE},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        text=[f"{value:.2f}" for value in top["share"]],
        textposition="outside",
        cliponaxis=False,
    )
    fig = theme.figure(
        bars, height=118 + 34 * len(top), margin={"l": 90, "r": 50, "t": 38, "b": 50}
    )
    return fig.update_xaxes(title_text=title, rangemode="tozero")

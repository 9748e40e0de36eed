"""Pictures of clouds of item embeddings: their numbers, their spectra, their points on a plane.

Names go through `drawn`, since plotly reads some HTML; numbers are shown by the page's formats.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.study import text
from mmrec.study.clouds import STAGES

STAGE_NAMES = {"features": "raw features", "start": "untrained", "trained": "trained"}
_MARKS = {
    "features": ("diamond-open", theme.GREY),
    "start": ("circle-open", theme.ORANGE),
    "trained": ("circle", theme.BLUE),
}
_COLOURS = (theme.BLUE, theme.ORANGE, theme.GREEN, theme.RED, theme.SKY, theme.PURPLE)
_DASHES = ("solid", "dash", "dot", "dashdot")
_SYMBOLS = ("circle", "triangle-up-open", "square", "cross-open", "diamond", "x-open")


def forest(table: pd.DataFrame) -> go.Figure:
    """A panel a measure, a line a cloud, a mark a stage."""
    names = list(dict.fromkeys(table["measure"]))
    several = len(table["condition"].unique()) > 1
    labels = [
        " · ".join([arm, *([condition] if several else []), modality])
        for arm, condition, modality in zip(
            table["arm"], table["condition"], table["modality"], strict=True
        )
    ]
    table = table.assign(label=labels)
    # Every cloud has the first measure, so that its rows give the order of all.
    place = {label: n for n, label in enumerate(dict.fromkeys(labels))}
    across = 4 if len(names) == 4 else 3  # a row of one would be as high as the other
    titles = [text.words(name) for name in names]
    fig, where, down = theme.panels(titles, across, shared_yaxes=True)
    for first, (name, (row, col)) in enumerate(zip(names, where, strict=False)):
        part = table[table["measure"] == name]
        y = part["label"].map(place)
        for stage in STAGES:
            at = part["stage"] == stage
            if at.any():
                fig.add_trace(_marks(part[at], y[at], stage, first == 0), row=row, col=col)
        known = part["chance"].notna() & (part["stage"] == "trained")
        if known.any():
            fig.add_trace(_ticks(part.loc[known, "chance"], y[known]), row=row, col=col)
    fig = theme.style(fig, 110 + down * (70 + 18 * len(place)))
    fig.update_yaxes(
        tickvals=list(place.values()),
        ticktext=[drawn(label) for label in place],
        range=[len(place) - 0.5, -0.5],
        ticks="",
    )
    return fig.update_layout(legend_y=1.0 + 0.06 / down, margin_t=80)


def _marks(part: pd.DataFrame, y: pd.Series, stage: str, legend: bool) -> go.Scatter:
    name, (symbol, colour) = STAGE_NAMES[stage], _MARKS[stage]
    facts = zip(part["label"], part["mean"], part["low"], part["high"], part["n"], strict=True)
    return go.Scatter(
        x=part["mean"].to_numpy(),
        y=y.to_numpy(),
        error_x={"array": part["half"].to_numpy(), "color": colour, "thickness": 1.5},
        mode="markers",
        name=name,
        legendgroup=stage,
        showlegend=legend,
        marker={"symbol": symbol, "size": 8, "color": colour},
        text=[
            f"{drawn(label)}, {name}: {text.number(mean)}"
            f" ({text.interval(low, high, text.number)}), n = {n}"
            for label, mean, low, high, n in facts
        ],
        hovertemplate="%{text}<extra></extra>",
    )


def _ticks(chance: pd.Series, y: pd.Series) -> go.Scatter:
    return go.Scatter(
        x=chance.to_numpy(),
        y=y.to_numpy(),
        mode="markers",
        hoverinfo="skip",
        showlegend=False,
        marker={
            "symbol": "line-ns",
            "size": 11,
            "color": theme.GREY,
            "line": {"width": 1.5, "color": theme.GREY},
        },
    )


def cumulative(table: pd.DataFrame) -> go.Figure:
    """A panel a modality and stage, a line an arm: cumulative share of variance."""
    clouds = list(dict.fromkeys(zip(table["modality"], table["stage"], strict=True)))
    arms = list(dict.fromkeys(table["arm"]))
    titles = [f"{modality}, {STAGE_NAMES[stage]}" for modality, stage in clouds]
    fig, where, down = theme.panels(titles, shared_yaxes=True)
    told: set[str] = set()
    for (modality, stage), (row, col) in zip(clouds, where, strict=False):
        panel = table[(table["modality"] == modality) & (table["stage"] == stage)]
        for arm, part in panel.groupby("arm", sort=False):
            nth = arms.index(str(arm))
            line = go.Scatter(
                x=part["component"].to_numpy(),
                y=part["cumulative"].to_numpy(),
                mode="lines",
                name=drawn(arm),
                legendgroup=drawn(arm),
                showlegend=arm not in told,
                line={
                    "color": _COLOURS[nth % len(_COLOURS)],
                    "dash": _DASHES[nth // len(_COLOURS) % len(_DASHES)],
                    "width": 2,
                },
                hovertemplate="%{x} components: %{y:.3f}",
            )
            fig.add_trace(line, row=row, col=col)
            told.add(str(arm))
        fig.update_xaxes(title_text="components", type="log", dtick=1, row=row, col=col)
    fig = theme.style(fig, 90 + 250 * down)
    fig.update_yaxes(range=[0, 1.02])
    fig.update_yaxes(title_text="share of variance", col=1)
    return fig.update_layout(legend_y=1.0 + 0.14 / down, margin_t=80)


def planes(table: pd.DataFrame) -> go.Figure:
    """A panel a picture, a colour and a symbol a modality."""
    panels = table.groupby(["arm", "stage", "panel"], sort=False)
    modalities = sorted(set(table["modality"]))
    titles = [_title(modalities, *map(str, key)) for key, _ in panels]  # pyright: ignore[reportGeneralTypeIssues]
    fig, where, down = theme.panels(titles, across=4)
    told: set[str] = set()
    for (_, panel), (row, col) in zip(panels, where, strict=False):
        for modality, part in panel.groupby("modality", sort=False):
            fig.add_trace(_dots(part, modalities, str(modality) not in told), row=row, col=col)
            told.add(str(modality))
    fig = theme.style(fig, 80 + 260 * down)
    bare: dict[str, Any] = {"showticklabels": False, "ticks": ""}
    fig.update_xaxes(**bare)
    fig.update_yaxes(**bare)
    return fig.update_layout(legend_y=1.0 + 0.14 / down, margin_t=80)


def _title(modalities: list[str], arm: str, stage: str, panel: str) -> str:
    words = STAGE_NAMES[stage]
    if panel != "+".join(modalities):  # else the legend says it, and shorter
        words = f"{words}: {panel}"
    return f"{arm}, {words}" if arm else words


def _dots(part: pd.DataFrame, modalities: list[str], legend: bool) -> go.Scatter:
    modality = str(part["modality"].iloc[0])
    nth = modalities.index(modality) % len(_COLOURS)
    return go.Scatter(
        x=part["x"].to_numpy(),
        y=part["y"].to_numpy(),
        mode="markers",
        name=drawn(modality),
        legendgroup=drawn(modality),
        showlegend=legend,
        marker={"symbol": _SYMBOLS[nth], "size": 5, "color": _COLOURS[nth], "opacity": 0.8},
        text=[f"{drawn(modality)}, item {item}" for item in part["item"]],
        hovertemplate="%{text}<extra></extra>",
    )

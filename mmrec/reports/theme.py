"""Colours that survive colour blindness, both colour schemes and a printer."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mmrec.reports.markup import drawn
from mmrec.study import text

# Okabe & Ito (2008). Never the only sign of anything: symbols, dashes or words go with them.
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
)
GREY = "#808790"
BAND = "rgba(0,114,178,0.16)"
GREY_BAND = "rgba(128,135,144,0.22)"
# Two of the hues above, a little darker, with paper between them: losses, nothing, gains.
LOSS_TO_GAIN = [[0.0, "#B85000"], [0.25, "#EBAF80"], [0.5, "#F7F7F5"], [0.75, "#80B9DA"],
                [1.0, "#00609A"]]  # fmt: skip
FONT = "'Source Sans 3', 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"


def figure(*traces: Any, height: int = 420, **layout: Any) -> go.Figure:
    """A figure in the report's style; ink and grid colours come from the page's colour scheme."""
    fig = go.Figure(list(traces))
    return style(fig, height, **layout)


def style(fig: go.Figure, height: int, **layout: Any) -> go.Figure:
    """Apply the report's style in place and return the figure."""
    fig.update_layout(
        template="none",
        height=height,
        font={"family": FONT, "size": 13},
        margin={"l": 70, "r": 20, "t": 38, "b": 60},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": BLUE},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "xanchor": "left"},
    )
    fig.update_layout(**layout)
    axis = {
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "zeroline": False,
        "automargin": True,
    }
    fig.update_xaxes(**axis, title_standoff=8)
    fig.update_yaxes(**axis, title_standoff=8)
    return fig


def levels(values: list[Any]) -> dict[str, Any]:
    """Axis settings that put level k at place k."""
    words = [drawn(text.number(value)) for value in values]
    return {"tickvals": list(range(len(values))), "ticktext": words}


def panels(titles: list[str], across: int = 3, **how: Any) -> tuple[go.Figure, Iterator[Any], int]:
    """A grid of small figures, the (row, col) of each, and the number of rows."""
    across = min(across, len(titles))
    down = math.ceil(len(titles) / across)
    fig = make_subplots(
        down,
        across,
        subplot_titles=[drawn(t) for t in titles],
        horizontal_spacing=0.09,
        vertical_spacing=0.22 / max(down - 1, 1) if down > 1 else 0.0,
        **how,
    )
    places = itertools.product(range(1, down + 1), range(1, across + 1))
    return fig, places, down


_SYMBOLS = (
    "circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "pentagon",
    "star", "hourglass",
)  # fmt: skip
_COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, GREY)


def mark(nth: int) -> dict[str, str]:
    """The nth of 70 different pairs of symbol and colour."""
    return {"symbol": _SYMBOLS[nth % len(_SYMBOLS)], "color": _COLOURS[nth % len(_COLOURS)]}


class Ladder(NamedTuple):
    """Places of names down a vertical axis, each group under its heading."""

    place: dict[str, float]
    """Name -> the middle of its room."""
    axis: dict[str, Any]
    """Settings of the axis."""
    size: int
    """Room in all."""


def ladder(groups: Mapping[str, str], room: int = 1) -> Ladder:
    """Names of one group follow each other; `groups` maps each to its group, "" to none."""
    place, ticks, top, last = {}, {}, 0, ""
    head = min(room, 2)
    for name, group in groups.items():
        if group and group != last:
            ticks[top + (head - 1) / 2] = f"<b>{drawn(group)}</b>"
            top += head
        last = group
        place[name] = top + (room - 1) / 2
        ticks[place[name]] = drawn(name)
        top += room
    axis = {"tickvals": list(ticks), "ticktext": list(ticks.values())}
    return Ladder(place, {**axis, "range": [top - 0.5, -0.5]}, top)


def bands(ladder: Ladder, room: int) -> list[dict[str, Any]]:
    """A shade behind every other name, so that the eye keeps its line."""
    look = {"type": "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    colour = {"fillcolor": GREY_BAND, "opacity": 0.4, "line": {"width": 0}}
    return [
        {**look, **colour, "y0": y - room / 2, "y1": y + room / 2}
        for y in list(ladder.place.values())[::2]
    ]

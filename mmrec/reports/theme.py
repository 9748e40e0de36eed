"""Colours that survive colour blindness, both colour schemes and a printer."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

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

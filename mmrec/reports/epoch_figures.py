"""Courses over epochs: a panel a quantity, a line with its band a name."""

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.reports.sweep_figures import band

_COLOURS = 7


def courses(
    table: pd.DataFrame,
    *,
    panel: str,
    line: str,
    title: Callable[[str], str],
    digits: int,
    top: int,
    dots: bool = False,
) -> go.Figure:
    """The figure.

    Args:
        table: `epoch mean low high`, and the two columns below; panels and lines in its order.
        panel: the column that a panel is of.
        line: the column that a line is of; it has one look in all panels.
        title: of a panel.
        digits: after the point, of what is shown under the pointer.
        top: pixels above the panels, for the legend.
        dots: whether epochs are marked.
    """
    panels, names = (list(dict.fromkeys(table[key])) for key in (panel, line))
    fig, places, down = theme.panels([title(str(name)) for name in panels])
    for which, (row, col) in zip(panels, places, strict=False):
        for label, part in table[table[panel] == which].groupby(line, sort=False):
            nth, name = names.index(label), drawn(str(label))
            look = theme.mark(nth)
            at = part["epoch"].astype(float).tolist()
            trace = go.Scatter(
                x=at,
                y=part["mean"].to_numpy(),
                mode="lines+markers" if dots else "lines",
                name=name,
                legendgroup=str(nth),
                showlegend=which == panels[0],
                line={"color": look["color"], "width": 2, "dash": _dash(nth)},
                marker={**look, "size": 6},
                hovertemplate=f"{name}, epoch %{{x}}: %{{y:.{digits}f}}<extra></extra>",
            )
            fig.add_traces([band(part, at, look), trace], rows=row, cols=col)
        fig.update_xaxes(title_text="epoch", row=row, col=col)
    fig = theme.style(fig, top + 20 + 280 * down)
    return fig.update_layout(legend_y=1.0 + 0.16 / down, margin_t=top)


def _dash(nth: int) -> str:
    """Lines of one colour differ in their dashes."""
    return ("solid", "dash", "dot", "dashdot")[nth // _COLOURS % 4]

"""The picture of a ranking by how many modalities are left.

Names go through `drawn`, since plotly reads some HTML.
"""

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.study import text

_DODGE = 0.05
"""Between lines at one size."""
_DASHES = ("solid", "dot", "dash", "dashdot")


def by_size(sizes: pd.DataFrame, subsets: pd.DataFrame, metric: str) -> go.Figure:
    """A line with intervals each; single subsets faint; all modalities on the left, one right.

    Groups differ in their dashes; hollow where there is one seed, or a subset has no number.
    """
    lines, groups = (list(dict.fromkeys(sizes[key])) for key in ("line", "group"))
    fig = theme.figure(height=480)
    for nth, name in enumerate(lines):
        part, points = sizes[sizes["line"] == name], subsets[subsets["line"] == name]
        aside = _DODGE * (nth - (len(lines) - 1) / 2)
        look = theme.mark(nth)
        dash = _DASHES[groups.index(part["group"].iloc[0]) % len(_DASHES)]
        fig.add_trace(_points(points, aside, look, str(name)))
        fig.add_trace(_line(part, aside, look, str(name), dash))
    counts = sorted(set(sizes["size"]), reverse=True)
    fig.update_layout(showlegend=True)
    ends = [counts[0] + 0.5, counts[-1] - 0.5]
    fig.update_xaxes(title_text="modalities left at evaluation", tickvals=counts, range=ends)
    return fig.update_yaxes(title_text=f"test {drawn(metric)}", rangemode="tozero")


def _line(
    part: pd.DataFrame, aside: float, look: dict[str, str], name: str, dash: str
) -> go.Scatter:
    whole = part["half"].notna() & (part["subsets"] == part["of"])
    return go.Scatter(
        x=(part["size"] + aside).to_numpy(float),
        y=part["mean"].to_numpy(float),
        error_y={"array": part["half"].to_numpy(float), "color": look["color"], "width": 3},
        mode="lines+markers",
        name=drawn(name),
        legendgroup=drawn(name),
        line={"color": look["color"], "width": 2, "dash": dash},
        marker={
            "size": 8,
            "color": look["color"],
            "symbol": [look["symbol"] + "-open" * (not full) for full in whole],
        },
        text=[
            f"{drawn(name)}, {row['size']} left: {text.score(row['mean'])}"
            f" ({text.interval(row['low'], row['high'])}), n = {row['n']}<br>mean of"
            f" {row['subsets']} of {row['of']} subsets"
            for row in part.to_dict("records")
        ],
        hovertemplate="%{text}<extra></extra>",
    )


def _points(points: pd.DataFrame, aside: float, look: dict[str, str], name: str) -> go.Scatter:
    """The subsets, each its mean over seeds."""
    return go.Scatter(
        x=(points["size"] + aside).to_numpy(float),
        y=points["mean"].to_numpy(float),
        mode="markers",
        legendgroup=drawn(name),
        showlegend=False,
        opacity=0.3,
        marker={"size": 5, "color": look["color"], "symbol": look["symbol"]},
        text=[
            f"{drawn(name)} with {drawn(row['left'])}: {text.score(row['mean'])}"
            for row in points.to_dict("records")
        ],
        hovertemplate="%{text}<extra></extra>",
    )

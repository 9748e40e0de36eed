"""A small panel an arm: relative change by thirds of items and of users, a line a condition."""

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.markup import drawn
from mmrec.study import text
from mmrec.study.verdicts import variant

MOST_PANELS = 16
HIGHEST = 1.0
"""Relative change above which a panel is cut off: a thin stratum can double on little."""
_CONTROL = {"symbol": "circle-open", "color": theme.GREY}
_ACROSS = 4
_GAP = 0.6


def drawn_arms(table: pd.DataFrame) -> list[str]:
    """At most `MOST_PANELS` arms; where that is too few, variants give way first."""
    arms = list(dict.fromkeys(table["arm"]))
    kept = sorted(arms, key=lambda arm: variant(arm, arms) != "")[:MOST_PANELS]
    return [arm for arm in arms if arm in kept]


def strata(table: pd.DataFrame, metric: str) -> go.Figure:
    """Lines of one colour are one condition; the grey dashed one holds the arm to the control."""
    shown = table[table["relative"].notna()]
    arms = drawn_arms(shown)
    lines = list(dict.fromkeys(zip(shown["condition"], shown["against"], strict=True)))
    own = [line for line in lines if line[1] in set(table["condition"])]
    thirds = list(dict.fromkeys(zip(table["kind"], table["stratum"], strict=True)))
    kinds = list(dict.fromkeys(kind for kind, _ in thirds))
    x = {third: n + _GAP * kinds.index(third[0]) for n, third in enumerate(thirds)}
    fig, places, down = theme.panels(arms, _ACROSS, shared_yaxes=True)
    seen = set()
    for arm, (row, col) in zip(arms, places, strict=False):
        for line in lines:
            part = shown[(shown["arm"] == arm) & (shown["condition"] == line[0])]
            part = part[part["against"] == line[1]]
            if part.empty:
                continue
            name = line[0] if line in own else f"{line[0]}, against {line[1]}"
            look = theme.mark(own.index(line)) if line in own else _CONTROL
            trace = _line(part, x, name, look, dashed=line not in own)
            trace.update(legendgroup=drawn(name), showlegend=name not in seen)
            seen.add(name)
            fig.add_trace(trace, row=row, col=col)
    fig = theme.style(fig, 130 + 270 * down, margin_t=90)
    fig.update_layout(legend_y=1.0 + 0.14 / down)
    lowest, highest = shown["relative"].min(), shown["relative"].max()
    ends = [max(-1.05, lowest - 0.05), min(HIGHEST, max(highest, 0.0) + 0.05)]
    fig.update_yaxes(range=ends, tickformat="+.0%")
    fig.update_yaxes(title_text=f"change of {drawn(metric)}", col=1)
    ticks = {"tickvals": list(x.values()), "ticktext": [drawn(name) for _, name in thirds]}
    fig.update_xaxes(**ticks, tickangle=-60, range=[-0.4, max(x.values()) + 0.4])
    return fig.add_hline(y=0, line={"color": theme.GREY, "width": 1.2}, layer="below")


def _line(
    part: pd.DataFrame, x: dict[tuple[str, str], float], name: str, look: dict[str, str],
    dashed: bool,
) -> go.Scatter:  # fmt: skip
    """Broken between the kinds of strata."""
    at: list[float | None] = []
    y: list[float | None] = []
    half: list[float | None] = []
    words: list[str] = []
    for kind, rows in part.groupby("kind", sort=False):
        for row in rows.to_dict("records"):
            at.append(x[str(kind), row["stratum"]])
            y.append(row["relative"])
            half.append(row["high"] - row["relative"])
            ends = text.interval(row["low"], row["high"], text.percent)
            words.append(
                f"{drawn(name)}<br>{drawn(row['stratum'])} {drawn(kind)}:"
                f" {text.percent(row['relative'])} ({ends}), n = {row['n']}"
            )
        at.append(None)
        y.append(None)
        half.append(None)
        words.append("")
    return go.Scatter(
        x=at,
        y=y,
        error_y={"array": half, "color": look["color"], "thickness": 0.8, "width": 0},
        mode="lines+markers",
        name=drawn(name),
        line={"color": look["color"], "width": 1.4, "dash": "dash" if dashed else "solid"},
        marker={"symbol": look["symbol"], "size": 5},
        text=words,
        hovertemplate="%{text}<extra></extra>",
    )

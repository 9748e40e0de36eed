"""Whether the codes of one modality of the next item are right where those of the other are.

An ID of two modalities is written one after the other: both can be right, one of them, or neither.
"""

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import theme
from mmrec.reports.arms import arms, trained
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.markup import drawn
from mmrec.reports.tables import over_seeds
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import Correspondence

_COLUMNS = ["arm", "group", "condition", "outcome", "mean", "half", "low", "high", "n"]
BOTH, NEITHER = "both right", "neither right"
_LOOKS = ((theme.BLUE, ""), (theme.GREEN, "/"), (theme.ORANGE, "\\"), (theme.GREY_BAND, ""))
"""Colour and hatching of the outcomes, in their order."""
_STEP = 34
"""Pixels of an arm."""


def outcomes(view: Correspondence) -> tuple[str, str, str, str]:
    """What can become of an ID, in words."""
    first, second = view.modalities
    return BOTH, f"only {first} right", f"only {second} right", NEITHER


def correspondence(tables: StudyTables, view: Correspondence) -> pd.DataFrame:
    """One row an arm, condition and outcome: its columns are `_COLUMNS`.

    Means over seeds with 95 % t intervals; the four `outcomes` of an arm add up to 1. A fifth row,
    `only A less only B`, is the paired difference of the two in the middle. Arms whose IDs have
    not got both modalities are left out.
    """
    rows, (first, second) = trained(tables), view.modalities
    rows = rows[rows["state"] == "done"]
    needs = [f"measure.{name}" for name in ("right_all", f"only_{first}", f"only_{second}")]
    if any(name not in rows for name in needs):
        return pd.DataFrame(columns=_COLUMNS)
    rows = rows.dropna(subset=needs)
    all_S, one_S, other_S = (rows[name] for name in needs)
    shares = (all_S, one_S, other_S, 1 - all_S - one_S - other_S, one_S - other_S)
    names = (*outcomes(view), difference(view))
    rows = rows.assign(**dict(zip(names, shares, strict=True)))
    parts = [over_seeds(rows, ["arm", "condition"], name).assign(outcome=name) for name in names]
    table, group = pd.concat(parts, ignore_index=True), arms(tables)
    order = {arm: nth for nth, arm in enumerate(group)}
    table = table.assign(group=table["arm"].map(group), place=table["arm"].map(order))
    table = table.sort_values(["place", "condition"], kind="stable", ignore_index=True)
    return table[_COLUMNS]


def difference(view: Correspondence) -> str:
    """The fifth row's name."""
    first, second = view.modalities
    return f"only {first} less only {second}"


def exhibit(tables: StudyTables, view: Correspondence) -> Exhibit:
    """A bar an arm, divided by outcome; in words how often the modalities part company."""
    first, second = view.modalities
    key, title = "correspondence", f"Are {first} codes right where {second} codes are wrong?"
    table = correspondence(tables, view)
    if table.empty:
        said = f"No finished trial wrote IDs of both {first} and {second}."
        return Exhibit(key, title, said, table, None)
    shown = table[table["condition"] == table["condition"].iloc[0]]
    parts = [_words(str(arm), rows, view) for arm, rows in shown.groupby("arm", sort=False)]
    said = f"{'; '.join(parts)}. Shares of the validation's users whose next item's ID is written"
    said += " freely, the likeliest token each time; 95 % intervals over seeds are in the table."
    if len(shown) < len(table):
        said += f" Drawn: {shown['condition'].iloc[0]}; other conditions are in the table."
    return Exhibit(key, title, said, table, _bars(shown, outcomes(view)))


def _words(arm: str, rows: pd.DataFrame, view: Correspondence) -> str:
    """`MGR-LF: both right 4.0 %, only text 9.0 %, only image 2.0 % (difference ...)`."""
    mean = dict(zip(rows["outcome"], rows["mean"], strict=True))
    (first, second), apart = view.modalities, rows[rows["outcome"] == difference(view)].iloc[0]
    both, one, other, _ = (mean[name] for name in outcomes(view))
    said = f"{arm}: both {_share(both)}, only {first} {_share(one)}, only {second} {_share(other)}"
    between = text.interval(apart["low"], apart["high"], text.percent)
    return f"{said} (difference {between})" if between != text.DASH else said


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _bars(table: pd.DataFrame, names: tuple[str, ...]) -> go.Figure:
    """Bars that add up to 1, told apart by colour and hatching."""
    ladder = theme.ladder(dict(zip(table["arm"], table["group"], strict=True)))
    traces = []
    for name, (colour, shape) in zip(names, _LOOKS, strict=True):
        part = table[table["outcome"] == name]
        words = [
            f"{drawn(row['arm'])}, {drawn(name)}: {_share(row['mean'])}"
            f" ({text.interval(row['low'], row['high'], _share)}), n = {row['n']}"
            for row in part.to_dict("records")
        ]
        # Without a `bgcolor` the lines would be all that is drawn.
        pattern = {"shape": shape, "bgcolor": colour, "fgcolor": "#fff", "fgopacity": 0.35}
        traces.append(
            go.Bar(
                x=part["mean"].to_numpy(float),
                y=[ladder.place[arm] for arm in part["arm"]],
                orientation="h",
                width=0.7,
                name=drawn(name),
                marker={"color": colour, "pattern": {**pattern, "size": 7, "solidity": 0.15}},
                text=[_share(mean) if mean > _ROOM else "" for mean in part["mean"]],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                textfont={"color": "#000", "size": 11},
                hovertext=words,
                hovertemplate="%{hovertext}<extra></extra>",
            )
        )
    fig = theme.figure(*traces, height=120 + _STEP * ladder.size, barmode="stack")
    fig.update_layout(legend_traceorder="normal")
    fig.update_yaxes(**ladder.axis, ticks="", showgrid=False)
    return fig.update_xaxes(title_text="share of users", range=[0, 1], tickformat=".0%")


_ROOM = 0.05
"""Share of a bar below which its number has no room."""

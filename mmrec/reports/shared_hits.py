"""Whose next item two arms both find: overlaps of all pairs of arms, beside what chance gives.

Letters in names: A arms.
"""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import dots, theme
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.maps import note
from mmrec.reports.markup import broken, drawn
from mmrec.reports.tables import over_seeds
from mmrec.study import text
from mmrec.study.overlap import Shared
from mmrec.study.tables import StudyTables
from mmrec.study.views import SharedHits

_KEYS = ["one", "other"]
_PARTS = ("jaccard", "expected_jaccard", "share", "expected_share", "beyond")
_COLUMNS = [
    *_KEYS, "jaccard", "jaccard_low", "jaccard_high", "expected_jaccard", "share", "share_low",
    "share_high", "expected_share", "beyond", "beyond_low", "beyond_high", "n",
]  # fmt: skip
_ROW = 30
"""Pixels."""
WORDS = {
    "jaccard": "found by both over found by either",
    "share": "share of its hits that the other finds too",
}


def shared(tables: StudyTables, view: SharedHits) -> pd.DataFrame:
    """One row an ordered pair of arms: its columns are `_COLUMNS`.

    `jaccard` is users found by both over those found by either, `share` those found by both over
    those that `one` finds; each with its 95 % t interval over seeds. `expected_...` is what they
    would be if the one had nothing to do with the other, each finding as many, and `beyond` how far
    the Jaccard overlap is above that, paired by seed.
    """
    hits = tables.hits
    if hits is None or hits.empty:
        return pd.DataFrame(columns=_COLUMNS)
    chosen = view.arms or tuple(dict.fromkeys([*hits["one"], *hits["other"]]))
    hits = hits[hits["one"].isin(chosen) & hits["other"].isin(chosen)]
    rows = []
    for row in hits.itertuples():
        counts = Shared(row.found_one, row.found_other, row.both, row.users)  # pyright: ignore[reportArgumentType]
        for names, pair in (((row.one, row.other), counts), ((row.other, row.one), counts.turned)):
            chance = pair.independent
            found = (pair.jaccard, chance.jaccard, pair.share, chance.share)
            rows.append((*names, row.seed, *found, pair.jaccard - chance.jaccard))
    by_seed = pd.DataFrame(rows, columns=[*_KEYS, "seed", *_PARTS])
    table = by_seed[_KEYS].drop_duplicates()
    for part in _PARTS:
        found = over_seeds(by_seed, _KEYS, part).drop(columns="half")
        found = found.rename(columns={"mean": part, "low": f"{part}_low", "high": f"{part}_high"})
        table = table.merge(found.drop(columns="n" if part != "jaccard" else []), on=_KEYS)
    place = {arm: nth for nth, arm in enumerate(chosen)}
    order = [table[key].map(place) for key in _KEYS]
    table = table.assign(at=order[0], to=order[1]).sort_values(["at", "to"], ignore_index=True)
    return table[_COLUMNS]


def exhibits(tables: StudyTables, view: SharedHits) -> list[Exhibit]:
    """All pairs as a map; those of one arm by themselves, if the view names it."""
    title, table = "Whose next item two arms both find", shared(tables, view)
    if table.empty:
        said = "No two arms have finished trials that kept their users under a seed of both."
        return [Exhibit("shared_hits", title, said, table, None)]
    k = tables.run["objective"].partition("@")[2]
    said = f"A user is found if the test item is among the first {k}. {_ends(table)}"
    said += " A square is the Jaccard overlap, found by both over found by either, mean over seeds;"
    said += " the table has intervals, shares, and what chance would give to arms that find as"
    said += " many and have nothing to do with each other."
    made = [Exhibit("shared_hits", title, said, table, _map(table))]
    if view.of:
        made.append(_of_one(table, view))
    return made


def _ends(table: pd.DataFrame) -> str:
    ordered = table.sort_values("jaccard", kind="stable")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    parts = [
        f"{word} {row['one']} and {row['other']}, {text.score(row['jaccard'], 3)}"
        f" (by chance {text.score(row['expected_jaccard'], 3)})"
        for word, row in (("Most alike are", high), ("least", low))
    ]
    return f"{'; '.join(parts)}."


def _map(table: pd.DataFrame) -> go.Figure:
    """Squares of the Jaccard overlap, the diagonal left empty."""
    names = list(dict.fromkeys(table["one"]))
    overlap_AA = np.full((len(names), len(names)), np.nan)
    hover, notes = np.full(overlap_AA.shape, "", object), []
    middle = (table["jaccard"].min() + table["jaccard"].max()) / 2
    for row in table.to_dict("records"):
        i, j = names.index(row["one"]), names.index(row["other"])
        overlap_AA[i, j] = row["jaccard"]
        ends = text.interval(row["jaccard_low"], row["jaccard_high"])
        hover[i, j] = (
            f"{drawn(row['one'])} and {drawn(row['other'])}<br>"
            f"{text.score(row['jaccard'])} ({ends})<br>"
            f"by chance {text.score(row['expected_jaccard'])}, n = {row['n']}"
        )
        ink = "#fff" if row["jaccard"] < middle else "#000"  # cividis is dark below its middle
        notes.append(note(j, i, text.score(row["jaccard"], 2), 12, ink))
    bar = {"title": {"text": "Jaccard overlap", "side": "right"}, "thickness": 12}
    heat = go.Heatmap(
        z=overlap_AA,
        text=hover,
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=False,
        colorscale="Cividis",
        xgap=2,
        ygap=2,
        colorbar={**bar, "outlinewidth": 0},
    )
    fig = theme.figure(heat, height=110 + _ROW * len(names), margin_t=64, annotations=notes)
    look = {"tickvals": list(range(len(names))), "showgrid": False, "showline": False, "ticks": ""}
    heads = [broken(name, 12) for name in names]
    fig.update_xaxes(**look, ticktext=heads, side="top", tickangle=0)
    return fig.update_yaxes(**look, ticktext=[drawn(n) for n in names], autorange="reversed")


def _of_one(table: pd.DataFrame, view: SharedHits) -> Exhibit:
    """The overlaps of `view.of` with each of `view.with_`, beside those of chance."""
    key, title = "shared_hits_of", f"With whom {view.of} shares its hits"
    rows = table[(table["one"] == view.of) & table["other"].isin(view.with_)]
    if rows.empty:
        said = f"{view.of} shares no seed with {' or '.join(view.with_)}."
        return Exhibit(key, title, said, rows, None)
    parts = [
        f"with {row['other']} {text.score(row['jaccard'], 3)}"
        f" ({text.interval(row['jaccard_low'], row['jaccard_high'], _three)}; by chance"
        f" {text.score(row['expected_jaccard'], 3)}), {100 * row['share']:.0f} % of its hits are"
        f" found there too (by chance {100 * row['expected_share']:.0f} %)"
        for row in rows.to_dict("records")
    ]
    said = f"Overlap {'; '.join(parts)}. Bars: 95 % intervals over seeds, not corrected; hollow:"
    said += " by chance."
    absent = [name for name in view.with_ if name not in set(rows["other"])]
    if absent:
        said += f" Without a seed in common: {', '.join(absent)}."
    return Exhibit(key, title, said, rows, _beside_chance(rows))


def _three(value: float) -> str:
    return text.score(value, 3)


def _beside_chance(rows: pd.DataFrame) -> go.Figure:
    """A panel a measure, a line an arm: what was found, and what chance would give."""
    panels = []
    for part, words in WORDS.items():
        low, high = rows[f"{part}_low"], rows[f"{part}_high"]
        shown = [
            f"{_three(mean)} ({text.interval(a, b, _three)}), n = {n}"
            for mean, a, b, n in zip(rows[part], low, high, rows["n"], strict=True)
        ]
        labels = [f"with {name}" for name in rows["other"]]
        facts = {"panel": words, "label": labels, "group": "", "mean": rows[part], "show": shown}
        panels.append(pd.DataFrame({**facts, "half": high - rows[part]}))
    fig = dots.means(pd.concat(panels, ignore_index=True))
    look = {"symbol": "diamond-open", "size": 9, "color": theme.ORANGE, "line": {"width": 2}}
    for col, part in enumerate(WORDS, start=1):
        trace = go.Scatter(
            x=rows[f"expected_{part}"].to_numpy(float),
            y=list(range(len(rows))),
            mode="markers",
            marker=look,
            name="by chance",
            showlegend=col == 1,
            hovertemplate="by chance %{x:.3f}<extra></extra>",
        )
        fig.add_trace(trace, row=1, col=col)
    fig.update_layout(height=(fig.layout.height or 0) + _ROW, margin_t=40 + _ROW)
    fig.update_layout(legend={"y": 1, "yref": "container", "yanchor": "top"})
    return fig.update_xaxes(rangemode="tozero")

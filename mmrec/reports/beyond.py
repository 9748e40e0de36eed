"""What lists are like beyond their accuracy: coverage, popularity and long tail, with intervals.

A line of the table is an arm under a condition; in a study without arms, or whose arms have
several cells each, it is a cell, called by its label. Searched cells of one seed are left out.
"""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from mmrec.reports import dots
from mmrec.reports.arms import arms
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.tables import cells, over_seeds
from mmrec.stats import Paired
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import BeyondAccuracy

MOST_LINES = 40
"""Arms or cells that the figure shows."""
WORDS = {
    "coverage": "coverage is the share of the catalogue that anybody is shown",
    "arp": "ARP the mean number of training interactions of what is shown",
    "aplt": "APLT the share of lists from the 80 % least popular items",
    "pl": "PL how much more popular a list is than its user's history (0: alike)",
}
_SHARES = ("coverage", "aplt", "recall", "ndcg", "precision", "map", "mrr", "f1", "hit")
_Place = tuple[str, str]
"""A line and a condition."""
_BEYOND = [
    "label", "group", "condition", "metric", "mean", "half", "low", "high", "n", "against",
    "effect", "effect_low", "effect_high", "pairs", "reason",
]  # fmt: skip


def exhibit(tables: StudyTables, view: BeyondAccuracy) -> Exhibit:
    """The table, what it says of the first condition, and a panel of dots a metric."""
    table, title = beyond(tables, view), f"Beyond accuracy: the lists of {_cutoff(tables)} items"
    first = table[table["condition"] == table["condition"].iloc[0]] if len(table) else table
    known = first[first["mean"].notna()]
    if known.empty:
        said = "No finished trial has recorded these metrics."
        return Exhibit("beyond", title, said, table, None)
    parts = [_ends(str(name), rows) for name, rows in known.groupby("metric", sort=False)]
    names = [WORDS[name] for name in view.names if name in WORDS]
    said = f"{'; '.join(parts)}."
    said += f" Here {', '.join(names)}." * bool(names)
    said += _against(known, view.against) + _left_out(table, first)
    shown = _drawn(known)
    if len(shown) < len(known):
        said += f" Drawn: the first {MOST_LINES} of {known['label'].nunique()} cells."
    said += " Bars: 95 % intervals over seeds, not corrected."
    return Exhibit("beyond", title, said, table, dots.means(shown, view.against))


def beyond(tables: StudyTables, view: BeyondAccuracy) -> pd.DataFrame:
    """One row a line, condition and metric: its columns are those of `_BEYOND`.

    `mean` has its 95 % t interval over seeds, `half` being half of it. `effect` is the mean paired
    difference from the line called `view.against` over the `pairs` seeds of both, under the same
    condition, or, where that one is planned under the first condition only, under that; `against`
    says which. `reason` says why there is no mean.
    """
    rows = _lines(tables)
    conditions = list(dict.fromkeys(tables.trials["condition"]))
    group = dict(zip(rows["label"], rows["group"], strict=True))
    places, made = _places(tables, rows), []
    for metric in (f"{name}@{_cutoff(tables)}" for name in view.names):
        means, values_S = _scores(rows, f"test.{metric}")
        for place, reason in places.items():
            label, condition = place
            to = (view.against, condition)
            to = to if to in places else (view.against, conditions[0])
            row: dict[str, Any] = {"label": label, "group": group[label], "condition": condition}
            row |= {"metric": metric, "n": 0, "against": "", "pairs": 0}
            row["reason"] = "" if place in means else reason or "not recorded"
            made.append({**row, **means.get(place, {}), **_difference(values_S, place, to)})
    table = pd.DataFrame(made, columns=_BEYOND)
    order = {place: nth for nth, place in enumerate(places)}
    at = [
        (conditions.index(condition), order[label, condition])
        for label, condition in zip(table["label"], table["condition"], strict=True)
    ]
    return table.iloc[sorted(range(len(at)), key=at.__getitem__)].reset_index(drop=True)


def _places(tables: StudyTables, rows: pd.DataFrame) -> dict[_Place, str]:
    """Every (line, condition), in order, and why its cells have no test score, if so."""
    reason = cells(tables).set_index("cell")["reason"].to_dict()
    found: dict[_Place, set[str]] = {}
    for row in rows.drop_duplicates("cell").to_dict("records"):
        found.setdefault((row["label"], row["condition"]), set()).add(reason[row["cell"]])
    return {place: "; ".join(sorted(reasons - {""})) for place, reasons in found.items()}


def _lines(tables: StudyTables) -> pd.DataFrame:
    """The trials in question, in the order shown; `label` names their line, `group` its group."""
    rows = tables.trials[~tables.trials["phase"].isin(("tune", "search"))]
    arm = rows["arm"] if "arm" in rows else pd.Series("", rows.index)
    several = rows["cell"].groupby([arm, rows["condition"]]).transform("nunique") > 1
    by_cell = ((arm == "") | several).groupby(arm).transform("any")
    pairs = zip(rows["label"], rows["condition"], strict=True)
    bare = pd.Series([label.removesuffix(f" {name}") for label, name in pairs], rows.index)
    groups = arms(tables)
    place = {name: nth for nth, name in enumerate(groups)}
    rows = rows.assign(
        label=bare.where(by_cell, arm),
        group=[groups.get(name, "") for name in arm],
        place=arm.map(place),
    )
    return rows.sort_values("place", kind="stable", na_position="first")


def _scores(
    rows: pd.DataFrame, column: str
) -> tuple[dict[_Place, dict[Any, Any]], dict[_Place, np.ndarray]]:
    """`mean half low high n` of every place, and its (S,) values, nan where one is missing.

    Cells of one place, of which there is one in general, are averaged within a seed.
    """
    if column not in rows:
        return {}, {}
    rows = rows[(rows["state"] == "done") & rows[column].notna()]
    means = {
        (row.pop("label"), row.pop("condition")): row
        for row in over_seeds(rows, ["label", "condition"], column).to_dict("records")
    }
    by_seed = rows.pivot_table(column, ["label", "condition"], "seed")
    return means, dict(zip(by_seed.index.tolist(), by_seed.to_numpy(), strict=True))


def _difference(values_S: dict[_Place, np.ndarray], one: _Place, other: _Place) -> dict[str, Any]:
    """The paired difference of two places over the seeds of both; nothing if they share none."""
    if one == other or one not in values_S or other not in values_S:
        return {}
    both_2S = np.stack([values_S[one], values_S[other]])
    both_2S = both_2S[:, ~np.isnan(both_2S).any(axis=0)]
    if not both_2S.size:
        return {}
    pair = Paired.of(*both_2S)
    low, high = pair.interval()
    name = other[0] if other[1] == one[1] else ", ".join(other)
    found = {"against": name, "effect": pair.effect, "pairs": pair.n}
    return {**found, "effect_low": low, "effect_high": high}


# --- in words


def _cutoff(tables: StudyTables) -> str:
    return tables.run["objective"].partition("@")[2]


def show(metric: str, value: float) -> str:
    """A value of a metric such as `arp@10`: shares have four decimals, others four digits."""
    is_share = metric.partition("@")[0] in _SHARES
    return text.score(value) if is_share else text.number(value)


def _ends(name: str, rows: pd.DataFrame) -> str:
    """`Coverage@10 from 0.1000 (Popularity) to 0.7000 (SiBraR)`."""
    ordered = rows.sort_values("mean", kind="stable")
    low, high = ordered.iloc[0], ordered.iloc[-1]
    ends = f"from {show(name, low['mean'])} ({low['label']}) to {show(name, high['mean'])}"
    return f"{text.metric(name)} {ends} ({high['label']})"


def _against(known: pd.DataFrame, against: str) -> str:
    """How many lines are above and below what they are compared with, metric by metric."""
    if not against:
        return ""
    held = known[known["effect"].notna()]
    if held.empty:
        return f" Nothing is compared with {against}: no seed of it is in common."
    parts = []
    for name, rows in held.groupby("metric", sort=False):
        above, below = int((rows["effect_low"] > 0).sum()), int((rows["effect_high"] < 0).sum())
        parts.append(f"{text.metric(str(name))} {above} above and {below} below")
    lines = held["label"].nunique()
    return f" Of {lines} compared with {against}, by 95 % intervals: {', '.join(parts)}."


def _left_out(table: pd.DataFrame, first: pd.DataFrame) -> str:
    """What is not in the picture: other conditions, and lines without a number."""
    said = ""
    others = table["condition"].nunique() - 1
    if others:
        said = f" Of {first['condition'].iloc[0]} alone; {text.count(others, 'other condition')}"
        said += " in the table."
    holes = first[first["mean"].isna()]
    if len(holes):
        listed = dict.fromkeys(f"{r['label']} ({r['reason']})" for r in holes.to_dict("records"))
        said += f" Without a number: {', '.join(listed)}."
    return said


def _drawn(known: pd.DataFrame) -> pd.DataFrame:
    """What the figure shows, as `dots.means` wants it."""
    kept = known[known["label"].isin(known["label"].unique()[:MOST_LINES])]
    words = []
    for row in kept.to_dict("records"):
        value = partial(show, row["metric"])
        between = text.interval(row["low"], row["high"], value)
        words.append(f"{value(row['mean'])} ({between}), n = {row['n']}")
    return kept.assign(panel=[text.metric(name) for name in kept["metric"]], show=words)

"""Numbers about the state of every arm's model, such as its modality gap: trained, and by epoch.

Letters in names: S seeds.
"""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from mmrec.reports import dots
from mmrec.reports.arms import Scores, arms, trained
from mmrec.reports.epoch_figures import courses
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.tables import over_seeds
from mmrec.stats import Paired
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import ArmMeasures, MeasureCourse

WORDS = {
    "gap_intra_cosine": "cosine of an item's modalities",
    "gap_inter_cosine": "cosine of items in one modality",
    "gap_centroid": "distance of centroids",
    "gap_accuracy": "accuracy of telling modalities",
    "gap_chance": "accuracy by chance",
    "gap_cka": "linear CKA of modalities",
    "right_all": "next IDs written wholly right",
    "valid_ids": "written IDs that are an item's",
    "collisions": "items that share all codes",
}
"""Measures of `mmrec.gap` and `mmrec.models.mgr`; others go by their names."""
_OF_MODALITIES = {
    "right": "{} codes of the next item right",
    "only": "only {} codes right",
    "reconstruction": "variance that {} codes keep",
    "usage": "{} code words used",
    "perplexity": "perplexity of {} codes, as a share",
    "collisions": "items that share all {} codes",
    "ami": "AMI with {} codes",
}
"""What `<measure>_<modality>` is in prose, of those of `mmrec.models.mgr`."""
_BY_ARM = [
    "arm", "group", "condition", "measure", "mean", "half", "low", "high", "n", "effect",
    "effect_low", "effect_high", "pairs",
]  # fmt: skip
_KEYS = ["measure", "arm", "condition"]
_COURSE = [*_KEYS, "epoch", "mean", "half", "low", "high", "n"]
_CHANGES = [*_KEYS, "first", "last", "change", "low", "high"]


def exhibit(tables: StudyTables, view: ArmMeasures | MeasureCourse) -> Exhibit:
    """What a view of the models' states shows; it says so where no trial recorded any."""
    return _by_arm(tables, view) if isinstance(view, ArmMeasures) else _by_epoch(tables, view)


def words(measure: str) -> str:
    """A measure in prose."""
    kind, _, modality = measure.partition("_")
    if measure not in WORDS and modality and kind in _OF_MODALITIES:
        return _OF_MODALITIES[kind].format(text.words(modality))
    return WORDS.get(measure, text.words(measure))


def _varied(table: pd.DataFrame) -> pd.DataFrame:
    """Without measures that are one number throughout, such as chance: words say it."""
    spread = table.groupby("measure")["mean"].transform("max")
    spread = spread - table.groupby("measure")["mean"].transform("min")
    return table[spread > 0] if (spread > 0).any() else table


# --- trained


def by_arm(tables: StudyTables, view: ArmMeasures) -> pd.DataFrame:
    """One row an arm, condition and measure: its columns are `_BY_ARM`.

    `mean` has its 95 % t interval over seeds. `effect` is the mean paired difference from the arm
    `view.against` under the same condition, over the `pairs` seeds of both.
    """
    made, group = [], arms(tables)
    order = list(group)
    for measure in view.names:
        scores = Scores(tables, f"measure.{measure}")
        rows = scores.means().reset_index().to_dict("records")
        means = {(row.pop("arm"), row.pop("condition")): row for row in rows}
        for arm, condition in sorted(means, key=lambda place: order.index(place[0])):
            place, other = (arm, condition), (view.against, condition)
            row = {"arm": arm, "group": group[arm], "condition": condition, "measure": measure}
            pair = scores.pair(place, other) if place != other else None
            made.append({**row, **means[place], **_difference(pair)})
    table = pd.DataFrame(made, columns=_BY_ARM)
    counts = table[["n", "pairs"]].fillna(0).astype(int)
    return table.assign(n=counts["n"], pairs=counts["pairs"])


def _difference(pair: Paired | None) -> dict[str, Any]:
    if pair is None:
        return {}
    low, high = pair.interval()
    return {"effect": pair.effect, "effect_low": low, "effect_high": high, "pairs": pair.n}


def _by_arm(tables: StudyTables, view: ArmMeasures) -> Exhibit:
    key, title = "arm_measures", "The trained state, arm by arm"
    table = by_arm(tables, view)
    if table.empty:
        return Exhibit(key, title, "No finished trial recorded these measures.", table, None)
    shown = table[table["condition"] == table["condition"].iloc[0]]
    parts = []
    for measure, part in shown.groupby("measure", sort=False):
        rows = part.sort_values("mean", kind="stable")
        low, high = rows.iloc[0], rows.iloc[-1]
        said = f"{words(str(measure))} {text.number(low['mean'], 3)}"
        if high["mean"] > low["mean"]:
            said += f" ({low['arm']}) to {text.number(high['mean'], 3)} ({high['arm']})"
        parts.append(said)
    said = "; ".join(parts)
    said = f"{said[0].upper()}{said[1:]}."
    if table["pairs"].any():
        said += f" The table has paired differences from {view.against}."
    if len(shown) < len(table):
        said += f" Drawn: {shown['condition'].iloc[0]}; other conditions are in the table."
    said += " Bars: 95 % intervals over seeds, not corrected."
    shown = _varied(shown)
    facts = zip(shown["mean"], shown["low"], shown["high"], shown["n"], strict=True)
    shown = shown.assign(
        panel=[words(name) for name in shown["measure"]],
        label=shown["arm"],
        show=[
            f"{text.number(mean)} ({text.interval(low, high, text.number)}), n = {n}"
            for mean, low, high, n in facts
        ],
    )
    return Exhibit(key, title, said, table, dots.means(shown, view.against))


# --- by epoch


def by_epoch(tables: StudyTables, view: MeasureCourse) -> pd.DataFrame:
    """One row an arm, condition, measure and epoch: its columns are `_COURSE`.

    Means over seeds with 95 % t intervals, to the last epoch that all of an arm's seeds reached:
    beyond it those that stopped early would be missing from the mean.
    """
    rows = _recorded(tables, view)
    table = over_seeds(rows, [*_KEYS, "epoch"], "value")
    most = table.groupby(_KEYS)["n"].transform("max")
    table = table[table["n"] == most]
    order = [list(view.names), list(arms(tables)), list(dict.fromkeys(rows["condition"]))]
    places = [table[key].map(names.index) for key, names in zip(_KEYS, order, strict=True)]
    table = table.assign(**{f"at {n}": place for n, place in enumerate(places)})
    by = [*(f"at {n}" for n in range(len(places))), "epoch"]
    return table.sort_values(by, kind="stable", ignore_index=True)[_COURSE]


def changes(tables: StudyTables, view: MeasureCourse) -> pd.DataFrame:
    """From the first epoch of each row of means to the last, seed by seed: `_CHANGES`."""
    rows, ends = _recorded(tables, view), by_epoch(tables, view)
    found = []
    for key, part in ends.groupby(_KEYS, sort=False):
        first, last = part["epoch"].iloc[[0, -1]]
        mine = rows[(rows[_KEYS] == list(key)).all(axis=1)]
        by_seed = mine.pivot_table("value", "seed", "epoch")[[first, last]].dropna().to_numpy()
        pair = Paired.of(by_seed[:, 1], by_seed[:, 0])
        found.append((*key, first, last, pair.effect, *pair.interval()))
    return pd.DataFrame(found, columns=_CHANGES)


def _recorded(tables: StudyTables, view: MeasureCourse) -> pd.DataFrame:
    """Rows `arm condition seed epoch measure value` of the trials of arms that are done."""
    have = {f"measure.{name}": name for name in view.names if f"measure.{name}" in tables.epochs}
    facts = ["hash", "arm", "condition", "seed"]
    done = trained(tables)
    rows = done.loc[done["state"] == "done", facts].merge(tables.epochs, on="hash")
    rows = rows[[*facts, "epoch", *have]].rename(columns=have)
    rows = rows.melt([*facts, "epoch"], list(have.values()), "measure", "value")
    return rows[rows["value"].notna()]


def _by_epoch(tables: StudyTables, view: MeasureCourse) -> Exhibit:
    key, title = "measure_course", "The state by epoch"
    table = by_epoch(tables, view)
    if table.empty:
        said = (
            "No finished trial recorded these measures by epoch; `--set gap=epochs` has trials"
            " measure the modality gap at every evaluation."
        )
        return Exhibit(key, title, said, table, None)
    shown = table[table["condition"] == table["condition"].iloc[0]]
    changed = changes(tables, view)
    changed = changed[changed["condition"] == shown["condition"].iloc[0]]
    parts = []
    for measure, part in changed.groupby("measure", sort=False):
        up, down = int((part["low"] > 0).sum()), int((part["high"] < 0).sum())
        if part["change"].any():  # else it is what no training changes, such as chance
            name = words(str(measure))
            parts.append(f"{name} rises in {up} and falls in {down} of {len(part)} arms")
    said = f"From the first epoch to the last one here, {'; '.join(parts)}. " if parts else ""
    said += (
        "Counted are paired changes whose 95 % interval over seeds excludes 0, uncorrected for"
        " their number. Means over seeds with 95 % intervals, to the last epoch that all seeds of"
        " an arm reached."
    )
    if len(shown) < len(table):
        said += f" Drawn: {shown['condition'].iloc[0]}; other conditions are in the table."
    return Exhibit(key, title, said, table, _lines(_varied(shown)))


def _lines(table: pd.DataFrame) -> go.Figure:
    """A panel a measure, a line an arm."""
    return courses(table, panel="measure", line="arm", title=words, digits=3, top=90, dots=True)

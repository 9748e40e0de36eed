"""Whether training had come to its end: cell by cell in numbers, and the course over epochs.

A trial ends when its patience runs out or at the cap; the state of its best validation epoch is
what counts. So a cell had not converged if validation was still rising when its trials ended.
Tries of nuisance knobs and trials under conditions of evaluation only, which train nothing, are
left out.
"""

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from mmrec.reports.epoch_figures import courses
from mmrec.reports.exhibit import Exhibit
from mmrec.reports.tables import beyond_tuning, over_seeds
from mmrec.stats import Paired
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import Convergence

NEAR = 0.99
"""Epochs are counted until validation first reaches this share of its best."""
LAST = 0.25
"""Share of a trial's evaluations, the last ones, whose slope tells whether it was rising."""
AT_CAP = 0.9
"""Share of the cap from which a best epoch counts as at the cap, as everywhere in a report."""
MOST_NAMES = 6
"""Cells that a sentence names."""
_FACTS = ["cell", "label", "condition", "seed"]
_CELLS = [
    "label", "condition", "n", "cap", "epochs", "near_best", "best_epoch", "best_low", "best_high",
    "best_sd", "at_cap", "rise", "rise_low", "rise_high", "state",
]  # fmt: skip
_COURSE = ["label", "condition", "what", "epoch", "mean", "half", "low", "high", "n"]


def by_cell(tables: StudyTables) -> pd.DataFrame:
    """One row a cell, in the order of the plan: its columns are `_CELLS`, then `loss.<term>`.

    Of finished trials, means over the `n` seeds. `epochs` is how long they trained, `near_best`
    the epochs to within 1 % of the best, `best_epoch` the best with the smallest, the largest and
    the standard deviation over seeds; `at_cap` counts trials whose best epoch is within 10 % of
    the cap. `rise` is what a line through the last quarter of a trial's evaluations gains over
    that quarter, as a share of its best, with its 95 % t interval over seeds. `state` is "rising"
    where that is above 0, else "at the cap" where half of the trials or more are, else "converged".
    Losses are those of the last epoch.
    """
    trials = _by_trial(tables)
    losses = [str(n) for n in trials.filter(like="loss.") if trials[n].notna().any()]
    found = []
    for _, part in trials.groupby("cell", sort=False):
        best, rise_S = part["best_epoch"], part["rise"].dropna().to_numpy()
        pair = Paired.of(rise_S, 0 * rise_S) if len(rise_S) else None
        low, high = pair.interval() if pair else (math.nan, math.nan)
        at_cap = int((best >= AT_CAP * part["cap"]).sum())
        row = {
            "label": part["label"].iloc[0],
            "condition": part["condition"].iloc[0],
            "n": part["seed"].nunique(),
            "cap": int(part["cap"].max()),
            "epochs": part["epochs"].mean(),
            "near_best": part["near_best"].mean(),
            "best_epoch": best.mean(),
            "best_low": int(best.min()),
            "best_high": int(best.max()),
            "best_sd": best.std(),
            "at_cap": at_cap,
            "rise": pair.effect if pair else math.nan,
            "rise_low": low,
            "rise_high": high,
            "state": _state(low, at_cap, len(part)),
        }
        found.append({**row, **part[losses].mean()})
    return pd.DataFrame(found, columns=[*_CELLS, *losses])


def _state(rise_low: float, at_cap: int, trials: int) -> str:
    if rise_low > 0:
        return "rising"
    return "at the cap" if 2 * at_cap >= trials else "converged"


def _by_trial(tables: StudyTables) -> pd.DataFrame:
    """A row a finished trial with a curve: `_FACTS cap epochs near_best best_epoch rise loss.*`."""
    value, done = tables.column("valid"), _trained(tables)
    curves = dict(tuple(tables.epochs.sort_values("epoch").groupby("hash")))
    found = []
    for row in done.to_dict("records"):
        curve = curves.get(row["hash"])
        if curve is None or curve[value].isna().all():
            continue
        epoch_E, value_E = (curve[name].to_numpy(float) for name in ("epoch", value))
        best = value_E.max()
        losses = curve.filter(like="loss.").iloc[-1]
        found.append(
            {
                **{name: row[name] for name in _FACTS},
                "cap": row["epoch_cap"],
                "epochs": epoch_E[-1],
                "near_best": epoch_E[np.argmax(value_E >= NEAR * best)],
                "best_epoch": epoch_E[value_E.argmax()],
                "rise": rise(epoch_E, value_E),
                **losses,
            }
        )
    return pd.DataFrame(found, columns=None if found else [*_FACTS, "best_epoch", "rise"])


def _trained(tables: StudyTables) -> pd.DataFrame:
    """The finished trials that trained for themselves."""
    rows = beyond_tuning(tables)
    rows = rows[rows["state"] == "done"]
    return rows[~rows["condition"].str.endswith("@eval")]


def rise(epoch_E: np.ndarray, value_E: np.ndarray) -> float:
    """What the least-squares line through a curve's last quarter gains over it, of the best value.

    A quarter has two points at least; nan for a curve of one point or whose best is 0.
    """
    many = max(2, math.ceil(LAST * len(value_E)))
    x, y = epoch_E[-many:], value_E[-many:]
    best = value_E.max()
    if len(x) < 2 or not best:
        return math.nan
    slope = float(np.polyfit(x - x.mean(), y, 1)[0])
    return slope * float(x[-1] - x[0]) / float(best)


def course(tables: StudyTables) -> pd.DataFrame:
    """One row a cell, quantity and epoch: its columns are `_COURSE`.

    `what` is `valid`, the objective, or `loss.<term>`. Means over seeds with 95 % t intervals, to
    the last epoch that all of a cell's seeds reached: beyond it those that stopped early would be
    missing from the mean.
    """
    value = tables.column("valid")
    losses = [str(name) for name in tables.epochs if str(name).startswith("loss.")]
    rows = _trained(tables)[["hash", *_FACTS]].merge(tables.epochs, on="hash")
    rows = rows.rename(columns={value: "valid"})
    rows = rows.melt([*_FACTS, "epoch"], ["valid", *losses], "what", "value")
    table = over_seeds(rows, ["cell", "what", "epoch"], "value")
    most = table.groupby(["cell", "what"])["n"].transform("max")
    table = table[table["n"] == most]
    names = rows.drop_duplicates("cell").set_index("cell")[["label", "condition"]]
    table = table.join(names, on="cell")
    order = {cell: place for place, cell in enumerate(names.index)}
    table = table.assign(at=table["cell"].map(order), second=table["what"] != "valid")
    by = ["at", "second", "what", "epoch"]
    return table.sort_values(by, kind="stable", ignore_index=True)[_COURSE]


# --- in words and as a picture


def exhibits(tables: StudyTables, view: Convergence) -> list[Exhibit]:
    """Numbers by cell with the courses of some, and the table of all courses."""
    title, table = "Whether training had converged", by_cell(tables)
    if table.empty:
        said = "No finished trial has a curve."
        return [Exhibit("convergence", title, said, table, None)]
    curves = course(tables)
    shown = _chosen(table, view.most)
    figure = _lines(curves[curves["label"].isin(shown)], text.metric(tables.run["objective"]))
    said = f"{_found(table)} Drawn: {_drawn(len(shown), len(table))}"
    return [
        Exhibit("convergence", title, said, table, figure),
        Exhibit(
            "convergence_course",
            "The course of training, all cells",
            "Validation and loss terms by epoch, means over seeds with 95 % intervals, to the last"
            " epoch that all of a cell's seeds reached.",
            curves,
            None,
        ),
    ]


def _found(table: pd.DataFrame) -> str:
    """Which cells had not converged, and how far apart seeds are."""
    parts = []
    counts = table["state"].value_counts()
    parts.append(f"{counts.get('converged', 0)} of {text.count(len(table), 'cell')} had converged")
    for state, words in (
        ("rising", "still rising at the end"),
        ("at the cap", "best within 10 % of the cap in half of the trials or more"),
    ):
        names = table.loc[table["state"] == state, "label"].tolist()
        if names:
            listed = "; ".join(names[:MOST_NAMES])
            listed += f"; and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
            parts.append(f"{words}: {listed}")
    said = f"{'. '.join(part[0].upper() + part[1:] for part in parts)}."
    near = table.sort_values("near_best", kind="stable")
    low, high = near.iloc[0], near.iloc[-1]
    said += (
        f" Within 1 % of the best after {text.number(low['near_best'], 3)} epochs ({low['label']})"
        f" to {text.number(high['near_best'], 3)} ({high['label']}), means over seeds."
    )
    if table["best_sd"].notna().any():
        widest = table.iloc[int(table["best_sd"].fillna(-1.0).to_numpy().argmax())]
        said += (
            f" The best epoch differs most between seeds at {widest['label']}:"
            f" {widest['best_low']} to {widest['best_high']}."
        )
    if (table["n"] < 2).any():
        said += " Of cells with one seed no rise can be judged."
    return f"{said} Rise: 95 % interval over seeds, uncorrected for the number of cells."


def _drawn(shown: int, cells: int) -> str:
    if shown == cells:
        return "all cells."
    return f"{shown} of {cells} cells, those that had not converged first, then evenly spaced."


def _chosen(table: pd.DataFrame, most: int) -> list[Any]:
    """Labels to draw: cells that had not converged, then others evenly spaced in the plan."""
    first = table.loc[table["state"] != "converged", "label"].tolist()[:most]
    others = [label for label in table["label"] if label not in first]
    room = min(most - len(first), len(others))
    step = np.unique(np.linspace(0, len(others) - 1, room).round().astype(int)) if room else []
    return first + [others[place] for place in step]


def _lines(curves: pd.DataFrame, metric: str) -> go.Figure:
    """Validation, and beside it each loss term; a line a cell."""

    def title(what: str) -> str:
        return f"validation {metric}" if what == "valid" else _term(what)

    return courses(curves, panel="what", line="label", title=title, digits=4, top=140)


def _term(what: str) -> str:
    return f"loss: {text.words(what.removeprefix('loss.'))}"

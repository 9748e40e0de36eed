"""Curves over one factor, all else at the base, and quality against cost, as plain tables."""

from typing import Any

import numpy as np
import pandas as pd

from mmrec import stats
from mmrec.reports.design import base_levels, held, is_base, studied
from mmrec.reports.tables import beyond_tuning, cells, over_seeds
from mmrec.study.claims import Absent, Where
from mmrec.study.tables import StudyTables
from mmrec.study.views import Curve, Pareto

_CURVE = ["x", "by", "mean", "low", "high", "half", "n", "p_best", "base", "cells", "reason"]
_PARETO = [
    "label", "by", "cost", "cost_low", "cost_high", "mean", "low", "high", "n", "front", "control",
]  # fmt: skip
_KEYS = ["line", "place"]
"""A line among those of a curve and a place on its axis, each counted from 0."""


def curve(tables: StudyTables, view: Curve) -> pd.DataFrame:
    """One row a level of `view.x` on every line, both in their order: its columns are `_CURVE`.

    Of finished trials only: a stopped one had fewer epochs. Cells of one place, as where
    `view.where` allows several levels, are averaged within a seed. `p_best` is the probability that
    a level is the best of its line, by bootstrap over the seeds that all levels of the line have;
    of the test objective only. `reason` says why a planned level has no number. Controls come
    last: `by` is their label, and `x` is missing.

    Raises:
        KeyError: the study has no such column.
    """
    column = view.column or tables.column("test")
    rows = _on_lines(tables, view)
    lines, places = _ordered(rows["by"]), _ordered(rows["x"])
    rows = rows.assign(line=rows["by"].map(lines.index), place=rows["x"].map(places.index))
    scored = _finished(rows, column)
    why = rows["cell"].map(cells(tables).set_index("cell")["reason"])
    table = why.groupby([rows["line"], rows["place"]]).agg(_joined).to_frame("reason")
    table["cells"] = scored.groupby(_KEYS)["cell"].nunique()
    table = table.join(over_seeds(scored, _KEYS, column).set_index(_KEYS).astype(float))
    chances = _chances(scored, column) if column == tables.column("test") else {}
    table["p_best"] = [chances.get(key, np.nan) for key in table.index]
    counts = table[["n", "cells"]].fillna(0).astype(int)
    reason = table["reason"].replace("", "not recorded").where(table["mean"].isna(), "")
    table = table.assign(n=counts["n"], cells=counts["cells"], reason=reason).reset_index()
    table = table.assign(by=table["line"].map(lines.__getitem__))
    table = table.assign(x=table["place"].map(places.__getitem__))
    table["base"] = is_base(tables, view.x, table["x"])
    parts = [table[_CURVE], _levels(tables, column)]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


def _on_lines(tables: StudyTables, view: Curve) -> pd.DataFrame:
    """The planned trials on a curve, with columns `x` and `by`."""
    rows = studied(tables)
    missing = [name for name in (view.x, view.by, *view.where) if name and name not in rows]
    if missing:
        have = ", ".join([*tables.factors(), "arm", "condition"])
        raise KeyError(f"a curve over {missing[0]!r}: no such column; factors: {have}")
    try:
        rows = Where(view.where).of(rows)
    except Absent:
        rows = rows.iloc[:0]
    rows = held(tables, rows, {view.x, view.by, *view.where}).copy()  # in one piece
    rows = rows.assign(x=rows[view.x], by=rows[view.by] if view.by else "")
    return rows.dropna(subset=["x", "by"])


def held_at(tables: StudyTables, view: Curve) -> dict[str, Any]:
    """What a curve holds at the base, of all that varies in the study, and at which level."""
    rows, free = studied(tables), {view.x, view.by, *view.where}
    levels = base_levels(tables).items()
    return {k: v for k, v in levels if k not in free and len(rows[k].drop_duplicates()) > 1}


def _ordered(column: pd.Series) -> list[Any]:
    """Distinct levels: numbers ascending, words as they were planned."""
    levels = column.unique().tolist()
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in levels)
    return sorted(levels) if numeric else levels


def _finished(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The finished trials that have a number in `column`; none where no trial recorded it."""
    if column not in rows:
        return rows.iloc[:0].assign(**{column: 0.0})
    return rows[(rows["state"] == "done") & rows[column].notna()]


def _joined(reasons: pd.Series) -> str:
    return "; ".join(sorted(set(reasons) - {""}))


def _chances(scored: pd.DataFrame, column: str) -> dict[Any, float]:
    """(line, place) -> how likely the place is the best of its line."""
    chances = {}
    for line, rows in scored.groupby("line"):
        by_seed = rows.pivot_table(column, "place", "seed").dropna(axis=1)
        if min(by_seed.shape) > 1:
            found = stats.best_level(by_seed.to_numpy())
            chances |= {(line, place): p for place, p in zip(by_seed.index, found, strict=True)}
    return chances


def _levels(tables: StudyTables, column: str) -> pd.DataFrame:
    """The controls' rows of a curve."""
    rows = _finished(tables.trials[tables.trials["phase"] == "control"], column)
    table = over_seeds(rows, ["label"], column).rename(columns={"label": "by"})
    return table.assign(x=None, p_best=np.nan, base=False, cells=1, reason="")[_CURVE]


def pareto(tables: StudyTables, view: Pareto) -> pd.DataFrame:
    """One row a cell with both numbers, those on the front first, by cost: columns `_PARETO`.

    Means over the finished trials that have both, intervals over their seeds. On the front
    (`front`) is a cell if no other one is at least as good by both means and better by one.
    """
    score = tables.column("test")
    rows = _finished(beyond_tuning(tables), score)
    rows = _finished(rows, view.cost)
    if view.by and view.by not in rows:
        have = ", ".join([*tables.factors(), "arm", "condition"])
        raise KeyError(f"cells by {view.by!r}: no such column; factors: {have}")
    if view.by != "condition":
        rows = held(tables, rows, {*tables.factors(), "arm"})
    rows = rows.copy().assign(
        by=rows[view.by] if view.by else "",
        task=rows["condition"],
        control=rows["phase"] == "control",
    )
    facts = rows.groupby("cell")[["label", "by", "task", "control"]].first()
    quality = over_seeds(rows, ["cell"], score).set_index("cell")
    cost = over_seeds(rows, ["cell"], view.cost).set_index("cell")
    cost = cost.rename(columns={"mean": "cost", "low": "cost_low", "high": "cost_high"})
    table = facts.join(quality[["mean", "low", "high", "n"]])
    table = table.join(cost[["cost", "cost_low", "cost_high"]])
    table["front"] = False
    for _, part in table.groupby("task"):
        table.loc[part.index, "front"] = front(part["cost"], part["mean"])
    table = table.sort_values(["front", "cost", "label"], ascending=[False, True, True])
    return table.reset_index(drop=True)[_PARETO]


def front(cost: pd.Series, quality: pd.Series) -> np.ndarray:
    """Which points no other one dominates: as cheap and as good, and better in one of the two."""
    best = quality.groupby(cost).max()  # of each cost, ascending
    cheaper = best.cummax().shift(fill_value=-np.inf)
    alone = quality.to_numpy() == cost.map(best).to_numpy()
    return alone & (quality.to_numpy() > cost.map(cheaper).to_numpy())

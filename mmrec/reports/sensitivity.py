"""What a study's views show, as plain tables: how the objective moves with the factors."""

import itertools

import numpy as np
import pandas as pd

from mmrec.reports.design import comparable, crossed, studied, sweeps, varies
from mmrec.reports.tables import cells, over_seeds
from mmrec.study.tables import StudyTables
from mmrec.study.views import HeatMap, MainEffects, Measures, RatioCurve


def _one(column: pd.Series) -> bool:
    return len(column.unique()) == 1


def heat_map(tables: StudyTables, view: HeatMap) -> pd.DataFrame:
    """One row a square: `x y mean half low high n trials best spans reason`.

    `spans` marks the one cell of a row y = 0, where x is taken to be without effect; its x is NaN.
    `reason` says why a square has no mean, and is empty where it has one.
    """
    known = cells(tables).set_index("cell")
    rows = comparable(tables, studied(tables), [view.x, view.y])
    rows = rows.assign(x=lambda t: t[view.x], y=lambda t: t[view.y])
    rows = rows[rows["y"].notna()]
    rows = rows.assign(best=rows["cell"].map(known["best"]), why=rows["cell"].map(known["reason"]))
    zero = rows["y"] == 0
    spans = bool(zero.any() and not zero.all()) and _one(rows.loc[zero, "cell"])
    spans = spans and varies(rows["x"]) and crossed(tables, view.x, view.y)
    if spans:
        rows["x"] = rows["x"].where(~zero)
    xs, ys = sorted(rows["x"].dropna().unique()), sorted(rows["y"].unique())
    squares = [(x, y) for y, x in itertools.product(ys, xs) if not (spans and y == 0)]
    table = pd.DataFrame([(np.nan, 0.0)] * spans + squares, columns=["x", "y"])
    at = rows.groupby(["x", "y"], dropna=False)
    facts = at.agg(trials=("hash", "size"), best=("best", "any"), reason=("why", _joined))
    means = over_seeds(rows, ["x", "y"], tables.column("test"))
    table = table.merge(means, "left", on=["x", "y"]).merge(
        facts.reset_index(), "left", on=["x", "y"]
    )
    table["reason"] = table["reason"].fillna("not planned").where(table["mean"].isna(), "")
    for name in ("n", "trials"):
        table[name] = table[name].astype(float).fillna(0).astype(int)
    return table.assign(best=table["best"].eq(True), spans=table["x"].isna())


def search_map(tables: StudyTables, view: HeatMap) -> pd.DataFrame:
    """Every trial of a search that has a place: `hash label x y state value best`."""
    rows = studied(tables).dropna(subset=[view.x, view.y, tables.column("valid")])
    rows = rows[(rows["phase"] == "search") | (rows["cell"] == tables.run["selected"])]
    table = rows[["hash", "label", "state"]].assign(
        x=rows[view.x],
        y=rows[view.y],
        value=rows[tables.column("valid")],
        best=rows["cell"] == tables.run["selected"],
    )
    return table.reset_index(drop=True)


def _joined(reasons: pd.Series) -> str:
    return "; ".join(sorted(set(reasons) - {""}))


def ratio_curve(tables: StudyTables, view: RatioCurve) -> pd.DataFrame:
    """One row a ratio, ascending: `ratio mean half low high n cells`; ratio 0 is a numerator of 0.

    Cells of one ratio are averaged within a seed before the interval over seeds is taken.
    """
    rows = comparable(tables, studied(tables), [view.numerator, view.denominator])
    return _by_ratio(rows, view.numerator, view.denominator, tables.column("test"))


def ratio_points(tables: StudyTables, view: RatioCurve) -> pd.DataFrame:
    """Every scored trial on a ratio curve: `ratio label seed value`."""
    rows = comparable(tables, studied(tables), [view.numerator, view.denominator])
    rows = with_ratio(rows, view.numerator, view.denominator)
    rows = rows.assign(value=rows[tables.column("test")])
    return rows.loc[rows["value"].notna(), ["ratio", "label", "seed", "value"]].sort_values(
        ["ratio", "label", "seed"], ignore_index=True
    )


def with_ratio(rows: pd.DataFrame, numerator: str, denominator: str) -> pd.DataFrame:
    """`rows` with a column `ratio`, to ten digits so that 0.02/0.2 and 0.1/1 meet.

    Rows without a ratio (a factor missing, unless the numerator is 0) are left out.
    """
    top, bottom = rows[numerator].astype(float), rows[denominator].astype(float)
    ratio = (top / bottom).where(top != 0, 0.0).replace([np.inf, -np.inf], np.nan)
    shown = ratio.map(lambda value: float(f"{value:.10g}"))
    return rows.assign(ratio=shown)[shown.notna()]


def _by_ratio(rows: pd.DataFrame, numerator: str, denominator: str, column: str) -> pd.DataFrame:
    rows = with_ratio(rows, numerator, denominator)
    rows = rows[rows[column].notna()]
    count = rows.groupby("ratio")["cell"].nunique().rename("cells")
    return over_seeds(rows, ["ratio"], column).merge(count.reset_index(), on="ratio")


def main_effects(tables: StudyTables, view: MainEffects) -> pd.DataFrame:
    """One row a factor and level: `factor level mean half low high n cells of`.

    The mean is adjusted for the other factors: per seed an additive model is fitted to the cells
    by least squares and averaged evenly over the other factors' levels. On a full grid that is
    the plain mean; with holes, the plain mean would blame a level for the company that it keeps.
    A cell that is the only one of its factor's level 0 stands for all levels of the others, as in
    `HeatMap`, but where factors were swept one by one: there every level has one cell.
    The interval is the t interval over seeds. `cells` counts the scored cells that have the level,
    `of` is the most that any level of the factor has; of sweeps, what is planned of that level.
    """
    names = ["factor", "level", "mean", "half", "low", "high", "n", "cells", "of"]
    swept, planned = bool(sweeps(tables)), comparable(tables, studied(tables), view.factors)
    rows = planned.dropna(subset=[*view.factors, tables.column("test")])
    rows = rows if swept else _spread(rows, view.factors)
    if rows.empty:
        return pd.DataFrame(columns=names)
    codes = {factor: pd.factorize(rows[factor], sort=True) for factor in view.factors}
    sizes = [len(levels) for _, levels in codes.values()]
    dummy = np.concatenate(
        [np.eye(size)[code] for size, (code, _) in zip(sizes, codes.values(), strict=True)], axis=1
    )
    adjusted = []
    for seed in sorted(rows["seed"].unique()):
        at = (rows["seed"] == seed).to_numpy()
        # A seed that lost a whole level, or what ties factors together, cannot be adjusted.
        if np.linalg.matrix_rank(dummy[at]) == 1 + sum(sizes) - len(sizes):
            means = _adjusted(dummy[at], rows[tables.column("test")].to_numpy(float)[at], sizes)
            adjusted.append(means.tolist())
    if not adjusted:
        return pd.DataFrame(columns=names)
    levels = [(factor, level) for factor, (_, values) in codes.items() for level in values]
    long = pd.DataFrame(
        [(place, seed, v) for seed, means in enumerate(adjusted) for place, v in enumerate(means)],
        columns=["place", "seed", "value"],
    )
    table = over_seeds(long, ["place"], "value").astype({"place": int})
    table["factor"] = [levels[place][0] for place in table["place"]]
    table["level"] = [levels[place][1] for place in table["place"]]
    table["cells"] = _counts(rows, table, view.factors)
    most = table.groupby("factor")["cells"].transform("max")
    table["of"] = _counts(planned, table, view.factors) if swept else most
    return table[names]


def _counts(rows: pd.DataFrame, table: pd.DataFrame, factors: tuple[str, ...]) -> list[int]:
    """How many cells have the factor and level of each row of a table."""
    count = {f: rows.groupby(f)[[*factors, "cell"]].apply(_distinct) for f in factors}
    return [int(count[f][v]) for f, v in zip(table["factor"], table["level"], strict=True)]


def _distinct(rows: pd.DataFrame) -> int:
    return len(rows.drop_duplicates())


def _spread(rows: pd.DataFrame, factors: tuple[str, ...]) -> pd.DataFrame:
    """A switched-off cell (the only one at some factor's level 0) copied to all other levels."""
    for factor in factors:
        off = rows[factor] == 0
        others = [name for name in factors if name != factor]
        if not _one(rows.loc[off, "cell"]) or off.all() or not others:
            continue
        places = rows.loc[~off, others].drop_duplicates()
        copies = rows[off].drop(columns=others).merge(places, how="cross")
        rows = pd.concat([rows[~off], copies[rows.columns]], ignore_index=True)
    return rows


def _adjusted(dummy_RL: np.ndarray, value_R: np.ndarray, sizes: list[int]) -> np.ndarray:
    """(L,) least-squares means of an additive model, averaged evenly over the other factors."""
    design = np.column_stack([np.ones(len(value_R)), dummy_RL])
    effect = np.linalg.lstsq(design, value_R, rcond=None)[0]
    base, parts = effect[0], np.split(effect[1:], np.cumsum(sizes)[:-1])
    centre = base + sum(part.mean() for part in parts)
    return np.concatenate([centre + part - part.mean() for part in parts])


def measures(tables: StudyTables, view: Measures) -> pd.DataFrame:
    """One row a measure and place: `measure at mean half low high n cells`."""
    over = view.over if isinstance(view.over, tuple) else (view.over,)
    rows = comparable(tables, studied(tables), over)
    parts = []
    for name in view.names:
        column = f"measure.{name}"
        if column not in rows:
            continue  # no trial recorded it: the exhibit says so
        if isinstance(view.over, tuple):
            part = _by_ratio(rows, *view.over, column).rename(columns={"ratio": "at"})
        else:
            scored = rows[rows[view.over].notna() & rows[column].notna()]
            count = scored.groupby(view.over)["cell"].nunique()
            part = over_seeds(scored, [view.over], column).rename(columns={view.over: "at"})
            part["cells"] = part["at"].map(count)
        parts.append(part.assign(measure=name))
    names = ["measure", "at", "mean", "half", "low", "high", "n", "cells"]
    return pd.concat(parts, ignore_index=True)[names] if parts else pd.DataFrame(columns=names)


def slices(tables: StudyTables) -> pd.DataFrame:
    """Every trial of a search, once a factor that it turned: `hash factor level state value`.

    `value` is the best validation objective, for stopped trials that of fewer epochs.
    """
    rows = tables.trials[tables.trials["phase"] == "search"]
    turned = [path for path in tables.factors() if varies(rows[path])]
    parts = [
        rows[["hash", "state"]].assign(
            factor=path, level=rows[path], value=rows[tables.column("valid")]
        )
        for path in turned
    ]
    names = ["hash", "factor", "level", "state", "value"]
    table = pd.concat(parts) if parts else pd.DataFrame(columns=names)
    return table.dropna(subset=["level", "value"])[names].reset_index(drop=True)

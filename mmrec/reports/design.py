"""How the cells of a study are laid out: the base's levels, and what was turned together.

A study is a full product of its factors' levels, or it turns one group of factors after the other
(`sweeps`) with all else at the base. Of the latter, a plain mean over all cells with a level would
mix the sweeps.
"""

from collections.abc import Collection
from typing import Any

import pandas as pd

from mmrec.study.tables import StudyTables

BESIDE = ("condition", "arm")
"""Columns that cells differ in, beside the factors."""


def studied(tables: StudyTables) -> pd.DataFrame:
    """The trials that turn factors: all but the controls and the tries of nuisance knobs."""
    return tables.trials[~tables.trials["phase"].isin(("control", "tune"))]


def varies(column: pd.Series) -> bool:
    """Whether a column has two values or more, missing ones aside."""
    return len(column.dropna().unique()) > 1


def base_levels(tables: StudyTables) -> dict[str, Any]:
    """Factor -> its level in the base; of `BESIDE`, the first that is planned. None: missing.

    Where the run does not say, or says what no cell has, it is the level that most cells have, of
    equals the first.
    """
    rows = studied(tables).drop_duplicates("cell")
    found = {name: _base_level(tables, rows[name])[0] for name in tables.factors()}
    beside = {name: rows[name].iloc[0] for name in BESIDE if name in rows and len(rows)}
    return {**found, **beside}


def is_base(tables: StudyTables, name: str, levels: pd.Series) -> pd.Series:
    """Which levels of a factor are the base's; none where it is not known for sure."""
    if name not in tables.factors():
        return pd.Series(False, levels.index)
    level, sure = _base_level(tables, studied(tables).drop_duplicates("cell")[name])
    return (levels == level) & sure


def _base_level(tables: StudyTables, column: pd.Series) -> tuple[Any, bool]:
    """The base's level, and whether the run or the cells leave no doubt."""
    said, levels = tables.run.get("base", {}), column.astype(object).where(column.notna(), None)
    if column.name in said:
        level = said[column.name]
        if (levels.isna() if level is None else levels == level).any():
            return level, True
    counts = levels.value_counts(sort=False, dropna=False)
    most = counts.index[counts == counts.max()]
    return next(iter(most), None), len(most) == 1 < len(counts)


def held(tables: StudyTables, rows: pd.DataFrame, free: Collection[str]) -> pd.DataFrame:
    """The rows that are at the base in every factor and column of `BESIDE` but those in `free`."""
    for name, level in base_levels(tables).items():
        if name not in free:
            rows = rows[rows[name].isna() if level is None else rows[name] == level]
    return rows


def sweeps(tables: StudyTables) -> list[tuple[str, ...]]:
    """The groups of factors (and `condition`) that were turned together; empty: a full product.

    Where the run does not say, cells that are off the base in one factor at most tell sweeps of
    single factors.
    """
    if tables.run["kind"] != "grid":
        return []
    rows = studied(tables).drop_duplicates("cell")
    if "sweeps" in tables.run:
        groups = [tuple(p for p in group if varies(rows[p])) for group in tables.run["sweeps"]]
    else:
        turned, base = [p for p in tables.factors() if varies(rows[p])], base_levels(tables)
        off = pd.DataFrame({path: rows[path] != base[path] for path in turned}).sum(axis=1)
        groups = [] if (off > 1).any() else [(path,) for path in turned]
    groups = [group for group in groups if group]
    return groups if len(groups) > 1 else []


def comparable(tables: StudyTables, rows: pd.DataFrame, factors: Collection[str]) -> pd.DataFrame:
    """The rows that means over the levels of `factors` may take: all of them in a full product.

    Of sweeps, those at the base in all else but the arm, which meets every sweep.
    """
    return held(tables, rows, {*factors, "arm"}) if sweeps(tables) else rows


def crossed(tables: StudyTables, one: str, other: str) -> bool:
    """Whether two factors were turned together, so that their combinations say something."""
    groups = sweeps(tables)
    return not groups or any(one in group and other in group for group in groups)

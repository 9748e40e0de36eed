"""Which factors matter: analysis of variance on grids, PED-ANOVA on searches."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import optuna
import pandas as pd

from mmrec import stats
from mmrec.reports.design import held, studied, sweeps, varies
from mmrec.study import text
from mmrec.study.tables import StudyTables

FEWEST = 10
"""Trials below which a search says nothing about importance."""


class Importance(NamedTuple):
    """What matters, and on what ground."""

    table: pd.DataFrame
    """Empty when there is too little to go by."""
    ground: str
    """The method, the number of trials, what was left out; or why there is no table."""


def importance(tables: StudyTables) -> Importance:
    """ANOVA with replicate error for a grid, PED-ANOVA for a search."""
    return by_search(tables) if tables.run["kind"] == "search" else by_grid(tables)


def by_grid(tables: StudyTables) -> Importance:
    """Omega squared of every factor and interaction, on the largest complete part of the grid.

    Columns: `effect df f p omega2 low high share`, as in `mmrec.stats.Effect`. A study of sweeps
    has one analysis a sweep, all else at the base, and its name in a column `sweep`: what was not
    turned together has no interaction to be seen.
    """
    rows = studied(tables).dropna(subset=[tables.column("test")])
    who = "arm" if "arm" in rows and varies(rows["arm"]) else "model"
    groups = sweeps(tables)
    if not groups:
        return _analysed(tables, rows, [*tables.factors(), "condition", who])
    found, ground = [], []
    for group in groups:
        one = _analysed(tables, held(tables, rows, {*group, "arm"}), [*group, who])
        name = " x ".join(text.short(path) for path in group)
        found.append(one.table.assign(sweep=name))
        ground.append(f"{name}: {one.ground}")
    table = pd.concat(found, ignore_index=True)
    if len(table):
        table = table.sort_values("share", ascending=False, ignore_index=True)
    said = (
        "Each sweep is analysed by itself, all else at the base; shares are of the variance within"
        " a sweep, and of interactions between sweeps nothing is known."
    )
    return Importance(table, " ".join([said, *ground]))


def _analysed(tables: StudyTables, rows: pd.DataFrame, factors: Sequence[str]) -> Importance:
    """The analysis of variance of `rows` over those of `factors` that vary."""
    axes = [path for path in factors if varies(rows[path])]
    if not axes:
        return Importance(pd.DataFrame(), "No factor has two levels with a test score.")
    scores = rows.groupby([*axes, "seed"])[tables.column("test")].mean()
    y_LS, dropped = _complete(scores, [*axes, "seed"])
    if min(y_LS.shape) < 2:
        return Importance(pd.DataFrame(), "Too many holes: no complete grid of two seeds is left.")
    found = stats.anova(y_LS, [text.short(path) for path in axes])
    table = pd.DataFrame([vars(effect) for effect in found.effects])
    table = table.rename(columns={"name": "effect"}).sort_values(
        "share", ascending=False, ignore_index=True
    )
    size = " x ".join(map(str, y_LS.shape[:-1]))
    left_out = f" Left out, to have a complete grid: {'; '.join(dropped)}." if dropped else ""
    ground = (
        f"Analysis of variance of test {text.metric(tables.run['objective'])} on {size} cells under"
        f" {y_LS.shape[-1]} seeds (blocks), error on {found.df_error} degrees of freedom."
        f"{left_out}"
    )
    return Importance(table, ground)


def _complete(values: pd.Series, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """The grid as an array without holes: the level with the most holes goes until none is left."""
    levels = [sorted(values.index.unique(name)) for name in names]
    values = values.reindex(pd.MultiIndex.from_product(levels, names=names))
    y_LS = values.to_numpy(float).reshape([len(level) for level in levels])
    dropped = []
    while np.isnan(y_LS).any():
        holes = np.isnan(y_LS)
        share = {
            (-holes.take(at, axis).mean(), -axis, at): (axis, at)
            for axis, size in enumerate(y_LS.shape)
            for at in range(size)
        }
        axis, at = share[min(share)]
        dropped.append(f"{text.short(names[axis])} = {text.number(levels[axis].pop(at))}")
        y_LS = np.delete(y_LS, at, axis)
    return y_LS, dropped


def by_search(tables: StudyTables) -> Importance:
    """Optuna's PED-ANOVA over the finished trials of the search: `effect share trials`.

    Stopped trials are left out: their values belong to fewer epochs.
    """
    rows = tables.trials[(tables.trials["phase"] == "search") & (tables.trials["state"] == "done")]
    rows = rows.dropna(subset=[tables.column("valid")])
    turned = [path for path in tables.factors() if varies(rows[path])]
    rows = rows.dropna(subset=turned)
    if len(rows) < FEWEST or not turned:
        return Importance(
            pd.DataFrame(), f"{len(rows)} finished trials: below {FEWEST}, importance is noise."
        )
    found = _ped_anova(rows, turned, rows[tables.column("valid")])
    table = pd.DataFrame(
        {"effect": [text.short(path) for path in found], "share": list(found.values())}
    )
    ground = (
        f"PED-ANOVA (Optuna {optuna.__version__}) of validation"
        f" {text.metric(tables.run['objective'])} over the {len(rows)} finished trials of the"
        " search; it asks how the best tenth of them differs from the rest."
    )
    return Importance(table.assign(trials=len(rows)), ground)


def _ped_anova(rows: pd.DataFrame, turned: list[str], value: pd.Series) -> dict[str, float]:
    spans = {path: _distribution(rows[path]) for path in turned}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.create_study(direction="maximize")
            for at, score in enumerate(value.astype(float)):
                point = {path: rows[path].iloc[at] for path in turned}
                study.add_trial(
                    optuna.trial.create_trial(params=point, distributions=spans, value=score)
                )
            return optuna.importance.get_param_importances(study)
        finally:
            optuna.logging.set_verbosity(level)


def _distribution(values: pd.Series) -> optuna.distributions.BaseDistribution:
    """Over the range that was met; logarithmic if positive and wider than a factor of 30."""
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return optuna.distributions.CategoricalDistribution(sorted(values.unique()))
    low, high = float(values.min()), float(values.max())
    return optuna.distributions.FloatDistribution(low, high, log=low > 0 and high / low > 30)

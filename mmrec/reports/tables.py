"""The numbers of a report: cells, completeness, and intervals over seeds. No figure, no HTML."""

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from mmrec.study.tables import StudyTables

LEVEL = 0.95
"""Of every interval in a report, where nothing else is said."""


def beyond_tuning(tables: StudyTables) -> pd.DataFrame:
    """All trials but the tries of nuisance knobs, which answer no question of the study."""
    return tables.trials[tables.trials["phase"] != "tune"]


def over_seeds(rows: pd.DataFrame, keys: list[str], column: str) -> pd.DataFrame:
    """Mean of `column` and its t interval over seeds, for every value of `keys`.

    Where several cells share the keys, they are averaged within a seed first: the seed is the
    replicate, so that the interval does not shrink with the number of cells.

    Returns:
        The keys, then `mean`, `half`, `low`, `high` (NaN with fewer than two seeds), `n` seeds.
    """
    scored = rows[rows[column].notna()]
    if scored.empty:
        return pd.DataFrame(columns=[*keys, "mean", "half", "low", "high", "n"])
    by_seed = scored.groupby([*keys, "seed"], sort=True, dropna=False)[column].mean()
    groups = by_seed.groupby(level=list(range(len(keys))), sort=True, dropna=False)
    table = groups.agg(["mean", "std", "count"]).reset_index()
    n = table.pop("count").to_numpy()
    half = np.full(len(n), np.nan)
    many = n > 1
    t = scipy_stats.t.ppf(0.5 + LEVEL / 2, n[many] - 1)
    half[many] = t * table["std"].to_numpy()[many] / np.sqrt(n[many])
    table = table.drop(columns="std").assign(half=half)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half, n=n)


def cells(tables: StudyTables) -> pd.DataFrame:
    """One row a cell, in the order in which the study first names them; none of tuning.

    Columns: `cell label model condition phase` (before `model` the `arm`, in a study that has
    arms), the factors, `trials done stopped failed missing`,
    `valid` (mean over seeds, done trials only), `n`, `test test_half test_low test_high`, `epochs`
    (median best epoch), `capped` (done trials whose best epoch is within 10 % of the cap),
    `best` (the selected one), `reason` (why there is no test score; empty otherwise), `hash` (of
    its first seed).
    """
    trials = beyond_tuning(tables)
    first = trials.groupby("cell", sort=False).agg("first")
    arm = ["arm"] if "arm" in trials and (trials["arm"] != "").any() else []
    keep = ["label", *arm, "model", "condition", *tables.factors()]
    table = first[keep].assign(
        phase=trials.groupby("cell", sort=False)["phase"].agg(lambda p: "+".join(sorted(set(p))))
    )
    count = pd.crosstab(trials["cell"], trials["state"]).reindex(table.index)
    for state in ("done", "stopped", "failed"):
        table[state] = count.get(state, 0)
    table.insert(len(keep) + 1, "trials", count.sum(axis=1))
    table["missing"] = table["trials"] - table["done"] - table["stopped"] - table["failed"]
    done = trials[trials["state"] == "done"]
    table["valid"] = over_seeds(done, ["cell"], tables.column("valid")).set_index("cell")["mean"]
    test = over_seeds(done, ["cell"], tables.column("test")).set_index("cell")
    table["n"] = test["n"].reindex(table.index).fillna(0).astype(int)
    for name in ("mean", "half", "low", "high"):
        table["test" if name == "mean" else f"test_{name}"] = test[name].astype(float)
    table["epochs"] = done.groupby("cell")["best_epoch"].median()
    capped = done["best_epoch"] >= 0.9 * done["epoch_cap"]
    table["capped"] = capped.groupby(done["cell"]).sum().reindex(table.index).fillna(0).astype(int)
    table["best"] = table.index == tables.run["selected"]
    table["reason"] = _reasons(table, trials)
    table["hash"] = first["hash"]
    return table.reset_index()


def best_cell(table: pd.DataFrame) -> pd.Series | None:
    """The row of `cells` that was chosen on validation; None when none could be."""
    rows = table[table["best"]]
    return rows.iloc[0] if len(rows) else None


def _reasons(table: pd.DataFrame, trials: pd.DataFrame) -> pd.Series:
    """Why a cell has no test score, in a few words; empty where it has one."""
    rows = trials[trials["cell"].isin(table.index[table["n"] == 0])]
    rows = rows.assign(error=rows["error"].where(rows["error"] != ""))
    groups = rows.groupby(["cell", "state"], sort=True).agg(
        count=("hash", "size"), epochs=("epochs", "max"), error=("error", "first")
    )
    said: dict[object, list[str]] = {}
    for cell, state, count, epochs, error in groups.reset_index().itertuples(index=False):
        said.setdefault(cell, []).append(f"{count} {_why(state, epochs, error)}")
    return pd.Series(["; ".join(said.get(cell, [])) for cell in table.index], index=table.index)


def _why(state: str, epochs: float, error: object) -> str:
    if state == "failed":
        return f"failed ({error.splitlines()[-1][:80] if isinstance(error, str) else 'no message'})"
    if state == "stopped":
        return f"stopped early at epoch {epochs:.0f}"
    if state == "done":
        return "done, test score not known"
    return "not run yet" if state == "planned" else state


def completeness(tables: StudyTables) -> dict[str, int]:
    """How many trials are planned, done, stopped, failed and missing; the last four sum to planned.

    A search plans a number of trials, not rows: those that it has not suggested yet are missing.
    """
    states = tables.trials["state"].value_counts()
    have = {state: int(states.get(state, 0)) for state in ("done", "stopped", "failed")}
    planned = max(int(tables.run["planned"]), len(tables.trials))
    return {"planned": planned, **have, "missing": planned - sum(have.values())}


def published_beside_ours(tables: StudyTables) -> pd.DataFrame:
    """Published rows of this dataset under this protocol, with our best cell's mean beside them."""
    names = ["source", "label", "metric", "value", "ours", "ours_low", "ours_high", "n"]
    if tables.published is None:
        return pd.DataFrame(columns=names)
    dataset, protocol = tables.run["dataset"]["name"], tables.run["protocol"]["name"]
    same = (tables.published["dataset"] == dataset) & (tables.published["protocol"] == protocol)
    rows = tables.published[same].copy()
    best = best_cell(cells(tables))
    for name in rows["metric"].unique():
        column = f"test.{name}"
        if best is None or column not in tables.trials:
            continue
        ours = over_seeds(tables.trials[tables.trials["cell"] == best["cell"]], ["cell"], column)
        if len(ours):
            at = rows["metric"] == name
            rows.loc[at, ["ours", "ours_low", "ours_high", "n"]] = ours[
                ["mean", "low", "high", "n"]
            ].to_numpy(float)[0]
    return rows.reindex(columns=names).reset_index(drop=True)

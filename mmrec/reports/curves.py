"""Learning curves and the course of a search, as plain tables."""

import numpy as np
import pandas as pd

from mmrec.reports.tables import beyond_tuning, cells
from mmrec.study.tables import StudyTables

MOST_CURVES = 60
MOST_POINTS = 120


def choose(tables: StudyTables, most: int = MOST_CURVES) -> tuple[list[str], str]:
    """Hashes of the trials whose curves are drawn, tuning aside, and the rule in words.

    All of them when there are at most `most`. Else every seed of the best cell, then trials evenly
    spaced in the order of their validation objective, so that the good and the bad are both seen.
    """
    have = beyond_tuning(tables)
    have = have[have["hash"].isin(tables.epochs["hash"].unique())]
    if len(have) <= most:
        return have["hash"].tolist(), f"All {len(have)} trials that ran at least one epoch."
    table = cells(tables)
    first = have["cell"].isin(table.loc[table["best"], "cell"])
    best = have.loc[first, "hash"].tolist()[:most]
    rest = have[~first].sort_values([tables.column("valid"), "hash"], ascending=False)
    step = np.unique(np.linspace(0, len(rest) - 1, most - len(best)).round().astype(int))
    rule = (
        f"{len(best) + len(step)} of {len(have)} trials: those of the best cell, and others evenly"
        " spaced in the order of their validation objective."
    )
    return best + rest["hash"].iloc[step].tolist(), rule


def learning_curves(tables: StudyTables, hashes: list[str]) -> pd.DataFrame:
    """The chosen curves: `hash cell label state seed epoch value best_epoch`, thinned evenly."""
    epochs = tables.epochs[tables.epochs["hash"].isin(hashes)].sort_values(["hash", "epoch"])
    facts = tables.trials.set_index("hash")[["cell", "label", "state", "seed", "best_epoch"]]
    table = epochs[["hash", "epoch"]].assign(value=epochs[tables.column("valid")])
    table = table.join(facts, on="hash")
    place = table.groupby("hash").cumcount()
    last = table.groupby("hash")["epoch"].transform("size") - 1
    step = np.ceil((last + 1) / MOST_POINTS)
    kept = (place % step == 0) | (place == last)
    order = {name: rank for rank, name in enumerate(hashes)}
    table = table[kept].assign(rank=lambda t: t["hash"].map(order))
    names = ["hash", "cell", "label", "state", "seed", "epoch", "value", "best_epoch"]
    return table.sort_values(["rank", "epoch"])[names].reset_index(drop=True)


def history(tables: StudyTables) -> pd.DataFrame:
    """The search in the order in which trials started: `number hash label state value best`.

    `best` is the highest validation objective of the trials done so far; what a stopped trial
    reached is a value at a lower number of epochs and never counts as the best.
    """
    column = tables.column("valid")
    rows = tables.trials[tables.trials["started"].notna()]
    rows = rows[rows["phase"] == "search"].sort_values(["started", "hash"])
    best = rows[column].where(rows["state"] == "done").cummax().ffill()
    table = rows[["hash", "label", "state"]].assign(value=rows[column], best=best)
    table.insert(0, "number", range(1, len(table) + 1))
    return table.reset_index(drop=True)

"""What a study cost, what stopping saved, and where its numbers come from."""

import shlex
from typing import Any

import numpy as np
import pandas as pd

from mmrec.reports.tables import beyond_tuning, cells
from mmrec.study.tables import StudyTables

_MIXED = ("host", "hardware", "device", "threads", "lanes", "torch")
"""Columns in which the trials of one study should agree."""


def by_state(tables: StudyTables) -> pd.DataFrame:
    """One row a phase and state: `phase state trials median total share epochs`; times in s."""
    ran = tables.trials[tables.trials["seconds"].notna()]
    table = ran.groupby(["phase", "state"], sort=True).agg(
        trials=("hash", "size"),
        median=("seconds", "median"),
        total=("seconds", "sum"),
        epochs=("epochs", "sum"),
    )
    table["share"] = table["total"] / max(float(table["total"].sum()), 1e-12)
    return table.reset_index()


def totals(tables: StudyTables) -> dict[str, float]:
    """The whole study in seconds.

    `busy` is the time during which at least one trial ran, idle gaps left out;
    `parallelism` is total over busy; `saved` is what the stopped trials would have cost, had each
    run as many epochs as the median finished one; `lost` went into trials without a result.
    """
    trials = tables.trials
    seconds = trials["seconds"].fillna(0.0).astype(float)
    busy = _union(trials["started"].to_numpy(), trials["ended"].to_numpy())
    total = float(seconds.sum())
    lost = trials["state"].isin(["failed", "interrupted"])
    return {
        "total": total,
        "median": float(trials["seconds"].astype(float).median()),
        "busy": busy,
        "parallelism": total / busy if busy > 0 else float("nan"),
        "saved": _saved(trials),
        "lost": float(seconds[lost].sum()),
    }


def _saved(trials: pd.DataFrame) -> float:
    stopped, done = (trials[trials["state"] == state] for state in ("stopped", "done"))
    if stopped.empty or done.empty:
        return 0.0
    full = float(done["epochs"].median())
    left = (full - stopped["epochs"]).clip(lower=0)
    return float((left * stopped["seconds"] / stopped["epochs"].clip(lower=1)).sum())


def _union(start: np.ndarray, end: np.ndarray) -> float:
    """Length of the union of the intervals [start, end]; those without both ends are left out."""
    known = np.isfinite(start) & np.isfinite(end)
    order = np.argsort(start[known], kind="stable")
    start, end = start[known][order], end[known][order]
    if not len(start):
        return 0.0
    reach = np.maximum.accumulate(end)
    floor = np.concatenate([[start[0]], reach[:-1]])
    return float(np.clip(end - np.maximum(start, floor), 0, None).sum())


def flags(tables: StudyTables) -> list[str]:
    """What a reader should know before trusting the numbers; empty when there is nothing."""
    ran = tables.trials[tables.trials["seconds"].notna()]
    said = []
    for name in _MIXED:
        values = sorted(map(str, ran[name].dropna().unique())) if name in ran else []
        if len(values) > 1:
            said.append(f"trials differ in {name}: {', '.join(values)}")
    if tables.run["git_dirty"]:
        said.append("the working tree had uncommitted changes, so the commit does not say it all")
    table = cells(tables)
    counts = sorted(set(table.loc[table["n"] > 0, "n"]))
    if len(counts) > 1:
        said.append(f"cells have between {counts[0]} and {counts[-1]} scored seeds")
    for row in table[table["capped"] > 0].itertuples():
        said.append(
            f"{row.label}: best epoch within 10 % of the cap in {row.capped} of {row.done} trials;"
            " more epochs might change its score"
        )
    return said + _at_once(tables)


def _at_once(tables: StudyTables) -> list[str]:
    """Cells whose trials gave up on getting better than after their first epoch."""
    done = beyond_tuning(tables)
    done = done[(done["state"] == "done") & (done["epochs"] > 1)]
    count = (done["best_epoch"] == 1).groupby(done["label"], sort=False).agg(["sum", "size"])
    return [
        f"{label}: best after the first epoch in {first} of {size} trials; with more patience"
        " training might have come back"
        for label, first, size in count[count["sum"] > 0].itertuples()
    ]


def provenance(tables: StudyTables) -> pd.DataFrame:
    """Where the numbers come from: `what` and `value`, one row a fact."""
    run = tables.run
    data, parts = run["dataset"], run["dataset"]["interactions"]
    dirty = " (with uncommitted changes)" if run["git_dirty"] else ""
    facts: list[tuple[str, Any]] = [
        ("command", run["command"]),
        ("created", run["created"]),
        ("git commit", f"{run['git_commit'] or 'none: an installed package'}{dirty}"),
        ("dataset", f"{data['name']}, content digest {data['digest']}"),
        ("size", f"{data['num_users']:,} users, {data['num_items']:,} items"),
        ("interactions", ", ".join(f"{n:,} {part}" for part, n in parts.items())),
        *[(f"modality {name}", text) for name, text in data["modalities"].items()],
        ("split", data["split"]),
        *[("note on the data", note) for note in data["notes"]],
        ("protocol", f"{run['protocol']['name']}: {run['protocol']['text']}"),
        ("seeds", ", ".join(map(str, run["seeds"]))),
        *[("hardware", text) for text in run["hardware"]],
        ("packages", ", ".join(f"{name} {v}" for name, v in sorted(run["versions"].items()))),
    ]
    return pd.DataFrame(facts, columns=["what", "value"]).astype(str)


def reproduce(tables: StudyTables) -> pd.DataFrame:
    """One command a cell, that repeats its first seed: `label`, `command`."""
    table = cells(tables)
    run = shlex.quote(str(tables.run["out"]))
    commands = [f"mmrec rerun {run} {shlex.quote(str(name))}" for name in table["hash"]]
    return pd.DataFrame({"label": table["label"], "command": commands})

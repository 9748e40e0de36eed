"""From plan, ledger and trial files to the plain tables that claims and reports are drawn from."""

import io
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmrec.config import get
from mmrec.study.claims import ClaimData
from mmrec.study.costs import COSTS
from mmrec.study.ledger import Ledger, Row
from mmrec.study.seal import unseal
from mmrec.study.store import Folder
from mmrec.study.study import ARM, Planned, Study
from mmrec.study.trials import Trial

T = TypeVar("T")

LEARNING_CURVES = 500
"""At most this many curves are read back: first seeds first, then in order of the plan."""
READERS = 16
"""Files of trials that are read at a time: an object store takes about 30 ms to answer."""


def planned_from_rows(rows: Iterable[Row]) -> list[Planned]:
    """The trials of ledger rows that no plan names: a search's."""
    return [
        Planned(
            row.hash,
            row.attributes["cell"],
            row.attributes["label"],
            row.attributes["phase"],
            Trial.from_json(row.attributes["config"]),
            row.params,
        )
        for row in rows
    ]


def trial_table(
    study: Study,
    planned: Iterable[Planned],
    rows: Mapping[str, Row],
    resources: tuple[float, float],
) -> pd.DataFrame:
    """One row a trial, validation numbers only; a trial without a ledger row is `planned`.

    What a row does not tell, as an old one does not tell its costs, is missing here.
    """
    paths = [factor.path for factor in study.factors]
    table = [_entry(p, rows.get(p.hash), paths, resources) for p in planned]
    frame = pd.DataFrame(table)
    return frame.reindex(columns=list(dict.fromkeys([*_COLUMNS, *paths, *frame.columns])))


_COLUMNS = (
    "hash", "cell", "label", "phase", "attempt", "state", "seed", "arm", "condition", "knocked",
    "filler", "when", "density", "model",
    "best_epoch", "epochs", "epoch_cap", "seconds", "host", "hardware", "device", "threads",
    "torch", "error", "started", "ended", "config", "cpus", "gpus",
    *(f"cost.{name}" for name in COSTS),
)  # fmt: skip


def _entry(
    planned: Planned, row: Row | None, paths: list[str], resources: tuple[float, float]
) -> dict[str, Any]:
    trial = planned.trial
    entry: dict[str, Any] = {
        "hash": planned.hash,
        "cell": planned.cell,
        "label": planned.label,
        "phase": planned.phase,
        "state": "planned",
        "seed": trial.seed,
        "arm": planned.arm,
        "condition": trial.condition.name,
        "knocked": trial.condition.knocked,
        "filler": trial.condition.filler if trial.condition.modalities else "",
        "when": trial.condition.when,
        "density": trial.condition.density,
        "model": type(trial.run.model).__name__,
        "epoch_cap": trial.run.train.epochs,
        "config": trial.to_json(),
        "cpus": resources[0],
        "gpus": resources[1],
        "error": "",
    }
    if planned.phase not in ("control", "tune"):
        entry |= {path: get(trial.run, path) for path in paths}
    if row is None:
        return entry
    attributes = row.attributes
    entry |= {"attempt": row.attempt, "state": row.state}
    entry |= {"started": row.started, "ended": row.ended}
    names = ("best_epoch", "epochs", "seconds", "host", "hardware", "device", "threads", "torch")
    entry |= {name: attributes.get(name) for name in (*names, "error")}
    entry["error"] = entry["error"] or ""
    if row.state in ("done", "stopped"):
        entry |= {f"valid.{k}": v for k, v in attributes.get("valid", {}).items()}
        entry |= {f"measure.{k}": v for k, v in attributes.get("measures", {}).items()}
        entry |= {f"cost.{k}": v for k, v in attributes.get("cost", {}).items()}
    return entry


def with_test(trials: pd.DataFrame, folder: Folder) -> pd.DataFrame:
    """Unseal: add `test.<metric>` columns for every trial that came to its natural end."""
    done = trials[trials["state"] == "done"]["hash"]
    scores = _of_each(done, lambda name: unseal(folder, name).metrics)
    table = pd.DataFrame.from_dict(scores, orient="index").add_prefix("test.")
    if table.empty:
        metrics = [str(c) for c in trials if str(c).startswith("valid.")]
        table = pd.DataFrame(columns=[m.replace("valid.", "test.", 1) for m in metrics])
    return trials.join(table, on="hash")


def _of_each(names: Iterable[str], read: Callable[[str], T]) -> dict[str, T]:
    """Name -> what is read of it, in their order."""
    names = list(names)
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(names, pool.map(read, names), strict=True))


def epoch_table(trials: pd.DataFrame, folder: Folder, objective: str) -> pd.DataFrame:
    """Learning curves of the trials that have one."""
    columns = ["hash", "epoch", "seconds", f"valid.{objective}"]
    frames = []
    chosen = trials[trials["state"].isin(("done", "stopped"))].sort_values("seed", kind="stable")
    names = chosen["hash"][:LEARNING_CURVES]
    contents = _of_each(names, lambda name: folder.read(f"trials/{name}/epochs.parquet"))
    for name, content in contents.items():
        frame = pd.read_parquet(io.BytesIO(content))
        more = [c for c in frame if str(c).startswith(("loss.", "measure."))]
        frame.insert(0, "hash", name)
        frames.append(frame[[*columns, *more]])
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)


def claim_data(trials: pd.DataFrame, folder: Folder, objective: str) -> ClaimData:
    """What claims are tested on: trials that came to their natural end."""
    done = trials[trials["state"] == "done"].reset_index(drop=True)

    def per_user(name: str) -> NDArray[np.floating] | None:
        if not folder.exists(f"trials/{name}/test.npz"):
            return None
        return unseal(folder, name).per_user[objective]

    return ClaimData(done, objective, per_user)


def select(trials: pd.DataFrame, objective: str) -> str | None:
    """The cell that is best by its mean validation objective over seeds; test is not looked at.

    Only cells with the most replicates among the finished ones take part: a lucky single seed is
    not a best cell. Ties go to the cell that was planned first.
    """
    chosen_from = ~trials["phase"].isin(("control", "tune"))
    done = trials[(trials["state"] == "done") & chosen_from]
    if done.empty:
        return None
    by_cell = done.groupby("cell", sort=False)[f"valid.{objective}"].agg(["mean", "count"])
    full = by_cell[by_cell["count"] == by_cell["count"].max()]
    return str(full["mean"].idxmax())


@dataclass(frozen=True)
class Tuned:
    """What the tries of nuisance knobs came to."""

    settings: Mapping[str, Mapping[str, Any]]
    """`Study.tuning_key` -> dotted path -> the value of the best try by validation."""
    tries: list[dict[str, Any]]
    """One entry a try: arm, condition, nth, its knobs, state, valid, chosen."""
    complete: bool
    """Whether every try has come to an end."""


def tuned(study: Study, tries: Iterable[Planned], rows: Mapping[str, Row]) -> Tuned:
    """Choose each arm's settings by validation; of equal tries the first.

    A try that failed (a learning rate may be too much) is passed over; an arm of which all failed
    keeps its own settings.
    """
    groups: dict[str, list[Planned]] = {}
    for planned in tries:
        key = study.tuning_key(planned.arm, planned.trial.condition)
        groups.setdefault(key, []).append(planned)
    settings: dict[str, Mapping[str, Any]] = {}
    table, complete = [], True
    for key, group in groups.items():
        ended = [rows.get(planned.hash) for planned in group]
        complete &= all(row is not None and row.state in ("done", "failed") for row in ended)
        value_of = {
            n: row.value
            for n, row in enumerate(ended)
            if row is not None and row.state == "done" and row.value is not None
        }
        best = max(value_of, key=lambda n: value_of[n], default=0)
        knobs = [{k: v for k, v in planned.levels.items() if k != ARM} for planned in group]
        settings[key] = knobs[best]
        for n, (planned, row) in enumerate(zip(group, ended, strict=True)):
            table.append(
                {
                    "arm": planned.arm,
                    "condition": planned.trial.condition.name,
                    "nth": n,
                    **knobs[n],
                    "state": row.state if row else "planned",
                    "valid": value_of.get(n),
                    "chosen": n == best,
                }
            )
    return Tuned(settings, table, complete)


def plan_to_json(planned: Iterable[Planned]) -> bytes:
    """A plan as it is kept beside the ledger, so that a report can show what is missing."""
    rows = [
        {
            "hash": p.hash,
            "cell": p.cell,
            "label": p.label,
            "phase": p.phase,
            "levels": dict(p.levels),
            "trial": p.trial.to_json(),
            "parent": p.parent,
        }
        for p in planned
    ]
    return json.dumps(rows, indent=0).encode()


def plan_from_json(content: bytes) -> list[Planned]:
    """What `plan_to_json` wrote."""
    return [
        Planned(
            row["hash"],
            row["cell"],
            row["label"],
            row["phase"],
            Trial.from_json(row["trial"]),
            row["levels"],
            row.get("parent", ""),
        )
        for row in json.loads(content)
    ]


def rows_of(ledger: Ledger) -> dict[str, Row]:
    """Hash -> row over both kinds; of two rows of one trial, the one that ended counts."""
    rows = {row.hash: row for row in ledger.rows("grid")}
    for row in ledger.rows("search"):
        if row.hash not in rows or row.state == "done" != rows[row.hash].state:
            rows[row.hash] = row
    return rows

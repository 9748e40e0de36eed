"""What can be made again from a run folder: its report, and any of its trials. No Ray here."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from mmrec.data.sources import load
from mmrec.evaluation import PROTOCOLS
from mmrec.reports import write_report
from mmrec.reports.publish import publish
from mmrec.study.collect import rows_of
from mmrec.study.database import usual_storage
from mmrec.study.finish import tables_of
from mmrec.study.ledger import Ledger, Row
from mmrec.study.seal import unseal
from mmrec.study.store import Folder
from mmrec.study.study import Asked, Study
from mmrec.study.tables import StudyTables
from mmrec.study.trials import Setting, Trial, begin
from mmrec.training import fit
from mmrec.tune.job import IN_FOLDER, Options, as_asked, open_ledger


def rebuild_report(
    study: Study, run: str, kind: str, storage: str | None, to: Path | None = None
) -> tuple[StudyTables, str]:
    """The report of a run folder, from plan, ledger and trial files alone, and its address.

    Args:
        study: what was asked.
        run: the run folder.
        kind: `grid` or `search`.
        storage: the ledger's database; None: where the run has it.
        to: where to write the report; nothing is written into the run folder then.
    """
    folder, manifest = _opened(run)
    if not folder.exists(f"plan-{kind}.json"):
        raise FileNotFoundError(f"{folder.address} holds no {kind} (no plan-{kind}.json)")
    options = Options(
        dataset=manifest["load"]["dataset"],
        preset=manifest.get("preset"),
        changes=manifest["changes"],
        epochs=manifest["epochs"],
        seeds=len(manifest["seeds"]),
        smoke=manifest["smoke"],
        choices={name: tuple(words) for name, words in manifest.get("choices", {}).items()},
        tune=manifest.get("tune"),
        tune_each=manifest.get("tune_each", False),
    )
    ledger = _ledger(folder, storage, manifest)
    names = ("dense_modalities", "features", "user_features", "codes")
    dense, features, user_features, codes = (tuple(manifest.get(name, ())) for name in names)
    split = manifest["dataset"]["split"]
    asked = Asked(options.dataset, dense, {}, features, user_features, split, codes)
    shaped = as_asked(study, options, asked)
    tables = tables_of(shaped, ledger, folder, {**manifest, "kind": kind}, keep=to is None)
    if to is not None:
        return tables, str(write_report(tables, to.expanduser().resolve()))
    return tables, publish(tables, folder)


def ledger_of(run: str, storage: str | None) -> Ledger:
    """The ledger of a run folder; nothing is made where there is none."""
    folder, manifest = _opened(run)
    return _ledger(folder, storage, manifest)


def repeat_trial(run: str, trial: str, storage: str | None, data_root: Path | None) -> pd.DataFrame:
    """Train one trial of a ledger again, in this process, and compare.

    Returns:
        Columns `metric`, `recorded`, `again`, `relative` (difference over the recorded value).

    Raises:
        KeyError: no finished trial's hash begins like that, or several do.
        ValueError: the data, or this version's naming of it, is not what the trial was run on.
    """
    folder, manifest = _opened(run)
    row = _the_row(_ledger(folder, storage, manifest), trial)
    how = dict(manifest["load"])
    data = load(how.pop("dataset"), data_root=data_root, **how)
    spec = Trial.from_json(row.attributes["config"])
    setting = Setting(
        data.digest, data.split, manifest["protocol"]["name"], row.attributes["device"]
    )
    if setting.hash(spec) != row.hash:
        raise ValueError(
            f"here this trial would be named {setting.hash(spec)}, not {row.hash}: the data"
            f" ({data.digest}, recorded {manifest['dataset']['digest']}) or a VERSION has changed"
        )
    again = begin(spec, data, PROTOCOLS[setting.protocol], setting.device)
    for _ in fit(again):
        pass
    valid = again.score_valid().metrics
    recorded = {f"valid.{k}": v for k, v in row.attributes["valid"].items()}
    recorded |= {f"test.{k}": v for k, v in unseal(folder, row.hash).metrics.items()}
    numbers = {f"valid.{k}": v for k, v in valid.items()}
    numbers |= {f"test.{k}": v for k, v in again.score_test().metrics.items()}
    return pd.DataFrame([_compared(name, recorded[name], numbers[name]) for name in recorded])


def _compared(name: str, recorded: float, again: float) -> dict[str, Any]:
    difference = abs(again - recorded)
    relative = difference / abs(recorded) if recorded else difference
    return {"metric": name, "recorded": recorded, "again": again, "relative": relative}


def _opened(run: str) -> tuple[Folder, dict[str, Any]]:
    folder = Folder.at(run)
    folder.require()
    if not folder.exists("run.json"):
        raise FileNotFoundError(f"{folder.address} is not a run folder: it has no run.json")
    return folder, json.loads(folder.read("run.json"))


def _ledger(folder: Folder, storage: str | None, manifest: dict[str, Any]) -> Ledger:
    """Where the run has it; nothing is made where there is none."""
    return open_ledger(folder, storage or _recorded(manifest), manifest["ledger"], make=False)


def _recorded(manifest: dict[str, Any]) -> str | None:
    """Where the run kept its ledger; None: in its folder. Its password is not recorded."""
    storage = manifest["storage"]
    if storage == IN_FOLDER:
        return None
    return usual_storage() or storage.replace(":***@", "@")


def _the_row(ledger: Ledger, trial: str) -> Row:
    rows = [r for r in rows_of(ledger).values() if r.hash.startswith(trial) and r.state == "done"]
    if len(rows) != 1:
        found = ", ".join(row.hash for row in rows[:5]) or "none"
        raise KeyError(f"{trial!r} should name one finished trial; it names: {found}")
    return rows[0]

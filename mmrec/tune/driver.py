"""From a study to its report: runs what the ledger does not have, selects, unseals, decides."""

import json
import sys
from dataclasses import dataclass

from mmrec.reports.publish import publish
from mmrec.study import collect
from mmrec.study.collect import plan_to_json
from mmrec.study.finish import tables_of
from mmrec.study.ledger import Ledger
from mmrec.study.provenance import now
from mmrec.study.store import Folder
from mmrec.study.writer import LOCK, one_writer
from mmrec.tune.job import Job
from mmrec.tune.rounds import Rounds


@dataclass(frozen=True)
class Outcome:
    """What a run of the driver came to."""

    answer: str
    report: str
    failed: int
    interrupted: bool


def run_study(job: Job) -> Outcome:
    """Run what is missing, decide the claims, write the report.

    Raises:
        Refused: another driver is running the same study, or Ray has no room for a trial.
        StorageFailed: the run folder or the ledger cannot be written, or its server stayed away.
    """
    with one_writer(job.folder, job.options.storage, job.ledger_name) as writer:
        aside = now().replace(":", "")
        if job.options.fresh and job.folder.exists("run.json"):
            _move_aside(job.folder, aside)
        ledger = job.open_ledger()
        ledger.storage.guard = writer.require
        if job.options.storage:
            if job.options.fresh:
                ledger.move_aside(aside)
            ledger.settle(job.folder.address)
        ledger.close_interrupted()
        job.folder.write("run.json", json.dumps(job.manifest(), indent=1).encode())
        try:
            failed = _run(job, ledger)
            interrupted = False
        except KeyboardInterrupt:
            sys.stderr.write("\ninterrupted: the same command goes on from here\n")
            failed, interrupted = 0, True
        return _conclude(job, ledger, failed=failed, interrupted=interrupted)


def _move_aside(folder: Folder, suffix: str) -> None:
    """`--fresh`: the old run is renamed; on a local disk its lock stays with us."""
    if not folder.is_local:
        folder.move_aside(suffix)
        return
    aside = folder.path.with_name(f"{folder.path.name}.{suffix}")
    aside.mkdir()
    for entry in folder.path.iterdir():
        if not entry.name.startswith(LOCK):
            entry.rename(aside / entry.name)


def _run(job: Job, ledger: Ledger) -> int:
    """Run what the ledger does not have; the number of failed trials."""
    with Rounds(job, ledger) as rounds:
        if job.kind == "grid":
            return _run_grid(job, ledger, rounds)
        failed = rounds.run_search()
        confirm = job.confirmation(ledger.rows("search"))
        job.folder.write("plan-search.json", plan_to_json(confirm))
        return failed + rounds.run_planned(confirm)


def _run_grid(job: Job, ledger: Ledger, rounds: Rounds) -> int:
    """Tuning first, if the study has any: the grid's settings come from it."""
    failed, tries = 0, job.tuning_plan()
    if tries:
        job.folder.write("plan-tune.json", plan_to_json(tries))
        failed = rounds.run_planned(tries)
        tuned = collect.tuned(job.study, tries, collect.rows_of(ledger))
        job.take_tuned(tuned.settings)
        if not tuned.complete:
            return failed  # the budget ended: settings are chosen among all tries or not at all
    else:
        job.folder.remove("plan-tune.json")  # of an earlier run that tuned
    plan = job.grid_plan()
    job.folder.write("plan-grid.json", plan_to_json(plan))
    return failed + rounds.run_planned(plan)


def _conclude(job: Job, ledger: Ledger, *, failed: int, interrupted: bool) -> Outcome:
    """Select on validation, then unseal, decide and report."""
    ledger.close_interrupted()  # what a lost connection may have left open
    manifest = json.loads(job.folder.read("run.json"))
    tables = tables_of(job.study, ledger, job.folder, manifest)
    report = publish(tables, job.folder)
    return Outcome(tables.answer, report, failed, interrupted)

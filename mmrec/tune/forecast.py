"""What `--dry-run` says, from a short pilot in this process. No Ray here."""

import os
import time
from collections.abc import Mapping
from dataclasses import replace

from mmrec.evaluation import PROTOCOLS
from mmrec.study.collect import rows_of
from mmrec.study.ledger import Row
from mmrec.study.study import Planned
from mmrec.training import Run, fit
from mmrec.tune.job import Job
from mmrec.tune.status import duration


def forecast(job: Job) -> str:
    """What `--dry-run` says: the cells, how many trials are left, and how long they may take."""
    cells = job.study.cells(job.options.grid)
    plan = job.grid_plan()
    have: Mapping[str, Row] = {}
    if job.folder.exists("run.json") or job.options.storage:
        have = rows_of(job.open_ledger())
    missing = [p for p in plan if not (p.hash in have and have[p.hash].state == "done")]
    cap = job.study.base.train.epochs
    lines = [
        job.study.question,
        f"dataset {job.data.name} ({job.data.digest}), {job.folder.address}",
    ]
    lines += [f"  {cell.label}" for cell in cells]
    slots = max(1, int((os.cpu_count() or 1) // job.cpus)) if job.device == "cpu" else 1
    if job.kind == "search":
        total = (
            job.study.search_trials if job.options.max_trials is None else job.options.max_trials
        )
        confirmed = job.study.confirm + len(job.study.references) + len(job.study.controls)
        lines.append(f"search: {total} trials, then {confirmed} cells x {len(job.seeds)} seeds")
        count, sample = total + confirmed * len(job.seeds), plan[:1]
    else:
        lines.append(f"{len(cells)} cells x {len(job.seeds)} seeds = {len(plan)} trials")
        lines.append(f"{len(plan) - len(missing)} done already, {len(missing)} to run")
        count, sample = len(missing), missing[:1]
    if sample:
        seconds = pilot(job, sample[0])
        if sample[0].trial.run.model.closed_form:
            lines.append(
                f"a pilot, of a closed form, took {seconds:.2f} s: about"
                f" {duration(count * seconds / slots)} on {slots} slot(s) if all are alike"
            )
        else:
            lines.append(
                f"a pilot took {seconds:.2f} s an epoch: at most"
                f" {duration(count * seconds * cap / slots)} on {slots} slot(s) at {cap} epochs a"
                " trial (early stopping shortens it)"
            )
    return "\n".join(lines)


def pilot(job: Job, planned: Planned, epochs: int = 2) -> float:
    """Seconds an epoch of one trial, validation included, in this process; nothing is written.

    Of a closed form, which has no epochs, the seconds of the trial.
    """
    begin = time.perf_counter()
    cfg = replace(planned.trial.run, train=replace(planned.trial.run.train, epochs=epochs + 1))
    run = Run(
        cfg,
        job.data,
        seed=planned.trial.seed,
        protocol=PROTOCOLS[job.protocol.name],
        device=job.device,
    )
    reports = fit(run)
    next(reports)  # the first epoch warms up
    start = time.perf_counter()
    count = sum(1 for _ in reports)
    end = time.perf_counter()
    return (end - start) / count if count else end - begin

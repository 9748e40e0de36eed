"""What `--dry-run` says, from a short pilot in this process. No Ray here."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from mmrec.config import override
from mmrec.study.collect import rows_of, tuned
from mmrec.study.ledger import Row
from mmrec.study.study import Planned
from mmrec.study.trials import begin
from mmrec.training import fit
from mmrec.tune.job import Job
from mmrec.tune.status import duration


def forecast(job: Job) -> str:
    """What `--dry-run` says: the cells, how many trials are left, and how long they may take."""
    have: Mapping[str, Row] = {}
    if job.folder.exists("run.json") or job.options.storage:
        have = rows_of(job.open_ledger())
    lines = [
        job.study.question,
        f"dataset {job.data.name} ({job.data.digest}), {job.folder.address}",
        *_preset(job),
        *(f"  {cell.label}" for cell in job.study.cells(job.options.grid)),
    ]
    more = _search(job) if job.kind == "search" else _grid(job, have)
    return "\n".join([*lines, *more])


def _preset(job: Job) -> list[str]:
    """What the preset sets, if one was asked for."""
    name = job.options.preset
    if name is None:
        return []
    values = job.study.preset(name).items()
    return [f"preset {name}: {', '.join(f'{path}={value}' for path, value in values)}"]


def _search(job: Job) -> list[str]:
    study, asked = job.study, job.options.max_trials
    total = study.search_trials if asked is None else asked
    confirmed = study.confirm + len(study.references) + len(study.controls)
    count = total + confirmed * len(job.seeds)
    return [
        f"search: {total} trials, then {confirmed} cells x {len(job.seeds)} seeds",
        *_time({"": (count, job.grid_plan()[0])}, job),
    ]


def _grid(job: Job, have: Mapping[str, Row]) -> list[str]:
    lines, tries = [], job.tuning_plan()
    if tries:
        lines.append(f"tuning: {len(tries)} trials")
        chosen = tuned(job.study, tries, have)
        if chosen.complete:
            job.take_tuned(chosen.settings)
    plan = job.grid_plan()
    lines.append(
        f"{len(plan) // len(job.seeds)} cells x {len(job.seeds)} seeds = {len(plan)} trials"
    )
    wanted = {planned.hash: planned for planned in [*tries, *plan]}
    left = [p for p in wanted.values() if not (p.hash in have and have[p.hash].state == "done")]
    lines.append(f"{len(wanted) - len(left)} done already, {len(left)} to run")
    first: dict[str, Planned] = {}
    for planned in left:
        first.setdefault(planned.arm, planned)
    count = Counter(planned.arm for planned in left)
    return [*lines, *_time({arm: (count[arm], first[arm]) for arm in first}, job)]


def _time(left: Mapping[str, tuple[int, Planned]], job: Job) -> list[str]:
    """What a pilot of each arm says: arm -> (trials left, one of them)."""
    slots = max(1, int((os.cpu_count() or 1) // job.cpus)) if job.device == "cpu" else 1
    cap, whole, lines = job.study.base.train.epochs, 0.0, []
    for arm, (count, sample) in left.items():
        seconds = pilot(job, sample)
        name = f" of {arm}" if arm else ""
        if sample.trial.run.model.closed_form:
            lines.append(f"a pilot{name}, a closed form, took {seconds:.2f} s")
            whole += count * seconds
        else:
            lines.append(f"a pilot{name} took {seconds:.2f} s an epoch")
            whole += count * seconds * sample.trial.run.train.epochs
    if left:
        lines.append(
            f"at most {duration(whole / slots)} on {slots} slot(s) at {cap} epochs a trial (early"
            " stopping shortens it)"
        )
    return lines


def pilot(job: Job, planned: Planned, epochs: int = 2) -> float:
    """Seconds an epoch of one trial, validation included, in this process; nothing is written.

    Of a closed form, which has no epochs, the seconds of the trial.
    """
    outset = time.perf_counter()
    trial = planned.trial
    short = override(trial.run, {"train.epochs": epochs + 1})
    run = begin(replace(trial, run=short), job.data, job.protocol, job.device)
    reports = fit(run)
    next(reports)  # the first epoch warms up
    start = time.perf_counter()
    count = sum(1 for _ in reports)
    end = time.perf_counter()
    return (end - start) / count if count else end - outset

"""The Tuners of one run of the driver: one a phase, and one more for what the last one left."""

import tempfile
import time
from contextlib import ExitStack
from types import TracebackType

from mmrec.study.collect import rows_of
from mmrec.study.ledger import Kind, Ledger
from mmrec.study.study import Planned

from mmrec.tune import local  # before ray: it sets the environment  # isort: skip
from ray import tune

from mmrec.tune.asha import InOrder, LedgerAsha
from mmrec.tune.controller import Halted, bundle, mended
from mmrec.tune.job import Job
from mmrec.tune.preflight import require
from mmrec.tune.searcher import LedgerSearcher, Plan, Source, Suggestions
from mmrec.tune.status import Status
from mmrec.tune.trainable import Shared, TrialTrainable
from mmrec.tune.versions import this_node

STRIDES = 20
"""About this many values of a learning curve reach the ledger; all of it is in epochs.parquet."""


class Rounds:
    """A context in which Ray runs and the dataset is in its object store."""

    def __init__(self, job: Job, ledger: Ledger) -> None:
        self.job, self.ledger = job, ledger
        self.epochs = job.study.base.train.epochs
        self.begun = 0
        hours = job.options.max_hours
        self.deadline = None if hours is None else time.monotonic() + hours * 3600

    def __enter__(self) -> "Rounds":
        """Start or join Ray, wait for room, look at every node.

        Raises:
            Refused: any of that cannot be.
        """
        job, gpus = self.job, self.job.options.gpus_per_trial
        with ExitStack() as stack:
            stack.enter_context(local.started(job.options.address))
            self.slots = local.slots(job.cpus, gpus)
            self.room = local.Room(job.cpus, gpus)
            require(job.data, job.folder, gpus=gpus)
            self._ray = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ray.close()

    def run_planned(self, plan: list[Planned]) -> int:
        """Run what is missing of a plan; the number of trials that failed."""
        source = Plan(self.ledger, plan, self.job.spans(), rows_of(self.ledger))
        return self._run("grid", source, len(plan), len(plan) - source.remaining())

    def run_search(self) -> int:
        """Run a search to its end; the number of trials that failed."""
        job = self.job
        asked = job.options.max_trials
        total = job.study.search_trials if asked is None else asked
        source = Suggestions(self.ledger, job.ranges(), total, job.planned_at)
        return self._run("search", source, total, source.ended)

    def _run(self, kind: Kind, source: Source, planned: int, done: int) -> int:
        if not source.remaining():
            return 0
        status = self._status(planned, done)
        try:
            while source.more() and not status.enough():
                self._tuner(kind, source, status)
        finally:
            self.begun += status.begun
            status.close()
        return status.failed

    def _tuner(self, kind: Kind, source: Source, status: Status) -> None:
        """One Tuner, until its source has no more; what dies in the last wave is left over.

        Raises:
            KeyboardInterrupt: Ctrl-C; trials under way are closed as interrupted, state kept.
            Refused, StorageFailed: no trial can go on; likewise.
        """
        job = self.job
        stall_seconds = job.options.stall_minutes * 60
        asha = LedgerAsha(self.epochs, self.ledger.history("search")) if kind == "search" else None
        searcher = LedgerSearcher(
            source,
            self.ledger,
            job.folder,
            milestones=frozenset(asha.milestones if asha else ()),
            stride=max(1, self.epochs // STRIDES),
            watch=status,
            most=(lambda: 1) if source.alone else self.room,
            nodes=self._roomy_nodes,
            stall_seconds=stall_seconds,
        )
        shared = Shared(
            job.data,
            job.folder,
            job.protocol.name,
            job.device,
            report_seconds=0.0 if asha else 0.5,
            stall_seconds=stall_seconds,
            code=this_node(),
            clouds=job.study.clouds,
        )
        trainable = tune.with_resources(
            tune.with_parameters(TrialTrainable, shared=shared),
            lambda config: bundle(job.cpus, job.options.gpus_per_trial, config["avoid"]),
        )
        with tempfile.TemporaryDirectory(prefix="mmrec-tune-") as scratch:
            tuner = tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=asha or InOrder(),
                    num_samples=-1,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: str(trial.trial_id),
                ),
                run_config=tune.RunConfig(
                    name=f"{job.study.name}-{time.time_ns()}",
                    storage_path=scratch,
                    verbose=0,
                    stop=Halted(source.mishaps),
                    failure_config=tune.FailureConfig(max_failures=0),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                ),
            )
            try:
                with mended(searcher.died_of):
                    tuner.fit()
            finally:
                interrupted = bool(searcher.live)
                searcher.abandon()
        if source.mishaps.halted:
            raise source.mishaps.halted
        if interrupted:
            raise KeyboardInterrupt

    def _roomy_nodes(self) -> set[str]:
        """Nodes that are large enough for a trial, by Ray's ids."""
        job = self.job
        fit = local.fitting_by_node(job.cpus, job.options.gpus_per_trial)
        return {name for name, count in fit.items() if count}

    def _status(self, planned: int, done: int) -> Status:
        most = self.job.options.max_trials
        return Status(
            planned,
            done,
            self.epochs,
            max_trials=most - self.begun if most is not None and self.job.kind == "grid" else None,
            deadline=self.deadline,
            objective=self.job.study.base.objective,
        )

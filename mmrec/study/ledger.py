"""The record of every trial of a study: Optuna studies in one database.

One Optuna study a kind: `grid` holds planned cells (also a search's confirmations), `search` holds
suggestions, since a linear and a logarithmic distribution of one name clash in one study. Optuna's
own plots and optuna-dashboard work on both.

A trial is known by its hash. An attempt that a dead driver left open becomes FAIL "interrupted";
where a hash has several rows, the latest attempt counts.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from mmrec.study.ranges import Range
from mmrec.study.study import Planned

Kind = Literal["grid", "search"]
KINDS: tuple[Kind, ...] = ("grid", "search")

INTERRUPTED = "interrupted: the driver ended before this trial did"

_STATES = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "planned",
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Refused(RuntimeError):
    """A wish that cannot be met here and now; its message is all that a user needs."""


@dataclass(frozen=True)
class Row:
    """One attempt at one trial, as the ledger has it."""

    hash: str
    kind: Kind
    number: int
    """Optuna's number of the attempt within its study."""
    state: str
    """done, stopped (by ASHA), failed, interrupted or running."""
    attempt: int
    value: float | None
    """Objective at the best validation epoch; for a stopped trial, the best it had reached."""
    params: dict[str, Any]
    values_by_epoch: dict[int, float]
    attributes: dict[str, Any]
    started: str
    ended: str

    @property
    def seconds(self) -> float:
        """Training and evaluation time over all attempts."""
        return float(self.attributes.get("seconds", 0.0))


class Ledger:
    """Reads and writes the trials of one (study, dataset digest, protocol)."""

    def __init__(self, storage: str, name: str) -> None:
        """Open or make the two Optuna studies.

        Args:
            storage: a database URL as SQLAlchemy takes it, such as `sqlite:////runs/x/ledger.db`.
            name: prefix of the Optuna studies' names.

        Raises:
            Refused: there is no such database, its driver is not installed, or it does not answer.
        """
        try:
            options = _engine_options(storage)
            self.storage = optuna.storages.RDBStorage(storage, engine_kwargs=options)
        except (SQLAlchemyError, ImportError) as error:
            shown = without_password(storage)
            raise Refused(f"the ledger {shown!r} cannot be opened: {error}") from error
        self.studies: dict[Kind, optuna.Study] = {
            kind: optuna.create_study(
                storage=self.storage,
                study_name=f"{name}/{kind}",
                direction="maximize",
                load_if_exists=True,
            )
            for kind in KINDS
        }

    def settle(self, home: str) -> None:
        """Remember the run folder, where the trials' files lie.

        Raises:
            Refused: these rows belong to another run folder, so that their files are not here.
        """
        for study in self.studies.values():
            known = study.user_attrs.get("home")
            if known not in (None, home) and study.get_trials(deepcopy=False):
                raise Refused(
                    f"the ledger's trials have their files in {known}, not in {home}: give that"
                    " run's --out, or --fresh to begin again here"
                )
            study.set_user_attr("home", home)

    def move_aside(self, suffix: str) -> None:
        """Copy the rows to studies of another name and begin with empty ones (`--fresh`)."""
        for kind, study in self.studies.items():
            name = study.study_name
            optuna.copy_study(
                from_study_name=name,
                from_storage=self.storage,
                to_storage=self.storage,
                to_study_name=f"{name}.{suffix}",
            )
            optuna.delete_study(study_name=name, storage=self.storage)
            self.studies[kind] = optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize"
            )

    def close_interrupted(self) -> list[Row]:
        """Mark what a dead driver left open as failed, and return those rows."""
        open_rows = []
        for kind, study in self.studies.items():
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                open_rows.append(_row(kind, trial))
            # An enqueued row would be served to the next `ask`, whatever that wanted.
            waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            for trial in [*waiting, *study.get_trials(states=(TrialState.RUNNING,))]:
                self.storage.set_trial_user_attr(trial._trial_id, "error", INTERRUPTED)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return open_rows

    def rows(self, kind: Kind) -> list[Row]:
        """The latest attempt at every hash of one kind, in order of first appearance."""
        latest: dict[str, Row] = {}
        for trial in self.studies[kind].get_trials(deepcopy=False):
            row = _row(kind, trial)
            if row.hash and (row.hash not in latest or row.attempt >= latest[row.hash].attempt):
                latest[row.hash] = row
        return list(latest.values())

    def history(self, kind: Kind) -> dict[str, dict[int, float]]:
        """Hash -> epoch -> objective over all attempts, in order of first appearance."""
        values: dict[str, dict[int, float]] = {}
        for trial in self.studies[kind].get_trials(deepcopy=False):
            if "hash" in trial.user_attrs:
                values.setdefault(trial.user_attrs["hash"], {}).update(trial.intermediate_values)
        return values

    def begin(
        self, planned: Planned, attempt: int, spans: Mapping[str, tuple[float, float]]
    ) -> optuna.Trial:
        """Open a row for a planned trial; `spans` holds the least and the greatest level."""
        study = self.studies["grid"]
        params = {k: v for k, v in planned.levels.items() if _is_number(v)}
        study.enqueue_trial(params, user_attrs=_attributes(planned, attempt))
        return study.ask(
            fixed_distributions={k: _linear(v, spans.get(k, (v, v))) for k, v in params.items()}
        )

    def again(self, row: Row) -> optuna.Trial:
        """Open a further attempt at a search trial, at the same point."""
        study = self.studies["search"]
        old = study.get_trials(deepcopy=False)[row.number]
        attributes = {
            k: row.attributes[k]
            for k in ("hash", "cell", "label", "seed", "condition", "levels", "phase", "config")
        }
        study.enqueue_trial(row.params, user_attrs={**attributes, "attempt": row.attempt + 1})
        return study.ask(fixed_distributions=old.distributions)

    def ask(self, ranges: Mapping[str, Range], sampler_seed: int) -> optuna.Trial:
        """A point suggested by TPE, whose row is open; `describe` gives it a name."""
        study = self.studies["search"]
        # Start-up draws come from the sampler's seed alone: a resumed search must not repeat them.
        tried = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=sampler_seed + tried)
        return study.ask(fixed_distributions={k: _distribution(r) for k, r in ranges.items()})

    def describe(self, trial: optuna.Trial, planned: Planned, attempt: int) -> None:
        """Say which trial a suggested row is."""
        for key, value in _attributes(planned, attempt).items():
            trial.set_user_attr(key, value)

    def finish(
        self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any], *, stopped: bool
    ) -> None:
        """Close a row whose trial came to its natural end, or was stopped on the way."""
        self._set(trial, {**attributes, "value": value})
        if stopped:
            self.studies_of(trial).tell(trial, state=TrialState.PRUNED)
        else:
            self.studies_of(trial).tell(trial, value)

    def fail(self, trial: optuna.Trial, error: str, attributes: Mapping[str, Any]) -> None:
        """Close a row whose trial failed."""
        self._set(trial, {**attributes, "error": error})
        self.studies_of(trial).tell(trial, state=TrialState.FAIL)

    def studies_of(self, trial: optuna.Trial) -> optuna.Study:
        """The Optuna study that a row belongs to."""
        return trial.study

    def _set(self, trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            trial.set_user_attr(key, value)


@contextmanager
def one_writer(folder: Path) -> Iterator[None]:
    """Hold the run folder for this driver; the system lets go of it when the driver dies.

    Raises:
        Refused: another driver holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Refused(
            f"another driver is running this study: {folder} is locked. Wait for it, or give"
            " this one another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


_USER_PASSWORD = re.compile(r"(?<=://)([^:/@?]*):.+@")
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """A database URL as it may be shown and stored: no password before the host or after a `?`.

    A password that itself holds `@`, `/` or `:` (it should have been quoted) is hidden whole.
    """
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1:***@", url))


def _attributes(planned: Planned, attempt: int) -> dict[str, Any]:
    return {
        "hash": planned.hash,
        "cell": planned.cell,
        "label": planned.label,
        "seed": planned.trial.seed,
        "condition": planned.trial.condition.name,
        "levels": {k: v for k, v in planned.levels.items() if not _is_number(v)},
        "phase": planned.phase,
        "config": planned.trial.to_json(),
        "attempt": attempt,
    }


def _row(kind: Kind, trial: FrozenTrial) -> Row:
    attributes = dict(trial.user_attrs)
    state = _STATES[trial.state]
    if state == "failed" and attributes.get("error") == INTERRUPTED:
        state = "interrupted"
    return Row(
        hash=attributes.get("hash", ""),
        kind=kind,
        number=trial.number,
        state=state,
        attempt=attributes.get("attempt", 1),
        value=attributes.get("value"),
        params=dict(trial.params),
        values_by_epoch=dict(trial.intermediate_values),
        attributes=attributes,
        started=str(trial.datetime_start or ""),
        ended=str(trial.datetime_complete or ""),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _linear(value: float, span: tuple[float, float]) -> BaseDistribution:
    """A linear range that holds a planned value; levels of 0 and of 1e-6 may stand in one."""
    low, high = min(value, *span), max(value, *span)
    if isinstance(value, int):
        return IntDistribution(int(low), int(high))
    return FloatDistribution(float(low), float(high))


def _distribution(range_: Range) -> BaseDistribution:
    if range_.integer:
        return IntDistribution(int(range_.low), int(range_.high), log=range_.log)
    return FloatDistribution(range_.low, range_.high, log=range_.log)


def _engine_options(storage: str) -> dict[str, Any]:
    """SQLite waits for a slow disk; a server's connection notices a dead network in 30 s."""
    if storage.startswith("sqlite"):
        return {"connect_args": {"timeout": 60, "factory": _Connection}}
    if storage.startswith("postgresql"):
        keep = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5}
        return {"pool_pre_ping": True, "connect_args": {**keep, "keepalives_count": 4}}
    return {"pool_pre_ping": True}


class _Connection(sqlite3.Connection):
    """SQLite with a write-ahead log, which need not wait for the disk at every commit.

    A trial makes about twenty commits; on a busy disk this is 0.05 s a trial in place of 0.3 s. A
    killed process loses nothing; a power cut may lose the last rows but leaves the file whole.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def to_plain(value: Any) -> Any:
    """JSON values from numpy and torch scalars, for attributes."""
    return json.loads(json.dumps(value, default=float))

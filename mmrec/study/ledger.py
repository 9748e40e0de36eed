"""The record of every trial of a study: Optuna studies in one database.

One Optuna study a kind: `grid` holds planned cells (also a search's confirmations), `search` holds
suggestions, since a linear and a logarithmic distribution of one name clash in one study. Optuna's
own plots and optuna-dashboard work on both.

A trial is known by its hash. An attempt that a dead driver left open becomes FAIL "interrupted";
where a hash has several rows, the latest attempt counts.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from mmrec.study.database import Database, Refused, file_of, url_of, without_password
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

# At WARNING it would tell of every read that a lost connection interrupts, and that is tried again.
optuna.logging.set_verbosity(optuna.logging.ERROR)


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

    def __init__(self, storage: str, name: str, *, make: bool = True) -> None:
        """Open the two Optuna studies.

        Args:
            storage: a database URL, such as `sqlite:////runs/x/ledger.db` or
                `postgresql://user@host/database`.
            name: prefix of the Optuna studies' names.
            make: make them where they are not there.

        Raises:
            Refused: the URL is not one of these two, psycopg is not installed, the database does
                not answer, or it has no such studies and none are to be made.
        """
        self.shown = without_password(storage)
        file = file_of(url_of(storage))
        if not make and file is not None and not file.exists():
            raise Refused(f"there is no ledger {self.shown}")
        self.storage = Database(storage)
        self.studies: dict[Kind, optuna.Study] = {
            kind: self._study(f"{name}/{kind}", make=make) for kind in KINDS
        }

    def _study(self, name: str, *, make: bool) -> optuna.Study:
        if make:
            return optuna.create_study(
                storage=self.storage, study_name=name, direction="maximize", load_if_exists=True
            )
        try:
            return optuna.load_study(study_name=name, storage=self.storage)
        except KeyError:
            raise Refused(f"the ledger {self.shown} has no study {name!r}") from None

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
        rows = [
            _row(kind, trial)
            for kind, study in self.studies.items()
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]
        self.storage.together(self._close_open)
        return rows

    def _close_open(self) -> None:
        # An enqueued row would be served to the next `ask`, whatever that wanted.
        still_open = (TrialState.WAITING, TrialState.RUNNING)
        for study in self.studies.values():
            for trial in study.get_trials(deepcopy=False, states=still_open):
                self.storage.set_trial_user_attr(trial._trial_id, "error", INTERRUPTED)
                self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)

    def rows(self, kind: Kind) -> list[Row]:
        """The latest attempt at every hash of one kind, in order of first appearance.

        A lost connection may leave two rows of one attempt: one that ended counts more than one
        that did not.
        """
        latest: dict[str, Row] = {}
        for trial in self.studies[kind].get_trials(deepcopy=False):
            row = _row(kind, trial)
            if row.hash and (row.hash not in latest or _rank(row) >= _rank(latest[row.hash])):
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
        params = {k: v for k, v in planned.levels.items() if _is_number(v)}
        return self._open(
            "grid",
            params,
            {k: _linear(v, spans.get(k, (v, v))) for k, v in params.items()},
            _attributes(planned, attempt),
        )

    def again(self, row: Row) -> optuna.Trial:
        """Open a further attempt at a search trial, at the same point."""
        old = self.studies["search"].get_trials(deepcopy=False)[row.number]
        attributes = {
            k: row.attributes[k]
            for k in ("hash", "cell", "label", "seed", "condition", "levels", "phase", "config")
        }
        attributes["attempt"] = row.attempt + 1
        return self._open("search", row.params, old.distributions, attributes)

    def _open(
        self,
        kind: Kind,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> optuna.Trial:
        """A running row, whole or not at all; `enqueue_trial` and `ask` would be many commits."""
        study = self.studies[kind]
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs=dict(attributes),
        )
        name = (attributes["hash"], attributes["attempt"])

        def create() -> int:
            self.storage.guard()
            return study._storage.create_new_trial(study._study_id, template_trial=template)

        def found() -> int | None:
            running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            ids = [t._trial_id for t in running if _named(t) == name]
            return ids[-1] if ids else None

        return optuna.Trial(study, self.storage.tried(create, found))

    def ask(self, ranges: Mapping[str, Range], sampler_seed: int) -> optuna.Trial:
        """A point suggested by TPE, whose row is open; `describe` gives it a name."""
        self.storage.guard()
        study = self.studies["search"]
        # Start-up draws come from the sampler's seed alone: a resumed search must not repeat them.
        tried = len(study.get_trials(deepcopy=False))
        study.sampler = optuna.samplers.TPESampler(seed=sampler_seed + tried)
        return study.ask(fixed_distributions={k: _distribution(r) for k, r in ranges.items()})

    def describe(self, trial: optuna.Trial, planned: Planned, attempt: int) -> None:
        """Say which trial a suggested row is."""
        self.storage.together(lambda: _set(trial, _attributes(planned, attempt)))

    def finish(
        self, trial: optuna.Trial, value: float, attributes: Mapping[str, Any], *, stopped: bool
    ) -> None:
        """Close a row whose trial came to its natural end, or was stopped on the way."""
        attributes = {**attributes, "value": value}
        if stopped:
            self._close(trial, TrialState.PRUNED, None, attributes)
        else:
            self._close(trial, TrialState.COMPLETE, value, attributes)

    def fail(self, trial: optuna.Trial, error: str, attributes: Mapping[str, Any]) -> None:
        """Close a row whose trial failed."""
        self._close(trial, TrialState.FAIL, None, {**attributes, "error": error})

    def _close(
        self,
        trial: optuna.Trial,
        state: TrialState,
        value: float | None,
        attributes: Mapping[str, Any],
    ) -> None:
        def write() -> bool:
            _set(trial, attributes)
            trial.study.tell(trial, value, state=state)
            return True

        def found() -> bool | None:
            return self.storage.get_trial(trial._trial_id).state == state or None

        self.storage.together(write, found)


def _set(trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        trial.set_user_attr(key, value)


def _named(trial: FrozenTrial) -> tuple[str, int]:
    return trial.user_attrs.get("hash", ""), trial.user_attrs.get("attempt", 1)


def _rank(row: Row) -> tuple[int, bool]:
    return row.attempt, row.state not in ("running", "interrupted", "planned")


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


def to_plain(value: Any) -> Any:
    """JSON values from numpy and torch scalars, for attributes."""
    return json.loads(json.dumps(value, default=float))

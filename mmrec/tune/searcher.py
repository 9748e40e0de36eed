"""Hands out planned trials and Optuna's suggestions, and tells the ledger the truth about each.

Ray's own OptunaSearch calls a stopped trial COMPLETE, leaves a NaN trial RUNNING for ever, refuses
grids and repeats cells; hence this one.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from mmrec.study.ledger import INTERRUPTED, Ledger, Row, to_plain
from mmrec.study.ranges import Range
from mmrec.study.store import Folder
from mmrec.study.study import Planned
from mmrec.tune.live import Live, Watch

MAX_ATTEMPTS = 4
"""A trial whose worker dies is tried this often in one run of the driver."""


class Source(ABC):
    """Where trials come from: a plan, or a search. It outlives the Tuners that draw from it."""

    def __init__(self) -> None:
        self.deaths: dict[str, int] = {}
        """Hash -> how often its worker has died under this driver."""

    @abstractmethod
    def next(self) -> Live | None:
        """A trial whose row in the ledger is open; None when there are no more."""

    @abstractmethod
    def put_back(self, live: Live) -> None:
        """A trial whose worker died is to be tried again."""

    @abstractmethod
    def remaining(self) -> int:
        """How many trials are still to be handed out."""


class Plan(Source):
    """Planned trials in order, without those that the ledger has done."""

    def __init__(
        self,
        ledger: Ledger,
        planned: Iterable[Planned],
        spans: Mapping[str, tuple[float, float]],
        rows: Mapping[str, Row],
    ) -> None:
        """Queue what `rows` (hash -> latest attempt of either kind) does not have."""
        super().__init__()
        self.ledger, self.spans = ledger, spans
        self.queue = deque(
            p for p in planned if not (p.hash in rows and _is_planned_done(rows[p.hash]))
        )
        self.attempts = {name: row.attempt for name, row in rows.items()}

    def next(self) -> Live | None:
        if not self.queue:
            return None
        planned = self.queue.popleft()
        attempt = self.attempts[planned.hash] = self.attempts.get(planned.hash, 0) + 1
        return Live(planned, attempt, self.ledger.begin(planned, attempt, self.spans))

    def put_back(self, live: Live) -> None:
        self.queue.appendleft(live.planned)

    def remaining(self) -> int:
        return len(self.queue)


class Suggestions(Source):
    """Points suggested by TPE until `total` trials have come to an end; interrupted ones first."""

    def __init__(
        self,
        ledger: Ledger,
        ranges: Mapping[str, Range],
        total: int,
        planned_at: Callable[[Mapping[str, Any]], Planned],
    ) -> None:
        super().__init__()
        self.ledger, self.ranges, self.total, self.planned_at = ledger, ranges, total, planned_at
        rows = ledger.rows("search")
        self.ended = sum(row.state in ("done", "stopped") for row in rows)
        self.again = deque(row for row in rows if row.state in ("interrupted", "failed"))
        self.handed_out = 0

    def next(self) -> Live | None:
        if not self.remaining():
            return None
        self.handed_out += 1
        if self.again:
            row = self.again.popleft()
            return Live(self.planned_at(row.params), row.attempt + 1, self.ledger.again(row))
        trial = self.ledger.ask(self.ranges, sampler_seed=0)
        planned = self.planned_at(trial.params)
        self.ledger.describe(trial, planned, attempt=1)
        return Live(planned, 1, trial)

    def put_back(self, live: Live) -> None:
        self.handed_out -= 1
        rows = {row.hash: row for row in self.ledger.rows("search")}
        self.again.appendleft(rows[live.planned.hash])

    def remaining(self) -> int:
        return max(0, self.total - self.ended - self.handed_out)


def _is_planned_done(row: Row) -> bool:
    """Whether a planned trial needs no further attempt; what failed is tried again.

    A search's early stop says nothing about the same trial when it is planned: it is run on.
    """
    return row.state == "done" or (row.state == "stopped" and row.kind == "grid")


class LedgerSearcher(Searcher):
    """Between Tune and the ledger.

    After a worker's death Tune would run all later trials one at a time (measured): so this stops
    suggesting, lets the others end, and the driver starts a new Tuner for what is missing.
    """

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        folder: Folder,
        *,
        milestones: frozenset[int],
        stride: int,
        watch: Watch,
    ) -> None:
        super().__init__(metric="objective", mode="max")
        self.source, self.ledger, self.folder, self.watch = source, ledger, folder, watch
        self.milestones, self.stride = milestones, stride
        self.live: dict[str, Live] = {}
        self.lost: dict[str, Live] = {}
        """Trials whose worker died, until `lost_because`."""
        self.draining = False

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """A trial's config, or FINISHED; Ray annotates the base method without the latter."""
        if self.draining or self.watch.enough():
            return Searcher.FINISHED
        live = self.source.next()
        if live is None:
            return Searcher.FINISHED
        name = live.planned.hash
        self.folder.write(f"trials/{name}/attempt", str(live.attempt).encode())
        self.live[trial_id] = live
        self.watch.started(live)
        return {
            "hash": name,
            "attempt": live.attempt,
            "trial": live.planned.trial.to_json(),
            "parent": live.planned.parent,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        live = self.live[trial_id]
        live.last = result
        for epoch, value in result.get("curve", ()):
            if epoch in self.milestones or epoch % self.stride == 0:
                self._tell(live, epoch, value)
        self.watch.reported(live)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        live = self.live.pop(trial_id)
        if result and not error:
            self.live[trial_id] = live
            self.on_trial_result(trial_id, result)  # the last result reaches only this method
            self.live.pop(trial_id)
        if error or not live.last:
            self.draining = True
            self.lost[trial_id] = live  # why, Tune tells next, and only a callback
        elif "error" in live.last:
            self.ledger.fail(live.row, live.last["error"], _facts(live.last))
            self.watch.ended(live, "failed")
        else:
            self._close(live)

    def _close(self, live: Live) -> None:
        last = live.last
        stopped = not last["finished"]
        self._tell(live, last["epoch"], last["objective"])
        self.ledger.finish(live.row, last["best"], _facts(last), stopped=stopped)
        if stopped:
            self.folder.remove(f"trials/{live.planned.hash}/state.pt")
        self.watch.ended(live, "stopped" if stopped else "done")

    def lost_because(self, trial_id: str, cause: str) -> None:
        """A worker died: nothing is known but the last report; its checkpoint is on disk."""
        live = self.lost.pop(trial_id)
        live.last["error"] = f"the worker died: {cause}"
        self.ledger.fail(live.row, live.last["error"], _facts(live.last))
        name, deaths = live.planned.hash, self.source.deaths
        deaths[name] = deaths.get(name, 0) + 1
        if deaths[name] < MAX_ATTEMPTS:
            self.source.put_back(live)
            self.watch.ended(live, "retried")
        else:
            self.watch.ended(live, "failed")

    def _tell(self, live: Live, epoch: int, value: float) -> None:
        if epoch not in live.told:
            live.told.add(epoch)
            live.row.report(value, epoch)

    def abandon(self) -> None:
        """Close the rows of trials that an interrupt left in the middle; their state is kept."""
        for live in self.live.values():
            self.ledger.fail(live.row, INTERRUPTED, _facts(live.last))
        self.live.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher into a snapshot that nobody reads."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""


class Causes(Callback):
    """Tune tells a searcher that a trial failed, but tells only a callback why."""

    def __init__(self, searcher: LedgerSearcher) -> None:
        self.searcher = searcher

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        lines = str(trial.get_error()).strip().splitlines()
        self.searcher.lost_because(trial.trial_id, lines[-1][:300] if lines else "unknown cause")


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result's numbers as the ledger keeps them."""
    names = ("best_epoch", "seconds", "host", "hardware", "device", "threads", "torch")
    facts = {name: to_plain(result[name]) for name in names if name in result}
    pairs = ("valid", "cost", "measures")
    facts |= {name: dict(result[name]) for name in pairs if name in result}
    if "epoch" in result:
        facts["epochs"] = result["epoch"]
    return facts

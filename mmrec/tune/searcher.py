"""Hands out planned trials and Optuna's suggestions, and tells the ledger the truth about each.

Ray's own OptunaSearch calls a stopped trial COMPLETE, leaves a NaN trial RUNNING for ever, refuses
grids and repeats cells; hence this one.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray.tune.search import Searcher

from mmrec.study.database import Refused
from mmrec.study.ledger import INTERRUPTED, Ledger, Row, to_plain
from mmrec.study.ranges import Range
from mmrec.study.store import Folder, StorageFailed
from mmrec.study.study import Planned
from mmrec.tune.live import Live, Watch
from mmrec.tune.mishaps import Death, Mishaps
from mmrec.tune.watchdog import stuck_file


class Source(ABC):
    """Where trials come from: a plan, or a search. It outlives the Tuners that draw from it."""

    def __init__(self) -> None:
        self.mishaps = Mishaps()
        self.aside: list[Live] = []
        """Trials that ran out of memory, to be tried once more, alone."""
        self.alone = False
        """Whether trials are handed out one at a time from now on."""

    @abstractmethod
    def next(self) -> Live | None:
        """A trial whose row in the ledger is open; None when there are no more."""

    @abstractmethod
    def put_back(self, live: Live) -> None:
        """A trial whose worker died is to be tried again."""

    @abstractmethod
    def remaining(self) -> int:
        """How many trials are still to be handed out, without those put aside."""

    def more(self) -> bool:
        """Whether there are any; those put aside come when all others have ended."""
        if not self.remaining() and self.aside:
            self.alone = True
            for live in self.aside:
                self.put_back(live)
            self.aside.clear()
        return self.remaining() > 0


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
    """Between Tune and the ledger."""

    def __init__(
        self,
        source: Source,
        ledger: Ledger,
        folder: Folder,
        *,
        milestones: frozenset[int],
        stride: int,
        watch: Watch,
        most: Callable[[], int],
        nodes: Callable[[], set[str]],
        stall_seconds: float = 0.0,
    ) -> None:
        """Hand out nothing yet.

        Args:
            source: where trials come from.
            ledger: where their rows are.
            folder: the run folder.
            milestones: epochs at which trials are compared.
            stride: of the other epochs every so many reach the ledger.
            watch: told of all that happens.
            most: how many trials may be under way now.
            nodes: those that are large enough for a trial, by Ray's ids.
            stall_seconds: after which a worker's watchdog ends it; 0: never.
        """
        super().__init__(metric="objective", mode="max")
        self.source, self.ledger, self.folder, self.watch = source, ledger, folder, watch
        self.milestones, self.stride, self.stall_seconds = milestones, stride, stall_seconds
        self.mishaps, self.most, self.nodes = source.mishaps, most, nodes
        self.live: dict[str, Live] = {}
        self.deaths: dict[str, Death] = {}
        """Of trials that Tune is about to tell of."""

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any
    ) -> bool:
        return True

    def suggest(self, trial_id: str) -> Any:
        """A trial's config, FINISHED, or None where there is no room for one now."""
        if self.mishaps.halted or self.watch.enough():
            return Searcher.FINISHED
        if len(self.live) >= self.most():
            return None  # not now
        with self._halting():
            live = self.source.next()
            if live is not None:
                return self._handed_out(trial_id, live)
        return Searcher.FINISHED

    def _handed_out(self, trial_id: str, live: Live) -> dict[str, Any]:
        self.live[trial_id] = live
        name = live.planned.hash
        self.folder.write(f"trials/{name}/attempt", str(live.attempt).encode())
        self.watch.started(live)
        return {
            "hash": name,
            "attempt": live.attempt,
            "trial": live.planned.trial.to_json(),
            "parent": live.planned.parent,
            "avoid": sorted(self.mishaps.avoid),
        }

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """What ends a study is kept for the driver: Tune would make a text of it."""
        try:
            yield
        except (Refused, StorageFailed) as error:
            self.mishaps.halt(error)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._halting():
            self._heard(self.live[trial_id], result)

    def _heard(self, live: Live, result: dict[str, Any]) -> None:
        live.last, live.heard = result, time.monotonic()
        for epoch, value in result.get("curve", ()):
            if epoch in self.milestones or epoch % self.stride == 0:
                self._tell(live, epoch, value)
        self.watch.reported(live)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        live = self.live[trial_id]
        with self._halting():
            if result and not error:
                self._heard(live, result)  # the last result reaches only this method
            if error:
                self._lost(live, self.deaths.pop(trial_id))
            elif not live.last:
                return  # ended from outside before it began: `abandon` closes its row
            elif "error" in live.last:
                self._failed(live)
            else:
                self._close(live)
            del self.live[trial_id]

    def _close(self, live: Live) -> None:
        last = live.last
        stopped = not last["finished"]
        self._tell(live, last["epoch"], last["objective"])
        self.ledger.finish(live.row, last["best"], _facts(last), stopped=stopped)
        if stopped:
            self.folder.remove(f"trials/{live.planned.hash}/state.pt")
        self.watch.ended(live, "stopped" if stopped else "done")

    def _failed(self, live: Live) -> None:
        """A worker told of an error: what is done depends on whose fault it is."""
        fault, why = live.last["fault"], live.last["error"]
        if fault == "storage":
            self.mishaps.halt(StorageFailed(why))
            self._record(live, INTERRUPTED, "interrupted")
        elif fault == "node":
            self._record(live, why, "retried")
            self.source.put_back(live)
            self._avoid(live.last["node"], why)
        elif fault == "memory":
            self._starved(live)
        else:
            self._record(live, why, "failed")

    def _avoid(self, node: str, why: str) -> None:
        self.mishaps.avoid[node] = why
        if not self.nodes() - set(self.mishaps.avoid):
            reasons = "; ".join(self.mishaps.avoid.values())
            self.mishaps.halt(Refused(f"no node is left that can run a trial: {reasons}"))

    def died_of(self, trial_id: str, death: Death) -> None:
        """What a trial's worker died of; that it died, Tune tells next."""
        self.deaths[trial_id] = death

    def _lost(self, live: Live, death: Death) -> None:
        """Nothing is known of it but the last report; its checkpoint is on disk."""
        live.last["error"] = f"the worker died: {self._hung(live) or death.cause}"
        if death.starved:
            self._starved(live)
        elif self.mishaps.died(live):
            self._record(live, live.last["error"], "retried")
            self.source.put_back(live)
        else:
            self._record(live, live.last["error"], "failed")

    def _hung(self, live: Live) -> str | None:
        """What to say of a worker that its watchdog has ended."""
        file = f"trials/{live.planned.hash}/{stuck_file(live.attempt)}"
        if not self.folder.is_local:
            hung = 0 < self.stall_seconds <= time.monotonic() - live.heard
            where = "the worker's log on its node"
        else:
            hung = self.folder.exists(file) and bool(self.folder.read(file))
            if not hung:  # of a worker that died in another way
                self.folder.remove(file)
            where = f"{self.folder.address}/{file}"
        if not hung:
            return None
        return (
            f"no epoch ended within {self.stall_seconds / 60:g} minutes (--stall-minutes), so its"
            f" watchdog ended it; where it hung stands in {where}"
        )

    def _starved(self, live: Live) -> None:
        if self.mishaps.starved(live):
            self._record(live, f"out of memory: {live.last['error']}", "aside")
            self.source.aside.append(live)
        else:
            why = f"out of memory twice, the second time alone: {live.last['error']}"
            self._record(live, why, "failed")

    def _record(self, live: Live, why: str, how: str) -> None:
        self.ledger.fail(live.row, why, _facts(live.last))
        self.watch.ended(live, how)

    def _tell(self, live: Live, epoch: int, value: float) -> None:
        if epoch not in live.told:
            live.told.add(epoch)
            live.row.report(value, epoch)

    def abandon(self) -> None:
        """Close the rows of trials that an interrupt left in the middle; their state is kept."""
        with self._halting():
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


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result's numbers as the ledger keeps them."""
    names = ("best_epoch", "seconds", "host", "hardware", "device", "threads", "torch")
    facts = {name: to_plain(result[name]) for name in names if name in result}
    pairs = ("valid", "cost", "measures")
    facts |= {name: dict(result[name]) for name in pairs if name in result}
    if "epoch" in result:
        facts["epochs"] = result["epoch"]
    return facts

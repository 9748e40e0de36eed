"""What a trial asks of the driver, however many came before: counted, not timed."""

import itertools
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import event

from mmrec.study.ledger import Ledger
from mmrec.study.store import Folder
from tests.study.fabricated import SPANS, facts, plan

pytestmark = pytest.mark.slow  # ray.tune alone takes seconds to import

MANY = 80


def result(number: int) -> dict[str, Any]:
    """What a worker tells at a trial's natural end."""
    value = 1 / (2 + number)
    told = facts(value, epoch=1)
    pairs = {name: list(told[name].items()) for name in ("valid", "measures")}
    ended = {"epoch": 1, "objective": value, "best": value, "curve": [(1, value)]}
    return {**told, **pairs, **ended, "finished": True, "done": True}


def counted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts what reaches the database, rows that come back, and readings of all trials."""
    counts: Counter[str] = Counter()

    def row_came(cursor: Any, row: tuple[Any, ...]) -> tuple[Any, ...]:
        del cursor
        counts["rows"] += 1
        return row

    def connected(connection: Any, record: Any) -> None:
        del record
        connection.row_factory = row_came

    def sent(*_: Any) -> None:
        counts["statements"] += 1

    engine = ledger.storage.engine
    event.listen(engine, "connect", connected)
    event.listen(engine, "before_cursor_execute", sent)
    engine.dispose()  # connections from now on are counted
    for name in ("rows", "history"):
        read = getattr(Ledger, name)

        def reading(*given: Any, read: Any = read) -> Any:
            counts["readings"] += 1
            return read(*given)

        monkeypatch.setattr(Ledger, name, reading)
    return counts


def test_a_planned_trial_asks_the_same_of_the_ledger_however_many_came_before(
    tmp_path, monkeypatch
):
    from mmrec.tune.searcher import LedgerSearcher, Plan
    from mmrec.tune.status import Status

    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", "made_up")
    planned = plan(seeds=MANY // 5)
    assert len(planned) == MANY
    source = Plan(ledger, planned, SPANS, rows={})
    watch = Status(planned=MANY, done=0, epochs=1)
    searcher = LedgerSearcher(
        source,
        ledger,
        Folder.at(tmp_path),
        milestones=frozenset(),
        stride=1,
        watch=watch,
        most=lambda: MANY,
        nodes=lambda: {"here"},
    )
    counts = counted(ledger, monkeypatch)
    costs = []
    for number in range(MANY):
        before = counts.copy()
        assert searcher.suggest(str(number))["hash"] == planned[number].hash
        searcher.on_trial_result(str(number), result(number))
        searcher.on_trial_complete(str(number), result(number))
        costs.append(counts - before)
    assert counts["readings"] == 0
    assert (ledger.rows("grid")[-1].state, watch.done) == ("done", MANY)
    first, last = costs[2], costs[MANY - 5 + 2]  # of the same cell: so many numbers to write
    assert first["rows"] > 0
    assert last == first


def test_the_next_trial_among_those_alive_is_the_one_that_ray_finds_among_all():
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import FIFOScheduler

    from mmrec.tune.asha import InOrder

    states = (Trial.PENDING, Trial.RUNNING, Trial.PAUSED, Trial.TERMINATED, Trial.ERROR)
    ended = (Trial.TERMINATED, Trial.ERROR)
    for statuses in itertools.product(states, repeat=4):
        trials = [
            SimpleNamespace(trial_id=f"a_{n:05}", status=status)
            for n, status in enumerate(statuses)
        ]
        alive = [trial for trial in reversed(trials) if trial.status not in ended]
        everything: Any = SimpleNamespace(get_trials=lambda found=trials: found)
        living: Any = SimpleNamespace(get_live_trials=lambda found=alive: found)
        found = InOrder().choose_trial_to_run(living)
        assert found is FIFOScheduler().choose_trial_to_run(everything)

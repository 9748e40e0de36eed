"""What becomes of trials whose workers fail: told as Tune tells it, read in the ledger."""

from pathlib import Path
from typing import Any

import pytest

from mmrec.study.ledger import Ledger, Refused
from mmrec.study.store import Folder, StorageFailed
from mmrec.tune.live import Live, Watch
from mmrec.tune.mishaps import MAX_ATTEMPTS, Death
from tests.study.fabricated import OBJECTIVE, SPANS, facts, plan

pytestmark = pytest.mark.slow  # ray.tune alone takes seconds to import


class Ends(Watch):
    """Remembers how trials came to an end."""

    def __init__(self) -> None:
        self.ends: list[str] = []

    def enough(self) -> bool:
        return False

    def started(self, live: Live) -> None: ...

    def reported(self, live: Live) -> None: ...

    def ended(self, live: Live, how: str) -> None:
        self.ends.append(how)


class Driver:
    """A searcher over the first planned trials, and Tune's part of the conversation."""

    def __init__(self, path: Path, trials: int = 2, nodes: str = "ab") -> None:
        from mmrec.tune.searcher import LedgerSearcher, Plan

        self.ledger = Ledger(f"sqlite:///{path / 'ledger.db'}", "a study")
        self.folder, self.watch = Folder.at(path), Ends()
        self.source = Plan(self.ledger, plan()[:trials], SPANS, {})
        self.searcher = LedgerSearcher(
            self.source, self.ledger, self.folder, milestones=frozenset(), stride=1,
            watch=self.watch, most=lambda: 2, nodes=lambda: set(nodes), stall_seconds=60,
        )  # fmt: skip
        self.count = 0

    def ask(self) -> tuple[str, Any]:
        self.count += 1
        return str(self.count), self.searcher.suggest(str(self.count))

    def run(self, **told: Any) -> dict[str, Any]:
        """One trial, from its being handed out to its only result."""
        name, config = self.ask()
        self.searcher.on_trial_complete(name, told)
        return config

    def lose(self, death: Death) -> dict[str, Any]:
        """One trial, whose worker dies."""
        name, config = self.ask()
        self.searcher.died_of(name, death)
        self.searcher.on_trial_complete(name, error=True)
        return config

    def states(self) -> list[tuple[str, int]]:
        return [(row.state, row.attempt) for row in self.ledger.rows("grid")]


DONE = {
    **facts(0.5), "epoch": 10, "objective": 0.5, "best": 0.5, "finished": True,
    "valid": [(OBJECTIVE, 0.5)], "measures": [], "curve": [(10, 0.5)],
}  # fmt: skip


def failed(fault: str, error: str = "what went wrong") -> dict[str, Any]:
    return {"done": True, "finished": False, "error": error, "fault": fault, "node": "a"}


def test_a_trials_own_error_is_final_and_the_next_one_goes_on(tmp_path):
    driver = Driver(tmp_path)
    driver.run(**failed("trial", "loss is nan"))
    driver.run(**DONE)
    assert driver.states() == [("failed", 1), ("done", 1)]
    assert driver.ledger.rows("grid")[0].attributes["error"] == "loss is nan"
    assert not driver.source.more()


def test_a_dead_workers_trial_comes_next_and_is_given_up_in_the_end(tmp_path):
    driver = Driver(tmp_path, trials=1)
    lost = [driver.lose(Death("its node has died"))["attempt"] for _ in range(MAX_ATTEMPTS)]
    assert lost == [1, 2, 3, 4]
    assert driver.watch.ends == ["retried"] * 3 + ["failed"]
    assert driver.states() == [("failed", 4)]
    assert "its node has died" in driver.ledger.rows("grid")[0].attributes["error"]
    assert not driver.source.more()


@pytest.mark.parametrize("starved", ["by Ray's monitor", "by its own allocation"])
def test_a_want_of_memory_is_tried_once_more_alone_after_all_others(tmp_path, starved):
    driver = Driver(tmp_path)

    def want() -> dict[str, Any]:
        if starved == "by Ray's monitor":
            return driver.lose(Death("the node ran low", starved=True))
        return driver.run(**failed("memory", "CUDA out of memory"))

    hungry = want()["hash"]
    assert driver.run(**DONE)["hash"] != hungry
    assert not driver.source.alone
    assert driver.source.more()
    assert driver.source.alone
    assert want()["hash"] == hungry
    assert driver.watch.ends == ["aside", "done", "failed"]
    assert driver.states() == [("failed", 2), ("done", 1)]
    assert "out of memory twice" in driver.ledger.rows("grid")[0].attributes["error"]
    assert not driver.source.more()


def test_a_node_with_other_code_is_avoided_and_no_attempt_is_counted_against_the_trial(tmp_path):
    driver = Driver(tmp_path, trials=1)
    assert driver.run(**failed("node", "a has mmrec 0.0"))["avoid"] == []
    for _ in range(MAX_ATTEMPTS - 1):
        assert driver.lose(Death("its node has died"))["avoid"] == ["a"]
    assert driver.watch.ends[-1] == "retried"
    assert driver.run(**DONE)["avoid"] == ["a"]
    assert driver.states() == [("done", MAX_ATTEMPTS + 1)]


def test_where_no_node_is_left_the_study_ends_and_says_why(tmp_path):
    driver = Driver(tmp_path, nodes="a")
    driver.run(**failed("node", "host a has mmrec 0.0"))
    assert driver.ask()[1] == "FINISHED"
    assert isinstance(driver.searcher.mishaps.halted, Refused)
    assert "host a has mmrec 0.0" in str(driver.searcher.mishaps.halted)


def test_no_more_are_handed_out_than_there_is_room_for(tmp_path):
    driver = Driver(tmp_path, trials=4)
    (first, _), _ = driver.ask(), driver.ask()
    assert driver.ask()[1] is None
    driver.searcher.on_trial_complete(first, dict(DONE))
    assert isinstance(driver.ask()[1], dict)
    assert driver.ask()[1] is None


def test_a_full_disk_ends_the_study_and_fails_no_trial(tmp_path):
    driver = Driver(tmp_path)
    driver.ask()
    driver.run(**failed("storage", "no space left"))
    assert driver.ask()[1] == "FINISHED"
    driver.searcher.abandon()
    assert isinstance(driver.searcher.mishaps.halted, StorageFailed)
    assert driver.states() == [("interrupted", 1), ("interrupted", 1)]


def test_what_ends_the_study_in_the_drivers_own_hands_reaches_it_as_it_is(tmp_path, monkeypatch):
    driver = Driver(tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise StorageFailed("the ledger is on a full disk")

    monkeypatch.setattr(driver.ledger, "finish", full)
    driver.run(**DONE)
    assert str(driver.searcher.mishaps.halted) == "the ledger is on a full disk"
    assert driver.ask()[1] == "FINISHED"


def test_a_watchdogs_traceback_is_named_and_an_empty_one_is_another_death(tmp_path):
    driver = Driver(tmp_path, trials=1)
    name = plan()[0].hash
    driver.folder.write(f"trials/{name}/stuck-1.txt", b"")
    driver.lose(Death("its process was killed"))
    assert "its process was killed" in driver.ledger.rows("grid")[0].attributes["error"]
    assert not driver.folder.exists(f"trials/{name}/stuck-1.txt")
    driver.folder.write(f"trials/{name}/stuck-2.txt", b"Timeout!")
    driver.lose(Death("its process has exited"))
    error = driver.ledger.rows("grid")[0].attributes["error"]
    assert "no epoch ended within 1 minutes" in error
    assert f"trials/{name}/stuck-2.txt" in error

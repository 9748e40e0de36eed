"""The record of trials: what Optuna holds after drivers that ended well and badly."""

import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState

from mmrec.study.ledger import INTERRUPTED, Ledger, Refused, one_writer, without_password
from mmrec.study.ranges import Range
from tests.study.fabricated import ALPHA, DEPTH, SPANS, facts, finish, plan, searched

RANGES = {ALPHA: Range(1e-6, 1.0, log=True), DEPTH: Range(2, 16, integer=True)}


def states(ledger, kind="grid") -> list[TrialState]:
    return [trial.state for trial in ledger.studies[kind].get_trials()]


def test_a_finished_trial_is_there_for_the_next_driver(tmp_path):
    first, storage = plan()[0], f"sqlite:///{tmp_path / 'ledger.db'}"
    finish(Ledger(storage, "x"), first, 0.25)
    assert Ledger(storage, "another study").rows("grid") == []
    (row,) = Ledger(storage, "x").rows("grid")
    assert (row.hash, row.state, row.value, row.attempt) == (first.hash, "done", 0.25, 1)
    assert row.params == {ALPHA: 0.0, DEPTH: 4}
    assert row.attributes["cell"] == first.cell
    assert row.attributes["valid"] == {"ndcg@10": 0.25, "recall@20": 0.5}
    assert row.seconds == 1.5
    assert row.started <= row.ended
    assert Ledger(storage, "x").rows("search") == []


def test_levels_of_zero_and_nearly_zero_stand_in_one_study_that_optuna_can_read(open_ledger):
    ledger = open_ledger()
    for planned, value in zip(plan(), (0.1, 0.2, 0.5, 0.4, 0.9), strict=True):
        finish(ledger, planned, value)
    frame = ledger.studies["grid"].trials_dataframe()
    assert list(frame[f"params_{ALPHA}"][:4]) == [0.0, 0.0, 1e-6, 1e-6]
    assert list(frame[f"params_{DEPTH}"][:4]) == [4, 8, 4, 8]
    assert frame[f"params_{ALPHA}"].isna()[4]
    assert list(frame["value"]) == [0.1, 0.2, 0.5, 0.4, 0.9]
    assert ledger.studies["grid"].best_trial.user_attrs["label"] == "MF"


def test_a_wider_span_of_a_later_driver_is_taken(open_ledger):
    finish(open_ledger(), plan()[0], 0.1)
    ledger = open_ledger()
    wide = searched(5.0, dim=64)
    row = ledger.begin(wide, 1, {ALPHA: (0.0, 5.0), DEPTH: (4.0, 64.0)})
    ledger.finish(row, 0.2, facts(0.2), stopped=False)
    assert [row.params[ALPHA] for row in ledger.rows("grid")] == [0.0, 5.0]


@pytest.mark.slow
def test_grid_and_search_stand_side_by_side(open_ledger):
    ledger = open_ledger()
    for planned in plan()[:3]:
        finish(ledger, planned, 0.1)
    for _ in range(3):
        trial = ledger.ask(RANGES, sampler_seed=0)
        ledger.describe(trial, searched(trial.params[ALPHA], trial.params[DEPTH]), 1)
        ledger.finish(trial, 0.2, facts(0.2), stopped=False)
    finish(ledger, plan()[3], 0.1)
    assert [len(ledger.rows(kind)) for kind in ("grid", "search")] == [4, 3]
    for row in ledger.rows("search"):
        assert 1e-6 <= row.params[ALPHA] <= 1.0
        assert isinstance(row.params[DEPTH], int)
        assert row.hash == searched(row.params[ALPHA], row.params[DEPTH]).hash
    assert {row.attributes["phase"] for row in ledger.rows("search")} == {"search"}


@pytest.mark.slow
def test_a_resumed_search_does_not_repeat_its_draws(open_ledger):
    points = []
    for _ in range(4):  # each a driver of its own
        ledger = open_ledger()
        trial = ledger.ask(RANGES, sampler_seed=0)
        ledger.describe(trial, searched(trial.params[ALPHA], trial.params[DEPTH]), 1)
        ledger.finish(trial, 0.2, facts(0.2), stopped=False)
        points.append(tuple(trial.params.values()))
    assert len(set(points)) == 4


def test_what_a_dead_driver_left_open_is_interrupted(open_ledger):
    dead = open_ledger()
    done, running, asked = plan()[0], plan()[1], searched(0.5)
    finish(dead, done, 0.1)
    dead.begin(running, 1, SPANS).report(0.05, 3)
    dead.describe(dead.ask(RANGES, sampler_seed=0), asked, 1)
    dead.studies["search"].enqueue_trial({ALPHA: 0.123, DEPTH: 3})

    ledger = open_ledger()
    left = ledger.close_interrupted()
    assert {row.hash for row in left} == {running.hash, asked.hash}
    assert states(ledger) == [TrialState.COMPLETE, TrialState.FAIL]
    assert states(ledger, "search") == [TrialState.FAIL, TrialState.FAIL]
    rows = {row.hash: row for row in ledger.rows("grid")}
    assert rows[running.hash].state == "interrupted"
    assert rows[running.hash].attributes["error"] == INTERRUPTED
    assert rows[running.hash].values_by_epoch == {3: 0.05}
    assert rows[done.hash].state == "done"
    assert [row.state for row in ledger.rows("search")] == ["interrupted"]
    assert ledger.ask(RANGES, sampler_seed=0).params[ALPHA] != 0.123
    assert ledger.close_interrupted()[0].number == 2  # only what was asked for since


def test_a_failure_of_the_trials_own_is_not_an_interruption(open_ledger):
    ledger = open_ledger()
    row = ledger.begin(plan()[0], 1, SPANS)
    ledger.fail(row, "epoch 3: a NaN", {"host": "there"})
    (found,) = ledger.rows("grid")
    assert (found.state, found.value) == ("failed", None)
    assert found.attributes["error"] == "epoch 3: a NaN"
    assert ledger.close_interrupted() == []


def test_a_stopped_trial_keeps_its_best_value_and_is_pruned_for_optuna(open_ledger):
    ledger = open_ledger()
    row = ledger.begin(plan()[0], 1, SPANS)
    for epoch, value in ((1, 0.1), (2, 0.3), (3, 0.2)):
        row.report(value, epoch)
    ledger.finish(row, 0.3, facts(0.3, epoch=2), stopped=True)
    (found,) = ledger.rows("grid")
    assert (found.state, found.value) == ("stopped", 0.3)
    assert found.values_by_epoch == {1: 0.1, 2: 0.3, 3: 0.2}
    assert states(ledger) == [TrialState.PRUNED]


def test_the_latest_attempt_counts(open_ledger):
    one, two = plan()[:2]
    ledger = open_ledger()
    ledger.fail(ledger.begin(one, 1, SPANS), "worker died", {})
    finish(ledger, two, 0.2)
    finish(ledger, one, 0.1, attempt=2)
    rows = open_ledger().rows("grid")
    assert [(row.hash, row.attempt, row.state) for row in rows] == [
        (one.hash, 2, "done"),
        (two.hash, 1, "done"),
    ]


def test_epochs_of_all_attempts_make_one_history(open_ledger):
    one, two = plan()[:2]
    ledger = open_ledger()
    first = ledger.begin(one, 1, SPANS)
    first.report(0.1, 1)
    first.report(0.2, 2)
    ledger.fail(first, "worker died", {})
    ledger.begin(two, 1, SPANS).report(0.9, 1)
    ledger.begin(one, 2, SPANS).report(0.3, 3)
    history = open_ledger().history("grid")
    assert history == {one.hash: {1: 0.1, 2: 0.2, 3: 0.3}, two.hash: {1: 0.9}}
    assert list(history) == [one.hash, two.hash]


def test_a_search_trial_is_tried_again_at_its_own_point(open_ledger):
    ledger = open_ledger()
    trial = ledger.ask(RANGES, sampler_seed=0)
    point = dict(trial.params)
    ledger.describe(trial, searched(point[ALPHA], point[DEPTH]), 1)
    ledger.close_interrupted()
    (row,) = ledger.rows("search")
    again = open_ledger().again(row)
    assert again.params == point
    (found,) = ledger.rows("search")
    assert (found.hash, found.attempt, found.state) == (row.hash, 2, "running")
    assert found.attributes["config"] == row.attributes["config"]


# --- one writer


HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_driver_is_refused_until_the_first_is_killed(tmp_path):
    with one_writer(tmp_path):  # makes the lock's file
        lock = tmp_path / ".lock"
        words = [sys.executable, "-c", HOLD, str(lock)]
        assert b"BlockingIOError" in subprocess.run(words, capture_output=True, check=False).stderr
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match=f"{tmp_path} is locked"), one_writer(tmp_path):
            raise AssertionError("two drivers at once")
        other.kill()
        other.wait()
        with one_writer(tmp_path):
            pass


def test_the_lock_is_let_go_when_a_driver_fails(tmp_path: Path):
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path / "new" / "folder"):
        raise ZeroDivisionError
    with one_writer(tmp_path / "new" / "folder"):
        pass


# --- passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////runs/ledger.db", "sqlite:////runs/ledger.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://me:S3CRET@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:S3CRET@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://:S3CRET@host/db", "postgresql://:***@host/db"),
        ("mysql://me:S3@CRET@host/db", "mysql://me:***@host/db"),
        ("mysql://me:S3/CR:ET?@host/db", "mysql://me:***@host/db"),
        ("--storage=postgresql://me:S3CRET@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=S3CRET", "postgresql://me@host/db?password=***"),
        (
            "postgresql:///db?host=h&user=me&password=S3CRET&sslmode=require",
            "postgresql:///db?host=h&user=me&password=***&sslmode=require",
        ),
        ("mysql://h/db?Passwd=S3CRET&charset=utf8", "mysql://h/db?Passwd=***&charset=utf8"),
        ("postgresql://h/db?sslpassword=S3CRET", "postgresql://h/db?sslpassword=***"),
        (
            "postgresql://me:S3CRET@h/db?password=S3CRET&passfile=x",
            "postgresql://me:***@h/db?password=***&passfile=***",
        ),
        ("model.alpha=[0.1, 0.2]", "model.alpha=[0.1, 0.2]"),
    ],
)
def test_a_password_is_never_shown(url, shown):
    assert without_password(url) == shown
    assert "S3" not in shown

"""The record of trials: what Optuna holds after drivers that ended well and badly."""

import pytest
from optuna.trial import TrialState

from mmrec.study.ledger import INTERRUPTED
from mmrec.study.ranges import Range
from tests.study.fabricated import ALPHA, DEPTH, SPANS, facts, finish, plan, searched

RANGES = {ALPHA: Range(1e-6, 1.0, log=True), DEPTH: Range(2, 16, integer=True)}


def states(ledger, kind="grid") -> list[TrialState]:
    return [trial.state for trial in ledger.studies[kind].get_trials()]


def test_a_finished_trial_is_there_for_the_next_driver(open_ledger):
    first = plan()[0]
    finish(open_ledger(), first, 0.25)
    assert open_ledger("another study").rows("grid") == []
    (row,) = open_ledger().rows("grid")
    assert (row.hash, row.state, row.value, row.attempt) == (first.hash, "done", 0.25, 1)
    assert row.params == {ALPHA: 0.0, DEPTH: 4}
    assert row.attributes["cell"] == first.cell
    assert row.attributes["valid"] == {"ndcg@10": 0.25, "recall@20": 0.5}
    assert row.seconds == 1.5
    assert row.started <= row.ended
    assert open_ledger().rows("search") == []


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

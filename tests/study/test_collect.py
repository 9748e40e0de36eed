"""Selection and the tables: what looks at test, and when."""

import dataclasses
import io
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmrec.study import collect
from mmrec.study.finish import tables_of
from mmrec.study.store import Folder
from mmrec.study.trials import Trial
from tests.study.fabricated import (
    ALPHA,
    DEPTH,
    OBJECTIVE,
    SETTING,
    SPANS,
    STUDY,
    facts,
    finish,
    plan,
    searched,
    write_files,
)

VALID, TEST = f"valid.{OBJECTIVE}", f"test.{OBJECTIVE}"


def table(cells: dict[str, list[float]], phase: str = "grid") -> pd.DataFrame:
    """Finished trials: cell -> validation objective of each seed."""
    rows = [
        {"cell": cell, "seed": seed, "state": "done", "phase": phase, VALID: value}
        for cell, values in cells.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows).sort_values("seed", kind="stable", ignore_index=True)


# --- selection


def test_the_best_mean_over_seeds_is_selected():
    trials = table({"a": [0.1, 0.5], "b": [0.35, 0.35], "c": [0.2, 0.2]})
    assert collect.select(trials, OBJECTIVE) == "b"


def test_of_equal_cells_the_first_planned_is_selected():
    trials = table({"z": [0.5, 0.25], "a": [0.25, 0.5], "b": [0.1, 0.1]})
    assert collect.select(trials, OBJECTIVE) == "z"


def test_a_lucky_single_seed_is_no_best_cell():
    trials = table({"a": [0.2, 0.2], "lucky": [0.9], "b": [0.3, 0.3]})
    assert collect.select(trials, OBJECTIVE) == "b"


@pytest.mark.parametrize(
    ("column", "value"), [("state", "stopped"), ("state", "failed"), ("phase", "control")]
)
def test_only_finished_trials_that_are_no_controls_take_part(column, value):
    trials = table({"a": [0.2, 0.2], "b": [0.9, 0.9]})
    trials.loc[trials["cell"] == "b", column] = value
    assert collect.select(trials, OBJECTIVE) == "a"
    trials[column] = value
    assert collect.select(trials, OBJECTIVE) is None


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=5),
    st.permutations(range(15)),
    st.integers(0, 4),
)
def test_test_scores_never_move_the_selection(values, order, favoured):
    trials = table({str(cell): [v / 9 for v in seeds] for cell, seeds in enumerate(values)})
    chosen = collect.select(trials, OBJECTIVE)
    scores = np.linspace(0, 1, 15)[order][: len(trials)]
    assert collect.select(trials.assign(**{TEST: scores}), OBJECTIVE) == chosen
    perfect = (trials["cell"] == str(favoured)).astype(float)
    assert collect.select(trials.assign(**{TEST: perfect}), OBJECTIVE) == chosen


# --- from ledger and files to tables


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder.at(tmp_path / "run")


def manifest(kind: str = "grid") -> dict[str, Any]:
    return {
        "study": STUDY.name,
        "question": STUDY.question,
        "objective": OBJECTIVE,
        "kind": kind,
        "dataset": {"name": "none", "digest": "00ff"},
        "protocol": {"name": "full", "text": "all items"},
        "seeds": [0, 1],
        "resources": {"cpus": 2.0, "gpus": 0.0},
        "command": "python made_up.py",
        "created": "2020-01-01T00:00:00+00:00",
        "git_commit": None,
        "git_dirty": False,
        "versions": {},
        "hardware": ["a machine"],
        "smoke": False,
        "out": "nowhere",
    }


def conclude(ledger, folder, kind="grid"):
    """As the driver does: the plan is on disk, then all else follows."""
    return tables_of(STUDY, ledger, folder, manifest(kind))


def fill(ledger, folder) -> list[str]:
    """A finished grid in which cell n has validation n / 10, the control more; the cells."""
    planned = plan(seeds=1)
    folder.write("plan-grid.json", collect.plan_to_json(planned))
    cells = list(dict.fromkeys(p.cell for p in planned))
    for p in planned:
        finish(ledger, p, cells.index(p.cell) / 10)
    write_files(folder, {p.hash: 0.5 for p in planned})
    return cells


def test_perfect_test_scores_of_a_bad_cell_move_nothing(open_ledger, folder):
    ledger = open_ledger()
    cells = fill(ledger, folder)
    honest = conclude(ledger, folder)
    assert honest.run["selected"] == cells[3]  # the best but for the control
    write_files(folder, {plan()[0].hash: 1.0})
    leaked = conclude(ledger, folder)
    assert leaked.run["selected"] == honest.run["selected"]
    assert set(leaked.trials.loc[leaked.trials["cell"] == cells[0], TEST]) == {1.0}
    without = [c for c in honest.trials if not str(c).startswith("test.")]
    pd.testing.assert_frame_equal(leaked.trials[without], honest.trials[without])


def test_the_choice_is_on_disk_before_a_test_score_is_opened(open_ledger, folder):
    ledger = open_ledger()
    cells = fill(ledger, folder)
    for p in plan():
        folder.remove(f"trials/{p.hash}/test.npz")
    with pytest.raises(FileNotFoundError):  # a finished trial without its test is no hole to hide
        conclude(ledger, folder)
    assert json.loads(folder.read("run.json"))["selected"] == cells[3]


def test_every_planned_trial_is_in_the_table_whatever_became_of_it(open_ledger, folder):
    ledger = open_ledger()
    done, stopped, failed, left, control = planned = plan()
    folder.write("plan-grid.json", collect.plan_to_json(planned))
    finish(ledger, done, 0.25)
    ledger.finish(ledger.begin(stopped, 1, SPANS), 0.9, facts(0.9, 3), stopped=True)
    ledger.fail(ledger.begin(failed, 1, SPANS), "epoch 1: a NaN", {"host": "there"})
    ledger.begin(left, 1, SPANS)
    ledger.close_interrupted()
    write_files(folder, {done.hash: 0.75, stopped.hash: 0.5})
    folder.remove(f"trials/{stopped.hash}/test.npz")
    tables = conclude(ledger, folder)
    trials = tables.trials.set_index("hash")
    assert list(trials.index) == [p.hash for p in planned]
    states = ["done", "stopped", "failed", "interrupted", "planned"]
    assert list(trials["state"]) == states
    assert trials[VALID][done.hash] == 0.25
    assert trials[TEST][done.hash] == 0.75
    assert trials[TEST].drop(done.hash).isna().all()
    assert trials[VALID][[failed.hash, left.hash, control.hash]].isna().all()
    assert trials["error"][failed.hash] == "epoch 1: a NaN"
    assert trials["best_epoch"][stopped.hash] == 3
    assert (trials["cpus"] == 2.0).all()
    assert tables.run["planned"] == len(planned)
    assert set(tables.epochs["hash"]) == {done.hash, stopped.hash}
    assert set(trials.loc[control.hash, [ALPHA, DEPTH]].isna()) == {True}
    assert list(trials[ALPHA][:4]) == [0.0, 0.0, 1e-6, 1e-6]
    for text, p in zip(trials["config"], planned, strict=True):
        assert Trial.from_json(text) == p.trial


def test_costs_are_numbers_and_no_factors_and_old_rows_have_none(open_ledger, folder):
    ledger = open_ledger()
    old, new, *_ = planned = plan()
    folder.write("plan-grid.json", collect.plan_to_json(planned))
    finish(ledger, old, 0.25)
    costs = {"parameters": 40.0, "epoch_seconds": 0.5, "converged_epoch": 3.0}
    row = ledger.begin(new, 1, SPANS)
    ledger.finish(row, 0.5, {**facts(0.5), "cost": costs}, stopped=False)
    write_files(folder, {old.hash: 0.75, new.hash: 0.75})
    tables = conclude(ledger, folder)
    trials = tables.trials.set_index("hash")
    names = [f"cost.{name}" for name in (*costs, "peak_mib")]
    assert all(pd.api.types.is_float_dtype(trials[name]) for name in names)
    assert dict(trials[names].loc[new.hash].dropna()) == {f"cost.{k}": v for k, v in costs.items()}
    assert trials[names].notna().sum().tolist() == [1, 1, 1, 0]
    assert set(tables.factors()) == {ALPHA, DEPTH}


def test_a_trial_counts_by_the_kind_in_which_it_came_to_its_end(open_ledger):
    ledger = open_ledger()
    one, two = searched(0.25), searched(0.5)
    for planned, stopped in ((one, False), (two, True)):
        ledger.studies["search"].enqueue_trial({ALPHA: planned.levels[ALPHA]})
        row = ledger.ask({ALPHA: STUDY.factors[0].search}, 0)  # type: ignore[dict-item]
        ledger.describe(row, planned, 1)
        ledger.finish(row, 0.5, facts(0.5), stopped=stopped)
    again = dataclasses.replace(two, phase="confirm")
    ledger.fail(ledger.begin(one, 1, SPANS), "a worker died", {})
    finish(ledger, again, 0.7, attempt=2)
    rows = collect.rows_of(ledger)
    assert (rows[one.hash].kind, rows[one.hash].state) == ("search", "done")
    assert (rows[two.hash].kind, rows[two.hash].state) == ("grid", "done")


def test_claims_of_a_search_rest_on_confirmations_only(open_ledger, folder):
    ledger = open_ledger()
    lucky, good = searched(0.25), searched(0.5)
    for planned, value in ((lucky, 0.9), (good, 0.8)):
        ledger.studies["search"].enqueue_trial({ALPHA: planned.levels[ALPHA]})
        row = ledger.ask({ALPHA: STUDY.factors[0].search}, 0)  # type: ignore[dict-item]
        ledger.describe(row, planned, 1)
        ledger.finish(row, value, facts(value), stopped=False)
    confirm = STUDY.plan([STUDY.cell(good.levels, phase="confirm")], [0], SETTING)
    assert confirm[0].hash == good.hash  # its first seed is done already
    folder.write("plan-search.json", collect.plan_to_json(confirm))
    write_files(folder, {lucky.hash: 1.0, good.hash: 0.5})
    tables = conclude(ledger, folder, "search")
    assert tables.run["selected"] == good.cell
    phases = dict(zip(tables.trials["hash"], tables.trials["phase"], strict=True))
    assert phases == {lucky.hash: "search", good.hash: "confirm"}


def test_a_plan_comes_back_as_it_was():
    planned = plan(seeds=2)
    assert collect.plan_from_json(collect.plan_to_json(planned)) == planned


def test_the_curve_of_a_closed_form_has_no_losses_beside_one_that_has(folder):
    write_files(folder, {"trained": 0.1})
    once = io.BytesIO()
    pd.DataFrame({"epoch": [1], "seconds": 0.5, VALID: 0.3}).to_parquet(once, index=False)
    folder.write("trials/closed/epochs.parquet", once.getvalue())
    trials = pd.DataFrame({"hash": ["trained", "closed"], "state": "done", "seed": 0})
    curves = collect.epoch_table(trials, folder, OBJECTIVE).set_index("hash")
    assert curves[VALID].tolist() == [0.1, 0.2, 0.3]
    assert curves.loc["trained", "loss.bpr"].tolist() == [0.6, 0.6]
    assert np.isnan(curves.loc["closed", "loss.bpr"])
    alone = collect.epoch_table(trials[1:], folder, OBJECTIVE)
    assert list(alone) == ["hash", "epoch", "seconds", VALID]

"""Whether training had converged, against curves whose answer is known by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec.reports import convergence
from mmrec.study.tables import StudyTables
from mmrec.study.views import Convergence
from tests.reports.synthetic import run_facts, trial, without_score

RISING = [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.1], [1.0, 2.0, 3.0, 4.2]]
"""At the cap of 4; the last quarter is the last two evaluations."""
FALLING = [[1.0, 3.0, 2.98, 2.0], [1.0, 3.0, 2.9, 2.5], [2.98, 2.99, 3.0, 2.0]]


def made(**cells: list[list[float]]) -> StudyTables:
    """Cells of several seeds' validation curves; the loss falls by 1 an epoch from 10."""
    rows, curves = [], []
    for label, seeds in cells.items():
        for seed, values in enumerate(seeds):
            row = trial(len(rows), label, seed, max(values), epochs=len(values), epoch_cap=4)
            row["best_epoch"] = int(np.argmax(values)) + 1
            rows.append(row)
            epoch = np.arange(1, len(values) + 1)
            facts = {"hash": row["hash"], "epoch": epoch, "seconds": 1.0, "loss.bpr": 10.0 - epoch}
            curves.append(pd.DataFrame({**facts, "valid.ndcg@10": values}))
    return StudyTables(run_facts(), pd.DataFrame(rows), pd.concat(curves))


def test_the_numbers_of_a_cell_are_those_by_hand():
    up, down = convergence.by_cell(made(up=RISING, down=FALLING)).to_dict("records")
    assert (up["label"], up["n"], up["cap"], up["epochs"]) == ("up", 3, 4, 4)
    assert (up["near_best"], up["best_epoch"], up["at_cap"]) == (4, 4, 3)
    rise = [1 / 4, 1.1 / 4.1, 1.2 / 4.2]
    assert up["rise"] == pytest.approx(np.mean(rise))
    ends = sps.t.interval(0.95, 2, np.mean(rise), sps.sem(rise))
    assert (up["rise_low"], up["rise_high"]) == pytest.approx(ends)
    assert up["state"] == "rising"
    # Within 1 % of 3 are 2.97 and more: epochs 2, 2 and 1.
    assert down["near_best"] == pytest.approx(5 / 3)
    assert (down["best_low"], down["best_high"], down["at_cap"]) == (2, 3, 0)
    assert down["best_epoch"] == pytest.approx(7 / 3)
    assert down["best_sd"] == pytest.approx(math.sqrt(1 / 3))
    assert down["rise"] == pytest.approx(np.mean([-0.98 / 3, -0.4 / 3, -1 / 3]))
    assert down["state"] == "converged"
    assert up["loss.bpr"] == down["loss.bpr"] == 6


def test_at_the_cap_without_a_sure_rise_is_said():
    # Best at the cap of 4 in two of three, but one seed falls steeply.
    mixed = [[1.0, 2.0, 2.0, 2.1], [1.0, 2.0, 2.0, 2.1], [1.0, 3.0, 3.0, 0.1]]
    (row,) = convergence.by_cell(made(mixed=mixed)).to_dict("records")
    assert (row["at_cap"], row["state"]) == (2, "at the cap")
    assert row["rise_low"] < 0


def test_one_seed_has_no_interval_and_its_rise_is_not_judged():
    (row,) = convergence.by_cell(made(one=[[1.0, 2.0, 1.5]])).to_dict("records")
    assert math.isnan(row["rise_low"])
    assert row["state"] == "converged"
    (shown, _) = convergence.exhibits(made(one=[[1.0, 2.0, 1.5]]), Convergence())
    assert "one seed" in shown.finding


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.01, 1), min_size=2, max_size=30),
    st.floats(0.1, 10),
    st.integers(1, 5),
)
def test_a_rise_does_not_depend_on_the_scale_or_on_how_often_is_evaluated(values, scale, stride):
    epoch, value = np.arange(1.0, len(values) + 1), np.array(values)
    found = convergence.rise(epoch, value)
    assert convergence.rise(stride * epoch, scale * value) == pytest.approx(found, abs=1e-9)


def test_the_rise_of_a_line_is_what_it_gains():
    # 12 evaluations: the last three gain twice 0.1, of a best of 2.1.
    epoch = np.arange(1.0, 13)
    assert convergence.rise(epoch, 0.9 + 0.1 * epoch) == pytest.approx(0.2 / 2.1)
    assert math.isnan(convergence.rise(epoch[:1], epoch[:1]))


def test_the_course_ends_where_the_first_seed_ends():
    tables = made(a=[[1.0, 2.0, 3.0], [3.0, 4.0]])
    table = convergence.course(tables)
    valid = table[table["what"] == "valid"]
    assert valid["epoch"].tolist() == [1, 2]
    assert valid["mean"].tolist() == pytest.approx([2, 3])
    ends = sps.t.interval(0.95, 1, 2, 1)
    assert valid[["low", "high"]].iloc[0].tolist() == pytest.approx(ends)
    assert table.loc[table["what"] == "loss.bpr", "mean"].tolist() == [9, 8]


def test_only_finished_trials_that_trained_count():
    tables = made(a=FALLING, b=FALLING, c=FALLING)
    rows = tables.trials.to_dict("records")
    rows[3:6] = [without_score(row, "stopped") for row in rows[3:6]]
    rows[6:] = [{**row, "condition": "missing=text@eval"} for row in rows[6:]]
    tables = StudyTables(tables.run, pd.DataFrame(rows), tables.epochs)
    assert convergence.by_cell(tables)["label"].tolist() == ["a"]
    assert set(convergence.course(tables)["label"]) == {"a"}


def test_the_words_name_the_cells_that_had_not_converged():
    (shown, courses) = convergence.exhibits(made(up=RISING, down=FALLING), Convergence(most=1))
    assert shown.finding.startswith("1 of 2 cells had converged. Still rising at the end: up.")
    lines = [t for t in shown.figure.data if t.showlegend]
    assert [t.name for t in lines] == ["up"]  # those that had not converged come first
    assert set(courses.table["label"]) == {"up", "down"}
    nothing = made(a=FALLING)
    rows = [without_score(row, "failed") for row in nothing.trials.to_dict("records")]
    nothing = StudyTables(nothing.run, pd.DataFrame(rows), nothing.epochs)
    assert convergence.exhibits(nothing, Convergence())[0].finding.startswith("No finished trial")

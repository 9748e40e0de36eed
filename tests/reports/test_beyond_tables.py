"""Metrics beyond accuracy, arm by arm: against scipy and values by hand."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from mmrec.reports import beyond
from mmrec.study.tables import StudyTables
from mmrec.study.views import BeyondAccuracy
from tests.reports import synthetic
from tests.reports.compared import study

NAN = math.nan
BASE = [0.30, 0.32, 0.31, 0.33, 0.34]
TEXT = [0.20, 0.23, 0.19, 0.22, 0.26]
POP = [0.10, 0.12, 0.11, 0.10, NAN]
VIEW = BeyondAccuracy(against="Pop")


def more(arm, condition, seed, score):
    """Coverage is twice the score, ARP 30 times; PL is recorded for A alone."""
    found = {"test.coverage@10": 2 * score, "test.arp@10": 30 * score, "test.aplt@10": 0.5}
    return found | ({"test.pl@10": -score, "test.coverage@5": 9.0} if arm == "A" else {})


@pytest.fixture(scope="module")
def made():
    scores = {
        ("A", "baseline"): BASE,
        ("A", "text=noise"): TEXT,
        ("B", "baseline"): TEXT,
        ("B", "text=noise"): [NAN] * 5,
        ("Pop", "baseline"): POP,
    }
    return study(scores, more, controls=["Pop"], groups={"A": "one", "B": "two"})


@pytest.fixture(scope="module")
def table(made):
    found = beyond.beyond(made, VIEW)
    return found.set_index(["label", "condition", "metric"])


def test_means_and_intervals_are_scipys(table):
    row = table.loc[("A", "baseline", "coverage@10")]
    values = 2 * np.array(BASE)
    assert row["mean"] == pytest.approx(0.64)
    assert (row["low"], row["high"]) == pytest.approx(
        sps.t.interval(0.95, 4, 0.64, sps.sem(values))
    )
    assert (row["n"], row["group"], row["reason"]) == (5, "one", "")
    assert table.loc[("A", "text=noise", "arp@10"), "mean"] == pytest.approx(6.6)


def test_differences_are_paired_over_the_seeds_of_both(table):
    row = table.loc[("A", "baseline", "arp@10")]
    difference = 30 * np.subtract(BASE, POP)[:4]  # the fifth seed of Pop failed
    ends = sps.t.interval(0.95, 3, difference.mean(), sps.sem(difference))
    assert row["effect"] == pytest.approx(difference.mean())
    assert (row["effect_low"], row["effect_high"]) == pytest.approx(ends)
    assert (row["pairs"], row["n"], row["against"]) == (4, 5, "Pop")


def test_what_is_under_one_condition_only_is_compared_there(table):
    row = table.loc[("A", "text=noise", "coverage@10")]
    assert row["against"] == "Pop, baseline"
    assert row["effect"] == pytest.approx(2 * np.mean(np.subtract(TEXT, POP)[:4]))
    own = table.loc[("Pop", "baseline", "coverage@10")]
    assert (own["against"], own["pairs"]) == ("", 0)
    assert math.isnan(own["effect"])


def test_an_arm_under_the_same_condition_is_the_reference(made):
    found = beyond.beyond(made, BeyondAccuracy(("coverage",), against="A"))
    row = found.set_index(["label", "condition"]).loc[("B", "baseline")]
    assert (row["against"], row["effect"]) == ("A", pytest.approx(2 * (0.22 - 0.32)))


def test_holes_say_why(table):
    assert table.loc[("B", "text=noise", "arp@10"), "reason"] == "5 failed (ValueError: no)"
    assert table.loc[("B", "baseline", "pl@10"), "reason"] == "not recorded"
    assert table.loc[("B", "baseline", "pl@10"), "n"] == 0


def test_the_picture_has_the_first_condition_and_the_words_the_counts(made):
    shown = beyond.exhibit(made, VIEW)
    assert "Coverage@10 from 0.2150 (Pop) to 0.6400 (A)" in shown.finding
    assert "Of 2 compared with Pop, by 95 % intervals: Coverage@10 2 above and 0 below" in (
        shown.finding
    )
    assert "Of baseline alone; 1 other condition in the table." in shown.finding
    assert shown.figure is not None
    drawn = {len(trace.x) for trace in shown.figure.data}
    assert drawn == {3, 1}  # three arms a panel, and PL of A alone
    assert shown.figure.layout.annotations[1].text == "ARP@10"


def test_an_unknown_reference_is_said(made):
    shown = beyond.exhibit(made, BeyondAccuracy(against="Nobody"))
    assert "Nothing is compared with Nobody" in shown.finding
    assert shown.table["effect"].isna().all()


def test_cells_of_factors_go_by_their_labels():
    tables = synthetic.grid()
    found = beyond.beyond(tables, BeyondAccuracy(("recall",), against="BPR-MF"))
    rows = found.set_index("label")
    one = tables.trials.query("cell == 'alpha=0.01 tau=0.1'")["test.recall@10"]
    assert rows.loc["alpha=0.01 tau=0.1", "mean"] == pytest.approx(one.mean())
    assert rows.loc["alpha=1 tau=0.03", "reason"] == "5 stopped early at epoch 12"
    assert list(rows.index)[-1] == "BPR-MF"  # controls last
    assert rows.loc["alpha=0", "pairs"] == 5


def test_arms_of_several_cells_are_not_averaged():
    rows = [
        synthetic.trial(nth, f"{arm} depth={depth} {condition}", 0, 0.1 * depth, arm=arm,
                        condition=condition) | {"model.depth": depth, "test.coverage@10": depth}
        for nth, (arm, depth, condition) in enumerate(
            [("A", 1, "baseline"), ("A", 2, "baseline"), ("A", 1, "text=noise"),
             ("B", 3, "baseline")]
        )
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    tables = StudyTables(synthetic.run_facts(planned=4), frame, synthetic.curves(frame))
    found = beyond.beyond(tables, BeyondAccuracy(("coverage",)))
    places = dict(zip(zip(found["label"], found["condition"], strict=True), found["mean"],
                      strict=True))  # fmt: skip
    assert places == {
        ("A depth=1", "baseline"): 1,
        ("A depth=2", "baseline"): 2,
        ("B", "baseline"): 3,
        ("A depth=1", "text=noise"): 1,
    }


@pytest.mark.parametrize("phase", ["grid", "tune"])
def test_nothing_recorded_is_said(phase):
    made = study({("A", "baseline"): [0.1]})
    made = dataclasses.replace(made, trials=made.trials.assign(phase=phase))
    shown = beyond.exhibit(made, VIEW)
    assert shown.figure is None
    assert shown.finding == "No finished trial has recorded these metrics."
    assert set(shown.table["reason"]) == ({"not recorded"} if phase == "grid" else set())

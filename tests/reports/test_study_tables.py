"""What a report is drawn from is checked, and answers in one sentence."""

import dataclasses
import math

import pandas as pd
import pytest

from mmrec.stats import Verdict
from mmrec.study import text
from mmrec.study.views import CellForest, HeatMap, MainEffects, Measures, default_views
from tests.reports.synthetic import CLAIMS, Said, grid


@pytest.fixture(scope="module")
def study():
    return grid()


def changed(study, **run):
    return dataclasses.replace(study, run={**study.run, **run})


def test_a_test_score_of_an_unfinished_trial_is_refused(study):
    trials = study.trials.copy()
    at = trials.index[trials["state"] == "stopped"][0]
    trials.loc[at, "test.ndcg@10"] = 0.5
    with pytest.raises(ValueError, match=f"{trials.loc[at, 'hash']} is stopped and yet has a test"):
        dataclasses.replace(study, trials=trials)


def test_two_attempts_of_one_trial_are_refused(study):
    trials = study.trials.assign(hash="0" * 16)
    with pytest.raises(ValueError, match="twice"):
        dataclasses.replace(study, trials=trials)


def test_many_columns_of_scores_leave_no_warning_to_whoever_adds_one(study):
    more = pd.DataFrame(1.0, index=study.trials.index, columns=[f"valid.x@{k}" for k in range(120)])
    trials = pd.concat([study.trials, more], axis=1)
    # Warnings are errors in tests; pandas has one for tables that were made column by column.
    assert dataclasses.replace(study, trials=trials).trials.assign(own=1)["own"].eq(1).all()


@pytest.mark.parametrize("column", ["seed", "label", "test.ndcg@10"])
def test_a_missing_column_is_named(study, column):
    with pytest.raises(KeyError, match=column):
        dataclasses.replace(study, trials=study.trials.drop(columns=column))


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "walk"), ("selected", "no such cell")], ids=str
)
def test_a_run_that_contradicts_itself_is_refused(study, key, value):
    with pytest.raises(ValueError, match=value):
        changed(study, **{key: value})


def test_an_unknown_state_is_refused(study):
    with pytest.raises(ValueError, match="'lost' is none of done"):
        dataclasses.replace(study, trials=study.trials.assign(state="lost"))


def test_the_answer_gives_verdict_effect_and_best_cell(study):
    mean = study.trials.query("label == 'alpha=0.01 tau=0.1'")["test.ndcg@10"].mean()
    assert study.answer.startswith(
        "Yes on planted: A contrastive weight above 0 beats alpha = 0"
        " (+0.0212 NDCG@10, 98.8 % interval +0.0148 to +0.0276, 5 seeds);"
        f" best by validation is alpha=0.01 tau=0.1, test NDCG@10 {mean:.4f} (95 % interval "
    )
    assert study.answer.endswith(", 5 seeds).")


@pytest.mark.parametrize(
    ("verdict", "opening"),
    [
        ("refuted", "No on planted: "),
        ("equivalent", "No difference that matters on planted: "),
        ("not separable", "Not separable from noise on planted: "),
        ("too few seeds", "Too few seeds on planted for a verdict: "),
    ],
)
def test_each_verdict_opens_the_answer_in_its_words(study, verdict, opening):
    claims = ((Said("it helps"), Verdict(verdict, 0.001, n=5, unit="ndcg@10", mde=0.02)),)
    said = dataclasses.replace(study, claims=claims).answer
    assert said.startswith(f"{opening}it helps (+0.0010 NDCG@10")
    assert ("0.0200 would have been seen" in said) == (verdict == "not separable")


def test_a_smoke_run_gives_no_verdict(study):
    said = changed(study, smoke=True).answer
    assert said.startswith("A smoke run on planted, no verdicts meant; best by validation")
    assert CLAIMS[0][0].text not in said


def test_a_study_without_a_finished_trial_says_so(study):
    rows = study.trials[study.trials["state"] != "done"].dropna(axis=1, how="all")
    rows = rows.assign(state="planned").drop(columns="valid.ndcg@10")
    made = dataclasses.replace(study, trials=rows, claims=(), run={**study.run, "selected": None})
    assert made.answer == "No trial on planted is done yet."
    assert math.isnan(made.trials["test.ndcg@10"].iloc[0])


def test_default_views_follow_from_the_factors():
    levels = {"model.alpha": [0, 1, 2], "model.tau": [0.1, 0.2], "train.lr": [0.001]}
    views = default_views(levels, ["rank"])
    assert HeatMap(x="model.tau", y="model.alpha") in views
    assert MainEffects(("model.alpha", "model.tau")) in views
    assert Measures(("rank",), "model.alpha") in views
    assert default_views({}, ["rank"]) == (CellForest(),)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1, "0.1"),
        (1 / 3, "0.3333"),
        (-2.5, "\u22122.5"),
        (12345.0, "12,345"),
        (0.00001, "1e\u22125"),
        (math.nan, "\u2013"),
        (None, "\u2013"),
        (True, "True"),
        ("relu", "relu"),
    ],
)
def test_numbers_are_short_and_lose_nothing_that_matters(value, shown):
    assert text.number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.0, "4.0 s"), (75, "75 s"), (600, "10.0 min"), (7200, "2.0 h")]
)
def test_durations(seconds, shown):
    assert text.duration(seconds) == shown

"""The report's numbers, against values by hand, scipy, and laws."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec.reports import cost, curves, sensitivity, tables
from mmrec.reports.exhibits import exhibits
from mmrec.reports.importance import by_grid, by_search
from mmrec.study.tables import StudyTables
from mmrec.study.views import HeatMap, MainEffects, Measures, RatioCurve
from tests.reports import synthetic
from tests.reports.synthetic import grid, run_facts, search, trial, without_score

MAP = HeatMap(x="model.tau", y="model.alpha")
RATIO = RatioCurve("model.alpha", "model.tau")


@pytest.fixture(scope="module")
def study():
    return grid()


def small(rows, **facts):
    frame = pd.DataFrame(rows)
    facts = {"planned": len(frame), "selected": None, **facts}
    return StudyTables(run_facts(**facts), frame, synthetic.curves(frame))


def two_by_two(scores_SAB):
    """Scores by seed, level of a, level of b, as a study."""
    rows = []
    for (seed, a, b), score in np.ndenumerate(scores_SAB):
        if math.isfinite(score):
            row = trial(len(rows), f"a={a} b={b}", seed, float(score))
            rows.append(row | {"model.a": a + 1, "model.b": b + 1})
    return small(rows)


def test_intervals_over_seeds_are_those_of_scipy():
    values = [0.30, 0.31, 0.29, 0.33, 0.30]
    rows = pd.DataFrame({"cell": "c", "seed": range(5), "score": values})
    row = tables.over_seeds(rows, ["cell"], "score").iloc[0]
    low, high = sps.t.interval(0.95, 4, np.mean(values), sps.sem(values))
    assert (row["low"], row["high"]) == pytest.approx((low, high), rel=1e-12)
    assert row["n"] == 5


def test_copies_of_a_cell_do_not_narrow_an_interval():
    rows = pd.DataFrame({"k": 1, "seed": [0, 1, 2], "score": [0.1, 0.2, 0.6]})
    once = tables.over_seeds(rows, ["k"], "score")
    thrice = tables.over_seeds(pd.concat([rows] * 3), ["k"], "score")
    pd.testing.assert_frame_equal(once, thrice)


def test_one_seed_has_a_mean_and_no_interval():
    row = tables.over_seeds(pd.DataFrame({"k": [1], "seed": [0], "s": [0.5]}), ["k"], "s").iloc[0]
    assert row["mean"] == 0.5
    assert math.isnan(row["low"])


def test_completeness_counts_what_the_study_was_made_of(study):
    assert tables.completeness(study) == {
        "planned": 110,
        "done": 98,
        "stopped": 5,
        "failed": 5,
        "missing": 2,
    }


def test_a_search_misses_the_trials_it_has_not_suggested():
    assert tables.completeness(search(trials=6, planned=50))["missing"] == 50 - 16


def test_every_cell_is_there_and_a_hole_says_why(study):
    table = tables.cells(study).set_index("label")
    assert len(table) == 22
    assert table.loc["alpha=1 tau=0.01", "reason"] == (
        "5 failed (FloatingPointError: epoch 3: infonce is nan)"
    )
    assert table.loc["alpha=1 tau=0.03", "reason"] == "5 stopped early at epoch 12"
    assert table.loc["alpha=0.1 tau=0.03", ["n", "missing", "reason"]].tolist() == [3, 2, ""]
    assert table.index[table["capped"] > 0].tolist() == ["alpha=0.001 tau=1"]


def test_a_cells_mean_is_that_of_its_done_trials(study):
    rows = study.trials.query("label == 'alpha=0.01 tau=0.1'")
    row = tables.cells(study).set_index("label").loc["alpha=0.01 tau=0.1"]
    assert row["test"] == pytest.approx(np.mean(rows["test.ndcg@10"].tolist()), rel=1e-12)
    assert bool(row["best"])


def test_heat_map_has_a_square_for_every_combination(study):
    table = sensitivity.heat_map(study, MAP)
    assert len(table) == 4 * 5 + 1
    assert table.iloc[0][["y", "spans", "n"]].tolist() == [0.0, True, 5]
    holes = table[table["mean"].isna()]
    assert set(zip(holes["x"], holes["y"], strict=True)) == {(0.01, 1.0), (0.03, 1.0)}
    assert (holes["reason"] != "").all()
    best = table[table["best"]]
    assert best[["x", "y"]].to_numpy().tolist() == [[0.1, 0.01]]


def test_heat_map_says_not_planned_where_no_trial_is(study):
    kept = study.trials[study.trials["label"] != "alpha=0.1 tau=1"]
    table = sensitivity.heat_map(dataclasses.replace(study, trials=kept), MAP)
    hole = table[(table["x"] == 1.0) & (table["y"] == 0.1)].iloc[0]
    assert (hole["reason"], hole["trials"]) == ("not planned", 0)


def test_heat_map_keeps_alpha_zero_apart_where_it_was_run_at_every_tau():
    rows = []
    for alpha, tau in [(0, 0.1), (0, 1.0), (1, 0.1), (1, 1.0)]:
        row = trial(len(rows), f"{alpha} {tau}", 0, 0.1 * len(rows))
        rows.append(row | {"model.alpha": alpha, "model.tau": tau})
    table = sensitivity.heat_map(small(rows), MAP)
    assert not table["spans"].any()
    assert table["mean"].tolist() == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_ratios_that_are_equal_but_for_rounding_meet(study):
    table = sensitivity.ratio_curve(study, RATIO)
    assert table["ratio"].is_unique
    row = table[table["ratio"] == 0.1].iloc[0]  # 0.001/0.01, 0.01/0.1 and 0.1/1
    assert (row["cells"], row["n"]) == (3, 5)
    assert table.iloc[0][["ratio", "cells"]].tolist() == [0, 1]


def test_ratio_curve_peaks_where_the_truth_does(study):
    table = sensitivity.ratio_curve(study, RATIO)
    assert table.loc[table["mean"].idxmax(), "ratio"] == 0.1


def test_every_done_trial_with_a_ratio_is_a_point(study):
    done = (study.trials["state"] == "done") & (study.trials["phase"] == "grid")
    assert len(sensitivity.ratio_points(study, RATIO)) == done.sum()


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(2, 5), st.integers(2, 4), st.integers(2, 4), st.integers(0, 99))
def test_main_effects_of_a_full_grid_are_plain_means(seeds, a, b, draw):
    score_SAB = np.random.default_rng(draw).normal(0.3, 0.1, (seeds, a, b))
    table = sensitivity.main_effects(two_by_two(score_SAB), MainEffects(("model.a", "model.b")))
    expected = [*score_SAB.mean((0, 2)), *score_SAB.mean((0, 1))]
    np.testing.assert_allclose(table["mean"].to_numpy(float), expected, atol=1e-10)


def test_a_hole_does_not_bias_main_effects_of_an_additive_truth():
    a, b = np.array([0.1, 0.2, 0.5]), np.array([0.0, 0.03, 0.3])
    score_SAB = (a[:, None] + b)[None] + np.array([0.0, 0.01])[:, None, None]
    score_SAB[:, 2, 2] = np.nan
    table = sensitivity.main_effects(two_by_two(score_SAB), MainEffects(("model.a", "model.b")))
    expected = [*(a + b.mean() + 0.005), *(b + a.mean() + 0.005)]
    np.testing.assert_allclose(table["mean"].to_numpy(float), expected, atol=1e-10)
    assert table["cells"].tolist() == [3, 3, 2, 3, 3, 2]


def test_a_factor_of_too_many_levels_to_draw_is_said_to_be_left_out():
    score_SAB = 0.1 + np.arange(2 * 2 * 31).reshape(2, 2, 31) / 1000
    views = (MainEffects(("model.a", "model.b")),)
    shown = exhibits(dataclasses.replace(two_by_two(score_SAB), views=views))
    (effects,) = (exhibit for exhibit in shown if exhibit.key == "main_effects")
    assert effects.table["factor"].unique().tolist() == ["model.a"]
    assert effects.finding.endswith("Not drawn, of more than 30 levels: b.")


def test_a_switched_off_cell_counts_for_every_level_of_the_other_factor(study):
    table = sensitivity.main_effects(study, MainEffects(("model.alpha", "model.tau")))
    assert table.loc[table["factor"] == "model.tau", "level"].tolist() == list(synthetic.TAUS)
    zero = table[(table["factor"] == "model.alpha") & (table["level"] == 0)].iloc[0]
    plain = study.trials.loc[study.trials["label"] == "alpha=0", "test.ndcg@10"].mean()
    assert abs(zero["mean"] - plain) < 0.002


def test_measures_go_over_a_ratio_or_a_factor(study):
    table = sensitivity.measures(study, Measures(("mean_cosine",), ("model.alpha", "model.tau")))
    assert table.iloc[-1]["mean"] > 0.7
    assert table.iloc[0]["mean"] < 0.2
    table = sensitivity.measures(study, Measures(("mean_cosine",), "model.alpha"))
    assert table["at"].tolist() == [0.0, *synthetic.ALPHAS]


def test_importance_on_a_grid_is_the_shares_of_an_exact_anova():
    rng = np.random.default_rng(0)
    effect_A = np.array([0.0, 1.0, 2.0])
    score_SAB = effect_A[None, :, None] + 0.01 * rng.normal(size=(4, 3, 2))
    table = by_grid(two_by_two(score_SAB)).table
    assert table["effect"].tolist()[0] == "a"
    assert table["share"].iloc[0] > 0.99
    assert table["omega2"].iloc[0] > table["low"].iloc[0] > 0.98


def test_importance_names_what_it_left_out_of_an_incomplete_grid(study):
    found = by_grid(study)
    assert "3 x 4 cells under 5 seeds" in found.ground
    assert "alpha = 0; tau = 0.2; alpha = 1; tau = 0.03" in found.ground


def test_importance_of_a_search_finds_the_knob_that_matters():
    rng = np.random.default_rng(1)
    rows = []
    for number in range(80):
        alpha, tau = 10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-3, 0)
        row = trial(number, f"c{number}", 0, -((math.log10(alpha) + 1.5) ** 2), phase="search")
        rows.append(row | {"model.alpha": alpha, "model.tau": tau})
    rows.append(without_score(rows[0], "stopped", hash="f" * 16))
    found = by_search(small(rows, kind="search"))
    assert found.table["effect"].tolist() == ["alpha", "tau"]
    assert found.table["share"].iloc[0] > 0.8
    assert "80 finished trials" in found.ground


def test_a_short_search_says_nothing_of_importance():
    assert by_search(search(trials=9)).table.empty


def test_stopped_trials_are_never_the_best_so_far():
    rows = [
        trial(0, "a", 0, 0.10, phase="search"),
        without_score(trial(1, "b", 0, 0.0, phase="search"), "stopped") | {"valid.ndcg@10": 0.9},
        trial(2, "c", 0, 0.20, phase="search"),
    ]
    assert curves.history(small(rows, kind="search"))["best"].tolist() == pytest.approx(
        [0.104, 0.104, 0.204]
    )


def test_curves_are_capped_keep_the_best_cell_and_their_last_epoch(study):
    table = curves.learning_curves(study, curves.choose(study, most=20)[0])
    assert table["hash"].nunique() == 20
    assert table.loc[table["cell"] == "alpha=0.01 tau=0.1", "hash"].nunique() == 5
    last = table.groupby("hash")["epoch"].max()
    ran = study.trials.set_index("hash")["epochs"]
    assert last.equals(ran[last.index].astype(int).rename("epoch"))
    assert table.groupby("hash").size().max() <= curves.MOST_POINTS + 1


def test_cost_by_hand():
    rows = [
        trial(0, "a", 0, 0.1, started=0.0, ended=10.0, seconds=10.0, epochs=40),
        trial(1, "b", 0, 0.1, started=5.0, ended=15.0, seconds=10.0, epochs=40),
        trial(2, "c", 0, 0.1, started=100.0, ended=104.0, seconds=4.0, epochs=10),
    ]
    rows[2] = without_score(rows[2], "stopped")
    total = cost.totals(small(rows))
    assert total["total"] == 24.0
    assert total["busy"] == 15.0 + 4.0
    assert total["parallelism"] == pytest.approx(24 / 19)
    assert total["saved"] == pytest.approx(30 * 0.4)


def test_times_may_be_text_or_stamps():
    one = trial(0, "a", 0, 0.1, started="2025-01-01 00:00:00", ended="2025-01-01T00:00:09.5+00:00")
    two = trial(1, "b", 0, 0.1, started="", ended="")
    made = small([one, without_score(two, "planned")])
    assert cost.totals(made)["busy"] == 9.5
    assert made.trials["started"].isna().tolist() == [False, True]


def test_flags_name_mixtures_dirt_and_capped_cells(study):
    mixed = study.trials.assign(device=["cpu"] * 50 + ["cuda"] * 60)
    said = cost.flags(
        dataclasses.replace(study, trials=mixed, run={**study.run, "git_dirty": True})
    )
    assert "trials differ in device: cpu, cuda" in said
    assert any("uncommitted" in line for line in said)
    assert any(line.startswith("alpha=0.001 tau=1: best epoch within 10 %") for line in said)
    assert any("between 3 and 5 scored seeds" in line for line in said)


def test_flags_name_cells_that_gave_up_at_once():
    ended = {"best_epoch": [1, 1, 2, 1], "epochs": [6, 6, 7, 1]}
    trials = [trial(n, "ab"[n == 3], n, 0.1) for n in range(4)]
    rows = [{**row, **{k: v[n] for k, v in ended.items()}} for n, row in enumerate(trials)]
    said = [line for line in cost.flags(small(rows)) if "first epoch" in line]
    # A model that has one epoch only did not give up.
    assert [line.partition(";")[0] for line in said] == [
        f"{rows[0]['label']}: best after the first epoch in 2 of 3 trials"
    ]


def test_reproduce_commands_quote_the_run(study):
    made = dataclasses.replace(study, run={**study.run, "out": "my runs/a;b"})
    command = cost.reproduce(made)["command"].iloc[0]
    assert command == "mmrec rerun 'my runs/a;b' 0000000000000000"


def test_published_numbers_stand_only_beside_the_same_dataset_and_protocol(study):
    rows = [
        ["Paper", "planted", "masked", "SiBraR", "ndcg@10", 0.31],
        ["Paper", "planted", "train-only", "SiBraR", "ndcg@10", 0.32],
        ["Paper", "ml-1m", "masked", "SiBraR", "ndcg@10", 0.33],
    ]
    names = ["source", "dataset", "protocol", "label", "metric", "value"]
    made = dataclasses.replace(study, published=pd.DataFrame(rows, columns=names))
    table = tables.published_beside_ours(made)
    assert table["value"].tolist() == [0.31]
    best = tables.best_cell(tables.cells(study))
    assert table["ours"].tolist() == pytest.approx([best["test"]])

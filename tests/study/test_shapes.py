"""Verdicts on curves whose truth is known; numbers by scipy, levels and contrasts by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from mmrec.stats import Paired
from mmrec.study.claims import Claim, ClaimData, Where, decide
from mmrec.study.shapes import BestLevel, Declines, Flat, Rises, judge_best

DEPTH = "model.depth"
HILL = {0: 0.20, 1: 0.22, 2: 0.25, 3: 0.27, 4: 0.24, 5: 0.21}
LEVEL = dict.fromkeys(range(4), 0.25)


def study(curve, *, seeds=6, noise=0.001, seed=0, layers=(2,), tilt=0.0):
    """Trials of a curve over depths, at each number of layers, and a control without depth."""
    rng = np.random.default_rng(seed)
    luck = 0.05 * rng.normal(size=seeds)  # a seed's own luck, which pairing takes out
    cells = [(f"d={d} l={n}", d, n, y + tilt * n) for n in layers for d, y in curve.items()]
    cells.append(("MF", math.nan, math.nan, 0.5))
    rows = []
    for number, (label, depth, ui_layers, mean) in enumerate(cells):
        for s in range(seeds):
            valid, test, cosine = mean + luck[s] + noise * rng.normal(size=3)
            rows.append(
                {
                    "hash": f"{number:02d}-{s}",
                    "cell": f"{number:02d}",
                    "label": label,
                    "seed": s,
                    DEPTH: depth,
                    "model.ui_layers": ui_layers,
                    "valid.ndcg@10": valid,
                    "test.ndcg@10": test,
                    "measure.cosine": cosine if depth >= 0 else math.nan,
                    "cost.seconds": 1 / cosine,
                }
            )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def data(trials, per_user=lambda _: None):
    return ClaimData(trials, "ndcg@10", per_user)


def scores(trials, depth, column="test.ndcg@10"):
    rows = trials[trials[DEPTH] == depth]
    return rows.groupby("seed")[column].mean().to_numpy()


# --- rises


def test_a_rise_is_the_climb_of_each_seeds_own_line():
    trials = study(HILL)
    got = Rises(DEPTH, 3).evaluate(data(trials))
    y_LS = np.array([scores(trials, depth) for depth in range(4)])
    climbs = [3 * sps.linregress(range(4), y_L).slope for y_L in y_LS.T]
    expected = sps.ttest_1samp(climbs, 0)
    assert got.verdict == "supported"
    assert got.effect == pytest.approx(np.mean(climbs), rel=1e-9)
    assert got.relative == pytest.approx(np.mean(climbs) / y_LS[0].mean(), rel=1e-9)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert (got.n, got.unit) == (6, "ndcg@10")
    direct = y_LS[3].mean() - y_LS[0].mean()
    assert f"the highest level less the lowest {direct:+.3g} [" in got.detail


def test_levels_count_as_equally_far_apart_however_they_are_spaced():
    wide = {0: 0, 1: 0.1, 2: 1.0, 3: 10.0}
    trials = study(dict(list(HILL.items())[:4]))
    spaced = trials.assign(**{DEPTH: trials[DEPTH].map(wide)})
    got, even = (Rises(DEPTH, 10).evaluate(data(t)) for t in (spaced, trials))
    assert (got.effect, got.low, got.p) == (even.effect, even.low, even.p)


def test_a_fall_and_a_level_field_refute_a_rise():
    falling = {level: -value for level, value in HILL.items()}
    got = Rises(DEPTH, 3).evaluate(data(study(falling)))
    assert (got.verdict, got.high < 0) == ("refuted", True)
    flat = Rises(DEPTH, 3).evaluate(data(study(LEVEL, noise=3e-4, seeds=10)))
    assert flat.verdict == "refuted"
    assert "inside +-1% of the base" in flat.detail


def test_a_measure_may_rise_where_the_objective_does_not():
    trials = study(LEVEL)
    trials["measure.cosine"] += 0.1 * trials[DEPTH]
    got = Rises(DEPTH, 3, column="measure.cosine").evaluate(data(trials, lambda _: np.ones(9)))
    assert (got.verdict, got.unit) == ("supported", "measure.cosine")
    assert got.effect == pytest.approx(0.3, abs=0.01)
    assert math.isnan(got.user_low)


# --- declines


def test_a_decline_is_the_mean_beyond_against_the_level_itself():
    trials = study(HILL)
    got = Declines(DEPTH, 3).evaluate(data(trials))
    beyond = (scores(trials, 4) + scores(trials, 5)) / 2
    expected = sps.ttest_rel(beyond, scores(trials, 3))
    assert got.verdict == "supported"
    assert got.effect == pytest.approx((0.24 + 0.21) / 2 - 0.27, abs=0.003)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert Declines(DEPTH, 1).evaluate(data(trials)).verdict == "refuted"


def test_users_stand_beside_a_decline():
    trials = study(HILL)
    depth_of = trials.set_index("hash")[DEPTH]
    kept = {name: np.linspace(0, 1, 400) + depth for name, depth in depth_of.items()}
    got = Declines(DEPTH, 3).evaluate(data(trials, kept.get))
    # Every user gets 4.5 on average beyond, and 3 at the level.
    assert (got.user_low, got.user_high) == pytest.approx((1.5, 1.5))
    assert got.verdict == "supported"


# --- the best level


def test_the_best_level_leads_all_others_by_the_largest_p():
    trials = study(HILL, noise=0.01)
    got = BestLevel(DEPTH, 3).evaluate(data(trials))
    tests = [sps.ttest_rel(scores(trials, 3), scores(trials, d)) for d in (0, 1, 2, 4, 5)]
    rival = max((0, 1, 2, 4, 5), key=lambda depth: scores(trials, depth).mean())
    lead = scores(trials, 3).mean() - scores(trials, rival).mean()
    assert lead > 0
    assert got.effect == pytest.approx(lead)
    assert got.relative == pytest.approx(lead / scores(trials, rival).mean())
    assert got.p == pytest.approx(max(test.pvalue for test in tests))
    assert got.low == pytest.approx(min(test.confidence_interval().low for test in tests))
    together = [test.confidence_interval(1 - 0.05 / 5).high for test in tests]
    assert got.high == pytest.approx(min(together))
    assert got.verdict == ("supported" if got.p < 0.05 else "not separable")


def test_a_better_level_refutes_by_its_own_p_times_the_others():
    trials = study(HILL, noise=0.01)
    got = BestLevel(DEPTH, 1).evaluate(data(trials))
    tests = [sps.ttest_rel(scores(trials, 1), scores(trials, d)) for d in (0, 2, 3, 4, 5)]
    p = min(test.pvalue for test in tests if test.statistic < 0)
    assert got.verdict == "refuted"
    assert got.p == pytest.approx(5 * p)
    assert got.effect == pytest.approx(scores(trials, 1).mean() - scores(trials, 3).mean())
    assert "1 against the best other, 3;" in got.detail
    assert "another level is better" in got.detail


def test_a_lead_that_is_none_refutes():
    tied = {0: 0.1, 1: 0.3, 2: 0.3}
    got = BestLevel(DEPTH, 1).evaluate(data(study(tied, noise=2e-4, seeds=10)))
    assert got.verdict == "refuted"
    assert "inside +-1% of the best other level" in got.detail


def test_the_least_cost_is_the_best_of_its_negative():
    trials = study(HILL, noise=0.0)
    trials["minus"] = -trials["cost.seconds"]
    got = BestLevel(DEPTH, 3, column="cost.seconds", lowest=True).evaluate(data(trials))
    mirror = BestLevel(DEPTH, 3, column="minus").evaluate(data(trials))
    assert got.verdict == mirror.verdict == "supported"
    assert got.effect < 0
    assert got.effect == -mirror.effect
    assert (got.low, got.high, got.p) == (-mirror.high, -mirror.low, mirror.p)
    assert BestLevel(DEPTH, 3, column="cost.seconds").evaluate(data(trials)).verdict == "refuted"


def test_a_clear_best_level_is_the_best_in_every_resample():
    got = BestLevel(DEPTH, 3).evaluate(data(study(HILL)))
    assert "being best: 0 0%, 1 0%, 2 0%, 3 100%, 4 0%, 5 0%" in got.detail


def test_levels_may_be_words():
    trials = study(HILL)
    trials["reading"] = trials[DEPTH].map({2: "nodes", 3: "features"})
    got = BestLevel("reading", "features").evaluate(data(trials))
    assert got.verdict == "supported"
    assert got.effect == pytest.approx(scores(trials, 3).mean() - scores(trials, 2).mean())


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [0.0, 5.0])
def test_no_level_is_called_best_or_beaten_more_often_than_the_level_says(ahead):
    # Two levels are equally good; the three others are as good too, or far behind.
    rng = np.random.default_rng(0)
    words = []
    for _ in range(1500):
        y_LS = rng.normal(size=(5, 5)) + rng.normal(size=5)
        y_LS[2:] -= ahead
        words.append(judge_best(y_LS, 0, smallest=0).verdict)
    allowed = sps.binom.ppf(0.9999, 1500, 0.025)
    assert words.count("supported") <= allowed
    assert words.count("refuted") <= allowed


def test_the_interval_says_what_p_says():
    rng = np.random.default_rng(0)
    lead_L = np.array([[1.5], [0], [0]])
    for _ in range(60):
        got = judge_best(rng.normal(size=(3, 5)) + lead_L, 0, smallest=0)
        assert (got.low > 0 or got.high < 0) == (got.p < 0.05)


def test_of_two_levels_the_better_is_told_by_the_paired_test():
    y_LS = np.random.default_rng(0).normal(size=(2, 5))
    pair, alone = Paired.of(y_LS[0], y_LS[1]), judge_best(y_LS, 0)
    assert (alone.low, alone.high, alone.p) == (*pair.interval(), pair.p())


# --- flat


def test_a_level_field_is_flat_and_a_hill_is_not():
    level = study(LEVEL, noise=3e-4, seeds=10)
    got = Flat(DEPTH).evaluate(data(level))
    assert got.verdict == "equivalent"
    y_LS = np.array([scores(level, depth) for depth in range(4)])
    assert got.effect == pytest.approx(np.ptp(y_LS.mean(1)))
    margin, worst = 0.01 * y_LS.mean(), 0.0
    for i in range(4):
        for j in range(i):
            below = sps.ttest_rel(y_LS[i], y_LS[j] + margin, alternative="less").pvalue
            above = sps.ttest_rel(y_LS[i], y_LS[j] - margin, alternative="greater").pvalue
            worst = max(worst, below, above)
    # Six pairs, two ends each.
    assert got.p == pytest.approx(12 * worst)
    hill = Flat(DEPTH).evaluate(data(study(HILL)))
    assert hill.verdict == "refuted"
    assert hill.p < 1e-6
    assert Flat(DEPTH).evaluate(data(study(LEVEL, noise=0.05))).verdict == "not separable"


def test_a_certain_difference_that_matters_to_nobody_is_flat():
    slope = {level: 0.25 + 1e-4 * level for level in range(4)}
    got = Flat(DEPTH).evaluate(data(study(slope, noise=1e-5)))
    assert got.low > 0
    assert got.verdict == "equivalent"
    assert "below the smallest effect of interest" in got.detail


# --- which cells, and what is missing

EVERY = (Rises(DEPTH, 3), Declines(DEPTH, 3), BestLevel(DEPTH, 3), Flat(DEPTH))


def test_several_cells_of_a_level_are_averaged_seed_by_seed():
    trials = study(HILL, layers=(1, 3), tilt=0.01)
    got = Declines(DEPTH, 3).evaluate(data(trials))
    beyond = (scores(trials, 4) + scores(trials, 5)) / 2
    expected = sps.ttest_rel(beyond, scores(trials, 3)).confidence_interval()
    assert (got.low, got.high) == pytest.approx(tuple(expected), rel=1e-9)
    one = Declines(DEPTH, 3, Where({"model.ui_layers": 1})).evaluate(data(trials))
    alone = Declines(DEPTH, 3).evaluate(data(trials[trials["model.ui_layers"] == 1]))
    assert one == alone != got


@pytest.mark.parametrize("test", EVERY, ids=lambda test: type(test).__name__)
def test_levels_in_unlike_company_are_not_compared(test):
    trials = study(HILL, layers=(1, 3))
    swept = trials[(trials["model.ui_layers"] == 1) | (trials[DEPTH] == 3)]
    got = test.evaluate(data(swept))
    assert got.verdict == "not tested"
    assert "different numbers of cells" in got.detail
    assert "3 2" in got.detail
    fixed = type(test)(**{**vars(test), "where": Where({"model.ui_layers": 1})})
    assert fixed.evaluate(data(swept)).verdict in ("supported", "refuted")


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (Rises(DEPTH, 0), "model.depth has one level up to 0: 0"),
        (Rises(DEPTH, -1), "no finished trial has a wanted level of model.depth"),
        (Rises("label", 3), "label has a level that is no number: d="),
        (Declines(DEPTH, 5), "no finished trial has model.depth beyond 5"),
        (Declines(DEPTH, 3.5), "no finished trials at model.depth = 3.5; there are: 4, 5"),
        (BestLevel(DEPTH, 7), "at model.depth = 7; there are: 0, 1, 2, 3, 4, 5"),
        (BestLevel(DEPTH, 3, Where({DEPTH: 3})), "model.depth has one level: 3"),
        (Flat("model.k"), "no column 'model.k'"),
        (Flat(DEPTH, column="measure.gap"), "no column 'measure.gap'"),
        (Flat(DEPTH, Where(label="VBPR")), "no finished trial fits: VBPR"),
        (Flat(DEPTH, Where(label="MF")), "no finished trial has a wanted level"),
    ],
)
def test_what_is_not_there_is_not_tested_and_said(test, reason):
    got = test.evaluate(data(study(HILL)))
    assert got.verdict == "not tested"
    assert reason in got.detail


def test_a_column_that_was_never_measured_is_said():
    trials = study(HILL).assign(**{"cost.seconds": math.nan})
    got = Flat(DEPTH, column="cost.seconds").evaluate(data(trials))
    assert (got.verdict, got.detail) == ("not tested", "no seed has cost.seconds in all of 6 cells")


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_few_seeds_give_numbers_and_no_verdict(seeds):
    trials = study(HILL, seeds=seeds)
    for test in EVERY:
        got = test.evaluate(data(trials))
        assert (got.verdict, got.n) == ("too few seeds", seeds)
        assert abs(got.effect) > 0.01


def test_every_verdict_agrees_with_its_corrected_p():
    claims = [Claim(str(test), "by hand", test) for test in EVERY]
    for noise in (0.002, 0.02):
        judged = decide(claims, data(study(HILL, noise=noise, seeds=5)))
        for _, v in judged:
            if v.verdict in ("supported", "equivalent"):
                assert v.p_corrected < 0.05
            if v.verdict == "not separable":
                assert v.p_corrected >= 0.05

import itertools
import math
import pickle
import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from mmrec.study.claims import (
    Better,
    Cheaper,
    Claim,
    ClaimData,
    Collapses,
    Equivalent,
    MainlyThroughRatio,
    NoWorse,
    Where,
    Worse,
    decide,
)

ALPHAS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
TAUS = (1e-2, 1e-1, 1.0, 10.0)
RATIO = MainlyThroughRatio("model.alpha", "model.tau")


def ridge(alpha, tau):
    """A hill along alpha / tau = 1e-2."""
    return 0.3 - 0.01 * (math.log10(alpha / tau) + 2) ** 2


def study(truth, *, seeds=6, noise=0.002, seed=0, alphas=ALPHAS, taus=TAUS):
    """A study's trials whose truth is known, with a base at alpha = 0 and a BPR-MF control."""
    rng = np.random.default_rng(seed)
    cells = [(f"a={a:g} t={t:g}", a, t, truth(a, t)) for a, t in itertools.product(alphas, taus)]
    cells += [("a=0", 0.0, 1.0, 0.28), ("BPR-MF", math.nan, math.nan, 0.25)]
    luck = rng.normal(size=seeds) * 0.05  # a seed's own luck, which pairing takes out
    rows = []
    for number, (label, alpha, tau, mean) in enumerate(cells):
        far = alpha / tau > 10
        for s in range(seeds):
            valid, test, cosine = mean + luck[s] + noise * rng.normal(size=3)
            rows.append(
                {
                    "hash": f"{number:02d}-{s}",
                    "cell": f"{number:02d}",
                    "label": label,
                    "phase": "grid",
                    "seed": s,
                    "condition": "baseline",
                    "model": "BPRMF" if label == "BPR-MF" else "SiBraR",
                    "model.alpha": alpha,
                    "model.tau": tau,
                    "valid.ndcg@10": valid,
                    "test.ndcg@10": test,
                    "measure.mean_cosine": cosine + 0.5 * far,
                    "measure.effective_rank": 10 * cosine - 2 * far,
                }
            )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def data(trials, per_user=lambda _: None):
    return ClaimData(trials, "ndcg@10", per_user)


SWEET = Better(cell=Where({"model.alpha": ">0"}), than=Where({"model.alpha": 0}))


def scores(trials, cell, column="test.ndcg@10"):
    rows = trials[trials["cell"] == cell].sort_values("seed")
    return rows[column].to_numpy()


# --- one cell against another


def peak(alpha, tau):
    """The ridge, with one cell that stands out."""
    return ridge(alpha, tau) + 0.05 * (alpha == 1e-3 and tau == 0.1)


def test_better_finds_the_best_cell_by_validation_and_tests_it_in_pairs():
    trials = study(peak)
    got = SWEET.evaluate(data(trials))
    expected = sps.ttest_rel(scores(trials, "09"), scores(trials, "20"))
    assert got.verdict == "supported"
    assert got.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    base = scores(trials, "20").mean()
    assert got.relative == pytest.approx(scores(trials, "09").mean() / base - 1)
    assert (got.n, got.unit) == (6, "ndcg@10")
    assert "a=0.001 t=0.1 (best of 20 by validation) against a=0;" in got.detail


def test_a_seed_is_judged_by_the_choice_of_the_others_by_hand():
    rows = []
    # Without seed 0 and without seed 1 cell x leads (.6 and .6 to .5), without seed 2 cell y.
    for cell, valid in {"x": [0.3, 0.3, 0.9], "y": [0.5, 0.5, 0.5], "base": [0, 0, 0]}.items():
        for seed, value in enumerate(valid):
            test = {"x": 10.0, "y": 20.0, "base": 0.0}[cell] + seed
            rows.append([f"{cell}{seed}", cell, cell, seed, value, test])
    columns = ["hash", "cell", "label", "seed", "valid.ndcg@10", "test.ndcg@10"]
    test = Better(Where({"cell": ("x", "y")}), Where(label="base"))
    got = test.evaluate(data(pd.DataFrame(rows, columns=columns)))
    assert got.effect == pytest.approx((10 + 10 + 20) / 3)
    assert "x (best of 2 by validation; without the judged seed one of 2 cells)" in got.detail


@pytest.mark.slow
def test_the_best_of_equal_cells_has_no_lead_though_validation_and_test_share_their_luck():
    effects = []
    for seed in range(40):
        trials = study(lambda *_: 0.28, seed=seed, seeds=5, alphas=(1e-3, 1e-2))
        trials["test.ndcg@10"] = trials["valid.ndcg@10"]
        effects.append(SWEET.evaluate(data(trials)).effect)
    # Choosing by all seeds gives a lead of 1.4 deviations of a mean: .0013.
    error = np.std(effects) / math.sqrt(40)
    assert abs(np.mean(effects)) < 3.9 * error
    assert error < 0.0013 / 4


@pytest.mark.slow
def test_a_flat_truth_is_not_told_apart_from_the_base():
    wrong = 0
    for seed in range(30):
        trials = study(lambda *_: 0.28, seed=seed, alphas=(1e-3,), taus=(1.0,))
        got = SWEET.evaluate(data(trials))
        wrong += got.low > 0 or got.high < 0
    assert wrong <= sps.binom.ppf(0.9999, 30, 0.05)


def test_a_difference_the_other_way_is_refuted():
    worse = Better(cell=Where(label="BPR-MF"), than=Where({"model": "SiBraR"}))
    got = worse.evaluate(data(study(ridge)))
    assert got.verdict == "refuted"
    assert got.high < 0


def test_perfect_test_scores_of_one_bad_cell_move_no_choice():
    trials = study(peak)
    before = SWEET.evaluate(data(trials))
    trials.loc[trials["cell"] == "03", "test.ndcg@10"] = 1.0
    after = SWEET.evaluate(data(trials))
    assert after == before


def test_equal_validation_means_choose_the_first_cell():
    trials = study(ridge)
    trials.loc[trials["model.alpha"] > 0, "valid.ndcg@10"] = 0.5
    assert "a=1e-05 t=0.01 (best of 20" in SWEET.evaluate(data(trials)).detail


@pytest.mark.parametrize(
    ("gap", "equivalent", "no_worse"),
    [
        (0.0, "equivalent", "supported"),
        (0.02, "refuted", "supported"),
        (-0.02, "refuted", "refuted"),
    ],
)
def test_equivalence_and_non_inferiority(gap, equivalent, no_worse):
    trials = study(lambda *_: 0.28 + gap, seeds=10, noise=5e-4, alphas=(1e-3,), taus=(1.0,))
    sides = {"cell": Where({"model.alpha": ">0"}), "than": Where({"model.alpha": 0})}
    got = Equivalent(**sides).evaluate(data(trials))
    assert got.verdict == equivalent
    level = 0.9 if equivalent == "equivalent" else 0.95
    pair = sps.ttest_rel(scores(trials, "00"), scores(trials, "01"))
    expected = pair.confidence_interval(level)
    assert (got.low, got.high) == pytest.approx(tuple(expected), rel=1e-9)
    assert f"interval at {100 * level:g} %" in got.detail
    assert NoWorse(**sides).evaluate(data(trials)).verdict == no_worse


def test_users_stand_beside_and_decide_nothing():
    trials = study(lambda *_: 0.28, noise=0.02, alphas=(1e-3,), taus=(1.0,))
    rng = np.random.default_rng(1)
    kept = {name: rng.random(400) + (name[:2] == "00") for name in trials["hash"]}
    got = SWEET.evaluate(data(trials, kept.get))
    mean = np.mean([kept[f"00-{s}"] - kept[f"01-{s}"] for s in range(6)], axis=0)
    half = 1.96 * mean.std(ddof=1) / 20
    assert (got.user_low, got.user_high) == pytest.approx(
        (mean.mean() - half, mean.mean() + half), abs=0.1 * half
    )
    assert got.verdict == "not separable"


def test_users_are_left_out_if_one_trial_kept_none():
    trials = study(ridge)
    got = SWEET.evaluate(data(trials, lambda name: None if name == "20-3" else np.ones(9)))
    assert math.isnan(got.user_low)


# --- another column than the objective

SIDES = Where({"model.alpha": ">0"}), Where({"model.alpha": 0})


def costing(seconds, **shape):
    """The study with a peak, whose cells take `seconds` by their cell's number, with noise."""
    trials = study(peak, **shape)
    noise = 0.01 * np.random.default_rng(7).normal(size=len(trials))
    return trials.assign(**{"cost.epoch_seconds": trials["cell"].map(seconds).fillna(9.0) + noise})


def test_a_column_is_compared_in_the_cells_that_validation_chose():
    trials = study(peak)
    rank = "measure.effective_rank"
    trials.loc[trials["cell"] == "09", rank] += 5.0  # the best cell by validation
    trials.loc[trials["cell"] == "00", rank] += 99.0
    got = Better(*SIDES, column=rank).evaluate(data(trials, lambda _: np.ones(9)))
    expected = sps.ttest_rel(scores(trials, "09", rank), scores(trials, "20", rank))
    assert (got.verdict, got.unit) == ("supported", rank)
    assert got.p == pytest.approx(expected.pvalue, rel=1e-6)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert math.isnan(got.user_low)
    assert Worse(*SIDES, column=rank).evaluate(data(trials)).verdict == "refuted"


def test_the_objective_by_its_name_is_the_objective():
    trials = data(study(peak), lambda _: np.ones(9))
    assert Better(*SIDES, column="test.ndcg@10").evaluate(trials) == SWEET.evaluate(trials)


def test_a_group_of_users_is_named_without_the_split():
    trials = study(peak)
    trials["test.ndcg@10:wide-interests"] = trials["test.ndcg@10"] / 2
    got = Better(*SIDES, column="test.ndcg@10:wide-interests").evaluate(data(trials))
    whole = SWEET.evaluate(data(trials))
    assert (got.effect, got.unit) == (pytest.approx(whole.effect / 2), "ndcg@10:wide-interests")
    assert got.p == pytest.approx(whole.p)


def test_cheaper_is_a_lower_cost_of_the_chosen_cell():
    trials = costing({"09": 2.0, "20": 3.0})
    got = Cheaper(*SIDES).evaluate(data(trials))
    column = "cost.epoch_seconds"
    expected = sps.ttest_rel(scores(trials, "09", column), scores(trials, "20", column))
    assert (got.verdict, got.unit) == ("supported", column)
    assert got.effect == pytest.approx(-1.0, abs=0.02)
    assert got.relative == pytest.approx(-1 / 3, abs=0.01)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert Cheaper(*SIDES).evaluate(data(costing({"20": 2.0}))).verdict == "refuted"
    same = Cheaper(*SIDES).evaluate(data(costing({}, seeds=10)))
    assert same.verdict == "refuted"
    assert "inside +-1% of the base" in same.detail


def test_a_count_without_any_noise_is_told_apart():
    trials = study(peak)
    trials["cost.parameters"] = np.where(trials["cell"] == "09", 700, 1000)
    got = Cheaper(*SIDES, column="cost.parameters").evaluate(data(trials))
    assert (got.verdict, got.low, got.high, got.p) == ("supported", -300, -300, 0)


def test_seeds_without_the_column_are_left_out_and_none_is_said():
    trials = costing({"09": 2.0, "20": 3.0}, seeds=7)
    trials.loc[trials["hash"].isin(["09-1", "20-4"]), "cost.epoch_seconds"] = math.nan
    got = Cheaper(*SIDES).evaluate(data(trials))
    assert (got.n, got.verdict) == (5, "supported")
    assert "2 seeds are not in both" in got.detail
    trials.loc[trials["cell"] == "20", "cost.epoch_seconds"] = math.nan
    got = Cheaper(*SIDES).evaluate(data(trials))
    assert (got.verdict, got.detail) == ("not tested", "cost.epoch_seconds was not measured: a=0")
    absent = Cheaper(*SIDES, column="cost.peak_mib").evaluate(data(trials))
    assert (absent.verdict, absent.detail) == (
        "not tested", "the trials have no column 'cost.peak_mib'"
    )  # fmt: skip


# --- which cells


@pytest.mark.parametrize(
    ("where", "cells"),
    [
        (Where({"model.alpha": ">0"}), 20),
        (Where({"model.alpha": ">= 0"}), 21),
        (Where({"model.alpha": "!=0"}), 20),
        (Where({"model.alpha": 0}), 1),
        (Where({"model.alpha": (1e-5, 1e-2), "model.tau": "<1"}), 4),
        (Where(label="BPR-MF"), 1),
        (Where({"model": "SiBraR", "condition": "baseline"}), 21),
        (Where(), 22),
    ],
)
def test_where_chooses(where, cells):
    assert where.of(study(ridge))["cell"].nunique() == cells


def test_a_comparison_with_no_number_is_refused_at_once():
    with pytest.raises(ValueError, match=r"model\.alpha.*>big"):
        Where({"model.alpha": ">big"})


# --- missing data


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (Better(Where(label="VBPR"), Where(label="BPR-MF")), "no finished trial fits: VBPR"),
        (Better(Where({"model.gama": 1}), Where()), "no column 'model.gama'"),
        (Better(Where(label="a=0"), Where({"model.alpha": 0})), "both sides are one cell: a=0"),
        (MainlyThroughRatio("model.alpha", "model.k"), "no column 'model.k'"),
        (Collapses("model.alpha", "model.tau", above=100), "the largest is 10"),
        (Collapses("model.alpha", "model.tau", ridge=(20, 30), above=1), "in 20 to 30"),
        (
            Collapses("model.alpha", "model.tau", above=1, rises=("measure.gap",)),
            "no column 'measure.gap'",
        ),
    ],
)
def test_what_is_not_there_is_not_tested_and_said(test, reason):
    got = test.evaluate(data(study(ridge)))
    assert got.verdict == "not tested"
    assert reason in got.detail


def test_a_sealed_test_split_is_said():
    trials = study(ridge).drop(columns="test.ndcg@10")
    assert "no column 'test.ndcg@10'" in SWEET.evaluate(data(trials)).detail


def test_two_trials_for_one_cell_and_seed_are_an_error():
    trials = study(ridge)
    with pytest.raises(ValueError, match="cell 04 has more than one trial under seed 2"):
        SWEET.evaluate(data(pd.concat([trials, trials[trials["hash"] == "04-2"]])))


def test_holes_leave_the_seeds_in_common_and_are_said():
    trials = study(peak, seeds=7)
    base_hole = trials[~trials["hash"].isin(["20-0", "20-5"])]
    got = SWEET.evaluate(data(base_hole))
    assert (got.n, got.verdict) == (5, "supported")
    assert "2 seeds are not in both" in got.detail
    unscored = trials.copy()
    unscored.loc[unscored["hash"].isin(["20-0", "20-5"]), "test.ndcg@10"] = math.nan
    assert SWEET.evaluate(data(unscored)) == got


def test_a_lucky_cell_with_one_seed_is_not_chosen():
    trials = study(ridge)
    trials.loc[trials["cell"] == "00", "valid.ndcg@10"] = 0.9
    lucky = trials[(trials["cell"] != "00") | (trials["seed"] == 0)]
    got = SWEET.evaluate(data(lucky))
    assert got.n == 6
    assert "a=1e-05 t=0.01 " not in got.detail
    assert "1 of 20 cells passed over" in got.detail


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_few_seeds_give_numbers_and_no_verdict(seeds):
    trials = study(ridge, seeds=seeds)
    for test in (SWEET, RATIO, Collapses("model.alpha", "model.tau", above=1)):
        got = test.evaluate(data(trials))
        assert (got.verdict, got.n) == ("too few seeds", seeds)
    assert SWEET.evaluate(data(trials)).effect > 0


# --- mainly through a ratio


def test_a_true_ratio_law_is_supported():
    got = RATIO.evaluate(data(study(ridge)))
    assert got.verdict == "supported"
    assert got.effect == pytest.approx(1, abs=0.03)
    assert 0.5 < got.low <= got.high <= 1


def test_a_law_of_both_but_not_of_their_ratio_is_refuted():
    got = RATIO.evaluate(data(study(lambda a, t: 0.3 - 0.01 * math.log10(a * t) ** 2)))
    assert got.verdict == "refuted"
    assert got.high < 0.5


def test_a_law_of_one_factor_that_spans_more_decades_is_refuted():
    # log alpha has 4 decades, log tau 2: alpha alone puts 4/5 or so of its variance on the ratio
    trials = study(lambda a, _: 0.3 + 0.01 * math.log10(a), taus=(0.1, 1.0, 10.0))
    got = RATIO.evaluate(data(trials))
    assert got.low > 0.5
    assert got.verdict == "refuted"
    assert "model.alpha alone 1.0" in got.detail


def test_without_any_dependence_there_is_nothing_to_separate():
    decided = 0
    for seed in range(30):
        got = RATIO.evaluate(data(study(lambda *_: 0.3, seeds=5, seed=seed)))
        decided += got.verdict != "not separable"
    assert decided <= sps.binom.ppf(0.9999, 30, 0.05)
    flat = study(lambda *_: 0.3, noise=0.0)
    assert RATIO.evaluate(data(flat)).verdict == "not separable"


def test_the_share_is_that_of_the_noise_free_means():
    # Half of the truth is a cubic in the log-ratio; the other half is across it.
    logs = np.array([[math.log10(a), math.log10(t)] for a in ALPHAS for t in TAUS])
    x = logs[:, 0] - logs[:, 1]
    design = np.vander(x, 4)
    across = np.cos(2 * logs.sum(1))
    across -= design @ np.linalg.lstsq(design, across)[0]
    along = x - x.mean()
    mean = 0.3 + 0.02 * (along / along.std() + across / across.std())
    truth = dict(zip(map(tuple, np.round(logs, 6)), mean, strict=True))

    def law(a, t):
        return truth[round(math.log10(a), 6), round(math.log10(t), 6)]

    got = RATIO.evaluate(data(study(law, noise=0.01, seeds=40)))
    assert got.effect == pytest.approx(0.5, abs=0.03)
    assert got.low < 0.5 < got.high
    assert got.verdict == "not separable"


def test_cells_that_share_a_place_must_be_told_apart():
    trials = study(ridge)
    noisy = trials.assign(
        cell="n" + trials["cell"], hash="n" + trials["hash"], condition="image: noise"
    )
    both = data(pd.concat([trials, noisy]))
    assert "`where` must tell them apart" in RATIO.evaluate(both).detail
    narrowed = MainlyThroughRatio("model.alpha", "model.tau", Where({"condition": "baseline"}))
    assert narrowed.evaluate(both) == RATIO.evaluate(data(trials))


def test_one_level_of_the_denominator_makes_no_ratio():
    trials = study(ridge, taus=(1.0,))
    assert "model.tau has one level" in RATIO.evaluate(data(trials)).detail


# --- collapse


def cliff(alpha, tau):
    return 0.05 if alpha / tau > 10.001 else 0.3


COLLAPSE = Collapses("model.alpha", "model.tau")
WIDE = {"alphas": (1e-2, 1e-1, 1.0), "taus": (1e-2, 1e-1, 1.0)}


def test_a_cliff_is_a_collapse_and_ratio_10_itself_is_not_beyond():
    trials = study(cliff, **WIDE)
    got = COLLAPSE.evaluate(data(trials))
    assert got.verdict == "supported"
    assert "mean of 1 cells" in got.detail
    assert got.effect == pytest.approx(-0.25, abs=0.005)
    assert "measure.mean_cosine +0.2" in got.detail


def test_the_fall_is_between_the_mean_beyond_and_the_best_cell_inside():
    trials = study(standing_out, **WIDE)
    rows = trials.assign(ratio=(trials["model.alpha"] / trials["model.tau"]).round(6))
    beyond = rows[rows["ratio"] > 1].groupby("seed")["test.ndcg@10"].mean()
    assert rows[rows["ratio"] > 1]["cell"].nunique() == 3
    expected = sps.ttest_rel(beyond, scores(trials, "04"))
    got = Collapses("model.alpha", "model.tau", above=1).evaluate(data(trials))
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


def standing_out(alpha, tau):
    """The cliff, with one cell inside the ridge that stands out (number 04)."""
    return cliff(alpha, tau) + 0.1 * (alpha == tau == 0.1)


def test_a_fall_without_its_mechanism_is_no_collapse():
    trials = study(standing_out, **WIDE)
    rank = "measure.effective_rank"
    trials[rank] *= -1
    got = COLLAPSE.evaluate(data(trials))
    assert got.verdict == "refuted"
    assert got.high < 0
    # Two measures could have spoken against the claim: Bonferroni.
    change = sps.ttest_rel(scores(trials, "06", rank), scores(trials, "04", rank))
    assert got.p == pytest.approx(2 * change.pvalue, rel=1e-9)


def test_a_rise_refutes_a_collapse_by_its_own_p():
    trials = study(lambda a, t: 0.5 - standing_out(a, t), noise=0.05, **WIDE)
    trials["valid.ndcg@10"] += trials["cell"] == "04"
    got = COLLAPSE.evaluate(data(trials))
    assert got.verdict == "refuted"
    assert got.p == pytest.approx(sps.ttest_rel(scores(trials, "06"), scores(trials, "04")).pvalue)


def test_a_cell_beyond_with_one_seed_is_passed_over():
    trials = study(standing_out, **WIDE)
    holed = trials[(trials["cell"] != "03") | (trials["seed"] == 0)]
    got = Collapses("model.alpha", "model.tau", above=1).evaluate(data(holed))
    without = Collapses("model.alpha", "model.tau", above=1).evaluate(
        data(trials[trials["cell"] != "03"])
    )
    assert "1 of 3 cells passed over" in got.detail
    assert (got.effect, got.low, got.n) == (without.effect, without.low, 6)


def test_a_level_field_refutes_a_collapse():
    trials = study(lambda *_: 0.3, noise=5e-4, seeds=10, **WIDE)
    got = COLLAPSE.evaluate(data(trials))
    assert got.verdict == "refuted"
    assert "inside +-1%" in got.detail


# --- all claims of a study


def claims(*tests):
    return [Claim(f"claim {n}", "by hand", test) for n, test in enumerate(tests)]


def test_holm_counts_the_claims_that_could_be_tested_and_interval_follows():
    trials = study(lambda *_: 0.2825, noise=0.0008, seeds=5, alphas=(1e-3,), taus=(1.0,))
    control = Better(Where({"model.alpha": ">0"}), Where(label="BPR-MF"))
    absent = Better(Where(label="VBPR"), Where(label="BPR-MF"))
    got = [v for _, v in decide(claims(absent, SWEET, control), data(trials))]
    assert got[0].verdict == "not tested"
    assert math.isnan(got[0].p_corrected)
    assert got[2].p_corrected == pytest.approx(2 * got[2].p)
    pair = scores(trials, "00"), scores(trials, "02")
    expected = sps.ttest_rel(*pair).confidence_interval(0.975)
    assert (got[2].low, got[2].high) == pytest.approx(tuple(expected), rel=1e-9)
    assert "interval at 97.5 %" in got[2].detail
    assert got[1].p_corrected == pytest.approx(got[1].p)


def test_a_claim_with_few_seeds_costs_the_others_nothing():
    trials = study(lambda *_: 0.283, noise=0.002, seeds=5, alphas=(1e-3,), taus=(1.0,))
    few = trials[(trials["label"] != "BPR-MF") | (trials["seed"] < 3)]
    control = Better(Where({"model.alpha": ">0"}), Where(label="BPR-MF"))
    got = [v for _, v in decide(claims(SWEET, control), data(few))]
    assert (got[1].verdict, got[1].n) == ("too few seeds", 3)
    assert math.isnan(got[1].p_corrected)
    assert got[0].p_corrected == got[0].p


def test_a_claim_may_stand_alone_and_fall_among_others():
    trials = study(lambda *_: 0.283, noise=0.001, seeds=5, alphas=(1e-3,), taus=(1.0,))
    alone = decide(claims(SWEET), data(trials))[0][1]
    assert alone.verdict == "supported"
    among = decide(claims(*[SWEET] * 20), data(trials))
    assert {v.verdict for _, v in among} == {"not separable"}
    assert all(v.low < 0 < v.high and v.p_corrected > 0.05 for _, v in among)


@pytest.mark.slow
def test_every_verdict_agrees_with_its_corrected_p_and_interval():
    tests = (SWEET, RATIO, COLLAPSE, NoWorse(Where({"model.alpha": 0}), Where(label="BPR-MF")))
    for seed, noise in itertools.product(range(2), (0.002, 0.02, 0.2)):
        trials = study(cliff, noise=noise, seed=seed, seeds=5, **WIDE)
        for _, v in decide(claims(*tests), data(trials)):
            if v.verdict == "supported":
                assert v.p_corrected < 0.05
            if v.verdict == "not separable":
                assert v.p_corrected >= 0.05


def test_claims_survive_a_pickle_and_give_the_same_verdicts_again():
    asked = claims(SWEET, RATIO, COLLAPSE)
    trials = data(study(cliff, **WIDE))
    assert decide(pickle.loads(pickle.dumps(asked)), trials) == decide(asked, trials)


def test_a_study_of_the_papers_size_is_decided_in_two_seconds():
    alphas, taus = np.logspace(-6, -1, 10).tolist(), np.logspace(-4, 0, 16).tolist()
    trials = study(ridge, alphas=alphas, taus=taus)
    users = np.random.default_rng(0).random((400, 5000))
    asked = claims(SWEET, RATIO, COLLAPSE, Better(Where({"model.alpha": 0}), Where(label="BPR-MF")))
    started = time.perf_counter()
    got = decide(asked, data(trials, lambda name: users[hash(name) % 400]))
    assert time.perf_counter() - started < 2
    assert [v.verdict for _, v in got][:2] == ["supported", "supported"]

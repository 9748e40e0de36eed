import dataclasses
import itertools
import math
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import linalg
from scipy import stats as sps

from mmrec.stats import Paired
from mmrec.study import text, verdicts
from mmrec.study.claims import Better, Claim, ClaimData, Equivalent, NoWorse, Where, decide
from mmrec.study.contrasts import DependsOnFiller, MoreAffected, judge_spread

ZOO = {
    "FREEDOM": {"baseline": 0.40, "text=noise": 0.28},
    "DRAGON": {"baseline": 0.30, "text=noise": 0.24},
    "VBPR": {"baseline": 0.20, "text=noise": 0.19},
}
FILLED = {
    "baseline": 0.40,
    "text=noise": 0.30,
    "text=shuffle": 0.32,
    "text=zero": 0.31,
    "image=zero": 0.10,
    "text=zero@eval": 0.05,
}
GRAPH = MoreAffected(arms=("FREEDOM", "DRAGON"), than=("VBPR",), condition="text=noise")
FILLER = DependsOnFiller("FREEDOM", "text")


def study(truth, *, seeds=6, noise=0.002, seed=0):
    """Trials whose truth is known, by arm and condition; all arms meet the same luck of a seed."""
    rng = np.random.default_rng(seed)
    luck = 0.02 * rng.normal(size=seeds)  # pairing takes it out
    rows = []
    for arm, conditions in truth.items():
        for condition, mean in conditions.items():
            knocked, _, filler = condition.removesuffix("@eval").partition("=")
            for s in range(seeds):
                valid, test = mean + luck[s] + noise * rng.normal(size=2)
                rows.append(
                    {
                        "hash": f"{arm} {condition} {s}",
                        "cell": f"{arm} {condition}",
                        "label": f"{arm} {condition}",
                        "seed": s,
                        "arm": arm,
                        "condition": condition,
                        "knocked": knocked if filler else "",
                        "filler": filler.partition("#")[0],
                        "when": "eval" if condition.endswith("@eval") else "train+eval",
                        "valid.ndcg@10": valid,
                        "test.ndcg@10": test,
                    }
                )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def data(trials, per_user=lambda _: None):
    return ClaimData(trials, "ndcg@10", per_user)


def scores(trials, arm, condition):
    rows = trials[(trials["arm"] == arm) & (trials["condition"] == condition)]
    return rows.sort_values("seed")["test.ndcg@10"].to_numpy()


def lost(trials, arm, condition="text=noise"):
    base_S = scores(trials, arm, "baseline")
    return (base_S - scores(trials, arm, condition)) / base_S


def at_most(wrong, runs, alpha):
    """Whether a chance of `alpha` explains that many."""
    return wrong <= sps.binom.ppf(0.9999, runs, alpha)


# --- one group against another


def test_groups_are_compared_by_their_arms_mean_relative_losses_in_pairs():
    trials = study({**ZOO, "MGCN": {"baseline": 0.2, "text=noise": 0.18}})
    arms = ("FREEDOM", "DRAGON", "MGCN")
    first_S = np.mean([lost(trials, arm) for arm in arms], axis=0)
    expected = sps.ttest_rel(first_S, lost(trials, "VBPR"))
    got = dataclasses.replace(GRAPH, arms=arms).evaluate(data(trials))
    assert got.verdict == "supported"
    assert got.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)
    assert got.effect == pytest.approx(np.mean(first_S - lost(trials, "VBPR")), rel=1e-12)
    # In shares of the baseline: .3, .2 and .1 against .05.
    assert got.effect == pytest.approx(0.15, abs=0.02)
    assert (got.relative, got.n) == (got.effect, 6)
    assert got.mde == pytest.approx(Paired.of(first_S, lost(trials, "VBPR")).mde, rel=1e-9)
    means = ", ".join(f"{arm} {text.percent(lost(trials, arm).mean())}" for arm in arms)
    assert f"{means} (mean {text.percent(first_S.mean())}) against VBPR" in got.detail


def test_the_effect_is_shown_with_its_sign_and_unit():
    got = GRAPH.evaluate(data(study(ZOO)))
    said = f" (+{got.effect:.4f} NDCG@10 lost as a share of the baseline, 95 % interval +"
    assert verdicts.numbers_in_words(got).startswith(said)


def test_equal_shares_of_unequal_baselines_are_no_difference():
    truth = {"A": {"baseline": 0.8, "text=noise": 0.6}, "B": {"baseline": 0.2, "text=noise": 0.15}}
    trials = study(truth, noise=1e-4)
    # A seed's luck would be another share of either baseline.
    luck_S = scores(trials, "A", "baseline") - 0.8
    trials["test.ndcg@10"] -= trials["seed"].map(dict(enumerate(luck_S)))
    got = MoreAffected(("A",), ("B",), "text=noise").evaluate(data(trials))
    assert got.effect == pytest.approx(0, abs=1e-3)
    assert got.verdict == "refuted"
    assert "inside +-1%" in got.detail


@pytest.mark.parametrize(
    ("after", "verdict", "words"),
    [
        (0.36, "refuted", "on the other side of 0"),
        (0.294, "supported", "but below the smallest effect of interest (1%)"),
        (0.28, "supported", ""),
    ],
)
def test_the_smallest_effect_is_a_percentage_point(after, verdict, words):
    # The other arm loses 26 % of a baseline of .4 too, so that points are .004.
    truth = {"A": {"baseline": 0.4, "x=zero": after}, "B": {"baseline": 0.4, "x=zero": 0.296}}
    got = MoreAffected(("A",), ("B",), "x=zero").evaluate(data(study(truth, noise=1e-4)))
    assert got.verdict == verdict
    assert words in got.detail
    assert ("below the smallest" in got.detail) == ("below" in words)


@pytest.mark.slow
def test_two_groups_that_lose_alike_are_told_apart_as_often_as_the_level_says():
    wrong, runs, alpha = 0, 14, 0.5
    truth = {arm: {"baseline": 0.3, "text=noise": 0.2} for arm in "AB"}
    for seed in range(runs):
        trials = study(truth, seeds=5, noise=0.005, seed=seed)
        got = MoreAffected(("A",), ("B",), "text=noise").evaluate(data(trials), alpha)
        wrong += got.low > 0 or got.high < 0
    assert sps.binom.ppf(0.001, runs, alpha) <= wrong <= sps.binom.ppf(0.999, runs, alpha)


def test_another_condition_may_be_what_is_compared_with():
    trials = study({arm: {**of, "text=zero": of["baseline"] / 2} for arm, of in ZOO.items()})
    half = dataclasses.replace(GRAPH, condition="text=zero", against="text=noise")
    first, second = (
        1 - scores(trials, arm, "text=zero") / scores(trials, arm, "text=noise")
        for arm in ("FREEDOM", "VBPR")
    )
    got = dataclasses.replace(half, arms=("FREEDOM",)).evaluate(data(trials))
    assert got.effect == pytest.approx(np.mean(first - second), rel=1e-12)


def test_an_arm_without_trials_is_left_out_and_said():
    trials = study(ZOO)
    got = dataclasses.replace(GRAPH, arms=("FREEDOM", "DRAGON", "MGCN")).evaluate(data(trials))
    assert "MGCN left out: no finished trial fits: arm = MGCN" in got.detail
    assert got.effect == GRAPH.evaluate(data(trials)).effect
    unscored = trials.copy()
    unscored.loc[unscored["cell"] == "DRAGON text=noise", "test.ndcg@10"] = math.nan
    assert "DRAGON left out" in GRAPH.evaluate(data(unscored)).detail


def test_a_group_of_which_nothing_is_left_is_not_tested():
    got = dataclasses.replace(GRAPH, than=("BM3", "SLMRec")).evaluate(data(study(ZOO)))
    assert got.verdict == "not tested"
    assert "BM3 left out: no finished trial fits" in got.detail
    assert "SLMRec left out" in got.detail
    plain = study(ZOO).drop(columns="arm")
    assert "no column 'arm'" in GRAPH.evaluate(data(plain)).detail


def test_holes_leave_the_seeds_that_all_arms_have():
    trials = study(ZOO, seeds=7)
    holes = ["FREEDOM baseline 1", "VBPR text=noise 3"]
    got = GRAPH.evaluate(data(trials[~trials["hash"].isin(holes)]))
    whole_S = (lost(trials, "FREEDOM") + lost(trials, "DRAGON")) / 2 - lost(trials, "VBPR")
    assert got.n == 5
    assert got.effect == pytest.approx(np.delete(whole_S, [1, 3]).mean(), rel=1e-12)
    assert "2 seeds are not in all arms" in got.detail


def test_an_arm_with_too_few_seeds_does_not_silence_its_group():
    trials = study(ZOO)
    few = trials[(trials["cell"] != "DRAGON baseline") | (trials["seed"] < 2)]
    got = GRAPH.evaluate(data(few))
    assert (got.n, got.verdict) == (6, "supported")
    assert "DRAGON left out: too few seeds" in got.detail
    assert got.effect == dataclasses.replace(GRAPH, arms=("FREEDOM",)).evaluate(data(few)).effect
    # Alone in its group it stays, and there is no verdict.
    alone = dataclasses.replace(GRAPH, arms=("DRAGON",)).evaluate(data(few))
    assert (alone.n, alone.verdict) == (2, "too few seeds")


def test_an_arm_with_nothing_to_lose_is_left_out():
    trials = study(ZOO)
    trials.loc[trials["hash"] == "DRAGON baseline 3", "test.ndcg@10"] = 0.0
    got = GRAPH.evaluate(data(trials))
    assert "DRAGON left out: under seed 3 there is nothing to lose: baseline has 0" in got.detail


@pytest.mark.parametrize("seeds", [1, 4])
def test_few_seeds_give_numbers_and_no_verdict(seeds):
    trials = data(study({**ZOO, "FREEDOM": FILLED}, seeds=seeds))
    for test in (GRAPH, FILLER):
        got = test.evaluate(trials)
        assert (got.verdict, got.n) == ("too few seeds", seeds)
        assert got.effect > 0


def test_users_stand_beside_groups_as_a_bootstrap_of_the_ratios_says():
    trials = study({arm: ZOO[arm] for arm in ("FREEDOM", "VBPR")}, seeds=5)
    rng = np.random.default_rng(2)
    taste_U = rng.random(300)
    users = {}
    for row in trials.itertuples():
        share = 0.6 if row.cell == "FREEDOM text=noise" else 0.9 if "noise" in row.cell else 1.0
        users[row.hash] = share * taste_U * (rng.random(300) < 0.7)
    got = MoreAffected(("FREEDOM",), ("VBPR",), "text=noise").evaluate(data(trials, users.get))
    drawn_DU = rng.integers(300, size=(4000, 300))

    def loss_D(arm):
        kept = [
            users[f"{arm} text=noise {s}"][drawn_DU].mean(1)
            / users[f"{arm} baseline {s}"][drawn_DU].mean(1)
            for s in range(5)
        ]
        return 1 - np.mean(kept, axis=0)

    expected = np.quantile(loss_D("FREEDOM") - loss_D("VBPR"), [0.025, 0.975])
    assert (got.user_low, got.user_high) == pytest.approx(tuple(expected), abs=0.006)
    assert np.ptp(expected) > 0.05
    users["VBPR baseline 2"] = None
    lost_one = MoreAffected(("FREEDOM",), ("VBPR",), "text=noise").evaluate(data(trials, users.get))
    assert math.isnan(lost_one.user_low)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"than": ()}, "both groups need an arm"),
        ({"than": ("VBPR", "DRAGON")}, "arms are named more than once: DRAGON"),
        ({"condition": "baseline"}, "'baseline' is compared with itself"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused_at_once(change, reason):
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(GRAPH, **change)


# --- fillers


def fillers(trials, names=("noise", "shuffle", "zero")):
    return np.array([scores(trials, "FREEDOM", f"text={name}") for name in names])


def dense_test(y_LS):
    """(F, epsilon, p) by orthonormal contrasts of the levels."""
    levels, seeds = y_LS.shape
    contrast_KS = linalg.helmert(levels) @ y_LS
    covariance_KK = np.cov(contrast_KS)
    f = seeds * (contrast_KS.mean(1) ** 2).sum() / np.trace(covariance_KK)
    epsilon = np.trace(covariance_KK) ** 2 / (levels - 1) / np.trace(covariance_KK @ covariance_KK)
    top = epsilon * (levels - 1)
    return f, epsilon, sps.f.sf(f, top, top * (seeds - 1))


def test_fillers_are_compared_by_a_block_anova_corrected_for_unequal_noise():
    trials = study({"FREEDOM": FILLED})
    trials.loc[trials["filler"] == "zero", "test.ndcg@10"] += 0.01 * (trials["seed"] % 3)
    y_LS = fillers(trials)
    f, epsilon, p = dense_test(y_LS)
    got = FILLER.evaluate(data(trials))
    assert 0.5 < epsilon < 0.8
    assert got.p == pytest.approx(p, rel=1e-9)
    assert f"F = {f:.3g} on {2 * epsilon:.3g} and {10 * epsilon:.3g} degrees" in got.detail
    base = scores(trials, "FREEDOM", "baseline").mean()
    assert got.effect == pytest.approx(np.ptp(y_LS.mean(1)), rel=1e-12)
    assert got.relative == pytest.approx(np.ptp(y_LS.mean(1)) / base, rel=1e-12)
    assert (got.n, got.unit) == (6, "ndcg@10")


def test_the_interval_is_that_of_all_pairs_at_once():
    trials = study({"FREEDOM": FILLED}, noise=0.005)
    y_LS = fillers(trials)
    ends = [
        sps.ttest_rel(y_LS[a], y_LS[b]).confidence_interval(1 - 0.05 / 3)
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    got = FILLER.evaluate(data(trials))
    assert got.low == pytest.approx(max(0, *(max(e.low, -e.high) for e in ends)), rel=1e-9)
    assert got.high == pytest.approx(max(max(-e.low, e.high) for e in ends), rel=1e-9)


def test_best_and_worst_are_named_and_other_rows_stay_out():
    trials = study({"FREEDOM": FILLED, "VBPR": {"text=mean": 0.9, "baseline": 0.2}})
    got = FILLER.evaluate(data(trials))
    assert got.verdict == "supported"
    assert "FREEDOM without text (train+eval): best filler shuffle, worst noise;" in got.detail
    names = ("shuffle", "zero", "noise")
    means = [f"{name} {fillers(trials, [name]).mean():.4f}" for name in names]
    assert f"means {', '.join(means)}; baseline" in got.detail
    two = dataclasses.replace(FILLER, fillers=("zero", "noise")).evaluate(data(trials))
    expected = sps.ttest_rel(*fillers(trials, ("zero", "noise")))
    assert two.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert (two.low, two.high) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-9)


def test_the_draws_of_a_random_filler_are_averaged():
    trials = study({"FREEDOM": {**FILLED, "text=noise#1": 0.33, "text=noise#2": 0.27}})
    noise_S = fillers(trials, ["noise", "noise#1", "noise#2"]).mean(0)
    y_LS = np.array([noise_S, *fillers(trials, ("shuffle", "zero"))])
    got = FILLER.evaluate(data(trials))
    assert got.p == pytest.approx(dense_test(y_LS)[2], rel=1e-9)
    assert got.effect == pytest.approx(np.ptp(y_LS.mean(1)), rel=1e-12)


def test_alike_fillers_are_refuted_and_few_seeds_or_much_noise_are_not():
    alike = {"FREEDOM": {"baseline": 0.4, "text=noise": 0.3, "text=zero": 0.3, "text=mean": 0.3}}
    got = FILLER.evaluate(data(study(alike, noise=3e-4)))
    assert got.verdict == "refuted"
    assert got.high < 0.004
    assert "all differences are inside +-1% of the base" in got.detail
    noisy = FILLER.evaluate(data(study(alike, noise=0.005)))
    assert (noisy.verdict, noisy.low) == ("not separable", 0)
    assert noisy.high > 0.004
    same = study(alike, noise=0.0)
    assert FILLER.evaluate(data(same)).verdict == "refuted"


def test_a_difference_below_the_smallest_of_interest_is_supported_and_said_to_be_small():
    truth = {"FREEDOM": {"baseline": 0.4, "text=noise": 0.3, "text=zero": 0.302}}
    got = FILLER.evaluate(data(study(truth, noise=1e-4)))
    assert got.verdict == "supported"
    assert "but below the smallest effect of interest (1%)" in got.detail


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (DependsOnFiller("MGCN", "text"), "no finished trial fits: arm = MGCN"),
        (DependsOnFiller("FREEDOM", "image"), "FREEDOM without image (train+eval) has one filler"),
        (DependsOnFiller("FREEDOM", "text", ("zero", "mean")), "has one filler only: zero"),
        (
            DependsOnFiller("FREEDOM", "image+text"),
            "no finished trial fits: arm = FREEDOM and knoc",
        ),
        (DependsOnFiller("FREEDOM", "text", when="eval"), "(eval) has one filler only: zero"),
    ],
)
def test_fewer_than_two_fillers_are_not_tested(test, reason):
    got = test.evaluate(data(study({"FREEDOM": FILLED})))
    assert got.verdict == "not tested"
    assert reason in got.detail


def test_fillers_that_are_missing_are_said():
    test = dataclasses.replace(FILLER, fillers=("noise", "zero", "mean", "shuffle"))
    trials = study({"FREEDOM": FILLED})
    got = test.evaluate(data(trials[(trials["filler"] != "shuffle") | (trials["seed"] < 2)]))
    assert "fillers without enough finished trials: mean, shuffle" in got.detail
    assert (got.n, got.verdict) == (6, "supported")


def test_a_missing_baseline_leaves_no_scale():
    trials = study({"FREEDOM": FILLED})
    got = FILLER.evaluate(data(trials[trials["condition"] != "baseline"]))
    assert "no finished trial fits: arm = FREEDOM and condition = baseline" in got.detail


def test_users_of_the_best_and_worst_filler_are_compared_at_a_level_for_all_pairs():
    trials = study({"FREEDOM": FILLED})
    rng = np.random.default_rng(1)
    users = {name: rng.random(12_000) + ("shuffle" in name) for name in trials["hash"]}
    got = FILLER.evaluate(data(trials, users.get))
    difference_U = np.mean(
        [users[f"FREEDOM text=shuffle {s}"] - users[f"FREEDOM text=noise {s}"] for s in range(6)], 0
    )
    expected = sps.ttest_1samp(difference_U, 0).confidence_interval(1 - 0.05 / 3)
    assert (got.user_low, got.user_high) == pytest.approx(tuple(expected), rel=1e-9)


def test_fillers_that_cannot_be_compared_are_refused_at_once():
    with pytest.raises(ValueError, match=r"two fillers are compared at least, got \('zero',\)"):
        DependsOnFiller("FREEDOM", "text", ("zero",))
    with pytest.raises(ValueError, match="FREEDOM: no modality is named"):
        DependsOnFiller("FREEDOM", "")


# --- levels, simulated


@pytest.mark.slow
@pytest.mark.parametrize("noise_L", [(1, 1), (1, 1, 1, 1), (1, 1, 1, 4)])
def test_levels_without_any_difference_are_rarely_called_different(noise_L):
    rng = np.random.default_rng(20)
    noise_L1 = np.array(noise_L)[:, None]
    runs, alpha = 80, 0.2
    wrong = apart = chosen_apart = 0
    for _ in range(runs):
        y_LS = noise_L1 * rng.normal(size=(len(noise_L), 5))
        got = judge_spread(y_LS, 1, alpha)
        wrong += got.verdict == "supported"
        apart += got.low > 0
        worst, *_, best = np.argsort(y_LS.mean(1))
        chosen_apart += Paired.of(y_LS[best], y_LS[worst]).interval(alpha)[0] > 0
    assert at_most(wrong, runs, alpha)
    assert at_most(apart, runs, alpha)
    if len(noise_L) == 2:  # one pair: nothing is chosen, and the test is exact
        assert wrong == apart == chosen_apart >= sps.binom.ppf(0.001, runs, alpha)
    else:
        assert not at_most(chosen_apart, runs, alpha)


def test_the_interval_covers_the_largest_true_difference_and_the_test_finds_it():
    rng = np.random.default_rng(21)
    mean_L1, noise_L1 = (np.array(x)[:, None] for x in ([0, 0.5, 1, 1], [0.3, 0.6, 0.3, 0.6]))
    runs, alpha = 60, 0.2
    covered = found = 0
    for _ in range(runs):
        got = judge_spread(mean_L1 + noise_L1 * rng.normal(size=(4, 6)), 1, alpha)
        covered += got.low <= 1 <= got.high
        found += got.verdict == "supported"
    assert covered >= sps.binom.ppf(1e-4, runs, 1 - alpha)
    assert found > 0.8 * runs


# Two levels whose differences under five seeds have sd .01: the interval is +- .012417.
@pytest.mark.parametrize(
    ("gap", "base", "verdict", "words"),
    [
        (0.013, 1.0, "supported", ""),
        (0.013, 3.0, "supported", "but below the smallest effect of interest (1%)"),
        (0.001, 1.4, "refuted", "all differences are inside +-1% of the base"),
        (0.001, 1.3, "not separable", ""),
    ],
)
def test_verdict_of_a_spread_by_hand(gap, base, verdict, words):
    off_S = np.array([-1, -1, 0, 1, 1]) * 0.01
    got = judge_spread([gap + off_S, 0 * off_S], base)
    assert got.verdict == verdict
    assert got.high == pytest.approx(gap + 0.012417, abs=1e-6)
    assert got.detail.partition("; ")[2] == words


def test_levels_may_differ_together_and_not_in_any_pair():
    rng = np.random.default_rng(4)
    y_LS = np.repeat([[0.0], [0.9]], 3, axis=0) + 0.45 * rng.normal(size=(6, 5))
    pairs = [sps.ttest_rel(a, b).pvalue for a, b in itertools.combinations(y_LS, 2)]
    got = judge_spread(y_LS, 1)
    assert min(pairs) > 0.05 / 15
    assert (got.verdict, got.low) == ("supported", 0)
    assert "but no two levels are told apart by themselves" in got.detail


def test_the_detectable_difference_of_two_levels_is_the_paired_tests():
    y_LS = np.random.default_rng(22).normal(size=(2, 7))
    got, expected = judge_spread(y_LS, 1), Paired.of(*y_LS)
    assert got.mde == pytest.approx(expected.mde, rel=1e-5)
    assert got.p == pytest.approx(expected.p(), rel=1e-9)


def test_the_detectable_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(23)
    mde = np.mean([judge_spread(rng.normal(size=(3, 8)), 1).mde for _ in range(20)])
    mean_L1 = np.array([-mde / 2, 0, mde / 2])[:, None]
    found = sum(judge_spread(mean_L1 + rng.normal(size=(3, 8)), 1).p < 0.05 for _ in range(60))
    assert sps.binom.ppf(0.001, 60, 0.8) <= found <= sps.binom.ppf(0.999, 60, 0.8)


def test_levels_without_numbers_are_refused():
    for bad in ([[1.0, 2.0]], [[1.0, math.nan], [1.0, 1.0]]):
        with pytest.raises(ValueError, match="need finite numbers for two levels or more"):
            judge_spread(bad, 1)


# --- together with the others


def test_one_cell_is_compared_with_another_by_arm_and_condition():
    truth = {"VBPR": {"baseline": 0.2, "text=noise": 0.2, "image=noise": 0.18}}
    trials = study(truth, seeds=10, noise=5e-4)
    base, text_knocked, image_knocked = (
        Where({"arm": "VBPR", "condition": name}) for name in truth["VBPR"]
    )
    got = Better(base, than=image_knocked).evaluate(data(trials))
    expected = sps.ttest_rel(
        scores(trials, "VBPR", "baseline"), scores(trials, "VBPR", "image=noise")
    )
    assert got.verdict == "supported"
    assert got.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert Equivalent(text_knocked, than=base).evaluate(data(trials)).verdict == "equivalent"
    assert NoWorse(image_knocked, than=base).evaluate(data(trials)).verdict == "refuted"
    by_columns = Where({"arm": "VBPR", "knocked": "text", "filler": "noise", "when": "train+eval"})
    assert NoWorse(by_columns, than=base).evaluate(data(trials)).verdict == "supported"


def test_holm_moves_the_interval_of_either_claim():
    trials = data(study({**ZOO, "FREEDOM": FILLED}, noise=0.02))
    asked = [
        Claim("graph models use text more", "by hand", GRAPH),
        Claim("the filler matters", "by hand", FILLER),
    ]
    got = decide(pickle.loads(pickle.dumps(asked)), trials)
    smaller = min(verdict.p for _, verdict in got)
    for claim, verdict in got:
        level = 0.025 if verdict.p == smaller else 0.05
        alone = claim.test.evaluate(trials, level)
        assert (verdict.low, verdict.high) == (alone.low, alone.high)
        assert f"interval at {100 * (1 - level):.3g} %" in verdict.detail
        assert verdict.p_corrected == pytest.approx(verdict.p * 0.05 / level)

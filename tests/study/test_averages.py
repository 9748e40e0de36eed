"""Claims about means over cells, against values by hand and an independent computation."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from mmrec.stats import MIN_SEEDS
from mmrec.study import verdicts
from mmrec.study.averages import Drops, Holds, MeanBetter, RetainsMore
from mmrec.study.claims import ClaimData, Where

LEFT = ("missing=a", "missing=b")
WHOLE = [0.40, 0.42, 0.41, 0.43, 0.44]
HALF = [0.20, 0.22, 0.19, 0.21, 0.23]
LESS = [0.10, 0.08, 0.11, 0.10, 0.09]
"""The mean of HALF and LESS is about 37 % of WHOLE."""
OTHER = [0.30, 0.32, 0.30, 0.33, 0.34]
SCORES = {
    ("A", "baseline"): WHOLE,
    ("A", "missing=a"): HALF,
    ("A", "missing=b"): LESS,
    ("B", "baseline"): OTHER,
    ("B", "missing=a"): LESS,
    ("B", "missing=b"): LESS,
}


def data(scores=SCORES, per_user=lambda _: None, extra=()):
    """Trials whose test objective is given by arm and condition, seed by seed; NaN: none."""
    rows = [
        {
            "hash": f"{arm} {condition} {seed}",
            "cell": f"{arm} {condition}",
            "label": f"{arm} {condition}",
            "arm": arm,
            "condition": condition,
            "seed": seed,
            "valid.ndcg@10": value,
            "test.ndcg@10": value,
            "measure.gap": 1 - value,
        }
        for (arm, condition), by_seed in scores.items()
        for seed, value in enumerate(by_seed)
    ]
    trials = pd.DataFrame([*rows, *extra]).sample(frac=1, random_state=0)
    return ClaimData(trials, "ndcg@10", per_user)


def of(arm, condition=LEFT):
    return Where({"arm": arm, "condition": condition})


BETTER = MeanBetter(of("A"), than=of("B"))
RETAINS = RetainsMore(of("A"), of("A", "baseline"), of("B"), of("B", "baseline"))


def shares(part, whole):
    return np.mean(part, axis=0) / np.array(whole)


# --- means


def test_the_mean_over_cells_is_taken_within_a_seed():
    found = BETTER.evaluate(data())
    difference = (np.array(HALF) + LESS) / 2 - LESS
    ends = sps.t.interval(0.95, 4, difference.mean(), sps.sem(difference))
    assert found.verdict == "supported"
    assert found.effect == pytest.approx(0.057)  # (.21 - .096) / 2, by hand
    assert (found.low, found.high) == pytest.approx(ends)
    assert found.p == pytest.approx(sps.ttest_1samp(difference, 0).pvalue)
    assert found.relative == pytest.approx(difference.mean() / np.mean(LESS))
    assert (found.n, found.unit) == (5, "ndcg@10")
    assert MeanBetter(of("B"), than=of("A")).evaluate(data()).verdict == "refuted"


def test_another_column_can_be_averaged():
    found = MeanBetter(of("A"), than=of("B"), column="measure.gap").evaluate(data())
    assert found.effect == pytest.approx(-BETTER.evaluate(data()).effect)
    assert (found.verdict, found.unit) == ("refuted", "measure.gap")


def test_sides_under_other_conditions_are_not_compared():
    fewer = {place: v for place, v in SCORES.items() if place != ("B", "missing=b")}
    for test in (BETTER, RETAINS):
        found = test.evaluate(data(fewer))
        assert found.verdict == "not tested"
        assert "on one side only are missing=b" in found.detail
    single = MeanBetter(of("A", "missing=a"), than=of("B", "missing=b")).evaluate(data(fewer))
    assert single.verdict == "not tested"  # B has no cell there
    single = MeanBetter(of("A", "missing=b"), than=of("B", "missing=a")).evaluate(data(fewer))
    assert single.effect == pytest.approx(0, abs=1e-12)  # one condition a side may be another


def test_a_cell_without_enough_seeds_is_missing_on_its_side():
    thin = {**SCORES, ("B", "missing=b"): [0.1, math.nan, math.nan, math.nan, math.nan]}
    found = BETTER.evaluate(data(thin))
    assert found.verdict == "not tested"
    assert "missing=b" in found.detail


def test_conditions_of_unlike_weight_are_refused():
    twice = {**SCORES, ("A2", "missing=a"): HALF}
    found = MeanBetter(of(("A", "A2")), than=of("B")).evaluate(data(twice))
    assert found.verdict == "not tested"
    assert "missing=a has 2 cells" in found.detail
    both = {**twice, ("A2", "missing=b"): LESS}
    found = MeanBetter(of(("A", "A2")), than=of("B")).evaluate(data(both))
    assert found.effect == pytest.approx(BETTER.evaluate(data()).effect)


def test_a_cell_on_both_sides_is_refused():
    found = MeanBetter(of("A"), than=of(("A", "B"))).evaluate(data())
    assert found.verdict == "not tested"
    assert "in common" in found.detail


def test_only_seeds_of_all_cells_count():
    holes = {**SCORES, ("A", "missing=b"): [*LESS, 0.5], ("A", "missing=a"): [*HALF, 0.5]}
    found = BETTER.evaluate(data(holes))  # B has no sixth seed
    assert found.effect == pytest.approx(BETTER.evaluate(data()).effect)
    assert "1 seeds are not in all" in found.detail


def test_few_seeds_give_no_verdict():
    four = {place: values[: MIN_SEEDS - 1] for place, values in SCORES.items()}
    whole = of("A", "baseline")
    for test in (BETTER, RETAINS, Drops(of("A"), whole), Holds(of("A"), whole)):
        assert test.evaluate(data(four)).verdict == "too few seeds"


# --- what is kept


def test_retaining_more_is_judged_by_the_shares_of_each_seed():
    found = RETAINS.evaluate(data())
    difference = shares([HALF, LESS], WHOLE) - shares([LESS, LESS], OTHER)
    assert found.effect == pytest.approx(difference.mean())
    assert found.p == pytest.approx(sps.ttest_1samp(difference, 0).pvalue)
    assert found.relative == pytest.approx(found.effect)
    ends = sps.t.interval(0.95, 4, difference.mean(), sps.sem(difference))
    assert (found.low, found.high) == pytest.approx(ends)
    assert "A (mean of 2 cells under 2 conditions) keeps 36.4 % of A baseline" in found.detail
    assert verdicts.effect(found, found.effect).startswith("+")  # a difference keeps its sign


def test_a_steep_fall_is_a_share_below_the_limit():
    share = shares([HALF, LESS], WHOLE)
    found = Drops(of("A"), of("A", "baseline")).evaluate(data())
    assert found.verdict == "supported"
    assert found.effect == pytest.approx(share.mean())
    assert found.relative == pytest.approx(share.mean() - 1)
    assert (found.low, found.high) == pytest.approx(
        sps.t.interval(0.95, 4, share.mean(), sps.sem(share))
    )
    assert found.p == pytest.approx(sps.ttest_1samp(share, 0.5).pvalue)
    assert Holds(of("A"), of("A", "baseline")).evaluate(data()).verdict == "refuted"
    held = Holds(of("A"), of("A", "baseline"), by=0.8).evaluate(data())
    assert (held.verdict, held.effect) == ("supported", pytest.approx(share.mean()))
    assert verdicts.effect(found, found.effect) == "0.36"


def test_a_share_at_the_limit_is_neither_a_fall_nor_held():
    noisy = [[0.1, 0.3, 0.2, 0.25, 0.15], [0.4] * 5]
    made = data({("A", "baseline"): noisy[1], ("A", "missing=a"): noisy[0]})
    for test in (Drops, Holds):
        found = test(of("A", "missing=a"), of("A", "baseline")).evaluate(made)
        assert (found.verdict, found.effect) == ("not separable", pytest.approx(0.5))
        assert found.low < 0.5 < found.high


def test_nothing_to_lose_is_not_tested():
    made = data({**SCORES, ("A", "baseline"): [0.4, 0.0, 0.4, 0.4, 0.4]})
    for test in (RETAINS, Drops(of("A"), of("A", "baseline"))):
        found = test.evaluate(made)
        assert found.verdict == "not tested"
        assert "under seed 1 A baseline has nothing to lose" in found.detail


def test_a_loss_of_everything_or_nothing_is_no_limit():
    with pytest.raises(ValueError, match=r"by=1"):
        Drops(of("A"), of("A", "baseline"), by=1.0)


# --- users


def test_the_interval_over_users_is_about_the_same_number():
    rng = np.random.default_rng(0)
    shape = rng.uniform(0.5, 1.5, 300)
    shape /= shape.mean()
    scores = {
        f"{arm} {condition} {seed}": value
        for (arm, condition), by_seed in SCORES.items()
        for seed, value in enumerate(by_seed)
    }
    made = data(per_user=lambda name: scores[name] * shape)
    for test in (BETTER, RETAINS, Drops(of("A"), of("A", "baseline"))):
        found = test.evaluate(made)
        assert found.user_low <= found.effect + 1e-9
        assert found.user_high >= found.effect - 1e-9
    # Every user keeps the same share, so that users leave no doubt about it.
    assert found.user_high - found.user_low == pytest.approx(0, abs=1e-9)

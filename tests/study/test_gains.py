"""Claims of a gain by a share, against values by hand and scipy."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec.study.claims import Claim, ClaimData, Where, decide
from mmrec.study.gains import BetterBy, gain_interval

BASE = np.array([0.10, 0.11, 0.09, 0.10, 0.12])
NOISE = np.array([0.001, -0.001, 0.002, -0.002, 0.0])
CLAIM = BetterBy(Where({"arm": "A"}), Where({"arm": "B"}), 0.2)


def judged(gain: float, per_user=lambda _: None, seeds: int = 5):
    """The verdict where A is better than B by a share, up to noise."""
    scores = {"A": (1 + gain) * BASE + NOISE, "B": BASE}
    rows = [
        {"hash": f"{arm}{seed}", "cell": arm, "label": arm, "arm": arm, "seed": seed,
         "valid.ndcg@10": value, "test.ndcg@10": value}
        for arm, values in scores.items()
        for seed, value in enumerate(values[:seeds])
    ]  # fmt: skip
    return CLAIM.evaluate(ClaimData(pd.DataFrame(rows), "ndcg@10", per_user))


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.3, "supported"), (0.2, "not separable"), (0.1, "refuted")]
)
def test_what_is_judged_is_the_difference_from_the_claimed_gain(gain, verdict):
    found = judged(gain)
    assert found.verdict == verdict
    assert found.effect == pytest.approx(gain)  # the noise sums to 0
    assert found.relative == found.effect
    expected = sps.ttest_rel((1 + gain) * BASE + NOISE, 1.2 * BASE)
    assert found.p == pytest.approx(expected.pvalue)
    assert f"gain +{100 * gain:.1f} %" in found.detail
    assert "claimed +20.0 % or more" in found.detail


def test_too_few_seeds_and_one_cell_give_no_verdict():
    assert judged(0.3, seeds=4).verdict == "too few seeds"
    same = BetterBy(Where({"arm": "A"}), Where({"arm": ("A",)}), 0.2)
    rows = pd.DataFrame(
        [{"hash": "a", "cell": "A", "label": "A", "arm": "A", "seed": 0, "valid.ndcg@10": 0.1,
          "test.ndcg@10": 0.1}]
    )  # fmt: skip
    assert same.evaluate(ClaimData(rows, "ndcg@10", lambda _: None)).verdict == "not tested"
    with pytest.raises(ValueError, match="share=0"):
        BetterBy(Where({"arm": "A"}), Where({"arm": "B"}), 0.0)


def test_users_speak_in_the_same_unit():
    shape = np.linspace(0.5, 1.5, 200)
    scale = {"A": 1.3 * 0.104, "B": 0.104}  # .104 is the mean of BASE
    found = judged(0.3, lambda name: scale[name[0]] * shape)
    assert found.user_low < 0.3 < found.user_high


SCORES = st.lists(st.floats(0.05, 0.2), min_size=5, max_size=8)


@settings(max_examples=30)
@given(SCORES, st.integers(0, 1000))
def test_the_interval_of_the_gain_has_the_gains_that_the_test_lets_stand(scores, seed):
    y_S = np.array(scores)
    x_S = 1.2 * y_S + np.random.default_rng(seed).normal(0, 0.01, len(y_S))
    low, high = gain_interval(x_S, y_S, 0.05)
    if np.isnan(low):  # the base is not told from 0
        assert sps.ttest_1samp(y_S, 0).pvalue >= 0.05
        return
    for end in (low, high):
        assert sps.ttest_rel(x_S, (1 + end) * y_S).pvalue == pytest.approx(0.05, abs=1e-6)
    assert low <= x_S.mean() / y_S.mean() - 1 <= high


def test_the_interval_says_what_the_verdict_says_after_correction():
    rows = []
    for arm, gain in (("A", 0.23), ("B", 0.0), ("C", 0.05)):
        for seed, value in enumerate((1 + gain) * BASE + NOISE * (arm != "B")):
            rows.append({"hash": f"{arm}{seed}", "cell": arm, "label": arm, "arm": arm,
                         "seed": seed, "valid.ndcg@10": value, "test.ndcg@10": value})  # fmt: skip
    data = ClaimData(pd.DataFrame(rows), "ndcg@10", lambda _: None)
    tests = [BetterBy(Where({"arm": arm}), Where({"arm": "B"}), 0.2) for arm in "AC"]
    for _, found in decide([Claim(str(n), "", test) for n, test in enumerate(tests)], data):
        beyond, below = found.low > 0.2, found.high < 0.2
        verdict = "supported" if beyond else "refuted" if below else "not separable"
        assert found.verdict == verdict

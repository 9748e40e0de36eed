"""Hits in common, on users that can be counted by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec.study.claims import Claim, ClaimData, Where, decide
from mmrec.study.overlap import OverlapsMore, Shared, shared_hits

FOUND = {
    "F0": "110000", "T0": "111000", "I0": "100001",  # Jaccard of F with T 2/3, with I 1/3
    "F1": "110010", "T1": "110010", "I1": "000111",  # 1 and 1/5
    "F2": "011100", "T2": "111000", "I2": "000100",  # 1/2 and 1/3
    "F3": "111100", "T3": "011110", "I3": "100010",  # 3/5 and 1/5
    "F4": "100000", "T4": "110000", "I4": "000011",  # 1/2 and 0
}  # fmt: skip
"""Arm and seed -> for each of six users, whether the item was found."""
WITH_T, WITH_I = [2 / 3, 1, 1 / 2, 3 / 5, 1 / 2], [1 / 3, 1 / 5, 1 / 3, 1 / 5, 0]


def of(arm):
    return Where({"arm": arm})


CLAIM = OverlapsMore(of("F"), of("T"), of("I"))


def data(found=FOUND) -> ClaimData:
    """Vectors of a test objective whose zeros are given."""
    kept = {name: np.array([0.4 * int(bit) for bit in bits]) for name, bits in found.items()}
    rows = [
        {"hash": name, "cell": name[0], "label": name[0], "arm": name[0], "seed": int(name[1]),
         "condition": "baseline", "valid.ndcg@10": 0.1, "test.ndcg@10": vector.mean()}
        for name, vector in kept.items()
    ]  # fmt: skip
    return ClaimData(pd.DataFrame(rows).sample(frac=1, random_state=0), "ndcg@10", kept.get)


def test_overlaps_are_paired_by_seed():
    found = CLAIM.evaluate(data())
    difference = np.array(WITH_T) - WITH_I
    assert found.verdict == "supported"
    assert found.effect == pytest.approx(difference.mean())
    assert found.p == pytest.approx(sps.ttest_1samp(difference, 0).pvalue)
    assert found.relative == pytest.approx(difference.mean() / np.mean(WITH_I))
    ends = sps.t.interval(0.95, 4, difference.mean(), sps.sem(difference))
    assert (found.low, found.high) == pytest.approx(ends)
    assert OverlapsMore(of("F"), of("I"), of("T")).evaluate(data()).verdict == "refuted"


def test_a_claim_about_users_is_corrected_with_the_others():
    """All other claims are first judged without users, who decide nothing there."""
    claims = [Claim("more", "", CLAIM), Claim("less", "", OverlapsMore(of("F"), of("I"), of("T")))]
    first, second = (verdict for _, verdict in decide(claims, data()))
    assert first.p_corrected == pytest.approx(2 * first.p)
    assert (first.verdict, second.verdict) == ("supported", "refuted")
    assert "interval at 97.5 %" in first.detail


def test_what_was_not_kept_or_not_found_is_not_tested():
    nobody = {**FOUND, "F4": "000000", "T4": "000000"}
    found = CLAIM.evaluate(data(nobody))
    assert found.verdict == "not tested"
    assert "nobody is found by F" in found.detail
    without = data()
    without = ClaimData(without.trials, without.objective, lambda _: None)
    assert "F kept nothing of its users under seed" in CLAIM.evaluate(without).detail


def test_pairs_are_counted_seed_by_seed():
    table = shared_hits(("T", "F", "absent", "I"), "baseline", data())
    assert list(dict.fromkeys(zip(table["one"], table["other"], strict=True))) == [
        ("T", "F"), ("T", "I"), ("F", "I"),
    ]  # fmt: skip
    row = table[(table["one"] == "T") & (table["other"] == "F") & (table["seed"] == 0)].iloc[0]
    assert row[["found_one", "found_other", "both", "users"]].tolist() == [3, 2, 2, 6]
    assert len(table) == 3 * 5


def test_independent_arms_share_what_chance_gives():
    counts = Shared(one=30, other=20, both=12, users=100)
    assert counts.jaccard == pytest.approx(12 / 38)
    assert (counts.share, counts.turned.share) == (pytest.approx(0.4), pytest.approx(0.6))
    assert counts.independent.both == pytest.approx(6)  # of 100, .3 times .2
    assert counts.independent.share == pytest.approx(0.2)  # what the other finds of anybody
    assert counts.independent.jaccard == pytest.approx(6 / 44)
    with pytest.raises(ValueError, match="3 and 2 users"):
        Shared.of(np.ones(3, bool), np.ones(2, bool))


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_an_overlap_is_that_of_sets(bits):
    one_U, other_U = np.array(bits).T
    one, other = (set(np.flatnonzero(found)) for found in (one_U, other_U))
    counts = Shared.of(one_U, other_U)
    if one | other:
        assert counts.jaccard == pytest.approx(len(one & other) / len(one | other))
        assert 0 <= counts.jaccard <= 1
    if one:
        assert counts.share == pytest.approx(len(one & other) / len(one))
    assert counts.turned.jaccard == pytest.approx(counts.jaccard, nan_ok=True)

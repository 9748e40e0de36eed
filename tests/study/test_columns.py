"""Claims about two numbers of the same trials, on numbers that are known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as sps

from mmrec.study.claims import ClaimData, Where
from mmrec.study.columns import Exceeds

ABOVE = Exceeds(Where({"arm": "A"}), "measure.accuracy", "measure.chance")
ACCURACY = np.array([0.9, 0.7, 0.8, 0.85, 0.6])
CHANCE = np.array([0.5, 0.4, 0.5, 0.5, 0.3])


def trials(accuracy=ACCURACY, chance=CHANCE) -> pd.DataFrame:
    rows = [
        {
            "hash": f"{arm}{seed}", "cell": arm, "label": arm, "arm": arm, "seed": seed,
            "condition": "baseline", "valid.ndcg@10": 0.1, "test.ndcg@10": 0.1,
            "measure.accuracy": value if arm == "A" else 0.0, "measure.chance": low,
        }
        for arm in "AB"
        for seed, (value, low) in enumerate(zip(accuracy, chance, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def judged(rows: pd.DataFrame):
    return ABOVE.evaluate(ClaimData(rows, "ndcg@10", lambda _: None))


def test_numbers_of_one_trial_are_paired():
    got = judged(trials())
    assert got.verdict == "supported"
    expected = sps.ttest_rel(ACCURACY, CHANCE)
    assert got.effect == pytest.approx((ACCURACY - CHANCE).mean())
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert got.relative == pytest.approx(got.effect / CHANCE.mean())
    assert got.p == pytest.approx(expected.pvalue)
    assert got.unit == "measure.accuracy"


def test_the_verdict_may_go_any_way():
    assert judged(trials(CHANCE, ACCURACY)).verdict == "refuted"
    around = CHANCE + np.array([0.1, -0.1, 0.08, -0.1, 0.02])
    assert judged(trials(around)).verdict == "not separable"


def test_what_was_not_measured_is_not_tested():
    assert judged(trials().drop(columns="measure.chance")).detail == (
        "the trials have no column 'measure.chance'"
    )
    empty = judged(trials(accuracy=np.full(5, math.nan)))
    assert empty.verdict == "not tested"
    assert empty.detail.endswith("were not measured: A")
    rows = trials(accuracy=[math.nan, *ACCURACY[1:]])
    assert judged(rows).verdict == "too few seeds"
    assert "1 seeds have no measure" in judged(rows).detail

"""Hits in common in the report, on counts that are known."""

import dataclasses

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy import stats as sps

from mmrec.reports import shared_hits
from mmrec.reports.exhibits import exhibits
from mmrec.study.overlap import HITS
from mmrec.study.tables import StudyTables
from mmrec.study.views import SharedHits
from tests.reports import compared

VIEW = SharedHits(of="fused", with_=("text", "image", "absent"))
COUNTS = {
    ("fused", "text"): [(40, 50, 30), (42, 48, 32), (38, 52, 28)],
    ("fused", "image"): [(40, 20, 10), (42, 22, 8), (38, 18, 9)],
    ("text", "image"): [(50, 20, 12), (48, 22, 10), (52, 18, 9)],
}
"""Pair -> found by the one, by the other, by both, of 100 users, seed by seed."""


def made(counts=COUNTS, *views) -> StudyTables:
    tables = compared.study({(a, "baseline"): [0.1] * 3 for a in ("fused", "text", "image")})
    rows = [
        (*pair, seed, *found, 100)
        for pair, seeds in counts.items()
        for seed, found in enumerate(seeds)
    ]
    hits = pd.DataFrame(rows, columns=HITS)
    return dataclasses.replace(tables, hits=hits, views=tuple(views))


def test_overlaps_and_what_chance_gives_are_means_over_seeds():
    table = shared_hits.shared(made(), VIEW).set_index(["one", "other"])
    row = table.loc[("fused", "text")]
    jaccard = np.array([30 / 60, 32 / 58, 28 / 62])
    ends = sps.t.interval(0.95, 2, jaccard.mean(), sps.sem(jaccard))
    assert row["jaccard"] == pytest.approx(jaccard.mean())
    assert (row["jaccard_low"], row["jaccard_high"]) == pytest.approx(ends)
    assert row["share"] == pytest.approx(np.mean([30 / 40, 32 / 42, 28 / 38]))
    assert table.loc[("text", "fused"), "share"] == pytest.approx(
        np.mean([30 / 50, 32 / 48, 28 / 52])
    )
    both = np.array([0.2, 0.2016, 0.1976])  # .40 * .50, .42 * .48, .38 * .52
    assert row["expected_jaccard"] == pytest.approx(np.mean(both / (0.9 - both)))
    assert row["expected_share"] == pytest.approx(0.5)
    assert row["beyond"] == pytest.approx((jaccard - both / (0.9 - both)).mean())
    assert (row["n"], len(table)) == (3, 6)


def test_only_the_arms_asked_for_are_shown():
    table = shared_hits.shared(made(), SharedHits(arms=("image", "text")))
    assert table["one"].tolist() == ["image", "text"]


def test_the_exhibits_have_words_table_and_figure():
    by_key = {shown.key: shown for shown in exhibits(made(COUNTS, VIEW))}
    every, own = by_key["shared_hits"], by_key["shared_hits_of"]
    assert "Most alike are text and fused, 0.501" in every.finding
    assert isinstance(every.figure, go.Figure)
    (heat,) = every.figure.data
    assert np.isnan(np.diag(np.array(heat.z, float))).all()
    assert "with image 0.178" in own.finding
    assert "75 % of its hits are found there too (by chance 50 %)" in own.finding
    assert "Without a seed in common: absent" in own.finding
    assert isinstance(own.figure, go.Figure)


def test_nothing_in_common_is_said():
    (shown,) = shared_hits.exhibits(made({}), VIEW)
    assert shown.figure is None
    assert "No two arms" in shown.finding

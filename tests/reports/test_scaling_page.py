"""The page of a scaling study: its numbers are those of the tables, and its answer comes first."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from mmrec.reports.scaling import exhibits, publish
from mmrec.study.claims import Claim, decide
from mmrec.study.scaling import GrowsAtMost, ScalingTables, evidence
from mmrec.study.store import Folder

SIZES = (1000, 2000, 4000, 8000)
RUN = {
    "study": "made_up",
    "question": "How does <it> grow?",
    "work": "one step",
    "methods": {"fast": "goes far", "slow": "does not", "gone": "was never measured"},
    "seeds": 5,
    "seconds": 8.0,
    "mib": 2048.0,
    "clock": "processor",
    "smoke": False,
    "host": "here",
    "device": "cpu",
    "threads": 1,
    "hardware": "a machine",
    "torch": "2.0",
    "code": "0123abcd",
    "command": "python studies/made_up.py",
    "created": "2026-01-01T00:00:00+00:00",
    "git_commit": "0" * 40,
    "git_dirty": False,
    "versions": {"mmrec": "1"},
    "out": "runs/made_up",
}
CLAIM = Claim("It is near-linear", "somebody", GrowsAtMost("slow", "seconds", 1.2))


@pytest.fixture(scope="module")
def tables() -> ScalingTables:
    rng = np.random.default_rng(1)
    made = [
        (method, n, seed, n**power * math.exp(0.02 * rng.standard_normal()), n / 100, 1.0)
        for method, power, most in (("fast", 1.0, 8000), ("slow", 2.0, 4000))
        for n in SIZES
        for seed in range(5)
        if n <= most
    ]
    rows = pd.DataFrame(made, columns=["method", "nodes", "seed", "seconds", "mib", "load"])
    stops = [("slow", 8000, "would take about 9 s"), ("gone", 1000, "ran out of memory")]
    return ScalingTables(
        run=RUN,
        rows=rows,
        pilots=rows.head(0),
        unreached=pd.DataFrame(stops, columns=["method", "nodes", "reason"]),
        claims=decide([CLAIM], evidence(rows)),
    )


@pytest.fixture(scope="module")
def shown(tables):
    return {exhibit.key: exhibit for exhibit in exhibits(tables)}


def test_tables_and_page_say_the_same(tables, tmp_path):
    address = publish(tables, Folder.at(tmp_path))
    folder = tmp_path / "report"
    assert address == str(folder / "index.html")
    text = (folder / "index.html").read_text()
    assert text.index("No on here: It is near-linear (exponent of time") < text.index("<main>")
    assert "How does &lt;it&gt; grow?" in text
    assert "would take about 9 s" in text
    results = json.loads((folder / "results.json").read_text())
    grown = pd.read_csv(folder / "tables/exponents.csv")
    assert results["tables"]["exponents"]["exponent"] == grown["exponent"].tolist()
    slow = tables.rows[(tables.rows["method"] == "slow") & (tables.rows["nodes"] >= 2000)]
    by_seed = [
        np.polyfit(np.log(own["nodes"]), np.log(own["seconds"]), 1)[0]
        for _, own in slow.groupby("seed")
    ]
    shown = grown[(grown["method"] == "slow") & (grown["quantity"] == "time")].iloc[0]
    assert shown["exponent"] == pytest.approx(np.mean(by_seed), rel=1e-9)
    assert shown["fitted over N"] == "2,000 to 4,000"


def test_growth_between_neighbours_is_the_ratio_of_geometric_means(tables, shown):
    costs = shown["cost_seconds"].table
    own = costs[costs["method"] == "fast"].reset_index(drop=True)
    mean = [
        math.exp(np.log(part["seconds"]).mean())
        for _, part in tables.rows[tables.rows["method"] == "fast"].groupby("nodes")
    ]
    np.testing.assert_allclose(own["seconds"], mean, rtol=1e-9)
    assert math.isnan(own["growth_seconds"][0])
    expected = np.log2(np.divide(mean[1:], mean[:-1]))
    np.testing.assert_allclose(own["growth_seconds"][1:], expected, rtol=1e-9)


def test_the_line_drawn_is_the_power_that_was_fitted(shown):
    line = next(t for t in shown["cost_mib"].figure.data if t.mode == "lines")
    np.testing.assert_allclose(line.y, np.array(line.x) / 100, rtol=1e-9)  # mib = N / 100


def test_a_method_that_reached_nothing_is_named_with_its_reason(tables, shown):
    reach = shown["reach"].table.set_index("method")
    assert reach.loc["gone", "why"] == "ran out of memory"
    assert reach.loc["fast", "why"] == "all sizes were reached"
    assert "gone was not measured" in tables.answer

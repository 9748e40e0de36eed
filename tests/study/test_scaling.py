"""Exponents and verdicts of known growth, how far a method goes, and what is not measured twice."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as sps

from mmrec.study.claims import Claim, ClaimTest, decide
from mmrec.study.measuring import Options, Plan, Rows, climb, code_version, fill, predicted
from mmrec.study.measuring import asked as measured_rows
from mmrec.study.probe import Lost, Probe, measured
from mmrec.study.scaling import (
    PILOT,
    GrowsAtLeast,
    GrowsAtMost,
    Method,
    Problem,
    Scaling,
    evidence,
    slopes,
)
from studies import rca_scaling

SIZES = (1000, 2000, 4000, 8000, 16000)
SHORT = SIZES[:2]


def rows(exponent: float, seeds: int = 5, noise: float = 0.01, constant: float = 0) -> pd.DataFrame:
    """Seconds whose power differs from seed to seed by `noise`, about a known one."""
    made = [
        {
            "method": "m",
            "nodes": nodes,
            "seed": seed,
            "seconds": constant + nodes ** (exponent + noise * (seed - (seeds - 1) / 2)),
            "mib": 3.0 * nodes,
        }
        for nodes in SIZES
        for seed in range(seeds)
    ]
    return pd.DataFrame(made)


def verdict(test: ClaimTest, table: pd.DataFrame):
    return decide([Claim("It does", "somebody", test)], evidence(table))[0][1]


# --- exponents


def test_each_seed_has_the_slope_of_its_own_logs_over_the_upper_half():
    table = rows(1.7)
    noise_R = np.random.default_rng(0).standard_normal(len(table))
    table["seconds"] *= np.exp(0.1 * noise_R)
    found = slopes(table, "m", "seconds")
    assert found.sizes == (4000, 8000, 16000)  # from sqrt(1000 * 16000) = 4000 on
    for seed, slope in enumerate(found.slope_S):
        own = table[(table["seed"] == seed) & (table["nodes"] >= 4000)]
        expected = np.polyfit(np.log(own["nodes"]), np.log(own["seconds"]), 1)
        assert slope == pytest.approx(expected[0], rel=1e-10)
        assert found.at_S[seed] == pytest.approx(np.polyval(expected, math.log(16000)), rel=1e-10)


def test_a_constant_cost_hides_the_power_less_where_it_is_fitted():
    table = rows(2, constant=4e6, noise=0)
    whole = np.polyfit(np.log(SIZES), np.log([4e6 + n**2 for n in SIZES]), 1)[0]
    assert whole < 1.5 < slopes(table, "m", "seconds").slope_S[0] < 2


def test_two_sizes_are_both_fitted():
    table = rows(1.5, noise=0)
    found = slopes(table[table["nodes"] <= 2000], "m", "seconds")
    assert found.sizes == (1000, 2000)
    np.testing.assert_allclose(found.slope_S, 1.5, rtol=1e-12)


def test_costs_of_nothing_and_double_rows_are_errors():
    table = rows(1)
    with pytest.raises(ValueError, match="must be above 0, got 0"):
        slopes(table.assign(seconds=0.0), "m", "seconds")
    with pytest.raises(ValueError, match="duplicate"):
        slopes(pd.concat([table, table]), "m", "seconds")


# --- verdicts


@pytest.mark.parametrize(
    ("exponent", "most", "least"),
    [
        (1.0, "supported", "refuted"),
        (2.0, "refuted", "supported"),
        (1.2, "not separable", "not separable"),
    ],
)
def test_growth_that_is_known_is_judged_by_its_interval(exponent, most, least):
    table = rows(exponent)
    for kind, words in ((GrowsAtMost, most), (GrowsAtLeast, least)):
        found = verdict(kind("m", "seconds", 1.2), table)
        assert found.verdict == words
        assert found.effect == pytest.approx(exponent, rel=1e-9)
        half = sps.t.isf(0.025, 4) * np.std([-0.02, -0.01, 0, 0.01, 0.02], ddof=1) / math.sqrt(5)
        assert found.high - exponent == pytest.approx(half, rel=1e-6)
        assert exponent - found.low == pytest.approx(half, rel=1e-6)
        t = abs(exponent - 1.2) / half * sps.t.isf(0.025, 4)
        assert found.p == pytest.approx(2 * sps.t.sf(t, 4), rel=1e-6)


def test_memory_without_any_noise_is_judged_too():
    assert verdict(GrowsAtMost("m", "mib", 1.1), rows(2)).verdict == "supported"
    assert verdict(GrowsAtLeast("m", "mib", 1.8), rows(2)).verdict == "refuted"


def test_four_seeds_are_too_few_and_one_size_tells_nothing():
    assert verdict(GrowsAtMost("m", "seconds", 1.2), rows(1, seeds=4)).verdict == "too few seeds"
    table = rows(1)
    for lacking in (table[table["nodes"] == 1000], table.assign(method="other")):
        assert verdict(GrowsAtMost("m", "seconds", 1.2), lacking).verdict == "not tested"


# --- how far, and what is missing


class Fabricated(Probe):
    """Costs by formula, and a list of what was asked."""

    def __init__(self, seconds, mib, lost=()):
        self.seconds, self.mib, self.lost, self.asked = seconds, mib, lost, []

    def measure(self, method, nodes, seed, patience):
        self.asked.append((method, nodes, seed))
        if nodes in self.lost:
            raise Lost("ran out of memory")
        return {"seconds": self.seconds(nodes), "wall": 0.0, "mib": self.mib(nodes), "runs": 1}


TINY = Scaling(
    name="tiny",
    question="How does it grow?",
    script="none",
    work="nothing",
    methods=(Method("m", lambda problem: lambda: problem), Method("n", lambda p: lambda: p)),
    sizes=SIZES,
    claims=(),
    check=lambda: None,
    code=("mmrec.study.scaling",),
    seeds=2,
    seconds=10.0,
)


def plan(folder: Path, scaling: Scaling = TINY, **options) -> Plan:
    asked = {"methods": ("m",), "memory_gib": 1.0, "out": str(folder), **options}
    return Plan.of(scaling, Options(**asked))


def done(asked: Plan, probe: Fabricated):
    kept = Rows(asked)
    reached, unreached = climb(asked, kept, probe, say=lambda _: None)
    fill(asked, kept, probe, reached, say=lambda _: None)
    return measured_rows(Rows(asked), reached, range(asked.seeds)), unreached


def test_growth_is_predicted_from_the_last_two_sizes():
    assert predicted([], 1000) == 0
    assert predicted([(1000, 2.0)], 3000) == pytest.approx(18)  # quadratic where nothing is known
    assert predicted([(500, 9.0), (1000, 2.0), (2000, 16.0)], 4000) == pytest.approx(128)
    assert predicted([(1000, 2.0), (2000, 2.0)], 8000) == pytest.approx(8)  # linear at least


def test_a_size_that_would_pass_the_limit_is_not_tried(tmp_path):
    # 0.15, 0.6, 2.4 and 9.6 s; 38.4 s at 16,000.
    probe = Fabricated(seconds=lambda n: 0.15 * (n / 1000) ** 2, mib=lambda _: 1.0)
    found, unreached = done(plan(tmp_path), probe)
    assert max(nodes for _, nodes, _ in probe.asked) == 8000
    assert sorted(found["nodes"].unique()) == [1000, 2000, 4000, 8000]
    (stop,) = unreached.itertuples()
    assert (stop.method, stop.nodes) == ("m", 16000)
    assert stop.reason == "would take about 38.4 s, the limit is 10 s"


def test_memory_ends_a_series_too(tmp_path):
    probe = Fabricated(seconds=lambda _: 0.1, mib=lambda n: 100 * (n / 1000) ** 2)
    _, unreached = done(plan(tmp_path), probe)
    assert max(nodes for _, nodes, _ in probe.asked) == 2000
    assert unreached["reason"].tolist() == ["would take about 1.56 GiB, the limit is 1 GiB"]


def test_a_size_whose_pilot_passes_the_limit_or_is_lost_is_left_out(tmp_path):
    jump = Fabricated(seconds=lambda n: 0.1 if n < 4000 else 11.0, mib=lambda _: 1.0)
    found, unreached = done(plan(tmp_path / "a"), jump)
    assert unreached["reason"].tolist() == ["took 11 s, the limit is 10 s"]
    assert found["nodes"].max() == 2000
    full = Fabricated(seconds=lambda _: 0.1, mib=lambda _: 1.0, lost=(8000,))
    found, unreached = done(plan(tmp_path / "b"), full)
    assert unreached["reason"].tolist() == ["ran out of memory"]
    assert found["nodes"].max() == 4000


def test_running_again_measures_only_what_is_missing(tmp_path):
    def probe():
        return Fabricated(seconds=lambda n: n / 1e5, mib=lambda n: n / 1e3)

    first, again, more, other = (probe() for _ in range(4))
    before, _ = done(plan(tmp_path, sizes=SHORT), first)
    assert sorted(set(first.asked)) == sorted(first.asked)  # each once
    assert len(first.asked) == len(SHORT) * 3  # the pilot and two seeds
    after, _ = done(plan(tmp_path, sizes=SHORT), again)
    assert again.asked == []
    pd.testing.assert_frame_equal(after, before)
    done(plan(tmp_path, sizes=SHORT, seeds=3), more)
    assert sorted(more.asked) == [("m", nodes, 2) for nodes in SHORT]
    done(plan(tmp_path, sizes=SHORT, methods=("n",)), other)
    assert {method for method, _, _ in other.asked} == {"n"}


def test_other_code_or_threads_are_measured_anew_and_do_not_mix(tmp_path):
    done(plan(tmp_path, sizes=SHORT), Fabricated(seconds=lambda n: n / 1e5, mib=lambda n: n / 1e3))
    newer = dataclasses.replace(TINY, version=2)
    assert code_version(newer) != code_version(TINY)
    probe = Fabricated(seconds=lambda n: n / 1e4, mib=lambda n: n / 1e3)
    found, _ = done(plan(tmp_path, newer, sizes=SHORT), probe)
    assert len(probe.asked) == len(SHORT) * 3
    assert (found["seconds"] == found["nodes"] / 1e4).all()
    assert plan(tmp_path, sizes=SHORT, threads=2).folder != plan(tmp_path, sizes=SHORT).folder


def test_seeds_are_measured_in_a_mixed_order_after_the_pilot(tmp_path):
    probe = Fabricated(seconds=lambda n: n / 1e5, mib=lambda _: 1.0)
    done(plan(tmp_path), probe)
    sizes, seeds = zip(*((nodes, seed) for _, nodes, seed in probe.asked), strict=True)
    assert seeds[: len(SIZES)] == (PILOT,) * len(SIZES)
    rest = list(sizes[len(SIZES) :])
    assert rest not in (sorted(rest), sorted(rest, reverse=True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sizes": (2000, 1000)}, "rising order"),
        ({"sizes": (1000,)}, "two or more sizes"),
        ({"seeds": 0}, "--seeds must be above 0, got 0"),
        ({"seconds": math.nan}, "--seconds must be above 0, got nan"),
        ({"memory_gib": 0.0}, "--memory-gib must be above 0"),
        ({"device": "tpu"}, "cpu or cuda, got tpu"),
    ],
)
def test_a_wish_that_does_not_fit_is_refused(tmp_path, wrong, said):
    with pytest.raises(ValueError, match=said):
        plan(tmp_path, **wrong)


# --- a measurement


@pytest.mark.slow
def test_the_peak_of_a_step_is_the_memory_that_it_held_at_once():
    def prepare(problem):
        mib = problem.nodes // 100
        return lambda: [torch.ones(mib, 2**18) for _ in range(2)]  # 2 * mib MiB, at one time

    found = measured(Method("m", prepare), Problem(nodes=4000, seed=0), "processor")
    assert found["mib"] == pytest.approx(80, abs=2)
    assert found["runs"] >= 1
    # One thread; the two clocks are read one after the other.
    assert 0 < found["seconds"] <= found["wall"] + 1e-3


@pytest.mark.slow
def test_a_measurement_has_a_process_of_its_own_and_says_how_it_was_lost(tmp_path, capfd):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, signal\n"
        "from mmrec.study.scaling import Method, Problem, Scaling\n"
        "def sleeps(p): return lambda: time.sleep(p.nodes / 1000)\n"
        "def dies(p): return lambda: p.nodes > 256 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "def fails(p): return lambda: 1 // (p.nodes <= 256)\n"
        "METHODS = [Method(f.__name__, f) for f in (sleeps, dies, fails)]\n"
        "SCALING = Scaling('s', 'q', __file__, 'w', tuple(METHODS), (1, 2), (), print, ())\n"
    )
    scaling = dataclasses.replace(TINY, script=str(script))
    with Probe(scaling, "cpu", 1) as probe:
        asleep = probe.measure("sleeps", 500, 0, patience=30)
        assert asleep["wall"] >= 0.5
        assert asleep["seconds"] < 0.1  # sleep takes no processor time
        with pytest.raises(Lost, match="took more than 2 s"):
            probe.measure("sleeps", 9000, 0, patience=2)
        with pytest.raises(Lost, match="was killed"):
            probe.measure("dies", 500, 0, patience=30)
        with pytest.raises(RuntimeError, match="fails at 500 nodes failed: exit code 1"):
            probe.measure("fails", 500, 0, patience=30)
        assert probe.measure("sleeps", 300, 0, patience=30)["runs"] == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


# --- the study of RCA


def largest_kept(kind) -> int:
    """Numbers in the largest array that a forward pass keeps for the way back."""
    rca = rca_scaling.built(kind, "nodes")
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()), int):
        rca(rca_scaling.views(Problem(nodes=300, seed=0)))
    return max(sizes)


def test_only_the_full_formula_keeps_a_matrix_of_all_nodes():
    assert largest_kept(rca_scaling.InFull) == 300 * 300
    assert largest_kept(rca_scaling.RCA) < 300 * 300


def test_the_full_formula_is_checked_against_the_tiles(monkeypatch):
    rca_scaling.check()
    monkeypatch.setattr(rca_scaling.InFull, "_heard", lambda *given: given[3])
    with pytest.raises(AssertionError, match="tiles and the full formula differ"):
        rca_scaling.check()


def test_every_row_has_k_different_columns():
    near = rca_scaling.columns(Problem(nodes=1000, seed=3), 64)
    assert near.num_entries == 64_000  # what occurs twice would have been summed
    assert (near.row_E.bincount() == 64).all()
    assert near.column_E.unique().numel() == 1000

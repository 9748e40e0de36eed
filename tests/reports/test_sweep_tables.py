"""Curves, fronts and studies of sweeps, against numbers by hand, scipy, and a definition."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec.reports import arm_exhibits, design, knockouts, sensitivity, sweep_figures, sweeps
from mmrec.reports.exhibits import exhibits
from mmrec.reports.importance import by_grid
from mmrec.reports.sweep_exhibits import of_view
from mmrec.study import text
from mmrec.study.tables import StudyTables
from mmrec.study.views import Curve, HeatMap, MainEffects, Measures, Pareto, Strata
from tests.reports import compared, synthetic
from tests.reports.synthetic import run_facts, trial, without_score

DEPTH, READING, LAYERS = "model.depth", "model.reading", "model.ui_layers"
BASE = {DEPTH: 2, READING: "nodes", LAYERS: 1}
LUCK = (0.0, 0.004, -0.004, 0.002, -0.002)
GAIN = {
    DEPTH: {0: 0.0, 1: 0.01, 2: 0.03, 3: 0.02},
    READING: {"nodes": 0.0, "features": -0.02},
    LAYERS: {1: 0.0, 2: 0.05, 3: -0.01},
}


def study(points, score, controls=(), **facts):
    """Cells at `points` (factor -> level) whose test score is `score(point, seed)`."""
    rows = []
    for seed, point in itertools.product(range(5), points):
        at = {**BASE, "condition": "baseline", **point}
        label = " ".join(f"{k.rsplit('.', 1)[-1]}={v}" for k, v in at.items())
        row = trial(len(rows), label, seed, score(at, seed), arm="")
        depth = at[DEPTH]
        row |= {"measure.cosine": 0.1 * depth + 0.01 * seed, "cost.epoch_seconds": 1.0 + depth}
        rows.append(row | at)
    for seed, (name, value) in itertools.product(range(5), controls):
        row = trial(len(rows), name, seed, value + LUCK[seed], phase="control", arm=name)
        rows.append(row | {"cost.epoch_seconds": 0.5})
    frame = pd.DataFrame(rows)
    facts = {"planned": len(rows), "selected": None, **facts}
    return StudyTables(run_facts(**facts), frame, synthetic.curves(frame))


def additive(at, seed):
    """What the factors' gains add up to, with a seed's luck."""
    return 0.2 + sum(gain[at[path]] for path, gain in GAIN.items()) + LUCK[seed]


def star(path, levels):
    """Points that are off the base in one factor."""
    return [{path: level} for level in levels if level != BASE[path]]


STAR = [{}, *(p for path, gain in GAIN.items() for p in star(path, gain))]


def unlike(at, seed):
    """As `additive`, but that deeper is better where features are read."""
    bend = 0.025 * at[DEPTH] if at[READING] == "features" else 0.0
    return additive(at, seed) + bend


CROSS = [{DEPTH: d, READING: r} for r in ("nodes", "features") for d in range(4)]
CROSS += star(LAYERS, GAIN[LAYERS])
SWEEPS = {"base": BASE, "sweeps": [[DEPTH, READING], [LAYERS]]}


def test_a_curve_is_held_at_the_base_and_has_scipys_intervals():
    table = sweeps.curve(study(CROSS, unlike, **SWEEPS), Curve(DEPTH, by=READING))
    assert table["by"].tolist() == ["nodes"] * 4 + ["features"] * 4
    assert table["x"].tolist() == [0, 1, 2, 3] * 2
    by_hand = [0.2, 0.21, 0.23, 0.22, 0.18, 0.215, 0.26, 0.275]
    assert table["mean"].tolist() == pytest.approx(by_hand)  # no cell of other layers
    for row in table.itertuples():
        ends = sps.t.interval(0.95, 4, row.mean, sps.sem(LUCK))
        assert (row.low, row.high) == pytest.approx(ends)
    assert table["base"].tolist() == [False, False, True, False] * 2
    assert set(table["n"]) == {5}
    assert set(table["cells"]) == {1}
    assert table["p_best"].tolist() == [0, 0, 1, 0, 0, 0, 0, 1]  # luck is shared


def test_a_curve_of_another_factor_leaves_the_first_sweep_out():
    made = study(CROSS, unlike, **SWEEPS)
    table = sweeps.curve(made, Curve(LAYERS))
    assert table["mean"].tolist() == pytest.approx([0.23, 0.28, 0.22])
    assert set(table["by"]) == {""}
    table = sweeps.curve(made, Curve(LAYERS, where={DEPTH: 0}))
    assert table["mean"].tolist() == pytest.approx([0.2])
    table = sweeps.curve(made, Curve(DEPTH, where={READING: "features"}))
    assert table["mean"].tolist() == pytest.approx([0.18, 0.215, 0.26, 0.275])


def test_where_the_run_does_not_say_the_base_is_what_most_cells_have():
    made = study(CROSS, unlike)
    # Of ten cells, six read nodes, eight have one layer; of depths, 2 has four, the others two.
    assert design.base_levels(made) == {**BASE, "condition": "baseline", "arm": ""}
    assert sweeps.curve(made, Curve(LAYERS))["mean"].tolist() == pytest.approx([0.23, 0.28, 0.22])
    grid = study([{DEPTH: d, LAYERS: n} for d in (0, 2) for n in (1, 2)], additive)
    assert not sweeps.curve(grid, Curve(DEPTH))["base"].any()  # both levels are as frequent


def test_controls_stand_last_and_at_no_level():
    made = study(STAR, additive, controls=[("LightGCN", 0.1)])
    row = sweeps.curve(made, Curve(DEPTH)).iloc[-1]
    assert (row["by"], row["x"], row["mean"]) == ("LightGCN", None, pytest.approx(0.1))


def test_several_levels_of_a_place_are_averaged_within_a_seed():
    table = sweeps.curve(
        study(CROSS, unlike, **SWEEPS), Curve(DEPTH, where={READING: ("nodes", "features")})
    )
    assert table["mean"].tolist() == pytest.approx([0.19, 0.2125, 0.245, 0.2475])
    assert set(zip(table["n"], table["cells"], strict=True)) == {(5, 2)}


def test_a_curve_of_a_measure_takes_finished_trials_only():
    made = study(STAR, additive)
    rows = made.trials.to_dict("records")
    kept = [row["measure.cosine"] for row in rows if row[DEPTH] == 3][:3]
    for row in [row for row in rows if row[DEPTH] == 3][3:]:
        row |= without_score(row, "stopped", epochs=4) | {"measure.cosine": 9.0}
    made = StudyTables(made.run, pd.DataFrame(rows), made.epochs)
    row = sweeps.curve(made, Curve(DEPTH, column="measure.cosine")).iloc[-1]
    assert (row["x"], row["mean"], row["n"]) == (3, pytest.approx(np.mean(kept)), 3)
    assert (row["low"], row["high"]) == pytest.approx(
        sps.t.interval(0.95, 2, np.mean(kept), sps.sem(kept))
    )
    assert math.isnan(row["p_best"])


def test_a_level_without_a_number_says_why():
    rows = study(STAR, additive).trials.to_dict("records")
    rows = [without_score(r, "failed", error="nan loss") if r[DEPTH] == 3 else r for r in rows]
    frame = pd.DataFrame(rows)
    made = StudyTables(run_facts(planned=len(rows)), frame, synthetic.curves(frame))
    row = sweeps.curve(made, Curve(DEPTH)).iloc[-1]
    assert (row["x"], row["n"], row["reason"]) == (3, 0, "5 failed (nan loss)")


def test_chances_of_being_best_are_those_of_all_resamples():
    differences = (1.0, -2.0)  # of two seeds, drawn with replacement: above 0 only if both are 1
    made = study([{DEPTH: 1}, {DEPTH: 2}], additive)
    rows = [r for r in made.trials.to_dict("records") if r["seed"] < 2]
    rows = [{**r, "test.ndcg@10": differences[r["seed"]] * (r[DEPTH] == 1)} for r in rows]
    table = sweeps.curve(StudyTables(made.run, pd.DataFrame(rows), made.epochs), Curve(DEPTH))
    assert table["p_best"].tolist() == pytest.approx([0.25, 0.75], abs=0.02)


def test_an_unknown_factor_is_named():
    with pytest.raises(KeyError, match=r"model\.deep.*model\.depth"):
        sweeps.curve(study(STAR, additive), Curve("model.deep"))


# --- quality against cost

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(points)
def test_the_front_is_what_nothing_dominates(places):
    def dominated(c, q):
        return any(d <= c and r >= q and (d, r) != (c, q) for d, r in places)

    cost, quality = (pd.Series(values, dtype=float) for values in zip(*places, strict=True))
    expected = [not dominated(c, q) for c, q in places]
    assert sweeps.front(cost, quality).tolist() == expected


def test_cells_stand_by_cost_and_other_conditions_apart():
    thin = [{"condition": "density=0.5", DEPTH: d} for d in (0, 2)]
    made = study([*CROSS, *thin], unlike, controls=[("LightGCN", 0.1)], **SWEEPS)
    table = sweeps.pareto(made, Pareto(by=READING))
    assert len(table) == len(CROSS) + 1
    front = table[table["front"]]
    assert front["cost"].tolist() == [0.5, 1.0, 2.0, 3.0]  # at 4 s nothing is better than 0.28
    assert front["mean"].tolist() == pytest.approx([0.1, 0.2, 0.215, 0.28])
    assert not front["cost_high"].gt(front["cost"]).any()  # a second more a layer, whatever seed
    table = sweeps.pareto(made, Pareto(by="condition"))
    fronts = table[table["front"]].groupby("by")["cost"].agg(list)
    assert fronts["density=0.5"] == [1.0, 3.0]


# --- one factor after the other


@pytest.fixture(scope="module")
def swept():
    return study(STAR, additive)


def test_a_star_is_known_by_its_cells(swept):
    assert design.sweeps(swept) == [(DEPTH,), (READING,), (LAYERS,)]
    assert design.sweeps(study(CROSS, unlike)) == []
    assert design.sweeps(study(CROSS, unlike, **SWEEPS)) == [(DEPTH, READING), (LAYERS,)]


def test_main_effects_of_a_star_are_the_gains(swept):
    table = sensitivity.main_effects(swept, MainEffects(tuple(GAIN)))
    for path, gain in GAIN.items():
        others = sum(np.mean(list(g.values())) for p, g in GAIN.items() if p != path)
        rows = table[table["factor"] == path].set_index("level")["mean"]
        for level, value in gain.items():
            assert rows[level] == pytest.approx(0.2 + value + others)  # depth 0 too: not spread
    assert (table["cells"] == table["of"]).all()


def test_measures_of_a_star_leave_other_sweeps_out():
    made = study([{DEPTH: 0}, {DEPTH: 2}, {DEPTH: 3}, {LAYERS: 2}], additive)
    noisy = made.trials.assign(**{"measure.cosine": made.trials[LAYERS].astype(float)})
    made = StudyTables(made.run, noisy, made.epochs)
    table = sensitivity.measures(made, Measures(("cosine",), DEPTH))
    assert table["mean"].tolist() == [1.0, 1.0, 1.0]  # at two layers it is 2


def test_a_map_of_factors_that_never_met_is_a_cross():
    made = study([{}, *star(DEPTH, GAIN[DEPTH]), *star(LAYERS, GAIN[LAYERS])], additive)
    table = sensitivity.heat_map(made, HeatMap(x=LAYERS, y=DEPTH))
    assert not table["spans"].any()  # depth 0 has one cell, as every other depth has
    known = table[table["mean"].notna()]
    assert set(zip(known["x"], known["y"], strict=True)) == {
        (1, 0), (1, 1), (1, 2), (2, 2), (3, 2), (1, 3)
    }  # fmt: skip
    assert set(table.loc[table["mean"].isna(), "reason"]) == {"not planned"}
    assert not design.crossed(made, LAYERS, DEPTH)


def test_importance_of_sweeps_is_that_of_each_alone():
    rng = np.random.default_rng(0)
    made = study(CROSS, lambda at, seed: unlike(at, seed) + rng.normal(0, 0.002), **SWEEPS)
    found = by_grid(made)
    one = made.trials[(made.trials[DEPTH] == 2) & (made.trials[READING] == "nodes")]
    y = one.pivot_table("test.ndcg@10", LAYERS, "seed").to_numpy()
    rest = y - y.mean(1, keepdims=True) - y.mean(0) + y.mean()
    f = (5 * ((y.mean(1) - y.mean()) ** 2).sum() / 2) / ((rest**2).sum() / 8)
    row = found.table.set_index("effect").loc["ui_layers"]
    assert (row["f"], row["df"], row["sweep"]) == (pytest.approx(f), 2, "ui_layers")
    assert set(found.table["effect"]) == {"depth", "reading", "depth x reading", "ui_layers"}
    assert "between sweeps nothing is known" in found.ground


def test_every_default_exhibit_of_a_star_has_something_to_say(swept):
    shown = {exhibit.key: exhibit for exhibit in exhibits(swept)}
    assert set(shown) == {"cell_scores", "main_effects", "measures", "importance", "curves"}
    assert all(len(exhibit.table) and exhibit.figure for exhibit in shown.values())
    assert "assumed, not tested" in shown["main_effects"].finding
    assert "Open circles" not in shown["main_effects"].finding


# --- in words

EVIL = "<script>alert(1)</script>"


def test_findings_name_the_peak_its_chance_and_the_front():
    views = (Curve(DEPTH, by=READING), Curve(LAYERS, column="cost.epoch_seconds"), Pareto())
    made = study(CROSS, unlike, controls=[("LightGCN", 0.1)], **SWEEPS)
    peak, cost, front = (of_view(made, view) for view in views)
    assert "reading = features: highest at depth 3: 0.2750" in peak.finding
    assert "P(best) 1.00; at the base, depth 2, 0.2600" in peak.finding
    assert "Dashed: LightGCN 0.1000" in peak.finding
    assert "All else held at the base: ui_layers = 1." in peak.finding
    assert cost.finding.startswith("3 (3 to 3, 5 seeds) at every ui_layers")
    assert "Of 11 cells, 4 on the front" in front.finding
    assert "1 LightGCN (0.1000 at 0.5), 2 depth=0 reading=nodes ui_layers=1" in front.finding


def test_names_in_figures_are_escaped():
    gain = {"nodes": 0.0, EVIL: 0.1}
    points = [{READING: reading, DEPTH: d} for reading in gain for d in (0, 2)]
    views = (Curve(DEPTH, by=READING), Curve(READING), Pareto(by=READING))
    made = study(points, lambda at, seed: 0.1 + gain[at[READING]] + LUCK[seed])
    for view in views:
        figure = of_view(made, view).figure
        assert figure is not None
        assert "&lt;script&gt;" in figure.to_json()
        assert EVIL not in figure.to_json()


def test_numbers_over_decades_and_zero_stand_at_even_distances():
    assert sweep_figures.scale([0, 1, 2, 5]) == "linear"
    assert sweep_figures.scale([0.001, 0.1, 1.0]) == "log"
    assert sweep_figures.scale([0.0, 0.001, 0.1, 1.0]) == "levels"
    assert sweep_figures.scale(["batch", "nodes"]) == "levels"


# --- users by diversity of interests


def test_strata_by_interests_are_a_third_kind_where_trials_have_them():
    scores = {("A", "baseline"): [0.2, 0.4], ("A", "text=noise"): [0.1, 0.2]}
    factor = {"rare-items": 1.0, "mid-histories": 1.0, "mid-interests": 0.5, "wide-interests": 2.0}

    def more(arm, condition, seed, score):
        hit = 0.5 if condition == "text=noise" else 1.0
        return {f"test.ndcg@10:{k}": f * score * (hit if f > 1 else 1) for k, f in factor.items()}

    made = compared.study(scores, more, views=(Strata(),))
    rows = knockouts.strata(made, Strata()).set_index(["condition", "kind", "stratum"])
    assert rows.loc[("text=noise", "interests", "wide"), "relative"] == pytest.approx(-0.75)
    assert rows.loc[("text=noise", "interests", "mid"), "relative"] == pytest.approx(-0.5)
    assert rows.loc[("baseline", "interests", "mid"), "mean"] == pytest.approx(0.15)
    (shown,) = arm_exhibits.of_view(made, Strata())
    assert shown.title.endswith("users by diversity of interests")
    assert f"wide interests {text.MINUS}75.0 %" in shown.finding
    assert shown.figure.layout.xaxis.ticktext == ("rare", "mid", "mid", "wide")
    del factor["mid-interests"], factor["wide-interests"]
    (old,) = arm_exhibits.of_view(compared.study(scores, more), Strata())
    assert "interests" not in old.title + old.finding

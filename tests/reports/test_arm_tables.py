"""What conditions change, arm by arm: against scipy and values by hand."""

import math

import numpy as np
import pytest
from scipy import stats as sps

from mmrec.reports import knockouts, verdicts
from mmrec.reports.arms import arms, compared
from mmrec.reports.matrices import MARKS
from mmrec.stats import Verdict
from mmrec.study.verdicts import VERDICTS
from mmrec.study.views import ConditionForest, ConditionMap, FillerSensitivity, Strata, Verdicts
from tests.reports.compared import GROUPS, cost_of, large, study
from tests.reports.synthetic import Said, grid

NAN = math.nan
BASE = [0.30, 0.32, 0.31, 0.33, 0.34]
TEXT = [0.20, 0.23, 0.19, 0.22, 0.26]
IMAGE = [0.30, 0.31, 0.32, 0.33, 0.33]
OTHER = [0.28, 0.31, 0.30, 0.30, 0.33]


@pytest.fixture(scope="module")
def two():
    scores = {
        ("A", "baseline"): BASE,
        ("A", "text=noise"): TEXT,
        ("A", "image=noise"): IMAGE,
        ("B", "baseline"): [0.2, 0.25, NAN, NAN, NAN],
        ("B", "text=noise"): [NAN, 0.20, 0.3, NAN, NAN],
        ("B", "image=noise"): [NAN] * 5,
        ("C", "baseline"): OTHER,
        ("C", "text=noise"): BASE,
        ("LightGCN", "baseline"): OTHER,
    }
    return study(scores, controls=["LightGCN"])


@pytest.fixture(scope="module")
def changes(two):
    return knockouts.changes(two, ConditionForest()).set_index(["arm", "condition"])


def test_changes_are_paired_t_tests_corrected_for_all_of_them(changes):
    pairs = [(TEXT, BASE), (IMAGE, BASE), (BASE, OTHER)]
    p = [sps.ttest_rel(*pair).pvalue for pair in pairs]
    first, second, third = np.argsort(p)
    holm = {first: 3 * p[first], second: 2 * p[second], third: p[third]}
    assert holm[first] < holm[second] < holm[third]
    rows = [("A", "text=noise"), ("A", "image=noise"), ("C", "text=noise")]
    for nth, (row, (one, other)) in enumerate(zip(rows, pairs, strict=True)):
        difference = np.subtract(one, other)
        level = 1 - 0.05 * p[nth] / holm[nth]
        ends = sps.t.interval(level, 4, difference.mean(), sps.sem(difference))
        found = changes.loc[row]
        assert found["p"] == pytest.approx(p[nth], rel=1e-9)
        assert found["p_corrected"] == pytest.approx(holm[nth], rel=1e-9)
        assert found["level"] == pytest.approx(level, rel=1e-9)
        assert (found["low"], found["high"]) == pytest.approx(ends, rel=1e-9)
        assert found["relative"] == pytest.approx(np.mean(one) / np.mean(other) - 1, rel=1e-9)


def test_one_seed_in_common_is_an_effect_without_an_interval(changes):
    row = changes.loc[("B", "text=noise")]
    assert row["effect"] == pytest.approx(0.20 - 0.25)
    assert row["n"] == 1
    assert row[["low", "high", "p", "p_corrected", "level"]].isna().all()


def test_a_hole_says_why(changes):
    assert changes.loc[("B", "image=noise"), "reason"] == "5 failed (ValueError: no)"
    assert changes.loc[("C", "image=noise"), "reason"] == "not planned"
    assert changes.loc[("C", "image=noise"), "n"] == 0
    assert (changes.loc[changes["n"] > 0, "reason"] == "").all()


def test_controls_are_compared_with_nothing(changes):
    assert "LightGCN" not in changes.index.get_level_values("arm")


def test_seeds_that_never_meet_are_no_comparison():
    made = study({("A", "baseline"): [0.1, NAN], ("A", "text=noise"): [NAN, 0.1]})
    table = knockouts.changes(made, ConditionMap())
    assert table["reason"].tolist() == ["no seed in common with baseline"]


def test_arms_stand_by_group_and_variants_behind_their_own():
    names = ["Z", "Y", "Z such", "X", "Control", "W"]
    scores = {(name, "baseline"): [0.1] for name in names}
    made = study(scores, controls=["Control"], groups={"X": "one", "Z": "two", "Y": "one"})
    assert arms(made) == {
        "Y": "one",
        "X": "one",
        "Z": "two",
        "Z such": "two",
        "W": "others",
        "Control": "controls",
    }


def test_a_study_without_arms_compares_none():
    assert arms(grid(1)) == {}
    assert not compared(grid(1))
    assert knockouts.changes(grid(1), ConditionForest()).empty


# --- fillers, strata, gates


def test_ranges_between_fillers_stay_within_a_set_and_a_time():
    scores = {
        ("A", "baseline"): [0.4],
        ("A", "text=noise"): [0.2],
        ("A", "text=zero"): [0.3],
        ("A", "text=noise#3"): [0.1],
        ("A", "text=noise@eval"): [0.02],
        ("A", "image=noise"): [0.39],
        ("A", "vit=noise"): [0.3],
        ("A", "vit=zero"): [NAN],
        ("A", "text<-vit,image=zero"): [0.2],
    }
    made = study(scores)
    table = knockouts.fillers(made, FillerSensitivity())
    found = {
        (row.knocked, row.filler, row.when): (row.relative, row.range) for row in table.itertuples()
    }
    assert found == {
        ("text", "noise", "train+eval"): pytest.approx((-0.5, 0.5)),
        ("text", "zero", "train+eval"): pytest.approx((-0.25, 0.5)),
        ("text", "noise#3", "train+eval"): pytest.approx((-0.75, 0.5)),
        ("text", "noise", "eval"): pytest.approx((-0.95, NAN), nan_ok=True),
    }


def test_one_filler_is_no_question():
    made = study({("A", c): [0.1] for c in ("baseline", "text=noise", "text=noise@eval")})
    assert knockouts.fillers(made, FillerSensitivity()).empty


def test_strata_are_held_to_the_baseline_and_it_to_the_control():
    scores = {
        ("A", "baseline"): [0.2, 0.4],
        ("A", "text=noise"): [0.1, 0.2],
        ("LightGCN", "baseline"): [0.1, 0.3],
    }
    factor = {"rare-items": 0.5, "popular-items": 2.0, "long-histories": 1.0}

    def more(arm, condition, seed, score):
        hit = 0.5 if condition == "text=noise" else 1.0
        return {f"test.ndcg@10:{k}": f * score * (hit if f < 1 else 1) for k, f in factor.items()}

    table = knockouts.strata(study(scores, more, controls=["LightGCN"]), Strata())
    rows = table.set_index(["arm", "condition", "stratum"])
    assert rows.loc[("A", "text=noise", "rare"), "relative"] == pytest.approx(-0.75)
    assert rows.loc[("A", "text=noise", "popular"), "relative"] == pytest.approx(-0.5)
    assert rows.loc[("A", "text=noise", "rare"), "mean"] == pytest.approx(0.5 * 0.5 * 0.15)
    against = rows.loc[("A", "baseline", "rare")]
    assert against["against"] == "LightGCN"
    assert against["relative"] == pytest.approx(0.3 / 0.2 - 1)  # every difference is 0.05
    assert against["low"] == pytest.approx(against["high"])
    alone = rows.loc[("LightGCN", "baseline", "long")]
    assert (alone["against"], alone["mean"]) == ("", pytest.approx(0.2))
    half = sps.t.isf(0.025, 1) * sps.sem([-0.1, -0.2])
    low = rows.loc[("A", "text=noise", "long"), "low"]
    assert low == pytest.approx((-0.15 - half) / 0.3)
    assert set(zip(table["kind"], table["stratum"], strict=True)) == {
        ("items", "rare"),
        ("items", "popular"),
        ("users", "long"),
    }


def test_gates_know_what_was_replaced_in_training():
    scores = {("A gated", c): [0.1, 0.2] for c in ("baseline", "text=noise", "image=noise@eval")}
    scores["A", "baseline"] = [0.1, 0.2]

    def more(arm, condition, seed, score):
        gate = 0.8 - 0.6 * (condition == "text=noise") + 0.1 * seed
        return {"measure.gate.text": gate} if arm == "A gated" else {}

    table = knockouts.gates(study(scores, more))
    assert table["mean"].tolist() == pytest.approx([0.85, 0.25])
    assert table["replaced"].tolist() == [False, True]
    assert table["condition"].tolist() == ["baseline", "text=noise"]


# --- claims


def claim(topic, arm, verdict):
    return Said(f"{arm}: {topic}", "a paper", topic, arm), Verdict(verdict, 0.01, 0.1, n=5)


@pytest.fixture(scope="module")
def judged():
    claims = [
        claim("it hurts", "A", "supported"),
        claim("it hurts", "B", "refuted"),
        claim("it hurts", "A described", "not separable"),
        claim("it hurts", "B described", "refuted"),
        claim("it is used", "A", "too few seeds"),
        claim("it is used", "A described", "supported"),
        (Said("all in all it hurts"), Verdict("supported", 0.1, n=5)),
    ]
    scores = {(name, "baseline"): [0.1] for name in ("A", "B", "A described", "B described")}
    return study(scores, claims=claims, groups={"A": "one", "B": "two"}, selected="A baseline")


def test_verdicts_are_counted_by_group_and_topic(judged):
    table = verdicts.counts(judged).set_index(["group", "topic"])
    assert table.loc[("one", "it hurts"), ["supported", "not separable", "claims"]].tolist() == [
        1,
        1,
        2,
    ]
    assert table.loc[("two", "it hurts"), ["refuted", "claims"]].tolist() == [2, 2]
    assert table.loc[("one", "it is used"), ["too few seeds", "supported"]].tolist() == [1, 1]
    assert table["claims"].sum() == 6


def test_a_verdict_survives_only_if_both_readings_decide(judged):
    table = verdicts.survival(judged, Verdicts())
    rows = {(row.arm, row.topic): row.survives for row in table.itertuples()}
    assert rows == {("A", "it hurts"): "no", ("B", "it hurts"): "yes", ("A", "it is used"): ""}


def test_the_answer_counts_models_and_not_their_variants(judged):
    assert judged.answer.startswith(
        "It hurts: supported for 1 of 2 models, refuted for 1 on planted;"
        " it is used: too few seeds for 1 model; best by validation is A baseline, test"
    )


def test_a_verdict_of_all_is_said_once():
    claims = [claim("it hurts", arm, "supported") for arm in "ABC"]
    made = study({("A", "baseline"): [0.1]}, claims=claims)
    assert made.answer.startswith("It hurts: supported for all 3 models on planted; ")


def test_every_verdict_has_a_sign_of_its_own():
    signs = [MARKS[verdict] for verdict in (*VERDICTS, "mixed")]
    assert len({sign for sign, _ in signs}) == len({colour for _, colour in signs}) == 7


@pytest.mark.slow
def test_a_large_study_is_read_as_it_was_made():
    made = large()
    table = knockouts.changes(made, ConditionMap())
    known = table[table["n"] > 0]
    true = [-cost_of(arm, name) for arm, name in zip(known["arm"], known["condition"], strict=True)]
    np.testing.assert_allclose(known["relative"], true, atol=0.04)  # five seeds, noise of 1 %
    assert table.loc[table["n"] == 0, ["arm", "condition"]].to_numpy().tolist() == [
        ["SMORE", "image+text=constant"]
    ]
    graphs = sum(group != "concatenation" for group in GROUPS.values())
    assert f"Text knockout hurts: supported for {graphs} of 14 models" in made.answer

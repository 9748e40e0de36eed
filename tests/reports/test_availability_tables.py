"""The ranking by how many modalities are left, against numbers by hand and scipy."""

import dataclasses
import json
import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats as sps

from mmrec.data.conditions import Condition
from mmrec.reports import availability
from mmrec.study.views import Availability
from tests.reports.compared import study

NAN = math.nan
MODALITIES = ("audio", "interactions", "text")
VIEW = Availability()
LUCK = (0.0, 0.02, 0.01)
WORTH = {"audio": 0.1, "text": 0.2, "interactions": 0.3}
EVIL = "<script>alert(1)</script>"


def condition(*left):
    """The name of what takes all but `left` away."""
    return Condition(missing=tuple(m for m in MODALITIES if m not in left), when="eval").name


def worth(*left, scale=1.0):
    """Test objective by seed: the mean worth of what is left, times a seed's luck."""
    mean = np.mean([WORTH[name] for name in left])
    return [scale * mean * (1 + luck) for luck in LUCK]


SUBSETS = [left for size in (1, 2) for left in combinations(MODALITIES, size)]
WHOLE = {("A", "baseline"): worth(*MODALITIES), ("B", "baseline"): worth(*MODALITIES, scale=0.5)}
SCORES = WHOLE | {
    (arm, condition(*left)): worth(*left, scale=scale)
    for arm, scale in (("A", 1.0), ("B", 0.5))
    for left in SUBSETS
}


@pytest.fixture(scope="module")
def made():
    scores = {**SCORES, ("Pop", "baseline"): [0.1] * 3, ("A", "text=noise"): [0.9] * 3}
    del scores["B", condition("audio", "text")]
    scores["B", condition("audio")] = [NAN] * 3
    return study(scores, controls=["Pop"], groups={"A": "one", "B": "two"})


@pytest.fixture(scope="module")
def sizes(made):
    return availability.availability(made, VIEW).set_index(["line", "size"])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (Condition(), frozenset()),
        (Condition(missing=("a", "b"), when="eval"), frozenset({"a", "b"})),
        (Condition(missing=("a",)), None),  # trained without it: another question
        (Condition(modalities=("b",), filler="noise", missing=("a",), when="eval"), None),
        (Condition(modalities=("b",), filler="noise", when="eval"), None),
    ],
)
def test_what_a_condition_takes_away_is_read_off_its_name(asked, found):
    assert availability.missing(asked.name) == found


def test_the_mean_of_a_size_is_taken_within_a_seed(sizes):
    # Of one: (.1 + .2 + .3) / 3 = .2; of two, each is in two of the three subsets: .2 again.
    for size in (1, 2, 3):
        row = sizes.loc[("A", size)]
        values = [0.2 * (1 + luck) for luck in LUCK]
        assert row["mean"] == pytest.approx(np.mean(values))
        ends = sps.t.interval(0.95, 2, np.mean(values), sps.sem(values))
        assert (row["low"], row["high"]) == pytest.approx(ends)
        assert (row["kept"], row["kept_low"], row["kept_high"]) == pytest.approx((1, 1, 1))
        assert row["reason"] == ""
    one = sizes.loc[("A", 1)]
    assert (one["lowest_left"], one["highest_left"]) == ("audio", "interactions")
    assert (one["lowest"], one["highest"]) == pytest.approx((0.101, 0.303))
    assert sizes.loc[("A", 2), "highest_left"] == "text+interactions"
    assert (one["subsets"], one["of"], one["n"]) == (3, 3, 3)


def test_a_size_with_holes_says_which(sizes):
    two, one = sizes.loc[("B", 2)], sizes.loc[("B", 1)]
    assert (two["subsets"], two["of"], two["reason"]) == (2, 3, "1 not planned")
    assert two["mean"] == pytest.approx(0.5 * (0.2 + 0.25) / 2 * 1.01)
    assert (one["subsets"], one["reason"]) == (2, "audio: 3 failed (ValueError: no)")
    assert one["kept"] == pytest.approx(0.25 / 0.2)  # of text and interactions alone


def test_all_subsets_stand_from_the_largest_and_holes_have_reasons(made):
    table = availability.left(made, VIEW)
    mine = table[table["line"] == "B"].set_index("left")
    assert mine.index[0] == "audio+text+interactions"
    assert mine["size"].tolist() == [3, 2, 2, 2, 1, 1, 1]
    assert mine.loc["audio+text", "reason"] == "not planned"
    assert mine.loc["audio", "reason"] == "3 failed (ValueError: no)"
    assert mine.loc["text", "mean"] == pytest.approx(0.5 * 0.2 * 1.01)
    assert mine.loc["text", "kept"] == pytest.approx(1.0)
    assert "Pop" not in set(table["line"])  # it meets one condition only
    assert len(table) == 14  # the knockout is no subset


def test_modalities_that_a_model_names_are_counted_too():
    scores = {place: v for place, v in SCORES.items() if place[0] == "A"}
    made = study(scores)
    config = json.dumps({"run": {"model": {"modalities": ["text", "video"], "modality": "tags"}}})
    named = dataclasses.replace(made, trials=made.trials.assign(config=config))
    table = availability.availability(named, VIEW)
    assert table["size"].tolist() == [5, 4, 3]  # tags and video are never taken away
    assert table["mean"].tolist() == pytest.approx([0.202] * 3)


def test_lines_may_go_by_a_factor():
    made = study({place: v for place, v in SCORES.items() if place[0] == "A"})
    made = dataclasses.replace(made, trials=made.trials.assign(**{"model.tau": 0.1, "arm": ""}))
    assert set(availability.availability(made, Availability("model.tau"))["line"]) == {"0.1"}
    with pytest.raises(KeyError, match=r"model\.tua.*model\.tau"):
        availability.availability(made, Availability("model.tua"))


def test_one_seed_has_no_interval():
    made = study({place: v[:1] for place, v in SCORES.items()})
    row = availability.availability(made, VIEW).iloc[-1]
    assert (row["n"], row["mean"]) == (1, pytest.approx(0.1))
    assert row[["low", "high", "kept_low"]].isna().all()


def test_a_study_without_missing_modalities_says_so():
    (shown,) = availability.exhibits(study(WHOLE), VIEW)
    assert shown.figure is None
    assert shown.finding == "No finished trial has been evaluated with modalities missing."


def test_a_study_of_which_only_tries_have_run_says_so():
    made = study({("A", "baseline"): [0.1]})
    tries = dataclasses.replace(made, trials=made.trials.assign(phase="tune"))
    (shown,) = availability.exhibits(tries, VIEW)
    assert (shown.figure, len(shown.table)) == (None, 0)


def test_findings_and_figures():
    scores = {(arm.replace("B", EVIL), c): v for (arm, c), v in SCORES.items()}
    scores["A", condition("audio")] = [NAN] * 3
    shown = {exhibit.key: exhibit for exhibit in availability.exhibits(study(scores), VIEW)}
    first, alone = shown["availability"], shown["availability_alone"]
    assert "With 3 modalities left: A 0.2020" in first.finding
    assert "Not complete: A, 1 left (audio: 3 failed (ValueError: no))." in first.finding
    assert "interactions: A 0.3030" in alone.finding
    assert "Without a number: A with audio (3 failed (ValueError: no))." in alone.finding
    assert shown["availability_subsets"].figure is None
    for figure in (first.figure, alone.figure):
        assert EVIL not in figure.to_json()
    symbols = next(t.marker.symbol for t in first.figure.data if t.name == "A")
    assert symbols == ("circle", "circle", "circle-open")

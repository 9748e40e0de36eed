"""The page of a study of arms under conditions, whose names are as bad as names can be."""

import csv
import json
import math
import re
import time

import pytest

from mmrec.reports import write_report
from mmrec.reports.exhibits import exhibits
from mmrec.stats import Verdict
from mmrec.study.views import FillerSensitivity, Gates, Published, Strata, Verdicts
from tests.reports.compared import large, study
from tests.reports.synthetic import Said
from tests.reports.test_report_page import EVIL, Page, strings

BAD = f"A{EVIL}"
SCORES = {
    (BAD, "baseline"): [0.30, 0.32, 0.31],
    (BAD, f"{EVIL}=noise"): [0.20, 0.23, 0.22],
    (BAD, f"{EVIL}=zero"): [0.28, math.nan, math.nan],
    ("B", "baseline"): [0.30, 0.31, 0.33],
    ("B", f"{EVIL}=noise"): [0.29, 0.32, 0.30],
    ("B", f"{EVIL}=zero"): [math.nan] * 3,
    (f"{BAD} described", "baseline"): [0.30, 0.31, 0.33],
    ("LightGCN", "baseline"): [0.27, 0.29, 0.28],
}
TRIES = [
    {"arm": BAD, "condition": "baseline", "nth": n, f"model.{EVIL}": 0.1 * n}
    | {"state": "done", "valid": 0.2 + 0.01 * n, "chosen": n == 1}
    for n in (0, 1)
]


def more(arm, condition, seed, score):
    return {
        "test.ndcg@10:rare-items": 0.5 * score,
        "test.ndcg@10:long-histories": 1.5 * score,
        f"measure.gate.{EVIL}": 0.3 + 0.1 * seed,
    }


@pytest.fixture(scope="module")
def made():
    claims = [
        (Said(f"{arm}: it hurts", EVIL, f"it hurts {EVIL}", arm), Verdict(verdict, 0.1, 0.3, n=5))
        for arm, verdict in ((BAD, "supported"), ("B", "refuted"), (f"{BAD} described", "refuted"))
    ]
    groups = {BAD: EVIL, "B": "plain"}
    facts = {"claims": claims, "tuned": TRIES, "groups": groups}
    return study(SCORES, more, ["LightGCN"], **facts)


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    return write_report(made, tmp_path_factory.mktemp("arms"))


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text())


def test_a_study_of_arms_shows_all_that_it_has(written):
    results = json.loads((written.parent / "results.json").read_text())
    assert list(results["findings"]) == [
        "verdicts",
        "verdict_counts",
        "verdict_survival",
        "condition_forest",
        "condition_map",
        "fillers",
        "strata",
        "gates",
        "cell_scores",
        "tuning",
        "importance",
        "curves",
    ]


def test_no_name_becomes_markup(written, page):
    assert not [tag for tag, a in page.tags if tag == "img" or "onerror" in a]
    body = re.sub(r"<script>.*?</script>", "", written.read_text(), flags=re.DOTALL)
    assert "<script>alert" not in body
    figures = [value for name, value in page.data().items() if name.startswith("fig-")]
    found = [text for text in strings(figures) if "alert" in text]
    assert found
    assert not [text for text in found if "<script" in text or "<img" in text]


def test_claims_of_a_topic_stand_under_its_count_and_share_their_source(page):
    text = "".join(page.text)
    section = text[text.index("Claims and verdicts") : text.index("Is it complete?")]
    assert "supported for 1 of 2 models, refuted for 1 (described: 0 of 1 supported)" in section
    assert section.count(EVIL) == 2 + 2  # the topic, its one source, and two of three arms


def test_squares_of_the_map_are_its_table(page, written):
    with (written.parent / "tables" / "condition_map.csv").open() as file:
        rows = [float(row["relative"]) for row in csv.DictReader(file) if row["relative"]]
    expected = [0.65 / 0.93 - 1, 0.28 / 0.30 - 1, 0.91 / 0.94 - 1]
    assert rows == pytest.approx(expected)
    layout = page.data()["fig-condition_map-data"]["layout"]
    words = [note["text"].strip("</b>") for note in layout["annotations"]]
    assert words == ["−30.1 %", "−6.7 %", "−3.2 %", "failed"]  # noqa: RUF001
    assert len([shape for shape in layout["shapes"] if shape["type"] == "path"]) == 1


def test_a_single_seed_is_hollow(page):
    traces = page.data()["fig-condition_forest-data"]["data"]
    marks = [symbol for trace in traces for symbol in trace["marker"]["symbol"]]
    assert [mark.endswith("-open") for mark in marks] == [False, False, True]


def test_what_was_asked_for_says_why_it_is_empty():
    views = (Verdicts(), FillerSensitivity(), Strata(), Gates(), Published("knockout"))
    made = study({("A", "baseline"): [0.1, 0.2], ("A", "text=noise"): [0.1, 0.1]}, views=views)
    said = {e.key: e.finding for e in exhibits(made) if e.figure is None}
    assert said["verdicts"] == "The study has no claim that names a topic and an arm."
    assert said["fillers"] == "No modality was replaced by two different fillers."
    assert said["strata"] == "No trial has scores by stratum that could be compared."
    assert said["gates"] == "No trial recorded a gate."
    assert said["published_knockout"].startswith("No published column stands here: the dataset")


def test_an_unknown_published_table_is_named():
    made = study({("A", "baseline"): [0.1]}, views=(Published("lost"),))
    with pytest.raises(KeyError, match=r"'lost'; there are: knockout"):
        exhibits(made)


def test_a_study_that_has_only_tuned_yet_has_its_page(tmp_path):
    ran = [{**one, "chosen": False, "state": "failed", "valid": None} for one in TRIES]
    done = study({("B", "baseline"): [0.1]}, tuned=ran)
    trials = done.trials[done.trials["phase"] == "tune"]
    epochs = done.epochs.iloc[:0]
    run = {**done.run, "tries": [{**one, "chosen": n == 0} for n, one in enumerate(ran)]}
    made = type(done)(run, trials, epochs)
    text = "".join(Page(write_report(made, tmp_path).read_text()).text)
    assert "2 trials on validation only: 0 done, 2 failed" in text


@pytest.mark.slow
def test_a_large_study_takes_seconds_and_few_megabytes(tmp_path):
    study = large()
    start = time.process_time()
    page = write_report(study, tmp_path)
    assert time.process_time() - start < 20
    assert page.stat().st_size < 9e6

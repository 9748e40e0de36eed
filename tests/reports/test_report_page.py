"""The written report: one page that needs no network, safe from any name, the same every time."""

import base64
import csv
import dataclasses
import html.parser
import json
import math
import re
import time

import numpy as np
import pandas as pd
import pytest

from mmrec.reports import write_report
from mmrec.study.tables import StudyTables
from mmrec.study.views import CellForest, MainEffects
from tests.reports.synthetic import CLAIMS, VIEWS, Said, grid, run_facts, search, trial

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>'\"%{x}</title>&amp;<!--"


class Page(html.parser.HTMLParser):
    """Tags with attributes, visible text, and the contents of scripts by id."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.scripts, self._open = [], [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = dict(attrs) if tag in ("script", "style") else None
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open is None:
            self.text.append(data)
        elif self.scripts:
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)

    def data(self):
        return {a["id"]: json.loads(body) for a, body in self.scripts if "id" in a}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(grid(), folder)


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text())


def test_plotly_is_there_once_and_nothing_is_fetched(written, page):
    assert written.read_text().count("* plotly.js v") == 1
    assert not [a for _, a in page.tags if {"src", "srcset", "action"} & set(a)]
    assert all(a["href"].startswith("#") for _, a in page.tags if "href" in a)
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_the_answer_comes_first_and_every_verdict_is_worded(page):
    text = "".join(page.text).replace("\N{NO-BREAK SPACE}", " ")
    assert text.index(grid().answer) < text.index("Claims and verdicts")
    for claim, verdict in CLAIMS:
        assert text.index(claim.text) < text.index(verdict.verdict, text.index(claim.text))
        assert claim.source in text
    assert "could have seen 0.0187" in text
    assert "smoke" not in text


def test_a_smoke_run_has_a_banner(tmp_path):
    text = "".join(Page(write_report(grid(2, smoke=True), tmp_path).read_text()).text)
    assert text.index("smoke: no verdicts meant") < text.index("Claims and verdicts")


def test_every_figure_has_a_caption_a_table_and_a_fixed_name(page, written):
    plots = [a["id"] for t, a in page.tags if a.get("class") == "plot"]
    assert plots == [
        "fig-heat_map",
        "fig-ratio_curve",
        "fig-measures",
        "fig-main_effects",
        "fig-cell_scores",
        "fig-importance",
        "fig-curves",
    ]
    for name in plots:
        assert page.data()[f"{name}-data"]["data"]
        assert (written.parent / "tables" / f"{name.removeprefix('fig-')}.csv").exists()


def test_the_same_tables_give_the_same_bytes(written, tmp_path):
    again = write_report(grid(), tmp_path)
    for file in sorted(written.parent.rglob("*.*")):
        assert (again.parent / file.relative_to(written.parent)).read_bytes() == file.read_bytes()


def test_csv_and_json_hold_the_pages_numbers(written, page):
    results = json.loads((written.parent / "results.json").read_text())
    with (written.parent / "tables" / "heat_map.csv").open() as file:
        rows = list(csv.DictReader(file))
    means = results["tables"]["heat_map"]["mean"]
    assert [float(row["mean"]) if row["mean"] else None for row in rows] == means
    drawn = page.data()["fig-heat_map-data"]["data"][0]["z"]
    z = np.frombuffer(base64.b64decode(drawn["bdata"]), drawn["dtype"])
    assert set(np.round(z[np.isfinite(z)], 12)) == {round(m, 12) for m in means if m is not None}
    assert results["answer"] == grid().answer


def test_trial_table_has_every_trial_and_its_state(page):
    data = page.data()["trial-table-data"]
    assert data["size"] == 110
    states = data["values"][data["columns"].index("state")]
    assert (states.count("failed"), states.count("planned")) == (5, 2)


@pytest.fixture(scope="module")
def evil(tmp_path_factory):
    return write_report(hostile(), tmp_path_factory.mktemp("evil")).read_text()


def hostile():
    study = grid(2)
    trials = study.trials.assign(
        label=[f"{EVIL}{label}" for label in study.trials["label"]],
        error=EVIL,
        host=EVIL,
        **{"model.kind": [EVIL if n % 2 else "plain" for n in range(len(study.trials))]},
    )
    run = {**study.run, "study": EVIL, "question": EVIL, "out": EVIL, "command": EVIL}
    run["dataset"] = {**run["dataset"], "name": EVIL, "modalities": {EVIL: EVIL}, "notes": [EVIL]}
    claims = ((Said(EVIL, EVIL), dataclasses.replace(CLAIMS[0][1], detail=EVIL)),)
    views = (*VIEWS[:3], MainEffects(("model.kind",)), CellForest())
    return StudyTables(run, trials, study.epochs, claims, views)


def test_no_name_becomes_markup(evil):
    text, evil = evil, Page(evil)
    assert sum("id" not in a for a, _ in evil.scripts) == 3  # plotly.js and the page's own two
    assert not [t for t, a in evil.tags if t == "img" or "onerror" in a]
    for script in (body for a, body in evil.scripts if "id" in a):
        assert "<" not in script
    body = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert "<script>alert" not in body
    assert EVIL in "".join(evil.text)


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def test_names_inside_figures_are_escaped_for_plotly(evil):
    evil = Page(evil)
    figures = {k: v for k, v in evil.data().items() if k.startswith("fig-")}
    found = [text for text in strings(list(figures.values())) if "alert(1)" in text]
    assert any(text.startswith("&lt;script&gt;alert(1)&lt;/script&gt;") for text in found)
    assert not [text for text in found if "<script" in text or "<img" in text]


def test_templates_hold_no_names(evil):
    evil = Page(evil)

    def templates(value):
        if isinstance(value, dict):
            for key, item in value.items():
                if key in ("hovertemplate", "texttemplate"):
                    yield item
                else:
                    yield from templates(item)
        elif isinstance(value, list):
            for item in value:
                yield from templates(item)

    found = [t for k, v in evil.data().items() if k.startswith("fig-") for t in templates(v)]
    assert found
    assert not [t for t in found if "alert" in t]


@pytest.mark.slow
def test_a_search_shows_its_course_and_what_it_rests_on(tmp_path):
    page = Page(write_report(search(), tmp_path).read_text())
    assert {"fig-history-data", "fig-slices-data", "fig-search_map-data"} <= set(page.data())
    assert "PED-ANOVA" in "".join(page.text)
    assert "20 finished trials" in "".join(page.text)
    assert "not recorded by any trial: mean cosine, modality gap" in "".join(page.text)


def test_a_study_of_which_nothing_is_done_still_has_its_page(tmp_path):
    rows = [
        trial(n, f"c{n}", 0, math.nan, state="planned", seconds=None, started="", ended="")
        | {"model.k": n, "valid.ndcg@10": None, "test.ndcg@10": None, "test.recall@10": None}
        for n in range(3)
    ]
    frame = pd.DataFrame(rows)
    empty = pd.DataFrame(columns=["hash", "epoch", "seconds", "valid.ndcg@10"])
    path = write_report(StudyTables(run_facts(planned=3), frame, empty), tmp_path)
    text = "".join(Page(path.read_text()).text)
    assert "No trial on planted is done yet." in text
    assert "1 not run yet" in text


def test_one_factor_and_default_views(tmp_path):
    rows = [
        trial(5 * k + seed, f"k={k}", seed, 0.1 * k + 0.001 * (seed * k % 4)) | {"model.k": k}
        for k in (1, 2, 3)
        for seed in range(5)
    ]
    frame = pd.DataFrame(rows)
    empty = pd.DataFrame(columns=["hash", "epoch", "seconds", "valid.ndcg@10"])
    path = write_report(StudyTables(run_facts(selected="k=3", planned=15), frame, empty), tmp_path)
    data = Page(path.read_text()).data()
    assert {"fig-cell_scores-data", "fig-main_effects-data", "fig-importance-data"} <= set(data)


@pytest.mark.slow
def test_thousands_of_trials_take_seconds_and_few_megabytes(tmp_path):
    study = search(trials=5000)
    start = time.process_time()
    page = write_report(study, tmp_path)
    assert time.process_time() - start < 20
    assert page.stat().st_size < 9e6

"""Whatever a run tells in words is shown as words, also if it is markup that would like to run."""

import json
import re
from typing import Any

import pytest

from mmrec.reports import write_report
from mmrec.study.tables import StudyTables
from tests.reports.synthetic import CLAIMS, VIEWS, Said, grid, search
from tests.reports.test_report_page import Page, strings

pytestmark = pytest.mark.slow

HOSTILE = (
    '"><img src=x onerror=alert(1)><script>alert(1)</script>',
    "'</script><svg onload='alert(1)'><!--<script>",
    "%{customdata}</title>&lt;b&gt;<a href='javascript:alert(1)'>",
)
"""Each shorter than what a figure shows of a name."""
WORDS = {"kind", "objective", "created", "split"}
"""Of `run.json`: what the report computes with."""
TAKEN = ["state", "phase", "cell", "condition", "model"]
"""Of the trials: likewise."""


def poisoned(value: Any, evil: str) -> Any:
    """With every string in it evil."""
    match value:
        case str():
            return evil
        case dict():
            return {k: v if k in WORDS else poisoned(v, evil) for k, v in value.items()}
        case list():
            return [poisoned(inner, evil) for inner in value]
    return value


def hostile(study: StudyTables, evil: str) -> StudyTables:
    trials = study.trials.copy()
    for name in trials.select_dtypes(include=["object", "string"]):
        if name not in TAKEN:
            trials[name] = trials[name].map(lambda v: evil + v if isinstance(v, str) else v)
    trials["condition"] = trials["model"] = evil
    trials["cell"] = evil + trials["cell"]
    trials["label"] = evil + trials["label"]
    trials["error"] = evil
    trials["config"] = json.dumps({evil: evil})
    run = {**poisoned(study.run, evil), "hardware": [evil, evil + "2"], "groups": {evil: evil}}
    run["selected"] = study.run["selected"] and evil + study.run["selected"]
    run["dataset"] |= {"modalities": {evil: evil}, "notes": [evil]}
    run["versions"] = {evil: evil, "torch": evil, "ray": evil, "optuna": evil, "mmrec": evil}
    claims = tuple((Said(evil, evil, evil, evil), verdict) for _, verdict in CLAIMS)
    epochs = study.epochs.assign(hash=evil + study.epochs["hash"])
    return StudyTables(run, trials, epochs, claims, VIEWS)


def in_figures(page: Page) -> list[str]:
    return list(strings([value for name, value in page.data().items() if name.startswith("fig-")]))


def markup(words: list[str]) -> set[str]:
    """What plotly may read as markup."""
    return set(re.findall(r"<[^<>]*>?", " ".join(words)))


@pytest.mark.parametrize("kind", [grid, search], ids=["grid", "search"])
def test_no_word_of_a_run_becomes_markup(kind, tmp_path):
    def page_with(words: str) -> Page:
        return Page(write_report(hostile(kind(), words), tmp_path).read_text())

    usual = page_with("plain ")
    names = {name for _, attributes in usual.tags for name in attributes}
    for evil in HOSTILE:
        page = page_with(evil)
        assert evil in "".join(page.text)
        # The same elements, attributes and scripts as where all names are plain.
        assert [tag for tag, _ in page.tags] == [tag for tag, _ in usual.tags]
        assert {name for _, attributes in page.tags for name in attributes} == names
        assert all(a["href"].startswith("#") for _, a in page.tags if "href" in a)
        # Data blocks cannot be left from inside, and are JSON.
        blocks = [body for attributes, body in page.scripts if "id" in attributes]
        assert len(blocks) == len(page.data()) == len(page.scripts) - 3
        assert not [body for body in blocks if set("<>&") & set(body)]
        assert [words for words in in_figures(page) if "alert" in words]
        assert markup(in_figures(page)) == markup(in_figures(usual))

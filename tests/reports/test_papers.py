"""Which printed numbers may stand beside ours, and that they are the printed ones."""

import math
from typing import cast

import pytest

from mmrec.reports import papers
from mmrec.study.views import Published
from tests.reports.compared import study

NAN = math.nan
PUBLISHED = cast(papers.ByCondition, papers.source(Published("knockout")))


def on_baby(**run):
    scores = {
        ("VBPR", "baseline"): [0.020, 0.022],
        ("VBPR", "image=noise"): [0.0222, 0.0222],
        ("VBPR", "image+text=noise"): [NAN, NAN],
        ("VBPR", "text=noise@eval"): [0.02, 0.02],
        ("VBPR frozen", "baseline"): [0.5, 0.5],
        ("Mine", "baseline"): [0.6, 0.6],
    }
    facts = {
        "dataset": {"name": "baby"},
        "protocol": {"name": "mmrec"},
        "choices": {"train-features": ["released", "frozen"]},
    }
    return study(scores, **{**facts, **run})


def test_published_numbers_stand_beside_the_same_model_and_condition():
    table = papers.beside(on_baby(), PUBLISHED)
    rows = table[table["metric"] == "ndcg@10"].set_index(["model", "condition"])
    assert rows.index.tolist() == [("VBPR", "baseline"), ("VBPR", "image=noise")]
    assert rows["published"].tolist() == [0.0211, 0.0222]
    assert rows["ours"].tolist() == pytest.approx([0.021, 0.0222])
    assert rows["ratio"].tolist() == pytest.approx([0.021 / 0.0211, 1.0])
    assert set(table["metric"]) == {"ndcg@10", "recall@10"}


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({"dataset": {"name": "planted"}}, "the dataset is planted"),
        ({"protocol": {"name": "full"}}, "the protocol is full, theirs is mmrec"),
        ({"choices": {"train-features": ["frozen"]}}, "no arm trained its feature tables"),
    ],
    ids=["dataset", "protocol", "frozen"],
)
def test_no_published_number_stands_beside_what_is_not_alike(run, why):
    assert papers.beside(on_baby(**run), PUBLISHED).empty
    assert [why in words for words in papers.obstacles(on_baby(**run), PUBLISHED)] == [True]


def test_printed_tables_are_those_that_their_captions_say():
    captions = papers.printed(PUBLISHED).groupby("table")["caption"].first()
    words = {
        "baseline": ["Baseline"],
        "image+text=noise": ["Dual", "Noise"],
        "text=noise": ["Text", "Noise"],
        "image=noise": ["Image", "Noise"],
        "image+text=constant": ["Dual", "Constant One"],
        "image+text=zero": ["Dual", "Constant Zero"],
    }
    for table, condition in PUBLISHED.conditions.items():
        assert all(word in captions[table] for word in words[condition])
    assert len(papers.printed(PUBLISHED)) == 335

import json

import pytest

from benchmarks.model_table import END, README, START, model_table, row_of, section
from mmrec.models.base import Card, ModelConfig
from mmrec.models.bpr import BPR
from mmrec.models.popularity import Popularity
from mmrec.models.sibrar import SiBraR


def test_the_readme_shows_the_models_that_there_are():
    _, shown, _ = section(README.read_text(encoding="utf-8"))
    assert shown == model_table(), "python benchmarks/model_table.py rewrites the README's table"


def test_seconds_are_those_measured_and_none_else(tmp_path):
    for model, frozen in ((BPR, None), (SiBraR, 1.256), (Popularity, None)):
        record = {"model": "-", "train_seconds": 2.344, "train_seconds_frozen": frozen}
        (tmp_path / f"{model.__name__}.json").write_text(json.dumps(record))
    rows = model_table(tmp_path).splitlines()[2:]
    seconds = {row.split("[")[1].split("]")[0]: row.split(" | ")[-1] for row in rows}
    assert seconds["BPR-MF"] == "2.34 |"
    assert seconds["SiBraR"] == "2.34 (frozen 1.26) |"
    assert seconds["Popularity"] == "no epochs |"
    assert seconds["LightGCN"] == "not measured |"
    years = [int(row.split(" | ")[1]) for row in rows]
    assert years == sorted(years)
    assert years[0] < years[-1]


def test_a_card_cannot_break_its_row(tmp_path):
    class Odd(ModelConfig):
        CARD = Card("A|B", 1999, "X", "one two three four five", "none", "reads x|y")

    assert row_of(Odd, tmp_path) == (
        r"[A\|B](tests/test_model_table.py)",
        "1999",
        "one two three four five",
        "none",
        r"reads x\|y",
        "not measured",
    )


@pytest.mark.parametrize("text", ["", START, END + START, f"{START}{END}{START}{END}"])
def test_a_text_without_one_pair_of_markers_is_refused(text):
    with pytest.raises(ValueError, match="needs one <!-- models --> and, below it"):
        section(text)


def test_markers_split_a_text():
    assert section(f"a\n{START}b\n{END}c\n") == ("a\n", "b\n", "c\n")

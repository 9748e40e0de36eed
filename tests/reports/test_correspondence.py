"""Which modality's codes are right alone, on shares that are known."""

import numpy as np
import plotly.graph_objects as go
import pytest
from scipy import stats as sps

from mmrec.reports import correspondence, measured
from mmrec.reports.exhibits import exhibits
from mmrec.study.tables import StudyTables
from mmrec.study.views import Correspondence
from tests.reports import compared

VIEW = Correspondence(("text", "image"))
ALL = [0.10, 0.12, 0.11]
TEXT = [0.20, 0.26, 0.23]
IMAGE = [0.05, 0.04, 0.06]


def made(*views) -> StudyTables:
    """`both` writes IDs of two modalities, `one` only those of text."""

    def state(arm, condition, seed, score):
        if arm == "one":
            return {"measure.right_all": 0.3, "measure.right_text": 0.3}
        parts = {"right_all": ALL, "only_text": TEXT, "only_image": IMAGE}
        return {f"measure.{name}": values[seed] for name, values in parts.items()}

    scores = {(arm, "baseline"): [0.1] * 3 for arm in ("one", "both")}
    return compared.study(scores, more=state, views=views)


def test_the_outcomes_of_an_id_add_up_to_one():
    table = correspondence.correspondence(made(), VIEW)
    assert set(table["arm"]) == {"both"}
    rows = table.set_index("outcome")
    assert rows["mean"].iloc[:4].sum() == pytest.approx(1)
    assert rows.loc["neither right", "mean"] == pytest.approx(1 - 0.11 - 0.23 - 0.05)
    assert rows.loc["both right", "mean"] == pytest.approx(0.11)
    apart = np.array(TEXT) - IMAGE
    row = rows.loc["only text less only image"]
    ends = sps.t.interval(0.95, 2, apart.mean(), sps.sem(apart))
    assert (row["low"], row["high"]) == pytest.approx(ends)


def test_the_exhibit_has_words_table_and_figure():
    (shown, *_) = exhibits(made(VIEW))
    assert shown.key == "correspondence"
    assert "both: both 11.0 %, only text 23.0 %, only image 5.0 %" in shown.finding
    assert isinstance(shown.figure, go.Figure)
    assert sum(float(bar.x[0]) for bar in shown.figure.data) == pytest.approx(1)


def test_where_no_id_has_both_it_is_said():
    (shown, *_) = exhibits(made(Correspondence(("text", "sound"))))
    assert (shown.figure, len(shown.table)) == (None, 0)
    assert "IDs of both text and sound" in shown.finding


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("right_image", "image codes of the next item right"),
        ("right_all", "next IDs written wholly right"),
        ("only_sub_title", "only sub title codes right"),
        ("ami_text", "AMI with text codes"),
        ("usage_fused", "fused code words used"),
        ("collisions", "items that share all codes"),
        ("gap_cka", "linear CKA of modalities"),
        ("item_rank", "item rank"),
    ],
)
def test_measures_of_any_modality_have_words(measure, words):
    assert measured.words(measure) == words

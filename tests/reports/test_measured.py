"""What the report says of models' states, trained and by epoch, on numbers that are known."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from scipy import stats as sps

from mmrec.reports import measured
from mmrec.reports.exhibits import exhibits
from mmrec.study.tables import StudyTables
from mmrec.study.views import ArmMeasures, MeasureCourse
from tests.reports import compared

SEEDS = np.arange(5)
LUCK = np.array([0.0, 0.05, -0.02, 0.03, -0.04])
"""Of each seed, the same in both arms."""
LIFT = np.array([0.3, 0.32, 0.28, 0.31, 0.29])
LENGTHS = [6, 5, 4, 6, 6]
"""Epochs of each seed in arm `one`; those of `many` all have six."""
TRAINED = ArmMeasures(("gap_intra_cosine", "gap_cka"), against="many")
COURSE = MeasureCourse(("gap_intra_cosine", "gap_chance", "absent"))


def made(*views) -> StudyTables:
    """Arm `one` has a cosine of .5 + luck + lift trained, and nears it by a tenth an epoch."""

    def state(arm, condition, seed, score):
        cosine = 0.5 + LUCK[seed] + LIFT[seed] * (arm == "one")
        return {"measure.gap_intra_cosine": cosine, "measure.gap_cka": 0.25}

    scores = {(arm, "baseline"): [0.1] * 5 for arm in ("many", "one")}
    tables = compared.study(scores, more=state, views=views)
    rows = []
    for trial in tables.trials.to_dict("records"):
        whole = LENGTHS[trial["seed"]] if trial["arm"] == "one" else 6
        for epoch in range(1, whole + 1):
            moved = 0.1 * epoch if trial["arm"] == "one" else 0.0
            row = {"hash": trial["hash"], "epoch": epoch, "valid.ndcg@10": 0.1}
            row["measure.gap_intra_cosine"] = LUCK[trial["seed"]] + moved
            rows.append(row | {"measure.gap_chance": 0.2})
    return StudyTables(tables.run, tables.trials, pd.DataFrame(rows), views=views)


def test_arms_are_compared_seed_by_seed():
    table = measured.by_arm(made(), TRAINED).set_index(["measure", "arm"])
    one, many = (table.loc[("gap_intra_cosine", arm)] for arm in ("one", "many"))
    assert (one["mean"], one["n"]) == (pytest.approx(0.5 + (LUCK + LIFT).mean()), 5)
    interval = sps.t.interval(0.95, 4, one["mean"], sps.sem(LUCK + LIFT))
    assert (one["low"], one["high"]) == pytest.approx(interval)
    interval = sps.t.interval(0.95, 4, LIFT.mean(), sps.sem(LIFT))
    assert one["effect"] == pytest.approx(LIFT.mean())
    assert (one["effect_low"], one["effect_high"]) == pytest.approx(interval)
    assert (one["pairs"], many["pairs"], np.isnan(many["effect"])) == (5, 0, True)


def test_a_course_ends_where_the_first_seed_stopped():
    table = measured.by_epoch(made(), COURSE)
    rows = table[table["measure"] == "gap_intra_cosine"].set_index(["arm", "epoch"])
    assert [epoch for arm, epoch in rows.index if arm == "one"] == [1, 2, 3, 4]
    assert [epoch for arm, epoch in rows.index if arm == "many"] == [1, 2, 3, 4, 5, 6]
    third = rows.loc[("one", 3)]
    assert (third["mean"], third["n"]) == (pytest.approx(0.3 + LUCK.mean()), 5)
    interval = sps.t.interval(0.95, 4, third["mean"], sps.sem(LUCK))
    assert (third["low"], third["high"]) == pytest.approx(interval)
    assert list(dict.fromkeys(table["measure"])) == ["gap_intra_cosine", "gap_chance"]


def test_changes_are_paired():
    table = measured.changes(made(), COURSE).set_index(["measure", "arm"])
    row = table.loc[("gap_intra_cosine", "one")]
    assert (row["first"], row["last"]) == (1, 4)
    # Luck differs from seed to seed, the change does not.
    assert (row["change"], row["low"], row["high"]) == pytest.approx((0.3, 0.3, 0.3))
    assert table.loc[("gap_intra_cosine", "many")]["change"] == 0


def test_both_views_have_words_table_and_figure():
    by_key = {shown.key: shown for shown in exhibits(made(TRAINED, COURSE))}
    trained, course = by_key["arm_measures"], by_key["measure_course"]
    assert "Cosine of an item's modalities 0.504 (many) to 0.804 (one)" in trained.finding
    assert "cosine of an item's modalities rises in 1 and falls in 0 of 2 arms" in course.finding
    assert isinstance(trained.figure, go.Figure)
    assert isinstance(course.figure, go.Figure)
    # What is one number throughout, as CKA in one and chance in the other, takes no panel.
    assert "linear CKA of modalities 0.25." in trained.finding
    assert "by chance" not in course.finding
    assert [len(trace.x) for trace in trained.figure.data] == [2]
    lines = [trace for trace in course.figure.data if trace.mode == "lines+markers"]
    assert [trace.name for trace in lines] == ["many", "one"]
    np.testing.assert_allclose(lines[1].y, LUCK.mean() + 0.1 * np.arange(1, 5))


def test_what_nobody_recorded_is_said():
    tables = made()
    bare = StudyTables(tables.run, tables.trials, tables.epochs.iloc[:, :3])
    for view, said in (
        (ArmMeasures(("rank",)), "No finished trial recorded these measures."),
        (COURSE, "`--set gap=epochs`"),
    ):
        shown = measured.exhibit(bare, view)
        assert said in shown.finding
        assert shown.figure is None

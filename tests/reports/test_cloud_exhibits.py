"""What the report says of item embeddings, on clouds whose numbers are known."""

import itertools
import json

import numpy as np
import pandas as pd
import plotly.io as pio
import pytest
from scipy import stats as sps

from mmrec.reports import clouds
from mmrec.reports.exhibits import exhibits
from mmrec.study.tables import CloudTables, StudyTables
from mmrec.study.views import Clouds
from tests.reports import synthetic
from tests.reports.synthetic import run_facts, trial

STAGES = ("features", "start", "trained")
LUCK = (0.0, 1.0, -0.5, 0.25)
"""Of each seed, the same at every stage."""
LIFT = (2.0, 2.5, 1.5, 2.0)
"""What training adds in each seed."""


def made(arms=("B", "A"), without=0) -> CloudTables:
    """Two arms by text, image and all; numbers follow from seed, stage and place."""
    measures, spectra, points = [], [], []
    for n, (arm, seed) in enumerate(itertools.product(arms, range(4))):
        trial = {"hash": f"{n:016x}", "arm": arm, "condition": "baseline", "seed": seed}
        for stage, modality in itertools.product(STAGES, ("text", "image", "all")):
            if (stage, modality) == ("features", "all"):
                continue
            place = {**trial, "stage": stage, "modality": modality}
            value = 10.0 if stage == "features" else 4 + LUCK[seed]
            value += LIFT[seed] * (stage == "trained") * (-1 if arm == "A" else 1)
            measures.append(place | {"measure": "effective_rank", "value": value})
            measures.append(place | {"measure": "mean_cosine", "value": 0.1 * seed})
            for component, share in enumerate((0.5 + 0.1 * LUCK[seed], 0.25), 1):
                spectra.append(place | {"component": component, "share": share})
            if stage != "features":
                pair = {**place, "modality": f"{modality}|more", "measure": "neighbour_overlap"}
                measures.append(pair | {"value": 0.2 + 0.01 * seed, "chance": 0.05})
            if seed == 0 and modality != "all":
                panel = {
                    "panel": "image+text",
                    "method": "tsne",
                    "item": n,
                    "x": float(n),
                    "y": 1.0,
                }
                points.append(place | panel)
    return CloudTables(
        pd.DataFrame(measures, columns=list(CloudTables.MEASURES)),
        pd.DataFrame(spectra, columns=list(CloudTables.SPECTRA)),
        pd.DataFrame(points, columns=list(CloudTables.POINTS)),
        without,
    )


def study(found: CloudTables | None, *shown) -> StudyTables:
    rows = pd.DataFrame([trial(n, "B", n, 0.1) for n in range(4)])
    views = tuple(Clouds(show) for show in shown)
    return StudyTables(
        run_facts(planned=4), rows, synthetic.curves(rows), views=views, clouds=found
    )


def test_measures_are_means_over_seeds_with_their_paired_change():
    table = clouds.measures(made(), relations=False)
    rows = table.set_index(["measure", "arm", "modality", "stage"])
    start = 4 + np.array(LUCK)
    for arm, sign in (("B", 1), ("A", -1)):
        row = rows.loc[("effective_rank", arm, "text", "trained")]
        after = start + sign * np.array(LIFT)
        assert (row["mean"], row["n"]) == (pytest.approx(after.mean()), 4)
        expected = sps.t.interval(0.95, 3, after.mean(), sps.sem(after))
        assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-12)
        # Seeds differ widely, what training adds does not: the change is paired.
        expected = sps.t.interval(0.95, 3, sign * 2.0, sps.sem(LIFT))
        assert row["change"] == pytest.approx(sign * 2.0)
        assert (row["change_low"], row["change_high"]) == pytest.approx(expected, rel=1e-9)
    assert table["change"].notna().equals(table["stage"] == "trained")


def test_measures_stand_in_the_order_in_which_they_were_made():
    table = clouds.measures(made(), relations=False)
    assert list(dict.fromkeys(table["measure"])) == ["effective_rank", "mean_cosine"]
    places = list(zip(table["arm"], table["modality"], table["stage"], strict=True))[:8]
    assert places == [
        *[("B", modality, stage) for modality in ("text", "image") for stage in STAGES],
        ("B", "all", "start"),
        ("B", "all", "trained"),
    ]


def test_relations_are_told_apart_and_held_to_chance():
    table = clouds.measures(made(), relations=True)
    assert set(table["measure"]) == {"neighbour_overlap"}
    assert set(table["modality"]) == {"text|more", "image|more", "all|more"}
    assert table["chance"].tolist() == [0.05] * len(table)
    assert table["mean"].tolist() == pytest.approx([0.215] * len(table))


def test_spectra_add_up():
    table = clouds.spectra(made())
    rows = table.set_index(["arm", "modality", "stage", "component"])
    assert len(rows) == 2 * 8 * 2
    shares = 0.5 + 0.1 * np.array(LUCK)
    second = rows.loc[("A", "text", "trained", 2)]
    assert (second["share"], second["cumulative"]) == pytest.approx((0.25, shares.mean() + 0.25))
    expected = sps.t.interval(0.95, 3, shares.mean() + 0.25, sps.sem(shares))
    assert (second["low"], second["high"]) == pytest.approx(expected, rel=1e-12)


def test_every_view_has_its_words_its_table_and_its_figure():
    shown = ("measures", "relations", "spectra", "pictures")
    by_key = {one.key: one for one in exhibits(study(made(without=2), *shown))}
    said = by_key["cloud_measures"].finding
    assert "effective rank rises in 3 and falls in 3 of 6" in said
    assert "mean cosine rises in 0 and falls in 0 of 6 clouds" in said
    assert "share (0.05)" in by_key["cloud_relations"].finding
    mean = 0.5 + 0.1 * np.mean(LUCK)
    assert f"trained: {mean:.2f} to {mean:.2f}" in by_key["cloud_spectra"].finding
    assert "perplexity 30" in by_key["cloud_pictures"].finding
    for key in (f"cloud_{show}" for show in shown):
        assert "2 finished trials kept no embeddings" in by_key[key].finding
        assert by_key[key].figure is not None
    points = made().points
    pd.testing.assert_frame_equal(by_key["cloud_pictures"].table, points.drop(columns="hash"))


def test_a_study_without_clouds_says_so():
    for found in (None, CloudTables(*(part.iloc[:0] for part in parts(made())))):
        shown = clouds.exhibit(study(found), Clouds("measures"))
        assert (shown.finding, shown.figure) == ("No trial kept its item embeddings.", None)
    alone = made()
    measures = alone.measures[~alone.measures["modality"].str.contains("|", regex=False)]
    alone = CloudTables(measures, alone.spectra, alone.points.iloc[:0])
    for show in ("relations", "pictures"):
        shown = clouds.exhibit(study(alone), Clouds(show))
        assert shown.finding == "No model sees its modalities one by one."


def parts(found: CloudTables) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return found.measures, found.spectra, found.points


def test_a_table_that_lacks_a_column_is_refused():
    measures, spectra, points = parts(made())
    with pytest.raises(KeyError, match="spectra of clouds: missing share"):
        CloudTables(measures, spectra.drop(columns="share"), points)


@pytest.mark.parametrize("show", ["measures", "spectra", "pictures"])
def test_names_in_figures_are_escaped_for_plotly(show):
    figure = clouds.exhibit(study(made(("<b>A</b>",))), Clouds(show)).figure
    drawn = json.dumps(json.loads(pio.to_json(figure) or ""))
    assert "&lt;b&gt;A&lt;/b&gt;" in drawn
    assert "<b>" not in drawn

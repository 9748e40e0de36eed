"""The fusion study as a user runs it, on sequences of which it is known what decides the next item.

Of the arms only those that the claims in question need; their sizes are the study's own.
"""

import pandas as pd
import pytest

from mmrec.cli import main
from studies.fusion import STUDY as FUSION
from tests.e2e.conftest import run_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("local_ray"),
]

UNIMODAL = "TIGER text,TIGER image"
QUICK = ["--epochs=12", "--set=model.history=2"]
"""The last item of a history is what decides the next one here."""


def claims(tmp_path, dataset: str, variants: str) -> pd.DataFrame:
    """By their text."""
    asked = ["--dataset", dataset, "--variants", variants, "--out", str(tmp_path), *QUICK]
    assert main(FUSION, asked) == 0
    table = pd.read_csv(run_folder(tmp_path) / "report" / "tables" / "claims.csv")
    return table.set_index("claim")


def test_where_both_modalities_decide_late_fusion_beats_either(tmp_path):
    found = claims(tmp_path, "planted-sequences", f"{UNIMODAL},MGR-LF++")
    # The better one of the two is what it is compared with, so that it beats the other as well.
    beats = found.loc["MGR-LF++, aligned by InfoNCE, beats the best single modality"]
    assert beats["verdict"] == "supported"
    assert beats["low"] > 0
    assert found.loc["TIGER text ranks above popularity", "verdict"] == "supported"
    assert found.loc["TIGER image ranks above popularity", "verdict"] == "supported"
    tables = run_folder(tmp_path) / "report" / "tables"
    outcomes = pd.read_csv(tables / "correspondence.csv").set_index("outcome")["mean"]
    assert outcomes.iloc[:4].sum() == pytest.approx(1)
    hits = pd.read_csv(tables / "shared_hits.csv").set_index(["one", "other"])
    assert hits.loc[("TIGER text", "TIGER image"), "n"] == 5


def test_where_text_alone_decides_images_alone_fail(tmp_path):
    found = claims(tmp_path, "planted-sequences-text", UNIMODAL)
    text, image = (found.loc[f"TIGER {name} ranks above popularity"] for name in ("text", "image"))
    assert text["verdict"] == "supported"
    assert image["verdict"] in ("refuted", "not separable")

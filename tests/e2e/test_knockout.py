"""The knockout study as a user runs it: what is used is found, and nothing is trained twice."""

import json

import pandas as pd
import pytest

from mmrec.cli import main, mmrec_command
from studies.encoder_swap import STUDY as ENCODER_SWAP
from studies.knockout import STUDY as KNOCKOUT
from tests.e2e.conftest import run_folder, trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("local_ray"),
]

QUICK = ["--tune=0", "--epochs=10", "--set=train.lr=0.01", "--set=train.patience=4"]


def verdicts(tmp_path, dataset: str, models: str, *words: str) -> pd.DataFrame:
    """Arm x topic, of a shuffle of each modality; row ids are shuffled, so nothing else is lost.

    Of four models each meets a modality that informs, and one of noise. The seeds are as many as
    leave room between the verdicts' p values and 5 %.
    """
    asked = f"--dataset {dataset} --conditions each --fillers shuffle --models {models}"
    assert main(KNOCKOUT, [*asked.split(), *QUICK, *words, "--out", str(tmp_path)]) == 0
    claims = pd.read_csv(run_folder(tmp_path) / "report" / "tables" / "claims.csv")
    claims = claims[claims["arm"].isin(models.split(","))]
    return claims.set_index(["arm", "topic"])["verdict"].unstack()  # noqa: PD010 - not averaged


def test_an_informative_text_beside_a_noise_image_is_found(tmp_path):
    found = verdicts(tmp_path, "planted-text", "VBPR,FREEDOM")
    assert set(found["text knockout hurts"]) == {"supported"}
    assert "refuted" not in set(found["image knockout changes nothing"])


def test_two_informative_modalities_are_found(tmp_path):
    found = verdicts(tmp_path, "planted", "VBPR,LATTICE,MGCN", "--seeds=8")
    assert set(found["text knockout hurts"]) == {"supported"}
    image = found["image knockout changes nothing"]
    # MGCN loses a tenth of its NDCG without the image, for which eight seeds are hardly enough.
    assert {image[arm] for arm in ("VBPR", "LATTICE")} == {"refuted"}


def test_without_information_nothing_is_separable(tmp_path):
    # However long they train: one item's noise is as good as another's.
    found = verdicts(tmp_path, "planted-noise", "VBPR,LATTICE,FREEDOM,MGCN", "--epochs=5")
    assert "supported" not in set(found["text knockout hurts"])
    assert "refuted" not in set(found["image knockout changes nothing"])


SMALL = [
    "--models=VBPR", "--conditions=text", "--when=train+eval,eval", "--tune=3", "--epochs=3",
    "--seeds=2",
]  # fmt: skip


def test_tuning_goes_on_where_it_was_cut_and_its_choice_is_in_every_trial(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert main(KNOCKOUT, [*SMALL, *out, "--max-trials", "4"]) == 0
    cut = trials(run_folder(tmp_path))
    assert set(cut["phase"]) == {"tune"}
    assert (cut["state"] == "done").sum() == 4
    assert main(KNOCKOUT, [*SMALL, *out]) == 0
    folder = run_folder(tmp_path)
    table = trials(folder)
    assert set(table["state"]) == {"done"}
    assert (table["attempt"] == 1).all()
    # Three arms with three tries each, of which the chosen ones are trials of the grid too.
    assert table["phase"].value_counts().to_dict() == {"grid": 6, "tune": 6, "control": 4}
    tuned = json.loads((folder / "run.json").read_text())["tuned"]
    for row in table[table["phase"] != "tune"].itertuples():
        run = json.loads(row.config)["run"]
        assert run["train"].get("lr", 1e-3) == tuned[row.arm]["train.lr"]

    # Replaced at evaluation only: the same training, another ranking, and the same numbers when
    # it is trained again in place of starting from what the baseline left.
    ours = table[(table["arm"] == "VBPR") & (table["phase"] == "grid")]
    by_condition = ours.sort_values("seed").groupby("condition")
    baseline, met = (by_condition.get_group(c) for c in ("baseline", "text=noise@eval"))
    assert list(met["best_epoch"]) == list(baseline["best_epoch"])
    assert (met["test.ndcg@10"].to_numpy() != baseline["test.ndcg@10"].to_numpy()).all()
    capsys.readouterr()
    code = mmrec_command(["rerun", str(folder), met["hash"].iloc[0], "--tolerance", "0"])
    assert code == 0, capsys.readouterr().out


def test_a_worse_encoder_is_found(tmp_path):
    words = ["--models", "FREEDOM", "--seeds", "7", *QUICK, "--out", str(tmp_path)]
    assert main(ENCODER_SWAP, words) == 0
    claims = pd.read_csv(run_folder(tmp_path) / "report" / "tables" / "claims.csv")
    verdict = claims.set_index("claim")["verdict"]
    assert verdict["FREEDOM: text_b ranks below text"] == "supported"
    assert "refuted" not in set(verdict)

"""Whole studies in this process, on one Ray: their answers, their holes, their seal."""

import json
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from mmrec.cli import main, mmrec_command
from mmrec.config import override
from mmrec.data.dataset import Dataset
from mmrec.data.planted import Planted, planted
from mmrec.evaluation import PROTOCOLS, Evaluator
from mmrec.models.bpr import BPR
from mmrec.study.ranges import Range
from mmrec.study.study import Factor, Study
from mmrec.training import Run, RunConfig, TrainConfig, fit
from studies.alpha_tau import STUDY as ALPHA_TAU
from tests.e2e.conftest import run_folder, trials

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("local_ray"),
]

NARROW = {"model.dim": 64, "model.common_dim": 64, "model.hidden": (64, 64)}
SWEET = replace(ALPHA_TAU, base=override(ALPHA_TAU.base, NARROW), controls={})
"""With branches that are quick to train."""
FEW = ["--set", "model.alpha=[0.0,1e-4,1e-3]", "--set", "model.tau=[0.1]"]


def claims(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "report" / "tables" / "claims.csv")


def test_informative_modalities_the_sweet_spot_beats_alpha_0(tmp_path):
    # The effect is an eighth, as is the deviation of a seed's difference: 8 seeds are too few.
    two = ["--seeds", "16", "--set", "model.alpha=[0.0,1e-3]", "--set", "model.tau=[0.1]"]
    assert main(SWEET, ["--dataset", "planted", "--out", str(tmp_path), *two]) == 0
    sweet = claims(run_folder(tmp_path)).iloc[0]
    assert sweet["verdict"] == "supported"
    assert sweet["low"] > 0


def test_noise_modalities_nothing_is_separable(tmp_path):
    assert (
        main(SWEET, ["--dataset", "planted-noise", "--seeds", "6", "--out", str(tmp_path), *FEW])
        == 0
    )
    sweet = claims(run_folder(tmp_path)).iloc[0]
    assert sweet["verdict"] == "not separable"
    assert sweet["low"] < 0 < sweet["high"]


SMALL = Study(
    name="small",
    question="Does the regulariser matter?",
    base=RunConfig(
        model=BPR(dim=8), train=TrainConfig(epochs=12, patience=0, lr=0.02, batch_size=256)
    ),
    factors=(Factor("model.reg_weight", (0.0, 0.1), search=Range(1e-3, 3.0, log=True)),),
    seeds=2,
    search_trials=9,
    confirm=2,
)


def test_a_trial_alone_gives_the_numbers_it_gave_among_others(tmp_path, capsys):
    assert main(SMALL, ["--out", str(tmp_path)]) == 0
    folder = run_folder(tmp_path)
    table = trials(folder)
    assert table["test.ndcg@10"].nunique() == 4  # two cells under two seeds
    code = mmrec_command(["rerun", str(folder), table["hash"].iloc[0], "--tolerance", "0"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "the greatest relative difference is 0" in printed


def test_a_nan_is_a_failed_trial_and_a_hole_and_exit_code_1(tmp_path):
    study = SMALL.set({"model.reg_weight": [0.1, 1e39]})
    assert main(study, ["--out", str(tmp_path), "--seeds", "1"]) == 1
    table = trials(run_folder(tmp_path)).set_index("model.reg_weight")
    assert table.loc[0.1, "state"] == "done"
    assert table.loc[1e39, "state"] == "failed"
    assert "epoch" in table.loc[1e39, "error"]
    assert np.isnan(table.loc[1e39, "test.ndcg@10"])


def test_more_seeds_and_levels_run_only_what_is_missing(tmp_path):
    main(SMALL, ["--out", str(tmp_path)])
    before = trials(run_folder(tmp_path)).set_index("hash")
    main(SMALL, ["--out", str(tmp_path), "--seeds", "3", "--set", "model.reg_weight=[0.0,0.1,1.0]"])
    after = trials(run_folder(tmp_path)).set_index("hash")
    assert len(before) == 4
    assert len(after) == 9
    assert set(before.index) < set(after.index)
    assert (after["attempt"] == 1).all()
    assert (after.loc[before.index, "started"] == before["started"]).all()


def test_a_search_tells_the_truth_and_can_be_resumed(tmp_path):
    assert main(SMALL, ["--out", str(tmp_path), "--search", "--max-trials", "5"]) == 0
    assert main(SMALL, ["--out", str(tmp_path), "--search"]) == 0
    folder = run_folder(tmp_path)
    storage = f"sqlite:///{folder / 'ledger.db'}"
    (name,) = (s for s in optuna.get_all_study_names(storage) if s.endswith("/search"))
    rows = optuna.load_study(study_name=name, storage=storage).trials
    states = [row.state.name for row in rows]
    assert len(rows) == 9
    assert set(states) <= {"COMPLETE", "PRUNED"}
    points = [row.params["model.reg_weight"] for row in rows]
    assert len(set(points)) == 9  # a resumed search does not draw its start-up points again
    for row in rows:
        last = max(row.intermediate_values)
        assert (last == 12) == (row.state.name == "COMPLETE")
    table = trials(folder, "report-search")
    confirmed = table[table["phase"] == "confirm"]
    value_at = {r.params["model.reg_weight"]: r.value for r in rows if r.state.name == "COMPLETE"}
    best = sorted(value_at.values())[-2:]  # points may tie, so values are compared
    assert sorted(value_at[p] for p in confirmed["model.reg_weight"].unique()) == best
    assert confirmed.groupby("cell")["seed"].nunique().tolist() == [2] * len(best)


def test_the_test_split_moves_nothing_but_itself(tmp_path):
    """Perfect test labels for one bad config: search, stopping and selection must not see them."""
    data = planted(Planted(users=120, items=150, interactions=1800))
    bad = RunConfig(model=BPR(dim=8, reg_weight=3.0), train=SMALL.base.train)
    honest = write_folder(data, data.test, tmp_path / "honest")
    rigged = write_folder(data, perfect_for(bad, data), tmp_path / "rigged")
    seen = []
    for dataset in (honest, rigged):
        out = tmp_path / "runs" / dataset.name
        # One slot: with two, the order of arrival would differ by chance.
        options = ["--dataset", str(dataset), "--out", str(out), "--cpus-per-trial", "2"]
        assert main(SMALL, [*options, "--search", "--seeds", "1"]) == 0
        folder = run_folder(out)
        table = pd.read_csv(folder / "report-search" / "tables" / "trials.csv")
        manifest = json.loads((folder / "run.json").read_text())
        chosen = table[table["cell"] == manifest["selected"]]["model.reg_weight"].unique()
        sealed = [c for c in table if c.startswith("valid.") or c in ("state", "best_epoch")]
        seen.append((table.sort_values("started")[["model.reg_weight", *sealed]], chosen, table))
    pd.testing.assert_frame_equal(
        seen[0][0].reset_index(drop=True), seen[1][0].reset_index(drop=True), check_exact=True
    )
    assert seen[0][1].tolist() == seen[1][1].tolist()
    assert not np.array_equal(seen[0][2]["test.ndcg@10"], seen[1][2]["test.ndcg@10"])


def perfect_for(cfg: RunConfig, data: Dataset) -> np.ndarray:
    """Test pairs that are just what a trained `cfg` recommends."""
    run = Run(cfg, data, seed=0, protocol=PROTOCOLS["full"])
    for _ in fit(run):
        pass
    users = np.unique(data.test[:, 0])
    top = Evaluator(data, "test", PROTOCOLS["full"], [3]).top(run.restore_best(), 3)
    assert (top >= 0).all()
    return np.stack([np.repeat(users, 3), torch.flatten(top).numpy()], axis=1)


def write_folder(data: Dataset, test: np.ndarray, folder) -> object:
    folder.mkdir()
    parts = [(data.train, 0), (data.valid, 1), (test, 2)]
    rows = np.concatenate([np.column_stack([p, np.full(len(p), label)]) for p, label in parts])
    table = pd.DataFrame(rows, columns=["userID", "itemID", "x_label"])
    table.to_csv(folder / f"{folder.name}.inter", sep="\t", index=False)
    for name, feature in data.features.items():
        np.save(folder / f"{name}_feat.npy", feature.arrays()["values"])
    return folder


def test_the_report_can_be_rebuilt_without_training(tmp_path, capsys):
    main(ALPHA_TAU, ["--smoke", "--out", str(tmp_path)])
    answer = capsys.readouterr().out.strip().splitlines()[0]
    folder = run_folder(tmp_path)
    page = folder / "report" / "index.html"
    first = page.read_text()
    page.unlink()
    assert mmrec_command(["report", str(folder)]) == 0
    assert answer in capsys.readouterr().out
    assert page.read_text() == first

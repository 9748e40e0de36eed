"""What the command lines say to a wrong wish, before anything is run."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmrec.cli import load_study, main, mmrec_command
from mmrec.data.planted import BUILT_IN, Modality, Planted
from mmrec.models.sibrar import SiBraR
from mmrec.study.study import Asked, Factor, Study
from mmrec.training import RunConfig, TrainConfig

FOLDER = Path(__file__).parents[1] / "studies"
SCRIPTS = sorted(path for path in FOLDER.glob("*.py") if "\nSTUDY = " in path.read_text())

STUDY = Study(
    name="mini",
    question="Does it help?",
    base=RunConfig(model=SiBraR(dim=4, common_dim=4, hidden=(4,)), train=TrainConfig(epochs=2)),
    factors=(Factor("model.alpha", (0.0, 1e-3), grids={"paper": (0.0, 0.5)}),),
    dataset="tiny",
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    """A built-in dataset that is there at once; and no real ones."""
    spec = Planted(users=20, items=60, interactions=200, modalities=(Modality(name="text"),))
    monkeypatch.setitem(BUILT_IN, "tiny", spec)
    monkeypatch.delenv("MMREC_DATA", raising=False)


def refused(capsys, *words: str) -> str:
    """What is said to a command line that ends with exit code 2."""
    try:
        code = main(STUDY, words)
    except SystemExit as error:  # argparse
        code = error.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    *usage, last = err.splitlines()
    assert not usage or usage[0].startswith("usage: python studies/mini.py")
    return last


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--smok", "unrecognized arguments: --smok; did you mean --smoke?"),
        ("--datset tiny", "unrecognized arguments: --datset tiny; did you mean --dataset?"),
        ("--max-trial=3", "unrecognized arguments: --max-trial=3; did you mean --max-trials?"),
        ("--zzz", "unrecognized arguments: --zzz"),
        ("--set model.alhpa=1", "'model.alhpa': SiBraR has no 'alhpa'; did you mean 'alpha'?"),
        ("--set trian.lr=1", "'trian.lr': RunConfig has no 'trian'; did you mean 'train'?"),
        ("--set model.alpha=-1", "alpha: Input should be greater than or equal to 0, got -1"),
        ("--set model.alpha=[0,-1]", "alpha: Input should be greater than or equal to 0, got -1"),
        ("--set model.alpha=x", "alpha: Input should be a valid number, got 'x'"),
        ("--set model.alpha=[]", "factor 'model.alpha' needs at least one level"),
        ("--set model.alpha=Infinity", "a trial cannot be named by inf: numbers must be finite"),
        ("--set model.dim=1.5", "dim: Input should be a valid integer, got 1.5"),
        ("--set train.optimizer=sgd", "Input should be 'adam' or 'adamw', got 'sgd'"),
        ("--set model.alpha", "--set wants PATH=JSON, such as model.dim=128, not 'model.alpha'"),
        ('--set model.modalities=["txt"]', "no item modality 'txt'; there are: interactions, text"),
        ("--dataset tyny", "there is no dataset 'tyny'; did you mean 'tiny'?"),
        ("--dataset ./not/there", "dataset './not/there': no such folder"),
        ("--dataset lfm2k", "name that root by --data-root or the environment variable MMREC_DATA"),
        ("--grid papr", "invalid choice: 'papr' (choose from"),
        ("--protocol ful", "no protocol 'ful'; there are: full, mmrec, repeats, split-items"),
        ("--split rnadom", "split must be one of given, random, leave-one-out"),
        ("--split leave-one-out", "leave-one-out needs an order of time"),
        ("--split cold-user", "user='embedding' knows nothing of the users of a cold-user split"),
        ("--k-core 99", "k_core=99 leaves nothing of dataset 'tiny'"),
        ("--k-core -1", "--k-core must be at least 0, got -1"),
        ("--seeds 0", "--seeds must be at least 1, got 0"),
        ("--seeds two", "argument --seeds: invalid int value: 'two'"),
        ("--epochs 0", "epochs: Input should be greater than or equal to 1, got 0"),
        ("--max-trials -1", "--max-trials must be at least 0, got -1"),
        ("--max-hours -0.5", "--max-hours must be at least 0, got -0.5"),
        ("--max-hours nan", "--max-hours must be at least 0, got nan"),
        ("--cpus-per-trial 0", "--cpus-per-trial must be more than 0, got 0"),
        ("--gpus-per-trial -1", "--gpus-per-trial must be at least 0, got -1"),
        ("--out memory://x", "--out is memory://x/mini/tiny-"),
        ("--search", "study 'mini' has no factor with a range to search"),
    ],
)
def test_a_wrong_wish_is_refused_with_what_would_fit(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *words.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to train on")
def test_a_gpu_that_is_not_there_is_refused(capsys):
    assert "torch sees none on this machine" in refused(capsys, "--gpus-per-trial", "1")


def test_help_says_what_there_is(capsys):
    with pytest.raises(SystemExit) as ended:
        main(STUDY, ["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert STUDY.question in text
    assert "model.alpha: 0.0, 0.001" in text
    wanted = (
        "--dataset --data-root --address --out --storage --seeds --search --grid --max-trials"
        " --max-hours --epochs --split --protocol --k-core --set --fresh --smoke --dry-run"
        " --cpus-per-trial --gpus-per-trial"
    )
    for flag in wanted.split():
        assert re.search(rf"^  {flag}\b", text, re.MULTILINE), flag


# --- studies


@pytest.fixture(params=SCRIPTS, ids=lambda path: path.stem)
def script(request) -> Path:
    return request.param


def test_a_study_is_named_after_its_file_and_asks_a_question(script):
    study = as_it_comes(load_study(script))
    assert study.name == script.stem
    assert study.question.endswith("?")
    first, *_ = script.read_text().partition('"""')[2].splitlines()
    assert first.endswith("?"), "the script's first line is its question"
    assert study.claims, "a study tests claims"
    assert study.seeds >= 5, "fewer seeds give no verdicts"


def as_it_comes(study: Study) -> Study:
    """In the shape that its command line gives it by default, on its own dataset."""
    chosen = {choice.name: choice.default for choice in study.choices}
    dense = ("image", "image_b", "text", "text_b")
    asked = Asked(study.dataset, dense, chosen, ("genres", *dense), ("age", "gender"))
    return study.on(replace(asked, split=study.split) if study.split else asked)


def test_a_study_can_be_shrunk(script):
    study = as_it_comes(load_study(script))
    shrunken = study.set(study.smoke)
    assert 1 <= len(shrunken.cells()) <= len(study.cells())
    epochs = [sum(c.run.train.epochs for c in cells.cells()) for cells in (shrunken, study)]
    assert epochs[0] < epochs[1] / 5
    assert all(cell.run.train.epochs <= 5 for cell in shrunken.cells())


def test_a_script_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no study script .*gone\.py: give --study FILE"):
        load_study(tmp_path / "gone.py")


# --- the mmrec command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("reprot x", "invalid choice: 'reprot'"),
        ("data x --splt y", "unrecognized arguments: --splt y; did you mean --split?"),
        ("report x --stroage y", "unrecognized arguments: --stroage y; did you mean --storage?"),
        ("data tyny", "there is no dataset 'tyny'; did you mean 'tiny'?"),
        ("report nowhere", "nowhere is not a run folder: it has no run.json"),
        ("rerun nowhere 00ff", "nowhere is not a run folder: it has no run.json"),
        ("rerun nowhere", "the following arguments are required: trial"),
    ],
)
def test_mmrec_refuses_a_wrong_wish(capsys, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    try:
        code = mmrec_command(words.split())
    except SystemExit as error:
        code = error.code
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


def test_mmrec_data_lists_and_describes(capsys):
    assert mmrec_command(["data"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"^tiny +synthetic, 20 users, 60 items, 200 interactions; text$", listed, re.M)
    assert "lfm2k" not in listed
    assert mmrec_command(["data", "tiny"]) == 0
    described = capsys.readouterr().out
    assert re.search(r"^tiny [0-9a-f]{16}: 20 users, 60 items, \d+ train, \d+ valid", described)
    assert "text: dense, 32 columns, 60 of 60 present (100 %)" in described

"""Values that belong together: what `--preset` sets, what wins over it, and what is recorded."""

from dataclasses import replace
from typing import Any

import pytest

from mmrec.cli import study_parser
from mmrec.config import get
from mmrec.data.planted import BUILT_IN, Modality, Planted
from mmrec.models.bpr import BPR
from mmrec.models.sibrar import SiBraR
from mmrec.study.study import Study
from mmrec.study.tuning import Tuning
from mmrec.training import RunConfig, TrainConfig
from mmrec.tune.forecast import forecast
from mmrec.tune.job import Job, Options

TRAIN = TrainConfig(epochs=2)
PAPER = {"model.dim": 6, "model.hidden": (5, 5), "model.reg_weight": 0.5, "train.batch_size": 64}
STUDY = Study(
    name="mini",
    question="Does it help?",
    base=RunConfig(model=SiBraR(dim=4, common_dim=4, hidden=(4,)), train=TRAIN),
    arms={
        "SiBraR": RunConfig(model=SiBraR(dim=4, common_dim=4, hidden=(4,)), train=TRAIN),
        "MF": RunConfig(model=BPR(dim=4), train=TRAIN),
    },
    controls={"wide": RunConfig(model=BPR(dim=3), train=TRAIN)},
    presets={"paper": PAPER},
    smoke={"train.epochs": 1, "train.batch_size": 32},
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch) -> None:
    """A built-in dataset that is there at once."""
    spec = Planted(users=20, items=60, interactions=200, modalities=(Modality(name="text"),))
    monkeypatch.setitem(BUILT_IN, "tiny", spec)


def job(tmp_path, study: Study = STUDY, **options: Any) -> Job:
    return Job(study, Options(dataset="tiny", out=str(tmp_path), **options))


def values(job: Job, path: str) -> dict[str, Any]:
    """The path's value in every cell that has it."""
    cells = job.study.cells()
    has = path.removeprefix("model.")
    return {c.label: get(c.run, path) for c in cells if "." in has or hasattr(c.run.model, has)}


def test_base_arms_and_controls_take_it_as_far_as_they_have_such_a_field(tmp_path):
    asked = job(tmp_path, preset="paper")
    assert values(asked, "model.dim") == {"SiBraR": 6, "MF": 6, "wide": 6}
    assert values(asked, "model.hidden") == {"SiBraR": (5, 5)}
    assert values(asked, "model.reg_weight") == {"MF": 0.5, "wide": 0.5}
    assert values(asked, "train.batch_size") == dict.fromkeys(("SiBraR", "MF", "wide"), 64)
    assert get(asked.study.base, "model.dim") == 6


def test_smoke_wins_over_it_and_the_command_lines_own_changes_over_both(tmp_path):
    asked = job(tmp_path, preset="paper", smoke=True, changes={"model.dim": 3})
    assert set(values(asked, "train.batch_size").values()) == {32}
    assert set(values(asked, "model.dim").values()) == {3}
    assert values(asked, "model.hidden") == {"SiBraR": (5, 5)}


def test_trials_are_those_of_the_same_values_set_by_hand(tmp_path):
    def names(**options: Any) -> list[str]:
        return [planned.hash for planned in job(tmp_path, **options).grid_plan()]

    assert names(preset="paper") == names(changes={**PAPER, "model.hidden": [5, 5]})
    assert not set(names(preset="paper")) & set(names())


def test_what_it_sets_is_not_tuned(tmp_path):
    tuning = Tuning(trials=2)
    wide = replace(STUDY, tuning=tuning, presets={"paper": {"train.lr": 0.5}})
    tried = job(tmp_path, wide, preset="paper").study.tuning_cells()
    assert {get(cell.run, "train.lr") for cell in tried} == {0.5}
    assert len({get(cell.run, "train.lr") for cell in job(tmp_path, wide).study.tuning_cells()}) > 1


def test_it_is_recorded_and_forecast_by_name_and_value(tmp_path):
    asked = job(tmp_path, preset="paper")
    assert asked.manifest()["preset"] == "paper"
    line = next(line for line in forecast(asked).splitlines() if line.startswith("preset"))
    assert line == (
        "preset paper: model.dim=6, model.hidden=(5, 5), model.reg_weight=0.5, train.batch_size=64"
    )
    assert job(tmp_path).manifest()["preset"] is None


def test_an_unknown_name_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(KeyError, match=r"study 'mini' has no preset 'papr'; there are: paper"):
        job(tmp_path, preset="papr")


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"model.dmi": 4}, KeyError, "'model.dmi': SiBraR has no 'dmi'; did you mean 'dim'"),
        ({"model.dim": 0}, ValueError, "dim"),
        ({"train.negatives": "ten"}, ValueError, "negatives"),
    ],
    ids=["unknown", "out of range", "wrong type"],
)
def test_a_preset_that_cannot_be_is_refused_when_the_script_is_read(values, error, said):
    with pytest.raises(error, match=said):
        replace(STUDY, presets={"paper": values})


def test_a_study_may_say_what_is_held_out_and_the_command_line_may_say_otherwise():
    cold = replace(STUDY, split="cold-item")
    assert study_parser(cold).parse_args([]).split == "cold-item"
    assert study_parser(cold).parse_args(["--split", "random"]).split == "random"
    assert study_parser(STUDY).parse_args([]).split is None

"""A trial's name, and its way through JSON."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
import torch

from mmrec import training
from mmrec.config import override
from mmrec.data.conditions import Condition
from mmrec.data.planted import Planted, planted
from mmrec.evaluation import PROTOCOLS
from mmrec.models import all_models
from mmrec.models.base import ModelConfig
from mmrec.models.bpr import BPR
from mmrec.models.itemknn import ItemKNN
from mmrec.models.sibrar import SiBraR
from mmrec.study.trials import Setting, Trial, begin, describe
from mmrec.training import RunConfig, TrainConfig

SETTING = Setting(data="00ff", split="random", protocol="full", device="cpu")
MODELS = pytest.mark.parametrize("model", all_models(), ids=lambda model: model.__name__)


def other_values(kind: Any, value: Any) -> Iterator[Any]:
    """Values of a field's type that are not `value`."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, bool):
        yield not value
    elif origin is Literal:
        yield from (choice for choice in parts if choice != value)
    elif origin in (types.UnionType, typing.Union):
        yield from (None for part in parts if part is types.NoneType and value is not None)
        for part in parts:
            if part is not types.NoneType:
                least = part(1) if value is None and part in (bool, int, float) else value
                yield from other_values(part, least)
    elif isinstance(value, int):
        yield value + 1
    elif isinstance(value, float):
        yield from (value / 2, value / 3) if value else (0.25, 0.5)
    elif isinstance(value, str):
        yield value + "x"
    elif origin is tuple:
        yield from {(), value[:-1]} if value else ()
        yield (parts[0]("1"), *(value or ()))
        yield (parts[0]("1"), parts[0]("2"))


def one_field_changed(cfg: Any) -> Iterator[tuple[str, Any]]:
    """(field, config) for every field and everything it may become; of a config, in one field."""
    kinds = typing.get_type_hints(type(cfg))
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        if dataclasses.is_dataclass(value):
            inner = (part for _, part in one_field_changed(value))
            yield from ((field.name, override(cfg, {field.name: part})) for part in inner)
            continue
        if kinds[field.name] == Literal["released"]:
            continue
        found = [v for v in other_values(kinds[field.name], value) if v != value]
        assert found, f"no other value for {field.name}: {kinds[field.name]}"
        yield from ((field.name, override(cfg, {field.name: other})) for other in found)


def changed_trials(model: type[ModelConfig]) -> list[tuple[str, Trial]]:
    """A trial for each change of one field of the model and of each config around it."""
    run = RunConfig(model=model())
    knockout = Condition(modalities=("text",), filler="noise")
    trials = [(f, Trial(dataclasses.replace(run, model=m))) for f, m in one_field_changed(model())]
    trials += [
        (f, Trial(dataclasses.replace(run, train=t))) for f, t in one_field_changed(TrainConfig())
    ]
    trials += [("objective", Trial(RunConfig(model=model(), objective="recall@20")))]
    trials += [("ks", Trial(RunConfig(model=model(), ks=(10, 20))))]
    trials += [("gap", Trial(RunConfig(model=model(), gap=when))) for when in ("end", "epochs")]
    trials += [("seed", Trial(run, seed=1)), ("condition", Trial(run, knockout))]
    trials += [
        (f"condition.{field}", Trial(run, dataclasses.replace(knockout, **{field: value})))
        for field, value in (
            ("modalities", ("a", "b")),
            ("filler", "shuffle"),
            ("seed", 1),
            ("missing", ("c",)),
        )
    ]
    return trials


@MODELS
def test_the_name_sees_every_field(model):
    base = Trial(RunConfig(model=model()))
    names = {SETTING.hash(base): "base"}
    changed = set()
    for field, trial in changed_trials(model):
        name = SETTING.hash(trial)
        assert name not in names, f"{field} looks like {names[name]}"
        names[name] = field
        changed.add(field)
    fields = {f.name for cls in (model, TrainConfig, RunConfig) for f in dataclasses.fields(cls)}
    only_one = (
        {"variant"} if typing.get_type_hints(model).get("variant") == Literal["released"] else set()
    )
    assert fields - changed == {"model", "train"} | only_one


@MODELS
def test_a_trial_comes_back_from_json_as_it_was(model):
    for field, trial in [("base", Trial(RunConfig(model=model()))), *changed_trials(model)]:
        back = Trial.from_json(trial.to_json())
        assert back == trial, field
        assert SETTING.hash(back) == SETTING.hash(trial)
        assert back.to_json() == trial.to_json()


def test_models_with_the_same_fields_have_other_names():
    trials = [Trial(RunConfig(model=model())) for model in all_models()]
    assert len({SETTING.hash(trial) for trial in trials}) == len(trials)


def test_the_name_sees_where_the_trial_is_run():
    trial = Trial(RunConfig(model=BPR()))
    settings = [SETTING]
    for field in dataclasses.fields(Setting):
        settings.append(dataclasses.replace(SETTING, **{field.name: "other"}))
    assert len({setting.hash(trial) for setting in settings}) == len(settings)
    assert len({setting.cell(trial) for setting in settings}) == len(settings)


@pytest.mark.parametrize("owner", [BPR, training], ids=["model", "training"])
def test_a_new_version_is_a_new_name(monkeypatch, owner):
    trials = [Trial(RunConfig(model=BPR())), Trial(RunConfig(model=SiBraR()))]
    before = [SETTING.hash(trial) for trial in trials]
    monkeypatch.setattr(owner, "VERSION", 2)
    after = [SETTING.hash(trial) for trial in trials]
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, owner is BPR]


def test_replicates_share_a_cell_and_nothing_else_does():
    one, two = (Trial(RunConfig(model=BPR()), seed=seed) for seed in (0, 1))
    other = Trial(RunConfig(model=BPR(dim=8)))
    assert SETTING.cell(one) == SETTING.cell(two) != SETTING.cell(other)
    assert len({SETTING.hash(trial) for trial in (one, two, other)}) == 3
    assert SETTING.hash(one) != SETTING.cell(one)


def test_spellings_of_a_number_are_one_trial():
    zero, minus, whole = (Trial(RunConfig(model=SiBraR(alpha=a))) for a in (0.0, -0.0, 0))
    assert SETTING.hash(zero) == SETTING.hash(minus) == SETTING.hash(whole)
    assert minus.to_json() == zero.to_json()
    with pytest.raises(ValueError, match="cannot be named by inf"):
        SETTING.hash(Trial(RunConfig(model=SiBraR(alpha=float("inf")))))


def test_a_default_is_not_written_so_that_it_may_be_added_later():
    value = json.loads(Trial(RunConfig(model=BPR(dim=8))).to_json())
    assert value["run"] == {
        "": "RunConfig",
        "model": {"": "BPR", "dim": 8},
        "train": {"": "TrainConfig"},
    }


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        ({"": "RunConfig", "model": {"": "Gone"}}, KeyError, "no config class 'Gone'.*BPR"),
        ({"": "RunConfig", "model": {"": "BPR", "gone": 1}}, ValueError, "gone"),
        ({"": "RunConfig", "model": {"": "BPR", "dim": -1}}, ValueError, "dim"),
    ],
)
def test_a_trial_of_another_version_is_refused_by_name(run, error, message):
    text = json.dumps({"run": run, "condition": {"": "Condition"}, "seed": 0})
    with pytest.raises(error, match=message):
        Trial.from_json(text)


@pytest.mark.parametrize("model", [BPR(dim=4), ItemKNN()], ids=["trained", "closed"])
def test_a_density_thins_what_is_trained_on_and_not_who_is_ranked_how(model):
    data = planted(Planted(users=20, items=40, interactions=300))
    runs = [
        begin(Trial(RunConfig(model=model), condition), data, PROTOCOLS["full"])
        for condition in (Condition(), Condition(density=0.25))
    ]
    whole, thin = runs
    assert 0 < len(thin.data.train) < 0.35 * len(whole.data.train)
    scorer = whole.model.eval()
    lists = [run.valid.top(scorer, 40) for run in runs]
    assert torch.equal(*lists)
    # Longest lists: all items but those that the user has in the baseline's training part.
    seen = np.bincount(data.train[:, 0], minlength=20)[whole.valid.users]
    assert (lists[1] >= 0).sum(1).tolist() == (40 - seen).tolist()


def test_labels_tell_levels_apart():
    paper = [1e-4, 2e-4, 3.3e-4, 5e-4, 1e-3, 3.3e-3, 5e-3, 1e-2, 3.3e-2, 5e-2, 0.1, 0.33, 0.5, 0.0]
    assert len({describe(level) for level in paper}) == len(paper)
    assert [describe(v) for v in (1e-3, 64, "cosine", True, BPR(), None)] == [
        "0.001", "64", "cosine", "True", "BPR", "None",
    ]  # fmt: skip

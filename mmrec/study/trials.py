"""What a trial is, and its name: the hash of all that decides its numbers."""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, get_type_hints

from mmrec import training
from mmrec.config import as_tuple, changed, digest
from mmrec.data.conditions import Condition, apply
from mmrec.data.dataset import Dataset
from mmrec.evaluation import Protocol
from mmrec.models import all_models
from mmrec.training import Run, RunConfig, TrainConfig


@dataclass(frozen=True)
class Trial:
    """One training: under one config, one condition and one seed."""

    run: RunConfig
    condition: Condition = field(default_factory=Condition)
    seed: int = 0

    def to_json(self) -> str:
        """All of it as text, from which `from_json` makes it again."""
        run, condition = changed(self.run), changed(self.condition)
        return json.dumps({"run": run, "condition": condition, "seed": self.seed}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Trial":
        """The trial that `to_json` wrote.

        Raises:
            KeyError: it names a model or a field that this version does not have.
        """
        value = json.loads(text)
        run, condition = (_rebuild(value[key], _known_configs()) for key in ("run", "condition"))
        return cls(run, condition, value["seed"])


@functools.cache
def _known_configs() -> Mapping[str, type]:
    """Those of runs, conditions and models, and those that a model's fields hold, by name."""
    models = all_models()
    hints = [hint for model in models for hint in get_type_hints(model).values()]
    parts = [hint for hint in hints if isinstance(hint, type) and is_dataclass(hint)]
    return {cls.__name__: cls for cls in (RunConfig, TrainConfig, Condition, *models, *parts)}


def _rebuild(value: Mapping[str, Any], known: Mapping[str, type]) -> Any:
    name = value[""]
    if name not in known:
        raise KeyError(f"no config class {name!r} in this version; known: {', '.join(known)}")
    cls = known[name]
    given = {}
    for key, item in value.items():
        if key == "":
            continue
        if isinstance(item, Mapping) and "" in item:
            given[key] = _rebuild(item, known)
        else:
            given[key] = as_tuple(item)
    return cls(**given)


@dataclass(frozen=True)
class Setting:
    """What is the same for all trials of a study and decides their numbers too."""

    data: str
    """The dataset's digest."""
    split: str
    protocol: str
    device: str
    """Device type, `cpu` or `cuda`."""

    def hash(self, trial: Trial) -> str:
        """16 hex digits: the trial's name."""
        return digest({**self._identity(trial), "seed": trial.seed})

    def cell(self, trial: Trial) -> str:
        """16 hex digits shared by a trial's replicates."""
        return digest(self._identity(trial))

    def _identity(self, trial: Trial) -> dict[str, Any]:
        return {
            "run": changed(trial.run),
            "condition": changed(trial.condition),
            "data": self.data,
            "split": self.split,
            "protocol": self.protocol,
            "device": self.device,
            "versions": [type(trial.run.model).VERSION, training.VERSION],
        }


def begin(trial: Trial, data: Dataset, protocol: Protocol, device: str = "cpu") -> Run:
    """The trial's run, untrained: its condition decides what is trained and what is ranked.

    Args:
        trial: what to train.
        data: the dataset before any condition.
        protocol: of the evaluation.
        device: where to train.

    Raises:
        KeyError, ValueError: trial and data do not fit.
    """
    replaced = apply(trial.condition, data)
    only_ranked = trial.condition.when == "eval"
    return Run(
        trial.run,
        data if only_ranked else replaced,
        seed=trial.seed,
        protocol=protocol,
        device=device,
        evaluate_on=replaced if only_ranked else None,
        baseline=data,
    )


def describe(value: Any) -> str:
    """A knob's value for labels: short, and with enough digits to tell levels apart."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if is_dataclass(value):
        return type(value).__name__
    return str(value)

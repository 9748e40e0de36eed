"""The arms of single- and multi-branch studies: weights shared or not, sampling, contrast.

Ganhoer et al. (TORS 2025) tell SiBraR, one branch for all modalities, from MuBraR, a branch for
each, and either from itself with modality sampling (S) and with the contrastive loss on top (SC).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mmrec.study.arms import arm
from mmrec.training import RunConfig, TrainConfig

SAMPLING = {"": "none", "S": "single", "SC": "pairwise"}
"""What follows the model's name in a label -> what a training cell draws (`SiBraR.sampling`)."""
LABELS = tuple(f"{name} {end}".strip() for name in ("SiBraR", "MuBraR") for end in SAMPLING)
CONTRASTIVE = ("alpha", "tau", "user_alpha", "user_tau")
"""Knobs that only SC has a use for: the others keep their defaults, and so their trials' names."""


def branch_arms(
    train: TrainConfig, knobs: Mapping[str, Any], labels: Iterable[str] = LABELS
) -> dict[str, RunConfig]:
    """The arms called `labels`, trained alike; `knobs` are those of `mmrec.models.sibrar.SiBraR`.

    Raises:
        ValueError: a label is none of `LABELS`.
    """
    return {label: _branch_arm(label, train, knobs) for label in labels}


def _branch_arm(label: str, train: TrainConfig, knobs: Mapping[str, Any]) -> RunConfig:
    name, _, end = label.partition(" ")
    if label not in LABELS:
        raise ValueError(f"no arm {label!r}; there are: {', '.join(LABELS)}")
    sampling = SAMPLING[end]
    kept = {k: v for k, v in knobs.items() if sampling == "pairwise" or k not in CONTRASTIVE}
    return arm(name, train, {**kept, "sampling": sampling})

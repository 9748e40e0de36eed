"""The arms of single- and multi-branch studies: weights shared or not, sampling, contrast.

Ganhoer et al. (TORS 2025) tell SiBraR, one branch for all modalities, from MuBraR, a branch for
each, and either from itself with modality sampling (S) and with the contrastive loss on top (SC).
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mmrec.study.arms import arm
from mmrec.training import RunConfig, TrainConfig

SAMPLING = {"": "none", "S": "single", "SC": "pairwise"}
"""What follows the model's name in a label -> what a training cell draws (`SiBraR.sampling`)."""
LABELS = tuple(f"{name} {end}".strip() for name in ("SiBraR", "MuBraR") for end in SAMPLING)
CONTRASTIVE = ("alpha", "tau", "user_alpha", "user_tau")
"""Knobs that only SC has a use for: the others keep their defaults, and so their trials' names."""

CONTENTS = {"lfm2k": ("tags", "text", "vggish", "whisper"), "ml-1m": ("genres", "text")}
"""Dataset -> the item features of these studies, where it has more: lfm2k's tags as text say the
same as its tags, and the published models have no titles of films."""
SMALL = {"dim": 32, "common_dim": 64, "hidden": (64, 64), "input_dropout": 0.0}
LARGE = {"dim": 64, "common_dim": 128, "hidden": (128, 128), "input_dropout": 0.0}
"""Sizes for planted and for real data; released: 128, 512 and (512, 512, 512)."""
CONTRAST = {"alpha": 1e-3, "tau": 0.33}
"""The best by validation of alpha in .001, .01, .05 and tau in .1, .33 on planted-five."""
TRAIN = TrainConfig(
    epochs=40,
    patience=5,
    optimizer="adamw",
    lr=5e-3,
    weight_decay=1e-3,
    batch_size=512,
    negatives=10,
)
TRAINS = {
    "lfm2k": replace(TRAIN, epochs=50, batch_size=2048),
    "ml-1m": replace(TRAIN, epochs=10, batch_size=2048),
}
"""Dataset -> how its trials are trained, where it is no planted one."""


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

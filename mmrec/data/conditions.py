"""Conditions: what is done to the modalities before training, such as a knockout.

A knockout replaces the vectors of some dense modalities by a filler, the same in training and at
inference, as in the modality-knockout study (arXiv 2508.07399). The interactions and their split
are those of the baseline, every other array is shared with it, and missing rows stay missing.

Letters in names: N items, P items that have the modality, F columns.
"""

import dataclasses
import hashlib
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from pydantic import AfterValidator

from mmrec.config import config
from mmrec.data.checks import seal
from mmrec.data.dataset import Dataset, Dense

Filler = Literal["none", "noise", "matched", "constant", "zero", "mean", "shuffle"]


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError(f"modalities are named more than once: {names}")
    return tuple(sorted(names))


@config
class Condition:
    """A knockout, or by default the baseline, which changes nothing.

    Raises:
        ValueError: modalities without a filler, or a filler without modalities.
    """

    modalities: Annotated[tuple[str, ...], AfterValidator(_sorted)] = ()
    """Dense item modalities that are replaced; their order does not matter."""
    filler: Filler = "none"
    """What replaces them. noise: i.i.d. N(1, 0.1), 0.1 being the deviation, as in the paper;
    matched: i.i.d. normal with each column's own mean and deviation; constant: 1; zero: 0;
    mean: each column's mean; shuffle: the modality's own rows, each given to another item at
    random, a permutation of its own a modality."""
    seed: Annotated[int, Ge(0)] = 0
    """Of noise, matched and shuffle."""

    def __post_init__(self) -> None:
        if bool(self.modalities) != (self.filler != "none"):
            raise ValueError(
                "a condition has both modalities and a filler, or neither: got modalities"
                f" {self.modalities} and filler {self.filler!r}"
            )

    @property
    def name(self) -> str:
        """For tables: `baseline`, `image=shuffle`, `image+text=noise`, `image=noise#3` (seed)."""
        if not self.modalities:
            return "baseline"
        seed = f"#{self.seed}" if self.seed else ""
        return f"{'+'.join(self.modalities)}={self.filler}{seed}"


def apply(condition: Condition, data: Dataset) -> Dataset:
    """`data` under a condition; the baseline gives `data` itself.

    Raises:
        KeyError: `data` has no such modality.
        ValueError: the modality is not dense, or `data` is under a condition already.
    """
    if not condition.modalities:
        return data
    if data.condition != "baseline":
        raise ValueError(f"dataset {data.name!r} is already under {data.condition!r}")
    features = dict(data.features)
    for name in condition.modalities:
        feature = data.feature(name)
        if not isinstance(feature, Dense):
            raise ValueError(
                f"modality {name!r} is of kind {feature.kind}: only dense ones can be replaced by"
                f" {condition.filler!r}"
            )
        values_NF = np.zeros_like(feature.values)
        values_NF[feature.present] = _filled(
            feature.values[feature.present], condition.filler, _generator(condition.seed, name)
        )
        features[name] = Dense(feature.present, values_NF)
    return seal(dataclasses.replace(data, features=features, condition=condition.name))


def _filled(
    values_PF: NDArray[np.float32], filler: Filler, rng: np.random.Generator
) -> NDArray[np.floating]:
    match filler:
        case "noise":
            return 1.0 + 0.1 * rng.standard_normal(values_PF.shape)
        case "matched":
            mean_F = values_PF.mean(axis=0, dtype=np.float64)
            deviation_F = values_PF.std(axis=0, dtype=np.float64)
            return mean_F + deviation_F * rng.standard_normal(values_PF.shape)
        case "constant":
            return np.ones_like(values_PF)
        case "zero":
            return np.zeros_like(values_PF)
        case "mean":
            mean_F = values_PF.mean(axis=0, dtype=np.float64)
            return np.broadcast_to(mean_F, values_PF.shape)
        case "shuffle":
            return rng.permutation(values_PF)
        case "none":
            return values_PF


def _generator(seed: int, modality: str) -> np.random.Generator:
    """One stream a modality, so that a modality's filler does not depend on the others replaced."""
    key = hashlib.sha256(f"condition/{seed}/{modality}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))

"""Conditions: what is done to the modalities, such as a knockout or another encoder.

A knockout replaces the vectors of some dense modalities by a filler, as in the modality-knockout
study (arXiv 2508.07399), where training and inference see the same. Here it may also be made at
evaluation only: what such a model loses, and one that trained under the knockout does not, is what
training adapts to. An encoder swap gives a modality the vectors of another feature. The
interactions and their split are those of the baseline, every other array is shared with it, and
rows that a knocked out modality lacks stay missing.

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
When = Literal["train+eval", "eval"]


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError(f"modalities are named more than once: {names}")
    return tuple(sorted(names))


def _sorted_pairs(pairs: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    _sorted(tuple(modality for modality, _ in pairs))
    same = [modality for modality, other in pairs if modality == other]
    if same:
        raise ValueError(f"modalities are swapped with themselves: {same}")
    return tuple(sorted(pairs))


@config
class Condition:
    """A knockout, an encoder swap or both; by default the baseline, which changes nothing.

    What a filler makes of an item graph by cosines (`mmrec.graphs.nearest`): under constant and
    mean all rows are alike, and one list of items, the first of a fixed random order, is
    everybody's neighbours, a hub. Under zero nothing is like anything: each item has itself alone,
    which is no graph, as a missing row has under every filler. Under noise all cosines are near
    0.99, and chance alone says which are the highest; so it does under matched. Under shuffle the
    graph is the baseline's with its items moved. No filler makes a NaN.

    Raises:
        ValueError: modalities without a filler, or a filler without modalities; a modality both
            swapped and knocked out, or swapped with itself; a baseline at evaluation only.
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
    when: When = "train+eval"
    """eval: the model is trained, and its epoch chosen, on the data as it is, and only what is
    scored in the end sees the replacement. A model without training knows no difference."""
    swap: Annotated[tuple[tuple[str, str], ...], AfterValidator(_sorted_pairs)] = ()
    """Pairs (modality, other): the modality becomes another dense feature of the dataset, with the
    rows that are missing there. The other stays under its own name, so that a model that takes all
    modalities meets it twice. The order of pairs does not matter."""

    def __post_init__(self) -> None:
        if bool(self.modalities) != (self.filler != "none"):
            raise ValueError(
                "a condition has both modalities and a filler, or neither: got modalities"
                f" {self.modalities} and filler {self.filler!r}"
            )
        both = sorted({modality for modality, _ in self.swap} & set(self.modalities))
        if both:
            raise ValueError(f"modalities are both swapped and knocked out: {both}")
        if self.baseline and self.when != "train+eval":
            raise ValueError(
                f"the baseline replaces nothing: it cannot do so at {self.when!r} only"
            )

    @property
    def baseline(self) -> bool:
        """Whether nothing is changed."""
        return not self.modalities and not self.swap

    @property
    def knocked(self) -> str:
        """The modalities that the filler replaces, `image+text`; empty if there are none."""
        return "+".join(self.modalities)

    @property
    def swapped(self) -> str:
        """The encoder swaps, `image<-vit,text<-tagtext`; empty if there are none."""
        return ",".join(f"{modality}<-{other}" for modality, other in self.swap)

    @property
    def name(self) -> str:
        """For tables: `baseline`, `image=shuffle`, `image+text=noise`, `text<-tagtext`.

        A swap and a knockout are `text<-tagtext,image=noise`. A seed other than 0 and evaluation
        only come last: `image=noise#3@eval`.
        """
        if self.baseline:
            return "baseline"
        knockout = f"{self.knocked}={self.filler}" if self.modalities else ""
        seed = f"#{self.seed}" if self.seed else ""
        when = f"@{self.when}" if self.when != "train+eval" else ""
        return ",".join(filter(None, (self.swapped, knockout))) + seed + when


def apply(condition: Condition, data: Dataset) -> Dataset:
    """`data` under a condition; the baseline gives `data` itself.

    The replacement is made whatever `when` says: the caller decides what sees the result.

    Raises:
        KeyError: `data` has no such modality.
        ValueError: the modality is not dense, or `data` is under a condition already.
    """
    if condition.baseline:
        return data
    if data.condition != "baseline":
        raise ValueError(f"dataset {data.name!r} is already under {data.condition!r}")
    features = dict(data.features)
    for name, other in condition.swap:
        _dense(data, name, f"feature {other!r}")
        features[name] = _dense(data, other, f"another modality, here as {name!r}")
    for name in condition.modalities:
        feature = _dense(data, name, repr(condition.filler))
        values_NF = np.zeros_like(feature.values)
        values_NF[feature.present] = _filled(
            feature.values[feature.present], condition.filler, _generator(condition.seed, name)
        )
        features[name] = Dense(feature.present, values_NF)
    return seal(dataclasses.replace(data, features=features, condition=condition.name))


def _dense(data: Dataset, name: str, by: str) -> Dense:
    feature = data.feature(name)
    if not isinstance(feature, Dense):
        raise ValueError(
            f"modality {name!r} is of kind {feature.kind}: only dense ones can be replaced by {by}"
        )
    return feature


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

"""Conditions: what is done to a dataset, such as a knockout, another encoder or fewer interactions.

A knockout replaces the vectors of some dense modalities by a filler, as in the modality-knockout
study (arXiv 2508.07399), where training and inference see the same; or the code words of semantic
IDs. Here it may also be made at evaluation only: what such a model loses, and one that trained
under the knockout does not, is what training adapts to. An encoder swap gives a modality the
vectors, or the codes, of another feature. A density below 1 leaves users that share of their
training interactions. A missing modality is one that no item has. All else is the baseline's: the
split is the same, what is validated and tested on too, every other array is shared with it, and
rows that a knocked out modality lacks stay missing.

Letters in names: N items, P items that have the modality, F columns, L levels of codes, E training
interactions, U users.
"""

import dataclasses
import hashlib
import itertools
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval
from numpy.typing import NDArray
from pydantic import AfterValidator

from mmrec.config import config
from mmrec.data.checks import seal
from mmrec.data.dataset import (
    INTERACTIONS,
    Category,
    Codes,
    Dataset,
    Dense,
    Feature,
    Neighbours,
    Pairs,
    Tags,
)

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
    """Knockouts, swaps, a density, missing modalities; by default the baseline, which is as it is.

    What a filler makes of an item graph by cosines (`mmrec.graphs.nearest`): under constant and
    mean all rows are alike, and one list of items, the first of a fixed random order, is
    everybody's neighbours, a hub. Under zero nothing is like anything: each item has itself alone,
    which is no graph, as a missing row has under every filler. Under noise all cosines are near
    0.99, and chance alone says which are the highest; so it does under matched. Under shuffle the
    graph is the baseline's with its items moved. No filler makes a NaN.

    What a filler makes of semantic IDs: under constant all items have one ID. Under noise all IDs
    are equally likely, and what two items have in common is chance; so it is under matched, where
    code words are as frequent as before. Under shuffle the IDs are the baseline's, and so is how
    many share a prefix, but not who. Code books keep their sizes.

    Raises:
        ValueError: modalities without a filler, or a filler without modalities; a modality that is
            two of swapped, knocked out and missing, or swapped with itself; a baseline, or a
            density below 1, at evaluation only; interactions that are missing in training too.
    """

    modalities: Annotated[tuple[str, ...], AfterValidator(_sorted)] = ()
    """Item modalities, dense or codes, that are replaced; their order does not matter."""
    filler: Filler = "none"
    """What replaces them. noise: i.i.d. N(1, 0.1), 0.1 being the deviation, as in the paper;
    matched: i.i.d. normal with each column's own mean and deviation; constant: 1; zero: 0;
    mean: each column's mean; shuffle: the modality's own rows, each given to another item at
    random, a permutation of its own a modality. Of codes, noise: i.i.d. uniform over the code book
    of each level; matched: i.i.d. with each level's own frequencies; constant: code word 0;
    shuffle: as above; they have no zero and no mean."""
    seed: Annotated[int, Ge(0)] = 0
    """Of noise, matched, shuffle and of what a density keeps."""
    when: When = "train+eval"
    """eval: the model is trained, and its epoch chosen, on the data as it is, and only what is
    scored in the end sees the replacement. A model without training knows no difference."""
    swap: Annotated[tuple[tuple[str, str], ...], AfterValidator(_sorted_pairs)] = ()
    """Pairs (modality, other): the modality becomes another feature of the dataset, with the rows
    that are missing there; both are dense, or codes of the same code books. The other stays under
    its own name, so that a model that takes all modalities meets it twice. The order of pairs does
    not matter."""
    density: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Share of each user's training interactions that is kept, rounded up, chosen at random; what
    a lower density keeps, a higher one keeps too. Valid and test stay whole, items that lose all
    their interactions stay in the catalogue, and what is dropped does not become a candidate: all
    densities rank the same lists (see `mmrec.evaluation.Evaluator`)."""

    missing: Annotated[tuple[str, ...], AfterValidator(_sorted)] = ()
    """Item modalities of any kind that no item has; a filler puts something in their place.
    `interactions` among them is what training pairs tell of an item, and can be missing at
    evaluation only: the model then knows of an item what it would of an unseen one, while the users
    keep what the pairs tell of them. Their order does not matter."""

    def __post_init__(self) -> None:
        if bool(self.modalities) != (self.filler != "none"):
            raise ValueError(
                "a condition has both modalities and a filler, or neither: got modalities"
                f" {self.modalities} and filler {self.filler!r}"
            )
        changed = {
            "swapped": {modality for modality, _ in self.swap},
            "knocked out": set(self.modalities),
            "missing": set(self.missing),
        }
        for one, other in itertools.combinations(changed, 2):
            if both := sorted(changed[one] & changed[other]):
                raise ValueError(f"modalities are both {one} and {other}: {both}")
        if self.modalities == ("missing",):
            raise ValueError("a modality called 'missing' has no knockout of its own: its name")
        if self.baseline and self.when != "train+eval":
            raise ValueError(
                f"the baseline replaces nothing: it cannot do so at {self.when!r} only"
            )
        if self.density < 1 and self.when != "train+eval":
            raise ValueError(
                f"a density of {self.density} is of what is trained on: it cannot be had at"
                f" {self.when!r} only"
            )
        if INTERACTIONS in self.missing and self.when != "eval":
            raise ValueError(
                f"{INTERACTIONS!r} can be missing at 'eval' only, not at {self.when!r}: without"
                " them there is nothing to train on"
            )

    @property
    def baseline(self) -> bool:
        """Whether nothing is changed."""
        return not (self.modalities or self.swap or self.missing) and self.density == 1

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

        A density comes first, then swaps, a knockout, what is missing:
        `density=0.5,text<-tagtext,image=noise,missing=sound`. A seed other than 0 and evaluation
        only come last: `image=noise#3@eval`, `missing=interactions+text@eval`.
        """
        if self.baseline:
            return "baseline"
        density = f"density={self.density}" if self.density < 1 else ""
        knockout = f"{self.knocked}={self.filler}" if self.modalities else ""
        seed = f"#{self.seed}" if self.seed else ""
        when = f"@{self.when}" if self.when != "train+eval" else ""
        missing = f"missing={'+'.join(self.missing)}" if self.missing else ""
        return ",".join(filter(None, (density, self.swapped, knockout, missing))) + seed + when


def apply(condition: Condition, data: Dataset) -> Dataset:
    """`data` under a condition; the baseline gives `data` itself.

    The replacement is made whatever `when` says: the caller decides what sees the result.

    Raises:
        KeyError: `data` has no such modality.
        ValueError: the modality is neither dense nor codes, or is codes, which have no such filler;
            a swap is between features that are not alike; `data` is under a condition already.
    """
    if condition.baseline:
        return data
    if data.condition != "baseline":
        raise ValueError(f"dataset {data.name!r} is already under {data.condition!r}")
    features: dict[str, Feature] = dict(data.features)
    for name, other in condition.swap:
        features[name] = _swapped(data, name, other)
    for name in condition.modalities:
        features[name] = _replaced(
            _replaceable(data, name, repr(condition.filler)),
            name,
            condition.filler,
            _generator(f"condition/{condition.seed}/{name}"),
        )
    for name in condition.missing:
        if name != INTERACTIONS:
            features[name] = _emptied(data.feature(name))
    train = data.train if condition.density == 1 else _thinned(condition, data)
    known = INTERACTIONS not in condition.missing
    changed = dataclasses.replace(data, train=train, features=features, items_known=known)
    return seal(dataclasses.replace(changed, condition=condition.name))


def _replaceable(data: Dataset, name: str, by: str) -> Dense | Codes:
    feature = data.feature(name)
    if not isinstance(feature, Dense | Codes):
        raise ValueError(
            f"modality {name!r} is of kind {feature.kind}: only dense ones and codes can be"
            f" replaced by {by}"
        )
    return feature


def _swapped(data: Dataset, name: str, other: str) -> Dense | Codes:
    """What modality `name` becomes: the feature `other`, which must be like it."""
    pair = (
        _replaceable(data, name, f"feature {other!r}"),
        _replaceable(data, other, f"another modality, here as {name!r}"),
    )
    said = [f.kind if isinstance(f, Dense) else f"codes of the books {f.sizes}" for f in pair]
    if said[0] != said[1]:
        raise ValueError(
            f"modality {name!r} is {said[0]} and {other!r} {said[1]}: only dense ones, or codes of"
            " the same code books, can be swapped"
        )
    return pair[1]


def _replaced(
    feature: Dense | Codes, name: str, filler: Filler, rng: np.random.Generator
) -> Dense | Codes:
    """The filler where the modality is there, zeros where it is missing."""
    here = feature.present
    match feature:
        case Dense():
            values_NF = np.zeros_like(feature.values)
            values_NF[here] = _filled(feature.values[here], filler, rng)
            return dataclasses.replace(feature, values=values_NF)
        case Codes():
            codes_NL = np.zeros_like(feature.codes)
            codes_NL[here] = _filled_codes(feature.codes[here], feature.sizes, name, filler, rng)
            return dataclasses.replace(feature, codes=codes_NL)


def _emptied(feature: Feature) -> Feature:
    """The feature as it is where no entity has it: same kind, width and names."""
    nowhere = {"present": np.zeros_like(feature.present)}
    match feature:
        case Dense():
            return dataclasses.replace(feature, **nowhere, values=np.zeros_like(feature.values))
        case Category() | Codes():
            return dataclasses.replace(feature, **nowhere, codes=np.zeros_like(feature.codes))
        case Tags():
            starts = np.zeros_like(feature.starts)
            return dataclasses.replace(feature, **nowhere, starts=starts, ids=feature.ids[:0])
        case Neighbours():
            starts, ids = np.zeros_like(feature.starts), feature.ids[:0]
            weights = feature.weights[:0]
            return dataclasses.replace(feature, **nowhere, starts=starts, ids=ids, weights=weights)
    raise TypeError(f"{type(feature).__name__} is not a kind of feature")


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


def _filled_codes(
    codes_PL: NDArray[np.int64],
    sizes: tuple[int, ...],
    name: str,
    filler: Filler,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    match filler:
        case "noise":
            return rng.integers(sizes, size=codes_PL.shape)
        case "matched":
            # The code word of an item drawn anew for every level.
            return np.take_along_axis(
                codes_PL, rng.integers(len(codes_PL), size=codes_PL.shape), axis=0
            )
        case "constant":
            return np.zeros_like(codes_PL)
        case "shuffle":
            return rng.permutation(codes_PL)
        case "none":
            return codes_PL
        case "zero" | "mean":
            raise ValueError(
                f"modality {name!r} is of kind codes, which have no {filler!r};"
                " noise, matched, constant or shuffle fit"
            )


def _thinned(condition: Condition, data: Dataset) -> Pairs:
    """The training interactions that a density keeps, in their order.

    Each has a random number, whatever the density, and each user keeps those with the lowest.
    """
    user_E = data.train[:, 0]
    drawn_E = _generator(f"density/{condition.seed}").random(len(user_E))
    count_U = np.bincount(user_E, minlength=data.num_users)
    kept_U = np.ceil(condition.density * count_U - 1e-9)  # 0.07 * 100 is 7.000...1
    order_E = np.lexsort((drawn_E, user_E))
    start_U = np.cumsum(count_U) - count_U
    rank_E = np.empty(len(user_E), dtype=np.int64)
    rank_E[order_E] = np.arange(len(user_E)) - start_U[user_E[order_E]]
    return data.train[rank_E < kept_U[user_E]]


def _generator(stream: str) -> np.random.Generator:
    """One stream a modality, so that a modality's filler does not depend on the others replaced."""
    key = hashlib.sha256(stream.encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))

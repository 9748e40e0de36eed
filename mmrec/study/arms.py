"""Arms and conditions of a study that puts models beside each other."""

import dataclasses
import itertools
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmrec.config import override
from mmrec.data.conditions import Condition
from mmrec.models import all_models
from mmrec.models.base import ModelConfig
from mmrec.training import RunConfig, TrainConfig


def model(name: str) -> type[ModelConfig]:
    """The model's config class; KeyError lists what there is."""
    known = {cls.__name__: cls for cls in all_models()}
    if name not in known:
        raise KeyError(f"no model {name!r}; there are: {', '.join(known)}")
    return known[name]


def arm(name: str, train: TrainConfig, knobs: Mapping[str, Any] | None = None) -> RunConfig:
    """A model, trained as `train` says except where its release departs from the usual settings.

    `knobs` are set as far as the model has them.
    """
    cls = model(name)
    own = {field.name for field in dataclasses.fields(cls)}
    given = {knob: value for knob, value in (knobs or {}).items() if knob in own}
    run = RunConfig(model=cls(**given), train=train)
    return override(run, {k: v for k, v in cls.released_training.items() if k != "train.epochs"})


def variants(name: str) -> tuple[str, ...]:
    """The readings that a model has, `released` first; a model without the field has that one."""
    hint = typing.get_type_hints(model(name)).get("variant")
    return typing.get_args(hint) or ("released",)


def as_released(name: str, knob: str) -> Any:
    """A model's own value of a knob; None if it has none."""
    fields = {field.name: field.default for field in dataclasses.fields(model(name))}
    return fields.get(knob)


def knocked_sets(modalities: Sequence[str], words: Iterable[str]) -> list[tuple[str, ...]]:
    """The sets of modalities that words ask for, the smaller first, each once.

    `each` is every modality by itself, `pairs` every two, `all` all of them together, `subsets`
    all of these and what lies between; else the names, joined by `+`.

    Raises:
        ValueError: a name is no modality.
    """
    sizes = {"each": [1], "pairs": [2], "all": [len(modalities)],
             "subsets": range(1, len(modalities) + 1)}  # fmt: skip
    sets: set[tuple[str, ...]] = set()
    for word in words:
        if word in sizes:
            chosen = (itertools.combinations(sorted(modalities), n) for n in sizes[word])
            sets |= set(itertools.chain.from_iterable(chosen))
            continue
        names = tuple(sorted(word.split("+")))
        unknown = [name for name in names if name not in modalities]
        if unknown:
            raise ValueError(
                f"condition {word!r}: {unknown[0]!r} is no modality of this study; there are:"
                f" {', '.join(modalities)}; or each, pairs, all, subsets"
            )
        sets.add(names)
    return sorted(sets, key=lambda names: (len(names), names))


def knockouts(
    sets: Iterable[tuple[str, ...]], fillers: Iterable[str], whens: Iterable[str]
) -> tuple[Condition, ...]:
    """The baseline, then every set under every filler, replaced when asked for."""
    product = itertools.product(whens, fillers, sets)
    asked: list[dict[str, Any]] = [
        {"modalities": names, "filler": filler, "when": when} for when, filler, names in product
    ]
    return (Condition(), *(Condition(**fields) for fields in asked))

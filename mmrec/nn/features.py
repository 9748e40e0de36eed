"""Item features as tables of numbers, frozen or trained, for models that map them linearly.

Letters in names: I items, F columns, T tags or levels, R rows asked for.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.data.dataset import Category, Dense, Feature, Tags
from mmrec.nn.tables import Constant, rows


def item_modalities(
    wanted: Sequence[str] | None,
    features: Mapping[str, Feature],
    model: str,
    *,
    least: int = 1,
) -> tuple[str, ...]:
    """The modalities a model takes: those wanted, in that order, or all that are tables.

    Args:
        wanted: names; None takes every dense, tags and category feature, by alphabet.
        features: the dataset's item features.
        model: what the model is called in errors.
        least: how many the model needs.

    Raises:
        KeyError: a name is unknown.
        ValueError: a name occurs twice, or there are fewer than `least`.
        TypeError: a feature is of a kind that is no table of numbers.
    """
    able = sorted(n for n, f in features.items() if isinstance(f, Dense | Tags | Category))
    names = tuple(able if wanted is None else wanted)
    for name in names:
        if name not in features:
            raise KeyError(f"no item modality {name!r}; there are: {', '.join(able) or 'none'}")
        if name not in able:
            kind = features[name].kind
            raise TypeError(f"{model} needs a table of numbers; {name!r} is of kind {kind!r}")
    if len(set(names)) < len(names):
        raise ValueError(f"modalities must be distinct, got {list(names)}")
    if len(names) < least:
        need = "a modality" if least == 1 else f"{least} modalities"
        have = ", ".join(names) or "none"
        raise ValueError(f"{model} needs at least {need} of the items; the dataset gives: {have}")
    return names


def values_of(feature: Feature) -> NDArray[np.float32]:
    """(I, F) what a feature holds as numbers; an item without the modality has a row of zeros.

    Tags become a 0/1 column a tag, a category one column a level.
    """
    match feature:
        case Dense():
            return feature.values
        case Tags():
            row_E = np.repeat(np.arange(len(feature)), np.diff(feature.starts))
            values_IT = np.zeros((len(feature), len(feature.names)), dtype=np.float32)
            values_IT[row_E, feature.ids] = 1.0
            return values_IT
        case Category():
            values_IT = np.zeros((len(feature), len(feature.names)), dtype=np.float32)
            values_IT[np.arange(len(feature)), feature.codes] = feature.present
            return values_IT
    raise TypeError(f"a feature of kind {feature.kind!r} is no table of numbers")


class FeatureTable(nn.Module):
    """One modality of all items: a constant, or a parameter that starts at the features."""

    def __init__(self, values_IF: NDArray[np.float32], *, trained: bool) -> None:
        super().__init__()
        table_IF = torch.tensor(values_IF, dtype=torch.get_default_dtype())
        self._table = nn.Parameter(table_IF) if trained else Constant(table_IF)

    @property
    def table_IF(self) -> Tensor:
        """(I, F)."""
        return self._table.value if isinstance(self._table, Constant) else self._table

    @property
    def width(self) -> int:
        """F."""
        return self.table_IF.shape[1]

    def forward(self, item_R: Tensor | None = None) -> Tensor:
        """(R, F) the rows asked for, or (I, F)."""
        return self.table_IF if item_R is None else rows(self.table_IF, item_R)

"""Item features as tables of numbers, frozen or trained, for models that map them linearly.

Letters in names: I items, F columns, O outputs of a map,
T tags or levels, R rows asked for, D width after a map.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.data.dataset import Category, Dense, Feature, Tags
from mmrec.nn import init as start
from mmrec.nn.maps import linear, linear_rows
from mmrec.nn.tables import Constant


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


def shared(values: NDArray) -> Tensor:
    """The array as a tensor over the same memory, to be read only.

    The trials of a node read one copy of a dataset, and a wide modality is 100 MB and more.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


class FeatureTable(nn.Module):
    """One modality of all items: a parameter that starts at the features, or a constant.

    The constant is the dataset's own memory where the type is the same.
    """

    def __init__(self, values_IF: NDArray[np.float32], *, trained: bool) -> None:
        super().__init__()
        dtype = torch.get_default_dtype()
        if trained:
            self._table = nn.Parameter(torch.tensor(values_IF, dtype=dtype))
        else:
            self._table = Constant(shared(values_IF).to(dtype))

    @property
    def table_IF(self) -> Tensor:
        """(I, F)."""
        return self._table.value if isinstance(self._table, Constant) else self._table

    @property
    def width(self) -> int:
        """F."""
        return self.table_IF.shape[1]

    def forward(self) -> Tensor:
        """(I, F)."""
        return self.table_IF

    def mapped(self, weight_OF: Tensor, item_R: Tensor | None = None) -> Tensor:
        """(R, O) the rows asked for, or all I of them, under a linear map."""
        if item_R is None:
            return linear(self.table_IF, weight_OF)
        return linear_rows(self.table_IF, item_R, weight_OF)


class MappedFeatures(nn.Module):
    """One modality of all items under a linear map with a bias, from torch's own start."""

    def __init__(
        self, values_IF: NDArray[np.float32], dim: int, init: torch.Generator, *, trained: bool
    ) -> None:
        """To width `dim`; `trained` is about the features, the map is a parameter anyway."""
        super().__init__()
        self.features = FeatureTable(values_IF, trained=trained)
        self.map = start.linear(values_IF.shape[1], dim, init, "default")

    def forward(self, gate: Tensor | None = None) -> Tensor:
        """(I, D); a 0-dim gate scales the features, and not the bias."""
        weight_DF = self.map.weight if gate is None else gate * self.map.weight
        return linear(self.features(), weight_DF, self.map.bias)

"""From raw modality to a common width: one shallow map a modality.

As in SiBraR's released code (Ganhoer et al., RecSys 2024): linear maps start Kaiming-uniform with
bias 0, category tables at N(0, (0.1 / C)^2), tag tables at N(0, 1). The released tag table has one
more row, for padding, that is never used: it is left out here.

Letters in names: N entities, M entities of the other side, R rows asked for, F raw width,
C common width, T tags or levels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.data.dataset import Category, Dense, Feature, Tags
from mmrec.graphs import Graph, spmm
from mmrec.nn import maps
from mmrec.nn.init import kaiming_bound, linear, normal, uniform, zeros
from mmrec.nn.tables import Constant, rows

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {
    "relu": F.relu,
    "selu": F.selu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Projection(nn.Module, ABC):
    """One modality of all entities of a side, brought to the common width."""

    @abstractmethod
    def forward(self, entity_R: Tensor | None = None) -> Tensor:
        """(R, C) of the entities asked for, or (N, C) of all if none are named."""


class InteractionProjection(Projection):
    """act(W x + b) of an entity's binary row of training interactions.

    The row holds the very interaction that is being predicted (not leave-one-out), as released.
    It is never made dense: W x is a sum of rows of a table.
    """

    def __init__(
        self, seen_NM: Graph, width: int, activation: Activation, init: torch.Generator
    ) -> None:
        super().__init__()
        self.activation = activation
        self.seen_NM = seen_NM
        others = seen_NM.shape[1]
        self.weight_MC = uniform((others, width), kaiming_bound(others), init)
        self.bias_C = zeros(width)

    def forward(self, entity_R: Tensor | None = None) -> Tensor:
        sum_NC = spmm(self.seen_NM, self.weight_MC)
        sum_RC = sum_NC if entity_R is None else rows(sum_NC, entity_R)
        return self.activation(sum_RC + self.bias_C)


class DenseProjection(Projection):
    """Linear maps with an activation after each, also the last."""

    def __init__(
        self,
        values_NF: Tensor,
        widths: tuple[int, ...],
        activation: Activation,
        init: torch.Generator,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.values_NF = Constant(values_NF)
        steps = zip((values_NF.shape[1], *widths), widths, strict=False)
        self.layers = nn.ModuleList(linear(a, b, init, "kaiming") for a, b in steps)

    def forward(self, entity_R: Tensor | None = None) -> Tensor:
        values_NF = self.values_NF.value
        x = values_NF if entity_R is None else rows(values_NF, entity_R)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            x = self.activation(maps.linear(x, layer.weight, layer.bias, least=maps.FEW_SHAPES))
        return x


class TagProjection(Projection):
    """The mean of the rows of an entity's distinct tags; no activation. Zero without tags."""

    def __init__(self, shares_NT: Graph, width: int, init: torch.Generator) -> None:
        super().__init__()
        self.shares_NT = shares_NT
        self.tag_TC = normal((shares_NT.shape[1], width), 1.0, init)

    def forward(self, entity_R: Tensor | None = None) -> Tensor:
        out_NC = spmm(self.shares_NT, self.tag_TC)
        return out_NC if entity_R is None else rows(out_NC, entity_R)


class CategoryProjection(Projection):
    """The row of an entity's level; no activation."""

    def __init__(self, codes_N: Tensor, num_levels: int, width: int, init: torch.Generator) -> None:
        super().__init__()
        self.codes_N = Constant(codes_N)
        self.level_TC = normal((num_levels, width), 0.1 / width, init)

    def forward(self, entity_R: Tensor | None = None) -> Tensor:
        codes_N = self.codes_N.value
        return rows(self.level_TC, codes_N if entity_R is None else codes_N[entity_R])


def projection(
    feature: Feature,
    width: int,
    hidden: tuple[int, ...],
    activation: Activation,
    init: torch.Generator,
) -> Projection:
    """The projection that a kind of feature takes.

    Args:
        feature: dense, tags or category.
        width: the common width C.
        hidden: widths of the layers before the last one; only dense features have them.
        activation: after every linear map.
        init: where weights are drawn.

    Raises:
        TypeError: no projection takes this kind.
    """
    dtype = torch.get_default_dtype()
    match feature:
        case Dense():
            values_NF = torch.from_numpy(np.array(feature.values)).to(dtype)
            return DenseProjection(values_NF, (*hidden, width), activation, init)
        case Tags():
            count_N = np.diff(feature.starts)
            share_E = np.repeat(1.0 / np.maximum(count_N, 1), count_N)
            shape = (len(feature), len(feature.names))
            matrix = sp.csr_array((share_E, feature.ids, feature.starts), shape=shape)
            return TagProjection(Graph(matrix, dtype=dtype), width, init)
        case Category():
            codes_N = torch.from_numpy(np.array(feature.codes))
            return CategoryProjection(codes_N, len(feature.names), width, init)
    raise TypeError(
        f"a feature of kind {feature.kind!r} cannot be projected; dense, tags and category can"
    )

"""Spreading embeddings over a user-item graph as LightGCN does, for models that build on it.

Letters in names: U users, I items, V nodes (users, then items), D embedding width, E entries of the
graph.
"""

import torch
from torch import Tensor

from mmrec.graphs import Graph, spmm


def sum_of_layers(
    graph: Graph, start_VD: Tensor, layers: int, weight_E: Tensor | None = None
) -> Tensor:
    """(V, D) X + A X + ... + A^layers X, formed as X + A(X + A(X + ...)): one state, not all.

    Args:
        graph: (V, V), A.
        start_VD: X.
        layers: how many times the graph is applied.
        weight_E: what takes the place of the graph's entries, as in `spmm`.
    """
    sum_VD = start_VD
    for _ in range(layers):
        sum_VD = start_VD + spmm(graph, sum_VD, weight_E)
    return sum_VD


def mean_of_layers(
    graph: Graph, user_UD: Tensor, item_ID: Tensor, layers: int, weight_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Users (U, D) and items (I, D): the mean of layers 0 to `layers`.

    LightGCN's rule (He et al., SIGIR 2020, eq. 8).

    Args:
        graph: (V, V).
        user_UD: users at layer 0.
        item_ID: items at layer 0.
        layers: how many times the graph is applied.
        weight_E: what takes the place of the graph's entries, as in `spmm`.
    """
    start_VD = torch.cat((user_UD, item_ID))
    mean_VD = sum_of_layers(graph, start_VD, layers, weight_E) / (layers + 1)
    return mean_VD[: len(user_UD)], mean_VD[len(user_UD) :]

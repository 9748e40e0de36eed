"""Spreading embeddings over a user-item graph as LightGCN does, for models that build on it.

Letters in names: U users, I items, V nodes (users, then items), D embedding width, E entries of the
graph.
"""

import torch
from torch import Tensor

from mmrec.graphs import Graph, spmm


def mean_of_layers(
    graph: Graph, user_UD: Tensor, item_ID: Tensor, layers: int, weight_E: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Users (U, D) and items (I, D): the mean of layers 0 to `layers`.

    LightGCN's rule (He et al., SIGIR 2020, eq. 8). The sum of the layers A^l X is formed as
    X + A(X + A(X + ...)), which keeps one state instead of all.

    Args:
        graph: (V, V).
        user_UD: users at layer 0.
        item_ID: items at layer 0.
        layers: how many times the graph is applied.
        weight_E: what takes the place of the graph's entries, as in `spmm`.
    """
    start_VD = torch.cat((user_UD, item_ID))
    sum_VD = start_VD
    for _ in range(layers):
        sum_VD = start_VD + spmm(graph, sum_VD, weight_E)
    mean_VD = sum_VD / (layers + 1)
    return mean_VD[: len(user_UD)], mean_VD[len(user_UD) :]

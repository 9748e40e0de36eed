"""Graphs between items that look alike, and user-item graphs that are pruned every epoch.

Letters in names: I items, F columns, K neighbours, E entries, P training pairs, D embedding width,
M modalities.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmrec.cache import cached_matrix
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws
from mmrec.graphs import Graph, bipartite, keep_likely, knn, ones, spmm, symmetric
from mmrec.nn.gates import ModalityGates

TOOLBOX_EPSILON = 1e-7
"""What the MMRec toolbox adds to a degree before it divides by it."""


def neighbours(values_IF: NDArray[np.float32], k: int) -> sp.csr_array:
    """(I, I) `mmrec.graphs.knn`, kept on disk by the content of the features."""
    return cached_matrix("knn-3", {"values": values_IF, "k": k}, lambda: knn(values_IF, k))


def image_shares(names: Sequence[str], image_weight: float) -> tuple[float, ...]:
    """Weights of the modalities' graphs, of sum 1.

    The released models know an image and a text modality: `image_weight` for the first, the rest
    for the second. Here the modality called "image" has `image_weight` and the others share the
    rest alike; without one, or with nothing else, all share alike.
    """
    others = len(names) - 1
    if "image" not in names or not others:
        return (1 / len(names),) * len(names)
    return tuple(image_weight if n == "image" else (1 - image_weight) / others for n in names)


def mean_of_neighbours(
    tables: Sequence[NDArray[np.float32]], shares: Sequence[float], k: int
) -> Graph:
    """(I, I) the graph of FREEDOM, DRAGON and PGL: the cosines only choose the k neighbours.

    For each modality every kept entry is (k_i + 1e-7)^(-1/2) (k_j + 1e-7)^(-1/2) with k_i the
    length of an item's list, which is 1 / (k + 1e-7) where all are full: a plain mean, itself
    among them. Modalities are added, weighted by their shares. Directed.
    """
    parts = _shares_of_neighbours(tables, shares, k)
    return Graph(sp.csr_array(sum(parts[1:], start=parts[0])))


def _shares_of_neighbours(
    tables: Sequence[NDArray[np.float32]], shares: Sequence[float], k: int
) -> list[sp.csr_array]:
    return [
        share * symmetric(ones(neighbours(values_IF, k)), epsilon=TOOLBOX_EPSILON)
        for values_IF, share in zip(tables, shares, strict=True)
    ]


class NeighbourShares(nn.Module):
    """The graph of `mean_of_neighbours` with its modalities apart, so that each can have a gate."""

    def __init__(
        self, tables: Sequence[NDArray[np.float32]], shares: Sequence[float], k: int
    ) -> None:
        super().__init__()
        parts = _shares_of_neighbours(tables, shares, k)
        self.graphs = nn.ModuleList(Graph(part) for part in parts)

    def forward(self, x_ID: Tensor, gate_M: Tensor) -> Tensor:
        """(I, D) the sum of the modalities' products, each times its gate."""
        products = [spmm(cast(Graph, graph), x_ID) for graph in self.graphs]
        return (gate_M[:, None, None] * torch.stack(products)).sum(0)


def smoothed(
    alike: Graph | NeighbourShares, x_ID: Tensor, hops: int, gates: ModalityGates | None
) -> Tensor:
    """(I, D) rows after `hops` products with a graph of items alike.

    Args:
        alike: of `mean_of_neighbours`, or with its modalities apart.
        x_ID: the rows.
        hops: how many products.
        gates: of the modalities, for a graph that has them apart: every product is gated.
    """
    gate_M = None if gates is None else gates()
    for _ in range(hops):
        x_ID = spmm(alike, x_ID) if isinstance(alike, Graph) else alike(x_ID, gate_M)
    return x_ID


class PrunedBipartite(nn.Module):
    """The user-item graph, of which each epoch trains on a part that favours rare nodes.

    Zhou & Shen, "A Tale of Two Graphs", MM 2023, eq. 8: an edge is kept with a probability in
    proportion to (degree of user * degree of item)^(-1/2), and the kept graph is normalised by its
    own degrees. The pruned graph is a vector of weights on the whole one, zero where an edge is
    gone: a buffer, so that lanes can prune each for itself.
    """

    weight_E: Tensor

    def __init__(self, data: Dataset, share: float) -> None:
        """For training on floor(edges * `share`), in binary floating point; ValueError if none."""
        super().__init__()
        self.graph = bipartite(data.train, data.num_users, data.num_items)
        self.num_edges = self.graph.num_entries // 2
        self.kept = int(self.num_edges * share)
        if not 1 <= self.kept <= self.num_edges:
            raise ValueError(f"cannot train on {self.kept} of {self.num_edges} edges")
        self.register_buffer("weight_E", self.graph.weight_E.clone(), persistent=False)

    def prune(self, draws: Draws, epoch: int) -> None:
        """Draw the edges of an epoch."""
        # Users come first: the first half of the entries are each edge once, from its user.
        chosen_P = keep_likely(
            self.graph.weight_E[: self.num_edges], self.kept, draws.generator("edges", epoch)
        )
        self.keep(chosen_P)

    def keep(self, chosen_P: Tensor) -> None:
        """Train on the edges chosen (P,) bool, in the order of `Graph.row_E` of the users."""
        row_E, column_E = self.graph.row_E, self.graph.column_E
        chosen_P = chosen_P.to(row_E.device)
        # The entry of the other direction stands at the same place of the transpose.
        there_E = chosen_P.new_zeros(self.graph.num_entries)
        there_E[: self.num_edges] = chosen_P
        there_E |= there_E[self.graph.place_E]
        degree_N = torch.bincount(row_E[there_E], minlength=self.graph.shape[0]).double()
        scale_N = (degree_N + TOOLBOX_EPSILON) ** -0.5
        weight_E = scale_N[row_E] * scale_N[column_E] * there_E
        self.weight_E.copy_(weight_E)

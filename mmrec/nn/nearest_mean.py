"""An item graph that is made anew from rows which change in training.

Letters in names: I items, F columns, K neighbours.
"""

import torch
from torch import Tensor, nn

from mmrec.graphs import nearest
from mmrec.nn.neighbour_lists import NeighbourLists


class NearestMean(nn.Module):
    """Each item joined with its k nearest by cosine, itself among them; it has no gradient.

    Every entry is (k_i k_j)^(-1/2) with k the lengths of lists: a plain mean where all are full, as
    cosines choose and are then forgotten. An all-zero row has itself alone. The graph is held in
    buffers, of one shape whatever it joins, so that lanes can each have their own.
    """

    near_IS: Tensor
    weight_IS: Tensor

    def __init__(self, k: int, start_IF: Tensor) -> None:
        """From the rows as they are at first."""
        super().__init__()
        self.k = k
        for name, value in self.of(start_IF)._asdict().items():
            self.register_buffer(name, value, persistent=False)

    @property
    def lists(self) -> NeighbourLists:
        """As it was made last."""
        return NeighbourLists(self.near_IS, self.weight_IS)

    def renew(self, x_IF: Tensor) -> None:
        """Make it anew."""
        graph = self.of(x_IF)
        self.near_IS.copy_(graph.near_IS)
        self.weight_IS.copy_(graph.weight_IS)

    @torch.no_grad()
    def of(self, x_IF: Tensor) -> NeighbourLists:
        """That of other rows; short lists are filled up with their own item, at 0."""
        near_IS = nearest(x_IF, self.k)
        there_IS = near_IS >= 0
        near_IS = torch.where(there_IS, near_IS, near_IS[:, :1])  # the first is the item itself
        scale_I = there_IS.sum(1).to(x_IF.dtype).rsqrt()
        return NeighbourLists(near_IS, there_IS * scale_I[:, None] * scale_I[near_IS])

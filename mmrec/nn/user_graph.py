"""Users who share items, as slots that every epoch fills: what DualGNN and DRAGON have in common.

Letters in names: U users, I items, E entries (a user and one of their neighbours), S users with
too few neighbours, K slots, D width.
"""

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from mmrec.cache import cached_matrix
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws
from mmrec.graphs import Graph, binary, co_occurrence, spmm

TIE_SEED = 0
"""Decides among neighbours with equally many common items; the same for every run."""


def closest_users(data: Dataset, most: int) -> sp.csr_array:
    """(U, U) how many training items two users have in common, for a user's `most` closest.

    The release keeps 200 and uses the first 40; only those used are kept here, which are the same.
    Ties at the cut go by a shuffle under `TIE_SEED`. They decide much: on Amazon Baby 94 % of the
    counts are 1, and nearly all users have a tie across place 40, which the release leaves to its
    top-k routine. Kept on disk by the content of the training pairs.
    """

    def build() -> sp.csr_array:
        seen_UI = binary(data.train, data.num_users, data.num_items)
        return co_occurrence(seen_UI, most=most, ties=np.random.default_rng(TIE_SEED))

    inputs = {"train": data.train, "users": data.num_users, "items": data.num_items}
    return cached_matrix("closest-users-2", {**inputs, "most": most, "seed": TIE_SEED}, build)


def urn(own_S: Tensor, slots: int, draws: torch.Generator) -> Tensor:
    """(S, K) int64 which of a user's own neighbours each slot holds.

    The first `own_S` slots hold each neighbour once. Every further slot copies one of the slots
    before it, all alike likely, copies too: so copies breed copies, as in Pólya's urn.

    Args:
        own_S: (S,) how many neighbours each user has, 1 to `slots`.
        slots: K.
        draws: where the copied slots are drawn.
    """
    slot_SK = torch.arange(slots).repeat(len(own_S), 1)
    luck_SK = torch.rand(slot_SK.shape, generator=draws, dtype=torch.float64)
    for k in range(1, slots):
        copied_S1 = slot_SK.gather(1, (luck_SK[:, k : k + 1] * k).long())
        slot_SK[:, k] = torch.where(own_S > k, k, copied_S1[:, 0])
    return slot_SK


class UserGraph(nn.Module):
    """The hop z_u = r_u + the weighted mean of r over the K slots of user u.

    A user with K neighbours has each in one slot. One with fewer has all of them, and copies fill
    the other slots (`urn`), drawn anew every epoch. The weights are the softmax over the K slots
    of the numbers of common items: a neighbour in several slots has the sum of their weights. So
    an epoch's draw is a vector of weights on a fixed graph: a buffer, which a checkpoint holds,
    since scores depend on it as they do in the release. Before the first epoch every neighbour
    counts once. A user without neighbours keeps r_u.
    """

    weight_E: Tensor

    def __init__(self, counts_UU: sp.csr_array, slots: int) -> None:
        """From the numbers of common items, at most `slots` a row; ValueError if there are more."""
        super().__init__()
        self.graph = Graph(counts_UU)
        self.slots = slots
        # On the CPU whatever the model's device, as all draws are.
        self._row_E = self.graph.row_E
        self._own_U = self.graph.length_N
        if int(self._own_U.max()) > slots:
            raise ValueError(f"{int(self._own_U.max())} neighbours do not fit into {slots} slots")
        count_E = self.graph.weight_E.double()
        most_U = torch.zeros(self.graph.shape[0], dtype=torch.float64)
        most_U = most_U.scatter_reduce(0, self._row_E, count_E, "amax")
        self._exp_E = (count_E - most_U[self._row_E]).exp()
        self.register_buffer("weight_E", torch.zeros_like(self.graph.weight_E))
        self.fill(torch.ones_like(self._row_E))

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Fill the slots of an epoch."""
        short_S = ((self._own_U > 0) & (self._own_U < self.slots)).nonzero()[:, 0]
        own_S = self._own_U[short_S]
        slot_SK = urn(own_S, self.slots, draws.generator("edges", epoch))
        first_U = self._own_U.cumsum(0) - self._own_U
        held_SK = first_U[short_S][:, None] + slot_SK
        copies_E = torch.bincount(held_SK.view(-1), minlength=len(self._row_E))
        full_U = self._own_U == self.slots
        self.fill(torch.where(full_U[self._row_E], 1, copies_E))

    def fill(self, copies_E: Tensor) -> None:
        """Give each neighbour this many slots, (E,) int64 in the order of `graph.row_E`."""
        share_E = copies_E * self._exp_E
        total_U = share_E.new_zeros(self.graph.shape[0]).index_add(0, self._row_E, share_E)
        self.weight_E.copy_(share_E / total_U[self._row_E])

    def forward(self, user_UD: Tensor) -> Tensor:
        """(U, D)."""
        return user_UD + spmm(self.graph, user_UD, self.weight_E)

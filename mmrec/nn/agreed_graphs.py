"""Item graphs of which the edges that modalities disagree on are gone, as DA-MRS has them.

Letters in names: I items, F feature columns, K neighbours, E entries, R items of a chunk.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmrec.cache import cached
from mmrec.graphs import Graph, listed, nearest, ones, symmetric
from mmrec.nn.formed import chunks
from mmrec.nn.item_graphs import TOOLBOX_EPSILON
from mmrec.nn.maps import times_turned

ROUNDING = 1e-6
"""How far below the mean a cosine still counts as the mean: items may be all alike."""


def mean_of_listed(listed_II: sp.csr_array) -> Graph:
    """(I, I) each item with itself and its listed neighbours, whose values are not read.

    An entry is (r_i + 1e-7)^(-1/2) (r_j + 1e-7)^(-1/2) with r the length of an item's list, itself
    included. Directed.
    """
    own_II = sp.eye_array(listed_II.shape[0], format="csr")
    pattern = ones(sp.csr_array(ones(listed_II) + own_II))
    return Graph(symmetric(pattern, epsilon=TOOLBOX_EPSILON))


def agreed_neighbours(tables: Sequence[NDArray[np.float32]], k: int) -> list[sp.csr_array]:
    """(I, I) of each modality: the `k` most similar items of those that all modalities agree on.

    An item is in its own list. Kept on disk by the content of the features.
    """

    def build() -> dict[str, NDArray]:
        agreed = _Agreed(tables)
        return {
            str(m): nearest(torch.tensor(table), k, keep=agreed.rows).numpy()
            for m, table in enumerate(tables)
        }

    inputs = {f"values{m}": table for m, table in enumerate(tables)}
    lists = cached("damrs-2", {**inputs, "k": k}, build)
    found = [lists[str(m)] for m in range(len(tables))]
    return [listed(near_IK, np.ones(near_IK.shape)) for near_IK in found]


class _Agreed:
    """Which pairs of items have, in every modality, a cosine at or above the mean of all pairs.

    A modality that one of the two lacks does not judge them, nor does it count in its mean. As one
    bit a pair, so that no modality is multiplied with itself for another's sake.
    """

    @torch.no_grad()
    def __init__(self, tables: Sequence[NDArray[np.float32]]) -> None:
        self.num_items = len(tables[0])
        units = [F.normalize(torch.tensor(table), eps=1e-30) for table in tables]
        lacking = [~unit_IF.any(1) for unit_IF in units]
        # The mean over all pairs is that of the sum of all directions with itself.
        means = [
            float(unit_IF.double().sum(0).square().sum() / max(1, int((~lacks_I).sum())) ** 2)
            for unit_IF, lacks_I in zip(units, lacking, strict=True)
        ]
        packed = []
        for part in chunks(self.num_items, self.num_items, units[0].device):
            agreed_RI = torch.ones(len(units[0][part]), self.num_items, dtype=torch.bool)
            for unit_IF, lacks_I, mean in zip(units, lacking, means, strict=True):
                near_RI = times_turned(unit_IF[part], unit_IF) >= mean - ROUNDING
                agreed_RI &= near_RI | lacks_I | lacks_I[part, None]
            packed.append(np.packbits(agreed_RI.numpy(), axis=1))
        self.bits = np.concatenate(packed)

    def rows(self, start: int, stop: int) -> Tensor:
        """(R, I) bool."""
        bits = np.unpackbits(self.bits[start:stop], axis=1, count=self.num_items)
        return torch.from_numpy(bits).bool()

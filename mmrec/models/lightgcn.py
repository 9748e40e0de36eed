"""LightGCN: embeddings averaged over their neighbourhoods, the control without content.

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation",
SIGIR 2020. Kept from the MMRec toolbox: 1e-7 added to degrees, the loss's floor of 1e-10, and a
regulariser on the un-squared norms of the batch's layer-0 rows.

Letters in names: U users, I items, V nodes (users, then items), B batch, N negatives a row,
D embedding width.
"""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.graphs import bipartite
from mmrec.losses import bpr, emb_loss
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.init import xavier_uniform
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import rows


@config
class LightGCN(ModelConfig):
    """Width and grid: the toolbox's."""

    CARD = Card("LightGCN", 2020, "SIGIR", "linear propagation, mean of layers", "none", "")
    search_space = {
        "model.layers": (1, 2, 3, 4),
        "model.reg_weight": (1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
    }

    dim: Annotated[int, Ge(1)] = 64
    """Width of user and item embeddings."""
    layers: Annotated[int, Ge(1)] = 2
    """How many times embeddings are spread over the user-item graph."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of the norms of the batch's layer-0 embeddings."""

    def build(self, data: Dataset, init: torch.Generator) -> "LightGCNModel":
        return LightGCNModel(self, data, init)


class LightGCNModel(Recommender):
    """Dot products of embeddings averaged over `layers` + 1 states of a linear propagation."""

    reg_weight: Tensor

    def __init__(self, cfg: LightGCN, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.layers = cfg.layers
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        self.graph = bipartite(data.train, data.num_users, data.num_items)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D): the mean of layers 0 to `layers` (eq. 4 and 8).

        Computed on the full graph at every call, so that nothing is ever stale.
        """
        return mean_of_layers(self.graph, self.user_UD, self.item_ID, self.layers)

    def losses(self, batch: Batch) -> Losses:
        """`bpr` on propagated embeddings, and `reg` on the layer-0 rows of the batch."""
        user_UD, item_ID = self.propagate()
        user_BD = rows(user_UD, batch.user)
        positive_B = (user_BD * rows(item_ID, batch.positive)).sum(-1)
        negative_BN = (user_BD[:, None] * rows(item_ID, batch.negative)).sum(-1)
        norms = emb_loss(
            rows(self.user_UD, batch.user),
            rows(self.item_ID, batch.positive),
            rows(self.item_ID, batch.negative),
        )
        return Losses(
            {
                "bpr": bpr(positive_B[:, None], negative_BN, floor=1e-10),
                "reg": self.reg_weight * norms,
            }
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.propagate()

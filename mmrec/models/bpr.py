"""BPR: matrix factorisation with a pairwise loss, the control without content or graph.

Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
Kept from the MMRec toolbox: the loss with its floor of 1e-10, and a regulariser on un-squared norms
of the batch's rows (`mmrec.losses.emb_loss`), which makes large weights such as 1 useful.

Letters in names: U users, I items, B batch, N negatives a row, D embedding width.
"""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.losses import bpr, emb_loss
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.init import xavier_normal
from mmrec.nn.tables import rows


@config
class BPR(ModelConfig):
    """Width and grid: the toolbox's."""

    CARD = Card("BPR-MF", 2009, "UAI", "dot products of two tables", "none", "")
    search_space = {"model.reg_weight": (2.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)}

    dim: Annotated[int, Ge(1)] = 64
    """Width of user and item embeddings."""
    reg_weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the norms of the batch's embeddings."""

    def build(self, data: Dataset, init: torch.Generator) -> "BPRModel":
        return BPRModel(self, data, init)


class BPRModel(Recommender):
    """Dot products of a user table and an item table."""

    ITEM_ROWS = ("item_ID",)
    reg_weight: Tensor

    def __init__(self, cfg: BPR, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.user_UD = xavier_normal(data.num_users, cfg.dim, init)
        self.item_ID = xavier_normal(data.num_items, cfg.dim, init)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def losses(self, batch: Batch) -> Losses:
        """`bpr` and `reg` (the weighted norms of users, positives and negatives)."""
        user_BD = rows(self.user_UD, batch.user)
        positive_BD = rows(self.item_ID, batch.positive)
        negative_BND = rows(self.item_ID, batch.negative)
        positive_B = (user_BD * positive_BD).sum(-1)
        negative_BN = (user_BD[:, None] * negative_BND).sum(-1)
        return Losses(
            {
                "bpr": bpr(positive_B[:, None], negative_BN, floor=1e-10),
                "reg": self.reg_weight * emb_loss(user_BD, positive_BD, negative_BND),
            }
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.user_UD, self.item_ID

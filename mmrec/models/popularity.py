"""Popularity: the same list for everybody, the most popular items first; a control.

TopPop of Cremonesi et al., "Performance of Recommender Algorithms on Top-N Recommendation Tasks",
RecSys 2010. Only training pairs count. Items of one count are ranked in the evaluator's random
order.

Letters in names: U users, I items.
"""

import numpy as np
import torch
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.models.base import Card, ModelConfig
from mmrec.models.closed_form import ClosedForm
from mmrec.nn.tables import Constant


@config
class Popularity(ModelConfig):
    """Nothing to choose."""

    CARD = Card("Popularity", 2010, "RecSys", "most popular items for everybody", "none", "")
    closed_form = True

    def build(self, data: Dataset, init: torch.Generator) -> "PopularityModel":
        return PopularityModel(data)


class PopularityModel(ClosedForm):
    """An item's score is the number of its training pairs, 0 where they are missing."""

    ITEM_ROWS = ()

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        count_I = np.bincount(data.train[:, 1], minlength=data.num_items) * data.items_known
        self.user_U1 = Constant(torch.ones(data.num_users, 1))
        self.item_I1 = Constant(torch.from_numpy(count_I).to(self.user_U1.value.dtype)[:, None])

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, 1) ones and (I, 1) counts, in the floating-point type of the model."""
        return self.user_U1.value, self.item_I1.value

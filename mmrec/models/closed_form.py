"""Models without a parameter: computed when they are built, evaluated once, never trained.

Letters in names: U users, I items, B users of a chunk, C candidate items.
"""

import scipy.sparse as sp
import torch
from torch import Tensor

from mmrec.data.dataset import Dataset
from mmrec.models.base import Batch, Losses, Recommender
from mmrec.nn.history import HistorySums
from mmrec.nn.tables import Constant


class ClosedForm(Recommender):
    """What the dataset decides alone, so that every seed gives the same numbers; or the seed.

    What it holds is no buffer: a trial's state is empty, and building again gives the same. Its
    config says `closed_form = True`.
    """

    def losses(self, batch: Batch) -> Losses:
        """TypeError: there is nothing to train."""
        raise TypeError(f"{type(self).__name__} is a closed form: it has no losses to train by")


class HistoryModel(ClosedForm):
    """Scores an item by the similarities of a user's training items to it, summed.

    Its tables hold ids, since no table of the users stands behind the scores.
    """

    def __init__(self, data: Dataset, similarity_II: Tensor | sp.csr_array) -> None:
        """From an (I, I) similarity, row a training item, column a scored item."""
        super().__init__()
        self.sums = HistorySums(data, similarity_II)
        self.user_U1 = Constant(torch.arange(data.num_users)[:, None])
        self.item_I1 = Constant(torch.arange(data.num_items)[:, None])

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, 1) and (I, 1) int64: the ids of the users and items."""
        return self.user_U1.value, self.item_I1.value

    def score(self, user_BD: Tensor, item_ID: Tensor) -> Tensor:
        """(B, C) scores of rows of the two tables of ids."""
        return self.sums(user_BD[:, 0]).index_select(1, item_ID[:, 0])

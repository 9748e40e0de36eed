"""ContentKNN: items that look like those a user took; a control that knows content alone.

ItemKNN-CBF of Ferrari Dacrema et al., "Are We Really Making Much Progress?", RecSys 2019, without
shrinkage, for vectors of any number of modalities:

    score(u, i) = sum over u's training items j among the k neighbours of i of s_ij,

s_ij the cosine of i and j where each is its modalities' vectors side by side, each scaled to
length one: the mean of the modalities' cosines. An item that lacks a modality has zeros there, so
with M_i modalities s_ij is the sum of the shared ones' cosines over sqrt(M_i M_j). No training
pair takes part but as a user's history.

Letters in names: I items, F columns of all modalities.
"""

from typing import Annotated

import numpy as np
import scipy.sparse as sp
import torch
from annotated_types import Ge
from numpy.typing import NDArray

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.models.base import Card, ModelConfig
from mmrec.models.closed_form import HistoryModel
from mmrec.nn.features import item_modalities, values_of
from mmrec.nn.item_graphs import neighbours


@config
class ContentKNN(ModelConfig):
    """The grid is ours."""

    CARD = Card("ContentKNN", 2019, "RecSys", "items that look like history", "one or more", "")
    closed_form = True
    search_space = {"model.knn_k": (5, 10, 20, 50, 100, 200)}

    knn_k: Annotated[int, Ge(1)] = 20
    """Neighbours of an item, itself not among them."""
    modalities: tuple[str, ...] | None = None
    """Item modalities, by name; None takes all that are tables of numbers."""

    def build(self, data: Dataset, init: torch.Generator) -> "ContentKNNModel":
        names = item_modalities(self.modalities, data.features, "ContentKNN")
        sides = [unit_rows(values_of(data.features[name])) for name in names]
        near_II = neighbours(np.concatenate(sides, axis=1), self.knn_k + 1)
        near_II.setdiag(0.0)
        near_II.eliminate_zeros()
        return ContentKNNModel(data, sp.csr_array(near_II.T))


class ContentKNNModel(HistoryModel):
    """What an item is like is known without its interactions; a user's history is the user's."""

    ITEM_ROWS = ()


def unit_rows(values_IF: NDArray[np.float32]) -> NDArray[np.float32]:
    """(I, F) each row over its length; a row of zeros stays."""
    norm_I = np.linalg.norm(values_IF.astype(np.float64), axis=1)
    norm_I[norm_I == 0] = 1.0
    return (values_IF / norm_I[:, None]).astype(np.float32)

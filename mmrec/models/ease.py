"""EASE: each item from all others by ridge regression, in closed form; a control without content.

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (there EASE^R). The weights
minimise |X - X B|^2 + l2 |B|^2 over matrices B with a zero diagonal, which gives
B = I - P diag(1 / diag P) with P = (X^T X + l2 I)^-1 (section 3.1); a user's scores are X B.

The inverse is by Cholesky factors in float64, in the place of the Gram matrix: 8 I^2 bytes, and
4 I^2 more for what is kept in float32. On one thread of an AMD EPYC that is 0.6 GB and 11 s for the
7,050 items of Amazon Baby, 6.4 GB and 5 minutes for the 23,033 of Clothing: time grows with I^3.

Letters in names: U users, I items.
"""

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.graphs import binary
from mmrec.models.base import Card, ModelConfig
from mmrec.models.closed_form import HistoryModel

MOST_BYTES = 16 * 2**30
"""Of the matrix to invert: about 46,000 items. A larger catalogue is refused by name."""


@config
class EASE(ModelConfig):
    """The grid is ours, around the paper's 200 to 1000."""

    CARD = Card("EASE", 2019, "WWW", "ridge regression between all items", "none", "")
    closed_form = True
    search_space = {"model.l2": (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)}

    l2: Annotated[float, Gt(0)] = 300.0
    """What is added to each item's number of users before the inverse; in squared interactions."""

    def build(self, data: Dataset, init: torch.Generator) -> HistoryModel:
        return HistoryModel(data, item_weights(data, self.l2).to(torch.get_default_dtype()))


def item_weights(data: Dataset, l2: float) -> Tensor:
    """(I, I) float64 the B of the paper: row a training item, column the item it speaks for.

    Raises:
        ValueError: the catalogue is too large for a matrix of MOST_BYTES.
    """
    num_bytes = 8 * data.num_items**2
    if num_bytes > MOST_BYTES:
        raise ValueError(
            f"EASE inverts a matrix of all pairs of {data.num_items} items, {num_bytes / 1e9:.1f}"
            f" GB; it takes at most {MOST_BYTES / 1e9:.1f} GB (mmrec.models.ease.MOST_BYTES)"
        )
    seen_UI = binary(data.train, data.num_users, data.num_items)
    gram_II = torch.from_numpy((seen_UI.T @ seen_UI).toarray(order="C"))
    gram_II.diagonal().add_(l2)
    # Symmetric, so its transpose is itself in the column order that LAPACK works on in place.
    inverse_II = gram_II.mT
    torch.linalg.cholesky(inverse_II, out=inverse_II)
    torch.cholesky_inverse(inverse_II, out=inverse_II)
    weight_II = inverse_II.mT
    weight_II.div_(-weight_II.diagonal().clone())
    return weight_II.fill_diagonal_(0.0)

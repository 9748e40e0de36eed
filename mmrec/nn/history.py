"""Scores from what a user has trained on: rows of an item-item similarity, summed.

Letters in names: U users, I items, P training pairs, B users asked for, H training items of these
users one after another, E stored entries.
"""

import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.data.dataset import Dataset, csr_rows
from mmrec.nn.tables import Constant


class HistorySums(nn.Module):
    """R[users] S, with R the binary training pairs and S a similarity, for a few users at a time.

    Each user costs as much as the rows of S that they need, never a row of zeros; the whole
    product, users by items, is never formed.
    """

    def __init__(self, data: Dataset, similarity_II: Tensor | sp.csr_array) -> None:
        """From S: row a training item, column a scored item; dense, or sparse as scipy has it.

        Raises:
            ValueError: S is not items by items.
        """
        super().__init__()
        if tuple(similarity_II.shape) != (data.num_items,) * 2:
            raise ValueError(
                f"a similarity of {data.num_items} items has as many rows and columns, got"
                f" {tuple(similarity_II.shape)}"
            )
        start, item_P = csr_rows(data.train, data.num_users)
        self._start = Constant(torch.from_numpy(start))
        self._item_P = Constant(torch.from_numpy(item_P))
        dense = isinstance(similarity_II, Tensor)
        self._rows = _DenseRows(similarity_II) if dense else _SparseRows(similarity_II)

    def forward(self, user_B: Tensor) -> Tensor:
        """(B, I); a user without training items has a row of zeros."""
        at_H, start = _ranges(self._start.value, user_B)
        return self._rows(self._item_P.value[at_H], start)


class _DenseRows(nn.Module):
    def __init__(self, similarity_II: Tensor) -> None:
        super().__init__()
        self.similarity_II = Constant(similarity_II.contiguous())

    def forward(self, item_H: Tensor, start: Tensor) -> Tensor:
        return F.embedding_bag(
            item_H, self.similarity_II.value, start, mode="sum", include_last_offset=True
        )


class _SparseRows(nn.Module):
    def __init__(self, similarity_II: sp.csr_array) -> None:
        super().__init__()
        matrix = sp.csr_array(similarity_II)
        weight_E = torch.from_numpy(matrix.data).to(torch.get_default_dtype())
        self.start = Constant(torch.from_numpy(matrix.indptr).long())
        self.column_E = Constant(torch.from_numpy(matrix.indices).long())
        self.weight_E = Constant(weight_E)

    def forward(self, item_H: Tensor, start: Tensor) -> Tensor:
        num_users, num_items = len(start) - 1, len(self.start.value) - 1
        at_E, start_H = _ranges(self.start.value, item_H)
        user_E = torch.repeat_interleave(start_H[start].diff(), output_size=len(at_E))
        cell_E = user_E * num_items + self.column_E.value[at_E]
        weight_E = self.weight_E.value[at_E]
        # Sums in float64: equal sums then stay equal in whatever order their terms are added,
        # which on a GPU differs from call to call.
        score = weight_E.new_zeros(num_users * num_items, dtype=torch.float64)
        score.index_add_(0, cell_E, weight_E.double())
        return score.view(num_users, num_items).to(weight_E.dtype)


def _ranges(start: Tensor, row_R: Tensor) -> tuple[Tensor, Tensor]:
    """Places of the entries of some rows of a CSR matrix, row after row, and where each begins.

    Args:
        start: (N + 1,) the matrix's own.
        row_R: rows, in any order, as often as one likes.

    Returns:
        (S,) int64 places, and (R + 1,) offsets into them.
    """
    first_R = start[row_R]
    count_R = start[row_R + 1] - first_R
    offset = F.pad(count_R.cumsum(0), (1, 0))
    place = torch.repeat_interleave(first_R - offset[:-1], count_R)
    return place + torch.arange(len(place), device=place.device), offset

"""Tables of rows: constants that travel with a model, and looking rows up.

Letters in names: N rows, D width, B look-ups.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Constant(nn.Module):
    """A tensor that never changes, such as a feature table.

    As a submodule it moves and changes its floating-point type with its model, but it is no
    buffer: a checkpoint does not hold it, and lanes share one copy instead of stacking it.
    """

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Constant":
        super()._apply(fn, recurse)
        self.value = fn(self.value)
        return self


def rows(table_ND: Tensor, index: Tensor) -> Tensor:
    """(*index.shape, D) rows of a table, for an index of any shape.

    `index_select` has a gradient that is three to four times as fast as `table[index]` on a CPU.
    """
    return table_ND.index_select(0, index.reshape(-1)).view(*index.shape, *table_ND.shape[1:])


def occurrences(index_B: Tensor, table_ND: Tensor) -> Tensor:
    """(N,) how often each row of a table is looked up, in the table's own type."""
    zero_N = torch.zeros_like(table_ND[:, 0]).detach()
    return zero_N.index_add(0, index_B, torch.ones_like(index_B, dtype=zero_N.dtype))

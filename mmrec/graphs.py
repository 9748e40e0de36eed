"""Sparse matrices between users and items, and their product with embeddings.

Letters in names: N rows, M columns, E stored entries, P user-item pairs, K lanes, D embedding
width, U users, I items.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class _Rows(NamedTuple):
    """A sparse matrix by rows (CSR)."""

    start: Tensor
    """(N + 1,) int64."""
    column: Tensor
    """(E,) int64, sorted within a row."""
    weight: Tensor
    """(E,) floating point."""

    @classmethod
    def of(cls, matrix: sp.csr_array, dtype: torch.dtype) -> "_Rows":
        start, column = (
            torch.from_numpy(index.astype(np.int64)) for index in (matrix.indptr, matrix.indices)
        )
        return cls(start, column, torch.from_numpy(matrix.data).to(dtype))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "_Rows":
        return _Rows(*(move(part) for part in self))

    def times(self, x_MD: Tensor) -> Tensor:
        """(N, D).

        As weighted bags of rows: on a CPU about ten times as fast as torch's CSR product, and, as
        each row is summed in order, the same to the last bit with any number of threads.
        """
        return F.embedding_bag(
            self.column,
            x_MD,
            self.start,
            mode="sum",
            per_sample_weights=self.weight,
            include_last_offset=True,
        )


class Graph(nn.Module):
    """A constant sparse matrix, opaque to autograd and `torch.func`; multiply with `spmm`.

    It holds the transpose too (the same arrays if the matrix is symmetric), which the gradient
    needs. As a submodule it moves and changes its floating-point type with its model, but it has
    no parameters or buffers: it is neither trained, nor saved, nor stacked in lanes.
    """

    def __init__(
        self,
        matrix: sp.csr_array,
        *,
        dtype: torch.dtype = torch.float32,
        symmetric: bool = False,
    ) -> None:
        """From a scipy matrix; entries that occur twice are summed.

        Raises:
            ValueError: `symmetric` is claimed of a matrix that is not.
        """
        super().__init__()
        matrix = sp.csr_array(matrix, copy=True)
        matrix.sum_duplicates()
        turned = sp.csr_array(matrix.T)
        turned.sort_indices()
        if symmetric and (matrix.shape != turned.shape or (matrix - turned).count_nonzero()):
            raise ValueError(f"the {matrix.shape[0]} x {matrix.shape[1]} matrix is not symmetric")
        self.shape = (matrix.shape[0], matrix.shape[1])
        self._rows = _Rows.of(matrix, dtype)
        self._turned = self._rows if symmetric else _Rows.of(turned, dtype)

    @property
    def num_entries(self) -> int:
        """How many entries are stored."""
        return len(self._rows.column)

    def dense(self) -> Tensor:
        """(N, M) the matrix with its zeros, for tests and small examples."""
        row_E = torch.repeat_interleave(self._rows.start.diff())
        dense_NM = self._rows.weight.new_zeros(self.shape)
        return dense_NM.index_put((row_E, self._rows.column), self._rows.weight)

    def product(self, x_MD: Tensor, *, transposed: bool = False) -> Tensor:
        """The product without a gradient; use `spmm`."""
        needed = self.shape[0 if transposed else 1]
        if x_MD.ndim != 2 or len(x_MD) != needed:
            turned = "the transpose of " if transposed else ""
            raise ValueError(
                f"{turned}a {self.shape[0]} x {self.shape[1]} graph needs {needed} rows of"
                f" embeddings, got a tensor of shape {tuple(x_MD.shape)}"
            )
        return (self._turned if transposed else self._rows).times(x_MD.contiguous())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Graph":
        # What `.to()` and `.double()` call: these tensors are no buffers, so that neither a
        # checkpoint nor a stack of lanes holds copies of them.
        super()._apply(fn, recurse)
        symmetric = self._turned is self._rows
        self._rows = self._rows.moved(fn)
        self._turned = self._rows if symmetric else self._turned.moved(fn)
        return self


class _Product(torch.autograd.Function):
    """graph @ x, or with its transpose; functorch cannot look into a sparse tensor."""

    @staticmethod
    def forward(graph: Graph, transposed: bool, x_MD: Tensor) -> Tensor:
        return graph.product(x_MD, transposed=transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Graph, bool, Tensor], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.graph, ctx.transposed, _ = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        (grad_ND,) = grads
        return None, None, _Product.apply(ctx.graph, not ctx.transposed, grad_ND)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """All lanes in one product: lanes beside lanes, as further columns."""
        graph, transposed, x = args
        lanes = info.batch_size
        x_MKD = x.movedim(in_dims[2], 1)
        out = _Product.apply(graph, transposed, x_MKD.reshape(len(x_MKD), -1))
        return out.view(len(out), lanes, -1), 1


def spmm(graph: Graph, x_MD: Tensor) -> Tensor:
    """(N, D) the product of an (N, M) graph with embeddings; differentiable in `x_MD`.

    Raises:
        ValueError: `x_MD` is not a matrix of M rows.
    """
    return cast(Tensor, _Product.apply(graph, False, x_MD))


def incidence(
    pairs_P2: NDArray[np.int64],
    num_rows: int,
    num_columns: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> Graph:
    """The binary (num_rows, num_columns) matrix with a one at each pair (row, column).

    Pairs that occur twice count once. For items x users give the pairs' columns swapped.
    """
    return Graph(_binary(pairs_P2, num_rows, num_columns), dtype=dtype)


def bipartite(
    train_P2: NDArray[np.int64],
    num_users: int,
    num_items: int,
    *,
    dtype: torch.dtype = torch.float32,
) -> Graph:
    """The symmetrically normalised user-item graph of LightGCN (He et al., SIGIR 2020, eq. 7).

    D A D with A the (U + I, U + I) binary adjacency (users first, no self loops) and D the
    diagonal of (degree + 1e-7)^(-1/2), as the MMRec toolbox has it. Computed in float64, then
    stored as `dtype`. A node without edges has an empty row.
    """
    seen_UI = _binary(train_P2, num_users, num_items)
    adjacency = sp.block_array([[None, seen_UI], [seen_UI.T, None]], format="coo")
    degree_N = np.bincount(adjacency.row, minlength=num_users + num_items)
    scale_N = (degree_N + 1e-7) ** -0.5
    # The product of the two scales is formed first: it is the same number both ways round.
    adjacency.data = adjacency.data * (scale_N[adjacency.row] * scale_N[adjacency.col])
    return Graph(sp.csr_array(adjacency), dtype=dtype, symmetric=True)


def _binary(pairs_P2: NDArray[np.int64], num_rows: int, num_columns: int) -> sp.csr_array:
    row_P, column_P = np.asarray(pairs_P2).reshape(-1, 2).T
    for name, index_P, size in (("row", row_P, num_rows), ("column", column_P, num_columns)):
        if index_P.size and (index_P.min() < 0 or index_P.max() >= size):
            raise ValueError(
                f"{name} ids must be in [0, {size}), got {index_P.min()} to {index_P.max()}"
            )
    ones_P = np.ones(len(row_P))
    matrix = sp.csr_array((ones_P, (row_P, column_P)), shape=(num_rows, num_columns))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix

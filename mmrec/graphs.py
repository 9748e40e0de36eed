"""Sparse matrices between users and items, and their product with embeddings.

Letters in names: N rows, M columns, E stored entries, P user-item pairs, L lanes, D embedding
width, U users, I items, F feature columns, K neighbours, B items of a chunk.
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

    def times(self, x_MD: Tensor, weight_E: Tensor | None = None) -> Tensor:
        """(N, D), with `weight_E` in place of the stored entries where it is given.

        As weighted bags of rows: on a CPU about ten times as fast as torch's CSR product, and, as
        each row is summed in order, the same to the last bit with any number of threads.
        """
        return F.embedding_bag(
            self.column,
            x_MD,
            self.start,
            mode="sum",
            per_sample_weights=self.weight if weight_E is None else weight_E,
            include_last_offset=True,
        )


class Graph(nn.Module):
    """A constant sparse matrix, opaque to autograd and `torch.func`; multiply with `spmm`.

    It holds the transpose too (the same arrays if the matrix is symmetric), which the gradient
    needs. As a submodule it moves and changes its floating-point type with its model, but it has
    no parameters or buffers: it is neither trained, nor saved, nor stacked in lanes. Weights that
    do change, in training or from epoch to epoch, are handed to `spmm` beside it.
    """

    def __init__(
        self,
        matrix: sp.csr_array,
        *,
        dtype: torch.dtype | None = None,
        symmetric: bool = False,
    ) -> None:
        """From a scipy matrix; entries that occur twice are summed.

        Args:
            matrix: (N, M).
            dtype: of the entries; torch's default if None.
            symmetric: a claim that is checked, and saves the memory of the transpose.

        Raises:
            ValueError: `symmetric` is claimed of a matrix that is not.
        """
        super().__init__()
        dtype = dtype or torch.get_default_dtype()
        matrix = sp.csr_array(matrix, copy=True)
        matrix.sum_duplicates()
        place = sp.csr_array((np.arange(matrix.nnz), matrix.indices, matrix.indptr), matrix.shape)
        place = sp.csr_array(place.T)
        place.sort_indices()
        turned = sp.csr_array((matrix.data[place.data], place.indices, place.indptr), place.shape)
        if symmetric and (matrix.shape != turned.shape or (matrix - turned).count_nonzero()):
            raise ValueError(f"the {matrix.shape[0]} x {matrix.shape[1]} matrix is not symmetric")
        self.shape = (matrix.shape[0], matrix.shape[1])
        self._rows = _Rows.of(matrix, dtype)
        self._turned = self._rows if symmetric else _Rows.of(turned, dtype)
        # Entry e of the transpose is entry place[e] of the matrix.
        self._place_E = torch.from_numpy(place.data.astype(np.int64))

    @property
    def num_entries(self) -> int:
        """How many entries are stored."""
        return len(self._rows.column)

    @property
    def row_E(self) -> Tensor:
        """(E,) int64, the row of each entry: entries are sorted by row, then by column."""
        return torch.repeat_interleave(self.length_N)

    @property
    def length_N(self) -> Tensor:
        """(N,) int64, how many entries each row stores."""
        return self._rows.start.diff()

    @property
    def column_E(self) -> Tensor:
        """(E,) int64, the column of each entry."""
        return self._rows.column

    @property
    def weight_E(self) -> Tensor:
        """(E,) the stored entries."""
        return self._rows.weight

    @property
    def place_E(self) -> Tensor:
        """(E,) int64: entry e of the transpose is entry `place_E[e]` of the matrix."""
        return self._place_E

    def dense(self) -> Tensor:
        """(N, M) the matrix with its zeros, for tests and small examples."""
        dense_NM = self._rows.weight.new_zeros(self.shape)
        return dense_NM.index_put((self.row_E, self._rows.column), self._rows.weight)

    def product(
        self, x_MD: Tensor, weight_E: Tensor | None = None, *, transposed: bool = False
    ) -> Tensor:
        """The product without a gradient; use `spmm`."""
        needed = self.shape[0 if transposed else 1]
        if x_MD.ndim != 2 or len(x_MD) != needed:
            turned = "the transpose of " if transposed else ""
            raise ValueError(
                f"{turned}a {self.shape[0]} x {self.shape[1]} graph needs {needed} rows of"
                f" embeddings, got a tensor of shape {tuple(x_MD.shape)}"
            )
        if weight_E is not None and weight_E.shape != (self.num_entries,):
            raise ValueError(
                f"a graph of {self.num_entries} entries needs as many weights, got a tensor of"
                f" shape {tuple(weight_E.shape)}"
            )
        if transposed and weight_E is not None:
            weight_E = weight_E[self._place_E]
        return (self._turned if transposed else self._rows).times(x_MD.contiguous(), weight_E)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Graph":
        # What `.to()` and `.double()` call: these tensors are no buffers, so that neither a
        # checkpoint nor a stack of lanes holds copies of them.
        super()._apply(fn, recurse)
        symmetric = self._turned is self._rows
        self._rows = self._rows.moved(fn)
        self._turned = self._rows if symmetric else self._turned.moved(fn)
        self._place_E = fn(self._place_E)
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
        x_MLD = x.movedim(in_dims[2], 1)
        out = _Product.apply(graph, transposed, x_MLD.reshape(len(x_MLD), -1))
        return out.view(len(out), lanes, -1), 1


class _WeightedProduct(torch.autograd.Function):
    """As `_Product`, with weights in place of the stored entries, which get a gradient too."""

    @staticmethod
    def forward(graph: Graph, transposed: bool, weight_E: Tensor, x_MD: Tensor) -> Tensor:
        return graph.product(x_MD, weight_E, transposed=transposed)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.graph, ctx.transposed, weight_E, x_MD = inputs
        ctx.save_for_backward(weight_E, x_MD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor | None, Tensor | None]:
        (grad_ND,) = grads
        weight_E, x_MD = ctx.saved_tensors
        grad_E, grad_MD = None, None
        if ctx.needs_input_grad[2]:
            ends = (x_MD, grad_ND) if ctx.transposed else (grad_ND, x_MD)
            grad_E = _EdgeDots.apply(ctx.graph, *ends)
        if ctx.needs_input_grad[3]:
            grad_MD = _WeightedProduct.apply(ctx.graph, not ctx.transposed, weight_E, grad_ND)
        return None, None, grad_E, grad_MD

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """Lanes under the same weights in one product, as further columns; else one by one."""
        graph, transposed, weight, x = args
        if in_dims[2] is None:
            x_MLD = x.movedim(in_dims[3], 1)
            out = _WeightedProduct.apply(graph, transposed, weight, x_MLD.reshape(len(x_MLD), -1))
            return out.view(len(out), info.batch_size, -1), 1
        lanes = each_lane(info, in_dims[2:], (weight, x))
        return torch.stack([_WeightedProduct.apply(graph, transposed, *p) for p in lanes]), 0


class _EdgeDots(torch.autograd.Function):
    """The dot product of the two ends of every entry."""

    @staticmethod
    def forward(graph: Graph, row_ND: Tensor, column_MD: Tensor) -> Tensor:
        # The gradient that a weighted bag of rows has with respect to its weights: on a CPU it
        # needs no (E, D) array of gathered rows.
        weight_E = graph.weight_E.detach().to(row_ND.dtype).requires_grad_()
        with torch.enable_grad():
            out_ND = graph.product(column_MD.detach(), weight_E)
        (dots_E,) = torch.autograd.grad(out_ND, weight_E, row_ND.detach().contiguous())
        return dots_E

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.graph, row_ND, column_MD = inputs
        ctx.save_for_backward(row_ND, column_MD)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        (grad_E,) = grads
        row_ND, column_MD = ctx.saved_tensors
        grad_ND, grad_MD = None, None
        if ctx.needs_input_grad[1]:
            grad_ND = _WeightedProduct.apply(ctx.graph, False, grad_E, column_MD)
        if ctx.needs_input_grad[2]:
            grad_MD = _WeightedProduct.apply(ctx.graph, True, grad_E, row_ND)
        return None, grad_ND, grad_MD

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        graph, row, column = args
        lanes = each_lane(info, in_dims[1:], (row, column))
        return torch.stack([_EdgeDots.apply(graph, *ends) for ends in lanes]), 0


def each_lane(info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> list[list[Any]]:
    """The arguments of each lane; what has no lanes is shared."""
    return [
        [
            arg if dim is None else arg.select(dim, lane)
            for arg, dim in zip(args, in_dims, strict=True)
        ]
        for lane in range(info.batch_size)
    ]


class _Apart(torch.autograd.Function):
    """A function that has no gradient and no rule for lanes, applied to them one by one."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
        return function(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        function, *tensors = args
        lanes = each_lane(info, in_dims[1:], tuple(tensors))
        return torch.stack([apart(function, *lane) for lane in lanes]), 0


def apart(function: Callable[..., Tensor], *args: Tensor) -> Tensor:
    """`function(*args)` for tensor code that neither autograd nor vmap should look into.

    Its result has no gradient, and lanes go through it one by one.
    """
    return cast(Tensor, _Apart.apply(function, *args))


def spmm(graph: Graph, x_MD: Tensor, weight_E: Tensor | None = None) -> Tensor:
    """(N, D) the product of an (N, M) graph with embeddings; differentiable.

    Args:
        graph: the matrix.
        x_MD: embeddings.
        weight_E: what takes the place of the graph's entries, in their order (`Graph.row_E`), such
            as attention or the zeros of a pruned graph; differentiable too.

    Raises:
        ValueError: `x_MD` is not a matrix of M rows, or `weight_E` no vector of E entries.
    """
    if weight_E is None:
        return cast(Tensor, _Product.apply(graph, False, x_MD))
    return cast(Tensor, _WeightedProduct.apply(graph, False, weight_E, x_MD))


def edge_dots(graph: Graph, row_ND: Tensor, column_MD: Tensor) -> Tensor:
    """(E,) for each entry (n, m) the dot product of row n and row m of two tables; differentiable.

    The sampled dense-dense product (SDDMM): attention logits on edges, at E * D operations.
    """
    return cast(Tensor, _EdgeDots.apply(graph, row_ND, column_MD))


# --- user-item graphs


def incidence(
    pairs_P2: NDArray[np.int64],
    num_rows: int,
    num_columns: int,
    *,
    dtype: torch.dtype | None = None,
) -> Graph:
    """The binary (num_rows, num_columns) matrix with a one at each pair (row, column).

    Pairs that occur twice count once. For items x users give the pairs' columns swapped.
    """
    return Graph(binary(pairs_P2, num_rows, num_columns), dtype=dtype)


def bipartite(
    train_P2: NDArray[np.int64],
    num_users: int,
    num_items: int,
    *,
    epsilon: float = 1e-7,
    dtype: torch.dtype | None = None,
) -> Graph:
    """The symmetrically normalised user-item graph of LightGCN (He et al., SIGIR 2020, eq. 7).

    D A D with A from `adjacency` and D the diagonal of (degree + epsilon)^(-1/2), 1e-7 in the
    MMRec toolbox. Computed in float64, then stored as `dtype`. A node without edges has an empty
    row.
    """
    matrix = symmetric(adjacency(train_P2, num_users, num_items), epsilon=epsilon)
    return Graph(matrix, dtype=dtype, symmetric=True)


def bipartite_halves(
    train_P2: NDArray[np.int64],
    num_users: int,
    num_items: int,
    *,
    epsilon: float = 1e-7,
    dtype: torch.dtype | None = None,
) -> tuple[Graph, Graph]:
    """What `bipartite` does to users (U, I), and to items (I, U): its two blocks that are not 0.

    For what starts on one side only, or is needed on one: half the work of the whole graph.
    """
    matrix = symmetric(adjacency(train_P2, num_users, num_items), epsilon=epsilon)
    to_users = Graph(sp.csr_array(matrix[:num_users, num_users:]), dtype=dtype)
    return to_users, Graph(sp.csr_array(matrix[num_users:, :num_users]), dtype=dtype)


def adjacency(train_P2: NDArray[np.int64], num_users: int, num_items: int) -> sp.csr_array:
    """(U + I, U + I) binary: users first, an edge both ways for each pair, no self loops."""
    seen_UI = binary(train_P2, num_users, num_items)
    return sp.csr_array(sp.block_array([[None, seen_UI], [seen_UI.T, None]]))


def binary(pairs_P2: NDArray[np.int64], num_rows: int, num_columns: int) -> sp.csr_array:
    """The matrix of `incidence`, as scipy has it.

    Raises:
        ValueError: an id is out of range.
    """
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


# --- normalisation


def symmetric(matrix: sp.csr_array, *, epsilon: float = 0.0) -> sp.csr_array:
    """D M D with D the diagonal of (row sum + epsilon)^(-1/2), ROW sums on both sides.

    So it is what the MMRec toolbox calls symmetric also where M is not, such as a directed
    neighbour graph. A row without entries stays empty.

    Raises:
        ValueError: a row sums below 0, which has no square root (the message names it).
    """
    total_N = np.asarray(matrix.sum(axis=1)).ravel() + epsilon
    if (total_N < 0).any():
        worst = int(total_N.argmin())
        raise ValueError(f"row {worst} of the graph sums to {total_N[worst]:.4g}, below 0")
    scale_N = np.divide(1.0, np.sqrt(total_N), out=np.zeros_like(total_N), where=total_N > 0)
    entries = sp.coo_array(matrix)
    # The product of the two scales is formed first: it is the same number both ways round.
    data = entries.data * (scale_N[entries.row] * scale_N[entries.col])
    return sp.csr_array((data, (entries.row, entries.col)), shape=matrix.shape)


def row_mean(matrix: sp.csr_array) -> sp.csr_array:
    """Each row divided by its sum; a row that sums to 0 becomes 0."""
    total_N = np.asarray(matrix.sum(axis=1)).ravel()
    share_N = np.divide(1.0, total_N, out=np.zeros_like(total_N), where=total_N != 0)
    return sp.csr_array(sp.diags_array(share_N) @ matrix)


# --- neighbours by features

_CHUNK_CELLS = 2**23
_NEAREST_CELLS = 2**21
"""Smaller, as the chunk is read several times: it should stay in the processor's cache."""
_TIES_SEED = 0
_GRID = 2.0**20
"""Cosines nearer than about 1e-6 count as equal: what lies below that is rounding."""


@torch.no_grad()
def nearest(
    table_IF: Tensor, k: int, *, keep: Callable[[int, int], Tensor] | None = None
) -> Tensor:
    """(I, K) int64: each row's most similar rows by cosine, itself first; -1 fills a short list.

    Equal cosines (nearer than 1e-6) go to the item that comes first in one fixed random order of
    all items, so that the lists depend neither on the machine nor on its threads, nor on ids, which
    often follow popularity. Rows that are all alike, as under a constant filler, thus have one and
    the same list, a hub, as in the MMRec toolbox, which leaves ties to its top-k routine. There an
    all-zero row, whose cosines are 0/0, comes into every list; here its cosine with any other row
    is 0 and no evidence of likeness: it is nobody's neighbour and has itself alone.

    Args:
        table_IF: one row an item.
        k: neighbours of an item, itself among them; a list has at most I.
        keep: for the rows from start to stop, (stop - start, I) which pairs may be neighbours.
    """
    num_items = len(table_IF)
    norm_I = torch.linalg.vector_norm(table_IF, dim=1)
    unit_IF = table_IF / norm_I.clamp(min=torch.finfo(norm_I.dtype).tiny)[:, None]
    empty_I = norm_I == 0
    order_I = np.random.default_rng(_TIES_SEED).permutation(num_items)
    place_I = torch.from_numpy(order_I).to(table_IF.device)
    chunks = []
    rows = max(1, _NEAREST_CELLS // num_items)
    for start in range(0, num_items, rows):
        unit_BF = unit_IF[start : start + rows]
        # Whole numbers of at most 2^20, which float32 holds exactly.
        level_BI = (unit_BF @ unit_IF.T).mul_(_GRID).round_().float()
        if keep is not None:
            level_BI.masked_fill_(~keep(start, start + len(unit_BF)), -torch.inf)
        level_BI[:, empty_I] = -torch.inf
        level_BI[empty_I[start : start + rows]] = -torch.inf
        level_BI.diagonal(start).fill_(torch.inf)
        chunks.append(_highest(level_BI, min(k, num_items), place_I))
    return torch.cat(chunks)


def _highest(level_BI: Tensor, k: int, place_I: Tensor) -> Tensor:
    """(B, k) int64 the columns of the highest levels, equal ones by place; -1 for none."""
    num_items = level_BI.shape[1]
    best = level_BI.topk(min(k + 1, num_items), dim=1)
    value_BK, item_BK = best.values[:, :k], best.indices[:, :k]
    if k < num_items:
        # Where the cut falls between equal levels, `topk` takes either: decide those rows by place.
        last_B = value_BK[:, -1]
        tied_R = ((last_B == best.values[:, k]) & (last_B > -torch.inf)).nonzero()[:, 0]
        key_RI = level_BI[tied_R].double().mul_(num_items + 1)
        key_RI -= place_I
        item_RK = key_RI.topk(k, dim=1).indices
        value_BK[tied_R], item_BK[tied_R] = level_BI[tied_R].gather(1, item_RK), item_RK
    order_BK = (value_BK.double() * (num_items + 1) - place_I[item_BK]).argsort(
        dim=1, descending=True
    )
    return torch.where(value_BK > -torch.inf, item_BK, -1).gather(1, order_BK)


def knn(table_IF: NDArray[np.floating], k: int) -> sp.csr_array:
    """(I, I) the cosines of each item with its `nearest`, itself among them; directed.

    The cosine of an item with itself is 1, that of a zero row with itself too.
    """
    return cosines(table_IF, nearest(torch.tensor(table_IF), k).numpy())


def cosines(table_IF: NDArray[np.floating], near_IK: NDArray[np.int64]) -> sp.csr_array:
    """(I, I) the cosine of each item with the items of its list; -1 stands for no neighbour.

    In float64, each on its own: the same to the last bit whatever the machine's matrix product.
    """
    num_items, k = near_IK.shape
    cosine_IK = np.empty((num_items, k))
    norm_I = np.sqrt(np.einsum("if,if->i", table_IF, table_IF, dtype=np.float64))
    norm_I[norm_I == 0] = 1.0
    rows = max(1, _CHUNK_CELLS // max(1, k * table_IF.shape[1]))
    for start in range(0, num_items, rows):
        part = slice(start, start + rows)
        dots_BK = np.einsum("bf,bkf->bk", table_IF[part], table_IF[near_IK[part]], dtype=np.float64)
        cosine_IK[part] = dots_BK / (norm_I[part, None] * norm_I[near_IK[part]])
    own_IK = near_IK == np.arange(num_items)[:, None]
    cosine_IK[own_IK] = 1.0
    return listed(near_IK, cosine_IK)


def listed(near_IK: NDArray[np.int64], entry_IK: NDArray) -> sp.csr_array:
    """(I, I) the entry of each item at the items of its list; -1 stands for no neighbour."""
    row_E, at_E = np.nonzero(near_IK >= 0)
    entries = (entry_IK[row_E, at_E], (row_E, near_IK[row_E, at_E]))
    return sp.csr_array(entries, shape=(len(near_IK), len(near_IK)))


def ones(matrix: sp.csr_array) -> sp.csr_array:
    """The same pattern with every stored entry 1."""
    return sp.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), matrix.shape)


# --- neighbours by interactions


def co_occurrence(
    seen_NM: sp.csr_array,
    *,
    least: int = 1,
    most: int | None = None,
    ties: np.random.Generator | None = None,
) -> sp.csr_array:
    """(N, N) how many columns two rows of a binary matrix have in common; an empty diagonal.

    Args:
        seen_NM: binary, such as users by items.
        least: smaller counts are dropped.
        most: how many entries a row keeps, the largest; so the result need not be symmetric.
        ties: decides at the cut among equal counts; None prefers lower ids.
    """
    num_rows = seen_NM.shape[0]
    seen_MN = sp.csr_array(seen_NM.T)
    chunks = []
    rows = max(1, _CHUNK_CELLS // max(1, num_rows))
    for start in range(0, num_rows, rows):
        counts = sp.coo_array(seen_NM[start : start + rows] @ seen_MN)
        keep = (counts.data >= least) & (counts.row + start != counts.col)
        entries = (counts.data[keep], (counts.row[keep], counts.col[keep]))
        chunk = sp.csr_array(entries, shape=(counts.shape[0], num_rows))
        chunks.append(chunk if most is None else strongest(chunk, most, ties=ties))
    return sp.csr_array(sp.vstack(chunks, format="csr"))


def strongest(
    matrix: sp.csr_array, most: int, *, ties: np.random.Generator | None = None
) -> sp.csr_array:
    """The `most` largest stored entries of each row; a shorter row is kept whole.

    Equal entries at the cut go to lower columns, or by a lot drawn from `ties`.
    """
    entries = sp.coo_array(matrix)
    row, column, value = entries.row, entries.col, entries.data
    lot = column if ties is None else ties.permutation(len(column))
    order = np.lexsort((lot, -value, row))
    row, column, value = row[order], column[order], value[order]
    best = np.arange(len(row)) - np.searchsorted(row, row) < most
    kept = (value[best], (row[best], column[best]))
    return sp.csr_array(kept, shape=matrix.shape)


# --- pruning


def keep_likely(weight_E: Tensor, count: int, draws: torch.Generator) -> Tensor:
    """(E,) bool: `count` entries drawn one after another, each in proportion to its weight.

    As the `count` smallest of Exp(1) / weight, which has the same distribution (Efraimidis &
    Spirakis 2006) and no limit on E.

    Raises:
        ValueError: `count` is not in 1..E.
    """
    if not 1 <= count <= len(weight_E):
        raise ValueError(f"cannot keep {count} of {len(weight_E)} edges")
    wait_E = torch.empty(len(weight_E), dtype=torch.float64).exponential_(generator=draws)
    chosen = (wait_E / weight_E.double().cpu()).topk(count, largest=False, sorted=False).indices
    kept_E = torch.zeros(len(weight_E), dtype=torch.bool)
    kept_E[chosen] = True
    return kept_E

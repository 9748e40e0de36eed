"""Item graphs that change in training: a list of neighbours an item, of one length for all.

A `Graph` is constant and shared by lanes; here which items are near, and how near, are tensors.

Letters in names: I items, S slots of a list, E = I S slots in all, K neighbours, F width of what
is compared, D embedding width.
"""

from typing import Any, NamedTuple, cast

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional as F

from mmrec.graphs import apart, each_lane, nearest
from mmrec.nn.tables import rows


class NeighbourLists(NamedTuple):
    """A sparse (I, I) matrix, row by row; entries at the same place add up."""

    near_IS: Tensor
    """int64, the columns."""
    weight_IS: Tensor
    """The entries."""

    def spread(self, x_ID: Tensor) -> Tensor:
        """(I, D) the product with embeddings; differentiable in these and in the entries."""
        return cast(Tensor, _Spread.apply(self.near_IS, self.weight_IS, x_ID))


def padded(matrix: sp.csr_array, slots: int) -> NeighbourLists:
    """A constant matrix of at most `slots` entries a row; the rest are its own column, at 0."""
    length_I = np.diff(matrix.indptr)
    row_E = np.repeat(np.arange(len(length_I)), length_I)
    slot_E = np.arange(matrix.nnz) - matrix.indptr[row_E]
    near_IS = np.repeat(np.arange(len(length_I))[:, None], slots, axis=1)
    near_IS[row_E, slot_E] = matrix.indices
    weight_IS = np.zeros(near_IS.shape)
    weight_IS[row_E, slot_E] = matrix.data
    return NeighbourLists(
        torch.from_numpy(near_IS), torch.tensor(weight_IS, dtype=torch.get_default_dtype())
    )


def nearest_cosines(z_IF: Tensor, k: int) -> NeighbourLists:
    """Each row's k `mmrec.graphs.nearest` rows, the first of them itself, and their cosines.

    Which rows are near has no gradient, the cosines have. An all-zero row has itself alone, at 1;
    its list is filled up with itself, at 0.
    """
    near_IK = apart(lambda z_IF: nearest(z_IF, k), z_IF.detach())
    own_I1 = near_IK[:, :1]
    there_IK = torch.where(near_IK >= 0, near_IK, own_I1)
    unit_IF = F.normalize(z_IF, dim=1)
    cosine_IK = (unit_IF[:, None] * rows(unit_IF, there_IK)).sum(-1)
    cosine_IK = torch.where(near_IK == own_I1, 1.0, torch.where(near_IK >= 0, cosine_IK, 0.0))
    return NeighbourLists(there_IK, cosine_IK)


class _Spread(torch.autograd.Function):
    """Weighted sums of rows: `embedding_bag`, whose own gradient takes far longer on a CPU."""

    @staticmethod
    def forward(near_IS: Tensor, weight_IS: Tensor, x_ID: Tensor) -> Tensor:
        return _bags(near_IS, weight_IS, x_ID)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        (grad_ID,) = grads
        near_IS, weight_IS, x_ID = ctx.saved_tensors
        grad_IS, grad_x = None, None
        if ctx.needs_input_grad[1]:
            grad_IS = apart(_dots, near_IS, grad_ID, x_ID)
        if ctx.needs_input_grad[2]:
            grad_x = apart(_turned_bags, near_IS, weight_IS, grad_ID)
        return None, grad_IS, grad_x

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        return torch.stack([_Spread.apply(*lane) for lane in each_lane(info, in_dims, args)]), 0


def _bags(near_IS: Tensor, weight_IS: Tensor, x_ID: Tensor) -> Tensor:
    return F.embedding_bag(near_IS, x_ID, per_sample_weights=weight_IS, mode="sum")


def _turned_bags(near_IS: Tensor, weight_IS: Tensor, x_ID: Tensor) -> Tensor:
    """The product with the transpose."""
    near_E = near_IS.flatten()
    order_E = near_E.argsort(stable=True)
    count_I = torch.bincount(near_E, minlength=len(x_ID))
    return F.embedding_bag(
        order_E // near_IS.shape[1],
        x_ID,
        count_I.cumsum(0) - count_I,
        per_sample_weights=weight_IS.flatten()[order_E],
        mode="sum",
    )


def _dots(near_IS: Tensor, left_ID: Tensor, x_ID: Tensor) -> Tensor:
    """(I, S) the dot product of each row of `left_ID` with its neighbours' in `x_ID`."""
    weight_IS = left_ID.new_zeros(near_IS.shape).requires_grad_()
    with torch.enable_grad():
        out_ID = _bags(near_IS, weight_IS, x_ID.detach())
    (dots_IS,) = torch.autograd.grad(out_ID, weight_IS, left_ID)
    return dots_IS

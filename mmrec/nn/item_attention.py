"""Attention of items to items, modality by modality.

Letters in names: M modalities, I items, D width, H heads, E width of a head.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.graphs import apart, each_lane
from mmrec.nn.init import linear, xavier_uniform, zeros


class ItemAttention(nn.Module):
    """Attention of all items to all items, with several heads and neither residual nor dropout.

    Torch's `nn.MultiheadAttention` and its start; weights of items by items are never kept.
    """

    def __init__(self, dim: int, heads: int, init: torch.Generator) -> None:
        """ValueError if the heads do not divide the width."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim must be a multiple of the {heads} heads, got {dim}")
        self.heads = heads
        self.weight = xavier_uniform(3 * dim, dim, init)
        """Queries, keys, values, one below the other."""
        self.bias = zeros(3 * dim)
        self.out = linear(dim, dim, init, "default")

    def forward(self, x_MID: Tensor) -> Tensor:
        """(M, I, D), each modality by itself."""
        every = F.linear(x_MID, self.weight, self.bias).unflatten(-1, (3, self.heads, -1))
        query_MHIE, key_MHIE, value_MHIE = every.permute(2, 0, 3, 1, 4)
        found_MHIE = cast(Tensor, _Attention.apply(query_MHIE, key_MHIE, value_MHIE))
        return self.out(found_MHIE.transpose(1, 2).flatten(2))


class _Attention(torch.autograd.Function):
    """Torch's own attention, which has no rule for lanes; the way back forms it once more."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return apart(_gradients, *grads, *ctx.saved_tensors).unbind()

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        return torch.stack([_Attention.apply(*lane) for lane in each_lane(info, in_dims, args)]), 0


def _gradients(grad: Tensor, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By queries, keys and values, of one shape, in one tensor."""
    leaves = query, key, value = [x.detach().requires_grad_() for x in (query, key, value)]
    with torch.enable_grad():
        found = F.scaled_dot_product_attention(query, key, value)
    return torch.stack(torch.autograd.grad(found, leaves, grad))

"""Losses that are formed together with their derivatives, a chunk at a time.

For losses over arrays of users by items or items by items: a chunk fits the processor's cache and
may be overwritten, and autograd keeps no such array for the way back.

Letters in names: L lanes.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmrec.graphs import each_lane

_CHUNK_CELLS = 2**20
"""On a CPU: 4 MiB."""
_CHUNK_CELLS_ELSEWHERE = 2**26
"""A GPU wants few large products."""


def formed(form: Callable[..., tuple[Tensor, ...]], *args: Any) -> Tensor:
    """What `form` says its value is, differentiable once by its first arguments.

    Args:
        form: plain tensor code, whatever it overwrites. It returns its value and then, for each of
            its first arguments, a derivative: of the value if this is 0-dim, else of its entries,
            which lie along the first dimensions of argument and derivative alike.
        args: of `form`; those without a derivative get no gradient.
    """
    return cast(tuple[Tensor, ...], _Formed.apply(form, *args))[0]


def chunks(length: int, columns: int, device: torch.device) -> Iterator[slice]:
    """Slices of `length` rows, each times `columns` small enough to be worked on at once."""
    size = chunk_rows(columns, device)
    return (slice(start, start + size) for start in range(0, length, size))


def chunk_rows(columns: int, device: torch.device) -> int:
    """How many rows a chunk has."""
    cells = _CHUNK_CELLS if device.type == "cpu" else _CHUNK_CELLS_ELSEWHERE
    return max(1, cells // columns)


class _Formed(torch.autograd.Function):
    @staticmethod
    def forward(form: Callable[..., tuple[Tensor, ...]], *args: Any) -> tuple[Tensor, ...]:
        return form(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*output[1:])
        ctx.others = len(inputs) - len(output)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - what the decorator makes of it
        grad = grads[0]
        found = [
            grad.view(*grad.shape, *[1] * (slope.ndim - grad.ndim)) * slope
            for slope in ctx.saved_tensors
        ]
        return None, *found, *[None] * ctx.others

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], *args: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Lane after lane: one alone fills the cache."""
        lanes = [_Formed.apply(*lane) for lane in each_lane(info, in_dims, args)]
        parts = [torch.stack(part) for part in zip(*cast(Any, lanes), strict=True)]
        return tuple(parts), (0,) * len(parts)

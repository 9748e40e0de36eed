"""Linear maps of whole feature tables, where a training step of most models spends its time.

Letters in names: R rows, F fan-in, O fan-out, L lanes.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from mmrec.graphs import apart, each_lane

_CHUNK_ROWS = 512
"""Rows gathered at a time: at 4,096 columns 8 MB, which is still in the cache when it is used."""


def one_dnn() -> Any:
    """The product of dense CPU tensors by oneDNN, as torch's compiled code calls it; or None.

    It may have a function applied to it in the same pass, by name.
    """
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONE_DNN = one_dnn()


_LEAST = 65_000_000
"""Multiplications from which oneDNN is asked. For each new shape it builds and keeps a kernel, of
about 1 ms and 0.5 MB, so shapes that change from batch to batch must be small, or be padded."""

FEW_SHAPES = 8_000_000
"""As `_LEAST`, for callers whose shapes are few: twice as fast from 1,024 x 128 by 64."""


def times_turned(left_RF: Tensor, right_OF: Tensor, least: int = _LEAST) -> Tensor:
    """(R, O) left @ right.T, without a gradient; large ones on a CPU in float32 by oneDNN.

    At 7,050 x 4,480 by 64 on an AMD EPYC that is 11 ms against the 28 ms of MKL, which torch's
    own product uses (benchmarks/LOG.md).
    """
    plain = left_RF.device.type == "cpu" and left_RF.dtype == torch.float32
    if _ONE_DNN is not None and plain and left_RF.numel() * len(right_OF) >= least:
        # Of a slice of columns oneDNN has only a reference kernel, hundreds of times as slow.
        dense = right_OF.is_contiguous() or right_OF.T.is_contiguous()
        right_OF = right_OF if dense else right_OF.contiguous()
        return cast(Tensor, _ONE_DNN(left_RF, right_OF, None, "none", [], None))
    return left_RF @ right_OF.T


class _Map(torch.autograd.Function):
    """x @ weight.T."""

    @staticmethod
    def forward(x_RF: Tensor, weight_OF: Tensor, least: int) -> Tensor:
        return times_turned(x_RF, weight_OF, least)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        x_RF, weight_OF, ctx.least = inputs
        ctx.save_for_backward(x_RF, weight_OF)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad_RO,) = grads
        x_RF, weight_OF = ctx.saved_tensors
        grad_RF = grad_OF = None
        if ctx.needs_input_grad[0]:
            grad_RF = _Map.apply(grad_RO, weight_OF.T, ctx.least)
        if ctx.needs_input_grad[1]:
            grad_OF = _Map.apply(grad_RO.T.contiguous(), x_RF.T, ctx.least)
        return grad_RF, grad_OF, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        """Lanes that share an operand in one product, as further rows of the other."""
        x, weight, least = args
        if in_dims[0] is None:
            weight_LOF = weight.movedim(in_dims[1], 0)
            out = _Map.apply(x, weight_LOF.reshape(-1, weight_LOF.shape[-1]), least)
            return out.view(len(x), info.batch_size, -1), 1
        x_LRF = x.movedim(in_dims[0], 0)
        if in_dims[1] is None:
            out = _Map.apply(x_LRF.reshape(-1, x_LRF.shape[-1]), weight, least)
            return out.view(info.batch_size, -1, out.shape[-1]), 0
        return x_LRF @ weight.movedim(in_dims[1], 0).transpose(-1, -2), 0


class _RowsMap(torch.autograd.Function):
    """x[index] @ weight.T, without an array of the gathered rows."""

    @staticmethod
    def forward(x_IF: Tensor, index_R: Tensor, weight_OF: Tensor) -> Tensor:
        out_RO = x_IF.new_empty(len(index_R), len(weight_OF))
        for part, gathered_RF in _gathered(x_IF, index_R):
            out_RO[part] = times_turned(gathered_RF, weight_OF)[: len(out_RO[part])]
        return out_RO

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (grad_RO,) = grads
        x_IF, index_R, weight_OF = ctx.saved_tensors
        grad_IF = grad_OF = None
        if ctx.needs_input_grad[0]:
            grad_IF = apart(_rows_gradient, grad_RO, index_R, weight_OF, x_IF)
        if ctx.needs_input_grad[2]:
            grad_OF = apart(_map_gradient, grad_RO, index_R, x_IF)
        return grad_IF, None, grad_OF

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Tensor) -> tuple[Tensor, int]:
        """Lane after lane: each has rows of its own."""
        return torch.stack([_RowsMap.apply(*lane) for lane in each_lane(info, in_dims, args)]), 0


def _parts(index_R: Tensor) -> list[slice]:
    return [slice(at, at + _CHUNK_ROWS) for at in range(0, len(index_R), _CHUNK_ROWS)]


def _gathered(x_IF: Tensor, index_R: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, each lot in the memory of the last, which fills up a short one."""
    memory_RF = x_IF.new_empty(min(_CHUNK_ROWS, len(index_R)), x_IF.shape[1])
    for part in _parts(index_R):
        chosen_R = index_R[part]
        torch.index_select(x_IF, 0, chosen_R, out=memory_RF[: len(chosen_R)])
        yield part, memory_RF


def _padded(grad_RO: Tensor, part: slice) -> Tensor:
    """The rows of a part, and zeros where a short one is filled up."""
    chosen_RO = grad_RO[part]
    return F.pad(chosen_RO, (0, 0, 0, min(_CHUNK_ROWS, len(grad_RO)) - len(chosen_RO)))


def _rows_gradient(grad_RO: Tensor, index_R: Tensor, weight_OF: Tensor, x_IF: Tensor) -> Tensor:
    grad_IF = torch.zeros_like(x_IF)
    for part in _parts(index_R):
        found_RF = times_turned(_padded(grad_RO, part), weight_OF.T)
        grad_IF.index_add_(0, index_R[part], found_RF[: len(index_R[part])])
    return grad_IF


def _map_gradient(grad_RO: Tensor, index_R: Tensor, x_IF: Tensor) -> Tensor:
    grad_OF = grad_RO.new_zeros(grad_RO.shape[1], x_IF.shape[1])
    for part, gathered_RF in _gathered(x_IF, index_R):
        grad_OF += times_turned(_padded(grad_RO, part).T.contiguous(), gathered_RF.T)
    return grad_OF


def linear(
    x_RF: Tensor, weight_OF: Tensor, bias_O: Tensor | None = None, *, least: int = _LEAST
) -> Tensor:
    """(R, O) x @ weight.T + bias, differentiable, as `torch.nn.functional.linear` of matrices.

    For tables of thousands of rows or columns; see `times_turned` for what it saves, and `_LEAST`.
    """
    if x_RF.ndim != 2:
        return F.linear(x_RF, weight_OF, bias_O)
    out_RO = cast(Tensor, _Map.apply(x_RF, weight_OF, least))
    return out_RO if bias_O is None else out_RO + bias_O


def linear_rows(x_IF: Tensor, index_R: Tensor, weight_OF: Tensor) -> Tensor:
    """(R, O) `linear` of the rows of a table that an index names; differentiable once.

    The rows are gathered, used and dropped a few hundred at a time, in both directions: 5 ms
    against 8 to 24 ms for 2,870 rows of 4,096 columns, and no copy of them in memory.
    """
    return cast(Tensor, _RowsMap.apply(x_IF, index_R, weight_OF))

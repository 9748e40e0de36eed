"""Linear maps of whole feature tables, where a training step of most models spends its time.

Letters in names: R rows, F fan-in, O fan-out, L lanes.
"""

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F


def _one_dnn() -> Any:
    """The product of dense CPU tensors by oneDNN, as torch's compiled code calls it; or None."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_ONE_DNN = _one_dnn()


def times_turned(left_RF: Tensor, right_OF: Tensor) -> Tensor:
    """(R, O) left @ right.T, without a gradient; on a CPU in float32 by oneDNN.

    At 7,050 x 4,480 by 64 on an AMD EPYC that is 11 ms against the 28 ms of MKL, which torch's
    own product uses (benchmarks/LOG.md).
    """
    if _ONE_DNN is not None and left_RF.device.type == "cpu" and left_RF.dtype == torch.float32:
        # Of a slice of columns oneDNN has only a reference kernel, hundreds of times as slow.
        dense = right_OF.is_contiguous() or right_OF.T.is_contiguous()
        right_OF = right_OF if dense else right_OF.contiguous()
        return cast(Tensor, _ONE_DNN(left_RF, right_OF, None, "none", [], None))
    return left_RF @ right_OF.T


class _Map(torch.autograd.Function):
    """x @ weight.T."""

    @staticmethod
    def forward(x_RF: Tensor, weight_OF: Tensor) -> Tensor:
        return times_turned(x_RF, weight_OF)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004 - the signature is torch's
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad_RO,) = grads
        x_RF, weight_OF = ctx.saved_tensors
        grad_RF = _Map.apply(grad_RO, weight_OF.T) if ctx.needs_input_grad[0] else None
        grad_OF = _Map.apply(grad_RO.T.contiguous(), x_RF.T) if ctx.needs_input_grad[1] else None
        return grad_RF, grad_OF

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Tensor) -> tuple[Tensor, int]:
        """Lanes that share an operand in one product, as further rows of the other."""
        x, weight = args
        if in_dims[0] is None:
            weight_LOF = weight.movedim(in_dims[1], 0)
            out = _Map.apply(x, weight_LOF.reshape(-1, weight_LOF.shape[-1]))
            return out.view(len(x), info.batch_size, -1), 1
        x_LRF = x.movedim(in_dims[0], 0)
        if in_dims[1] is None:
            out = _Map.apply(x_LRF.reshape(-1, x_LRF.shape[-1]), weight)
            return out.view(info.batch_size, -1, out.shape[-1]), 0
        return x_LRF @ weight.movedim(in_dims[1], 0).transpose(-1, -2), 0


def linear(x_RF: Tensor, weight_OF: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """(R, O) x @ weight.T + bias, differentiable, as `torch.nn.functional.linear` of matrices.

    For tables of thousands of rows or columns; see `times_turned` for what it saves.
    """
    if x_RF.ndim != 2:
        return F.linear(x_RF, weight_OF, bias_O)
    out_RO = cast(Tensor, _Map.apply(x_RF, weight_OF))
    return out_RO if bias_O is None else out_RO + bias_O

"""A deep branch with batch normalisation that changes nothing in place.

Letters in names: R rows of a stack, C width of the input, D width of a layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmrec.nn import maps
from mmrec.nn.init import linear
from mmrec.nn.projections import Activation

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Batch normalisation of weighted rows (Ioffe & Szegedy 2015), torch's numbers.

    Normalises by the mean and the biased variance of the rows, each counted as often as its
    weight says; running statistics take 0.1 of the new mean and of the unbiased variance.
    """

    mean_D: Tensor
    variance_D: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_D = nn.Parameter(torch.ones(width))
        self.shift_D = nn.Parameter(torch.zeros(width))
        self.register_buffer("mean_D", torch.zeros(width))
        self.register_buffer("variance_D", torch.ones(width))

    def train_rows(self, h_RD: Tensor, weight_R: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The normalised rows, and the running statistics after them, by buffer name.

        Args:
            h_RD: the rows.
            weight_R: how often each row counts; None counts each once. With no row at all the
                running statistics stay as they are.
        """
        if weight_R is None:
            weight_R = h_RD.new_ones(len(h_RD))
        total = weight_R.sum()
        share_R = weight_R / total.clamp(min=1)
        mean_D = share_R @ h_RD
        centred_RD = h_RD - mean_D
        variance_D = share_R @ centred_RD.square()
        out_RD = self._scaled(centred_RD, variance_D)
        unbiased_D = variance_D.detach() * (total / (total - 1).clamp(min=1))
        step = MOMENTUM * (total > 0)
        return out_RD, {
            "mean_D": self.mean_D + step * (mean_D.detach() - self.mean_D),
            "variance_D": self.variance_D + step * (unbiased_D - self.variance_D),
        }

    def forward(self, h_RD: Tensor) -> Tensor:
        """The rows normalised by the running statistics."""
        return self._scaled(h_RD - self.mean_D, self.variance_D)

    def _scaled(self, centred_RD: Tensor, variance_D: Tensor) -> Tensor:
        return centred_RD * (self.scale_D * (variance_D + EPSILON).rsqrt()) + self.shift_D


class BranchShape(NamedTuple):
    """What a branch looks like; the names and meanings of SiBraR's released options."""

    widths: tuple[int, ...]
    """Input, hidden and output widths."""
    activation: Activation
    """Between linear maps, and after the last one if `output_activation`."""
    output_activation: bool
    norm_every: int | None
    """Batch normalisation after every n-th linear map, before its activation. 0: once, after all
    else; -1: once, after the last linear map; None: nowhere."""


class Branch(nn.Module):
    """Linear maps with activations and batch normalisation between them.

    Weights and biases start as torch's own linear layers do, U(+-1 / sqrt(fan-in)), as released.
    """

    def __init__(self, shape: BranchShape, init: torch.Generator) -> None:
        super().__init__()
        self.activation = shape.activation
        self.output_activation = shape.output_activation
        steps = list(zip(shape.widths, shape.widths[1:], strict=False))
        self.linears = nn.ModuleList(linear(a, b, init, "default") for a, b in steps)
        places = _norm_places(len(steps), shape.norm_every)
        self.norms = nn.ModuleDict(
            {place: BatchNorm(steps[at - 1][1]) for place, at in places.items()}
        )

    def train_rows(
        self, h_RC: Tensor, weight_R: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(R, D) outputs under the stack's own statistics, and new running statistics by name."""
        buffers: dict[str, Tensor] = {}

        def normalise(place: str, h_RD: Tensor) -> Tensor:
            norm = self.norms[place]
            assert isinstance(norm, BatchNorm)
            out_RD, new = norm.train_rows(h_RD, weight_R)
            buffers.update({f"norms.{place}.{name}": value for name, value in new.items()})
            return out_RD

        return self._run(h_RC, normalise), buffers

    def forward(self, h_RC: Tensor) -> Tensor:
        """(R, D) outputs under the running statistics."""
        return self._run(h_RC, lambda place, h_RD: self.norms[place](h_RD))

    def _run(self, h: Tensor, normalise: Callable[[str, Tensor], Tensor]) -> Tensor:
        last = len(self.linears)
        for at, layer in enumerate(self.linears, 1):
            assert isinstance(layer, nn.Linear)
            h = maps.linear(h, layer.weight, layer.bias, least=maps.FEW_SHAPES)
            if str(at) in self.norms:
                h = normalise(str(at), h)
            if at < last or self.output_activation:
                h = self.activation(h)
        return normalise("end", h) if "end" in self.norms else h


def _norm_places(depth: int, every: int | None) -> dict[str, int]:
    """Where normalisation stands, and the 1-based linear map whose width it has."""
    if every is None:
        return {}
    if every == 0:
        return {"end": depth}
    if every == -1:
        return {str(depth): depth}
    return {str(at): at for at in range(every, depth + 1, every)}

"""DREAM, by which MambaRec refines a modality: views of several scales, weighed in two ways.

Ren et al., CIKM 2025. An item is a map of C channels on H x W positions, x its features there, N
batch normalisation of each channel over items and positions:

    views      v_b = relu(N(K_b * x)), K_b a 1 x 1 convolution, then one of 3 x 3 for each dilation,
               zeros beyond the map's edge; and relu(N(K x)) of the map's mean, at every position
    all        F = [v_1, ...], (2 + dilations) C channels
    weighed    A = F max(M_c, M_s)
    out        relu(N(L A))

Described, M_c = s(W_2 relu(W_1 z)), with z the mean of F over positions, is a weight a channel, by
way of C / 2 units, 8 at least; M_s = s(w mean_c F), w one number, is a weight a position. Released,
M_c = relu(a . z) is one number an item, M_s = s(b . F) a weight a position, and L is given A * F.
Where M_s is the larger for every item, as it may be from the start, M_c never learns.

The max stands for the larger of F M_c and F M_s, as F is never negative. Convolutions have no
biases: the mean that normalisation subtracts holds them. Nor have the weights, as in the release.

A convolution of maps so small is a matrix, and is multiplied as one. A tap that meets no position
of the map, as 8 of 9 do where the map is one position, would never learn: it does not exist, and
the others start as if it did.

Letters in names: I items, D width of an item's features (C H W), C channels, K channels of all
views, H of the bottleneck, P and Q positions of the map, T taps, R items and positions.
"""

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import Literal, cast

import torch
from torch import Tensor, nn

from mmrec.nn.branch import MOMENTUM, BatchNorm
from mmrec.nn.init import uniform
from mmrec.nn.maps import linear
from mmrec.nn.tables import Constant

Attention = Literal["both", "channel", "spatial", "none"]
LEAST_UNITS = 8
"""Of a described bottleneck: fewer may all be 0 for every item, and then never learn."""


class Convolution(nn.Module):
    """A convolution of 3 x 3 taps that are `dilation` apart, or of one, without a bias."""

    def __init__(
        self, channels: int, size: tuple[int, int], dilation: int | None, init: torch.Generator
    ) -> None:
        """Of maps of a size; without a `dilation` the one tap is each position's own."""
        super().__init__()
        height, width = size
        steps = (0,) if dilation is None else (-dilation, 0, dilation)
        reached = [(y, x) for y, x in product(steps, steps) if abs(y) < height and abs(x) < width]
        # Of the taps that do not exist too: they count in the fan-in.
        bound = (channels * len(steps) ** 2) ** -0.5
        self.tap_TCC = uniform((len(reached), channels, channels), bound, init)
        shifts = [torch.kron(_shift(height, y), _shift(width, x)) for y, x in reached]
        self.shift_TPQ = Constant(torch.stack(shifts))

    def matrix(self) -> Tensor:
        """(P, C, C, Q) by which all channels at all positions make each channel at each."""
        return torch.einsum("toc,tpq->pocq", self.tap_TCC, self.shift_TPQ.value)


def _shift(length: int, step: int) -> Tensor:
    """(length, length) what takes to each place the value `step` places on, or 0 beyond the end."""
    return torch.diag(torch.ones(length - abs(step)), step)


class DREAM(nn.Module):
    """The refinement of all items in one modality."""

    def __init__(
        self,
        dim: int,
        init: torch.Generator,
        *,
        released: bool,
        attention: Attention = "both",
        shape: Sequence[int] = (),
        dilations: Sequence[int] = (6, 12, 18),
    ) -> None:
        """Of features of width `dim`.

        Args:
            dim: D.
            init: where the weights are drawn.
            released: as the authors' code weighs, or as the paper describes it.
            attention: which of the two weights there are; without any, A = F.
            shape: (C, H, W), in which order the features fill a map; () is (D, 1, 1).
            dilations: of the 3 x 3 convolutions.

        Raises:
            ValueError: the shape is not three numbers, or its product is not `dim`.
        """
        super().__init__()
        shape = tuple(shape) or (dim, 1, 1)
        if len(shape) != 3 or prod(shape) != dim:
            raise ValueError(
                f"spatial_shape {shape} does not fit dim={dim}: it must be () or three numbers"
                f" (channels, height, width) whose product is {dim}"
            )
        channels, height, width = shape
        self.channels, self.positions, self.released = channels, height * width, released
        self.views = nn.ModuleList(
            Convolution(channels, (height, width), d, init) for d in (None, *dilations)
        )
        self.mean_CC = uniform((channels, channels), channels**-0.5, init)
        seen = len(self.views) * channels
        every = seen + channels
        self.view_norm, self.mean_norm = BatchNorm(seen), BatchNorm(channels)
        self.out_CK = uniform((channels, every), every**-0.5, init)
        self.out_norm = BatchNorm(channels)
        self.channel = self.spatial = None
        if attention in ("both", "channel"):
            self.channel = ChannelWeights(channels, every, released, init)
        if attention in ("both", "spatial"):
            self.spatial = SpatialWeights(every, released, init)

    def train_rows(self, x_ID: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(I, D) under these items' own statistics, and new running statistics by buffer name.

        The release computes all this twice a step, to the same numbers, and so its running
        statistics take two steps where ours take one: released, they are brought as far.
        """
        buffers: dict[str, Tensor] = {}

        def normalise(name: str, h_RC: Tensor) -> Tensor:
            norm = cast(BatchNorm, getattr(self, name))
            out_RC, new = norm.train_rows(h_RC, None)
            for kind, value in new.items():
                old = getattr(norm, kind)
                if self.released:
                    value = old + (2 - MOMENTUM) * (value - old)
                buffers[f"{name}.{kind}"] = value
            return out_RC

        return self._run(x_ID, normalise), buffers

    def forward(self, x_ID: Tensor) -> Tensor:
        """(I, D) under the running statistics."""
        return self._run(x_ID, lambda name, h_RC: getattr(self, name)(h_RC))

    def _run(self, x_ID: Tensor, normalise: Callable[[str, Tensor], Tensor]) -> Tensor:
        items, channels, positions = len(x_ID), self.channels, self.positions
        of_view = [cast(Convolution, view).matrix() for view in self.views]
        matrix = torch.cat(of_view, 1).flatten(2).flatten(0, 1)
        seen_RC = linear(x_ID, matrix).view(items * positions, -1)
        seen_IPC = normalise("view_norm", seen_RC).relu().view(items, positions, -1)
        mean_IC = linear(x_ID.view(items, channels, positions).mean(2), self.mean_CC)
        mean_IC = normalise("mean_norm", mean_IC).relu()
        view_IPK = torch.cat((seen_IPC, mean_IC[:, None].expand(-1, positions, -1)), 2)
        weighed_IPK = self._weighed(view_IPK)
        if self.released:
            weighed_IPK = weighed_IPK * view_IPK
        out_RC = linear(weighed_IPK.flatten(0, 1), self.out_CK)
        out_RC = normalise("out_norm", out_RC).relu()
        return out_RC.view(items, positions, channels).transpose(1, 2).flatten(1)

    def _weighed(self, view_IPK: Tensor) -> Tensor:
        given = [weigh(view_IPK) for weigh in (self.channel, self.spatial) if weigh is not None]
        if len(given) == 2:
            return torch.maximum(*given) * view_IPK
        return given[0] * view_IPK if given else view_IPK


class ChannelWeights(nn.Module):
    """A weight for each channel of an item, or released for all of them, the same everywhere."""

    def __init__(self, channels: int, every: int, released: bool, init: torch.Generator) -> None:
        super().__init__()
        narrow = 1 if released else max(LEAST_UNITS, channels // 2)
        self.inner_HK = uniform((narrow, every), every**-0.5, init)
        self.outer_KH = None if released else uniform((every, narrow), narrow**-0.5, init)

    def forward(self, view_IPK: Tensor) -> Tensor:
        """(I, 1, K), released (I, 1, 1)."""
        inner_IH = linear(view_IPK.mean(1), self.inner_HK).relu()
        if self.outer_KH is None:
            return inner_IH[:, None]
        return linear(inner_IH, self.outer_KH).sigmoid()[:, None]


class SpatialWeights(nn.Module):
    """A weight for each position of an item, the same for all channels."""

    def __init__(self, every: int, released: bool, init: torch.Generator) -> None:
        super().__init__()
        self.released = released
        read = every if released else 1
        self.read_1K = uniform((1, read), read**-0.5, init)

    def forward(self, view_IPK: Tensor) -> Tensor:
        """(I, P, 1)."""
        if not self.released:
            return (view_IPK.mean(2, keepdim=True) * self.read_1K).sigmoid()
        items, positions, _ = view_IPK.shape
        return linear(view_IPK.flatten(0, 1), self.read_1K).view(items, positions, 1).sigmoid()

"""The layers of `mmrec.nn.t5`, which says where they come from.

Letters in names: B rows, A tokens that attend, C tokens attended to, S source positions, D width, H
heads, E width of a head, G = B x H rows of heads, F hidden width of the feed-forward, L layers, R
buckets of distance.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.nn import maps
from mmrec.nn.init import normal
from mmrec.nn.tables import rows

BUCKETS = 32
"""Of distances: one each for short ones, the others on a logarithmic scale."""
FARTHEST = 128
"""Distances from which on all share the last bucket."""
EPSILON = 1e-6
VECTOR = 16
"""Floats of a vector of AVX-512."""


class T5Shape(NamedTuple):
    """Sizes of a model; `heads * head_dim` need not be `dim`."""

    dim: int
    heads: int
    head_dim: int
    ff: int
    encoder_layers: int
    decoder_layers: int


class Pair(NamedTuple):
    """What attention reads."""

    key: Tensor
    """(G, C, E)."""
    value: Tensor
    """(G, C, E)."""

    def and_then(self, later: "Pair") -> "Pair":
        """These, and others after them."""
        return Pair(torch.cat((self.key, later.key), 1), torch.cat((self.value, later.value), 1))


class Source(NamedTuple):
    """What a decoder attends to."""

    pairs: list[Pair]
    """By layer."""
    bias_GAS: Tensor
    """Added to scores of attention."""


class Masks(NamedTuple):
    """A stack's part of what dropout keeps."""

    sums: Tensor
    """(B, 1 + sublayers, A, D)."""
    hidden: Tensor
    """(B, L, A, F)."""

    @classmethod
    def of(cls, kept: Mapping[str, Tensor], stack: str) -> "Masks | None":
        """None where nothing is dropped."""
        return cls(kept[f"{stack}_sums"], kept[f"{stack}_hidden"]) if kept else None


class Stack(nn.Module):
    """The layers of an encoder, or of a decoder, which attend to a source too."""

    def __init__(
        self, shape: T5Shape, layers: int, scale: float, init: torch.Generator, *, cross: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        """Of what dropout keeps."""
        self.near_RH = normal((BUCKETS, shape.heads), shape.dim**-0.5, init)
        """By bucket of distance, added to scores of attention."""
        self.own = nn.ModuleList()
        self.cross = nn.ModuleList()
        self.feed = nn.ModuleList()
        for _ in range(layers):
            self.own.append(Attention(shape, init))
            if cross:
                self.cross.append(Attention(shape, init))
            self.feed.append(FeedForward(shape, init))
        self.norm_D = nn.Parameter(torch.ones(shape.dim))

    @property
    def sublayers(self) -> int:
        return len(self.own) + len(self.cross) + len(self.feed)

    def near(self, distance: Tensor, *, both_ways: bool) -> Tensor:
        """(H, ...) the bias for each distance, which is positive where what is read comes after."""
        bucket = _bucket(distance, both_ways=both_ways)
        return rows(self.near_RH, bucket).movedim(-1, 0)

    def source(self, state_BSD: Tensor) -> list[Pair]:
        """By layer, keys and values of a source."""
        return [cast(Attention, layer).pair(state_BSD) for layer in self.cross]

    def forward(
        self,
        x_BAD: Tensor,
        bias_GAC: Tensor,
        masks: Masks | None,
        source: Source | None = None,
        before: list[Pair] | None = None,
    ) -> Tensor:
        """(B, A, D) normalised states.

        Args:
            x_BAD: embedded tokens.
            bias_GAC: added to scores of attention to C tokens: A, or those of `before` and A more.
            masks: what dropout keeps; None keeps all.
            source: what a decoder attends to.
            before: by layer, keys and values of tokens before these; these are added to them.
        """
        kept = iter(masks.sums.unbind(1)) if masks else None

        def dropped(sum_BAD: Tensor) -> Tensor:
            return _dropped(sum_BAD, next(kept), self.scale) if kept else sum_BAD

        x_BAD = dropped(x_BAD)
        for layer in range(len(self.own)):
            own = cast(Attention, self.own[layer])
            query, pair = own.all(x_BAD)
            if before is not None:
                pair = before[layer] = before[layer].and_then(pair)
            x_BAD = x_BAD + dropped(own.read(query, pair, bias_GAC))
            if source is not None:
                cross = cast(Attention, self.cross[layer])
                found_BAD = cross.read(cross.query(x_BAD), source.pairs[layer], source.bias_GAS)
                x_BAD = x_BAD + dropped(found_BAD)
            feed = cast(FeedForward, self.feed[layer])
            hidden_BAF = feed.hidden(x_BAD)
            if masks:
                hidden_BAF = _dropped(hidden_BAF, masks.hidden[:, layer], self.scale)
            x_BAD = x_BAD + dropped(mapped(hidden_BAF, feed.narrow_DF))
        return _normed(x_BAD, self.norm_D)


class Attention(nn.Module):
    """Attention with several heads, normalisation before it."""

    def __init__(self, shape: T5Shape, init: torch.Generator) -> None:
        super().__init__()
        dim, inner = shape.dim, shape.heads * shape.head_dim
        self.heads, self.inner = shape.heads, inner
        self.norm_D = nn.Parameter(torch.ones(dim))
        query = normal((inner, dim), (dim * shape.head_dim) ** -0.5, init)
        pair = normal((2 * inner, dim), dim**-0.5, init)
        self.into_CD = nn.Parameter(torch.cat((query, pair)).detach())
        """(3 H E, D) queries, keys, values, one below the other."""
        self.out_DC = normal((dim, inner), inner**-0.5, init)

    def all(self, x_BAD: Tensor) -> tuple[Tensor, Pair]:
        """Queries (G, A, E), keys and values of tokens that attend to each other."""
        every = mapped(_normed(x_BAD, self.norm_D), self.into_CD)
        query, key, value = map(self._heads, every.split(self.inner, -1))
        return query, Pair(key, value)

    def query(self, x_BAD: Tensor) -> Tensor:
        """(G, A, E) of tokens that attend to a source."""
        return self._heads(mapped(_normed(x_BAD, self.norm_D), self.into_CD[: self.inner]))

    def pair(self, state_BSD: Tensor) -> Pair:
        """Keys and values of a source, which is not normalised here."""
        both = mapped(state_BSD, self.into_CD[self.inner :])
        return Pair(*map(self._heads, both.split(self.inner, -1)))

    def read(self, query_GAE: Tensor, pair: Pair, bias_GAC: Tensor) -> Tensor:
        """(B, A, D) what is found."""
        score_GAC = torch.baddbmm(bias_GAC, query_GAE, pair.key.transpose(1, 2))
        found_GAE = torch.bmm(_softmax(score_GAC), pair.value)
        found_BHAE = found_GAE.unflatten(0, (-1, self.heads))
        return mapped(found_BHAE.transpose(1, 2).flatten(2), self.out_DC)

    def _heads(self, x_BAC: Tensor) -> Tensor:
        """(G, A, E), the heads apart."""
        return x_BAC.unflatten(-1, (self.heads, -1)).transpose(1, 2).flatten(0, 1)


class FeedForward(nn.Module):
    """Two maps with a ReLU between, normalisation before them."""

    def __init__(self, shape: T5Shape, init: torch.Generator) -> None:
        super().__init__()
        self.norm_D = nn.Parameter(torch.ones(shape.dim))
        self.wide_FD = normal((shape.ff, shape.dim), shape.dim**-0.5, init)
        self.narrow_DF = normal((shape.dim, shape.ff), shape.ff**-0.5, init)

    def hidden(self, x_BAD: Tensor) -> Tensor:
        """(B, A, F)."""
        return mapped(_normed(x_BAD, self.norm_D), self.wide_FD).relu()


def mapped(x_BAC: Tensor, weight_DC: Tensor) -> Tensor:
    """(B, A, D) x @ weight.T; batches, lengths and beams give few shapes."""
    flat = maps.linear(x_BAC.flatten(0, -2), weight_DC, least=maps.FEW_SHAPES)
    return flat.view(*x_BAC.shape[:-1], len(weight_DC))


def _normed(x_BAD: Tensor, weight_D: Tensor) -> Tensor:
    """`weight * x / sqrt(mean(x^2) + epsilon)` (Zhang & Sennrich, NeurIPS 2019)."""
    return weight_D * (x_BAD * (x_BAD.square().mean(-1, keepdim=True) + EPSILON).rsqrt())


def _softmax(score_GAC: Tensor) -> Tensor:
    """Over the last dimension, on a CPU padded to as many entries as torch's vectors hold.

    Rows of 15 it takes one by one: 3.7 ms against the 0.3 ms of 1,024 x 20 rows of 16.
    """
    short = VECTOR - score_GAC.shape[-1]
    if short <= 0 or score_GAC.device.type != "cpu":
        return score_GAC.softmax(-1)
    return F.pad(score_GAC, (0, short), value=-torch.inf).softmax(-1)[..., :-short]


def _dropped(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    """What dropout keeps, scaled so that the mean stays; scaling the mask is the faster order."""
    return x * (kept.to(x.dtype) * scale)


def _bucket(distance: Tensor, *, both_ways: bool) -> Tensor:
    """T5's bucket of a distance: half of them for single steps, half on a logarithmic scale.

    Both ways, those that come after have half of the buckets for their own; else they count as 0.
    """
    buckets, first = BUCKETS, torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first = torch.where(distance > 0, buckets, 0)
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    single = buckets // 2
    share = torch.log(distance.clamp(min=1).float() / single) / math.log(FARTHEST / single)
    wide = single + (share * (buckets - single)).long()
    return first + torch.where(distance < single, distance, wide.clamp(max=buckets - 1))

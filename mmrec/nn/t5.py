"""A compact encoder-decoder Transformer in T5's form, for short sequences of few kinds of tokens.

Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
JMLR 21, 2020; the numbers of transformers' `T5ForConditionalGeneration` (v1.0: a ReLU between the
two maps of the feed-forward, tied embeddings), which tests hold it to.

    x = x + sublayer(norm(x)),  norm(x) = weight * x / sqrt(mean(x^2) + 1e-6)

No map has a bias, attention is not divided by sqrt(E), and instead of positions a learned bias for
each head and bucket of distance is added to a stack's own attention, one table a stack.

Departures: dropout falls on the embedded input, on the output of each sublayer and inside the
feed-forward; on the probabilities of attention and after the last norm there is none. Its masks are
drawn before the step (`T5.draw_dropout`), torch's own dropout is never used. States of padding are
zero after the encoder, so that a row with nothing but padding is read as zero rather than as its
padding. Weights of queries, keys and values are one matrix.

Letters in names: V tokens of the vocabulary, D width, B rows, S source positions, T target
positions, H heads, E width of a head, G = B x H rows of heads, F hidden width of the feed-forward,
L layers, K beams a row, N tokens of all beams so far, A and C any other lengths.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mmrec.nn import maps
from mmrec.nn.init import normal
from mmrec.nn.tables import rows

BUCKETS = 32
"""Of distances: one each for short ones, the others on a logarithmic scale."""
FARTHEST = 128
"""Distances from which on all share the last bucket."""
EPSILON = 1e-6
RESOLUTION = 2**16
"""A dropout rate is a multiple of 1 / 65,536: masks are compared as 16 random bits, which takes a
third of the time of random floats."""


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


@dataclass
class Decoding:
    """What has been decoded so far, and what every step reads again. `T5.step` changes it.

    Tokens of all beams of a row stand beside each other in the order of steps, and each beam knows
    which of them are its own: nothing is copied when beams change places.
    """

    source: list[Pair]
    """By layer, S positions long."""
    real_BS: Tensor
    before: list[Pair]
    """By layer, N tokens long."""
    seen_BKN: Tensor
    """Which tokens a beam consists of, bool."""
    position_N: Tensor
    """Their positions, int64."""
    steps: int = 0


class T5(nn.Module):
    """An encoder, a decoder and the one table that both embed tokens by and that logits are of.

    Weights start as T5's: embeddings from N(0, 1), the others from normal distributions whose
    deviations are 1 / sqrt(the width they sum over), but queries 1 / sqrt(D E), which stands in for
    the division that attention leaves out.
    """

    def __init__(
        self, vocabulary: int, shape: T5Shape, dropout: float, init: torch.Generator
    ) -> None:
        """ValueError if a size is below 1 or the dropout rate is outside [0, 1)."""
        super().__init__()
        small = [f"{name} = {size}" for name, size in shape._asdict().items() if size < 1]
        if vocabulary < 1 or small:
            raise ValueError(f"sizes must be 1 or more, got vocabulary = {vocabulary}, {small}")
        self.shape = shape
        self.dropped = round(dropout * RESOLUTION)
        """Of `RESOLUTION` entries, how many dropout takes away on average."""
        if not 0 <= self.dropped < RESOLUTION:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.token_VD = normal((vocabulary, shape.dim), 1.0, init)
        scale = RESOLUTION / (RESOLUTION - self.dropped)
        self.encoder = Stack(shape, shape.encoder_layers, scale, init, cross=False)
        self.decoder = Stack(shape, shape.decoder_layers, scale, init, cross=True)

    def draw_dropout(
        self, rows: int, source: int, target: int, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """Which entries dropout keeps in one step, bool; empty where the rate is 0.

        `encoder_sums` (B, 1 + 2 L, S, D) for the embedded input and each sublayer's output,
        `encoder_hidden` (B, L, S, F) inside the feed-forward; `decoder_sums` (B, 1 + 3 L, T, D) and
        `decoder_hidden` (B, L, T, F). They are drawn on the generator's device.

        Args:
            rows: B.
            source: S; 0 if nothing is encoded.
            target: T; 0 if nothing is decoded.
            rng: where they are drawn.
        """
        if not self.dropped:
            return {}
        kept = {}
        for name, stack, length in (
            ("encoder", self.encoder, source),
            ("decoder", self.decoder, target),
        ):
            if length:
                sums = (rows, 1 + stack.sublayers, length, self.shape.dim)
                hidden = (rows, len(stack.feed), length, self.shape.ff)
                kept[f"{name}_sums"] = _kept(sums, self.dropped, rng)
                kept[f"{name}_hidden"] = _kept(hidden, self.dropped, rng)
        return kept

    def encode(self, token_BS: Tensor, real_BS: Tensor, kept: Mapping[str, Tensor] = {}) -> Tensor:
        """(B, S, D) states of a source, zero where it is padding.

        Args:
            token_BS: int64, any token where there is padding.
            real_BS: what is no padding, bool; padding may stand anywhere.
            kept: what `draw_dropout` gave; nothing is dropped by default.
        """
        length = token_BS.shape[1]
        near_HSS = self.encoder.near(_distances(length, token_BS.device), both_ways=True)
        bias_BHSS = near_HSS + _hidden(real_BS, near_HSS.dtype)[:, None, None]
        masks = Masks.of(kept, "encoder")
        state_BSD = self.encoder(rows(self.token_VD, token_BS), bias_BHSS.flatten(0, 1), masks)
        return state_BSD.masked_fill(~real_BS[..., None], 0.0)

    def decode(
        self, token_BT: Tensor, state_BSD: Tensor, real_BS: Tensor, kept: Mapping[str, Tensor] = {}
    ) -> Tensor:
        """(B, T, D) states of a target, each from the tokens up to its own and from the source.

        Args:
            token_BT: the decoder's input, int64: a token that begins, then the target.
            state_BSD: what `encode` gave.
            real_BS: as there.
            kept: as there.
        """
        batch, length = token_BT.shape
        distance_TT = _distances(length, token_BT.device)
        near_HTT = self.decoder.near(distance_TT, both_ways=False)
        near_HTT = near_HTT + _hidden(distance_TT <= 0, near_HTT.dtype)
        return self.decoder(
            rows(self.token_VD, token_BT),
            near_HTT.expand(batch, -1, -1, -1).flatten(0, 1),
            Masks.of(kept, "decoder"),
            self._source(self.decoder.source(state_BSD), real_BS, length),
        )

    def logits(self, state: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """(..., last - first) of some tokens after a state (..., D), by default of all.

        Divided by sqrt(D), as T5 does where embeddings are tied.
        """
        flat_AD = state.flatten(0, -2)
        logit_AC = _linear(flat_AD * self.shape.dim**-0.5, self.token_VD[first:last])
        return logit_AC.view(*state.shape[:-1], logit_AC.shape[-1])

    def start(self, state_BSD: Tensor, real_BS: Tensor) -> Decoding:
        """Nothing decoded yet. Keys and values of the source are computed here, once a row."""
        batch = len(state_BSD)
        none_G0E = state_BSD.new_empty(batch * self.shape.heads, 0, self.shape.head_dim)
        return Decoding(
            source=self.decoder.source(state_BSD),
            real_BS=real_BS,
            before=[Pair(none_G0E, none_G0E)] * self.shape.decoder_layers,
            seen_BKN=real_BS.new_empty(batch, 1, 0, dtype=torch.bool),
            position_N=torch.empty(0, dtype=torch.int64, device=state_BSD.device),
        )

    def step(self, token_BK: Tensor, decoding: Decoding, parent_BK: Tensor | None) -> Tensor:
        """(B, K, D) what `decode` gives at one more position, of K beams a row.

        Args:
            token_BK: the next token of each beam, at first the one that begins.
            decoding: what came before; this step is added to it.
            parent_BK: which of the beams of the step before each continues, int64. None: beam k
                the beam k, or at first nothing.
        """
        batch, beams = token_BK.shape
        bias_BHKN = self._continued(decoding, parent_BK, batch, beams)
        return self.decoder(
            rows(self.token_VD, token_BK),
            bias_BHKN.flatten(0, 1),
            None,
            self._source(decoding.source, decoding.real_BS, beams),
            decoding.before,
        )

    def _continued(
        self, decoding: Decoding, parent_BK: Tensor | None, batch: int, beams: int
    ) -> Tensor:
        """(B, H, K, N) the bias of K new tokens to all, themselves among them."""
        seen_BKN = decoding.seen_BKN
        if parent_BK is not None:
            seen_BKN = seen_BKN.gather(1, parent_BK[..., None].expand(-1, -1, seen_BKN.shape[2]))
        itself_KK = torch.eye(beams, dtype=torch.bool, device=seen_BKN.device)
        seen_BKN = torch.cat((seen_BKN.expand(-1, beams, -1), itself_KK.expand(batch, -1, -1)), 2)
        step = decoding.steps
        here_K = decoding.position_N.new_full((beams,), step)
        position_N = torch.cat((decoding.position_N, here_K))
        decoding.seen_BKN, decoding.position_N, decoding.steps = seen_BKN, position_N, step + 1
        near_HN = self.decoder.near(position_N - step, both_ways=False)
        return near_HN[:, None] + _hidden(seen_BKN, near_HN.dtype)[:, None]

    def _source(self, pairs: list[Pair], real_BS: Tensor, readers: int) -> Source:
        """Padding is hidden from each of as many readers a row."""
        bias_BS = _hidden(real_BS, self.token_VD.dtype)
        bias_BHAS = bias_BS[:, None, None].expand(-1, self.shape.heads, readers, -1)
        return Source(pairs, bias_BHAS.flatten(0, 1))


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
            x_BAD = x_BAD + dropped(_linear(hidden_BAF, feed.narrow_DF))
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
        every = _linear(_normed(x_BAD, self.norm_D), self.into_CD)
        query, key, value = map(self._heads, every.split(self.inner, -1))
        return query, Pair(key, value)

    def query(self, x_BAD: Tensor) -> Tensor:
        """(G, A, E) of tokens that attend to a source."""
        return self._heads(_linear(_normed(x_BAD, self.norm_D), self.into_CD[: self.inner]))

    def pair(self, state_BSD: Tensor) -> Pair:
        """Keys and values of a source, which is not normalised here."""
        both = _linear(state_BSD, self.into_CD[self.inner :])
        return Pair(*map(self._heads, both.split(self.inner, -1)))

    def read(self, query_GAE: Tensor, pair: Pair, bias_GAC: Tensor) -> Tensor:
        """(B, A, D) what is found."""
        weight_GAC = torch.baddbmm(bias_GAC, query_GAE, pair.key.transpose(1, 2)).softmax(-1)
        found_GAE = torch.bmm(weight_GAC, pair.value)
        found_BHAE = found_GAE.unflatten(0, (-1, self.heads))
        return _linear(found_BHAE.transpose(1, 2).flatten(2), self.out_DC)

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
        return _linear(_normed(x_BAD, self.norm_D), self.wide_FD).relu()


def _linear(x_BAC: Tensor, weight_DC: Tensor) -> Tensor:
    """(B, A, D) x @ weight.T; batches, lengths and beams give few shapes."""
    flat = maps.linear(x_BAC.flatten(0, -2), weight_DC, least=maps.FEW_SHAPES)
    return flat.view(*x_BAC.shape[:-1], len(weight_DC))


def _normed(x_BAD: Tensor, weight_D: Tensor) -> Tensor:
    """`weight * x / sqrt(mean(x^2) + epsilon)` (Zhang & Sennrich, NeurIPS 2019)."""
    return weight_D * (x_BAD * (x_BAD.square().mean(-1, keepdim=True) + EPSILON).rsqrt())


def _dropped(x: Tensor, kept: Tensor, scale: float) -> Tensor:
    """What dropout keeps, scaled so that the mean stays; the product of masks is the fast order."""
    return x * (kept * scale)


def _kept(size: tuple[int, ...], dropped: int, rng: torch.Generator) -> Tensor:
    """Bool of a size, False in `dropped` of `RESOLUTION` cases."""
    count = math.prod(size)
    bits = torch.empty(-(-count // 4), dtype=torch.int64, device=rng.device)
    bits.random_(-(2**63), None, generator=rng)
    return (bits.view(torch.int16)[:count] >= dropped - RESOLUTION // 2).view(size)


def _hidden(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """Added to scores of attention: 0 where something may be seen, else the lowest number.

    Not minus infinity: where nothing may be seen all of it is then seen alike, not NaN.
    """
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(
        ~seen, torch.finfo(dtype).min
    )


def _distances(length: int, device: torch.device) -> Tensor:
    """(A, A) how far the position of a column comes after that of a row."""
    position_A = torch.arange(length, device=device)
    return position_A - position_A[:, None]


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

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

import torch
from torch import Tensor, nn

from mmrec.nn.init import normal
from mmrec.nn.t5_layers import Masks, Pair, Source, Stack, T5Shape, mapped
from mmrec.nn.tables import rows

RESOLUTION = 2**16
"""A dropout rate is a multiple of 1 / 65,536: masks are compared as 16 random bits, which takes a
third of the time of random floats."""


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
        logit_AC = mapped(flat_AD * self.shape.dim**-0.5, self.token_VD[first:last])
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

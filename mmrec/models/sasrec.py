"""SASRec: what comes next, by causal self-attention over what a user had before; IDs alone.

Kang & McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, and its authors' TensorFlow
code. With x_t the t-th of a user's latest items, M the items' table, P a learned position, N layer
normalisation, A causal attention of queries to keys and values over sqrt(width of a head), F the
point-wise W_2 relu(W_1 x + b_1) + b_2, a block's two steps are, by `variant`,

    described    x = x + A(N(x), N(x)),  x = x + F(N(x)),  from x_t = M[i_t] + P[t]
    released     x = N(x) + A(N(x), x),  x = N(x) + F(N(x)),  from x_t = sqrt(d) M[i_t] + P[t]

and a score is the dot product of N(x_t), after the last block, and a row of M. The first is the
paper's eqs. 1 to 6 and its g(x) = x + Dropout(g(N(x))). The code normalises the queries alone,
starts each residual at the NORMALISED input, scales the items, adds biases to queries and values,
and drops attention weights and F's hidden units in place of A's output; in both, dropout acts on
x_1 ... and on F's output too. In neither do heads have a map behind them.

`loss="bce"` is the paper's: each position's next item against items that the user has not met, one
a position (`train.negatives`; of several, the sum). `loss="softmax"` is cross-entropy over all
items, with which SASRec is the stronger baseline (Klenitskiy & Vasilev, RecSys 2023; that one
negative makes scores overconfident: Petrov & Macdonald, RecSys 2023). Either is the mean over the
batch's positions, as released.

A batch is `train.batch_size` users, each with the latest `history` + 1 training items. As released,
positions count from the latest item. Most sequences are far shorter than `history`, so several lie
side by side in a row and do not see each other: the numbers are those of one padded row each.

Departures: an epoch meets every user with two or more training items once, where the release draws
as many users with replacement; negatives are training items; Adam has torch's betas (released:
0.9 and 0.98); keys have no bias, as it shifts all logits of a query alike. Users without a history
have a state of zeros.

Letters in names: U users, S sequences, T tokens, R rows of a batch, L columns, P positions, N
negatives a token, M = N + 1, I items, D width, H heads, E width of a head, K layers of dropout.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset, Part
from mmrec.data.histories import Histories, histories, require_next
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, draw_negatives
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.formed import chunks, formed
from mmrec.nn.init import linear, xavier_uniform, zeros
from mmrec.nn.tables import occurrences, rows

EPSILON = 1e-8
"""Of layer normalisation, as released."""
ROWS = 128
"""Rows that are encoded at once for ranking."""


@config
class SASRec(ModelConfig):
    """Defaults: the release's. The paper has dropout 0.2 and history 200 on MovieLens-1M."""

    CARD = Card(
        "SASRec",
        2018,
        "ICDM",
        "causal attention over latest items",
        "none",
        "residuals start at normalised inputs; ranks among 100 sampled items",
    )
    search_space = {
        "model.dim": (10, 20, 30, 40, 50),
        "model.history": (50, 200),
        "model.dropout": (0.2, 0.5),
    }
    released_training = {"train.batch_size": 128}
    STRUCTURE = ("dropout",)

    dim: Annotated[int, Ge(1)] = 50
    """Width of item embeddings and of all layers."""
    history: Annotated[int, Ge(1)] = 50
    """Items that a user's state knows, the latest ones (released: maxlen)."""
    blocks: Annotated[int, Ge(1)] = 2
    """Blocks of attention and feed-forward."""
    heads: Annotated[int, Ge(1)] = 1
    """Of attention; their number divides `dim`."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Share of entries that are zeroed in training, at each of the places above."""
    loss: Literal["bce", "softmax"] = "bce"
    """See above."""
    variant: Literal["released", "described"] = "released"
    """See above."""

    def build(self, data: Dataset, init: torch.Generator) -> "SASRecModel":
        """See the base class.

        Raises:
            ValueError: the dataset is not in order of time, no user has two training items, or the
                heads do not divide the width.
        """
        return SASRecModel(self, data, init)


class SASRecModel(Recommender):
    """Dot products of a user's latest state and the items' one table."""

    def __init__(self, cfg: SASRec, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.known: dict[Part, Histories] = {p: histories(data, p) for p in ("valid", "test")}
        require_next(data, self.known["valid"])
        length_U = np.diff(self.known["valid"].starts)
        self.users = torch.from_numpy(np.flatnonzero(length_U > 1))
        self.loss, self.history, self.dropout = cfg.loss, cfg.history, cfg.dropout
        self.columns = min(cfg.history, int(length_U.max()) - 1)
        released = cfg.variant == "released"
        self.scale = cfg.dim**0.5 if released else 1.0
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        self.position_PD = xavier_uniform(cfg.history, cfg.dim, init)
        """By how many items of the sequence are later."""
        self.blocks = nn.ModuleList(_Block(cfg, init, released=released) for _ in range(cfg.blocks))
        self.norm = nn.LayerNorm(cfg.dim, eps=EPSILON)
        self.weight_shape = (cfg.blocks, cfg.heads, self.columns, self.columns) if released else ()

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """Users (S,) of a batch with their sequences in rows, see `Packed`.

        `positive` is (R, L), the item that comes after each token, and `negative` (R, L, N), N = 0
        for the softmax. In `extra`: `item`, `age` and `sequence`, (R, L); `row` (S,), where each
        user's sequence lies; and what dropout leaves, `kept` (R, K, L, D) and, released, of
        attention weights, `kept_weights` (R, blocks, H, L, L).

        Raises:
            ValueError: the loss needs negatives, and none are asked for.
        """
        negatives = shape.negatives if self.loss == "bce" else 0
        if self.loss == "bce" and not negatives:
            raise ValueError("SASRec with loss='bce' needs train.negatives of 1 or more, got 0")
        order = torch.randperm(len(self.users), generator=draws.generator("order", epoch))
        chance, drawn = (draws.generator(stream, epoch) for stream in ("dropout", "negatives"))
        train = self.known["valid"]
        for user_S in self.users[order].split(shape.size):
            # Each token but the last has one that comes after it.
            end_S = train.starts[user_S.numpy() + 1] - 1
            length_S = np.minimum(end_S - train.starts[user_S.numpy()], self.history)
            packed = pack(end_S, length_S, self.columns)
            user_T = user_S[packed.sequence_T]
            negative_TN = draw_negatives(data, user_T, negatives, drawn)
            tensors = {
                **packed.tensors(train.items),
                "row": torch.from_numpy(packed.row_S),
                **self._kept(packed.num_rows, chance),
            }
            yield Batch(
                user_S.to(data.device),
                packed.grid(torch.from_numpy(train.items[packed.from_T + 1])).to(data.device),
                packed.grid(negative_TN).to(data.device),
                {name: value.to(data.device) for name, value in tensors.items()},
                shape.size,
            )

    def _kept(self, num_rows: int, chance: torch.Generator) -> dict[str, Tensor]:
        if not self.dropout:
            return {}
        size = (num_rows, 1 + 2 * len(self.blocks), self.columns, self.item_ID.shape[1])
        found = {"kept": torch.rand(size, generator=chance) >= self.dropout}
        if self.weight_shape:
            size = (num_rows, *self.weight_shape)
            found["kept_weights"] = torch.rand(size, generator=chance) >= self.dropout
        return found

    def states(self, extra: Mapping[str, Tensor]) -> Tensor:
        """(R, L, D) each token's, given `item`, `age`, `sequence` and perhaps what dropout left."""
        sequence_RL = extra["sequence"]
        same_RLL = sequence_RL[:, :, None] == sequence_RL[:, None]
        seen_RLL = same_RLL & torch.ones_like(same_RLL[0]).tril()
        layers = len(self.blocks)
        kept = extra["kept"].unbind(1) if "kept" in extra else (None,) * (1 + 2 * layers)
        weights = extra["kept_weights"].unbind(1) if "kept_weights" in extra else (None,) * layers
        x_RLD = self.scale * rows(self.item_ID, extra["item"])
        x_RLD = _dropped(x_RLD + rows(self.position_PD, extra["age"]), kept[0], self.dropout)
        for at, block in enumerate(self.blocks):
            x_RLD = block(x_RLD, seen_RLL, kept[1 + 2 * at], kept[2 + 2 * at], weights[at])
        return self.norm(x_RLD)

    def losses(self, batch: Batch) -> Losses:
        """`bce` or `softmax`, in nats."""
        extra = batch.extra
        x_RLD = self.states(extra)
        # Rows that nobody lies in may follow, where lanes have more of them than a batch has.
        there_R = occurrences(extra["row"], x_RLD[:, 0]) > 0
        weight_RL = (there_R[:, None] & (extra["sequence"] > 0)).to(x_RLD.dtype)
        share_RL = weight_RL / weight_RL.sum()
        if self.loss == "softmax":
            x_TD, positive_T = x_RLD.flatten(0, 1), batch.positive.flatten()
            return Losses(
                {"softmax": formed(_softmax, x_TD, self.item_ID, positive_T, share_RL.flatten())}
            )
        asked_RLM = torch.cat((batch.positive[..., None], batch.negative), 2)
        score_RLM = (x_RLD[:, :, None] * rows(self.item_ID, asked_RLM)).sum(-1)
        loss_RL = F.softplus(-score_RLM[..., 0]) + F.softplus(score_RLM[..., 1:]).sum(-1)
        return Losses({"bce": (share_RL * loss_RL).sum()})

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Those of `valid`."""
        return self.embeddings_at("valid")

    def embeddings_at(self, part: Part) -> tuple[Tensor, Tensor]:
        """(U, D) the state after all that is known of a user, and (I, D)."""
        known, device = self.known[part], self.item_ID.device
        length_U = np.diff(known.starts).clip(max=self.history)
        user_S = np.flatnonzero(length_U)
        packed = pack(known.starts[user_S + 1], length_U[user_S], int(length_U.max()))
        tensors = {name: v.to(device) for name, v in packed.tensors(known.items).items()}
        found = []
        for start in range(0, packed.num_rows, ROWS):
            state_RLD = self.states({k: v[start : start + ROWS] for k, v in tensors.items()})
            here_S = (packed.row_S >= start) & (packed.row_S < start + ROWS)
            last_S = torch.from_numpy(packed.last_S[here_S] - start * packed.columns).to(device)
            found.append(rows(state_RLD.flatten(0, 1), last_S))
        user_UD = self.item_ID.new_zeros(len(length_U), self.item_ID.shape[1])
        at_S = torch.from_numpy(user_S).to(device)
        return user_UD.index_copy(0, at_S, torch.cat(found)), self.item_ID


class Packed(NamedTuple):
    """Sequences side by side in rows, each of them whole."""

    from_T: NDArray[np.int64]
    """Where each token comes from, among the items of all users."""
    at_T: NDArray[np.int64]
    """Where it goes: row * columns + column."""
    sequence_T: NDArray[np.int64]
    age_T: NDArray[np.int64]
    """How many tokens of its sequence are later."""
    row_S: NDArray[np.int64]
    last_S: NDArray[np.int64]
    """Where the last token of each sequence goes."""
    num_rows: int
    columns: int

    def grid(self, value_T: Tensor) -> Tensor:
        """(R, L, ...) the tokens' values, 0 where there is no token."""
        size = (self.num_rows * self.columns, *value_T.shape[1:])
        value_P = value_T.new_zeros(size)
        value_P[torch.from_numpy(self.at_T)] = value_T
        return value_P.view(self.num_rows, self.columns, *value_T.shape[1:])

    def tensors(self, item_E: NDArray[np.int64]) -> dict[str, Tensor]:
        """`item`, `age` and `sequence`, which is counted from 1, each (R, L)."""
        values = {"item": item_E[self.from_T], "age": self.age_T, "sequence": self.sequence_T + 1}
        return {name: self.grid(torch.from_numpy(value_T)) for name, value_T in values.items()}


def pack(end_S: NDArray[np.int64], length_S: NDArray[np.int64], columns: int) -> Packed:
    """Sequences in their order, a new row where the next one does not fit.

    Args:
        end_S: where each ends, exclusive, among the items of all users.
        length_S: how long each is, in [1, columns].
        columns: of a row.
    """
    first, end = [], 0
    for length in length_S.tolist():
        left = -end % columns
        end += left if left < length else 0
        first.append(end)
        end += length
    first_S = np.array(first)
    start_S = np.cumsum(length_S) - length_S
    sequence_T = np.repeat(np.arange(len(length_S)), length_S)
    step_T = np.arange(len(sequence_T)) - start_S[sequence_T]
    return Packed(
        (end_S - length_S)[sequence_T] + step_T,
        first_S[sequence_T] + step_T,
        sequence_T,
        length_S[sequence_T] - 1 - step_T,
        first_S // columns,
        first_S + length_S - 1,
        -(-end // columns),
        columns,
    )


class _Block(nn.Module):
    """Attention, then a feed-forward network of one hidden layer, each beside its input."""

    def __init__(self, cfg: SASRec, init: torch.Generator, *, released: bool) -> None:
        super().__init__()
        if cfg.dim % cfg.heads:
            raise ValueError(f"dim must be a multiple of the {cfg.heads} heads, got {cfg.dim}")
        self.heads, self.dropout, self.released = cfg.heads, cfg.dropout, released
        self.query, self.value = (_map(cfg.dim, init, bias=released) for _ in range(2))
        self.key = _map(cfg.dim, init, bias=False)
        self.inner, self.outer = (_map(cfg.dim, init, bias=True) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(cfg.dim, eps=EPSILON) for _ in range(2))

    def forward(
        self,
        x_RLD: Tensor,
        seen_RLL: Tensor,
        first_RLD: Tensor | None,
        second_RLD: Tensor | None,
        weights_RHLL: Tensor | None,
    ) -> Tensor:
        """(R, L, D).

        Args:
            x_RLD: the tokens.
            seen_RLL: whether a token (its row, then its column) sees another.
            first_RLD: what dropout leaves of hidden units, or described of attention's output.
            second_RLD: what it leaves of the network's output.
            weights_RHLL: what it leaves of attention weights, released.
        """
        normal_RLD = self.norms[0](x_RLD)
        if self.released:
            found_RLD = self._attended(normal_RLD, x_RLD, seen_RLL, weights_RHLL)
            normal_RLD = self.norms[1](normal_RLD + found_RLD)
            hidden_RLD = _dropped(self.inner(normal_RLD).relu(), first_RLD, self.dropout)
            return normal_RLD + _dropped(self.outer(hidden_RLD), second_RLD, self.dropout)
        found_RLD = self._attended(normal_RLD, normal_RLD, seen_RLL, None)
        x_RLD = x_RLD + _dropped(found_RLD, first_RLD, self.dropout)
        hidden_RLD = self.inner(self.norms[1](x_RLD)).relu()
        return x_RLD + _dropped(self.outer(hidden_RLD), second_RLD, self.dropout)

    def _attended(
        self, from_RLD: Tensor, to_RLD: Tensor, seen_RLL: Tensor, kept_RHLL: Tensor | None
    ) -> Tensor:
        query_RHLE, key_RHLE, value_RHLE = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x in (self.query(from_RLD), self.key(to_RLD), self.value(to_RLD))
        )
        logit_RHLL = query_RHLE @ key_RHLE.transpose(-1, -2) * query_RHLE.shape[-1] ** -0.5
        weight_RHLL = logit_RHLL.masked_fill(~seen_RLL[:, None], -torch.inf).softmax(-1)
        weight_RHLL = _dropped(weight_RHLL, kept_RHLL, self.dropout)
        return (weight_RHLL @ value_RHLE).transpose(1, 2).flatten(2)


def _map(dim: int, init: torch.Generator, *, bias: bool) -> nn.Linear:
    """Started as TensorFlow does."""
    layer = linear(dim, dim, init, "xavier_uniform", bias=False)
    if bias:
        layer.bias = zeros(dim)
    return layer


def _dropped(x: Tensor, kept: Tensor | None, rate: float) -> Tensor:
    return x if kept is None else x * kept / (1 - rate)


def _softmax(
    x_TD: Tensor, item_ID: Tensor, positive_T: Tensor, share_T: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy over all items, in nats, the tokens weighed; with what `formed` needs."""
    value = x_TD.new_zeros(())
    slope_TD, slope_ID = torch.empty_like(x_TD), torch.zeros_like(item_ID)
    for part in chunks(len(x_TD), len(item_ID), x_TD.device):
        own_C1, share_C1 = positive_T[part, None], share_T[part, None]
        score_CI = x_TD[part] @ item_ID.T
        score_CI -= score_CI.amax(1, keepdim=True)
        right_C1 = score_CI.gather(1, own_C1)
        total_C1 = score_CI.exp_().sum(1, keepdim=True)
        value = value + (share_C1 * (total_C1.log() - right_C1)).sum()
        score_CI *= share_C1 / total_C1
        score_CI.scatter_add_(1, own_C1, -share_C1)
        slope_TD[part] = score_CI @ item_ID
        slope_ID.addmm_(score_CI.T, x_TD[part])
    return value, slope_TD, slope_ID

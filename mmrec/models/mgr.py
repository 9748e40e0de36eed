"""MGR: the next item's semantic IDs, of each modality in turn, written by an encoder-decoder.

Zhu et al., "Beyond Unimodal Boundaries: Generative Recommendation with Multimodal Semantics",
arXiv 2503.23333. There is no released code and no table of results; what the paper leaves open is
a field here, and its text names the reading. One file makes four of its systems:

  TIGER (Rajput et al. 2023)   one modality: `MGR(modalities=("text",), alignment="none")`
  MGR-EF                       `fusion="early"`: one vector of all modalities, one ID
  MGR-LF                       `alignment="none", transition_tokens=False`: IDs one after the other
  MGR-LF++                     the defaults: aligned first, a token where modalities meet

An item's ID is the code words of a residual quantiser (`mmrec.nn.quantiser`), or those that come
with the data, laid out by `mmrec.nn.semantic_ids`; the ID of a history is those of its items, the
latest last. The recommender is T5 (`mmrec.nn.t5`) in a compact module of our own: transformers'
would bring a large dependency, and decodes each beam with cross-attention keys of its own. Items
are ranked by the log-probability of their ID, found by a beam search over the IDs that there are.

Letters in names: U users, I items, B batch, H items of a history, T positions of an ID, S tokens of
a source, K beams, L levels of a modality, D width, V tokens.
"""

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset, Part
from mmrec.data.histories import NOTHING, histories, targets
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.losses import mean_pair_infonce
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Ranker, Recommender
from mmrec.nn.beam import Trie, beam_search
from mmrec.nn.item_codes import Joint, coded_modalities, codes_of, fused_codes
from mmrec.nn.quantiser import Quantiser
from mmrec.nn.semantic_ids import BEGIN, PADDING, semantic_ids
from mmrec.nn.t5 import T5, T5Shape
from mmrec.nn.tables import Constant, rows

ROWS = 512
"""Users that are decoded, or encoded without gradients, at once."""
MEASURED = 4096
"""Users whose next item `measures` writes, at most."""


@config
class MGR(ModelConfig):
    """Sizes are those of GRID, by the same group; the paper's own are unknown."""

    CARD = Card(
        "MGR-LF++",
        2025,
        "arXiv",
        "writes each modality's semantic IDs",
        "one or more",
        "no released code",
    )
    search_space = {
        "model.quantiser.levels": (2, 3, 4),
        "model.quantiser.size": (64, 128, 256, 512),
    }
    released_training = {"train.lr": 1e-3, "train.weight_decay": 1e-4, "train.batch_size": 512}
    STRUCTURE = ("dropout",)

    fusion: Literal["late", "early"] = "late"
    """late: an ID a modality, one after the other; early: one ID of one vector."""
    modalities: tuple[str, ...] | None = None
    """Item features of kind dense, or, for late fusion, codes too, in the order of the ID. None:
    all that there are, text first, as the paper's order is read."""
    joint: Joint = "concatenation"
    """How early fusion makes one vector, of vectors of length 1; the paper's encoder is unknown."""
    alignment: Literal["none", "infonce", "translation"] = "infonce"
    """What the recommender learns before it recommends, of items with two or more modalities; the
    paper's loss is unknown. infonce: the mean encoder states of an item's IDs, a vector a modality
    of length 1, are told from those of the batch's other items, both ways, halved. translation:
    each modality's ID is written from each other's, as MQL4GRec does. Items that lack a modality
    have no part in it; where fewer than two have all, there is no such stage."""
    align_epochs: Annotated[int, Ge(1)] = 10
    """Passes over the items that the alignment takes. They are the head of the first epoch, with
    its optimiser, so that `train.epochs` counts what all variants share."""
    tau: Annotated[float, Gt(0)] = 0.07
    """Temperature of the InfoNCE."""
    transition_tokens: bool = True
    """Whether a token of its own stands between two modalities of an ID, in histories too."""
    output: Literal["vocabulary", "level"] = "vocabulary"
    """What a position's probabilities add up over: all tokens, as T5's do, or those that can stand
    there, whose product with the states is as much smaller."""
    history: Annotated[int, Ge(1)] = 20
    """Items of a history, the latest ones (MQL4GRec's number)."""
    targets_per_user: Annotated[int, Ge(1)] | None = None
    """Training targets that are drawn of each user each epoch; None: every item that has one before
    it, as TIGER's."""
    dim: Annotated[int, Ge(1)] = 128
    heads: Annotated[int, Ge(1)] = 6
    head_dim: Annotated[int, Ge(1)] = 64
    ff: Annotated[int, Ge(1)] = 1024
    """Width of the feed-forward's hidden layer."""
    encoder_layers: Annotated[int, Ge(1)] = 4
    decoder_layers: Annotated[int, Ge(1)] = 4
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    beams: Annotated[int, Ge(1)] = 20
    """Beams of the search; for lists that are longer, as many as their length."""
    quantiser: Quantiser = Quantiser()
    """How vectors become codes; codes that come with the data are taken as they are."""
    ids_seed: Annotated[int, Ge(0)] | None = None
    """Seed of the codes that are fitted. None: the run's, so that what differs between seeds has
    the luck of the codes in it; a number gives all runs the same IDs."""

    def build(self, data: Dataset, init: torch.Generator) -> "MGRModel":
        return MGRModel(self, data, init)


class MGRModel(Recommender):
    """The next item's ID given a history's, and beams in place of scores."""

    FITTED = True
    tau: Tensor
    token_IT: Tensor

    def __init__(self, cfg: MGR, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.cfg = cfg
        # The quantiser has streams of its own: weights are drawn whatever it takes.
        seed = init.initial_seed() if cfg.ids_seed is None else cfg.ids_seed
        early = cfg.fusion == "early"
        names = coded_modalities(cfg.modalities, data.features, "MGR", dense=early)
        if early:
            parts = [fused_codes(data.features, names, cfg.joint, cfg.quantiser, seed)]
        else:
            parts = [codes_of(n, data.features[n], cfg.quantiser, seed) for n in names]
        self.code_measures = {name: x for part in parts for name, x in part.measures.items()}
        self.ids = semantic_ids(
            [(part.name, part.codes, part.sizes, part.present) for part in parts],
            transition_tokens=cfg.transition_tokens,
        )
        self.code_measures["collisions"] = self.ids.collisions
        present_IM = np.stack([part.present for part in parts], axis=1)
        self.whole_Q = torch.from_numpy(np.flatnonzero(present_IM.all(axis=1)))
        self.aligned = cfg.alignment != "none" and len(parts) > 1 and len(self.whole_Q) > 1
        self.trie = Trie.of(self.ids.code_IT, self.ids.sizes)
        shape = T5Shape(
            cfg.dim, cfg.heads, cfg.head_dim, cfg.ff, cfg.encoder_layers, cfg.decoder_layers
        )
        self.t5 = T5(self.ids.vocabulary, shape, cfg.dropout, init)
        self.register_buffer("tau", torch.tensor(cfg.tau), persistent=False)
        # One row more: what stands where a history has no item.
        token_IT = np.pad(self.ids.token_IT, ((0, 1), (0, 0)), constant_values=PADDING)
        # A buffer, since lanes of several seeds have codes of their own.
        self.register_buffer("token_IT", torch.from_numpy(token_IT), persistent=False)
        self.present_IM = Constant(torch.from_numpy(present_IM))
        user_U = np.arange(data.num_users)
        parts_known: tuple[Part, ...] = ("valid", "test")
        self.known = nn.ModuleDict(
            {
                part: Constant(torch.from_numpy(histories(data, part).last(user_U, cfg.history)))
                for part in parts_known
            }
        )
        """Part -> (U, H) the latest items before it."""
        self.targets = targets(data, cfg.history)
        self.next_P2 = _first_of_each_user(data.valid)

    # --- training

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """Histories (B, H) with the item that came next; before the first, items to be aligned.

        A batch's dropout masks are in `extra` too.
        """
        chance = draws.generator("dropout", epoch)
        if self.aligned and epoch == 0:
            order = draws.generator("modalities", epoch)
            for _ in range(self.cfg.align_epochs):
                shuffled = torch.randperm(len(self.whole_Q), generator=order)
                for item_B in self.whole_Q[shuffled].split(shape.size):
                    masks = self._masks_of_alignment(len(item_B), chance)
                    yield _batch(torch.zeros_like(item_B), item_B, masks, shape, data.device)
        for at_B in self._chosen(draws, epoch).split(shape.size):
            history_BH = self.targets.history[at_B]
            positions = self.ids.code_IT.shape[1]
            masks = self.t5.draw_dropout(len(at_B), self.cfg.history * positions, positions, chance)
            extra = {"history": history_BH, **{f"kept/{k}": v for k, v in masks.items()}}
            yield _batch(self.targets.user[at_B], self.targets.item[at_B], extra, shape,
                         data.device)  # fmt: skip

    def _chosen(self, draws: Draws, epoch: int) -> Tensor:
        """The epoch's targets in their order: all, or so many of each user."""
        order_T = torch.randperm(len(self.targets.user), generator=draws.generator("order", epoch))
        if self.cfg.targets_per_user is None:
            return order_T
        user_T = self.targets.user[order_T]
        by_user_T = torch.argsort(user_T, stable=True)
        sorted_T = user_T[by_user_T]
        nth_T = torch.arange(len(sorted_T)) - torch.searchsorted(sorted_T, sorted_T)
        return order_T[by_user_T[nth_T < self.cfg.targets_per_user].sort().values]

    def losses(self, batch: Batch) -> Losses:
        """`next`, the mean of -ln p over an ID's positions; in the first stage `align`."""
        if "history" not in batch.extra:
            return Losses({"align": self._alignment(batch)})
        token_BT = rows(self.token_IT, batch.positive)
        kept = _under("kept/", batch.extra)
        state_BSD, real_BS = self._encoded(batch.extra["history"], kept)
        loss = self._written(token_BT, 0, state_BSD, real_BS, kept)
        return Losses({"next": loss})

    def _encoded(
        self, history_BH: Tensor, kept: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """((B, S, D) states, (B, S) which tokens are there) of histories."""
        last = len(self.token_IT) - 1
        item_BH = torch.where(history_BH == NOTHING, last, history_BH)
        token_BS = rows(self.token_IT, item_BH).flatten(1)
        real_BS = token_BS != PADDING
        return self.t5.encode(token_BS, real_BS, kept or {}), real_BS

    def _written(
        self,
        token_BL: Tensor,
        first: int,
        state_BSD: Tensor,
        real_BS: Tensor,
        kept: Mapping[str, Tensor],
    ) -> Tensor:
        """Mean of -ln p(token | those before it, source); the tokens begin at a position."""
        begin_B1 = torch.full_like(token_BL[:, :1], BEGIN)
        before_BL = torch.cat((begin_B1, token_BL[:, :-1]), 1)
        hidden_BLD = self.t5.decode(before_BL, state_BSD, real_BS, kept)
        losses = []
        if self.cfg.output == "vocabulary":
            logits_BLV = self.t5.logits(hidden_BLD)
            return F.cross_entropy(logits_BLV.flatten(0, 1), token_BL.flatten())
        for at in range(token_BL.shape[1]):
            if self.ids.sizes[first + at] > 1:  # what can only be one token costs nothing
                logits_BV, start = self._logits(hidden_BLD[:, at], first + at)
                losses.append(F.cross_entropy(logits_BV, token_BL[:, at] - start))
        return torch.stack(losses).sum() / token_BL.shape[1]

    def _range(self, position: int) -> tuple[int, int]:
        """(first token, number of tokens) of a position."""
        return int(self.ids.first_T[position]), self.ids.sizes[position]

    def _masks_of_alignment(self, size: int, chance: torch.Generator) -> dict[str, Tensor]:
        """Dropout masks of each modality as the source, and as what is written from the others."""
        masks = {}
        for name, other in permutations(self.ids.spans, 2):
            source, written = (_length(self.ids.spans[n]) for n in (name, other))
            drawn = self.t5.draw_dropout(size, source, written, chance)
            masks |= {f"{name}>{other}/{k}": mask for k, mask in drawn.items()}
        return masks

    def _alignment(self, batch: Batch) -> Tensor:
        if self.cfg.alignment == "infonce":
            others = [*self.ids.spans][1:] + [*self.ids.spans][:1]
            kept = [f"{n}>{o}/" for n, o in zip(self.ids.spans, others, strict=True)]
            views = [
                self._view(batch.positive, span, _under(prefix, batch.extra))
                for span, prefix in zip(self.ids.spans.values(), kept, strict=True)
            ]
            return 0.5 * mean_pair_infonce(views, self.tau, similarity="cosine")
        losses = []
        for name, other in permutations(self.ids.spans, 2):
            kept = _under(f"{name}>{other}/", batch.extra)
            token_BT = rows(self.token_IT, batch.positive)
            span, written = self.ids.spans[name], self.ids.spans[other]
            real_BS = torch.ones_like(token_BT[:, span], dtype=torch.bool)
            state_BSD = self.t5.encode(token_BT[:, span], real_BS, kept)
            losses.append(
                self._written(token_BT[:, written], written.start, state_BSD, real_BS, kept)
            )
        return torch.stack(losses).mean()

    def _view(
        self, item_B: Tensor, span: slice, kept: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """(B, D) mean encoder state of a part of the items' IDs."""
        token_BS = rows(self.token_IT, item_B)[:, span]
        real_BS = torch.ones_like(token_BS, dtype=torch.bool)
        return self.t5.encode(token_BS, real_BS, kept or {}).mean(1)

    # --- ranking

    def ranker(self, part: Part) -> Ranker:
        return _Beams(self, part)

    def source(self, user_B: Tensor, part: Part) -> tuple[Tensor, Tensor]:
        """((B, S, D) states, (B, S) which are there) of what users did before a part."""
        return self._encoded(self._history(part)[user_B])

    def _history(self, part: Part) -> Tensor:
        """(U, H)."""
        return cast(Constant, self.known[part]).value

    def log_probabilities(self, hidden: Tensor, position: int) -> Tensor:
        """(..., W) of the codes that can stand at a position."""
        logits, start = self._logits(hidden, position)
        first, size = self._range(position)
        return logits.log_softmax(-1)[..., first - start : first - start + size]

    def _logits(self, hidden: Tensor, position: int) -> tuple[Tensor, int]:
        """(those that probabilities at a position add up over, the first one's token)."""
        if self.cfg.output == "vocabulary":
            return self.t5.logits(hidden), 0
        first, size = self._range(position)
        return self.t5.logits(hidden, first, first + size), first

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D) mean encoder states of histories and of IDs; beams rank, not these."""
        return self.embeddings_at("valid")

    def embeddings_at(self, part: Part) -> tuple[Tensor, Tensor]:
        parts = []
        for history_BH in self._history(part).split(ROWS):
            state_BSD, real_BS = self._encoded(history_BH)
            there_BS1 = real_BS[..., None].to(state_BSD.dtype)
            parts.append((state_BSD * there_BS1).sum(1) / there_BS1.sum(1).clamp(min=1))
        whole = slice(0, self.ids.code_IT.shape[1])
        return torch.cat(parts), self._items(whole)

    def _items(self, span: slice) -> Tensor:
        item_I = torch.arange(len(self.ids.code_IT), device=self.token_IT.device)
        return torch.cat([self._view(item_B, span) for item_B in item_I.split(ROWS)])

    def item_views(self) -> dict[str, Tensor]:
        """Mean encoder states of each modality's part of the IDs; rows of nan where missing."""
        views = {name: self._items(span) for name, span in self.ids.spans.items()}
        present = dict(zip(views, self.present_IM.value.unbind(1), strict=True))
        return {n: v.masked_fill(~present[n][:, None], torch.nan) for n, v in views.items()}

    # --- measures

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """About the codes, and about IDs that are written freely for the validation's next items.

        Freely: the likeliest token each time, whether or not an item has such an ID. Of at most
        `MEASURED` users, drawn once for all runs. `right_<modality>` is the share whose code words
        of it are all right, `only_<modality>` where another modality's are not, `right_all` where
        all are, `valid_ids` the share of IDs that are an item's.
        """
        chosen = torch.randperm(len(self.next_P2), generator=torch.Generator().manual_seed(0))
        user_P, item_P = self.next_P2[chosen[:MEASURED]].to(self.token_IT.device).unbind(1)
        token_PT = torch.cat([self._freely(user_B) for user_B in user_P.split(ROWS)])
        right_PT = token_PT == self.token_IT[item_P]
        right_PM = torch.stack([right_PT[:, s].all(1) for s in self.ids.spans.values()], 1)
        all_P = right_PM.all(1)
        found = {"right_all": all_P, "valid_ids": self._are_items(token_PT)}
        for m, name in enumerate(self.ids.spans):
            found[f"right_{name}"] = right_PM[:, m]
            if len(self.ids.spans) > 1:
                found[f"only_{name}"] = right_PM[:, m] & ~all_P
        shares = {name: float(found_P.double().mean()) for name, found_P in found.items()}
        return {**self.code_measures, **shares}

    def _freely(self, user_B: Tensor) -> Tensor:
        """(B, T) the likeliest token after the likeliest tokens, of those that `output` has."""
        state_BSD, real_BS = self.source(user_B, "valid")
        decoding = self.t5.start(state_BSD, real_BS)
        token_B1 = torch.full_like(user_B[:, None], BEGIN)
        written = []
        for position in range(self.ids.code_IT.shape[1]):
            logits, start = self._logits(self.t5.step(token_B1, decoding, None), position)
            token_B1 = start + logits.argmax(-1)
            written.append(token_B1)
        return torch.cat(written, 1)

    def _are_items(self, token_PT: Tensor) -> Tensor:
        """(P,) whether a row of tokens is an item's ID."""
        ids = {tuple(row) for row in self.ids.token_IT.tolist()}
        return torch.tensor([tuple(row) in ids for row in token_PT.tolist()])


class _Beams(Ranker):
    """The items of the likeliest IDs."""

    def __init__(self, model: MGRModel, part: Part) -> None:
        self.model = model
        self.part: Part = part

    def top(self, user_B: Tensor, allowed_BI: Tensor, k: int) -> Tensor:
        width = max(k, self.model.cfg.beams)
        chunks = zip(user_B.split(ROWS), allowed_BI.split(ROWS), strict=True)
        found = [self._top(users, allowed, width)[:, :k] for users, allowed in chunks]
        return F.pad(torch.cat(found), (0, k - found[0].shape[1]), value=-1)

    def _top(self, user_B: Tensor, allowed_BI: Tensor, width: int) -> Tensor:
        model = self.model
        decoding = model.t5.start(*model.source(user_B, self.part))

        def step(position: int, code_BK: Tensor | None, parent_BK: Tensor | None) -> Tensor:
            if code_BK is None:
                token_BK = torch.full_like(user_B[:, None], BEGIN)
            else:
                token_BK = code_BK + int(model.ids.first_T[position - 1])
            hidden_BKD = model.t5.step(token_BK, decoding, parent_BK)
            return model.log_probabilities(hidden_BKD, position)

        return beam_search(step, model.trie, allowed_BI, width)[0]


def _batch(
    user_B: Tensor,
    item_B: Tensor,
    extra: Mapping[str, Tensor],
    shape: BatchShape,
    device: torch.device,
) -> Batch:
    none_B0 = torch.empty(len(item_B), 0, dtype=torch.int64)
    user, item, none = (t.to(device) for t in (user_B, item_B, none_B0))
    return Batch(user, item, none, {n: t.to(device) for n, t in extra.items()}, shape.size)


def _under(prefix: str, extra: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries whose names begin with the prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in extra.items() if k.startswith(prefix)}


def _length(span: slice) -> int:
    return span.stop - span.start


def _first_of_each_user(pairs_E2: np.ndarray) -> Tensor:
    """(P, 2) of each user's pairs the first, by user."""
    _, first_P = np.unique(pairs_E2[:, 0], return_index=True)
    return torch.from_numpy(pairs_E2[first_P])

"""SiBraR: one branch shared by all modalities of an entity, for cold starts and missing modalities.

Ganhoer, Moscati, Hausberger, Nawaz, Schedl, "A Multimodal Single-Branch Embedding Network for
Recommendation in Cold-Start and Missing Modality Scenarios", RecSys 2024.

Where the paper is silent the authors' released code decides:
* An interaction row holds the very interaction that is being predicted.
* Every cell of the batch (a user's positive, each of its negatives) draws its own modalities, so
  that a positive and its negatives are compared through different ones.
* InfoNCE is on dot products of un-normalised vectors, its two directions are summed, and an item's
  negatives are the other items of its own row; a user's are the other users of the batch.
* alpha = 0 still draws two modalities and averages them: it is not `sampling="single"`.
* Layers of the branch start as torch's own (non-zero biases), tag tables at N(0, 1).

Departures: the order of modalities is fixed (interactions, then by alphabet; the release's order
changes with Python's hash seed), the ID table as an item side is not offered (the release mixes up
its scores), both sides share one shape of branch, and entities may lack modalities: what is missing
is neither drawn nor averaged. An entity with one modality has it drawn twice and does not count in
the InfoNCE as an anchor; one with none of the modalities that are asked for is embedded as zeros.
Beyond the paper, which draws one or two, any number can be drawn: the InfoNCE is then the mean over
all pairs of a cell's modalities, and an entity that has fewer is averaged over, and compares, those
that it has.

Letters in names: U users, I items, B batch, N negatives a row, L cells (B or B (1 + N)), K drawn
modalities, C common width, D output width.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from numpy.typing import NDArray
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import INTERACTIONS, Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.losses import Similarity, bpr, mean_pair_infonce
from mmrec.metrics import effective_rank, mean_cosine, modality_gap
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.branch import Branch, BranchShape
from mmrec.nn.init import normal
from mmrec.nn.modal_side import Aggregation, ModalRules, ModalSide
from mmrec.nn.modalities import (
    RANDOM_RANGE,
    ModalityDraws,
    Sampling,
    central_index,
    modality_names,
    presence,
)
from mmrec.nn.projections import ACTIVATIONS, InteractionProjection, Projection, projection
from mmrec.nn.sides import Encoded, Listed, ProjectedSide, Side, SideData, TableSide
from mmrec.nn.tables import Constant

Width = Annotated[int, Ge(1)]


@config
class SiBraR(ModelConfig):
    """Defaults: the released configs for Music4All-Onion, warm start, and code defaults besides.

    `alpha` and `tau` are what the authors fix there; their grid is alpha 0, 1e-6 ... 5e-2 by
    tau 1e-4 ... 0.5. They train on 10 negatives a row, batches of 256, AdamW.
    """

    CARD = Card(
        "SiBraR", 2024, "RecSys", "one branch for all modalities", "one or more, users' too", ""
    )

    dim: Width = 128
    """Width of user and item embeddings (released: shared_common_dim)."""
    user: Literal["embedding", "interactions", "branch"] = "embedding"
    """Users are rows of a table, act(W x + b) of their training row, or a branch of modalities."""
    item: Literal["branch", "interactions"] = "branch"
    """Items are a branch of modalities, or act(W x + b) of their training row."""
    modalities: tuple[str, ...] | None = None
    """Of the item branch; None: interactions and every dense, tags and category feature."""
    user_modalities: tuple[str, ...] | None = None
    """Of the user branch; None as above."""
    common_dim: Width = 512
    """Width to which every modality is projected, the branch's input."""
    feature_hidden: tuple[Width, ...] = ()
    """Widths of hidden layers in the projections of dense features."""
    hidden: tuple[Width, ...] = (512, 512, 512)
    """Widths of the branch's hidden layers."""
    activation: Literal["relu", "selu", "tanh", "sigmoid"] = "relu"
    """After every linear map of projections and branch."""
    output_activation: bool = True
    """Whether the activation also follows the branch's last map."""
    normalize_input: bool = True
    """Whether projected rows are scaled to length 1 before the branch."""
    input_dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.02
    """Dropout of the branch's input. Any at all makes training several times slower, since equal
    rows of a batch can then not share their work."""
    batch_norm: bool = True
    """Whether the branch has batch normalisation."""
    batch_norm_every: Annotated[int, Ge(-1)] = 2
    """After every n-th linear map, before its activation; 0: once, after all else; -1: once, after
    the last linear map."""
    aggregation: Aggregation = "mean"
    """How the vectors of an entity's modalities become one."""
    sampling: Sampling = "pairwise"
    """What a training cell draws: "none" averages all modalities that are there, "single" draws
    one, "pairwise" two or `num_sampled`, "central" the central one and others. Where two or more
    are drawn InfoNCE is added."""
    num_sampled: Annotated[int, Ge(1)] = 2
    """How many modalities "pairwise" and "central" draw; 1 has no pair, and so no InfoNCE."""
    central: str = INTERACTIONS
    """The central modality of "central" sampling."""
    similarity: Similarity = "dot"
    """InfoNCE on dot products (as released) or cosines."""
    alpha: Annotated[float, Ge(0)] = 1e-4
    """Weight of the items' InfoNCE."""
    tau: Annotated[float, Gt(0)] = 0.1
    """Temperature of the items' InfoNCE."""
    user_alpha: Annotated[float, Ge(0)] = 1e-4
    """Weight of the users' InfoNCE."""
    user_tau: Annotated[float, Gt(0)] = 0.1
    """Temperature of the users' InfoNCE."""

    def build(self, data: Dataset, init: torch.Generator) -> "SiBraRModel":
        """See the base class.

        Raises:
            ValueError: the dataset's split, features or modalities do not fit this config, or a
                number is to be drawn by a sampling that has its own.
            KeyError: a modality is not there.
        """
        if self.num_sampled != 2 and self.sampling not in ("pairwise", "central"):
            raise ValueError(
                f"num_sampled={self.num_sampled} is for sampling 'pairwise' or 'central',"
                f" not {self.sampling!r}"
            )
        return SiBraRModel(self, data, init)

    def num_branches(self, num_modalities: int) -> int:
        """Branches of a side: one, shared by all modalities."""
        del num_modalities
        return 1


class SiBraRModel(Recommender):
    """Dot products of a user side and an item side, at least one of them made of modalities."""

    ITEM_ROWS = ()
    alpha: Tensor
    tau: Tensor
    user_alpha: Tensor
    user_tau: Tensor

    def __init__(self, cfg: SiBraR, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.cfg = cfg
        self.user = _user_side(cfg, data, init)
        self.item = _item_side(cfg, data, init)
        self.seen_I = Constant(torch.from_numpy(_seen_items(data)))
        for name in ("alpha", "tau", "user_alpha", "user_tau"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    # --- training

    def require_trainable(self, data: Dataset) -> None:
        """ValueError if an entity has none of a side's modalities, or lacks the central one."""
        for side, known in ((self.user, SideData.users(data)), (self.item, SideData.items(data))):
            if isinstance(side, ModalSide):
                _require_modalities(self.cfg, known, side.names)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows with the modalities that each cell draws, and dropout's masks.

        In `extra`: `user_modalities` (B, K) and `item_modalities` (B, 1 + N, K), indices into a
        side's `names`; `user_keep` (B, K, C) and `item_keep` (B, 1 + N, K, C), False where dropout
        zeroes; `user_entities` (P, M) and `user_places` (B, K), `item_entities` (P, M) and
        `item_places` (B, 1 + N, K), the entities that the batch needs, `Listed`. Each only where
        the side and the config need it.
        """
        modalities = draws.generator("modalities", epoch)
        dropout = draws.generator("dropout", epoch)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            extra: dict[str, Tensor] = {}
            cells = {"user": batch.user, "item": _items(batch)}
            for name, side in (("user", self.user), ("item", self.item)):
                entity = cells[name]
                # Drawn whether it is used or not: cells of a study that differ in one side meet
                # the same draws on the other.
                random = torch.randint(RANDOM_RANGE, (*entity.shape, 2), generator=modalities)
                if isinstance(side, ModalSide):
                    extra |= self._draw(name, side, entity, random.to(entity.device), dropout)
            yield replace(batch, extra=extra)

    def _draw(
        self, name: str, side: ModalSide, entity: Tensor, random: Tensor, dropout: torch.Generator
    ) -> dict[str, Tensor]:
        extra: dict[str, Tensor] = {}
        if side.draws is not None:
            extra[f"{name}_modalities"] = side.draws(entity, random)
        listed = side.needed(entity, extra.get(f"{name}_modalities"))
        if listed is not None:
            extra[f"{name}_entities"], extra[f"{name}_places"] = listed
        if self.cfg.input_dropout:
            width = (side.draws.drawn if side.draws else len(side.names), self.cfg.common_dim)
            keep = torch.empty(*entity.shape, *width, dtype=torch.bool)
            keep.bernoulli_(1 - self.cfg.input_dropout, generator=dropout)
            extra[f"{name}_keep"] = keep.to(entity.device)
        return extra

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, and `user_infonce` and `item_infonce` for sides that draw two or more modalities.

        InfoNCE terms are weighted. The new buffers are running statistics.
        """
        extra = batch.extra
        user = _encoded(self.user, "user", batch.user, extra)
        item = _encoded(self.item, "item", _items(batch), extra)
        score_BL = (user.embedding[:, None] * item.embedding).sum(-1)
        terms = {"bpr": bpr(score_BL[:, :1], score_BL[:, 1:])}
        if _has_pairs(self.user):
            terms["user_infonce"] = self.user_alpha * self._infonce(user, self.user_tau)
        if _has_pairs(self.item):
            terms["item_infonce"] = self.alpha * self._infonce(item, self.tau)
        buffers = {f"user.{k}": v for k, v in user.buffers.items()}
        buffers |= {f"item.{k}": v for k, v in item.buffers.items()}
        return Losses(terms, buffers)

    def _infonce(self, side: Encoded, tau: Tensor) -> Tensor:
        return mean_pair_infonce(side.views, tau, similarity=self.cfg.similarity, counts=side.fresh)

    # --- scoring

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D) of all modalities that the split leaves at evaluation."""
        return self.user_embeddings(), self.item_embeddings()

    def user_embeddings(self, modalities: Sequence[str] | None = None) -> Tensor:
        """(U, D) from `modalities`; by default all, without interactions in a cold-user split."""
        return self.user.table(modalities)

    def item_embeddings(self, modalities: Sequence[str] | None = None) -> Tensor:
        """(I, D) from `modalities`; by default all, without interactions in a cold-item split."""
        return self.item.table(modalities)

    def item_views(self) -> dict[str, Tensor]:
        """Modality, interactions among them -> (I, D), rows of nan where it is missing.

        Interactions are missing for the items that the split, or the dataset's condition, keeps out
        of training. Empty for items that are no branch of modalities.
        """
        if not isinstance(self.item, ModalSide):
            return {}
        views = {name: self.item.alone(name) for name in self.item.names}
        if INTERACTIONS in views:
            seen_I1 = self.seen_I.value[:, None]
            views[INTERACTIONS] = torch.where(seen_I1, views[INTERACTIONS], torch.nan)
        return views

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """How far the item embeddings have collapsed.

        `item_cosine`: mean cosine of two items. `item_rank`: effective rank. `modality_gap`: one
        minus the mean cosine of an item's vectors from two modalities, if any item has two.
        """
        item_ID = self.item_embeddings()
        found = {"item_cosine": mean_cosine(item_ID), "item_rank": effective_rank(item_ID)}
        views = self.item_views()
        if len(views) > 1:
            gap = modality_gap(views)
            found |= {} if math.isnan(gap) else {"modality_gap": gap}
        return found


def _seen_items(data: Dataset) -> NDArray[np.bool_]:
    """(I,) whether training interactions may tell of an item.

    In a warm split they may of all, also of one that has none.
    """
    seen_I = np.full(data.num_items, data.split != "cold-item" and data.items_known)
    seen_I[data.train[:, 1]] = data.items_known
    return seen_I


def _encoded(side: Side, name: str, entity: Tensor, extra: Mapping[str, Tensor]) -> Encoded:
    """What a side makes of a batch's entities and of its part of `extra`."""
    listed = None
    if f"{name}_entities" in extra:
        listed = Listed(extra[f"{name}_entities"], extra[f"{name}_places"])
    return side.encode(entity, extra.get(f"{name}_modalities"), extra.get(f"{name}_keep"), listed)


def _items(batch: Batch) -> Tensor:
    """(B, 1 + N) the positive, then the negatives."""
    return torch.cat((batch.positive[:, None], batch.negative), 1)


def _has_pairs(side: Side) -> bool:
    return isinstance(side, ModalSide) and side.draws is not None and side.draws.drawn > 1


def _user_side(cfg: SiBraR, data: Dataset, init: torch.Generator) -> Side:
    side = SideData.users(data)
    if cfg.user == "branch":
        return _modal_side(cfg, side, cfg.user_modalities, init)
    _refuse_names(side, cfg.user, cfg.user_modalities)
    if cfg.user == "interactions":
        return _interaction_side(cfg, side, init)
    if side.cold:
        raise ValueError("user='embedding' knows nothing of the users of a cold-user split")
    return TableSide(normal((data.num_users, cfg.dim), 0.1 / cfg.dim, init))


def _item_side(cfg: SiBraR, data: Dataset, init: torch.Generator) -> Side:
    side = SideData.items(data)
    if cfg.item == "branch":
        return _modal_side(cfg, side, cfg.modalities, init)
    _refuse_names(side, cfg.item, cfg.modalities)
    if side.cold:
        raise ValueError("item='interactions' gives all items one score where these are missing")
    return _interaction_side(cfg, side, init)


def _refuse_names(side: SideData, kind: str, wanted: Sequence[str] | None) -> None:
    if wanted is not None:
        raise ValueError(f"{side.name}={kind!r} has no modalities to choose, got {list(wanted)}")


def _interaction_side(cfg: SiBraR, side: SideData, init: torch.Generator) -> Side:
    activation = ACTIVATIONS[cfg.activation]
    return ProjectedSide(InteractionProjection(side.interactions(), cfg.dim, activation, init))


def _modal_side(
    cfg: SiBraR, side: SideData, wanted: Sequence[str] | None, init: torch.Generator
) -> ModalSide:
    names = modality_names(wanted, side.features, side.name)
    present_NM = presence(names, side.features, side.num_entities)
    eval_names = tuple(n for n in names if not (side.cold and n == INTERACTIONS))
    if not eval_names:
        raise ValueError(f"unseen {side.name}s need a modality beside {INTERACTIONS!r}")
    if not present_NM[:, [names.index(name) for name in eval_names]].any():
        raise ValueError(f"no {side.name} has any of {', '.join(eval_names)} to be scored by")
    central = central_index(names, cfg.central, side.name) if cfg.sampling == "central" else 0
    draws = None
    if cfg.sampling != "none":
        draws = ModalityDraws(cfg.sampling, present_NM, central, cfg.num_sampled)
    branch = BranchShape(
        widths=(cfg.common_dim, *cfg.hidden, cfg.dim),
        activation=ACTIVATIONS[cfg.activation],
        output_activation=cfg.output_activation,
        norm_every=cfg.batch_norm_every if cfg.batch_norm else None,
    )
    return ModalSide(
        {name: _projection(cfg, side, name, init) for name in names},
        [Branch(branch, init) for _ in range(cfg.num_branches(len(names)))],
        draws,
        present_NM,
        ModalRules(cfg.aggregation, cfg.normalize_input, cfg.input_dropout, eval_names),
    )


def _require_modalities(cfg: SiBraR, side: SideData, names: Sequence[str]) -> None:
    present_NM = presence(names, side.features, side.num_entities)
    trained = np.unique(side.pairs[:, 0])
    bare = trained[~present_NM[trained].any(1)]
    if bare.size:
        raise ValueError(
            f"{bare.size} {side.name}s of the training set, such as {bare[0]}, have none of the"
            f" modalities {', '.join(names)}; add {INTERACTIONS!r}, which all have"
        )
    if cfg.sampling == "central":
        lacking = np.flatnonzero(~present_NM[:, names.index(cfg.central)])
        if lacking.size:
            raise ValueError(
                f"{lacking.size} {side.name}s, such as {lacking[0]}, lack the central modality"
                f" {cfg.central!r}"
            )


def _projection(cfg: SiBraR, side: SideData, name: str, init: torch.Generator) -> Projection:
    activation = ACTIVATIONS[cfg.activation]
    if name == INTERACTIONS:
        return InteractionProjection(side.interactions(), cfg.common_dim, activation, init)
    feature = side.features[name]
    return projection(feature, cfg.common_dim, cfg.feature_hidden, activation, init)

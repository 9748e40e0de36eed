"""DropoutNet: interactions withheld now and then in training, so that contents can stand in.

Volkovs, Yu, Poutanen, "DropoutNet: Addressing Cold Start in Recommender Systems", NIPS 2017, as
SiBraR's authors released it for their comparison. That is not the original: no preferences are
pretrained and none are reconstructed; the preference input is the raw training row, and all is
trained end to end by BPR.

Each side, users and items, has a network of its own:

    p = ReLU(W x + b), x the training row over all users or items of the other side
    h_f = one shallow map a content f (`mmrec.nn.projections`)
    e = ReLU(net([h_1, ..., h_F, p])), contents by alphabet; a score is e_u . e_i, never below 0

Kept from the release: for every row of a batch the user's x, and likewise the x of the positive and
of all its negatives together, is set to zero with probability 1/2; the bias stays, so that what is
withheld looks like an entity without interactions, ReLU(b). Contents are never dropped. The
preference and the output have ReLU, whatever `activation` says.

Departures: categorical item features work (the release fails on them); the draws are keyed, not one
generator's; all contents have one width and one activation, and W one layer, as in all of the
grid. An entity that lacks a content has zeros in the place of h_f; the release drops such entities.

Letters in names: U users, I items, B batch, N negatives a row or entities of a side, M entities of
the other side, Q distinct (entity, kept or dropped) of a batch, P width of the preference,
D output width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import INTERACTIONS, Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.graphs import spmm
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.init import linear, uniform
from mmrec.nn.modalities import modality_names
from mmrec.nn.projections import ACTIVATIONS, projection
from mmrec.nn.sides import SideData
from mmrec.nn.tables import Constant, rows

Width = Annotated[int, Ge(1)]


@config
class DropoutNet(ModelConfig):
    """Width, preference and grid: SiBraR's authors'; `shared_hidden`, `feature_dim` lie in theirs.

    They train on 10 negatives a row, batches of 256, AdamW with a weight decay of 1e-6 ... 1e-2.
    """

    CARD = Card(
        "DropoutNet",
        2017,
        "NIPS",
        "interactions withheld at random, contents",
        "any number, users' too",
        "crashes on categories of items; no preferences are pretrained",
    )
    search_space = {
        "model.dim": (16, 32, 64, 128, 256),
        "model.preference_dim": (32, 64, 128, 256),
        "model.shared_hidden": ((), (32,), (64,), (128,)),
    }

    dim: Width = 64
    """Width of user and item embeddings (released: shared_common_dim)."""
    preference_dim: Width = 64
    """Width of the one layer behind the training row (released: preference_layers)."""
    shared_hidden: tuple[Width, ...] = (64,)
    """Widths of the hidden layers that contents and preference share."""
    feature_dim: Width = 64
    """Width to which every content is mapped."""
    feature_hidden: tuple[Width, ...] = ()
    """Widths of hidden layers in the maps of dense features."""
    modalities: tuple[str, ...] | None = None
    """Contents of items; None: every dense, tags and category feature; () uses none."""
    user_modalities: tuple[str, ...] | None = None
    """Contents of users; None and () as above."""
    activation: Literal["relu", "selu", "tanh", "sigmoid"] = "relu"
    """After the maps of dense features and the shared hidden layers."""

    def build(self, data: Dataset, init: torch.Generator) -> "DropoutNetModel":
        """See the base class.

        Raises:
            ValueError: a content is named twice, or is the interactions, which are always used.
            KeyError: a content is not there.
            TypeError: a content is of a kind that has no map.
        """
        return DropoutNetModel(self, data, init)


class DropoutNetModel(Recommender):
    """Dot products of a user network and an item network of one form."""

    ITEM_ROWS = ()

    def __init__(self, cfg: DropoutNet, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.user = _SideNet(cfg, SideData.users(data), cfg.user_modalities, init)
        items = SideData.items(data)
        if not data.items_known:
            items = items._replace(pairs=np.zeros((0, 2), dtype=np.int64))
        self.item = _SideNet(cfg, items, cfg.modalities, init)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows with what `with_dropout` adds, its coins from the stream `dropout`."""
        coins = draws.generator("dropout", epoch)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            kept_B2 = torch.randint(2, (len(batch.user), 2), generator=coins)
            yield with_dropout(batch, kept_B2.to(batch.user.device))

    def losses(self, batch: Batch) -> Losses:
        """`bpr` and nothing else."""
        extra = batch.extra
        user_BD = rows(self.user.coded(extra["users"]), extra["user_at"])
        item_QD = self.item.coded(extra["items"])
        positive_BD = rows(item_QD, extra["positive_at"])
        negative_BND = rows(item_QD, extra["negative_at"])
        positive_B = (user_BD * positive_BD).sum(-1)
        negative_BN = (user_BD[:, None] * negative_BND).sum(-1)
        return Losses({"bpr": bpr(positive_B[:, None], negative_BN)})

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D) from contents and training rows; nothing is withheld."""
        return self.user(), self.item()

    def item_views(self) -> dict[str, Tensor]:
        """Modality -> (I, feature_dim) its mapped content; rows of nan where it is missing."""
        return self.item.views()


def with_dropout(batch: Batch, kept_B2: Tensor) -> Batch:
    """The batch with its distinct (entity, kept or dropped) pairs, and where its rows' are.

    Equal pairs of a batch have one embedding. A pair is coded as 2 entity + kept. In `extra`:
    `users` and `items` (Q,) codes; `user_at` (B,), `positive_at` (B,) and `negative_at` (B, N).

    Args:
        batch: users, positives and negatives.
        kept_B2: (B, 2) int64, 1 where a row's user, and where its items, keep their interactions.
    """
    user_B, item_B = kept_B2.unbind(1)
    users, user_at = distinct(2 * batch.user + user_B)
    items, positive_at, negative_at = distinct(
        2 * batch.positive + item_B, 2 * batch.negative + item_B[:, None]
    )
    places = {"user_at": user_at, "positive_at": positive_at, "negative_at": negative_at}
    return replace(batch, extra={"users": users, "items": items, **places})


class _SideNet(nn.Module):
    """ReLU(net(contents, preference)) of the users, or of the items.

    Maps of contents start as in `mmrec.nn.projections`; all else as torch's own linear layers,
    U(+-1 / sqrt(fan-in)), as released.
    """

    def __init__(
        self,
        cfg: DropoutNet,
        side: SideData,
        wanted: Sequence[str] | None,
        init: torch.Generator,
    ) -> None:
        super().__init__()
        self.names = _contents(side, wanted)
        self.activation = ACTIVATIONS[cfg.activation]
        self.seen_NM = side.interactions()
        scale = side.num_others**-0.5
        self.weight_MP = uniform((side.num_others, cfg.preference_dim), scale, init)
        self.bias_P = uniform((cfg.preference_dim,), scale, init)
        features = [side.features[name] for name in self.names]
        self.contents = nn.ModuleList(
            projection(f, cfg.feature_dim, cfg.feature_hidden, self.activation, init)
            for f in features
        )
        self.present = nn.ModuleList(Constant(torch.tensor(f.present)) for f in features)
        widths = (len(features) * cfg.feature_dim + cfg.preference_dim, *cfg.shared_hidden, cfg.dim)
        self.net = nn.ModuleList(linear(a, b, init, "default") for a, b in pairwise(widths))

    def coded(self, code_Q: Tensor) -> Tensor:
        """(Q, D) of entities that are coded as 2 entity + kept."""
        return self(code_Q // 2, code_Q % 2)

    def forward(self, entity_Q: Tensor | None = None, kept_Q: Tensor | None = None) -> Tensor:
        """(Q, D) of the entities asked for, by default of all N.

        The training rows are multiplied as a whole, which is a sparse product, and never dense.

        Args:
            entity_Q: int64.
            kept_Q: 1 for an entity that keeps its interactions, else 0; None: all keep theirs.
        """
        x = spmm(self.seen_NM, self.weight_MP)
        if entity_Q is not None:
            x = rows(x, entity_Q)
        if kept_Q is not None:
            x = x * kept_Q[:, None]
        x = F.relu(x + self.bias_P)
        x = torch.cat((*(self._content(at, entity_Q) for at in range(len(self.names))), x), 1)
        for layer in self.net[:-1]:
            x = self.activation(layer(x))
        return F.relu(self.net[-1](x))

    def _content(self, at: int, entity_Q: Tensor | None) -> Tensor:
        """(Q, feature_dim) a mapped content, zeros where it is missing."""
        there = cast(Constant, self.present[at]).value
        there = there if entity_Q is None else there[entity_Q]
        return self.contents[at](entity_Q) * there[:, None]

    def views(self) -> dict[str, Tensor]:
        """Modality -> (N, feature_dim) its mapped content; rows of nan where it is missing."""
        parts = zip(self.names, self.contents, self.present, strict=True)
        return {
            name: torch.where(cast(Constant, present).value[:, None], content(), torch.nan)
            for name, content, present in parts
        }


def _contents(side: SideData, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The contents of a side, by alphabet."""
    if wanted is not None and INTERACTIONS in wanted:
        raise ValueError(
            f"DropoutNet always uses {INTERACTIONS}: name the contents of {side.name}s alone,"
            f" got {list(wanted)}"
        )
    names = None if wanted is None else (INTERACTIONS, *wanted)
    return modality_names(names, side.features, side.name)[1:]

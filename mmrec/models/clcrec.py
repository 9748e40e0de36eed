"""CLCRec: free embeddings drawn towards what a content says of them, for cold starts.

Wei et al., "Contrastive Learning for Cold-Start Recommendation", MM 2021, as SiBraR's authors
released it for their comparison ("feature matrix factorisation"). With p a row of an embedding
table, c = the content mapped to the same width (no activation behind tags and categories, ReLU
behind vectors) and q the other side's table:

    v = (p + c) / 2,  s = q . v + b_i,  loss = BPR + w InfoNCE(p, c; tau)

InfoNCE on un-normalised dot products, both directions summed. It compares an item with the other
items of its own row of the batch. Either items have the content (`side="item"`), or users.

That is not the original: there is no contrast of users with items, contents are not mixed in at
random, negatives come from the row alone, one content a run. Kept from the release: a bias of
items, which starts at N(0, 0.1^2).

Departures: the released `lambda_content` is stored and never used, here `content_weight` is w;
biases of users and of all are left out, since they cancel in BPR and in rankings. An entity that
lacks the content is v = p, and no anchor of the InfoNCE; the release drops such entities.

Letters in names: U users, I items, N entities of the side with the content or negatives a row,
B batch, Q distinct entities of a batch, D embedding width, C columns of an embedding.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import INTERACTIONS, Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.losses import bpr, symmetric_infonce
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.init import normal
from mmrec.nn.modalities import modality_names
from mmrec.nn.projections import projection
from mmrec.nn.sides import SideData
from mmrec.nn.tables import Constant, rows


@config
class CLCRec(ModelConfig):
    """Defaults: SiBraR's authors'. They train on 10 negatives a row, batches of 256, AdamW.

    Their grid of the InfoNCE's weight, 1e-6 ... 1e-3, had no effect in the release.
    """

    CARD = Card(
        "CLCRec",
        2021,
        "MM",
        "embeddings contrasted with their content",
        "one, or one of users'",
        "weight of the contrast unused; users' contrast is 0; cold items keep random biases",
    )
    search_space = {
        "model.dim": (32, 64, 128, 256, 512),
        "model.tau": (0.001, 0.01, 0.1, 0.5),
        "model.content_weight": (1e-6, 1e-5, 1e-4, 1e-3),
        "model.content_hidden": ((), (16,), (32,), (64,), (128,)),
    }

    dim: Annotated[int, Ge(1)] = 64
    """Width of embeddings."""
    side: Literal["item", "user"] = "item"
    """Whose content it is."""
    modality: str = ""
    """The one content; "" takes the side's first dense, tags or category feature by alphabet."""
    content_hidden: tuple[Annotated[int, Ge(1)], ...] = ()
    """Widths of hidden layers in the map of a dense content."""
    aggregate: bool = True
    """Whether v is the mean of p and c, as in all released configs; without it v = p, and the
    content acts through the InfoNCE alone."""
    item_bias: bool = True
    """Whether items have a bias, as in all released configs."""
    content_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the InfoNCE; 1 is what the release comes to, whatever its configs say."""
    tau: Annotated[float, Gt(0)] = 0.1
    """Temperature of the InfoNCE."""
    anchors: Literal["mean", "sum"] = "mean"
    """Whether the InfoNCE is a mean over its anchors or their sum."""
    variant: Literal["released", "described"] = "released"
    """"released": as the formulas above. An entity without a training pair is half its content and
    half a random row that was never trained, an item's bias then too. The users' InfoNCE has one
    candidate each and is 0, whatever the weight.

    "described": an entity without a training pair is its content alone, since the paper ranks cold
    items so, and an unseen item has no bias (which in a warm split lifts it above what is merely
    unpopular). A user is compared with the other users of the batch, who may occur more than
    once."""

    def build(self, data: Dataset, init: torch.Generator) -> "CLCRecModel":
        """See the base class.

        Raises:
            ValueError: the side has no content, or the split keeps the evaluated entities of the
                other side, who have none, out of training.
            KeyError: the content is not there.
            TypeError: it is of a kind that has no map.
        """
        return CLCRecModel(self, data, init)


class CLCRecModel(Recommender):
    """Dot products of [q, 1] and [v, b], or of [v, 1] and [q, b]."""

    tau: Tensor
    content_weight: Tensor

    def __init__(self, cfg: CLCRec, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.cfg = cfg
        users, items = SideData.users(data), SideData.items(data)
        own, other = (items, users) if cfg.side == "item" else (users, items)
        _refuse_cold(other, data)
        self.name = _content_name(cfg, own)
        feature = own.features[self.name]
        self.user_UD = normal((data.num_users, cfg.dim), 0.1 / cfg.dim, init)
        self.item_ID = normal((data.num_items, cfg.dim), 0.1 / cfg.dim, init)
        self.bias_I = normal((data.num_items,), 0.1, init) if cfg.item_bias else None
        self.content = projection(feature, cfg.dim, cfg.content_hidden, F.relu, init)
        self.ITEM_ROWS = _item_rows(cfg)

        described, dtype = cfg.variant == "described", torch.get_default_dtype()
        known_N, known_I = (_trained(side, data) for side in (own, items))
        free_N, content_N = _shares(feature.present, known_N | (not described), cfg.aggregate)
        self.free_N1, self.content_N1 = (
            Constant(torch.from_numpy(share)[:, None].to(dtype)) for share in (free_N, content_N)
        )
        self.complete = bool(feature.present.all())
        self.present_N = Constant(torch.tensor(feature.present))
        self.biased_I = Constant(torch.from_numpy(known_I | (not described)).to(dtype))
        for name in ("tau", "content_weight"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows with the batch's `entities` (Q,) of the side that has the content.

        And where among them those of the rows are: `at` (B,) of users, or (B, 1 + N) of items.
        """
        for batch in super().epoch_batches(data, draws, epoch, shape):
            entities, at = distinct(self._entity(batch))
            yield replace(batch, extra={"entities": entities, "at": at})

    def _entity(self, batch: Batch) -> Tensor:
        """(B,) the users, or (B, 1 + N) the items."""
        return batch.user if self.cfg.side == "user" else _items(batch)

    # --- training

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, and `contrast` under its weight."""
        entity_Q, at = batch.extra["entities"], batch.extra["at"]
        free_QD, content_QD = self._free(entity_Q), self.content(entity_Q)
        v = rows(self._mixed(free_QD, content_QD, entity_Q), at)
        if self.cfg.side == "item":
            user_BD, item_BLD = rows(self.user_UD, batch.user), v
        else:
            user_BD, item_BLD = v, rows(self.item_ID, _items(batch))
        score_BL = (user_BD[:, None] * item_BLD).sum(-1)
        if self.bias_I is not None:
            score_BL = score_BL + rows(self.bias_I, _items(batch))
        contrast = self._contrast(free_QD, content_QD, batch)
        return Losses(
            {
                "bpr": bpr(score_BL[:, :1], score_BL[:, 1:]),
                "contrast": self.content_weight * contrast,
            }
        )

    def _contrast(self, free_QD: Tensor, content_QD: Tensor, batch: Batch) -> Tensor:
        """InfoNCE of embeddings and contents: of a row's items, or of a batch's users."""
        at, entity = batch.extra["at"], self._entity(batch)
        weight = None if self.complete else self.present_N.value[entity].to(free_QD.dtype)
        if self.cfg.side == "user" and self.cfg.variant == "described" and weight is None:
            loss = self._of_users(free_QD, content_QD, at)
        else:
            free, content = rows(free_QD, at), rows(content_QD, at)
            if self.cfg.side == "user" and self.cfg.variant == "released":
                free, content = free[:, None], content[:, None]
                weight = None if weight is None else weight[:, None]
            loss = symmetric_infonce(free, content, self.tau, weight=weight)
        if self.cfg.anchors == "mean":
            return loss
        return loss * (entity.numel() if weight is None else weight.sum())

    def _of_users(self, free_QD: Tensor, content_QD: Tensor, at_B: Tensor) -> Tensor:
        """What `symmetric_infonce` of the batch's users gives, each of them computed once."""
        ends = ((free_QD, content_QD), (content_QD, free_QD))
        both = [indexed_infonce(one, two, self.tau, at_B, at_B) for one, two in ends]
        return both[0] + both[1]

    # --- scoring

    def _free(self, entity_Q: Tensor | None = None) -> Tensor:
        table_ND = self.item_ID if self.cfg.side == "item" else self.user_UD
        return table_ND if entity_Q is None else rows(table_ND, entity_Q)

    def _mixed(self, free_QD: Tensor, content_QD: Tensor, entity_Q: Tensor | None = None) -> Tensor:
        """(Q, D) v."""
        free_Q1, content_Q1 = self.free_N1.value, self.content_N1.value
        if entity_Q is not None:
            free_Q1, content_Q1 = free_Q1[entity_Q], content_Q1[entity_Q]
        return free_Q1 * free_QD + content_Q1 * content_QD

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, C) and (I, C): with a bias of items C = D + 1, else D."""
        mixed_ND = self._mixed(self._free(), self.content())
        user_UC, item_IC = self.user_UD, self.item_ID
        if self.cfg.side == "item":
            item_IC = mixed_ND
        else:
            user_UC = mixed_ND
        if self.bias_I is None:
            return user_UC, item_IC
        bias_I1 = (self.bias_I * self.biased_I.value)[:, None]
        return F.pad(user_UC, (0, 1), value=1.0), torch.cat((item_IC, bias_I1), 1)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) p and c of items; rows of nan without the content. None of a user's content."""
        if self.cfg.side == "user":
            return {}
        there_I1 = self.present_N.value[:, None]
        content_ID = torch.where(there_I1, self.content(), torch.nan)
        return {INTERACTIONS: self.item_ID, self.name: content_ID}


def _items(batch: Batch) -> Tensor:
    """(B, 1 + N) the positive, then the negatives."""
    return torch.cat((batch.positive[:, None], batch.negative), 1)


def _refuse_cold(other: SideData, data: Dataset) -> None:
    if data.split == f"cold-{other.name}":
        raise ValueError(
            f"CLCRec with a content of the other side knows nothing of the {other.name}s of a"
            f" {data.split} split; side={other.name!r} does"
        )


def _content_name(cfg: CLCRec, side: SideData) -> str:
    wanted = (INTERACTIONS, cfg.modality) if cfg.modality else None
    names = modality_names(wanted, side.features, side.name)[1:]
    if not names:
        raise ValueError(f"CLCRec needs a content of the {side.name}s; the dataset has none")
    return names[0]


def _item_rows(cfg: CLCRec) -> tuple[str, ...] | None:
    """What training alone teaches of an item; where items have no content, that is all there is."""
    if cfg.side == "user":
        return None
    return ("item_ID", "bias_I") if cfg.item_bias else ("item_ID",)


def _trained(side: SideData, data: Dataset) -> NDArray[np.bool_]:
    """(N,) whether an entity has a training pair that may be used."""
    if side.name == "item" and not data.items_known:
        return np.zeros(side.num_entities, dtype=bool)
    return np.bincount(side.pairs[:, 0], minlength=side.num_entities) > 0


def _shares(
    present_N: NDArray[np.bool_], known_N: NDArray[np.bool_], aggregate: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N,) of p and of c in v: each alone where the other is not to be used, else half and half.

    Both are 0 for an entity that has neither.
    """
    content_N = present_N & (aggregate | ~known_N)
    total_N = np.maximum(known_N.astype(np.float64) + content_N, 1)
    return known_N / total_N, content_N / total_N

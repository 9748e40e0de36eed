"""VBPR: content mapped into a space of its own, beside the free factors of users and items.

He & McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback", AAAI 2016;
released, for any content, in the MMRec toolbox.

Kept from the toolbox: features as they come, neither scaled nor trained; one linear map of all
modalities side by side; the loss's floor of 1e-10. The map of the concatenation is held as one map
a modality, which are added: the same numbers without a second copy of the features. Xavier's
scale is that of the concatenated width. The maps run on the batch's distinct items only; the rest
of the table has no part in a step's loss. Gates multiply the mapped content of a modality, the
described visual bias included, and not b.

Letters in names: U users, I items, B batch, N negatives a row, Q distinct items of a batch,
D width of the free factors and of the content, F feature columns, O outputs of the map,
C all columns of an embedding.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, item_places
from mmrec.losses import bpr, emb_loss, half_squares
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import normal, xavier_uniform, zeros
from mmrec.nn.tables import rows


@config
class VBPR(ModelConfig):
    """Width and grid: the toolbox's."""

    CARD = Card(
        "VBPR",
        2016,
        "AAAI",
        "content mapped beside item factors",
        "one or more",
        "no item or visual bias; regulariser on un-squared norms",
    )
    search_space = {"model.reg_weight": (2.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)}

    dim: Annotated[int, Ge(1)] = 64
    """Width of the free factors, and of the content beside them."""
    reg_weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the regulariser; its meaning depends on `variant`."""
    modalities: tuple[str, ...] | None = None
    """Item features to use; None takes all that are tables."""
    train_features: bool = False
    """Whether the feature tables are trained, or stay what they are, as released."""
    free_factors: bool = True
    """Whether items have factors of their own beside their content, and in the described variant a
    bias. False: a user's content factors times the mapped content alone, which ranks unseen items
    as it ranks all; not in the paper."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """"released": scores p_u . [q_i, sum over modalities m of W_m f_im + b] and a regulariser on
    the un-squared norms of the batch's rows, mapped content included.

    "described": the paper's eq. 4, p_u . [gamma_i, E f_i] + beta_i + beta' . f_i with the item's
    bias beta_i and the visual bias beta' (the constant and the user's bias are left out: they
    cancel in the loss and change no ranking; E has no bias of its own), and half the squares of
    what a triple touches, p_u, gamma_i, gamma_j, beta_i and beta_j, as a mean over triples. E and
    beta' are not shrunk, as the same authors have it later ("Ups and Downs", WWW 2016). With one
    modality it is the paper's model; more stand side by side, as released: E f_i and beta' . f_i
    are sums over modalities."""

    def build(self, data: Dataset, init: torch.Generator) -> "VBPRModel":
        return VBPRModel(self, data, init)


class VBPRModel(Recommender):
    """Dot products of [id, content], and in the described variant [id, content, bias].

    Without free factors of [content], and [content, visual bias].
    """

    ITEM_ROWS = ("item_ID", "bias_I")
    reg_weight: Tensor

    def __init__(self, cfg: VBPR, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.described, self.free = cfg.variant == "described", cfg.free_factors
        self.dim = cfg.dim
        names = item_modalities(cfg.modalities, data.features, "VBPR")
        tables = [
            FeatureTable(values_of(data.features[name]), trained=cfg.train_features)
            for name in names
        ]
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        self.user_UC = xavier_uniform(data.num_users, (1 + self.free) * cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init) if self.free else None
        self.features = nn.ModuleList(tables)
        deviation = math.sqrt(2 / (cfg.dim + sum(table.width for table in tables)))
        # The described map has one row more, the visual bias.
        outputs = cfg.dim + self.described
        self.map_OF = nn.ParameterList(
            normal((outputs, table.width), deviation, init) for table in tables
        )
        if not self.described:
            self.bias_D = zeros(cfg.dim)
        self.bias_I = zeros(data.num_items) if self.described and self.free else None
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, with the batch's `items` (Q,) and where among them the rows' items are."""
        for batch in super().epoch_batches(data, draws, epoch, shape):
            yield replace(batch, extra=item_places(batch.positive, batch.negative))

    def users(self, user_UC: Tensor) -> Tensor:
        """(..., C) rows of the user table; described: with a 1 for the items' bias."""
        return F.pad(user_UC, (0, 1), value=1.0) if self.described else user_UC

    def contents(self, item_Q: Tensor | None = None) -> list[Tensor]:
        """(Q, O) mapped content of each modality, of the items asked for or of all."""
        maps = zip(self.names, self.features, self.map_OF, strict=True)
        return [
            gated(self.gates, name, cast(FeatureTable, table).mapped(map_OF, item_Q))
            for name, table, map_OF in maps
        ]

    def items(self, item_Q: Tensor | None = None) -> Tensor:
        """(Q, C) the items asked for, or (I, C) all."""
        mapped = self.contents(item_Q)
        item_QO = sum(mapped[1:], start=mapped[0])
        if not self.described:
            item_QO = item_QO + self.bias_D
        elif self.bias_I is not None:
            bias_Q = self.bias_I if item_Q is None else rows(self.bias_I, item_Q)
            total_Q1 = item_QO[:, -1:] + bias_Q[:, None]
            item_QO = torch.cat((item_QO[:, :-1], total_Q1), 1)
        if self.item_ID is None:
            return item_QO
        id_QD = self.item_ID if item_Q is None else rows(self.item_ID, item_Q)
        return torch.cat((id_QD, item_QO), 1)

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, and `reg` as the variant has it."""
        item_QC = self.items(batch.extra["items"])
        user_BC = self.users(rows(self.user_UC, batch.user))
        positive_BC = rows(item_QC, batch.extra["positive_at"])
        negative_BNC = rows(item_QC, batch.extra["negative_at"])
        positive_B = (user_BC * positive_BC).sum(-1)
        negative_BN = (user_BC[:, None] * negative_BNC).sum(-1)
        if self.described:
            penalty = self._squares(batch, user_BC, positive_BC, negative_BNC)
        else:
            penalty = emb_loss(user_BC, positive_BC, negative_BNC)
        return Losses(
            {
                "bpr": bpr(positive_B[:, None], negative_BN, floor=1e-10),
                "reg": self.reg_weight * penalty,
            }
        )

    def _squares(
        self, batch: Batch, user_BC: Tensor, positive_BC: Tensor, negative_BNC: Tensor
    ) -> Tensor:
        """Half the squares of a triple's own parameters, mean over triples."""
        if self.bias_I is None:
            return half_squares(user_BC[:, : self.dim], size=len(batch.user))
        triple = half_squares(
            user_BC[:, : 2 * self.dim],
            positive_BC[:, : self.dim],
            rows(self.bias_I, batch.positive),
            size=len(batch.user),
        )
        return triple + half_squares(
            negative_BNC[..., : self.dim],
            rows(self.bias_I, batch.negative),
            size=batch.negative.numel(),
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, C) and (I, C), from the current weights."""
        return self.users(self.user_UC), self.items()

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the mapped content, without the described visual bias."""
        mapped = zip(self.names, self.contents(), strict=True)
        return {name: content_IO[:, : self.dim] for name, content_IO in mapped}

"""BM3: a user and an item predict each other's thinned-out embedding; there are no negatives.

Zhou et al., "Bootstrap Latent Representations for Multi-modal Recommendation", WWW 2023; released
in the MMRec toolbox.

Kept from the release: LightGCN's propagation with the items' own table added on top; one linear
predictor for users, items and all content; targets without a gradient and without the predictor,
of which dropout zeroes entries; the un-squared norms of ALL propagated users and items over the
number of items. Content acts in training only: its terms move the maps, the feature tables and the
predictor, and the score is made of propagated ids and the predictor. The feature tables are
trained.

Departures: content and dropout are computed for the batch's distinct users and items only, as
nothing else enters a step's loss; rows of one user, or of one item, share a mask, as they do in the
release. Dropout's factor 1 / (1 - rate) is left out: only the targets' directions matter. Scores
are computed from the current weights, without dropout. Any number of modalities: each adds its two
terms under the same weight, so content weighs more the more modalities there are.

Gates multiply mapped content in front of its bias. As its terms are cosines, a gate is felt beside
the bias alone: a closed one leaves the bias, the same for every item.

Letters in names: U users, I items, B batch, Q distinct users of a batch, P its distinct items,
M modalities, D embedding width, F feature columns.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.graphs import bipartite
from mmrec.losses import cosine_distance, emb_loss
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import linear as linear_layer
from mmrec.nn.init import uniform, xavier_normal, xavier_uniform
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import rows


@config
class BM3(ModelConfig):
    """Width and grid: the toolbox's."""

    CARD = Card(
        "BM3", 2023, "WWW", "bootstrapped views without negative samples", "one or more", ""
    )
    search_space = {
        "model.ui_layers": (1, 2),
        "model.reg_weight": (0.1, 0.01),
        "model.dropout": (0.3, 0.5),
    }
    STRUCTURE = ("dropout",)

    dim: Annotated[int, Ge(1)] = 64
    """Width of embeddings and of mapped content."""
    ui_layers: Annotated[int, Ge(1)] = 1
    """How many times embeddings are spread over the user-item graph."""
    reg_weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the norms of all propagated users and items."""
    cl_weight: Annotated[float, Ge(0)] = 2.0
    """Weight of each of the content terms, two a modality."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Share of a target's entries that are zeroed."""
    modalities: tuple[str, ...] | None = None
    """Item features to use; None takes all that are tables."""
    train_features: bool = True
    """Whether the feature tables are trained, as released, or stay what they are."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released"] = "released"
    """No mechanism of the release is known to be at odds with the paper."""

    def build(self, data: Dataset, init: torch.Generator) -> "BM3Model":
        return BM3Model(self, data, init)


class BM3Model(Recommender):
    """Dot products of predicted users and predicted items."""

    reg_weight: Tensor
    cl_weight: Tensor

    def __init__(self, cfg: BM3, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.ui_layers, self.dropout = cfg.ui_layers, cfg.dropout
        self.names = item_modalities(cfg.modalities, data.features, "BM3")
        values = [values_of(data.features[name]) for name in self.names]
        self.gates = gates_if(cfg.gate_modalities, self.names)
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        self.predictor = linear_layer(cfg.dim, cfg.dim, init, "xavier_normal")
        self.features = nn.ModuleList(FeatureTable(v, trained=cfg.train_features) for v in values)
        self.map_DF = nn.ParameterList(xavier_normal(cfg.dim, v.shape[1], init) for v in values)
        self.bias_D = nn.ParameterList(
            uniform((cfg.dim,), v.shape[1] ** -0.5, init) for v in values
        )
        self.graph = bipartite(data.train, data.num_users, data.num_items)
        for name in ("reg_weight", "cl_weight"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """Rows without negatives, whatever `shape` says, and what a step draws.

        In `extra`: `users` (Q,) and `items` (P,), the batch's distinct ones; `user_at` and
        `item_at` (B,), where among them the rows are; `user_kept` (Q, D) and `item_kept`
        (P, 1 + M, D), which entries dropout leaves: of the item, then of each modality.
        """
        chance = draws.generator("dropout", epoch)
        dim = self.user_UD.shape[1]

        def kept(*size: int) -> Tensor:
            return (torch.rand(*size, dim, generator=chance) >= self.dropout).to(data.device)

        pairs = BatchShape(shape.size, 0)
        for batch in super().epoch_batches(data, draws, epoch, pairs):
            users_Q, user_at_B = distinct(batch.user)
            items_P, item_at_B = distinct(batch.positive)
            extra = {
                "users": users_Q,
                "items": items_P,
                "user_at": user_at_B,
                "item_at": item_at_B,
                "user_kept": kept(len(users_Q)),
                "item_kept": kept(len(items_P), 1 + len(self.names)),
            }
            yield Batch(batch.user, batch.positive, batch.negative, extra, batch.full_size)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D) before the predictor; items with their own table added."""
        user_UD, item_ID = mean_of_layers(self.graph, self.user_UD, self.item_ID, self.ui_layers)
        return user_UD, item_ID + self.item_ID

    def contents(self, item_P: Tensor | None = None) -> dict[str, Tensor]:
        """Modality -> (P, D) mapped content of the items asked for, or of all."""
        maps = zip(self.names, self.features, self.map_DF, self.bias_D, strict=True)
        return {
            name: gated(self.gates, name, cast(FeatureTable, table).mapped(map_DF, item_P)) + bias_D
            for name, table, map_DF, bias_D in maps
        }

    def losses(self, batch: Batch) -> Losses:
        """One minus the mean cosine of a prediction and its target, for each kind of pair.

        `to_item`: the user predicts the item; `to_user`: the item the user; `NAME_to_item`: the
        content NAME predicts the item; `NAME_to_itself`: the content predicts itself. And `reg`.
        """
        user_UD, item_ID = self.propagate()
        user_QD, item_PD = rows(user_UD, batch.extra["users"]), rows(item_ID, batch.extra["items"])
        user_at_B, item_at_B = batch.extra["user_at"], batch.extra["item_at"]
        kept_PD = batch.extra["item_kept"].unbind(1)
        # The targets: constants with holes.
        goal_user_BD = rows(user_QD.detach() * batch.extra["user_kept"], user_at_B)
        goal_item_BD = rows(item_PD.detach() * kept_PD[0], item_at_B)
        terms = {
            "to_item": cosine_distance(rows(self.predictor(user_QD), user_at_B), goal_item_BD),
            "to_user": cosine_distance(rows(self.predictor(item_PD), item_at_B), goal_user_BD),
        }
        contents = self.contents(batch.extra["items"]).items()
        for (name, content_PD), own_kept_PD in zip(contents, kept_PD[1:], strict=True):
            guess_BD = rows(self.predictor(content_PD), item_at_B)
            goal_BD = rows(content_PD.detach() * own_kept_PD, item_at_B)
            terms[f"{name}_to_item"] = self.cl_weight * cosine_distance(guess_BD, goal_item_BD)
            terms[f"{name}_to_itself"] = self.cl_weight * cosine_distance(guess_BD, goal_BD)
        terms["reg"] = self.reg_weight * emb_loss(user_UD, item_ID)
        return Losses(terms)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D) as predicted from the current weights."""
        user_UD, item_ID = self.propagate()
        return self.predictor(user_UD), self.predictor(item_ID)

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the mapped content, before the predictor."""
        return self.contents()

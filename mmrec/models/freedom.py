"""FREEDOM: a frozen graph of items that look alike, beside a pruned user-item graph.

Zhou & Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
Recommendation", MM 2023; released in the MMRec toolbox.

Kept from the release: the item graph is built once from the features as they come, cosines choose
the neighbours and are then forgotten; only the items' own table is smoothed over it, and its length
is left as it is; each epoch trains on a fresh part of the user-item graph, scores are made on the
whole; a side loss a modality, whose weight the release calls `reg_weight`; no L2 term. The feature
tables are trained, by the side losses alone: the item graph never follows them.

Departures: the maps have no biases, which cancel in the side losses. Features are mapped for the
batch's distinct items only, with the same loss and gradients. An item without features has itself
alone as neighbour in that modality, where in the release its cosines are 0/0 and it becomes a
neighbour of every item. Any number of modalities: the one called "image" has `image_weight` in the
item graph, the others share the rest; each has a side loss under the same weight.

Gates multiply a modality's mapped content, and in every product with the item graph its share.

Letters in names: U users, I items, B batch, N negatives a row, Q distinct items of a batch,
D embedding width, F feature columns, E entries of the user-item graph.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, item_places
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import uniform, xavier_uniform
from mmrec.nn.item_graphs import (
    NeighbourShares,
    PrunedBipartite,
    image_shares,
    mean_of_neighbours,
    smoothed,
)
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import rows


@config
class FREEDOM(ModelConfig):
    """Width, graphs and grid: the toolbox's."""

    VERSION = 2
    CARD = Card(
        "FREEDOM",
        2023,
        "MM",
        "frozen item graph, pruned interactions",
        "one or more",
        "an item without features becomes every item's neighbour",
    )
    search_space = {
        "model.dropout": (0.8, 0.9),
        "model.reg_weight": (0.0, 1e-5, 1e-4, 1e-3),
    }
    STRUCTURE = ("image_weight", "dropout")

    dim: Annotated[int, Ge(1)] = 64
    """Width of embeddings and of mapped content."""
    ui_layers: Annotated[int, Ge(1)] = 2
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(0)] = 1
    """How many times the items' table is smoothed over the item graph; 0 adds it as it is."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in a modality, itself among them."""
    image_weight: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Share of the image neighbours in the item graph."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.8
    """Share of the user-item edges that an epoch does not train on, rounded so that
    floor(edges * (1 - dropout)) are kept, in binary floating point."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of each modality's side loss; at 0 maps and feature tables stay what they are."""
    modalities: tuple[str, ...] | None = None
    """Item features to use; None takes all that are tables."""
    train_features: bool = True
    """Whether the feature tables are trained, as released, or stay what they are."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released"] = "released"
    """What the release gets wrong, items without features, is mended in it too."""

    def build(self, data: Dataset, init: torch.Generator) -> "FREEDOMModel":
        return FREEDOMModel(self, data, init)


class FREEDOMModel(Recommender):
    """Dot products of propagated users and items, each item joined by its neighbours' mean."""

    reg_weight: Tensor

    def __init__(self, cfg: FREEDOM, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.ui_layers, self.item_layers = cfg.ui_layers, cfg.item_layers
        self.names = item_modalities(cfg.modalities, data.features, "FREEDOM")
        self.gates = gates_if(cfg.gate_modalities, self.names)
        values = [values_of(data.features[name]) for name in self.names]
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        self.features = nn.ModuleList(FeatureTable(v, trained=cfg.train_features) for v in values)
        self.map_DF = nn.ParameterList(
            uniform((cfg.dim, v.shape[1]), v.shape[1] ** -0.5, init) for v in values
        )
        shares = image_shares(self.names, cfg.image_weight)
        alike = mean_of_neighbours if self.gates is None else NeighbourShares
        self.alike = alike(values, shares, cfg.knn_k)
        self.part = PrunedBipartite(data, 1 - cfg.dropout)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Draw the edges to train on."""
        self.part.prune(draws, epoch)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, with the batch's `items` (Q,) and where among them the rows' items are."""
        for batch in super().epoch_batches(data, draws, epoch, shape):
            yield replace(batch, extra=item_places(batch.positive, batch.negative))

    def propagate(self, weight_E: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D) on the whole user-item graph, or under other weights."""
        user_UD, item_ID = mean_of_layers(
            self.part.graph, self.user_UD, self.item_ID, self.ui_layers, weight_E
        )
        alike_ID = smoothed(self.alike, self.item_ID, self.item_layers, self.gates)
        return user_UD, item_ID + alike_ID

    def contents(self, item_Q: Tensor | None = None) -> dict[str, Tensor]:
        """Modality -> (Q, D) mapped content of the items asked for, or of all."""
        maps = zip(self.names, self.features, self.map_DF, strict=True)
        return {
            name: gated(self.gates, name, cast(FeatureTable, table).mapped(map_DF, item_Q))
            for name, table, map_DF in maps
        }

    def losses(self, batch: Batch) -> Losses:
        """`bpr` on the epoch's part of the graph, and `bpr_NAME` of users and mapped content."""
        user_UD, item_ID = self.propagate(self.part.weight_E)
        user_BD = rows(user_UD, batch.user)
        terms = {"bpr": _bpr(user_BD, item_ID, batch.positive, batch.negative)}
        at = batch.extra["positive_at"], batch.extra["negative_at"]
        for name, content_QD in self.contents(batch.extra["items"]).items():
            terms[f"bpr_{name}"] = self.reg_weight * _bpr(user_BD, content_QD, *at)
        return Losses(terms)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D) on the whole user-item graph, from the current weights."""
        return self.propagate()

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the mapped content."""
        return self.contents()


def _bpr(user_BD: Tensor, table_ID: Tensor, positive_B: Tensor, negative_BN: Tensor) -> Tensor:
    """BPR of users with rows of a table."""
    wanted_B = (user_BD * rows(table_ID, positive_B)).sum(-1)
    other_BN = (user_BD[:, None] * rows(table_ID, negative_BN)).sum(-1)
    return bpr(wanted_B[:, None], other_BN)

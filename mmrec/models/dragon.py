"""DRAGON: DualGNN with towers side by side, and items that also listen to items alike.

Zhou et al., "Enhancing Dyadic Relations with Homogeneous Graphs for Multimodal Recommendation",
ECAI 2023. With the towers v_m of `mmrec.nn.towers`, one a modality, weights a_um that every user
learns, and S the mean over each item's k neighbours by features (`mean_of_neighbours`):

    items   y_i = [v_i1, ..., v_iM],              z = y + S^layers y
    users   r_u = [a_u1 v_u1, ..., a_uM v_uM],    z_u = r_u + the weighted mean of r over u's slots
    loss    BPR on <z_u, z_i> + reg_weight (preferences of the batch + weights of users)

Kept from the MMRec toolbox: 40 slots of the users with most common items, refilled every epoch
where a user has fewer (`mmrec.nn.user_graph`, which also says how ties fall); the item graph from
the features as given, each item among its neighbours, image and text mixed by `image_weight`
(`image_shares` for other modalities); features that are not trained: the toolbox registers two
tables that get no gradient.

Fault of the toolbox, which the variant "released" keeps: BPR has log2 for the natural logarithm,
so that the ranking term is 1 / ln 2 times as large. "described" has the natural one (our mend),
with any number of modalities.

Departures in both: the item graph always belongs to these features and weights (the toolbox
reloads whichever it last built for that k); the logarithm of the sigmoid does not overflow;
embeddings are computed from the current weights and the last epoch's slots, not cached in the
last training step; with one modality, which the toolbox's r_u is by itself, there are no modality
weights, nor their penalty. Left out: the dead feature tables, maps and modality weights of items,
and edge dropping, which has no effect.

Gates multiply a tower's content, after its division by the length, and a modality's share of S in
every product; users' preferences are not gated.

Letters in names: U users, I items, B batch, N negatives a row, M modalities, D width of a tower,
C width of all towers side by side.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import item_modalities, values_of
from mmrec.nn.gates import gate_measures, gates_if
from mmrec.nn.item_graphs import NeighbourShares, image_shares, mean_of_neighbours, smoothed
from mmrec.nn.tables import rows
from mmrec.nn.towers import Towers, modality_weights
from mmrec.nn.user_graph import UserGraph, closest_users


@config
class DRAGON(ModelConfig):
    """Defaults and grid: the toolbox's."""

    VERSION = 2
    CARD = Card(
        "DRAGON",
        2023,
        "ECAI",
        "DualGNN concatenated, plus item graph",
        "one or more",
        "log2 in BPR; item graph reloaded by k alone; dead feature tables",
    )
    search_space = {
        "model.reg_weight": (0.1, 1e-2, 1e-3, 1e-4, 1e-5),
        "train.lr": (0.1, 1e-2, 1e-3, 1e-4, 1e-5),
    }
    released_training = {"train.lr": 1e-4}
    STRUCTURE = ("image_weight",)

    dim: Annotated[int, Ge(1)] = 64
    """Width of a tower, and of a modality's part of the embeddings; hard-coded in the release."""
    hidden_dim: Annotated[int, Ge(1)] = 256
    """Width between the two maps of the content; hard-coded in the release."""
    ui_layers: Annotated[int, Ge(0)] = 2
    """How many times towers are spread over the user-item graph; hard-coded in the release."""
    layers: Annotated[int, Ge(1)] = 1
    """How many times items are spread over the item graph."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in each modality's graph, itself among them."""
    image_weight: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Share of the image graph in the mix; other modalities share the rest."""
    user_neighbours: Annotated[int, Ge(1)] = 40
    """Slots of a user for users with common items; hard-coded in the release."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of the mean squares of preferences and of modality weights."""
    modalities: tuple[str, ...] | None = None
    """Item modalities, the order of the towers; None takes all that are tables, by alphabet."""
    train_features: bool = False
    """Whether the towers' feature tables are trained, as in no release; the graph never is."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """As the toolbox computes it, or with its fault mended; see the module."""

    def build(self, data: Dataset, init: torch.Generator) -> "DRAGONModel":
        return DRAGONModel(self, data, init)


class DRAGONModel(Recommender):
    """Dot products of towers side by side: users' spread over users, items' over items."""

    reg_weight: Tensor

    def __init__(self, cfg: DRAGON, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "DRAGON")
        self.released, self.layers = cfg.variant == "released", cfg.layers
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        several = len(names) > 1
        self.user_UM = modality_weights(data.num_users, len(names), init) if several else None
        self.towers = Towers(
            data,
            names,
            dim=cfg.dim,
            hidden=cfg.hidden_dim,
            layers=cfg.ui_layers,
            trained=cfg.train_features,
            init=init,
        )
        self.users = UserGraph(closest_users(data, cfg.user_neighbours), cfg.user_neighbours)
        tables = [values_of(data.features[name]) for name in names]
        alike = mean_of_neighbours if self.gates is None else NeighbourShares
        self.items = alike(tables, image_shares(names, cfg.image_weight), cfg.knn_k)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Fill the slots of users with few neighbours."""
        self.users.start_epoch(draws, epoch)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, C) and (I, C), the two z."""
        tower_UMD, tower_IMD = self.towers(self.gates)
        if self.user_UM is not None:
            tower_UMD = self.user_UM[..., None] * tower_UMD
        item_IC = tower_IMD.flatten(1)
        spread_IC = smoothed(self.items, item_IC, self.layers, self.gates)
        return self.users(tower_UMD.flatten(1)), item_IC + spread_IC

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, `preferences`, and `weights` where there is more than one modality."""
        user_UC, item_IC = self.embeddings()
        user_BC = rows(user_UC, batch.user)
        positive_B = (user_BC * rows(item_IC, batch.positive)).sum(-1)
        negative_BN = (user_BC[:, None] * rows(item_IC, batch.negative)).sum(-1)
        unit = math.log(2) if self.released else 1.0
        terms = {
            "bpr": bpr(positive_B[:, None], negative_BN) / unit,
            "preferences": self.reg_weight * self.towers.preference_penalty(batch.user),
        }
        if self.user_UM is not None:
            terms["weights"] = self.reg_weight * self.user_UM.square().mean()
        return Losses(terms)

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the items of each tower, before they listen to items alike."""
        _, tower_IMD = self.towers(self.gates)
        return dict(zip(self.names, tower_IMD.unbind(1), strict=True))

"""DualGNN: a graph convolution a modality, mixed for each user, then a hop over similar users.

Wang et al., "DualGNN: Dual Graph Neural Network for Multimedia Recommendation", IEEE TMM 2021.
With the towers v_m of `mmrec.nn.towers`, one a modality, and weights a_um that every user learns:

    items   z_i = sum over m of v_im
    users   r_u = sum over m of a_um v_um,    z_u = r_u + the weighted mean of r over u's slots
    loss    BPR on <z_u, z_i> + reg_weight (preferences of the batch + weights of all)

Kept from the MMRec toolbox: 40 slots of the users with most common items, refilled every epoch
where a user has fewer (`mmrec.nn.user_graph`, which also says how ties fall); features that are
not trained; preferences regularised by their mean square over the batch's users and columns.

Faults of the toolbox, which the variant "released" keeps:

* It adds the towers up in place, into the first one's array, before users weigh them. So
  r_u = a_u1 (v_u1 + ... + v_uM) + a_u2 v_u2 + ... + a_uM v_uM, the first tower being that of the
  first modality. (The toolbox has image, then text; this is its addition with more.)
* BPR has log2 for the natural logarithm: the ranking term is 1 / ln 2 times as large.
* Items have a table of modality weights too, which is penalised and never read by the scores.

"described" mends all three (our mends): r_u as above, the natural logarithm, no table of items.
With one modality the two variants differ in the logarithm only.

Departures in both: the logarithm of the sigmoid does not overflow; embeddings are computed from
the current weights and the last epoch's slots, not cached in the last training step; with one
modality, which the toolbox's r_u is by itself, there are no modality weights, nor their penalty.
Left out: the dead 64-wide maps, and edge dropping, which has no effect.

Gates multiply items' content inside the towers, after the division by its length, which would undo
them: what is left of a tower whose gate is closed are users' preferences, spread over the graph.

Letters in names: U users, I items, B batch, N negatives a row, M modalities, D width.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import item_modalities
from mmrec.nn.gates import gate_measures, gates_if
from mmrec.nn.tables import rows
from mmrec.nn.towers import Towers, modality_weights
from mmrec.nn.user_graph import UserGraph, closest_users


@config
class DualGNN(ModelConfig):
    """Defaults and grid: the toolbox's."""

    CARD = Card(
        "DualGNN",
        2021,
        "TMM",
        "modality towers plus co-occurring users",
        "one or more",
        "towers are summed in place before users weigh them; log2 in BPR",
    )
    search_space = {
        "model.reg_weight": (0.1, 1e-2, 1e-3, 1e-4, 1e-5),
        "train.lr": (0.1, 1e-2, 1e-3, 1e-4, 1e-5),
    }

    dim: Annotated[int, Ge(1)] = 64
    """Width of a tower, and of user and item embeddings; hard-coded in the release."""
    hidden_dim: Annotated[int, Ge(1)] = 256
    """Width between the two maps of the content; hard-coded in the release."""
    layers: Annotated[int, Ge(0)] = 2
    """How many times towers are spread over the user-item graph; hard-coded in the release."""
    user_neighbours: Annotated[int, Ge(1)] = 40
    """Slots of a user for users with common items; hard-coded in the release."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of the mean squares of preferences and of modality weights."""
    modalities: tuple[str, ...] | None = None
    """Item modalities, the order of the towers; None takes all that are tables, by alphabet."""
    train_features: bool = False
    """Whether the feature tables are trained; they are not in the release."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """As the toolbox computes it, or with its faults mended; see the module."""

    def build(self, data: Dataset, init: torch.Generator) -> "DualGNNModel":
        return DualGNNModel(self, data, init)


class DualGNNModel(Recommender):
    """Dot products of users' mixed and spread towers with items' sums of towers."""

    reg_weight: Tensor

    def __init__(self, cfg: DualGNN, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "DualGNN")
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        self.released = cfg.variant == "released"
        several, width = len(names) > 1, len(names)
        self.user_UM = modality_weights(data.num_users, width, init) if several else None
        read_never = several and self.released
        self.item_IM = modality_weights(data.num_items, width, init) if read_never else None
        self.towers = Towers(
            data,
            names,
            dim=cfg.dim,
            hidden=cfg.hidden_dim,
            layers=cfg.layers,
            trained=cfg.train_features,
            init=init,
        )
        self.users = UserGraph(closest_users(data, cfg.user_neighbours), cfg.user_neighbours)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Fill the slots of users with few neighbours."""
        self.users.start_epoch(draws, epoch)

    def mixed(self, tower_UMD: Tensor) -> Tensor:
        """(U, D) r, what each user makes of their towers."""
        if self.user_UM is None:
            return tower_UMD[:, 0]
        weight_UM = self.user_UM
        if self.released:
            # The sum stands in the place of the first tower: its weight falls on all.
            weight_UM = weight_UM[:, :1] + F.pad(weight_UM[:, 1:], (1, 0))
        return (weight_UM[..., None] * tower_UMD).sum(1)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D), the two z."""
        tower_UMD, tower_IMD = self.towers(self.gates)
        return self.users(self.mixed(tower_UMD)), tower_IMD.sum(1)

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the items of each tower."""
        _, tower_IMD = self.towers(self.gates)
        return dict(zip(self.names, tower_IMD.unbind(1), strict=True))

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, `preferences`, and `weights` where there is more than one modality."""
        user_UD, item_ID = self.embeddings()
        user_BD = rows(user_UD, batch.user)
        positive_B = (user_BD * rows(item_ID, batch.positive)).sum(-1)
        negative_BN = (user_BD[:, None] * rows(item_ID, batch.negative)).sum(-1)
        unit = math.log(2) if self.released else 1.0
        terms = {
            "bpr": bpr(positive_B[:, None], negative_BN) / unit,
            "preferences": self.reg_weight * self.towers.preference_penalty(batch.user),
        }
        tables = [table for table in (self.user_UM, self.item_IM) if table is not None]
        if tables:
            squares = torch.stack([table.square().mean() for table in tables])
            terms["weights"] = self.reg_weight * squares.sum()
        return Losses(terms)

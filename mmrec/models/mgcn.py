"""MGCN: content passes a gate of the item's own embedding before it spreads, then is weighed.

Yu et al., "Multi-View Graph Convolutional Network for Multimedia Recommendation", MM 2023. Q are
the items' embeddings, P the users', X_m the features of modality m, s the logistic function:

    purified items    V_m = Q * s(B_m Z_m + b_m),  Z_m = A_m X_m + a_m
    behaviour         E = the mean of layers 0 to ui_layers of A^l [P; Q], A the user-item graph
    modality          T_m = G_m^item_layers V_m of items, summed over a user's items by A
    common            K = sum_m w_m T_m,  w = softmax over m of q . tanh(C T_m + c), a node each
    side              S = (K + sum_m s(D_m E + e_m) * (T_m - K)) / (M + 1)
    scores            dot products of E + S

The losses are `bpr`; `reg`, half the squares of the batch's output rows over the size of a full
batch; and `contrast`, a one-way InfoNCE from side to behaviour rows within the batch.

Kept from the MMRec toolbox (the authors' release has the same model): all of the above; item graphs
of the raw features, with the cosines as entries and ROW sums on both sides, which do not follow the
trained feature tables. Several modalities: the release has image and text, and 3 where M + 1 stands
here.

Departures: one modality, with which the release crashes, has w = 1, so K = T and S = T / 2;
attention and preferences are then left out. An all-zero row of features has itself alone as
neighbour (in the release it makes every number NaN). Item graphs always belong to these features
(the release reloads whatever was built for that k). A training step computes attention, preferences
and side at the batch's own nodes; the numbers are the same.

Gates of modalities (not the s above) multiply T_m, of items and of users, before attention sees it;
the cosines of `contrast` are multiplied by the largest gate, which learns nothing from that.

Letters in names: U users, I items, M modalities, D embedding width, Q distinct nodes of a batch
(users, then items), or all nodes.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import symmetric
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import MappedFeatures, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import xavier_uniform
from mmrec.nn.item_graphs import neighbours
from mmrec.nn.views import (
    Gate,
    Views,
    attention,
    batch_nodes,
    common_and_apart,
    preferences,
    view_losses,
)


@config
class MGCN(ModelConfig):
    """Width, graphs and grid: the toolbox's."""

    VERSION = 2
    CARD = Card(
        "MGCN",
        2023,
        "MM",
        "content gated by item embeddings",
        "one or more",
        "crashes with one modality; graph files keyed by k alone",
    )
    search_space = {"model.cl_weight": (0.001, 0.01, 0.1)}
    released_training = {"train.lr_decay": 0.96}

    modalities: tuple[str, ...] | None = None
    """Names of item features, all tables; None takes all there are."""
    dim: Annotated[int, Ge(1)] = 64
    """Width of embeddings and of mapped features."""
    ui_layers: Annotated[int, Ge(0)] = 2
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(0)] = 1
    """How many times gated embeddings are spread over each modality's item graph."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in each modality's graph, itself among them."""
    reg_weight: Annotated[float, Ge(0)] = 1e-4
    """Weight of the L2 term on the batch's final representations."""
    cl_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the contrast of side and behaviour."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the contrast, a constant in the release."""
    train_features: bool = True
    """Whether the feature tables are parameters, as in the release."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released"] = "released"
    """What the release gets wrong, rows of zeros and one modality, is mended in it too."""

    def build(self, data: Dataset, init: torch.Generator) -> "MGCNModel":
        return MGCNModel(self, data, init)


class MGCNModel(Recommender):
    """Dot products of behaviour plus side, which is what modalities have in common and apart."""

    reg_weight: Tensor
    cl_weight: Tensor
    tau: Tensor

    def __init__(self, cfg: MGCN, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "MGCN")
        self.names, self.modality_gates = names, gates_if(cfg.gate_modalities, names)
        values = [values_of(data.features[name]) for name in names]
        dim = cfg.dim
        self.user_UD = xavier_uniform(data.num_users, dim, init)
        self.item_ID = xavier_uniform(data.num_items, dim, init)
        self.mapped = nn.ModuleList(
            MappedFeatures(v, dim, init, trained=cfg.train_features) for v in values
        )
        self.gates = nn.ModuleList(Gate(dim, init) for _ in names)
        self.several = len(names) > 1
        if self.several:
            self.attention = attention(dim, init)
            self.preferences = preferences(len(names), dim, init)
        self.views = Views(
            data,
            [symmetric(neighbours(v, cfg.knn_k)) for v in values],
            ui_layers=cfg.ui_layers,
            item_layers=cfg.item_layers,
        )
        for name in ("reg_weight", "cl_weight", "tau"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def purified(self) -> list[Tensor]:
        """(I, D) of each modality, the V before they spread."""
        return [
            self.item_ID * gate(mapped())
            for gate, mapped in zip(self.gates, self.mapped, strict=True)
        ]

    def behaviour_and_side(
        self, users: Tensor | None = None, items: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(Q, D) each, at the users and items wanted, or at all."""
        behaviour_QD, content_QMD = self.views(
            self.user_UD, self.item_ID, self.purified(), users, items
        )
        if self.modality_gates is not None:
            content_QMD = self.modality_gates()[:, None] * content_QMD
        return behaviour_QD, self.side(behaviour_QD, content_QMD)

    def side(self, behaviour_QD: Tensor, content_QMD: Tensor) -> Tensor:
        """(Q, D) of each node: what its modalities have in common, and what each adds."""
        if not self.several:
            return content_QMD[:, 0] / 2
        return common_and_apart(behaviour_QD, content_QMD, self.attention, self.preferences)

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, `reg` and `contrast`, the two of users and of items summed."""
        nodes = batch.extra
        views = self.behaviour_and_side(nodes["users"], nodes["items"])
        size = batch.full_size or len(batch.user)
        ranking, squares, contrast = view_losses(
            *views, nodes, self.tau, size=size, gates=self.modality_gates
        )
        return Losses(
            {
                "bpr": ranking,
                "reg": self.reg_weight * squares,
                "contrast": self.cl_weight * contrast,
            }
        )

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, with their distinct nodes (`batch_nodes`)."""
        for batch in super().epoch_batches(data, draws, epoch, shape):
            yield replace(batch, extra=batch_nodes(batch.user, batch.positive, batch.negative))

    def embeddings(self) -> tuple[Tensor, Tensor]:
        behaviour_VD, side_VD = self.behaviour_and_side()
        sizes = (len(self.user_UD), len(self.item_ID))
        user_UD, item_ID = (behaviour_VD + side_VD).split(sizes)
        return user_UD, item_ID

    def measures(self) -> dict[str, float]:
        return gate_measures(self.modality_gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the purified items, before they spread; gates and spreading commute."""
        return {
            name: gated(self.modality_gates, name, view_ID)
            for name, view_ID in zip(self.names, self.purified(), strict=True)
        }

"""LATTICE: the graph between items is mined from their features, and learned.

Zhang et al., "Mining Latent Structures for Multimedia Recommendation", MM 2021. With S_k(Y) the
cosines of each row of Y with its k nearest rows, itself among them, N(M)_ij = r_i^(-1/2) M_ij
r_j^(-1/2) with r the ROW sums of M, Z_m = X_m A_m^T + a_m the mapped features, w the softmax of a
weight a modality, and l = `frozen_share`:

    G = (1 - l) N(sum_m w_m S_k(Z_m)) + l sum_m w_m N(S_k(X_m))

Items are the mean of the layers of a linear propagation over users and items (each node averaged
with its neighbours: rows of A + 1 divided by their sums), plus the rows of G^item_layers Q brought
to unit length, Q the items' own embeddings; users are the propagation alone.

Kept from the MMRec toolbox (the authors' release has the same equations): all of the above, and
an L2 term on the FINAL representations of the batch, divided by the size of a full batch. Cosines
of a list that sum below 0 make G, and the loss, NaN.

Fault of both, which the variant "released" keeps: G is computed with a gradient in the first step
of an epoch only. The other steps use its numbers, so maps, feature tables and modality weights
learn from one step in 58 on Amazon Baby, and from a graph that is an epoch old. (Optimisers skip a
parameter without a gradient, as they do from torch 2.0 on.) "described" computes the G above with
its gradient in every step, which is our mend; the form is the same for one or three modalities.

Departures in both: `embeddings` computes G from the current weights, once and not for every
batch of users; an all-zero row of features has itself alone as neighbour, and the cosine 1 (NaN in
the release); frozen graphs always belong to these features (the release reloads whatever was built
for that k). The mf head of the release is `ui_layers` = 0; its ngcf head is left out, and so are
the modality weights where there is one modality.

Gates g stand at three places. Z_m = A_m (g_m X_m) + a_m: a closed gate leaves the same row for all
items, and so row sums r that know nothing of the modality. As N and cosines undo most of that,
every entry that m brings to G, learned or frozen, is multiplied by g_m after N. And as unit length
undoes what gates have in common, rows are multiplied after it by the mean of the gates, each
weighted by itself: (sum_m g_m^2) / (sum_m g_m). With all closed nothing is added, and with one open
what is added is as long as its gate says. (The largest gate would have that too, but whichever was
ahead by chance would run away from the others.) The last two learn in every step of either variant,
also where the numbers of G are an epoch old.

Letters in names: U users, I items, B batch, C one positive and then the negatives of a row, D
embedding width, F width of mapped features, M modalities, K neighbours, S = 2 M K slots of an
item's list: the learned graphs, then the frozen ones.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import scipy.sparse as sp
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import Graph, adjacency, row_mean, symmetric
from mmrec.losses import bpr, half_squares
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.features import MappedFeatures, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gates_if
from mmrec.nn.init import xavier_uniform
from mmrec.nn.item_graphs import neighbours
from mmrec.nn.neighbour_lists import NeighbourLists, nearest_cosines, padded
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import Constant, rows

_LEAST = 1e-12
"""Sums of gates below this, all closed, count as this."""


@config
class LATTICE(ModelConfig):
    """Defaults and grid: the toolbox's."""

    VERSION = 2
    CARD = Card(
        "LATTICE",
        2021,
        "MM",
        "item graph learned from content",
        "one or more",
        "the graph learns from one step an epoch; graph files keyed by k alone",
    )
    search_space = {
        "model.reg_weight": (0.0, 1e-5, 1e-4, 1e-3),
        "train.lr": (1e-4, 5e-4, 1e-3, 5e-3),
    }
    released_training = {"train.lr_decay": 0.96}

    modalities: tuple[str, ...] | None = None
    """Names of item features, all tables; None takes all there are."""
    dim: Annotated[int, Ge(1)] = 64
    """Width of user and item embeddings."""
    feature_dim: Annotated[int, Ge(1)] = 64
    """Width of the mapped features, which only measure likeness."""
    ui_layers: Annotated[int, Ge(0)] = 2
    """How many times embeddings are spread over the user-item graph; 0: matrix factorisation."""
    item_layers: Annotated[int, Ge(1)] = 1
    """How many times item embeddings are spread over the item graph."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in each modality's graph, itself among them."""
    frozen_share: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Share of the graphs of raw features; the learned graph has the rest."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of the L2 term on the batch's final representations."""
    train_features: bool = True
    """Whether the feature tables are parameters, as in the release."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """Whether the item graph learns in the first step of an epoch, or in all."""

    def build(self, data: Dataset, init: torch.Generator) -> "LATTICEModel":
        return LATTICEModel(self, data, init)


class LATTICEModel(Recommender):
    """Dot products; items are propagated, then shifted towards items that look alike."""

    frozen_share: Tensor
    reg_weight: Tensor
    near_IS: Tensor
    weight_IS: Tensor

    def __init__(self, cfg: LATTICE, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "LATTICE")
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        values = [values_of(data.features[name]) for name in names]
        self.ui_layers, self.item_layers, self.knn_k = cfg.ui_layers, cfg.item_layers, cfg.knn_k
        self.rebuild_always = cfg.variant == "described"
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        self.mapped = nn.ModuleList(
            MappedFeatures(v, cfg.feature_dim, init, trained=cfg.train_features) for v in values
        )
        several = len(names) > 1
        self.modality_M = nn.Parameter(torch.full((len(names),), 0.5)) if several else None
        seen = adjacency(data.train, data.num_users, data.num_items)
        self.graph = Graph(row_mean(sp.csr_array(seen + sp.eye_array(seen.shape[0]))))
        frozen = [
            padded(symmetric(neighbours(v, cfg.knn_k)), min(cfg.knn_k, len(v))) for v in values
        ]
        self.frozen_near_IMK, self.frozen_IMK = (
            Constant(torch.stack(part, 1)) for part in zip(*frozen, strict=True)
        )
        self.register_buffer("frozen_share", torch.tensor(cfg.frozen_share), persistent=False)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)
        with torch.no_grad():
            # What a step meets that comes before any rebuild; a rebuild replaces it.
            for name, value in self.item_graph()._asdict().items():
                self.register_buffer(name, value, persistent=False)

    def contents(self) -> list[Tensor]:
        """(I, F) mapped features of each modality, Z."""
        gates = [None] * len(self.mapped) if self.gates is None else self.gates().unbind()
        return [mapped(gate) for mapped, gate in zip(self.mapped, gates, strict=True)]

    def item_graph(self) -> NeighbourLists:
        """G of the current weights, with its gradient in all of them (the module's equation).

        Which items are near has no gradient, how near they are has. Gates are in Z alone.
        """
        learned = [nearest_cosines(content_IF, self.knn_k) for content_IF in self.contents()]
        near_IMK, cosine_IMK = (torch.stack(part, 1) for part in zip(*learned, strict=True))
        share_M1 = cosine_IMK.new_ones(1, 1)
        if self.modality_M is not None:
            share_M1 = self.modality_M.softmax(0)[:, None]
        learned_IMK = share_M1 * cosine_IMK
        scale_I = learned_IMK.sum((1, 2)) ** -0.5
        learned_IMK = scale_I[:, None, None] * learned_IMK * rows(scale_I, near_IMK)
        frozen_IMK = share_M1 * self.frozen_IMK.value
        weight = ((1 - self.frozen_share) * learned_IMK, self.frozen_share * frozen_IMK)
        return NeighbourLists(
            torch.cat((near_IMK, self.frozen_near_IMK.value), 1).flatten(1),
            torch.cat(weight, 1).flatten(1),
        )

    def propagate(self, graph: NeighbourLists) -> tuple[Tensor, Tensor, Tensor]:
        """Users (U, D), items (I, D), and what is near them (I, D), of any length."""
        user_UD, item_ID = mean_of_layers(self.graph, self.user_UD, self.item_ID, self.ui_layers)
        near_ID = self.item_ID
        if self.gates is not None:
            # Slots are learned ones and frozen ones, of one modality after the other.
            apart = graph.weight_IS.unflatten(1, (2, len(self.names), -1))
            weight_IS = (self.gates()[:, None] * apart).flatten(1)
            graph = graph._replace(weight_IS=weight_IS)
        for _ in range(self.item_layers):
            near_ID = graph.spread(near_ID)
        return user_UD, item_ID, near_ID

    def shift(self, near: Tensor) -> Tensor:
        """(..., D) what is added to items of which these rows are near: of length 1 or by gates."""
        unit = F.normalize(near, dim=-1)
        if self.gates is None:
            return unit
        gate_M = self.gates()
        return gate_M.square().sum() / gate_M.sum().clamp_min(_LEAST) * unit

    def losses(self, batch: Batch) -> Losses:
        """`bpr` and `reg`; the first batch of an epoch says "rebuild", which renews the graph."""
        rebuild = "rebuild" in batch.extra
        graph = self.item_graph() if rebuild else NeighbourLists(self.near_IS, self.weight_IS)
        user_UD, item_ID, near_ID = self.propagate(graph)
        item_BC = torch.cat((batch.positive[:, None], batch.negative), 1)
        user_BD = rows(user_UD, batch.user)
        item_BCD = rows(item_ID, item_BC) + self.shift(rows(near_ID, item_BC))
        score_BC = (user_BD[:, None] * item_BCD).sum(-1)
        squares = half_squares(user_BD, item_BCD, size=batch.full_size or len(batch.user))
        terms = {
            "bpr": bpr(score_BC[:, :1], score_BC[:, 1:]),
            "reg": self.reg_weight * squares,
        }
        new = {name: value.detach() for name, value in graph._asdict().items()}
        return Losses(terms, new if rebuild else {})

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows. A step renews the item graph where `extra` has "rebuild", whatever it holds."""
        for step, batch in enumerate(super().epoch_batches(data, draws, epoch, shape)):
            if self.rebuild_always or step == 0:
                yield replace(batch, extra={"rebuild": batch.user.new_zeros(1)})
            else:
                yield batch

    def embeddings(self) -> tuple[Tensor, Tensor]:
        user_UD, item_ID, near_ID = self.propagate(self.item_graph())
        return user_UD, item_ID + self.shift(near_ID)

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, F) the mapped features."""
        return dict(zip(self.names, self.contents(), strict=True))

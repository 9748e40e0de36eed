"""CRANE: recursive attention across modalities, beside a graph of users and items.

Dai et al., "Cross-Modal Attention Network with Dual Graph Learning in Multimodal Recommendation",
ACM TOMM 2026 (arXiv 2601.11151). The paper and its release are two models; there is one class for
each.

"described" is a reconstruction: the paper leaves equations of the attention, the users' side and
the negatives open. With F_m the features of modality m, T the user-item training pairs (0 or 1):

    items        X_m = RCA(F_m W_m), W_m without a bias
    users        X_m = RCA(T F_m W_m), the same RCA; a sum (`profile`: or a mean) over a history
    semantic     h = [X_1 | ... | X_M] C + c; of items, then averaged `item_layers` times over the
                 item graph; of users their own, or the mean of h over their items (`user_side`)
    behaviour    e = the mean of layers 0 to `ui_layers` of LightGCN on tables of their own
    scores       dot products of z = e + h
    losses       `bpr`, and `contrast`: InfoNCE of users plus that of positive items, anchor e,
                 target h of the same node, cosines over `tau`

RCA is `mmrec.nn.rca`. The item graph joins each item with the `knn_k` whose [X_1 | ... | X_M] have
the highest cosines with its own, itself among them, for a plain mean: cosines choose and are then
forgotten, as in the release. It has no gradient. With `rebuild` "epoch" an epoch trains on the
graph of the weights that it starts from, and `embeddings` computes that of the current weights;
with "once" both keep that of the initial weights. Each epoch trains the behaviour branch on a share
1 - `dropout` of the edges, drawn uniformly, normalised by its own degrees; scores are made on the
whole.

What negatives a node is held against: "batch": the targets of all rows of the batch, each as often
as it occurs, so that a node met twice is its own negative; "distinct": of the batch's distinct
nodes, each once; "nodes": of as many nodes as the batch has rows, or of all if these are fewer,
drawn uniformly without replacement at each step, itself left out. Its own target always counts; the
mean is over the rows. `rca_columns` "topk" lets a node attend to the `rca_k` nearest by cosines of
the features as they come, side by side, itself among them; users by sums over their histories.

"released" is the code (github.com/MKC-Lab/CRANE), which has no profile, recursion, refined graph or
contrast:

    V_m = (F_m A_m + a_m) B_m + b_m
    h   = G^item_layers mean_m MHA(V_m), of items only; users are e alone

MHA is one attention with 4 heads of all items to all items, shared by modalities, which never see
each other; G is FREEDOM's graph, of the features as they come, and so is the pruning of user-item
edges. `bpr` is the only loss: the release reads its `reg_weight` and never uses it. A common offset
of all h_i changes nothing, so the attention's biases of values and output are dead up to rounding,
and so is that of keys. With one modality the items' own table takes the place of the mean of MHA.
Departures: an item without features has itself alone as neighbour in that modality (in the release
its cosines are 0/0), and more than two modalities are allowed as in `mmrec.models.freedom`.

Letters in names: U users, I items, M modalities, B batch, N negatives a row, C one positive and
then the negatives of a row, D embedding width, F feature columns, K neighbours, Q distinct nodes of
a batch.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.graphs import Graph, binary, keep_likely, ones, row_mean, spmm
from mmrec.losses import bpr
from mmrec.metrics import dirichlet_energy, mean_cosine
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.features import FeatureTable, MappedFeatures, item_modalities, values_of
from mmrec.nn.init import linear, uniform, xavier_uniform
from mmrec.nn.item_attention import ItemAttention
from mmrec.nn.item_graphs import PrunedBipartite, image_shares, mean_of_neighbours, neighbours
from mmrec.nn.nearest_mean import NearestMean
from mmrec.nn.neighbour_lists import NeighbourLists, padded
from mmrec.nn.node_contrast import drawn_nodes, node_infonce
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.rca import RCA
from mmrec.nn.tables import rows

HEADS = 4
"""Of the release's attention, a constant there."""


@config
class CRANE(ModelConfig):
    """Width, layers and neighbours: the paper's and the toolbox's; what it leaves open is ours."""

    CARD = Card(
        "CRANE",
        2026,
        "TOMM",
        "modalities attend recursively, two graphs",
        "one or more",
        "none of the paper's parts: no recursion, profile, contrast; modalities never meet",
    )
    search_space = {
        "model.cl_weight": (0.001, 0.01, 0.1),
        "model.tau": (0.1, 0.2, 0.5),
        "model.dropout": (0.0, 0.5, 0.8, 0.9),
    }
    STRUCTURE = ("image_weight", "dropout")

    modalities: tuple[str, ...] | None = None
    """Item features to use; None takes all that are tables."""
    dim: Annotated[int, Ge(1)] = 64
    """Width of embeddings and of mapped features; a multiple of 4 in the release."""
    ui_layers: Annotated[int, Ge(0)] = 2
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(0)] = 1
    """How many times items are averaged over the item graph; 0 leaves the graph out."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item, itself among them; a modality in the release."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Share of the user-item edges that an epoch does not train on, rounded so that
    floor(edges * (1 - dropout)) are kept, in binary floating point. The release: 0.8 or 0.9."""
    depth: Annotated[int, Ge(0)] = 3
    """Recursions of the attention; 0 is plain concatenation ("described" only)."""
    reading: Literal["nodes", "features"] = "nodes"
    """Between what correlations are ("described" only): each node and all nodes of the joint space,
    or the columns of both."""
    shared_recursions: bool = True
    """Whether all recursions have the same weights ("described" only)."""
    rca_columns: Literal["all", "topk"] = "all"
    """What a node attends to, with the reading "nodes" ("described" only)."""
    rca_k: Annotated[int, Ge(1)] = 64
    """How many that are, itself among them, with `rca_columns` "topk" ("described" only)."""
    rca_mean: bool = True
    """Whether what a node attends to is averaged or summed ("described" only)."""
    profile: Literal["sum", "mean"] = "sum"
    """Of the items of a user's history ("described" only)."""
    user_side: Literal["profile", "items"] = "profile"
    """Semantic embedding of users: their refined profile, or the mean of their items' semantic
    embeddings, which needs no profile ("described" only)."""
    rebuild: Literal["once", "epoch"] = "epoch"
    """When the item graph is made of the refined items ("described" only)."""
    cl_weight: Annotated[float, Ge(0)] = 0.01
    """Weight of the contrast, the paper's beta ("described" only)."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the contrast ("described" only)."""
    negatives: Literal["batch", "distinct", "nodes"] = "batch"
    """What the contrast holds a node against ("described" only)."""
    feature_dim: Annotated[int, Ge(1)] = 64
    """Width between the two maps of a modality ("released" only)."""
    image_weight: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Share of the image neighbours in the item graph ("released" only)."""
    train_features: bool | None = None
    """Whether the feature tables are parameters; None takes the variant's own: they are in the
    release, and are not as described. With one modality the release only makes a graph of them."""
    variant: Literal["released", "described"] = "described"
    """Which of the two models."""

    def build(self, data: Dataset, init: torch.Generator) -> Recommender:
        if self.variant == "released":
            return ReleasedCRANEModel(self, data, init)
        return CRANEModel(self, data, init)


class CRANEModel(Recommender):
    """Dot products of behaviour plus semantic embeddings, as described."""

    cl_weight: Tensor
    tau: Tensor

    def __init__(self, cfg: CRANE, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        if cfg.rca_columns == "topk" and cfg.reading == "features":
            raise ValueError(
                "rca_columns 'topk' chooses nodes, and reading 'features' attends to none;"
                " 'all' fits it"
            )
        names = item_modalities(cfg.modalities, data.features, "CRANE")
        self.names, self.negatives = names, cfg.negatives
        self.ui_layers, self.item_layers = cfg.ui_layers, cfg.item_layers
        self.rebuilt = cfg.rebuild == "epoch"
        values = [values_of(data.features[name]) for name in names]
        dim, trained = cfg.dim, bool(cfg.train_features)
        self.user_UD = xavier_uniform(data.num_users, dim, init)
        self.item_ID = xavier_uniform(data.num_items, dim, init)
        self.features = nn.ModuleList(FeatureTable(v, trained=trained) for v in values)
        self.map_DF = nn.ParameterList(
            uniform((dim, v.shape[1]), v.shape[1] ** -0.5, init) for v in values
        )
        self.rca = RCA(
            len(names),
            dim,
            cfg.depth,
            init,
            reading=cfg.reading,
            shared=cfg.shared_recursions,
            mean=cfg.rca_mean,
        )
        self.join = linear(len(names) * dim, dim, init, "default")
        seen_UI = binary(data.train, data.num_users, data.num_items)
        self.profiles = cfg.user_side == "profile"
        self.history = Graph(
            seen_UI if self.profiles and cfg.profile == "sum" else row_mean(seen_UI)
        )
        self.near_items = self.near_users = None
        if cfg.rca_columns == "topk" and cfg.depth:
            raw_IF = np.concatenate(values, axis=1)
            self.near_items = Graph(ones(neighbours(raw_IF, cfg.rca_k)))
            if self.profiles:
                raw_UF = (seen_UI @ raw_IF).astype(raw_IF.dtype)
                self.near_users = Graph(ones(neighbours(raw_UF, cfg.rca_k)))
        self.part = PrunedBipartite(data, 1 - cfg.dropout)
        for name in ("cl_weight", "tau"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)
        with torch.no_grad():
            self.alike = NearestMean(cfg.knn_k, torch.cat(self.refined_items(), 1))

    def contents(self) -> list[Tensor]:
        """(I, D) the mapped features of each modality."""
        return [
            cast(FeatureTable, table).mapped(map_DF)
            for table, map_DF in zip(self.features, self.map_DF, strict=True)
        ]

    def refined_items(self) -> list[Tensor]:
        """(I, D) of each modality."""
        return self.rca(self.contents(), self.near_items)

    def item_graph(self, refined_IF: Tensor, *, scoring: bool) -> NeighbourLists:
        """The graph that an epoch trains on, or that scores are made on, of these refined items."""
        return self.alike.of(refined_IF) if scoring and self.rebuilt else self.alike.lists

    def semantic(self, *, scoring: bool) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D), h; in scoring on the graph of the current weights."""
        contents = self.contents()
        refined_IF = torch.cat(self.rca(contents, self.near_items), 1)
        graph = self.item_graph(refined_IF, scoring=scoring) if self.item_layers else None
        return self.spread(contents, refined_IF, graph)

    def spread(
        self, contents: list[Tensor], refined_IF: Tensor, graph: NeighbourLists | None
    ) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D), h, of contents and refined items.

        Args:
            contents: (I, D) of each modality.
            refined_IF: the refined items, side by side.
            graph: of items, or None where no layer uses it.
        """
        item_ID = self.join(refined_IF)
        if graph is not None:
            for _ in range(self.item_layers):
                item_ID = graph.spread(item_ID)
        if not self.profiles:
            return spmm(self.history, item_ID), item_ID
        profiles = spmm(self.history, torch.cat(contents, 1)).chunk(len(contents), 1)
        user_views = self.rca(profiles, self.near_users)
        return self.join(torch.cat(user_views, 1)), item_ID

    def behaviour(self, weight_E: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D), e, on the whole user-item graph or under other weights."""
        return mean_of_layers(self.part.graph, self.user_UD, self.item_ID, self.ui_layers, weight_E)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Draw the edges to train on, and renew the item graph."""
        alike_P = torch.ones(self.part.num_edges)
        self.part.keep(keep_likely(alike_P, self.part.kept, draws.generator("edges", epoch)))
        if self.rebuilt and self.item_layers:
            with torch.no_grad():
                self.alike.renew(torch.cat(self.refined_items(), 1))

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, with what the contrast needs.

        That is the distinct `users` and positive `items`, and where among them the rows' are,
        `user_at` and `item_at` (B,). With negatives "nodes" also those drawn, `drawn_users` and
        `drawn_items`, and where among them the distinct ones are, `user_place` and `item_place`:
        the number drawn stands for nowhere.
        """
        # A stream that nothing else here draws from.
        rng = draws.generator("dropout", epoch)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            users, user_at = distinct(batch.user)
            items, item_at = distinct(batch.positive)
            extra = {"users": users, "user_at": user_at, "items": items, "item_at": item_at}
            if self.negatives == "nodes":
                size, device = len(batch.user), batch.user.device
                for side, table_ND in (("user", self.user_UD), ("item", self.item_ID)):
                    drawn_C, place_N = drawn_nodes(len(table_ND), size, rng)
                    extra[f"drawn_{side}s"] = drawn_C.to(device)
                    extra[f"{side}_place"] = place_N.to(device)[extra[f"{side}s"]]
            yield replace(batch, extra=extra)

    def losses(self, batch: Batch) -> Losses:
        """`bpr` and `contrast`, that of users and that of items summed."""
        behaviour = self.behaviour(self.part.weight_E)
        semantic = self.semantic(scoring=False)
        user_UD, item_ID = (e + h for e, h in zip(behaviour, semantic, strict=True))
        contrasts = [
            self.contrast(side, e_ND, h_ND, batch)
            for side, e_ND, h_ND in zip(("user", "item"), behaviour, semantic, strict=True)
        ]
        ranking = _bpr(user_UD, item_ID, batch)
        return Losses({"bpr": ranking, "contrast": self.cl_weight * sum(contrasts)})

    def contrast(self, side: str, e_ND: Tensor, h_ND: Tensor, batch: Batch) -> Tensor:
        """InfoNCE of the batch's rows, of users or of positive items."""
        nodes_Q, at_B = batch.extra[f"{side}s"], batch.extra[f"{side}_at"]
        anchor_QD, target_QD = rows(e_ND, nodes_Q), rows(h_ND, nodes_Q)
        if self.negatives == "batch":
            return indexed_infonce(anchor_QD, target_QD, self.tau, at_B, at_B, similarity="cosine")
        if self.negatives == "distinct":
            return node_infonce(anchor_QD, target_QD, self.tau, at_B)
        return node_infonce(
            anchor_QD,
            target_QD,
            self.tau,
            at_B,
            others_CD=rows(h_ND, batch.extra[f"drawn_{side}s"]),
            place_Q=batch.extra[f"{side}_place"],
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D), z, on the whole user-item graph."""
        behaviour, semantic = self.behaviour(), self.semantic(scoring=True)
        return behaviour[0] + semantic[0], behaviour[1] + semantic[1]

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """`_measures`; the graph is that of scoring, also where no layer uses it."""
        contents = self.contents()
        refined_IF = torch.cat(self.rca(contents, self.near_items), 1)
        graph = self.item_graph(refined_IF, scoring=True)
        behaviour, semantic = self.behaviour(), self.spread(contents, refined_IF, graph)
        final = behaviour[0] + semantic[0], behaviour[1] + semantic[1]
        return _measures(final, semantic[1], graph.near_IS)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the refined items."""
        return dict(zip(self.names, self.refined_items(), strict=True))


class ReleasedCRANEModel(Recommender):
    """Dot products of propagated users and items, these shifted by their neighbours' content."""

    cl_weight: Tensor
    tau: Tensor

    def __init__(self, cfg: CRANE, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "CRANE")
        self.ui_layers, self.item_layers = cfg.ui_layers, cfg.item_layers
        values = [values_of(data.features[name]) for name in names]
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        self.names = names if len(names) > 1 else ()
        """Of the modalities that attention sees."""
        if self.names:
            trained = cfg.train_features is None or cfg.train_features
            self.mapped = nn.ModuleList(
                MappedFeatures(v, cfg.feature_dim, init, trained=trained) for v in values
            )
            self.second = nn.ModuleList(
                linear(cfg.feature_dim, cfg.dim, init, "default") for _ in names
            )
            self.attention = ItemAttention(cfg.dim, HEADS, init)
        self.alike = mean_of_neighbours(values, image_shares(names, cfg.image_weight), cfg.knn_k)
        self.part = PrunedBipartite(data, 1 - cfg.dropout)
        for name in ("cl_weight", "tau"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Draw the edges to train on."""
        self.part.prune(draws, epoch)

    def attended(self) -> Tensor:
        """(M, I, D) each modality's items after attention."""
        maps = zip(self.mapped, self.second, strict=True)
        return self.attention(torch.stack([second(mapped()) for mapped, second in maps]))

    def semantic(self) -> Tensor:
        """(I, D), h."""
        item_ID = self.attended().mean(0) if self.names else self.item_ID
        for _ in range(self.item_layers):
            item_ID = spmm(self.alike, item_ID)
        return item_ID

    def behaviour(self, weight_E: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D), e, on the whole user-item graph or under other weights."""
        return mean_of_layers(self.part.graph, self.user_UD, self.item_ID, self.ui_layers, weight_E)

    def propagate(self, weight_E: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D), final, of `behaviour`."""
        user_UD, item_ID = self.behaviour(weight_E)
        return user_UD, item_ID + self.semantic()

    def losses(self, batch: Batch) -> Losses:
        """`bpr` on the epoch's part of the graph."""
        return Losses({"bpr": _bpr(*self.propagate(self.part.weight_E), batch)})

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.propagate()

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """`_measures`."""
        entries = (part.cpu().numpy() for part in (self.alike.row_E, self.alike.column_E))
        pattern_II = binary(np.stack(list(entries), axis=1), *self.alike.shape)
        lists = padded(pattern_II, int(np.diff(pattern_II.indptr).max()))
        near_IK = lists.near_IS.to(self.item_ID.device)
        (user_UD, item_ID), semantic_ID = self.behaviour(), self.semantic()
        return _measures((user_UD, item_ID + semantic_ID), semantic_ID, near_IK)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the items after attention; none with one modality."""
        return dict(zip(self.names, self.attended(), strict=True)) if self.names else {}


def _bpr(user_UD: Tensor, item_ID: Tensor, batch: Batch) -> Tensor:
    """BPR of a batch's rows under dot products."""
    item_BC = torch.cat((batch.positive[:, None], batch.negative), 1)
    score_BC = (rows(user_UD, batch.user)[:, None] * rows(item_ID, item_BC)).sum(-1)
    return bpr(score_BC[:, :1], score_BC[:, 1:])


def _measures(
    embeddings: tuple[Tensor, Tensor], semantic_ID: Tensor, near_IK: Tensor
) -> dict[str, float]:
    """Mean cosines of final users and items and of the items' h, and how h varies on the graph.

    A mean cosine of 1 is a collapse, a Dirichlet energy of 0 a complete smoothing.
    """
    user_UD, item_ID = embeddings
    return {
        "user_cosine": mean_cosine(user_UD),
        "item_cosine": mean_cosine(item_ID),
        "semantic_cosine": mean_cosine(semantic_ID),
        "dirichlet": dirichlet_energy(semantic_ID, near_IK),
    }

"""PGL: trained on the principal part of the user-item graph, scored on the whole of it.

Yu et al., "Mind Individual Information! Principal Graph Learning for Multimedia Recommendation",
AAAI 2025; released in the MMRec toolbox.

Kept from the release: an item is nothing but its mapped features, each modality of length 1, and
has no vector of its own; a user has a free table a modality. Both stand beside each other, so that
embeddings are as many times `dim` wide as there are modalities. Propagation is LightGCN's; the
items' part is then added as smoothed over the graph of items that look alike, which is built once
from the features as they come. Training sees a part of the user-item graph ("local": 30 % of the
edges, drawn every epoch; "global": few singular vectors), scores are made on the whole. The
feature tables are trained.

Departures: "global" takes the singular vectors of the users x items matrix, where the release
decomposes the symmetric matrix of all nodes, in which every value comes twice and the vectors of a
pair are arbitrary: the same matrix wherever the released one is defined (a `dim` that 8 divides).
Its two blocks are formed in chunks, never the dense square. The item graph is cached by content,
where the release names its file by `knn_k` and `image_weight` alone. Any number of modalities: the
one called "image" has `image_weight` in the item graph, the others share the rest. The temperature
and the share of kept edges are constants in the release.

Gates multiply a modality's mapped features after their division by the length, and its share of
the item graph in every product.

Letters in names: U users, I items, V nodes (users, then items), B batch, N negatives a row,
C all modalities' widths, J singular vectors.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, cast

import numpy as np
import scipy.sparse as sp
import torch
from annotated_types import Ge, Gt, Interval
from scipy.sparse.linalg import svds
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import Graph, adjacency, bipartite, symmetric
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.features import MappedFeatures, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import xavier_uniform
from mmrec.nn.item_graphs import (
    TOOLBOX_EPSILON,
    NeighbourShares,
    PrunedBipartite,
    image_shares,
    mean_of_neighbours,
    smoothed,
)
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import rows

SMALLEST = 1e-3
"""Entries of the "global" graph below this, in absolute value, are dropped."""
DESCRIBED_CL_WEIGHT = 0.05
"""Of the authors' log on Baby."""
_CHUNK_CELLS = 2**23


@config
class PGL(ModelConfig):
    """Defaults: the toolbox's. Grid: the settings in the authors' own logs on three datasets.

    The shipped file has one value of each: no contrastive term, dropout 0.2, "local".
    """

    VERSION = 2
    CARD = Card(
        "PGL",
        2025,
        "AAAI",
        "train part, score whole graph",
        "one or more",
        "ships without its contrastive term: weight 0",
    )
    search_space = {
        "model.cl_weight": (0.05, 0.1, 0.5),
        "model.dropout": (0.05, 0.1, 0.2),
        "model.mode": ("local", "global"),
    }
    released_training = {"train.lr_decay": 0.96}
    STRUCTURE = ("image_weight", "kept_fraction", "dropout")

    dim: Annotated[int, Ge(1)] = 64
    """Width of a modality's part of the embeddings; "global" also keeps dim / 8 singular vectors
    and needs 8 or more."""
    ui_layers: Annotated[int, Ge(1)] = 2
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(1)] = 1
    """How many times the items' part is smoothed over the item graph."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Neighbours of an item in a modality, itself among them."""
    image_weight: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Share of the image neighbours in the item graph."""
    mode: Literal["local", "global"] = "local"
    """The part of the user-item graph that is trained on."""
    kept_fraction: Annotated[float, Interval(gt=0, le=1)] = 0.3
    """Share of the edges that an epoch trains on ("local" only)."""
    cl_weight: Annotated[float, Ge(0)] | None = None
    """Weight of the contrastive term (`reg_weight` in the release, though it regularises nothing).
    None takes the variant's own; 0 computes the term, and weighs it 0."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the contrastive term; smaller is sharper."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.2
    """Share of entries that each of the contrastive term's views loses."""
    modalities: tuple[str, ...] | None = None
    """Item features to use; None takes all that are tables."""
    train_features: bool = True
    """Whether the feature tables are trained, as released, or stay what they are."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """With `cl_weight` None: "released" has no contrastive term, as the toolbox ships the model
    (`reg_weight: [0]`); "described" has it, with the 0.05 of the authors' log on Baby. There is no
    other difference: with a weight that is given, both are the same model. For any number of
    modalities alike."""

    def build(self, data: Dataset, init: torch.Generator) -> "PGLModel":
        return PGLModel(self, data, init)


class PGLModel(Recommender):
    """Dot products of embeddings propagated over the whole graph, items smoothed beside it."""

    cl_weight: Tensor
    tau: Tensor

    def __init__(self, cfg: PGL, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.ui_layers, self.item_layers = cfg.ui_layers, cfg.item_layers
        self.dropout = cfg.dropout
        names = item_modalities(cfg.modalities, data.features, "PGL")
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        values = [values_of(data.features[name]) for name in names]
        tables = [xavier_uniform(data.num_users, cfg.dim, init) for _ in names]
        self.user_UC = nn.Parameter(torch.cat([table.data for table in tables], dim=1))
        self.maps = nn.ModuleList(
            MappedFeatures(v, cfg.dim, init, trained=cfg.train_features) for v in values
        )
        shares = image_shares(names, cfg.image_weight)
        alike = mean_of_neighbours if self.gates is None else NeighbourShares
        self.alike = alike(values, shares, cfg.knn_k)
        if cfg.mode == "local":
            self.trained = PrunedBipartite(data, cfg.kept_fraction)
            self.graph = self.trained.graph
        else:
            self.trained = principal_part(data, cfg.dim)
            self.graph = bipartite(data.train, data.num_users, data.num_items)
        weight = cfg.cl_weight
        if weight is None and cfg.variant == "described":
            weight = DESCRIBED_CL_WEIGHT
        self.contrasts = weight is not None
        self.register_buffer("cl_weight", torch.tensor(weight or 0.0), persistent=False)
        self.register_buffer("tau", torch.tensor(cfg.tau), persistent=False)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Draw the edges to train on ("local")."""
        if isinstance(self.trained, PrunedBipartite):
            self.trained.prune(draws, epoch)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows; with a contrastive term also `keep` (B, 4, C) bool, what each view keeps.

        The views are: the users', their second, the positive items', their second. Every row has
        its own mask, as released, also where a user or an item comes again.
        """
        chance = draws.generator("dropout", epoch)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            if not self.contrasts:
                yield batch
                continue
            keep = torch.empty(len(batch.user), 4, self.user_UC.shape[1], dtype=torch.bool)
            keep.bernoulli_(1 - self.dropout, generator=chance)
            yield replace(batch, extra={"keep": keep.to(batch.user.device)})

    def propagate(self, *, part: bool) -> tuple[Tensor, Tensor]:
        """Users (U, C) and items (I, C), over the part of the graph that is trained on, or all.

        The mean of layers 0 to `ui_layers`, where an item's layer 0 is its mapped features, each
        modality of length 1; to items their features are added, smoothed over the item graph.
        """
        item_IC = torch.cat(list(self.item_views().values()), dim=1)
        graph, weight_E = self.graph, None
        if part and isinstance(self.trained, PrunedBipartite):
            weight_E = self.trained.weight_E
        elif part:
            graph = cast(Graph, self.trained)
        user_UC, mean_IC = mean_of_layers(graph, self.user_UC, item_IC, self.ui_layers, weight_E)
        return user_UC, mean_IC + smoothed(self.alike, item_IC, self.item_layers, self.gates)

    def losses(self, batch: Batch) -> Losses:
        """`bpr` on the part of the graph, and `contrast` between two views of each row."""
        user_UC, item_IC = self.propagate(part=True)
        user_BC = rows(user_UC, batch.user)
        positive_BC = rows(item_IC, batch.positive)
        positive_B = (user_BC * positive_BC).sum(-1)
        negative_BN = (user_BC[:, None] * rows(item_IC, batch.negative)).sum(-1)
        terms = {"bpr": bpr(positive_B[:, None], negative_BN)}
        if self.contrasts:
            # Mean over users' and items' terms; a cosine is blind to the usual 1 / (1 - dropout).
            keep = batch.extra["keep"].unbind(1)
            at_B = torch.arange(len(batch.user), device=batch.user.device)
            own = [
                indexed_infonce(
                    x_BC * keep[view],
                    x_BC * keep[view + 1],
                    self.tau,
                    at_B,
                    at_B,
                    similarity="cosine",
                )
                for x_BC, view in ((user_BC, 0), (positive_BC, 2))
            ]
            terms["contrast"] = self.cl_weight * (own[0] + own[1]) / 2
        return Losses(terms)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """On the whole user-item graph, from the current weights."""
        return self.propagate(part=False)

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the mapped features, of length 1 without gates."""
        return {
            name: gated(self.gates, name, F.normalize(mapped(), dim=-1))
            for name, mapped in zip(self.names, self.maps, strict=True)
        }


def principal_part(data: Dataset, dim: int) -> Graph:
    """(V, V) the "global" graph: B and its transpose off the diagonal, fixed for all of training.

    Of the normalised (U, I) matrix X diag(s) Y^T with s descending, dim / 2 triplets are taken;
    B is the sum over the first q = dim / 8 of s_j s_(dim/2 - q + j) x_j y_j^T, without entries
    below 1e-3. It is not normalised again and may be negative.

    Raises:
        ValueError: `dim` is below 8, or there are too few users or items for so many triplets.
    """
    found, kept = dim // 2, dim // 8
    users, items = data.num_users, data.num_items
    if not kept or found >= min(users, items):
        raise ValueError(
            f'mode "global" needs a dim of 8 or more, and more than dim / 2 users and items; got a'
            f" dim of {dim}, {users} users and {items} items"
        )
    whole = symmetric(adjacency(data.train, users, items), epsilon=TOOLBOX_EPSILON)
    # A fixed start, so that the same graph gives the same vectors.
    start = 1.5 + np.cos(np.arange(min(users, items)))
    left_UJ, value_J, right_JI = svds(sp.csr_array(whole[:users, users:]), k=found, v0=start)
    order = np.argsort(-value_J)
    value_J = value_J[order]
    left_UJ = left_UJ[:, order[:kept]] * (value_J[:kept] * value_J[found - kept :])
    right_JI = right_JI[order[:kept]]
    chunks = []
    size = max(1, _CHUNK_CELLS // items)
    for first in range(0, users, size):
        block = left_UJ[first : first + size] @ right_JI
        block[np.abs(block) < SMALLEST] = 0
        chunks.append(sp.csr_array(block))
    block = sp.vstack(chunks)
    square = sp.csr_array(sp.block_array([[None, block], [block.T, None]]))
    return Graph(square, symmetric=True)

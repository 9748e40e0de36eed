"""LGMRec: local embeddings from the user-item graph, global ones from a few learned hyperedges.

Guo et al., "LGMRec: Local and Global Graph Learning for Multimodal Recommendation", AAAI 2024.
With R the binary interactions, G their normalised graph, unit(x) = x / |x|, and for modality m the
features X_m, maps W_m and H_m without bias:

    C = mean of layers 0 to `ui_layers` of G from the tables of users and items
    P_m = X_m W_m, Q_m = the mean of P_m over a user's items, M_m = G^mm_layers [Q_m; P_m]
    B_m = softmax((X_m H_m + g) / tau) for items, softmax((R X_m H_m + g') / tau) for users:
        memberships in `hyperedges` hyperedges, g and g' Gumbel noise, then dropout
    lat = B_m^T C of the items, `hyper_layers` - 1 times lat <- (B_m^T B_m of the items) lat,
    Y_m = B_m lat for users and for items, with the same lat
    F = C + sum of unit(M_m) + alpha * unit(sum of Y_m), scores are dot products of F

    bpr on F; reg = reg_weight * the un-squared norms of the batch's F (toolbox's EmbLoss);
    contrast = cl_weight * the SUM over the batch's rows of InfoNCE of unit(Y_image) against
        unit(Y_text) of ALL users (or items) over tau; users and positive items, one direction

Kept: the sum, so that `cl_weight` means something else at another batch size; the users' logits are
sums, not means, over their items; 1e-7 added to degrees; the released `keep_rate` is 1 - `dropout`;
`ui_layers=0` is the released switch `cf_model: mf`.

Departures: the release draws fresh Gumbel noise in evaluation too, so that two evaluations of one
model differ and each chunk of users meets other item vectors; `embeddings()` has no noise. There,
a pair that occurs twice in the training data counts twice in R and once in G; here once in both.

Other numbers of modalities: all sums over m run over those there are. The release crashes with one;
here it has no contrast. With three or more every pair has one, the first by order as anchor and the
other as candidates, so that the term grows with the number of pairs.

Gates are in two places: on X_m H_m in the memberships, and on unit(M_m), whose length would not
show a gate in front. A modality whose gate is closed leaves memberships by noise alone.

What makes it fast and changes no number: X_m is read once for both its maps; F is formed at the
rows of the batch; an anchor that recurs is held against all candidates once; and as Y_m = B_m lat,
a logit of the contrast is the product of two vectors of A entries, if A is below D.

Letters in names: U users, I items, N either, B batch, K negatives a row, Q distinct users or items
of a batch, or all, M modalities, A hyperedges, D embedding width, O D + A, F feature columns.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct, item_places
from mmrec.graphs import bipartite_halves, incidence, spmm
from mmrec.losses import bpr, emb_loss
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import xavier_uniform
from mmrec.nn.maps import linear
from mmrec.nn.tables import Constant, rows

DEGREE_EPSILON = 1e-7
SHORTEST = 1e-12
"""A vector is scaled to length 1 by at most the inverse of this."""


@config
class LGMRec(ModelConfig):
    """Defaults: the release's for Amazon Baby. The grid: the authors' lists, too many to cross."""

    CARD = Card(
        "LGMRec",
        2024,
        "AAAI",
        "graph neighbours plus learned hyperedges",
        "one or more",
        "evaluates under fresh noise; crashes with one modality",
    )
    search_space = {
        "model.ui_layers": (1, 2, 3, 4),
        "model.mm_layers": (1, 2, 3, 4),
        "model.hyper_layers": (1, 2, 3, 4),
        "model.hyperedges": (2, 4, 8, 16, 32, 64, 128, 256),
        "model.dropout": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0),
        "model.alpha": (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        "model.cl_weight": (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
        "model.reg_weight": (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    }
    STRUCTURE = ("dropout",)

    dim: Annotated[int, Ge(1)] = 64
    """Width of user and item embeddings."""
    ui_layers: Annotated[int, Ge(0)] = 2
    """How many times the tables are spread over the user-item graph."""
    mm_layers: Annotated[int, Ge(0)] = 2
    """How many times each modality is; only the last state counts."""
    hyper_layers: Annotated[int, Ge(1)] = 1
    """How many times items exchange embeddings through the hyperedges."""
    hyperedges: Annotated[int, Ge(1)] = 4
    """Hyperedges of each modality (released: hyper_num)."""
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.5
    """Share of memberships that a training step sets to 0."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the memberships and of the contrast; a constant of the release."""
    alpha: Annotated[float, Ge(0)] = 0.3
    """Weight of the global embeddings."""
    cl_weight: Annotated[float, Ge(0)] = 1e-4
    """Weight of the contrast, which is a sum over the batch."""
    reg_weight: Annotated[float, Ge(0)] = 1e-6
    """Weight of the norms of the batch's final embeddings."""
    modalities: tuple[str, ...] | None = None
    """Of the items; the contrast's anchors come first. None: all that are tables of numbers, by
    alphabet."""
    train_features: bool = False
    """Whether the feature tables are parameters."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released"] = "released"
    """There is nothing to mend but what is mended anyway, see above."""

    def build(self, data: Dataset, init: torch.Generator) -> "LGMRecModel":
        return LGMRecModel(self, data, init)


@dataclass(frozen=True)
class _Side:
    """Everything of the users, or of the items, before it is added up."""

    collaborative: list[Tensor]
    """(N, D) layers 0 to `ui_layers` of the tables."""
    local: list[Tensor]
    """(N, D) M_m of each modality."""
    member: list[Tensor]
    """(N, A) B_m of each modality."""


class LGMRecModel(Recommender):
    """Collaborative, local and global embeddings, added."""

    tau: Tensor
    alpha: Tensor
    cl_weight: Tensor
    reg_weight: Tensor

    def __init__(self, cfg: LGMRec, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "LGMRec")
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        self.ui_layers, self.mm_layers = cfg.ui_layers, cfg.mm_layers
        self.hyper_layers, self.hyperedges = cfg.hyper_layers, cfg.hyperedges
        self.dropout = cfg.dropout
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        tables = [
            FeatureTable(values_of(data.features[name]), trained=cfg.train_features)
            for name in names
        ]
        self.features = nn.ModuleList(tables)
        self.maps, self.hyper_maps = nn.ParameterList(), nn.ParameterList()
        for table in tables:
            self.maps.append(xavier_uniform(cfg.dim, table.width, init))
            self.hyper_maps.append(xavier_uniform(cfg.hyperedges, table.width, init))
        self.to_users, self.to_items = bipartite_halves(
            data.train, data.num_users, data.num_items, epsilon=DEGREE_EPSILON
        )
        self.seen = incidence(data.train, data.num_users, data.num_items)
        degree_U = np.bincount(np.unique(data.train, axis=0)[:, 0], minlength=data.num_users)
        inverse_U = torch.from_numpy(1 / (degree_U + DEGREE_EPSILON))
        self.inverse_degree_U1 = Constant(inverse_U[:, None].to(torch.get_default_dtype()))
        for name in ("tau", "alpha", "cl_weight", "reg_weight"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def _sides(self, extra: Mapping[str, Tensor] | None) -> tuple[_Side, _Side]:
        """Users and items; with the noise and the dropout of a batch, or without."""
        users = _Side([self.user_UD], [], [])
        items = _Side([self.item_ID], [], [])
        for _ in range(self.ui_layers):
            x_UD, x_ID = self._hop(users.collaborative[-1], items.collaborative[-1])
            users.collaborative.append(x_UD)
            items.collaborative.append(x_ID)
        width = self.item_ID.shape[-1]
        for at, table in enumerate(self.features):
            hyper_AF = gated(self.gates, at, self.hyper_maps[at])
            mapped_IO = linear(table(), torch.cat((self.maps[at], hyper_AF)))
            sum_UO = spmm(self.seen, mapped_IO)
            x_UD, x_ID = self.inverse_degree_U1.value * sum_UO[:, :width], mapped_IO[:, :width]
            for _ in range(self.mm_layers):
                x_UD, x_ID = self._hop(x_UD, x_ID)
            for side, name, local_ND, logit_NO in (
                (users, "user", x_UD, sum_UO),
                (items, "item", x_ID, mapped_IO),
            ):
                logit_NA = logit_NO[:, width:]
                if extra is not None:
                    logit_NA = logit_NA + extra[f"{name}_noise"][at]
                member_NA = (logit_NA / self.tau).softmax(-1)
                if extra is not None:
                    member_NA = member_NA * extra[f"{name}_keep"][at]
                side.local.append(local_ND)
                side.member.append(member_NA)
        return users, items

    def _hop(self, user_UD: Tensor, item_ID: Tensor) -> tuple[Tensor, Tensor]:
        return spmm(self.to_users, item_ID), spmm(self.to_items, user_UD)

    def _hyper(self, items: _Side) -> list[Tensor]:
        """(A, D) lat of each modality, as its last layer has it.

        The layers act on the hyperedges alone: the items' rows in between are not formed.
        """
        item_ID = torch.stack(items.collaborative).mean(0)
        lats = []
        for member_IA in items.member:
            lat_AD = member_IA.mT @ item_ID
            for _ in range(self.hyper_layers - 1):
                lat_AD = (member_IA.mT @ member_IA) @ lat_AD
            lats.append(lat_AD)
        return lats

    def _final(self, side: _Side, lats: list[Tensor], index: Tensor | None) -> Tensor:
        """(Q, D) F of the rows wanted; None takes all."""

        def wanted(table_N: Tensor) -> Tensor:
            return table_N if index is None else rows(table_N, index)

        collaborative_QD = torch.stack([wanted(x_ND) for x_ND in side.collaborative]).mean(0)
        local_QD = torch.stack(self._local(side, index)).sum(0)
        global_QD = torch.cat([wanted(x_NA) for x_NA in side.member], -1) @ torch.cat(lats)
        return collaborative_QD + local_QD + self.alpha * F.normalize(global_QD, dim=-1)

    def _local(self, side: _Side, index: Tensor | None) -> list[Tensor]:
        """(Q, D) unit(M) of each modality, gated if there are gates, at the rows wanted."""
        local_QD = [x_ND if index is None else rows(x_ND, index) for x_ND in side.local]
        return [
            gated(self.gates, at, F.normalize(x_QD, dim=-1)) for at, x_QD in enumerate(local_QD)
        ]

    def losses(self, batch: Batch) -> Losses:
        """`bpr`, `reg` and, with two modalities or more, `contrast_users` and `contrast_items`."""
        extra = batch.extra
        users, items = self._sides(extra)
        lats = self._hyper(items)
        user_BD = rows(self._final(users, lats, extra["users"]), extra["user_at"])
        item_QD = self._final(items, lats, extra["items"])
        positive_BD = rows(item_QD, extra["positive_at"])
        negative_BKD = rows(item_QD, extra["negative_at"])
        positive_B = (user_BD * positive_BD).sum(-1)
        negative_BK = (user_BD[:, None] * negative_BKD).sum(-1)
        norms = emb_loss(user_BD, positive_BD, negative_BKD)
        terms = {
            "bpr": bpr(positive_B[:, None], negative_BK),
            "reg": self.reg_weight * norms,
        }
        if len(lats) > 1:
            weight = self.cl_weight * len(batch.user)
            of_users = self._contrast(users, lats, extra["users"], extra["user_at"], batch.user)
            of_items = self._contrast(
                items, lats, extra["positives"], extra["anchor_at"], batch.positive
            )
            terms["contrast_users"] = weight * of_users
            terms["contrast_items"] = weight * of_items
        return Losses(terms)

    def _contrast(
        self, side: _Side, lats: list[Tensor], distinct_Q: Tensor, at_B: Tensor, own_B: Tensor
    ) -> Tensor:
        """InfoNCE between the global embeddings of every two modalities, a mean over rows.

        Args:
            side: the users, or the items.
            lats: see `_hyper`.
            distinct_Q: those in the batch.
            at_B: the batch's rows, as places among them.
            own_B: the batch's rows.
        """
        links = []
        for first, second in combinations(range(len(lats)), 2):
            anchor_QD = F.normalize(rows(side.member[first], distinct_Q) @ lats[first], dim=-1)
            global_ND = side.member[second] @ lats[second]
            if self.hyperedges < lats[second].shape[-1]:
                # <a, B lat / |B lat|> is <lat a, B / |B lat|>.
                length_N1 = torch.linalg.vector_norm(global_ND, dim=-1, keepdim=True)
                candidate_NX = side.member[second] / length_N1.clamp(min=SHORTEST)
                anchor_QX = anchor_QD @ lats[second].mT
            else:
                candidate_NX, anchor_QX = F.normalize(global_ND, dim=-1), anchor_QD
            links.append(
                indexed_infonce(anchor_QX, candidate_NX, self.tau, at_B, own_B, against="all")
            )
        return torch.stack(links).sum()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """F of all users and items, without noise or dropout."""
        return self.represent()

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the items' unit(M) of each modality, gated if there are gates."""
        _, items = self._sides(None)
        return dict(zip(self.names, self._local(items, None), strict=True))

    def represent(self, extra: Mapping[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D) F of all users and items, with the draws of a batch if given."""
        users, items = self._sides(extra)
        lats = self._hyper(items)
        return self._final(users, lats, None), self._final(items, lats, None)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows, the distinct users and items among them, and the draws of each step.

        `user_noise` and `user_keep` are (M, U, A), `item_noise` and `item_keep` (M, I, A): all
        users and items take part in every step. A `keep` is 0 or 1 / (1 - dropout). `users`,
        `items` and `positives` have lengths of their own.
        """
        rng = draws.generator("dropout", epoch)
        for batch in super().epoch_batches(data, draws, epoch, shape):
            extra = listed(batch)
            for name, count in (("user", len(self.user_UD)), ("item", len(self.item_ID))):
                size = (len(self.maps), count, self.hyperedges)
                # Minus the logarithm of an exponential number is a Gumbel number.
                noise = torch.empty(size).exponential_(generator=rng).log_().neg_()
                keep = torch.empty(size).bernoulli_(1 - self.dropout, generator=rng)
                keep /= 1 - self.dropout
                extra[f"{name}_noise"] = noise.to(data.device)
                extra[f"{name}_keep"] = keep.to(data.device)
            yield replace(batch, extra=extra)


def listed(batch: Batch) -> dict[str, Tensor]:
    """The distinct users, items and positives of a batch, and where its rows are among them."""
    users, user_at = distinct(batch.user)
    positives, anchor_at = distinct(batch.positive)
    places = item_places(batch.positive, batch.negative)
    also = {"users": users, "user_at": user_at, "positives": positives, "anchor_at": anchor_at}
    return places | also

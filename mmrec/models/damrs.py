"""DA-MRS: item graphs without the edges that modalities disagree on, and a BPR that is weighted.

Xv et al., "Improving Multi-modal Recommender Systems by Denoising and Aligning Multi-modal Content
and User Feedback", KDD 2024; the LightGCN backbone as released in the MMRec toolbox.

Kept from the release: the features decide nothing but static item graphs. A pair of items may be
neighbours only if its cosine is at or above the mean of all pairs in every modality; each modality
then takes its `knn_k` most similar survivors. A further view joins items that users share. An item
is its propagated row plus the mean of its rows smoothed over the views; a user is a propagated row.

Departures: two maps of the features, which nothing reads, are left out. The toolbox reads the
behaviour graph from a file that none of its scripts makes; here it is built by the recipe of the
authors' repository, from training pairs, equal counts by the lower id (the release: by whatever
its top-k routine does). Sums over all items but a pool are formed as such, where the release
subtracts two near numbers (off by 4e-4 in float32), and the symmetric divergence of two sigmoids
is (p - q)(logit p - logit q), where the release takes logarithms of numbers that round to 0 or 1.
Any number of modalities, each a view beside behaviour: means and variances are over all views, and
a view counts in its own consensus as often as all others together, which is twice for two
modalities as released. (The authors' three-modality variant cannot run.) An item without a
modality has itself alone in that view, and its pairs are judged by what both items have; the
release would lose every edge. The authors train on batches of 4,096.

Gates multiply a modality's view in the mean over views; behaviour has the gate 1. As the losses see
directions, a gate is put into them apart, without a gradient, so that no loss closes it for being
one: a view's own `neighbour` term is multiplied by its gate, as is its part in the consensus of the
others, and its predictions for the weights of pairs are moved towards the mean that gates weigh,
mean + gate (a - mean). Which edges survive is decided before training: a closed modality still has
its say in the graphs of the others, and none in the model once all are closed.

Letters in names: U users, I items, V views (the modalities, then behaviour), B batch, N negatives
a row, D width, Q distinct items of a batch, S its distinct users, P entries of a pool, R users or
items of a chunk.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal, NamedTuple, cast

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct, item_places
from mmrec.graphs import Graph, binary, bipartite, co_occurrence, spmm
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.agreed_graphs import agreed_neighbours, mean_of_listed
from mmrec.nn.features import item_modalities, values_of
from mmrec.nn.formed import chunks, formed
from mmrec.nn.gates import gate_measures, gates_if
from mmrec.nn.init import xavier_uniform
from mmrec.nn.maps import times_turned
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import rows

LOG_FLOOR = 1e-9
"""What the release adds to a probability before its logarithm."""


@config
class DAMRS(ModelConfig):
    """Defaults: the toolbox's. Grid: the one that its file has as a comment."""

    VERSION = 2
    CARD = Card(
        "DA-MRS",
        2024,
        "KDD",
        "denoised item graphs, weighted BPR",
        "one or more",
        "no script builds its behaviour graph; 0 log 0 where a sigmoid saturates",
    )
    search_space = {
        "model.kl_weight": (10.0, 1.0, 0.1, 0.01, 0.001, 0.0001, 0.0),
        "model.neighbour_weight": (1.0, 0.1, 0.01, 0.001, 0.0001, 0.0),
        "model.item_layers": (1, 2),
        "model.ui_layers": (1, 2, 3),
        "model.knn_k": (3, 5, 10, 15, 20),
        "train.lr": (1e-3, 5e-4, 1e-4),
    }

    dim: Annotated[int, Ge(1)] = 64
    """Width of user and item embeddings."""
    ui_layers: Annotated[int, Ge(1)] = 2
    """How many times embeddings are spread over the user-item graph."""
    item_layers: Annotated[int, Ge(1)] = 1
    """How many times items are smoothed over each view."""
    knn_k: Annotated[int, Ge(1)] = 10
    """Most neighbours of an item in a modality, itself among them."""
    behaviour_k: Annotated[int, Ge(1)] = 2
    """Most neighbours of an item in the behaviour view, beside itself."""
    shared_users: Annotated[int, Ge(1)] = 2
    """Fewest users that neighbours in the behaviour view have in common."""
    pool: Annotated[int, Ge(1)] = 10
    """Items in a neighbour pool; at most half of all."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of `neighbour`; smaller is sharper."""
    neighbour_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of telling neighbours from other items, view by view."""
    kl_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the divergence between what behaviour and the views predict."""
    modalities: tuple[str, ...] | None = None
    """Item features to use; None takes all that are tables."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released"] = "released"
    """No difference between paper and code is known that is more than the departures above."""

    def build(self, data: Dataset, init: torch.Generator) -> "DAMRSModel":
        return DAMRSModel(self, data, init)


class DAMRSModel(Recommender):
    """Dot products of propagated users with propagated plus smoothed items."""

    tau: Tensor
    neighbour_weight: Tensor
    kl_weight: Tensor

    def __init__(self, cfg: DAMRS, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        if 2 * cfg.pool > data.num_items:
            raise ValueError(
                f"two pools of {cfg.pool} items need {2 * cfg.pool} or more, got {data.num_items}"
            )
        self.ui_layers, self.item_layers, self.pool = cfg.ui_layers, cfg.item_layers, cfg.pool
        names = item_modalities(cfg.modalities, data.features, "DAMRS")
        self.gates = gates_if(cfg.gate_modalities, names)
        lists = agreed_neighbours([values_of(data.features[n]) for n in names], cfg.knn_k)
        behaviour = co_occurrence(
            binary(data.train[:, ::-1], data.num_items, data.num_users),
            least=cfg.shared_users,
            most=cfg.behaviour_k,
        )
        self.graph = bipartite(data.train, data.num_users, data.num_items)
        self.views = nn.ModuleList(mean_of_listed(list_II) for list_II in (*lists, behaviour))
        self.user_UD = xavier_uniform(data.num_users, cfg.dim, init)
        self.item_ID = xavier_uniform(data.num_items, cfg.dim, init)
        for name in ("tau", "neighbour_weight", "kl_weight"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """BPR rows with their distinct `users` (S,) and `items` (Q,).

        `user_at` (B,), `positive_at` (B,) and `negative_at` (B, N) say where each row has its own.
        """
        for batch in super().epoch_batches(data, draws, epoch, shape):
            users, user_at = distinct(batch.user)
            places = item_places(batch.positive, batch.negative)
            yield replace(batch, extra={"users": users, "user_at": user_at, **places})

    def spread(self) -> tuple[Tensor, Tensor]:
        """Users (U, D) and items (I, D), propagated over the user-item graph."""
        return mean_of_layers(self.graph, self.user_UD, self.item_ID, self.ui_layers)

    def smoothed(self) -> Tensor:
        """(V, I, D) the items' own rows, smoothed over each view."""
        views = []
        for graph in self.views:
            item_ID = self.item_ID
            for _ in range(self.item_layers):
                item_ID = spmm(cast(Graph, graph), item_ID)
            views.append(item_ID)
        return torch.stack(views)

    def view_gates(self) -> Tensor | None:
        """(V,) the gates of the views, 1 for behaviour; None without gates."""
        return None if self.gates is None else F.pad(self.gates(), (0, 1), value=1.0)

    def mean_of_views(self, view_VID: Tensor) -> Tensor:
        """(I, D) what the views add to the items."""
        gate_V = self.view_gates()
        return (view_VID if gate_V is None else gate_V[:, None, None] * view_VID).mean(0)

    def losses(self, batch: Batch) -> Losses:
        """The weighted `bpr`, `neighbour` over the views, and `kl` over users by items."""
        at = batch.extra
        user_UD, collab_ID = self.spread()
        view_VID = self.smoothed()
        user_SD, collab_QD = rows(user_UD, at["users"]), rows(collab_ID, at["items"])
        mean_QD = rows(self.mean_of_views(view_VID), at["items"])
        share_S, share_Q = shares(at["users"]), shares(at["items"])
        unit_VID = F.normalize(view_VID, dim=-1)
        gate_V = self.view_gates()
        neighbour_V = discriminate(unit_VID, at["items"], share_Q, self.tau, self.pool, gate_V)
        neighbour_V = neighbour_V if gate_V is None else gate_V.detach() * neighbour_V
        kl = divergence(user_SD, F.normalize(collab_QD), F.normalize(mean_QD), share_S, share_Q)
        user_BD, item_QD = rows(user_SD, at["user_at"]), collab_QD + mean_QD
        positive_B = (user_BD * rows(item_QD, at["positive_at"])).sum(-1)
        negative_BN = (user_BD[:, None] * rows(item_QD, at["negative_at"])).sum(-1)
        kept_B1, turned_B1 = self.pair_weights(user_BD, view_VID, batch)
        gap_BN = positive_B[:, None] - negative_BN
        pairs_BN = kept_B1 * F.softplus(-gap_BN) + turned_B1 * F.softplus(gap_BN)
        return Losses(
            {
                "bpr": pairs_BN.mean(),
                "neighbour": self.neighbour_weight * neighbour_V.mean(),
                "kl": self.kl_weight * kl,
            }
        )

    def pair_weights(
        self, user_BD: Tensor, view_VID: Tensor, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """(B, 1) of each pair as it is, and (B, 1) of the pair the other way round; no gradient.

        With the views' predictions a = sigmoid(user . unit(view of positive)), and one n, their
        mean over all views and negatives of the batch: mean(a) exp(-2 var(a)), the variance
        unbiased over views; and max(a) - n, cut to 0..1, where mean(a) < n, else 0.
        """
        user_BD, view_VID = user_BD.detach(), view_VID.detach()
        positive_VBD = F.normalize(view_VID[:, batch.positive], dim=-1)
        negative_VBND = F.normalize(view_VID[:, batch.negative], dim=-1)
        seen_VB = self.heard(torch.sigmoid((positive_VBD * user_BD).sum(-1)))
        drawn = self.heard(torch.sigmoid((negative_VBND * user_BD[:, None]).sum(-1))).mean()
        mean_B = seen_VB.mean(0)
        kept_B = mean_B * torch.exp(-2 * seen_VB.var(0))
        turned_B = torch.where(mean_B < drawn, (seen_VB.amax(0) - drawn).clamp(0, 1), 0.0)
        return kept_B[:, None], turned_B[:, None]

    def heard(self, chance: Tensor) -> Tensor:
        """(V, ...) the views' predictions; with gates m + gate (a - m), m their weighted mean."""
        gate_V = self.view_gates()
        if gate_V is None:
            return chance
        gate = gate_V.detach().view(-1, *[1] * (chance.ndim - 1))
        mean = (gate * chance).sum(0) / gate.sum()
        return mean + gate * (chance - mean)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """From the current weights; nothing is drawn in training either."""
        user_UD, collab_ID = self.spread()
        return user_UD, collab_ID + self.mean_of_views(self.smoothed())

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)


def shares(listed_Q: Tensor) -> Tensor:
    """(Q,) the weight of each id in a mean over distinct ones: 1 / how many, 0 where it is again.

    `listed_Q` ascends, but for its last id, which lanes may repeat: so an id that equals the one
    before it is none.
    """
    first_Q = torch.cat((torch.ones_like(listed_Q[:1]), (listed_Q[1:] != listed_Q[:-1]).long()))
    return first_Q / first_Q.sum()


# --- two losses that are formed together with their derivatives


def divergence(
    user_SD: Tensor, first_QD: Tensor, second_QD: Tensor, share_S: Tensor, share_Q: Tensor
) -> Tensor:
    """KL(p, q) + KL(q, p) of the predictions sigmoid(user . item) from two tables, in nats.

    Weighted over users by items. For two Bernoullis it is (p - q) (logit p - logit q). No gradient
    to the weights.
    """
    return formed(_divergence, user_SD, first_QD, second_QD, share_S, share_Q)


def discriminate(
    unit_VID: Tensor,
    item_Q: Tensor,
    share_Q: Tensor,
    tau: Tensor,
    pool: int,
    gate_V: Tensor | None = None,
) -> Tensor:
    """(V,) how badly each view tells its neighbours from other items, in nats.

    For an item and the cosines c_v of a view with all I items, p_v = softmax(c_v). The consensus
    pool has the `pool` largest of p_v times (V - 1) plus the other views' p, the own pool the
    largest p_v of the rest. With e = exp(c_v / tau): - ln(1e-9 + the consensus pool's share of all
    e) - ln(1e-9 + the own pool's share of all e outside the consensus pool). The pools are
    constants; all else has a gradient, through both sides of a cosine.

    Args:
        unit_VID: directions of all items in each view.
        item_Q: the items that are asked.
        share_Q: their weights in the mean, without a gradient.
        tau: 0-dim temperature, without a gradient.
        pool: items of a pool, at most I / 2.
        gate_V: how much each view's p counts as another's in the consensus, without a gradient;
            None is 1 of each.
    """
    return formed(_discriminate, unit_VID, item_Q, share_Q, tau, pool, gate_V)


def _divergence(
    user_SD: Tensor, first_QD: Tensor, second_QD: Tensor, share_S: Tensor, share_Q: Tensor
) -> tuple[Tensor, ...]:
    loss = user_SD.new_zeros(())
    grads = [torch.zeros_like(table) for table in (user_SD, first_QD, second_QD)]
    shared = [(share_Q[:, None] * item_QD).T.contiguous() for item_QD in (first_QD, second_QD)]
    for part in chunks(len(user_SD), len(share_Q), user_SD.device):
        gap_RQ = times_turned(user_SD[part], first_QD)
        second_RQ = times_turned(user_SD[part], second_QD)
        p_RQ, q_RQ = gap_RQ.sigmoid(), second_RQ.sigmoid()
        gap_RQ -= second_RQ
        apart_RQ = p_RQ - q_RQ
        loss += share_S[part] @ ((apart_RQ * gap_RQ) @ share_Q)
        # d/d logit p = p (1 - p) gap + apart, and d/d logit q = - q (1 - q) gap - apart.
        for side, (sign, chance_RQ) in enumerate(((1, p_RQ), (-1, q_RQ))):
            slope_RQ = torch.addcmul(chance_RQ, chance_RQ, chance_RQ, value=-1)
            slope_RQ.mul_(gap_RQ).add_(apart_RQ).mul_(sign)
            grads[0][part] += share_S[part, None] * times_turned(slope_RQ, shared[side])
            grads[1 + side].addmm_(slope_RQ.T, share_S[part, None] * user_SD[part])
    return loss, grads[0], share_Q[:, None] * grads[1], share_Q[:, None] * grads[2]


def _discriminate(
    unit_VID: Tensor,
    item_Q: Tensor,
    share_Q: Tensor,
    tau: Tensor,
    pool: int,
    gate_V: Tensor | None,
) -> tuple[Tensor, Tensor]:
    views, num_items = unit_VID.shape[:2]
    row_VQD = unit_VID[:, item_Q]
    loss_V, grad_VID = unit_VID.new_zeros(views), torch.zeros_like(unit_VID)
    turned_VDI = unit_VID.transpose(1, 2).contiguous()
    for part in chunks(len(item_Q), num_items, item_Q.device):
        cosines = [times_turned(row_VQD[v, part], unit_VID[v]) for v in range(views)]
        likely = [cosine_RI.softmax(-1) for cosine_RI in cosines]
        counted = likely
        if gate_V is not None:
            counted = [gate * p_RI for gate, p_RI in zip(gate_V, likely, strict=True)]
        total_RI = sum(counted[1:], start=counted[0])
        for v in range(views):
            consensus_RI = total_RI.add(likely[v], alpha=views - 2)
            if gate_V is not None:
                consensus_RI += (1 - gate_V[v]) * likely[v]
            pool_RP = consensus_RI.topk(pool, sorted=False).indices
            told = _told(cosines[v], pool_RP, share_Q[part], tau)
            loss_V[v] += told.loss
            grad_VID[v].addmm_(told.slope_RI.T, row_VQD[v, part])
            grad_RD = times_turned(told.slope_RI, turned_VDI[v])
            grad_VID[v].index_add_(0, item_Q[part], grad_RD)
    return loss_V, grad_VID


class _Told(NamedTuple):
    """Of a chunk of items in one view."""

    loss: Tensor
    """0-dim, weighted."""
    slope_RI: Tensor
    """Its derivative with respect to the cosines."""


def _told(cosine_RI: Tensor, pool_RP: Tensor, share_R: Tensor, tau: Tensor) -> _Told:
    """The loss of `discriminate` for given consensus pools. Overwrites `cosine_RI`."""
    inside_RP = cosine_RI.gather(1, pool_RP) / tau
    rest_RI = cosine_RI.div_(tau).scatter_(1, pool_RP, -torch.inf)
    own = rest_RI.topk(pool_RP.shape[1])
    # In logarithms, and over what is left outside: no difference of near numbers.
    highest_R = own.values[:, 0]
    weight_RI = rest_RI.sub_(highest_R[:, None]).exp_()
    sum_R = weight_RI.sum(1)
    log_inside_R, log_own_R = inside_RP.logsumexp(1), own.values.logsumexp(1)
    log_rest_R = highest_R + sum_R.log()
    log_all_R = torch.logaddexp(log_inside_R, log_rest_R)
    first_R, second_R = (log_inside_R - log_all_R).exp(), (log_own_R - log_rest_R).exp()
    loss_R = -(first_R + LOG_FLOOR).log() - (second_R + LOG_FLOOR).log()
    # d log inside is the softmax of the pool, d log rest that of the rest, and so on.
    pull_R = share_R / tau * first_R / (first_R + LOG_FLOOR) * (log_rest_R - log_all_R).exp()
    apart_R = share_R / tau * second_R / (second_R + LOG_FLOOR)
    slope_RI = weight_RI.mul_(((pull_R + apart_R) / sum_R)[:, None])
    slope_RI.scatter_(1, pool_RP, -pull_R[:, None] * inside_RP.softmax(1))
    slope_RI.scatter_add_(1, own.indices, -apart_R[:, None] * own.values.softmax(1))
    return _Told((share_R * loss_R).sum(), slope_RI)

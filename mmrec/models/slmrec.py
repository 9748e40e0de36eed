"""SLMRec: three linear propagations, fused, beside contrasts that climb from IDs to text.

Tao et al., "Self-Supervised Learning for Multimedia Recommendation", IEEE TMM 2022. What is here
is the MMRec toolbox's model under its task FAC ("fine and coarse"). Its tasks FD and FM, their sum,
and its fusion "mean" raise errors there, so that FAC is all that has ever run.

With tables U and I, C = X W^T + b the mapped features of a modality, image first, then text:

    [A_u; A_i] = mean of layers 0 to `layers` from [U; I], [B_u; B_i] from [U; C_image],
    [D_u; D_i] from [U; C_text]
    Y = [A_u | B_u | D_u] W_U^T + b_U for users, Z = [A_i | B_i | D_i] W_I^T + b_I for items
    main = InfoNCE of the pairs (u, i) of a batch, cosines of Y[u] and Z[i] over `tau`
    contrast = cl_weight * (InfoNCE(W_1 A_i + b_1, W_2 B_i) + InfoNCE(x, W_5 D_i)),
        x = W_4 (W_3 (W_1 A_i + b_1) + b_3) + b_4 of half the width, dot products over `cl_tau`

Both contrast terms are over the batch's positive items, one direction only; who occurs twice is his
own negative. Negatives are not used, so none are drawn.

Kept: feature rows scaled to length 1, once; 1e-8 added to degrees; linear maps only. Scores are dot
products of Y and Z as they are, although training compares their directions. The release returns
sigmoid(Y Z^T), which orders items alike until it rounds to 1 (in float32 from 17 on, where all
tie): here it is left out. It also scores with the Y and Z of the last training step; here they are
those of the current weights. The release trains with a weight decay of 1e-4, which is
`train.weight_decay`.

Left out: the biases of the keys (W_2, W_5, ...), whose gradient is exactly 0 as they shift all
logits of an anchor alike; the maps of a third modality, which the release declares and never reads;
`reg`, which the release tunes over four levels and never reads (but see `described`).

Other numbers of modalities, where the release needs two. The chain of queries above was made for
three: each has one more linear map than the one before, and is held against the keys of the next
modality, the last at half the width. The release leaves out the second contrast of the three but
not its map, W_3. So: one modality has the first contrast alone; with two, W_3 has none; with three
or more, every map has one. The fused maps are as wide as there are modalities, and one more.

`variant="described"` mends, by our reading of what the parts are for, not by an equation of the
paper:
* scores are cosines of Y and Z, what training compares;
* a term `reg` = reg_weight / 2 * the mean over the batch's pairs of |U[u]|^2 + |I[i]|^2, of layer-0
  rows, as LightGCN has it: the release's `reg` put to use.
Both hold for any number of modalities.

Gates multiply X W^T, whose rows of X have length 1 already, and not b.

Letters in names: U users, I items, N either, B batch, Q distinct users or items of a batch, or all,
D embedding width, F feature columns.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal, cast

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.graphs import bipartite_halves, spmm
from mmrec.losses import half_squares
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.init import linear, xavier_uniform
from mmrec.nn.maps import linear as mapped
from mmrec.nn.tables import rows

DEGREE_EPSILON = 1e-8
SHORTEST = 1e-12
"""Feature rows are scaled to length 1 by at most the inverse of this."""


@config
class SLMRec(ModelConfig):
    """Defaults: the toolbox's, with `cl_tau` and `cl_weight` from the middle of its grid."""

    CARD = Card(
        "SLMRec",
        2022,
        "TMM",
        "contrasting propagations of each modality",
        "one or more",
        "trains cosines, ranks dot products of the last step; tunes a `reg` that nothing reads",
    )
    search_space = {
        "train.lr": (1e-4, 1e-3, 1e-2, 1e-1),
        "model.cl_tau": (0.1, 0.2, 0.5, 1.0),
        "model.cl_weight": (0.01, 0.05, 0.1, 0.5, 1.0),
    }
    released_training = {"train.weight_decay": 1e-4}

    dim: Annotated[int, Ge(2)] = 64
    """Width of user and item embeddings; the last contrast has half of it."""
    layers: Annotated[int, Ge(1)] = 3
    """How many times embeddings are spread over the user-item graph."""
    tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the main loss."""
    cl_tau: Annotated[float, Gt(0)] = 0.2
    """Temperature of the contrasts between modalities (released: ssl_temp)."""
    cl_weight: Annotated[float, Ge(0)] = 0.1
    """Weight of the contrasts between modalities (released: ssl_alpha)."""
    reg_weight: Annotated[float, Ge(0)] = 1e-4
    """Weight of the batch's squared layer-0 rows; only `described` reads it (released: reg)."""
    modalities: tuple[str, ...] | None = None
    """Of the items, in the order of the chain of contrasts; None: all that are tables of numbers,
    by alphabet."""
    train_features: bool = False
    """Whether the feature tables are parameters, which start at rows of length 1."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """See above."""

    def build(self, data: Dataset, init: torch.Generator) -> "SLMRecModel":
        return SLMRecModel(self, data, init)


class SLMRecModel(Recommender):
    """Fused LightGCN embeddings of IDs and of each modality's mapped features."""

    tau: Tensor
    cl_tau: Tensor
    cl_weight: Tensor
    reg_weight: Tensor

    def __init__(self, cfg: SLMRec, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        names = item_modalities(cfg.modalities, data.features, "SLMRec")
        self.names, self.gates = names, gates_if(cfg.gate_modalities, names)
        dim, self.layers, self.described = cfg.dim, cfg.layers, cfg.variant == "described"
        tables = [
            FeatureTable(_directions(values_of(data.features[name])), trained=cfg.train_features)
            for name in names
        ]
        self.features = nn.ModuleList(tables)
        self.user_UD = xavier_uniform(data.num_users, dim, init)
        self.item_ID = xavier_uniform(data.num_items, dim, init)
        self.maps = nn.ModuleList(
            linear(table.width, dim, init, "xavier_uniform") for table in tables
        )
        width = (len(names) + 1) * dim
        self.item_fusion = linear(width, dim, init, "xavier_uniform")
        self.user_fusion = linear(width, dim, init, "xavier_uniform")
        several = len(names) > 1
        widths = [dim] * (max(len(names), 3) if several else 1) + [dim // 2 if several else dim]
        self.queries = nn.ModuleList(
            linear(a, b, init, "xavier_uniform") for a, b in pairwise(widths)
        )
        self.contrasted = (0, 2) if len(names) == 2 else tuple(range(len(names)))
        self.keys = nn.ModuleList(
            linear(dim, widths[at + 1], init, "xavier_uniform", bias=False)
            for at in self.contrasted
        )
        self.to_users, self.to_items = bipartite_halves(
            data.train, data.num_users, data.num_items, epsilon=DEGREE_EPSILON
        )
        for name in ("tau", "cl_tau", "cl_weight", "reg_weight"):
            self.register_buffer(name, torch.tensor(getattr(cfg, name)), persistent=False)

    def propagate(
        self, users: Tensor | None = None, items: Tensor | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Of users and of items, (Q, D) the mean of layers: from IDs first, then each modality.

        As the layers are linear, what starts at the users is spread once for all of these. One
        product after another: on a CPU three of 64 columns take half the time of one of 192,
        since the table that is read stays in the cache.

        Args:
            users: those wanted, (Q,); None takes all.
            items: likewise.
        """
        starts_ID: list[Tensor] = [self.item_ID]
        for name, table, to_dim in zip(self.names, self.features, self.maps, strict=True):
            weight, bias = cast(Tensor, to_dim.weight), cast(Tensor, to_dim.bias)
            starts_ID.append(gated(self.gates, name, mapped(table(), weight)) + bias)
        from_users = self._spread(self.user_UD, True, users, items)
        user_QD, item_QD = [], []
        for start_ID in starts_ID:
            from_items = self._spread(start_ID, False, users, items)
            for means, own, other in zip((user_QD, item_QD), from_users, from_items, strict=True):
                means.append((own + other) / (self.layers + 1))
        return user_QD, item_QD

    def _spread(
        self, x_ND: Tensor, at_users: bool, users: Tensor | None, items: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The sums of the layers that lie on users and on items, of what starts on one side."""
        on_users, on_items = [], []
        for hop in range(self.layers + 1):
            if hop:
                x_ND = spmm(self.to_users if at_users else self.to_items, x_ND)
            wanted = users if at_users else items
            here = on_users if at_users else on_items
            here.append(x_ND if wanted is None else rows(x_ND, wanted))
            at_users = not at_users
        return sum(on_users[1:], start=on_users[0]), sum(on_items[1:], start=on_items[0])

    def losses(self, batch: Batch) -> Losses:
        """`main`, `contrast`, and `reg` in the described variant.

        Expects in `extra` what `epoch_batches` puts there: the batch's distinct `users` and
        `items`, and the places `user_at` and `item_at` of its rows among them.
        """
        users, items = batch.extra["users"], batch.extra["items"]
        user_at, item_at = batch.extra["user_at"], batch.extra["item_at"]
        user_QD, item_QD = self.propagate(users, items)
        terms = {
            "main": indexed_infonce(
                self.user_fusion(torch.cat(user_QD, -1)),
                self.item_fusion(torch.cat(item_QD, -1)),
                self.tau,
                user_at,
                item_at,
                similarity="cosine",
            ),
            "contrast": self.cl_weight * self._contrast(item_QD, item_at),
        }
        if self.described:
            squares = half_squares(
                rows(self.user_UD, batch.user),
                rows(self.item_ID, batch.positive),
                size=len(batch.user),
            )
            terms["reg"] = self.reg_weight * squares
        return Losses(terms)

    def _contrast(self, item_QD: list[Tensor], item_at: Tensor) -> Tensor:
        """The chain: IDs against the first modality, then those so far against each next one."""
        query_QD, *modality_QD = item_QD
        states = []
        for step in self.queries:
            query_QD = step(query_QD)
            states.append(query_QD)
        links = [
            indexed_infonce(states[at], key(values), self.cl_tau, item_at, item_at)
            for at, key, values in zip(self.contrasted, self.keys, modality_QD, strict=True)
        ]
        return torch.stack(links).sum()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Y and Z; of length 1 in the described variant, so that scores are cosines."""
        of_users, of_items = self.propagate()
        user_UD = self.user_fusion(torch.cat(of_users, -1))
        item_ID = self.item_fusion(torch.cat(of_items, -1))
        if self.described:
            return F.normalize(user_UD, dim=-1), F.normalize(item_ID, dim=-1)
        return user_UD, item_ID

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the items of each modality's propagation, before they are fused."""
        _, of_items = self.propagate()
        return dict(zip(self.names, of_items[1:], strict=True))

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """Pairs without negatives, and the distinct users and items of each batch."""
        for batch in super().epoch_batches(data, draws, epoch, replace(shape, negatives=0)):
            yield replace(batch, extra=listed(batch))


def listed(batch: Batch) -> dict[str, Tensor]:
    """The distinct users and positives of a batch, and where its rows are among them.

    `users` and `items` have a length of their own, not B.
    """
    users, user_at = distinct(batch.user)
    items, item_at = distinct(batch.positive)
    return {"users": users, "user_at": user_at, "items": items, "item_at": item_at}


def _directions(values_IF: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays one."""
    return values_IF / np.linalg.norm(values_IF, axis=1, keepdims=True).clip(min=SHORTEST)

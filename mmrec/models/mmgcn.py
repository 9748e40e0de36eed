"""MMGCN: one graph network a modality over the user-item graph, the mean of their last layers.

Wei et al., "MMGCN: Multi-modal Graph Convolution Network for Personalized Recommendation of
Micro-video", MM 2019. With A the mean over a node's neighbours, f LeakyReLU, and x the users'
preferences and the items' contents, each divided by its length, a layer of a modality is

    h = f(A x W),   g = f(x L' + l) + id,   next x = f([h | g] M' + m)

Kept from the MMRec toolbox: the concatenation [h | g] (its switch is the string "False", which is
true), ids added after the activation, and the mean over modalities where the paper has their sum.
Left out: scores from the last training step's representations; here they always belong to the
current weights.

Variants. "released": preferences and ids are random numbers that are never trained (plain tensors,
unknown to the optimiser), so that the penalty shifts the loss and moves nothing; it counts the
preferences of "image" alone; there are three layers whatever the configuration says.
"described" (our mend): ids and preferences are trained, `layers` counts, and the penalty, active
now, is reg_weight (mean of the batch's id^2 + sum over modalities of the mean preference^2): one
modality has one such mean, three have three.

Gates multiply items' contents after the division by their length, which would undo them: what is
left of a modality whose gate is closed are its users' preferences.

Letters in names: U users, I items, V nodes (users, then items), B batch, N negatives a row,
S rows of one side (users or items) that are needed, D embedding width, F feature columns, Q width
at which a layer begins.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.graphs import Graph, adjacency, row_mean, spmm
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn import init as weights
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.maps import linear
from mmrec.nn.tables import Constant, rows

RELEASED_LAYERS = 3
SLOPE = 0.01
"""Of every LeakyReLU below zero."""


@config
class MMGCN(ModelConfig):
    """Defaults and grid: the toolbox's."""

    CARD = Card(
        "MMGCN",
        2019,
        "MM",
        "one graph network per modality",
        "one or more",
        "ids and preferences are never trained, so `reg_weight` is inert; always three layers",
    )
    search_space = {
        "model.reg_weight": (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 0.1),
        "train.lr": (1e-4, 5e-4, 1e-3, 5e-3, 1e-2),
    }

    dim: Annotated[int, Ge(1)] = 64
    """Width of ids and of every layer's output."""
    latent_dim: Annotated[int, Ge(1)] = 256
    """Width at which a projected modality enters."""
    projected: tuple[str, ...] | None = None
    """Modalities that a linear map takes to `latent_dim`; the others enter as they are, at their
    own width. None: "image" where there is one, as released."""
    layers: Annotated[int, Ge(1)] = 2
    """Layers of each graph network; "released" ignores it and has three."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of the mean squares of ids and preferences; without effect on training in
    "released"."""
    modalities: tuple[str, ...] | None = None
    """Names of item features; None takes all that are tables of numbers."""
    train_features: bool = False
    """Whether the feature tables are trained."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """See the module's docstring."""

    def build(self, data: Dataset, init: torch.Generator) -> "MMGCNModel":
        return MMGCNModel(self, data, init)


class FixedPreference(nn.Module):
    """Random preferences that are never trained: all a step needs of them is made once."""

    unit_UQ: Tensor
    sent_IQ: Tensor
    penalty: Tensor
    """0-dim mean square of the preferences."""

    def __init__(self, preference_UQ: Tensor, item_from_user: Graph) -> None:
        super().__init__()
        unit_UQ = F.normalize(preference_UQ)
        self.register_buffer("unit_UQ", unit_UQ, persistent=False)
        self.register_buffer("sent_IQ", spmm(item_from_user, unit_UQ), persistent=False)
        self.register_buffer("penalty", preference_UQ.square().mean(), persistent=False)

    def forward(self, item_from_user: Graph) -> tuple[Tensor, Tensor]:
        """(U, Q) preferences of length 1, and (I, Q) for each item the mean of its users'."""
        return self.unit_UQ, self.sent_IQ


class Preference(nn.Module):
    """Preferences that are trained."""

    def __init__(self, preference_UQ: nn.Parameter) -> None:
        super().__init__()
        self.preference_UQ = preference_UQ

    @property
    def penalty(self) -> Tensor:
        """0-dim mean square of the preferences."""
        return self.preference_UQ.square().mean()

    def forward(self, item_from_user: Graph) -> tuple[Tensor, Tensor]:
        """(U, Q) preferences of length 1, and (I, Q) for each item the mean of its users'."""
        unit_UQ = F.normalize(self.preference_UQ)
        return unit_UQ, spmm(item_from_user, unit_UQ)


class Items(nn.Module):
    """Items' unit rows in a branch: features as they are, or mapped to another width."""

    def __init__(
        self, table: FeatureTable, width: int | None, init: torch.Generator, *, trained: bool
    ) -> None:
        super().__init__()
        self.width = table.width if width is None else width
        self.map = None if width is None else weights.linear(table.width, width, init, "default")
        constant = self.map is None and not trained
        self.table = Constant(F.normalize(table())) if constant else table

    def forward(self) -> Tensor:
        """(I, Q)."""
        if isinstance(self.table, Constant):
            return self.table.value
        table_IF = self.table()
        if self.map is None:
            return F.normalize(table_IF)
        return F.normalize(linear(table_IF, self.map.weight, self.map.bias))


class Layer(nn.Module):
    """One aggregation and combination."""

    def __init__(self, width: int, dim: int, init: torch.Generator, *, first: bool) -> None:
        super().__init__()
        self.message = weights.linear(width, width, init, "xavier_normal", bias=False)
        self.own = weights.linear(width, dim, init, "xavier_normal")
        rule = "xavier_normal" if first else "default"
        self.mix = weights.linear(width + dim, dim, init, rule)

    def forward(self, own_SQ: Tensor, message_SQ: Tensor, id_SD: Tensor) -> Tensor:
        """(S, D) from nodes' own rows, the mean of the mapped messages to them, and their ids."""
        h_SQ = F.leaky_relu(message_SQ, SLOPE)
        g_SD = F.leaky_relu(linear(own_SQ, self.own.weight, self.own.bias), SLOPE) + id_SD
        # The map of [h | g], without copying the two beside each other.
        mix_h_DQ, mix_g_DD = self.mix.weight.split((h_SQ.shape[1], g_SD.shape[1]), dim=1)
        return F.leaky_relu(linear(h_SQ, mix_h_DQ) + linear(g_SD, mix_g_DD, self.mix.bias), SLOPE)


class Branch(nn.Module):
    """The graph network of one modality."""

    def __init__(
        self, users: FixedPreference | Preference, items: Items, layers: Sequence[Layer]
    ) -> None:
        super().__init__()
        self.users, self.items, self.layers = users, items, nn.ModuleList(layers)

    def forward(
        self,
        item_IQ: Tensor,
        user_from_item: Graph,
        item_from_user: Graph,
        ids: tuple[Tensor, Tensor],
        at: tuple[Tensor, Tensor] | None,
    ) -> list[Tensor]:
        """The last layer's users (S, D) and items (S, D): those at the given ids, or all.

        `item_IQ` are the rows of `items`, gated if there are gates.

        A mean of mapped messages is the mapped mean of messages: inside, both directions map at
        the items, of which there are usually fewer; the last layer maps only at the rows wanted.
        """
        id_UD, id_ID = ids
        user_UQ, sent_IQ = self.users(item_from_user)
        *inner, last = cast(Iterable[Layer], self.layers)
        for layer in inner:
            to_user_UQ = spmm(user_from_item, linear(item_IQ, layer.message.weight))
            to_item_IQ = linear(sent_IQ, layer.message.weight)
            user_UQ = layer(user_UQ, to_user_UQ, id_UD)
            item_IQ = layer(item_IQ, to_item_IQ, id_ID)
            sent_IQ = spmm(item_from_user, user_UQ)
        sides = [(user_UQ, spmm(user_from_item, item_IQ), id_UD), (item_IQ, sent_IQ, id_ID)]
        if at is not None:
            sides = [
                (rows(own, index_S), rows(sent, index_S), rows(id_, index_S))
                for (own, sent, id_), index_S in zip(sides, at, strict=True)
            ]
        return [last(own, linear(sent, last.message.weight), id_) for own, sent, id_ in sides]


class MMGCNModel(Recommender):
    """Dot products of the mean of the modalities' last layers."""

    reg_weight: Tensor
    id_VD: Tensor

    def __init__(self, cfg: MMGCN, data: Dataset, init: torch.Generator) -> None:
        """ValueError if a projected modality is none of the model's."""
        super().__init__()
        self.modalities = item_modalities(cfg.modalities, data.features, "MMGCN")
        unknown = sorted(set(cfg.projected or ()) - set(self.modalities))
        if unknown:
            raise ValueError(f"cannot project {unknown}: the modalities are {self.modalities}")
        projected = ("image",) if cfg.projected is None else cfg.projected
        released = cfg.variant == "released"
        self.penalised = ("image",) if released else self.modalities
        self.gates = gates_if(cfg.gate_modalities, self.modalities)
        self.sizes = (data.num_users, data.num_items)
        mean_VV = row_mean(adjacency(data.train, data.num_users, data.num_items))
        self.user_from_item = Graph(mean_VV[: data.num_users, data.num_users :])
        self.item_from_user = Graph(mean_VV[data.num_users :, : data.num_users])
        branches = []
        for name in self.modalities:
            table = FeatureTable(values_of(data.features[name]), trained=cfg.train_features)
            width = cfg.latent_dim if name in projected else None
            items = Items(table, width, init, trained=cfg.train_features)
            preference_UQ = weights.xavier_normal(data.num_users, items.width, init)
            users = (
                FixedPreference(preference_UQ.detach(), self.item_from_user)
                if released
                else Preference(preference_UQ)
            )
            layers = [
                Layer(cfg.dim if k else items.width, cfg.dim, init, first=not k)
                for k in range(RELEASED_LAYERS if released else cfg.layers)
            ]
            branches.append(Branch(users, items, layers))
        self.branches = nn.ModuleList(branches)
        id_VD = weights.xavier_normal(sum(self.sizes), cfg.dim, init)
        if released:
            self.register_buffer("id_VD", id_VD.detach(), persistent=False)
        else:
            self.id_VD = id_VD
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def last_layers(self, at: tuple[Tensor, Tensor] | None = None) -> list[list[Tensor]]:
        """(S, D) users and (S, D) items of each modality: those at the given ids, or all."""
        ids = self.id_VD.split(self.sizes)
        branches = cast(Iterable[Branch], self.branches)
        return [
            branch(
                gated(self.gates, name, branch.items()),
                self.user_from_item,
                self.item_from_user,
                ids,
                at,
            )
            for name, branch in zip(self.modalities, branches, strict=True)
        ]

    def propagate(self, at: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(S, D) users and (S, D) items: those at the given ids, or all."""
        parts = self.last_layers(at)
        user_SD, item_SD = (torch.stack(side).mean(0) for side in zip(*parts, strict=True))
        return user_SD, item_SD

    def losses(self, batch: Batch) -> Losses:
        """`bpr` on the last layers, and `reg` on ids of the batch and preferences of all users."""
        num_rows = len(batch.user)
        item_T = torch.cat((batch.positive, batch.negative.reshape(-1)))
        user_BD, item_TD = self.propagate((batch.user, item_T))
        positive_BD, negative_TD = item_TD.tensor_split((num_rows,))
        negative_BND = negative_TD.view(*batch.negative.shape, -1)
        positive_B = (user_BD * positive_BD).sum(-1)
        negative_BN = (user_BD[:, None] * negative_BND).sum(-1)
        return Losses(
            {
                "bpr": bpr(positive_B[:, None], negative_BN),
                "reg": self.reg_weight * self.penalty(batch),
            }
        )

    def penalty(self, batch: Batch) -> Tensor:
        """0-dim: mean squares of the batch's ids, a row's user counted twice, and preferences."""
        id_UD, id_ID = self.id_VD.split(self.sizes)
        squares = [
            rows(id_UD, batch.user).square().mean(),
            rows(id_ID, batch.positive).square().mean() / 2,
            rows(id_ID, batch.negative).square().mean() / 2,
        ]
        branches = cast(Iterable[Branch], self.branches)
        for name, branch in zip(self.modalities, branches, strict=True):
            if name in self.penalised:
                squares.append(branch.users.penalty)
        return torch.stack(squares).sum()

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.propagate()

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, D) the items of each modality's last layer, before their mean."""
        parts = zip(self.modalities, self.last_layers(), strict=True)
        return {name: item_ID for name, (_, item_ID) in parts}

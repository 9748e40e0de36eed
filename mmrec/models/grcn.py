"""GRCN: attention between users' preferences and items' contents prunes the user-item graph.

Wei et al., "Graph-Refined Convolutional Network for Multimedia Recommendation with Implicit
Feedback", MM 2020. Of each modality, with p a user's preference and f an item's mapped features,
both of length 1, and the softmax over all messages that enter one node,

    a(u -> i) = softmax over the users of i of <p_u, f_i>,   a(i -> u) likewise over the items of u,
    v_u = p_u + sum of a(i -> u) f_i,   v_i = f_i + sum of a(u -> i) p_u

and of all together, C being the confidence of a node in a modality,

    w(x -> y) = max(0, max over modalities of a(x -> y) C_x),
    e + w e + w w e of unit ids e, then [ids | v of each modality] as a node's representation.

Kept from the MMRec toolbox: the SENDER's confidence, the plain sum of two layers, the loss without
a floor, penalties on lengths that the scores do not see. Left out: scores from the last training
step's representations (here they always belong to the current weights); text alone, where the
release fails, works.

Variants. "released": the rounds of routing that should move preferences towards items send
messages to items only, so they change nothing and are not computed. The preferences of the batch
are penalised, those of "image" (if there) a second time, over all users, which the authors' own
code does not. "described": `layers` rounds of p <- p + sum of a(i -> u) f_i, divided by its length,
come first (the paper's routing), and every modality's preferences are penalised once.

Gates multiply f after the division by its length, which would undo them, and so the products that
the attention is made of: a closed one makes it the same for all messages that enter a node.

Letters in names: U users, I items, V nodes (users, then items), P training pairs by user, E
messages (2 P, by receiver: users first), B batch, N negatives a row, M modalities, D embedding
width, C content width, F feature columns.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.graphs import Graph, adjacency, edge_dots, incidence, spmm
from mmrec.losses import bpr
from mmrec.models.base import Batch, Card, Losses, ModelConfig, Recommender
from mmrec.nn import init as weights
from mmrec.nn.features import FeatureTable, item_modalities, values_of
from mmrec.nn.gates import gate_measures, gated, gates_if
from mmrec.nn.maps import linear
from mmrec.nn.propagation import sum_of_layers
from mmrec.nn.tables import Constant, rows


@config
class GRCN(ModelConfig):
    """Defaults and grid: the toolbox's."""

    CARD = Card(
        "GRCN",
        2020,
        "MM",
        "prunes interactions that contents contradict",
        "one or more",
        "routing never reaches the users; image preferences are penalised twice",
    )
    search_space = {
        "model.reg_weight": (0.1, 1e-2, 1e-3, 1e-4, 1e-5),
        "train.lr": (1.0, 0.1, 1e-2, 1e-3, 1e-4),
    }

    dim: Annotated[int, Ge(1)] = 64
    """Width of ids."""
    latent_dim: Annotated[int, Ge(1)] = 64
    """Width of preferences and mapped features, of each modality."""
    layers: Annotated[int, Ge(0)] = 3
    """Rounds of routing; "released" computes none, since there they change nothing."""
    reg_weight: Annotated[float, Ge(0)] = 1e-3
    """Weight of the mean squares of ids and preferences."""
    modalities: tuple[str, ...] | None = None
    """Names of item features; None takes all that are tables of numbers."""
    train_features: bool = False
    """Whether the feature tables are trained."""
    gate_modalities: bool = False
    """Whether each modality has a learned scalar gate, which starts at 1 and can close to 0
    (adaptive knockout); our addition, not in the release."""
    variant: Literal["released", "described"] = "released"
    """See the module's docstring."""

    def build(self, data: Dataset, init: torch.Generator) -> "GRCNModel":
        return GRCNModel(self, data, init)


class Messages(nn.Module):
    """The messages of the user-item graph, both ways, and sums over those that enter a node."""

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self.both = Graph(adjacency(data.train, data.num_users, data.num_items), symmetric=True)
        self.to_user = incidence(data.train, data.num_users, data.num_items)
        self.num_nodes = self.both.shape[0]
        self.receiver_E = Constant(self.both.row_E)
        self.sender_E = Constant(self.both.column_E)
        num_pairs = self.to_user.num_entries
        # Messages to items: the pairs once more, by item.
        self.pair_E = Constant(torch.cat((torch.arange(num_pairs), self.to_user.place_E)))

    def attention(self, user_UC: Tensor, item_IC: Tensor, *, to_users: bool = False) -> Tensor:
        """(E,) softmax of the dot products over each receiver, or (P,) of users' messages only.

        The products of unit rows are at most 1 (2 with gates): no shift is needed, and the
        release's 1e-16 in the denominator is below rounding.
        """
        weight_E = edge_dots(self.to_user, user_UC, item_IC).exp()
        if not to_users:
            weight_E = rows(weight_E, self.pair_E.value)
        receiver_E = self.receiver_E.value[: len(weight_E)]
        total_V = weight_E.new_zeros(self.num_nodes).index_add(0, receiver_E, weight_E)
        return weight_E / rows(total_V, receiver_E)


class Content(nn.Module):
    """One modality: users' preferences, and a map of items' features."""

    def __init__(
        self, table: FeatureTable, num_users: int, width: int, init: torch.Generator
    ) -> None:
        super().__init__()
        self.table = table
        self.preference_UC = weights.xavier_normal(num_users, width, init)
        self.map = weights.linear(table.width, width, init, "xavier_normal")

    def items(self) -> Tensor:
        """(I, C) f, mapped features of length 1."""
        mapped_IC = linear(self.table(), self.map.weight, self.map.bias)
        return F.normalize(F.leaky_relu(mapped_IC, 0.01))

    def forward(self, item_IC: Tensor, messages: Messages, rounds: int) -> tuple[Tensor, Tensor]:
        """(V, C) contents after the exchange, and (E,) the attention.

        `item_IC` are the rows of `items`, gated if there are gates.
        """
        user_UC = F.normalize(self.preference_UC)
        for _ in range(rounds):
            attention_P = messages.attention(user_UC, item_IC, to_users=True)
            user_UC = F.normalize(user_UC + spmm(messages.to_user, item_IC, attention_P))
        attention_E = messages.attention(user_UC, item_IC)
        content_VC = torch.cat((user_UC, item_IC))
        return content_VC + spmm(messages.both, content_VC, attention_E), attention_E


class GRCNModel(Recommender):
    """Dot products of ids on the refined graph beside the contents of each modality."""

    reg_weight: Tensor

    def __init__(self, cfg: GRCN, data: Dataset, init: torch.Generator) -> None:
        super().__init__()
        self.modalities = item_modalities(cfg.modalities, data.features, "GRCN")
        self.gates = gates_if(cfg.gate_modalities, self.modalities)
        self.released = cfg.variant == "released"
        self.rounds = 0 if self.released else cfg.layers
        self.num_users = data.num_users
        num_nodes = data.num_users + data.num_items
        self.messages = Messages(data)
        self.id_VD = weights.xavier_normal(num_nodes, cfg.dim, init)
        self.contents = nn.ModuleList(
            Content(
                FeatureTable(values_of(data.features[name]), trained=cfg.train_features),
                data.num_users,
                cfg.latent_dim,
                init,
            )
            for name in self.modalities
        )
        self.confidence_VM = weights.xavier_normal(num_nodes, len(self.modalities), init)
        self.register_buffer("reg_weight", torch.tensor(cfg.reg_weight), persistent=False)

    def propagate(self) -> list[Tensor]:
        """(V, D) ids on the refined graph, then (V, C) contents of each modality."""
        parts = [
            content(gated(self.gates, name, content.items()), self.messages, self.rounds)
            for name, content in zip(
                self.modalities, cast(Iterable[Content], self.contents), strict=True
            )
        ]
        contents, attentions = zip(*parts, strict=True)
        start_VD = F.normalize(self.id_VD)
        weight_E = self.refined(attentions)
        return [sum_of_layers(self.messages.both, start_VD, 2, weight_E), *contents]

    def refined(self, attentions: Iterable[Tensor]) -> Tensor:
        """(E,) weights of the messages: 0 where no modality makes the sender confident."""
        sender_E = self.messages.sender_E.value
        trusted = [
            attention_E * rows(confidence_V, sender_E)
            for attention_E, confidence_V in zip(
                attentions, self.confidence_VM.unbind(1), strict=True
            )
        ]
        return reduce(torch.maximum, trusted).relu()

    def losses(self, batch: Batch) -> Losses:
        """`bpr` on representations, and `reg` on the un-normalised ids and preferences."""
        item_T = torch.cat((batch.positive, batch.negative.reshape(-1)))
        # One look-up a table: each has a gradient as large as the table.
        node_T = torch.cat((batch.user, self.num_users + item_T))
        sizes = [ids.numel() for ids in (batch.user, batch.positive, batch.negative)]
        part_TX = torch.cat([rows(part_VX, node_T) for part_VX in self.propagate()], dim=1)
        user_BX, positive_BX, negative_TX = part_TX.split(sizes)
        negative_BNX = negative_TX.view(*batch.negative.shape, -1)
        positive_B = (user_BX * positive_BX).sum(-1)
        negative_BN = (user_BX[:, None] * negative_BNX).sum(-1)
        # A row's user is counted twice, once with each of its items.
        user_BD, positive_BD, negative_TD = rows(self.id_VD, node_T).square().split(sizes)
        penalties = [user_BD.mean() + (positive_BD.mean() + negative_TD.mean()) / 2]
        contents = cast(Iterable[Content], self.contents)
        for name, content in zip(self.modalities, contents, strict=True):
            penalties.append(rows(content.preference_UC, batch.user).square().mean())
            if self.released and name == "image":
                penalties.append(content.preference_UC.square().mean())
        return Losses(
            {
                "bpr": bpr(positive_B[:, None], negative_BN),
                "reg": self.reg_weight * torch.stack(penalties).sum(),
            }
        )

    def embeddings(self) -> tuple[Tensor, Tensor]:
        table_VX = torch.cat(self.propagate(), dim=1)
        return table_VX[: self.num_users], table_VX[self.num_users :]

    def measures(self) -> dict[str, float]:
        return gate_measures(self.gates)

    def item_views(self) -> dict[str, Tensor]:
        """(I, C) the items' v of each modality."""
        contents = zip(self.modalities, self.propagate()[1:], strict=True)
        return {name: content_VC[self.num_users :] for name, content_VC in contents}

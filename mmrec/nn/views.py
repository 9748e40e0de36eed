"""What MGCN, SMORE and MambaRec share: views by behaviour and by content, and a contrast of them.

A batch needs the views at its own users and items only: each of these is looked at once, however
often it occurs.

Letters in names: U users, I items, X views by content, M of them of a modality each, D embedding
width, E width of what is mapped or picked, B batch, N negatives a row, C one positive and then the
negatives of a row, Q distinct nodes of a batch (users, then items), or all nodes. In `last_E`, E
entries of a graph.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.data.dataset import Dataset
from mmrec.data.sampling import distinct, item_places
from mmrec.graphs import Graph, adjacency, spmm, symmetric
from mmrec.losses import Similarity, bpr, half_squares
from mmrec.nn import init as start
from mmrec.nn.contrast import indexed_infonce
from mmrec.nn.gates import ModalityGates
from mmrec.nn.maps import linear
from mmrec.nn.propagation import mean_of_layers
from mmrec.nn.tables import rows


class Views(nn.Module):
    """The graphs that carry views of items to items alike, and then to users.

    The user-item graph is A_ui = (d_u d_i)^(-1/2), without self loops, and nothing is added to the
    degrees d; a node without edges has an empty row.
    """

    def __init__(
        self,
        data: Dataset,
        item_graphs: Sequence[sp.csr_array],
        *,
        ui_layers: int,
        item_layers: int,
    ) -> None:
        """With one item graph a view, applied `item_layers` times."""
        super().__init__()
        self.ui_layers, self.item_layers = ui_layers, item_layers
        both = symmetric(adjacency(data.train, data.num_users, data.num_items))
        self.graph = Graph(both, symmetric=True)
        self.to_users = Graph(sp.csr_array(both[: data.num_users, data.num_users :]))
        self.item_graphs = nn.ModuleList(Graph(matrix) for matrix in item_graphs)

    def forward(
        self,
        user_UD: Tensor,
        item_ID: Tensor,
        views: Sequence[Tensor],
        users: Tensor | None = None,
        items: Tensor | None = None,
        last_E: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The behaviour view (Q, D), a mean of layers, and the views by content (Q, X, D).

        Args:
            user_UD: the users' table.
            item_ID: the items' table.
            views: (I, D) of the items, one an item graph; the views of users are sums over theirs.
            users: the users wanted; None takes all.
            items: the items wanted; None takes all.
            last_E: what takes the place of the last item graph's entries, as in `spmm`.
        """
        spread = []
        entries = [*[None] * (len(views) - 1), last_E]
        for graph, view_ID, weight_E in zip(self.item_graphs, views, entries, strict=True):
            for _ in range(self.item_layers):
                view_ID = spmm(cast(Graph, graph), view_ID, weight_E)
            spread.append(view_ID)
        side_by_side = torch.cat(spread, 1)
        behaviour_QD, content_QE = (
            torch.cat((_wanted(of_users, users), _wanted(of_items, items)))
            for of_users, of_items in (
                mean_of_layers(self.graph, user_UD, item_ID, self.ui_layers),
                (spmm(self.to_users, side_by_side), side_by_side),
            )
        )
        return behaviour_QD, content_QE.view(len(content_QE), len(views), -1)


def _wanted(table_ND: Tensor, index: Tensor | None) -> Tensor:
    return table_ND if index is None else rows(table_ND, index)


class Gate(nn.Module):
    """The logistic function of a linear map of all items, entry by entry a share in (0, 1)."""

    def __init__(self, dim: int, init: torch.Generator) -> None:
        super().__init__()
        self.map = start.linear(dim, dim, init, "default")

    def forward(self, x_IE: Tensor, before_ED: Tensor | None = None) -> Tensor:
        """(I, D) of x, or of x @ `before_ED`."""
        weight_DE = self.map.weight
        if before_ED is not None:
            weight_DE = weight_DE @ before_ED.T
        return linear(x_IE, weight_DE, self.map.bias).sigmoid()


def attention(dim: int, init: torch.Generator) -> nn.Sequential:
    """What each modality of a node says for itself, q . tanh(C x + c), as MGCN's attention."""
    return nn.Sequential(
        start.linear(dim, dim, init, "default"),
        nn.Tanh(),
        start.linear(dim, 1, init, "default", bias=False),
    )


def preferences(modalities: int, dim: int, init: torch.Generator) -> nn.ModuleList:
    """A map a modality, from behaviour to the logits of what a node takes of it."""
    return nn.ModuleList(start.linear(dim, dim, init, "default") for _ in range(modalities))


def common_and_apart(
    behaviour_QD: Tensor, content_QMD: Tensor, asks: nn.Sequential, prefers: nn.ModuleList
) -> Tensor:
    """(Q, D) MGCN's side of each node: what its modalities have in common, and what each adds.

    Args:
        behaviour_QD: which decides how much of what each modality has apart is taken.
        content_QMD: two modalities or more.
        asks: an `attention`.
        prefers: `preferences` of these modalities.
    """
    common_QD = (asks(content_QMD).softmax(1) * content_QMD).sum(1)
    preference_QMD = torch.stack([p(behaviour_QD) for p in prefers], 1).sigmoid()
    apart_QMD = preference_QMD * (content_QMD - common_QD[:, None])
    return (common_QD + apart_QMD.sum(1)) / (content_QMD.shape[1] + 1)


def batch_nodes(user_B: Tensor, positive_B: Tensor, negative_BN: Tensor) -> dict[str, Tensor]:
    """For `Batch.extra`: the distinct `users` and `items` of a batch, and where its ids are there.

    `user_at` (B,) counts in users; `positive_at` (B,) and `negative_at` (B, N) in items; of the
    distinct `positives`, places in items too, `positive_of` (B,) says which.
    """
    users, user_at = distinct(user_B)
    places = item_places(positive_B, negative_BN)
    positives, positive_of = distinct(places["positive_at"])
    also = {"users": users, "user_at": user_at, "positives": positives, "positive_of": positive_of}
    return places | also


def ranking_losses(
    output_QD: Tensor, nodes: Mapping[str, Tensor], *, size: int
) -> tuple[Tensor, Tensor]:
    """BPR and L2 term of the embeddings of a batch's distinct users, then items.

    Args:
        output_QD: the embeddings.
        nodes: what `batch_nodes` gives.
        size: what the L2 term is divided by.
    """
    item_BC = torch.cat((nodes["positive_at"][:, None], nodes["negative_at"]), 1)
    user_BD = rows(output_QD, nodes["user_at"])
    item_BCD = rows(output_QD, len(nodes["users"]) + item_BC)
    score_BC = (user_BD[:, None] * item_BCD).sum(-1)
    squares = half_squares(user_BD, item_BCD, size=size)
    return bpr(score_BC[:, :1], score_BC[:, 1:]), squares


def view_losses(
    behaviour_QD: Tensor,
    side_QD: Tensor,
    nodes: Mapping[str, Tensor],
    tau: Tensor,
    *,
    size: int,
    gates: ModalityGates | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """BPR, L2 term and contrast of embeddings that are the sum of a behaviour and a side view.

    The contrast is InfoNCE of the batch's own rows, users and positive items each with their like:
    a side row is the anchor, the behaviour row of the same node its target, the behaviour rows of
    the whole batch the candidates, one for each time a node occurs; cosines over `tau`.

    Args:
        behaviour_QD: of the batch's distinct users, then items.
        side_QD: likewise.
        nodes: what `batch_nodes` gives.
        tau: 0-dim temperature.
        size: what the L2 term is divided by.
        gates: of the modalities in the side rows. Cosines undo what the gates have in common, so
            they are multiplied by the largest; without a gradient, since a gate must not open for
            making a loss sharper.
    """
    ranking, squares = ranking_losses(behaviour_QD + side_QD, nodes, size=size)
    num_users = len(nodes["users"])
    similarity: Similarity = "cosine"
    if gates is not None:
        similarity = "dot"
        side_QD = gates().amax().detach() * F.normalize(side_QD, dim=-1)
        behaviour_QD = F.normalize(behaviour_QD, dim=-1)
    positive_at = num_users + nodes["positives"]
    user_contrast = indexed_infonce(
        side_QD[:num_users],
        behaviour_QD[:num_users],
        tau,
        nodes["user_at"],
        nodes["user_at"],
        similarity=similarity,
    )
    item_contrast = indexed_infonce(
        rows(side_QD, positive_at),
        rows(behaviour_QD, positive_at),
        tau,
        nodes["positive_of"],
        nodes["positive_of"],
        similarity=similarity,
    )
    return ranking, squares, user_contrast + item_contrast

"""One graph convolution a modality, over users' preferences and items' content.

What DualGNN and DRAGON have in common, as the MMRec toolbox releases both.

Letters in names: U users, I items, V nodes (users, then items), M modalities, F feature columns,
H hidden width, D width of a tower, B batch.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmrec.data.dataset import Dataset
from mmrec.graphs import bipartite
from mmrec.nn import init as start
from mmrec.nn.features import FeatureTable, values_of
from mmrec.nn.gates import ModalityGates
from mmrec.nn.maps import linear
from mmrec.nn.propagation import sum_of_layers
from mmrec.nn.tables import rows


class Tower(nn.Module):
    """One modality: a free row a user, and items mapped from their features."""

    def __init__(
        self,
        data: Dataset,
        name: str,
        *,
        dim: int,
        hidden: int,
        trained: bool,
        init: torch.Generator,
    ) -> None:
        super().__init__()
        self.features = FeatureTable(values_of(data.features[name]), trained=trained)
        self.preference_UD = start.xavier_normal(data.num_users, dim, init)
        self.inner = start.linear(self.features.width, hidden, init, "default")
        self.outer = start.linear(hidden, dim, init, "default")

    def content(self) -> Tensor:
        """(I, D) items: two maps with a leaky ReLU of slope 0.01 between them."""
        hidden_IH = F.leaky_relu(linear(self.features(), self.inner.weight, self.inner.bias))
        return linear(hidden_IH, self.outer.weight, self.outer.bias)


class Towers(nn.Module):
    """All modalities, spread over the user-item graph side by side.

    With x the rows [preference; content] of a tower, each divided by its length (1e-12 at least),
    and A the graph with entries (deg_u deg_i)^(-1/2), a tower is x + A x + ... + A^layers x. Gates
    multiply the content after that division, which would undo them.
    """

    def __init__(
        self,
        data: Dataset,
        names: Sequence[str],
        *,
        dim: int,
        hidden: int,
        layers: int,
        trained: bool,
        init: torch.Generator,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.graph = bipartite(data.train, data.num_users, data.num_items, epsilon=0.0)
        self.towers = nn.ModuleList(
            Tower(data, name, dim=dim, hidden=hidden, trained=trained, init=init) for name in names
        )

    def __iter__(self) -> Iterator[Tower]:
        return cast(Iterator[Tower], iter(self.towers))

    def forward(self, gates: ModalityGates | None = None) -> tuple[Tensor, Tensor]:
        """Users (U, M, D) and items (I, M, D), with gates in the towers' order if given."""
        user_UMD = torch.stack([tower.preference_UD for tower in self], 1)
        item_IMD = torch.stack([tower.content() for tower in self], 1)
        start_VMD = F.normalize(torch.cat((user_UMD, item_IMD)), dim=-1, eps=1e-12)
        if gates is not None:
            unit_UMD, unit_IMD = start_VMD.split((len(user_UMD), len(item_IMD)))
            start_VMD = torch.cat((unit_UMD, unit_IMD * gates()[:, None]))
        sum_VC = sum_of_layers(self.graph, start_VMD.flatten(1), self.layers)
        # In one split, whose gradient is one copy; two slices would each make a table of zeros.
        user_UMD, item_IMD = sum_VC.view(start_VMD.shape).split((len(user_UMD), len(item_IMD)))
        return user_UMD, item_IMD

    def preference_penalty(self, user_B: Tensor) -> Tensor:
        """The mean square of the batch users' free rows, summed over modalities."""
        squares = [rows(tower.preference_UD, user_B).square().mean() for tower in self]
        return torch.stack(squares).sum()


def modality_weights(num_rows: int, modalities: int, init: torch.Generator) -> nn.Parameter:
    """(num_rows, M) the softmax of a narrow normal draw: about 1 / M each.

    Only a start: training may leave the simplex, as in the release.
    """
    drawn_NM = start.xavier_normal(num_rows, modalities, init)
    return nn.Parameter(drawn_NM.detach().softmax(1))

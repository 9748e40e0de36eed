"""The two sides of a dot product: how users, or items, become embeddings.

Letters in names: N entities, K modalities drawn for a cell, C common width, D output width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from mmrec.data.dataset import Dataset, Feature, Pairs
from mmrec.graphs import Graph, incidence
from mmrec.nn.projections import Projection
from mmrec.nn.tables import rows


class SideData(NamedTuple):
    """What a dataset knows of its users, or of its items."""

    name: Literal["user", "item"]
    pairs: Pairs
    """Training pairs, this side's entity first."""
    num_entities: int
    num_others: int
    features: Mapping[str, Feature]
    cold: bool
    """Whether the split keeps the evaluated entities of this side out of training."""

    @classmethod
    def users(cls, data: Dataset) -> "SideData":
        """The users' side."""
        cold = data.split == "cold-user"
        return cls("user", data.train, data.num_users, data.num_items, data.user_features, cold)

    @classmethod
    def items(cls, data: Dataset) -> "SideData":
        """The items' side."""
        pairs, cold = data.train[:, ::-1], data.split == "cold-item"
        return cls("item", pairs, data.num_items, data.num_users, data.features, cold)

    def interactions(self) -> Graph:
        """(entities, others) the binary training rows."""
        dtype = torch.get_default_dtype()
        return incidence(self.pairs, self.num_entities, self.num_others, dtype=dtype)


class Encoded(NamedTuple):
    """What a side gives for the cells of a batch, whose index has the shape (...)."""

    embedding: Tensor
    """(..., D)."""
    views: tuple[Tensor, ...] = ()
    """K times (..., D): the vectors of the drawn modalities; none where none are drawn."""
    distinct: Tensor | None = None
    """(...) 1.0 where the drawn modalities differ, else 0.0; None where they differ everywhere."""
    buffers: dict[str, Tensor] = {}
    """New running statistics by buffer name within the side."""


class Side(nn.Module, ABC):
    """Users or items."""

    @abstractmethod
    def encode(
        self, entity: Tensor, drawn: Tensor | None = None, keep: Tensor | None = None
    ) -> Encoded:
        """Embeddings of the entities of a training batch.

        Args:
            entity: (...) int64, an entity may occur often.
            drawn: (..., K) int64 indices of the drawn modalities.
            keep: (..., K, C) bool, False where dropout zeroes the branch's input.
        """

    @abstractmethod
    def table(self, modalities: Sequence[str] | None = None) -> Tensor:
        """(N, D) embeddings of all entities, as used for scoring."""


class TableSide(Side):
    """A row of a table an entity, started at N(0, (0.1 / D)^2)."""

    def __init__(self, table_ND: nn.Parameter) -> None:
        super().__init__()
        self.table_ND = table_ND

    def encode(
        self, entity: Tensor, drawn: Tensor | None = None, keep: Tensor | None = None
    ) -> Encoded:
        del drawn, keep
        return Encoded(rows(self.table_ND, entity))

    def table(self, modalities: Sequence[str] | None = None) -> Tensor:
        _refuse_choice(modalities)
        return self.table_ND


class ProjectedSide(Side):
    """One projection and nothing behind it, such as act(W x + b) of the interactions."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.projection = projection

    def encode(
        self, entity: Tensor, drawn: Tensor | None = None, keep: Tensor | None = None
    ) -> Encoded:
        del drawn, keep
        return Encoded(rows(self.projection(), entity))

    def table(self, modalities: Sequence[str] | None = None) -> Tensor:
        _refuse_choice(modalities)
        return self.projection()


def _refuse_choice(modalities: Sequence[str] | None) -> None:
    if modalities is not None:
        raise ValueError(f"this side has no modalities to choose from, got {list(modalities)}")

"""The two sides of a dot product: how users, or items, become embeddings.

Letters in names: N entities, M modalities, K modalities drawn for a cell, P entities that a batch
lists of a modality, C common width, D output width.
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
    """Whether the entities of this side are evaluated without what training pairs tell of them: the
    split keeps them out of training, or the dataset's condition has it so."""

    @classmethod
    def users(cls, data: Dataset) -> "SideData":
        """The users' side."""
        cold = data.split == "cold-user"
        return cls("user", data.train, data.num_users, data.num_items, data.user_features, cold)

    @classmethod
    def items(cls, data: Dataset) -> "SideData":
        """The items' side."""
        pairs = data.train[:, ::-1]
        cold = data.split == "cold-item" or not data.items_known
        return cls("item", pairs, data.num_items, data.num_users, data.features, cold)

    def interactions(self) -> Graph:
        """(entities, others) the binary training rows."""
        dtype = torch.get_default_dtype()
        return incidence(self.pairs, self.num_entities, self.num_others, dtype=dtype)


class Listed(NamedTuple):
    """The entities that a batch needs of each modality, where that is not most of them."""

    entity_PM: Tensor
    """(P, M) int64: of every modality those that drew it; behind them come any others."""
    place: Tensor
    """(..., K) int64: where in the list of a drawn modality the cell's entity lies; (..., 1) where
    nothing is drawn and all lists are the same."""


class Encoded(NamedTuple):
    """What a side gives for the cells of a batch, whose index has the shape (...)."""

    embedding: Tensor
    """(..., D)."""
    views: tuple[Tensor, ...] = ()
    """K times (..., D): the vectors of the drawn modalities; none where none are drawn."""
    fresh: tuple[Tensor, ...] | None = None
    """K times (...): 0.0 where a drawn modality was drawn before for the same cell, as an entity
    lacks others, else 1.0; None where no draw can be a repeat."""
    buffers: dict[str, Tensor] = {}
    """New running statistics by buffer name within the side."""


class Side(nn.Module, ABC):
    """Users or items."""

    @abstractmethod
    def encode(
        self,
        entity: Tensor,
        drawn: Tensor | None = None,
        keep: Tensor | None = None,
        listed: Listed | None = None,
    ) -> Encoded:
        """Embeddings of the entities of a training batch.

        Args:
            entity: (...) int64, an entity may occur often.
            drawn: (..., K) int64 indices of the drawn modalities.
            keep: (..., K, C) bool, False where dropout zeroes the branch's input.
            listed: the entities that are looked at; None: all. The numbers are the same.
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
        self,
        entity: Tensor,
        drawn: Tensor | None = None,
        keep: Tensor | None = None,
        listed: Listed | None = None,
    ) -> Encoded:
        del drawn, keep, listed
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
        self,
        entity: Tensor,
        drawn: Tensor | None = None,
        keep: Tensor | None = None,
        listed: Listed | None = None,
    ) -> Encoded:
        del drawn, keep, listed
        return Encoded(rows(self.projection(), entity))

    def table(self, modalities: Sequence[str] | None = None) -> Tensor:
        _refuse_choice(modalities)
        return self.projection()


def _refuse_choice(modalities: Sequence[str] | None) -> None:
    if modalities is not None:
        raise ValueError(f"this side has no modalities to choose from, got {list(modalities)}")

"""What every model is: a config that can be swept, and a module that can be trained.

Letters in names: U users, I items, B batch, N negatives a row, D embedding width.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from mmrec.config import config
from mmrec.data.dataset import Dataset, Part
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, bpr_epoch
from mmrec.nn.maps import times_turned


@dataclass(frozen=True)
class Batch:
    """One step's training rows, with every random draw that the step needs."""

    user: Tensor
    """(B,) int64."""
    positive: Tensor
    """(B,) int64."""
    negative: Tensor
    """(B, N) int64, N negatives a row; N = 0 for a model that uses none."""
    extra: Mapping[str, Tensor] = field(default_factory=dict)
    """A model's own draws, such as dropout masks or sampled modalities; first dimension B unless
    the model's `epoch_batches` says otherwise."""
    full_size: int = 0
    """Rows of a full batch; only an epoch's last one may have fewer."""


class Losses(NamedTuple):
    """What a step returns."""

    terms: dict[str, Tensor]
    """Named 0-dim terms, already weighted: their sum is minimised, each is logged."""
    buffers: Mapping[str, Tensor] = {}
    """New values of named buffers that the step changes (batch-norm running statistics)."""


class Ranker(ABC):
    """Lists items in place of the scores of two tables, such as a beam search."""

    @abstractmethod
    def top(self, user_B: Tensor, allowed_BI: Tensor, k: int) -> Tensor:
        """(B, k) item ids, best first; -1 where a user has fewer items left.

        Args:
            user_B: users, int64.
            allowed_BI: which items may be listed, bool.
            k: length of the lists.
        """


class Recommender(nn.Module, ABC):
    """A model tied to one dataset.

    `losses` must be a function of parameters, buffers and batch alone: no `.item()`, no branch on
    data, no data-dependent shape, no random draw and no change in place, so that several runs can
    be stacked and trained together (torch.func). Continuous knobs are 0-dim buffers.
    """

    DEAD: ClassVar[tuple[str, ...]] = ()
    """Parameters that get no gradient in the released model; tests hold them to it."""
    ITEM_ROWS: tuple[str, ...] | None = None
    """Parameters with one row an item that training interactions alone teach, some of them perhaps
    in one variant only. Where interactions are missing their rows stay as they start. None: the
    model needs its items' interactions and is not scored without."""

    FITTED: ClassVar[bool] = False
    """Whether `build` fits to the features what decides the meaning of parameters, such as code
    books: a model trained on some features is then not the same one built on others."""

    def require_trainable(self, data: Dataset) -> None:
        """ValueError if the model can be ranked on the dataset it is built on, but not trained.

        By default nothing is refused.
        """

    @abstractmethod
    def losses(self, batch: Batch) -> Losses:
        """The loss terms of one step."""

    @abstractmethod
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """(U, D) and (I, D), as used for scoring: from the current weights, without a draw."""

    def embeddings_at(self, part: Part) -> tuple[Tensor, Tensor]:
        """`embeddings` for ranking a part: at test a model of sequences knows the valid items."""
        return self.embeddings()

    def ranker(self, part: Part) -> Ranker | None:
        """What ranks the items for a part; None: `score` does, of all items by the two tables."""
        return None

    def score(self, user_BD: Tensor, item_ID: Tensor) -> Tensor:
        """(B, I) scores, higher is better, of rows of the two tables above. A dot product."""
        return times_turned(user_BD, item_ID)

    def epoch_batches(
        self, data: TrainingPairs, draws: Draws, epoch: int, shape: BatchShape
    ) -> Iterator[Batch]:
        """The batches of one epoch on the CPU; BPR rows unless a model's file says otherwise."""
        rows = bpr_epoch(data, draws, epoch, shape.negatives)
        for start in range(0, len(rows.user), shape.size):
            at = slice(start, start + shape.size)
            yield Batch(rows.user[at], rows.positive[at], rows.negative[at], full_size=shape.size)

    def start_epoch(self, draws: Draws, epoch: int) -> None:
        """Refresh what changes once an epoch, such as a pruned graph. Nothing by default."""

    def measures(self) -> dict[str, float]:
        """Numbers about the trained state beyond ranking, such as a collapse. None by default."""
        return {}

    def item_views(self) -> dict[str, Tensor]:
        """Modality -> (I, D) the items as the model sees them by it alone, after its own map.

        From the current weights, without a draw. Empty for a model that maps no modality.
        """
        return {}


class Card(NamedTuple):
    """What a reader wants to know of a model before its file: a row of the README's table."""

    name: str
    """As its paper spells it."""
    year: int
    venue: str
    idea: str
    """In five words."""
    modalities: str
    """How many it takes: none, one or more, two or more."""
    faults: str
    """What the released code gets wrong; empty if nothing is known."""


@config
class ModelConfig(ABC):
    """A model's hyperparameters, and nothing about training or data."""

    VERSION: ClassVar[int] = 1
    """Raised when the same config gives other numbers than before: it is part of a trial's name."""
    CARD: ClassVar[Card]
    closed_form: ClassVar[bool] = False
    """Whether the model is computed from the data at once, and so has no parameters to train."""
    search_space: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """The published grid: dotted path in a run config -> its levels, e.g. `model.reg_weight`."""
    released_training: ClassVar[Mapping[str, Any]] = {}
    """Where the release trains otherwise than by the defaults, e.g. `train.lr_decay`: 0.96."""
    STRUCTURE: ClassVar[tuple[str, ...]] = ()
    """Continuous fields that decide a graph or a draw rather than a loss, such as a dropout rate:
    they are no buffers, and lanes must agree in them."""

    @abstractmethod
    def build(self, data: Dataset, init: torch.Generator) -> Recommender:
        """The untrained model on the CPU, every weight drawn from `init`."""

"""A trial under way, and who watches it. No Ray here."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import optuna

from mmrec.study.study import Planned


@dataclass
class Live:
    """A trial that is being run."""

    planned: Planned
    attempt: int
    row: optuna.Trial
    last: dict[str, Any] = field(default_factory=dict)
    told: set[int] = field(default_factory=set)
    heard: float = field(default_factory=time.monotonic)
    """When it last told of an epoch."""


class Watch(ABC):
    """Who wants to know how a study goes, and may say that it is enough."""

    @abstractmethod
    def enough(self) -> bool:
        """Whether the budget is used up: no further trial is started."""

    @abstractmethod
    def started(self, live: Live) -> None:
        """A trial was handed to Tune."""

    @abstractmethod
    def reported(self, live: Live) -> None:
        """A trial told of an epoch."""

    @abstractmethod
    def ended(self, live: Live, how: str) -> None:
        """A trial came to an end, or to one of the pauses that `Status` names."""

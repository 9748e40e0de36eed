import time
from types import SimpleNamespace
from typing import Any

import torch

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.evaluation import PROTOCOLS
from mmrec.models.base import ModelConfig, Recommender
from mmrec.models.bpr import BPR
from mmrec.models.popularity import Popularity
from mmrec.study.trials import Trial
from mmrec.training import RunConfig
from mmrec.tune.forecast import pilot
from tests.models.tiny import tiny

PAUSE = 0.1


@config
class Slow(ModelConfig):
    """Takes its time before it is built."""

    trained: bool = False

    def build(self, data: Dataset, init: torch.Generator) -> Recommender:
        time.sleep(PAUSE)
        return (BPR(dim=2) if self.trained else Popularity()).build(data, init)


def seconds(model: ModelConfig) -> float:
    job: Any = SimpleNamespace(data=tiny(), protocol=PROTOCOLS["full"], device="cpu")
    planned: Any = SimpleNamespace(trial=Trial(RunConfig(model=model), seed=0))
    return pilot(job, planned)


def test_a_pilot_times_epochs_or_the_whole_of_a_closed_form():
    assert seconds(Slow(trained=False)) >= PAUSE
    assert 0 < seconds(Slow(trained=True)) < PAUSE

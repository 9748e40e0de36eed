"""A small study, and ledger rows and files for its trials without any training."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch

from mmrec.evaluation import Ranking
from mmrec.models.bpr import BPR
from mmrec.models.sibrar import SiBraR
from mmrec.study import seal
from mmrec.study.ledger import Ledger
from mmrec.study.ranges import Range
from mmrec.study.store import Folder
from mmrec.study.study import Factor, Planned, Study
from mmrec.study.trials import Setting
from mmrec.training import RunConfig, TrainConfig

ALPHA, DEPTH = "model.alpha", "model.dim"
SETTING = Setting(data="00ff", split="random", protocol="full", device="cpu")
STUDY = Study(
    name="made_up",
    question="Is it so?",
    base=RunConfig(model=SiBraR(), train=TrainConfig(epochs=10)),
    factors=(
        Factor(ALPHA, (0.0, 1e-6), search=Range(1e-6, 1.0, log=True)),
        Factor(DEPTH, (4, 8)),
    ),
    controls={"MF": RunConfig(model=BPR())},
)
SPANS = {ALPHA: (0.0, 1.0), DEPTH: (4.0, 8.0)}
OBJECTIVE = STUDY.base.objective
COUNT = 20
"""Users with something to find."""


def plan(seeds: int = 1) -> list[Planned]:
    return STUDY.plan(STUDY.cells(), range(seeds), SETTING)


def searched(alpha: float, dim: int = 4) -> Planned:
    cell = STUDY.cell({ALPHA: alpha, DEPTH: dim}, phase="search")
    return STUDY.plan([cell], [0], SETTING)[0]


def facts(value: float, epoch: int = 7) -> dict[str, Any]:
    """What a worker tells of a trial."""
    return {
        "best_epoch": epoch,
        "epochs": 10,
        "seconds": 1.5,
        "host": "here",
        "hardware": "a machine",
        "device": "cpu",
        "threads": 1,
        "torch": "2",
        "valid": {OBJECTIVE: value, "recall@20": 2 * value},
        "measures": {"item_cosine": 0.5},
    }


def finish(ledger: Ledger, planned: Planned, value: float, attempt: int = 1) -> None:
    """A planned trial that came to its natural end."""
    row = ledger.begin(planned, attempt, SPANS)
    ledger.finish(row, value, facts(value), stopped=False)


def ranking(values: Iterable[float]) -> Ranking:
    per_user = torch.tensor(list(values), dtype=torch.float64)
    metrics = {OBJECTIVE: float(per_user.mean()), "recall@20": 2 * float(per_user.mean())}
    return Ranking(metrics, torch.arange(len(per_user)), {OBJECTIVE: per_user})


def write_files(folder: Folder, test_of: Mapping[str, float]) -> None:
    """Learning curve and sealed test of finished trials: hash -> test objective."""
    for name, test in test_of.items():
        seal.write(folder, name, ranking([test] * COUNT), OBJECTIVE)
        curve = {"epoch": [1, 2], "seconds": 0.5, "loss.bpr": 0.6, f"valid.{OBJECTIVE}": [0.1, 0.2]}
        buffer = io.BytesIO()
        pd.DataFrame(curve).to_parquet(buffer, index=False)
        folder.write(f"trials/{name}/epochs.parquet", buffer.getvalue())

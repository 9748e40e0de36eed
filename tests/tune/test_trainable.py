"""A trial in its worker, without a cluster: what only evaluates takes over what another trained."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mmrec.data.conditions import Condition
from mmrec.data.dataset import Dataset
from mmrec.data.planted import Modality, Planted, planted
from mmrec.evaluation import PROTOCOLS
from mmrec.models.sibrar import SiBraR
from mmrec.study.seal import unseal
from mmrec.study.store import Folder
from mmrec.study.trials import Setting, Trial, begin
from mmrec.training import RunConfig, TrainConfig, fit

pytestmark = pytest.mark.slow  # ray.tune alone takes seconds to import

RUN = RunConfig(
    model=SiBraR(dim=4, common_dim=4, hidden=(4,), input_dropout=0.0),
    train=TrainConfig(epochs=4, batch_size=100, lr=0.02),
)
LEFT_OUT = Condition(missing=("interactions", "text"), when="eval")


@pytest.fixture(scope="module")
def data() -> Dataset:
    modalities = tuple(Modality(name=name, width=4) for name in ("image", "text"))
    return planted(Planted(users=30, items=60, interactions=300, modalities=modalities, factors=4))


LOADED = """
import sys

import mmrec.tune.trainable
from mmrec.evaluation import PROTOCOLS
from mmrec.models.sibrar import SiBraR
from mmrec.data.planted import Planted, planted
from mmrec.study.costs import MemoryMeter
from mmrec.training import Run, RunConfig, TrainConfig, fit

MemoryMeter("cpu")
cfg = RunConfig(model=SiBraR(dim=4, common_dim=4, hidden=(4,)), train=TrainConfig(epochs=1))
data = planted(Planted(users=30, items=60, interactions=300))
run = Run(cfg, data, seed=0, protocol=PROTOCOLS["full"])
assert [report.epoch for report in fit(run)] == [1]
print(*sys.modules)
"""


def test_a_worker_loads_nothing_that_only_a_driver_or_a_compiler_needs():
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"torch", "ray.tune", "mmrec.training"} <= loaded
    kept_out = {"torch._dynamo", "sympy", "optuna", "sqlalchemy", "scipy.stats", "plotly"}
    assert not kept_out & loaded


class Worker:
    """Hands out trials one by one in a folder of its own."""

    def __init__(self, data: Dataset, path: Path) -> None:
        from mmrec.tune.trainable import Shared, TrialTrainable

        self.data, self.folder = data, Folder.at(str(path))
        given = Shared(data, self.folder, "full", "cpu")

        class Alone(TrialTrainable):
            def setup(self, config: dict[str, Any], shared: Shared | None = None) -> None:
                if config:
                    super().setup(config, shared or given)

        self.made = Alone

    def name(self, condition: Condition) -> str:
        setting = Setting(self.data.digest, self.data.split, "full", "cpu")
        return setting.hash(Trial(RUN, condition, 0))

    def start(self, condition: Condition, parent: str = "") -> Any:
        name = self.name(condition)
        self.folder.write(f"trials/{name}/attempt", b"1")
        trial = Trial(RUN, condition, 0).to_json()
        return self.made({"hash": name, "attempt": 1, "trial": trial, "parent": parent})

    def finish(self, worker: Any) -> dict[str, Any]:
        result = worker.step()
        while not result["finished"]:
            result = worker.step()
        return result

    def curve(self, condition: Condition) -> pd.DataFrame:
        file = self.folder.path / "trials" / self.name(condition) / "epochs.parquet"
        return pd.read_parquet(file)

    def has_state(self, condition: Condition) -> bool:
        return self.folder.exists(f"trials/{self.name(condition)}/state.pt")


def test_what_a_parent_has_trained_is_not_trained_again(data, tmp_path):
    crew = Worker(data, tmp_path)
    parent = crew.finish(crew.start(Condition()))
    found = crew.finish(crew.start(LEFT_OUT, crew.name(Condition())))
    pd.testing.assert_frame_equal(crew.curve(LEFT_OUT), crew.curve(Condition()))
    assert found["seconds"] == 0 < parent["seconds"]
    assert {"epoch_seconds", "peak_mib"} & set(dict(found["cost"])) == set()
    assert "epoch_seconds" in dict(parent["cost"])
    assert found["best_epoch"] == parent["best_epoch"]
    assert found["best"] != parent["best"]
    assert crew.has_state(Condition())
    assert not crew.has_state(LEFT_OUT)

    trained = begin(Trial(RUN, LEFT_OUT, 0), data, PROTOCOLS["full"])
    list(fit(trained))
    assert dict(found["valid"]) == trained.score_valid().metrics
    assert unseal(crew.folder, crew.name(LEFT_OUT)).metrics == trained.score_test().metrics


@pytest.mark.parametrize("begun", [False, True])
def test_without_a_parent_that_has_ended_it_trains_itself(data, tmp_path, begun):
    crew = Worker(data, tmp_path)
    other = crew.start(Condition())
    if begun:
        assert not other.step()["finished"]
        other.cleanup()
        assert crew.has_state(Condition())
    found = crew.finish(crew.start(LEFT_OUT, crew.name(Condition())))
    assert found["seconds"] > 0
    assert "epoch_seconds" in dict(found["cost"])
    assert crew.has_state(LEFT_OUT)
    own = crew.finish(crew.start(Condition()))
    columns = [name for name in crew.curve(LEFT_OUT) if name != "seconds"]
    assert crew.curve(LEFT_OUT)[columns].equals(crew.curve(Condition())[columns])
    assert found["best"] != own["best"]


def test_a_trial_of_another_version_is_an_error_with_its_reason(data, tmp_path):
    """Not a dead worker: the reason would be lost with it."""
    crew = Worker(data, tmp_path)
    worker = crew.start(Condition())
    worker.text = worker.text.replace('"SiBraR"', '"SiBraR2"')
    result = worker.step()
    assert result["done"]
    assert not result["finished"]
    assert "no config class 'SiBraR2' in this version" in result["error"]

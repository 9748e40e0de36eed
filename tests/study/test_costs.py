"""Costs by hand, and memory that is known because it is asked for here."""

import gc
import math
import mmap
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

from mmrec.data.planted import Planted, planted
from mmrec.evaluation import PROTOCOLS
from mmrec.models.bpr import BPR
from mmrec.models.itemknn import ItemKNN
from mmrec.study import costs
from mmrec.study.costs import MemoryMeter, costs_of
from mmrec.training import EpochReport, Run, RunConfig, TrainConfig

MIB = 2**20


def run_of(model, curve: dict[int, float], seconds: float = 0.0) -> Run:
    """A run whose reports are made up: epoch -> objective."""
    data = planted(Planted(users=20, items=30, interactions=150))
    cfg = RunConfig(model=model, train=TrainConfig(epochs=99))
    run = Run(cfg, data, seed=0, protocol=PROTOCOLS["full"])
    run.reports = [
        EpochReport(epoch, {}, {cfg.objective: value}, seconds, 0, False)
        for epoch, value in curve.items()
    ]
    run.epoch, run.best_value = max(curve), max(curve.values())
    return run


def test_costs_by_hand():
    # Evaluated every other epoch: 3 reports of 4 s over 6 epochs. 99 % of 0.5 is 0.495.
    run = run_of(BPR(dim=4), {2: 0.4, 4: 0.496, 6: 0.5}, seconds=4.0)
    assert costs_of(run, 12.5, given=False) == {
        "parameters": (20 + 30) * 4,
        "epoch_seconds": 2.0,
        "peak_mib": 12.5,
        "converged_epoch": 4,
    }


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [([0.1, 0.2, 0.3], 3), ([0.3, 0.2, 0.3], 1), ([0.98, 0.99, 1.0, 0.99], 2), ([0.0, 0.0], 1)],
)
def test_a_trial_converges_where_it_first_comes_near_its_best(curve, epoch):
    run = run_of(BPR(dim=4), dict(enumerate(curve, 1)))
    assert costs_of(run, math.nan, given=False)["converged_epoch"] == epoch


def test_what_is_not_known_is_left_out():
    run = run_of(BPR(dim=4), {1: 0.5})
    assert set(costs_of(run, math.nan, given=False)) == {
        "parameters", "epoch_seconds", "converged_epoch",
    }  # fmt: skip
    assert set(costs_of(run, 3.0, given=True)) == {"parameters", "converged_epoch"}


def test_a_closed_form_trains_no_number():
    assert costs_of(run_of(ItemKNN(), {1: 0.5}), 1.0, given=False)["parameters"] == 0


@pytest.fixture
def nothing_to_collect() -> Iterator[None]:
    """A meter collects garbage first; what other tests left would take it half a second."""
    gc.freeze()
    yield
    gc.unfreeze()


def started() -> MemoryMeter:
    meter = MemoryMeter("cpu")
    if math.isnan(meter.peak_mib()):
        pytest.skip("this system does not tell a process's peak memory, or not since when")
    return meter


@pytest.mark.usefixtures("nothing_to_collect")
def test_memory_is_what_a_trial_takes_at_its_peak_and_not_what_came_before():
    meter = started()
    for _ in range(2):  # one at a time: the peak is one of them
        np.ones(48 * MIB, dtype=np.uint8).sum()
    assert meter.peak_mib() == pytest.approx(48, abs=4)
    after = MemoryMeter("cpu")
    assert after.peak_mib() < 4
    held = np.ones(16 * MIB, dtype=np.uint8)
    assert after.peak_mib() == pytest.approx(16, abs=4)
    del held


class Knot:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("nothing_to_collect")
def test_a_trials_garbage_is_collected_without_a_look_at_what_was_there_before():
    costs._load_what_training_needs.cache_clear()
    before = [Knot()]
    started()
    assert not any(thing is before for thing in gc.get_objects())
    knot = Knot()
    left = weakref.ref(knot)
    del knot
    MemoryMeter("cpu")
    assert left() is None


@pytest.mark.slow
def test_pages_of_files_and_shared_memory_are_not_charged(tmp_path):
    file = tmp_path / "shared"
    file.write_bytes(bytes(32 * MIB))
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as shared:
        meter = started()
        seen = np.frombuffer(shared, dtype=np.uint8)
        assert not seen[::4096].any()
        assert meter.peak_mib() < 4
        del seen

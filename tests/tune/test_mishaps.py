"""Whose fault an error is, and how often a trial is tried again."""

import errno
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.study.store import StorageFailed
from mmrec.tune.faults import WrongNode, fault_of
from mmrec.tune.live import Live
from mmrec.tune.mishaps import MAX_ATTEMPTS, Mishaps
from tests.study.fabricated import plan


def raised(action: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is what is tested
        action()
    return caught.value


@pytest.mark.parametrize(
    "action", [lambda: np.empty(1 << 50), lambda: torch.empty(1 << 50)], ids=["numpy", "torch"]
)
def test_what_cannot_be_allocated_is_a_want_of_memory(action):
    assert fault_of(raised(action)) == "memory"


def test_a_full_disk_is_the_storages_fault_and_no_trials():
    def write() -> None:
        with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
            full.write("x")

    assert fault_of(raised(write)) == "storage"
    assert fault_of(OSError(errno.EROFS, "read-only")) == "storage"
    assert fault_of(StorageFailed("the bucket is gone")) == "storage"


def test_a_missing_file_a_nan_and_a_bug_are_the_trials_own():
    assert fault_of(FileNotFoundError(errno.ENOENT, "no such file")) == "trial"
    assert fault_of(FloatingPointError("loss is nan")) == "trial"
    assert fault_of(raised(lambda: torch.zeros(2) @ torch.zeros(3))) == "trial"
    assert fault_of(WrongNode("b has ray 2.59")) == "node"


def live(name: int = 0) -> Live:
    return Live(plan(2)[name], 1, SimpleNamespace())  # type: ignore[arg-type]


def test_a_trial_is_given_up_when_its_worker_dies_again_and_again_without_an_epoch():
    mishaps, trial = Mishaps(), live()
    trial.last["epoch"] = 3
    answers = [mishaps.died(trial) for _ in range(MAX_ATTEMPTS)]
    assert answers == [True] * (MAX_ATTEMPTS - 1) + [False]


def test_a_trial_that_gets_on_between_deaths_is_never_given_up():
    mishaps, trial = Mishaps(), live()
    for epoch in range(1, 20):
        trial.last["epoch"] = epoch
        assert mishaps.died(trial)
    trial.last = {}  # a worker that died before its first report
    assert [mishaps.died(trial) for _ in range(MAX_ATTEMPTS - 1)] == [True, True, False]


def test_a_trial_that_wants_memory_gets_one_more_try_and_others_theirs():
    mishaps = Mishaps()
    assert mishaps.starved(live(0))
    assert mishaps.starved(live(1))
    assert not mishaps.starved(live(0))


def test_the_first_reason_to_halt_counts():
    mishaps = Mishaps()
    mishaps.halt(StorageFailed("full"))
    mishaps.halt(StorageFailed("still full"))
    assert str(mishaps.halted) == "full"

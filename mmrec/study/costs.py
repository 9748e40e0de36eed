"""What a trial costs: numbers that it trains, time an epoch, memory, epochs until it is good.

Memory is that of the process that trains, which lives on from trial to trial: so the peak is set
back at a trial's start, and what counts is by how much the process grows.
"""

import ctypes
import functools
import gc
import math

import torch

from mmrec.nn.optimizers import make_optimizer
from mmrec.study import memory
from mmrec.training import Run

COSTS = ("parameters", "epoch_seconds", "peak_mib", "converged_epoch")
"""The columns `cost.<name>` of a trial table, in order."""

CONVERGED = 0.99
"""A trial has converged at the first epoch that reaches this share of its best objective."""


class MemoryMeter:
    """By how much a trial grows the memory that is in use, at its peak; built before the trial.

    On a GPU it is torch's own count of its tensors there. On a CPU it is the resident memory of
    the process as Linux counts it, without pages of files and shared memory: a worker's first
    trial meets the dataset and the libraries' code, and must not be charged for them.
    """

    def __init__(self, device: str) -> None:
        where = torch.device(device)
        _load_what_training_needs()
        gc.collect()  # what earlier trials left behind
        if where.type != "cuda":
            _give_back_freed_memory()
        try:
            self._growth = memory.growth(where, shared=False)
        except OSError:
            self._growth = None

    def peak_mib(self) -> float:
        """MiB (2**20 bytes) from the start to the peak since; nan where it cannot be known."""
        return math.nan if self._growth is None else self._growth()


def costs_of(run: Run, peak_mib: float, *, given: bool) -> dict[str, float]:
    """What a run has cost so far, by the names in `COSTS`; what is not known is left out.

    Args:
        run: after an evaluation.
        peak_mib: of training and validation, see `MemoryMeter`.
        given: whether it was trained elsewhere and only loaded, so that it took no time and memory
            of its own.
    """
    objective = run.cfg.objective
    good = CONVERGED * run.best_value
    costs = {
        "parameters": float(sum(p.numel() for p in run.model.parameters() if p.requires_grad)),
        "epoch_seconds": sum(report.seconds for report in run.reports) / run.epoch,
        "peak_mib": peak_mib,
        "converged_epoch": float(next(r.epoch for r in run.reports if r.valid[objective] >= good)),
    }
    if given:
        del costs["epoch_seconds"], costs["peak_mib"]
    # A nan is no JSON, which is how a ledger keeps these.
    return {name: value for name, value in costs.items() if not math.isnan(value)}


@functools.cache
def _load_what_training_needs() -> None:
    """Torch loads a few MiB with a first step of training; no trial is charged for them.

    What is loaded by then lives as long as the process. The garbage collector is told so: to look
    through the 400,000 objects of a worker's libraries takes 0.15 s, at every trial.
    """
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = make_optimizer("adam", [weight], lr=1e-3, weight_decay=0.0)
    weight.sum().backward()
    optimizer.step()
    gc.collect()
    gc.freeze()


def _give_back_freed_memory() -> None:
    """What earlier trials freed would otherwise take the place of this one's growth."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)

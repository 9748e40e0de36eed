"""Whose fault an error in a worker is. What follows from it, `mmrec.tune.mishaps` says. No Ray."""

from typing import Literal

import torch

from mmrec.study.store import STORAGE_ERRORS, StorageFailed

Fault = Literal["trial", "memory", "node", "storage"]


class WrongNode(RuntimeError):
    """The code of this node is not that of the driver."""


def fault_of(error: BaseException) -> Fault:
    """Whose fault an error in a worker is."""
    if isinstance(error, WrongNode):
        return "node"
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):
        return "memory"  # torch's allocator on the CPU has no class of its own
    if isinstance(error, StorageFailed):
        return "storage"
    if isinstance(error, OSError) and error.errno in STORAGE_ERRORS:
        return "storage"
    return "trial"

"""How much memory this process uses, now and at its peak, in MiB (2**20 bytes)."""

from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): the peak resident set becomes the current one
_SHARED = ("RssFile", "RssShmem")


def growth(device: torch.device, *, shared: bool = True) -> Callable[[], float]:
    """A function that says how far the memory in use has risen since now, at its peak.

    Args:
        device: on a GPU it is torch's own count of its tensors there, on a CPU the resident memory
            of the process as Linux counts it.
        shared: whether pages of files and shared memory count, on a CPU.

    Raises:
        OSError: the system does not tell the peak of a process, or not since when.
    """
    return _growth_on_gpu(device) if device.type == "cuda" else _growth_on_cpu(shared=shared)


def resident(*names: str) -> list[float]:
    """Resident memory by the names of proc(5): `VmRSS` is now, `VmHWM` at the peak so far.

    Raises:
        OSError: this is no Linux, or one that does not tell.
    """
    if not _STATUS.exists():
        raise OSError(f"resident memory is read from Linux's {_STATUS}, which is not here")
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    kib_of = {words[0].rstrip(":"): int(words[1]) for words in lines if words[2:] == ["kB"]}
    for name in names:
        if name not in kib_of:
            raise OSError(f"{_STATUS} has no {name}")
    return [kib_of[name] / 1024 for name in names]


def _growth_on_gpu(device: torch.device) -> Callable[[], float]:
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    return lambda: (torch.cuda.max_memory_allocated(device) - start) / 2**20


def _growth_on_cpu(*, shared: bool) -> Callable[[], float]:
    apart = () if shared else _SHARED
    if not _CLEAR_REFS.exists():
        raise OSError(
            f"peak memory on a CPU is counted by Linux's {_CLEAR_REFS}, which is not here"
        )
    _CLEAR_REFS.write_text(_RESET_PEAK)  # some containers forbid it
    start, *apart_then = resident("VmRSS", *apart)

    def risen() -> float:
        peak, *apart_now = resident("VmHWM", *apart)
        return max(0.0, peak - start - max(0.0, sum(apart_now) - sum(apart_then)))

    return risen

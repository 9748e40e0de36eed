"""One measurement at a time, each in a process of its own: seconds and peak memory of a step.

`python -m mmrec.study.probe SCRIPT` reads a request a line and answers each in a line. It imports
torch and the script once and forks for every request, so that a measurement begins in an address
space that no other has touched, without waiting seconds for imports. It takes no step itself, and
has no threads and no CUDA context that a fork would break.
"""

import gc
import importlib.util
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from mmrec.study import memory
from mmrec.study.scaling import Method, Problem, Scaling

WARM_UP = 256
"""Nodes of the step that is run first: it loads kernels and starts threads."""
LEAST = 0.1
"""Seconds that the steps of one measurement take in all at least; their median is kept."""
CLOCKS = {"processor": time.process_time, "wall": time.perf_counter}
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
_OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


class Lost(Exception):
    """A measurement that could not be finished: too slow, or out of memory."""


class Probe:
    """The measuring process, for as long as the `with` block lasts."""

    def __init__(self, scaling: Scaling, device: str, threads: int) -> None:
        self.scaling, self.device, self.threads = scaling, device, threads

    def __enter__(self) -> Self:
        root = str(Path(__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        # Threads of numpy's own would be there before the forks.
        quiet = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": str(self.threads)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mmrec.study.probe", self.scaling.script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **quiet, "PYTHONPATH": path},
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # it ends when there is nothing more to read
        self._process.wait()
        self._process.stdout.close()

    def measure(self, method: str, nodes: int, seed: int, patience: float) -> dict[str, Any]:
        """`seconds`, `wall`, `mib` and `runs` of a step; see `measured`.

        Args:
            method: by name.
            nodes: N.
            seed: of the inputs.
            patience: seconds after which the measurement is given up.

        Raises:
            Lost: it was given up, or ran out of memory.
            RuntimeError: it failed in another way; its trace is on standard error.
        """
        problem = asdict(Problem(nodes, seed, self.device))
        asked = {"method": method, "threads": self.threads, "patience": patience, **problem}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the measuring process ended at {method}, {nodes} nodes")
        found = json.loads(line)
        if "lost" in found:
            raise Lost(found["lost"])
        if "failed" in found:
            raise RuntimeError(f"{method} at {nodes} nodes failed: {found['failed']}")
        return found


# --- in the measuring process


def main(script: str) -> None:
    """Answer requests until there are no more."""
    # Whatever a script prints must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Ctrl-C reaches the whole group: the driver says what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scaling = load(Path(script))
    torch.set_num_threads(1)
    for method in scaling.methods:
        method.prepare(Problem(WARM_UP, 0))  # torch imports some modules when they are first used
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(forked(scaling, asked)) + "\n")
        answers.flush()


def load(script: Path) -> Scaling:
    """The `SCALING` of a study script."""
    spec = importlib.util.spec_from_file_location(script.stem, script)
    if spec is None or spec.loader is None:
        raise ValueError(f"{script} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SCALING


def forked(scaling: Scaling, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request: what was measured, or `lost`, or `failed`, with the reason."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    child = fork.Process(target=_answer, args=(theirs, scaling, asked))
    child.start()
    theirs.close()
    if not ours.poll(asked["patience"]):
        child.kill()
        child.join()
        return {"lost": f"took more than {asked['patience']:.0f} s"}
    try:
        found = ours.recv()
    except EOFError:
        child.join()
        if child.exitcode == -signal.SIGKILL:
            return {"lost": "was killed, as the system does when memory runs out"}
        return {"failed": f"exit code {child.exitcode}"}
    child.join()
    return found


def _answer(send: Connection, scaling: Scaling, asked: Mapping[str, Any]) -> None:
    torch.set_num_threads(asked["threads"])
    problem = Problem(asked["nodes"], asked["seed"], asked["device"])
    try:
        clock = clock_of(problem.device, asked["threads"])
        found = measured(scaling.method(asked["method"]), problem, clock)
    except (MemoryError, RuntimeError) as error:
        if not any(words in str(error).lower() for words in _OUT_OF_MEMORY):
            raise
        found = {"lost": "ran out of memory"}
    send.send(found)


def clock_of(device: str, threads: int) -> str:
    """What time is read from: one thread's own processor time, else the clock on the wall.

    Work of others on the machine takes from the second, but is not in the first. That of several
    threads holds their waiting for each other, and that of a GPU is not in it at all.
    """
    return "processor" if device == "cpu" and threads == 1 else "wall"


def measured(method: Method, problem: Problem, clock: str) -> dict[str, Any]:
    """Of a step: `seconds` by `clock`, `wall` seconds, and `mib`, the memory it takes at its peak.

    Seconds are medians of `runs`. Memory is counted beyond what was there when the step began.
    The peak is that of the first step at this size: what later ones find in torch's or the
    allocator's stock, it has put there.
    """
    sync = torch.cuda.synchronize if problem.device.startswith("cuda") else _nothing
    method.prepare(Problem(WARM_UP, problem.seed, problem.device))()
    step = method.prepare(problem)
    sync()
    gc.collect()
    peak = memory.growth(torch.device(problem.device))
    own, wall, mib = [], [], 0.0
    while sum(wall) < LEAST:
        began, start = CLOCKS[clock](), time.perf_counter()
        step()
        sync()
        own.append(CLOCKS[clock]() - began)
        wall.append(time.perf_counter() - start)
        mib = mib or max(peak(), PAGE_MIB)
    seconds = {"seconds": statistics.median(own), "wall": statistics.median(wall)}
    return {**seconds, "mib": mib, "runs": len(wall)}


def _nothing() -> None:
    pass


if __name__ == "__main__":
    main(sys.argv[1])

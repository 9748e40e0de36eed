import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

MINI = Path(__file__).with_name("mini.py")


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all studies in this process: starting it takes seconds."""
    from mmrec.tune import local

    with local.started():
        yield


def start(*arguments: str) -> subprocess.Popen:
    """The mini study as a user runs it, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(MINI), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen, code: int = 0, timeout: float = 120) -> str:
    """What it printed, once it has ended with `code`."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == code, output
    return output


def wait_for(condition: Callable[[], bool], timeout: float = 60) -> None:
    """Poll until `condition` holds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def run_folder(out: Path) -> Path:
    """The one run folder under `--out`."""
    (folder,) = (p for p in out.glob("*/*") if (p / "run.json").exists())
    return folder


def trials(folder: Path, kind: str = "report") -> pd.DataFrame:
    """The report's trial table."""
    return pd.read_csv(folder / kind / "tables" / "trials.csv").sort_values("hash")


def kin(process: subprocess.Popen) -> list[psutil.Process]:
    """The process and everything that it started."""
    parent = psutil.Process(process.pid)
    return [parent, *parent.children(recursive=True)]

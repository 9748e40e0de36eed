"""A driver's machine loses its power: the server, which hears nothing, lets go of its lock.

Two network namespaces stand for two machines; the cable between them is cut.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres.conftest import Server, programs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

HERE, THERE = "10.203.7.1", "10.203.7.2"
HOLD = """
import sys, time
from mmrec.study.store import Folder
from mmrec.study.writer import one_writer
while True:
    try:
        with one_writer(Folder("memory://bucket/run"), sys.argv[1], "x"):
            print("held", flush=True)
            time.sleep(float(sys.argv[2]))
            break
    except RuntimeError as error:
        assert "is locked by" in str(error), error
        time.sleep(0.5)
"""


def sh(words: str) -> None:
    subprocess.run(words.split(), check=True, capture_output=True, timeout=30)


@pytest.fixture
def machines() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What runs a command on the server's machine, and on the driver's."""
    names = [f"mmrec-{os.getpid()}-{end}" for end in "ab"]
    try:
        sh(f"ip netns add {names[0]}")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not allow network namespaces")
    try:
        sh(f"ip netns add {names[1]}")
        ends = f"cable netns {names[0]} type veth peer name cable netns {names[1]}"
        sh(f"ip link add {ends}")
        for name, address in zip(names, (HERE, THERE), strict=True):
            sh(f"ip -n {name} address add {address}/24 dev cable")
            sh(f"ip -n {name} link set cable up")
            sh(f"ip -n {name} link set lo up")
        first, second = (("ip", "netns", "exec", name) for name in names)
        yield first, second
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def holder(inside: tuple[str, ...], storage: str, seconds: int) -> subprocess.Popen:
    words = [*inside, sys.executable, "-c", HOLD, storage, str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_the_lock_of_a_machine_without_power_is_let_go_within_30_s(machines):
    programs()
    here, there = machines
    with tempfile.TemporaryDirectory(prefix="mmrec-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder), HERE, here)
        with (Path(folder) / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.203.7.0/24 scram-sha-256\n")
        server.start()
        storage = server.url("postgres")
        first = holder(there, storage, 120)
        second = None
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            sh(f"ip -n {there[-1]} link set cable down")
            cut = time.monotonic()
            second = holder(here, storage, 0)
            assert second.communicate(timeout=90) == ("held\n", None)
            assert 5 < time.monotonic() - cut < 45  # 25 s, the second's start, and its turn
        finally:
            for process in filter(None, (first, second)):
                process.kill()
                process.wait()
            server.stop()

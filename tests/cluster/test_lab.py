"""The lab itself: cables, power, disks; and that nothing is left of it, however it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.cluster.lab import (
    ADDRESS,
    HEAD,
    HOME,
    LAPTOP,
    ROOT,
    SHARED,
    WORKERS,
    Lab,
    LabError,
    why_not,
)
from tests.e2e.conftest import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(60),
    pytest.mark.skipif(why_not() is not None, reason=f"no cluster lab: {why_not()}"),
]

HERE, THERE = WORKERS


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("lab") / "lab") as lab:
        yield lab


def reached(lab: Lab, name: str) -> str:
    """What a host calls itself, over SSH from the laptop."""
    options = "-o StrictHostKeyChecking=no -o ConnectTimeout=2 -o LogLevel=ERROR"
    return lab.run(LAPTOP, f"ssh {options} root@{ADDRESS[name]} hostname").strip()


def test_hosts_are_apart_but_for_the_network_and_the_shared_folder(lab):
    assert {name: reached(lab, name) for name in (HEAD, *WORKERS)} == {
        name: name for name in (HEAD, *WORKERS)
    }
    for place, shared in {"/tmp": False, "/dev/shm": False, HOME: False, SHARED: True}.items():
        lab.run(HERE, f"touch {place}/seen")
        found = lab.run(THERE, f"test -e {place}/seen && echo yes || echo no").strip()
        assert found == ("yes" if shared else "no"), place
    # Only the laptop has the working tree.
    assert lab.run(HERE, f"test -e {ROOT}/mmrec && echo yes || echo no").strip() == "no"
    assert "pytest" not in lab.run(HERE, "ps -eo args")


def test_a_cut_cable_and_a_power_cut_are_what_they_say(lab):
    lab.cut(HERE)
    with pytest.raises(LabError, match=r"timed out|No route"):
        reached(lab, HERE)
    lab.mend(HERE)
    assert reached(lab, HERE) == HERE
    lab.run(THERE, "echo kept > ~/file; echo lost > /tmp/file")
    lab.kill(THERE)
    with pytest.raises(LabError, match=r"timed out|No route"):
        reached(lab, THERE)
    lab.revive(THERE)
    assert reached(lab, THERE) == THERE
    assert lab.run(THERE, "cat ~/file; test ! -e /tmp/file").strip() == "kept"


def test_a_disk_of_all_hosts_fills_up_and_becomes_read_only(lab):
    lab.mount("small", "-t", "tmpfs", "-o", "size=1m")
    with pytest.raises(LabError, match="No space left"):
        lab.run(HERE, f"head -c 2M /dev/zero > {SHARED}/small/file")
    lab.mount("small", "-o", "remount,ro")
    with pytest.raises(LabError, match="Read-only"):
        lab.run(THERE, f"rm {SHARED}/small/file")


def test_nothing_is_left_of_a_lab_whose_python_was_killed():
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.cluster.lab"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while "Ctrl-C" not in process.stdout.readline():
        assert process.poll() is None
    inside = psutil.Process(process.pid).children(recursive=True)
    assert len(inside) >= len(ADDRESS)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not any(runs(p) for p in inside), timeout=10)
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    assert not [name for name in ADDRESS if f" {name}" in links]


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended; an orphan that nobody has asked for its exit code has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

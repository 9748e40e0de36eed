"""A process that hangs is ended, and says where it hung; one that gets on is not."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # waits for seconds in processes of their own

SCRIPT = """
import sys, time
from mmrec.study.store import Folder
from mmrec.tune.watchdog import Watchdog

def hangs():
    {hang}

dog = Watchdog(1.0, Folder.at({folder!r}), "trials/x/stuck.txt")
for _ in range(4):
    dog.feed()
    time.sleep(0.4)
dog.rest()
time.sleep(1.2)
dog.feed()
if {hangs}:
    hangs()
dog.close()
print("lived")
"""

PYTHON = "time.sleep(60)"
NATIVE = "import re; re.match('(a+)+b', 'a' * 40)"  # holds the interpreter's lock


def run(folder, hang: str, *, hangs: bool) -> subprocess.CompletedProcess:
    script = SCRIPT.format(folder=str(folder), hang=hang, hangs=hangs)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize("hang", [PYTHON, NATIVE], ids=["sleeps", "holds the lock"])
def test_what_hangs_is_ended_with_a_traceback(tmp_path, hang):
    done = run(tmp_path, hang, hangs=True)
    assert done.returncode == 1
    assert "lived" not in done.stdout
    assert "in hangs" in (tmp_path / "trials" / "x" / "stuck.txt").read_text()


def test_what_gets_on_lives_and_leaves_no_file(tmp_path):
    done = run(tmp_path, PYTHON, hangs=False)
    assert done.stdout.strip() == "lived", done.stderr
    assert list((tmp_path / "trials" / "x").iterdir()) == []

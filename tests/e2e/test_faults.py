"""Trials hang, starve, diverge; storage fills up or becomes read-only: no trial is lost for it.

Each on a private Ray of one machine; what takes a cluster is in tests/cluster.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.cluster.lab import Space, why_not
from tests.e2e.conftest import MINI, finish, run_folder, trials, wait_for
from tests.e2e.test_kill import assert_same, attempts, checkpointed_epochs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

FAULTS = Path(__file__).with_name("faults")
TRIAL = "BPR 0"
"""The one that meets a fault: the control's first seed."""


def start(
    folder: Path, *words: str, within: Space | None = None, **variables: str
) -> subprocess.Popen:
    """The mini study, in whose trials the files in `folder`/faults are faults."""
    (folder / "faults").mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")]))
    own = {"MMREC_FAULTS": str(folder / "faults"), "PYTHONPATH": path}
    command = [sys.executable, str(MINI), "--address", "local", "--out", str(folder / "out")]
    return subprocess.Popen(
        [*(within.enter() if within else []), *command, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **own, **variables},
    )


def fault(folder: Path, name: str, trial: str = TRIAL) -> Path:
    """Ask for a fault; the file that does."""
    (folder / "faults").mkdir(exist_ok=True)
    file = folder / "faults" / name
    file.write_text(trial)
    return file


def test_one_trial_hangs_and_is_tried_again_another_diverges_and_fails(tmp_path, undisturbed):
    fault(tmp_path, "hang")
    cause = fault(tmp_path, "nan", "BPR 1")
    # An epoch of these trials takes a hundredth of that, the start of a busy worker a third.
    output = finish(start(tmp_path, "--stall-minutes", "0.3"), code=1)
    assert "no epoch ended within 0.3 minutes" in output
    folder = run_folder(tmp_path / "out")
    table = trials(folder)
    hung, others = parted(table)
    assert hung["attempt"].tolist() == [2]
    assert set(others["attempt"]) == {1}
    (stuck,) = folder.glob("trials/*/stuck-*.txt")
    assert stuck.parent.name == hung["hash"].item()
    assert "in misbehave" in stuck.read_text()
    failed = table["state"] == "failed"
    assert table[failed][["model", "seed"]].to_numpy().tolist() == [["BPR", 1]]
    assert "epoch 7" in table[failed]["error"].item()
    assert_same(table[~failed].drop(columns="error"), others_of(undisturbed, table[failed]))
    # With what made it diverge mended, the same command completes the study.
    cause.unlink()
    finish(start(tmp_path))
    assert_same(trials(folder), undisturbed)


def others_of(table: pd.DataFrame, these: pd.DataFrame) -> pd.DataFrame:
    """The rows of other trials, without the column of errors."""
    return table[~table["hash"].isin(these["hash"])].drop(columns="error")


def parted(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The row of the trial that met a fault, and the others, without the column of errors."""
    met = table[(table["model"] == "BPR") & (table["seed"] == 0)]
    return met, others_of(table, met)


def test_a_trial_that_eats_memory_is_tried_once_more_alone_and_then_fails_visibly(
    tmp_path, undisturbed
):
    eater = fault(tmp_path, "eat")
    memory = psutil.virtual_memory()
    spare = min(5 * 2**30, int(0.6 * memory.available))
    limit = (memory.total - memory.available + spare) / memory.total
    threshold = f"{limit:.4f}"
    driver = start(
        tmp_path, RAY_memory_usage_threshold=threshold, RAY_memory_monitor_refresh_ms="100"
    )
    finish(driver, code=1)
    starved, others = parted(trials(run_folder(tmp_path / "out")))
    assert starved["state"].tolist() == ["failed"]
    assert starved["attempt"].tolist() == [2]
    assert "out of memory twice, the second time alone" in starved["error"].item()
    assert_same(others, parted(undisturbed)[1])
    # It was alone: nothing else was under way once it had begun again.
    assert (others["ended"] <= starved["started"].item()).all()
    # With what it wants of memory mended, the same command completes the study.
    eater.unlink()
    finish(start(tmp_path))
    assert_same(trials(run_folder(tmp_path / "out")), undisturbed)


class Disk:
    """A small disk of its own at `folder`/out, seen from its namespaces alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.place = folder, folder / "out"
        self.place.mkdir()
        script = (
            f"mount -t tmpfs -o size=64m tmpfs {self.place}\nip link set lo up\necho ready\ncat"
        )
        self.space = Space(script, folder / "disk.log")
        self.inside = Path(f"/proc/{self.space.pid}/root") / self.place.relative_to("/")
        """The disk, as seen from outside."""

    def protect(self) -> None:
        """Read-only, for all that is opened from now on."""
        # A mount of the same folder over it: what is open for writing keeps a disk from being so.
        self._do("mount", "--bind", "-o", "ro", str(self.place), str(self.place))

    def unprotect(self) -> None:
        """As it was."""
        self._do("umount", str(self.place))

    def _do(self, *command: str) -> None:
        subprocess.run([*self.space.enter("mount"), *command], check=True, timeout=30)

    def copy(self, place: Path) -> Path:
        """What is on it, where SQLite can read it: it follows links, and /proc/PID/root is one."""
        return shutil.copytree(self.inside, place)

    def fill(self) -> None:
        """To the last byte."""
        command = ["dd", "if=/dev/zero", f"of={self.inside / 'ballast'}", "bs=4k"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert "No space left" in done.stderr

    def free(self) -> None:
        """Make room again."""
        (self.inside / "ballast").unlink()


@pytest.fixture
def disk(tmp_path) -> Iterator[Disk]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    disk = Disk(tmp_path)
    yield disk
    disk.space.end()


def test_storage_that_fails_ends_the_driver_and_the_same_command_goes_on(
    disk, tmp_path, undisturbed
):
    hold = fault(tmp_path, "hold", "all")
    driver = start(tmp_path, within=disk.space)
    wait_for(lambda: len(checkpointed_epochs(disk.inside)) == 2, timeout=90)
    disk.fill()
    hold.unlink()
    output = finish(driver, code=3)
    assert re.search("No space left|full", output)
    assert "the same command" in output
    disk.free()
    before = attempts(disk.copy(tmp_path / "before"))
    assert "COMPLETE" not in {state for _, _, state in before}

    hold = fault(tmp_path, "hold", "all")
    driver = start(tmp_path, within=disk.space)
    wait_for(lambda: len(list(disk.inside.glob("*/*/trials/*/attempt"))) == 2, timeout=90)
    wait_for(lambda: "2" in second_attempts(disk), timeout=90)
    disk.protect()
    hold.unlink()
    output = finish(driver, code=3)
    assert re.search("[Rr]ead-?only", output)
    disk.unprotect()

    finish(start(tmp_path, within=disk.space))
    after = disk.copy(tmp_path / "after")
    table = trials(run_folder(after))
    assert_same(table, undisturbed)
    assert sorted(table["attempt"]) == [1] * 4 + [3] * 2
    done = [name for name, _, state in attempts(after) if state == "COMPLETE"]
    assert sorted(done) == sorted(undisturbed["hash"])


def second_attempts(disk: Disk) -> set[str]:
    """The numbers of the attempts that workers hold."""
    return {file.read_text() for file in disk.inside.glob("*/*/trials/*/attempt")}

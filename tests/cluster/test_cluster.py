"""deploy/on-prem.yaml on three hosts: a user's way over it, and all that can happen on it.

After each fault the study completes, every trial is done exactly once, and the table equals that of
a run on this machine alone, to the last bit. $MMREC_LAB_TIMES names a JSON file for the transcript.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.chaos import Chaos, account, differing
from benchmarks.chaos import undisturbed as alone_table
from mmrec.study.provenance import hardware, now
from tests.cluster.lab import HEAD, HOME, LAPTOP, SHARED, WORKERS, Lab, LabError, finish, why_not
from tests.cluster.on_prem import OnPrem
from tests.e2e.conftest import run_folder, trials, wait_for
from tests.e2e.test_kill import assert_same, attempts, checkpointed_epochs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(why_not() is not None, reason=f"no cluster lab: {why_not()}"),
]

SCRIPT = "tests/e2e/mini.py"
HERE, THERE = WORKERS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[OnPrem]:
    with Lab(tmp_path_factory.mktemp("lab") / "lab") as lab:
        cluster = OnPrem(lab)
        try:
            cluster.up()
            yield cluster
            cluster.down()
        finally:
            transcript(cluster.seconds)


def transcript(seconds: dict[str, float]) -> None:
    """What took how long, for people and for programs."""
    lines = [f"{value:7.1f} s  {what}" for what, value in seconds.items()]
    sys.stderr.write("\n".join(["", *lines, ""]))
    file = os.environ.get("MMREC_LAB_TIMES")
    if file:
        told = {"date": now(), "hardware": hardware(), "seconds": seconds}
        Path(file).write_text(json.dumps(told, indent=1) + "\n")


class Study:
    """The mini study submitted from the laptop, its run folder among the hosts' shared ones."""

    def __init__(self, cluster: OnPrem, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.out = cluster.lab.shared / name
        self.submit()

    def submit(self) -> None:
        """The same command each time."""
        self.process = self.cluster.submit(SCRIPT, "--out", str(SHARED / self.name))

    def done(self, timeout: float = 150) -> pd.DataFrame:
        """Its table, once the command has ended well and every trial is done exactly once."""
        finish(self.process, timeout=timeout)
        done = [name for name, _, state in attempts(self.out) if state == "COMPLETE"]
        table = trials(run_folder(self.out))
        assert sorted(done) == sorted(table["hash"])
        return table


@pytest.fixture
def held(cluster) -> Iterator[Path]:
    """All trials wait after their first checkpoint while this file is there."""
    hold = cluster.lab.shared / "faults" / "hold"
    hold.write_text("all")
    yield hold
    hold.unlink(missing_ok=True)


def under_way(study: Study) -> None:
    """Wait until both workers hold a trial in the middle."""
    wait_for(lambda: len(checkpointed_epochs(study.out)) == 2, timeout=120)


def test_a_study_goes_the_way_of_the_readme_once_all_nodes_have_its_code(cluster, undisturbed):
    file = f"{HOME}/mmrec/mmrec/losses.py"
    cluster.lab.run(THERE, f"cp {file} /tmp/kept && echo '# of another version' >> {file}")
    with cluster.timed("submit to refusal"):
        study = Study(cluster, "readme")
        output = finish(study.process, code=1, timeout=90)
    (line,) = (line for line in output.splitlines() if THERE in line)
    assert "code" in line
    assert not any(study.out.glob("*/*/trials/*"))
    cluster.lab.run(THERE, f"mv /tmp/kept {file}")
    with cluster.timed("submit to end, undisturbed"):
        study.submit()
        with cluster.timed("submit to first trial"):
            wait_for(lambda: any(study.out.glob("*/*/trials/*/attempt")), timeout=90)
        table = study.done()
    assert_same(table, undisturbed)
    assert set(table["attempt"]) == {1}
    assert set(table["host"]) == set(WORKERS)  # and none on the head
    # What ran was the synced tree, and the report can be had on the laptop.
    line = 'python -c "import mmrec; print(mmrec.__file__)"'
    assert cluster.lab.run(HERE, line).strip() == f"{HOME}/mmrec/mmrec/__init__.py"
    report = run_folder(study.out).relative_to(cluster.lab.shared) / "report"
    cluster.fetch(str(SHARED / report), str(HOME / "fetched"))
    assert "<html" in cluster.lab.run(LAPTOP, "head -c 300 ~/fetched/report/index.html")


def test_a_cut_cable_costs_no_trial_and_a_killed_process_a_second_try(cluster, undisturbed, held):
    study = Study(cluster, "cable")
    under_way(study)
    cluster.lab.cut(HERE)
    cluster.lab.run(THERE, "pkill -9 -f [r]ay::ResourceTrainable")
    held.unlink()  # the one that is cut off trains on, and cannot say so
    time.sleep(20)
    cluster.lab.mend(HERE)
    with cluster.timed("cable plugged in to end"):
        table = study.done()
    assert_same(table, undisturbed)
    assert set(table["host"]) == set(WORKERS)
    # That of the first trial which was under way there, from its last checkpoint.
    assert sorted(table["attempt"]) == [1] * 5 + [2]
    first = {name for name, attempt, state in attempts(study.out) if state == "FAIL"}
    assert set(table[table["attempt"] == 2]["hash"]) == first


def test_a_node_without_power_is_left_and_joins_again(cluster, undisturbed, held):
    study = Study(cluster, "power")
    under_way(study)
    with cluster.timed("node's power cut to first trial there again"):
        with cluster.timed("node's power cut to its return"):
            cluster.lab.kill(THERE)
            cluster.lab.revive(THERE)
            cluster.wait_for_nodes(2)
            cluster.wait_for_nodes(3)
        # What was lost there is tried again while the other worker holds its own.
        line = "until pgrep -f [r]ay::ResourceTrainable; do sleep 0.2; done"
        cluster.lab.run(THERE, line, timeout=90)
    held.unlink()
    table = study.done()
    assert_same(table, undisturbed)
    assert sorted(table["attempt"]) == [1] * 5 + [2]
    assert THERE in set(table["host"])  # where nothing was done before the power cut


def test_head_and_driver_without_power_go_on_after_the_same_commands(cluster, undisturbed, held):
    study = Study(cluster, "head")
    under_way(study)
    cluster.lab.kill(HEAD)
    with pytest.raises(LabError):
        finish(study.process, timeout=1)  # the laptop would notice after 15 s
    in_flight = {name for name, _, state in attempts(study.out) if state == "RUNNING"}
    cluster.lab.revive(HEAD)
    with cluster.timed("head's return to workers joined"):
        cluster.up()
    held.unlink()
    study.submit()
    table = study.done()
    assert_same(table, undisturbed)
    assert len(in_flight) >= 2  # those that wait for a worker too
    assert set(table[table["attempt"] == 2]["hash"]) == in_flight


def test_random_kills_lose_nothing_and_count_nothing_twice(cluster, tmp_path):
    words = ["--seeds", "4"]
    study = cluster.submit(SCRIPT, "--out", str(SHARED / "chaos"), *words)
    chaos = Chaos(cluster.lab, seed=1, every=3.0, nodes=0.0)  # a node takes 44 s to come back
    chaos.until_done(study, limit=200)
    folder = run_folder(cluster.lab.shared / "chaos")
    rows, table = account(folder), trials(folder)
    assert (rows["done"], rows["done_twice"]) == (12, 0)
    assert chaos.kills["worker process"] >= 1
    assert rows["attempts"] - 12 <= chaos.kills["worker process"]
    assert differing(table, alone_table(tmp_path, words)) == []

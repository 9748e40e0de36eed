"""A study whose run folder is in S3: the same answer, and a report for whoever may only read."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.e2e.conftest import MINI, finish, start, trials
from tests.s3 import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SMALL = ["--epochs", "3", "--seeds", "2", "--address", "local"]


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    with s3_server("studies") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


COMMAND = "import sys; from mmrec.cli import mmrec_command; sys.exit(mmrec_command())"


def mmrec(*words: str, code: int = 0) -> str:
    """The command in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def page_of(printed: str) -> str:
    """Where the report is, as it was printed."""
    (line,) = (line for line in printed.splitlines() if line.startswith("report: "))
    return line.removeprefix("report: ")


@pytest.mark.usefixtures("s3")
def test_a_study_in_s3_gives_the_same_numbers_and_its_report_can_be_read_from_elsewhere(tmp_path):
    from mmrec.study.store import Folder

    storage = f"sqlite:///{tmp_path}/ledger.db"
    there = ["--out", "s3://studies/runs", "--storage", storage]
    page = page_of(finish(start(*SMALL, *there)))
    assert page.startswith("s3://studies/runs/mini/planted-")
    run = page.removesuffix("/report/index.html")
    written = Folder.at(run).read("report/index.html")

    # Rebuilt in place by another process, and on a laptop that only reads.
    before = Folder.at(run).read("run.json")
    report = ["report", run, "--study", str(MINI), "--storage", storage]
    assert page_of(mmrec(*report)) == page
    assert Folder.at(run).read("report/index.html") == written
    Folder.at(run).remove("report/index.html")
    copy = page_of(mmrec(*report, "--to", str(tmp_path / "copy")))
    assert Path(copy) == tmp_path / "copy" / "index.html"
    assert Path(copy).read_bytes() == written
    assert Folder.at(run).read("run.json") == before
    assert not Folder.at(run).exists("report/index.html")

    # The numbers are those of the same study on a disk, to the last bit.
    finish(start(*SMALL, "--out", str(tmp_path / "local")))
    (local,) = (tmp_path / "local").glob("*/*")
    columns = ["hash", "state", "valid.ndcg@10", "test.ndcg@10", "best_epoch"]
    far = pd.read_csv(tmp_path / "copy" / "tables" / "trials.csv").sort_values("hash")
    pd.testing.assert_frame_equal(
        far[columns].reset_index(drop=True), trials(local)[columns].reset_index(drop=True)
    )


@pytest.mark.usefixtures("s3")
def test_without_a_bucket_nothing_is_begun(tmp_path):
    storage = f"sqlite:///{tmp_path}/ledger.db"
    printed = finish(start("--out", "s3://elsewhere/runs", "--storage", storage), code=2)
    assert "there is no bucket 'elsewhere'" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "ledger.db").exists()
    printed = mmrec("report", "s3://elsewhere/runs/mini/x", "--study", str(MINI), code=2)
    assert "there is no bucket 'elsewhere'" in printed
    assert "Traceback" not in printed

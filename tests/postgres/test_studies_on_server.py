"""Whole studies whose ledger is in PostgreSQL, on a server that is restarted, and shared."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psycopg
import pytest

from mmrec.cli import mmrec_command
from tests.e2e.conftest import finish, run_folder, trials, wait_for
from tests.e2e.test_kill import ATTEMPTS, assert_same, from_json
from tests.postgres.conftest import PASSWORD, QUOTED, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
OTHER = ("--dataset", "planted-noise")


def start(*words: str, storage: str | None = None, script: str = "tests.e2e.mini"):
    """The mini study as a user runs it; the ledger's URL by the environment."""
    return subprocess.Popen(
        [sys.executable, "-m", script, "--address", "local", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MMREC_STORAGE": storage or ""},
    )


@pytest.fixture(scope="module")
def tables(undisturbed, tmp_path_factory) -> dict[tuple[str, ...], pd.DataFrame]:
    """Command line -> the trial table of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("other")
    finish(start("--out", str(out), *OTHER), timeout=240)
    return {(): undisturbed, OTHER: trials(run_folder(out))}


def rows(storage: str) -> list[tuple[str, int, str]]:
    """(hash, attempt, state) of every row of a database with one study."""
    with psycopg.connect(storage) as connection:
        return from_json(connection.execute(ATTEMPTS).fetchall())


def done(storage: str) -> int:
    try:
        return sum(state == "COMPLETE" for *_, state in rows(storage))
    except psycopg.errors.UndefinedTable:
        return 0  # the driver has not got so far


def assert_each_once(storage: str, table: pd.DataFrame) -> None:
    complete = [name for name, _, state in rows(storage) if state == "COMPLETE"]
    assert sorted(complete) == sorted(table["hash"])
    assert {state for *_, state in rows(storage)} <= {"COMPLETE", "FAIL"}


def test_two_studies_write_into_one_database_at_once(tmp_path, storage, tables):
    drivers = {
        words: start("--out", str(tmp_path / str(len(words))), *words, storage=storage)
        for words in tables
    }
    for words, driver in drivers.items():
        finish(driver, timeout=240)
        assert_same(trials(run_folder(tmp_path / str(len(words)))), tables[words])
    both = [name for table in tables.values() for name in table["hash"]]
    assert sorted(rows(storage)) == sorted((name, 1, "COMPLETE") for name in both)
    assert_no_password(tmp_path, storage)


def assert_no_password(out: Path, storage: str) -> None:
    secrets = (PASSWORD.encode(), QUOTED.encode())
    files = [file for file in out.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        assert not any(secret in file.read_bytes() for secret in secrets), file
    with psycopg.connect(storage) as connection:
        names = connection.execute("select tablename from pg_tables where schemaname = 'public'")
        for (name,) in names.fetchall():
            kept = str(connection.execute(f'select * from "{name}"').fetchall())
            assert PASSWORD not in kept
            assert QUOTED not in kept
    manifest = (run_folder(out / "0") / "run.json").read_text()
    assert "postgresql://me:***@127.0.0.1" in manifest


def test_a_restart_in_the_middle_of_a_study(tmp_path, server: Server, storage, tables):
    driver = start("--out", str(tmp_path / "first"), storage=storage)
    wait_for(lambda: done(storage) >= 1, timeout=180)
    server.stop("immediate")
    time.sleep(3)
    server.start()
    second = finish(start("--out", str(tmp_path / "second"), storage=storage), code=2)
    assert re.search(f"another driver is running this study: .* pid {driver.pid} since", second)
    output = finish(driver, timeout=240)
    assert re.search("does not answer.*waiting for it", output)
    assert "answers again" in output
    for secret in (PASSWORD, QUOTED):
        assert secret not in output + second
    assert_same(trials(run_folder(tmp_path / "first")), tables[()])
    assert_each_once(storage, tables[()])
    assert {attempt for _, attempt, _ in rows(storage)} == {1}  # nothing was tried again


def test_driver_killed_and_server_gone_for_good_the_same_command_goes_on(
    tmp_path, server: Server, storage, tables, monkeypatch
):
    words, impatient = ("--out", str(tmp_path)), "tests.postgres.impatient"
    driver = start(*words, storage=storage)
    wait_for(lambda: done(storage) >= 1, timeout=180)
    driver.send_signal(signal.SIGKILL)
    driver.wait()

    driver = start(*words, storage=storage, script=impatient)  # the dead one's lock is free
    wait_for(lambda: done(storage) >= 3, timeout=180)
    server.stop("immediate")
    try:
        output = finish(driver, code=3)
    finally:
        server.start()
    assert "the same command goes on" in output
    assert "Traceback" not in output

    finish(start(*words, storage=storage), timeout=240)
    folder = run_folder(tmp_path)
    assert_same(trials(folder), tables[()])
    assert_each_once(storage, tables[()])
    assert_the_report_is_found(folder, storage, monkeypatch)


def assert_the_report_is_found(folder: Path, storage: str, monkeypatch) -> None:
    """Where `run.json` says, with the password from libpq's own variable."""
    page = folder / "report" / "index.html"
    first = page.read_text()
    page.unlink()
    monkeypatch.delenv("MMREC_STORAGE", raising=False)
    words = ["report", str(folder), "--study", str(ROOT / "tests" / "e2e" / "mini.py")]
    assert mmrec_command(words) == 2
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert mmrec_command(words) == 0
    assert page.read_text() == first

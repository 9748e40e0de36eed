"""Drivers and workers are killed in the middle; what they leave behind must not show."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterable

import pandas as pd
import pytest

from tests.e2e.conftest import finish, kin, run_folder, start, trials, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TIMES = {"started", "ended", "seconds", "host", "attempt", "cost.epoch_seconds", "cost.peak_mib"}


def assert_same(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal to the last bit, but for time, memory and place."""
    columns = [c for c in expected if c not in TIMES]
    pd.testing.assert_frame_equal(
        table[columns].reset_index(drop=True),
        expected[columns].reset_index(drop=True),
        check_exact=True,
    )


def checkpointed_epochs(out) -> list[int]:
    import torch

    files = out.glob("*/*/trials/*/state.pt")
    states = [torch.load(file, weights_only=True) for file in files]
    return [s["epoch"] for s in states if "optimizer" in s]


ATTEMPTS = (
    "select h.value_json, a.value_json, t.state from trials t"
    " join trial_user_attributes h on h.trial_id = t.trial_id and h.key = 'hash'"
    " join trial_user_attributes a on a.trial_id = t.trial_id and a.key = 'attempt'"
)
"""Of Optuna's tables, in any database: hash and attempt (as JSON) and state of every row."""


def from_json(rows: Iterable[tuple[str, str, str]]) -> list[tuple[str, int, str]]:
    """(hash, attempt, state) of what `ATTEMPTS` gives."""
    return [(json.loads(name), json.loads(attempt), state) for name, attempt, state in rows]


def attempts(out) -> list[tuple[str, int, str]]:
    """(hash, attempt, state) of every row of the ledger, as SQLite has it."""
    database = run_folder(out) / "ledger.db"
    with sqlite3.connect(database) as connection:
        rows = connection.execute(ATTEMPTS).fetchall()
    connection.close()
    return from_json(rows)


def test_a_killed_driver_loses_nothing(tmp_path, undisturbed):
    driver = start("--out", str(tmp_path))
    wait_for(lambda: len(checkpointed_epochs(tmp_path)) >= 1, timeout=90)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    # Its workers live on for a while: what they write must not count, nor be waited for.
    saved = max(checkpointed_epochs(tmp_path))
    before = attempts(tmp_path)
    finish(start("--out", str(tmp_path)))
    assert saved >= 5
    assert_same(trials(run_folder(tmp_path)), undisturbed)
    # Only what was in flight has a second attempt, and nothing a third.
    after = attempts(tmp_path)
    in_flight = {name for name, _, state in before if state == "RUNNING"}
    assert {name for name, attempt, _ in after if attempt == 2} == in_flight
    assert in_flight
    assert max(attempt for _, attempt, _ in after) == 2
    assert len([1 for _, _, state in after if state == "COMPLETE"]) == 6


def test_a_killed_worker_is_replaced_and_concurrency_recovers(tmp_path, undisturbed):
    driver = start("--out", str(tmp_path))
    wait_for(lambda: len(checkpointed_epochs(tmp_path)) >= 1, timeout=90)
    workers = [p for p in kin(driver) if "ResourceTrainable" in " ".join(p.cmdline())]
    workers[0].kill()
    output = finish(driver)
    assert "the worker died" in output.lower()
    table = trials(run_folder(tmp_path))
    assert_same(table, undisturbed)
    assert sorted(table["attempt"]) == [1, 1, 1, 1, 1, 2]
    retried = table[table["attempt"] == 2].iloc[0]
    later = table[table["started"] >= retried["started"]]
    overlaps = [
        (a.hash, b.hash)
        for a in later.itertuples()
        for b in later.itertuples()
        if a.hash < b.hash and a.started < b.ended and b.started < a.ended
    ]
    assert overlaps, "after the death trials ran one at a time"


def test_ctrl_c_keeps_the_state_and_the_same_command_goes_on(tmp_path, undisturbed):
    driver = start("--out", str(tmp_path))
    wait_for(lambda: len(checkpointed_epochs(tmp_path)) >= 1, timeout=90)
    driver.send_signal(signal.SIGINT)
    output = finish(driver, code=130)
    assert "goes on" in output
    assert all(state != "RUNNING" for _, _, state in attempts(tmp_path))
    finish(start("--out", str(tmp_path)))
    assert_same(trials(run_folder(tmp_path)), undisturbed)


def test_a_second_driver_is_refused_by_name(tmp_path):
    first = start("--out", str(tmp_path))
    wait_for(lambda: any(tmp_path.glob("*/*/run.json")))
    second = finish(start("--out", str(tmp_path)), code=2)
    assert "another driver is running this study" in second
    first.kill()
    first.wait()

"""One writer a study: files here, a server's lock in tests/postgres."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mmrec.study.database import Refused
from mmrec.study.store import Folder
from mmrec.study.writer import one_writer

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
time.sleep(60)
"""


def alone(folder: Path, storage: str | None = None, name: str = "x"):
    return one_writer(Folder.at(folder), storage, name)


def test_a_second_driver_is_refused_until_the_first_is_killed(tmp_path):
    with alone(tmp_path):  # makes the lock's file
        lock = tmp_path / ".lock"
        words = [sys.executable, "-c", HOLD, str(lock)]
        assert b"BlockingIOError" in subprocess.run(words, capture_output=True, check=False).stderr
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(Refused, match=f"{tmp_path} is locked"), alone(tmp_path):
            raise AssertionError("two drivers at once")
        other.kill()
        other.wait()
        with alone(tmp_path):
            pass


def test_who_holds_a_study_is_named(tmp_path):
    name = f"{socket.gethostname()[:16]} pid {os.getpid()} since 20"
    with alone(tmp_path), pytest.raises(Refused, match=name), alone(tmp_path):
        raise AssertionError("two drivers at once")


def test_the_lock_is_let_go_when_a_driver_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), alone(tmp_path / "new" / "folder"):
        raise ZeroDivisionError
    with alone(tmp_path / "new" / "folder"):
        pass


def test_an_sqlite_file_has_a_lock_for_each_study_in_it(tmp_path):
    one, two = Folder("memory://one"), Folder("memory://two")
    storage = f"sqlite:///{tmp_path / 'x.db'}"
    with one_writer(one, storage, "a"):
        with one_writer(two, storage, "b"):
            pass
        with pytest.raises(Refused, match="another driver"), one_writer(two, storage, "a"):
            raise AssertionError("two drivers at once")


def test_a_lock_that_was_replaced_is_lost(tmp_path):
    with alone(tmp_path) as writer:
        writer.require()
        (tmp_path / ".lock").rename(tmp_path / "gone")
        with alone(tmp_path), pytest.raises(Refused, match="another driver took over"):
            writer.require()

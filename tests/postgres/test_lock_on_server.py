"""One writer a study in PostgreSQL, and what both ends of a connection are told."""

import os
import socket
import statistics
import subprocess
import sys
import time

import psycopg
import pytest

from mmrec.study.database import Refused
from mmrec.study.ledger import Ledger
from mmrec.study.store import Folder
from mmrec.study.writer import one_writer
from tests.postgres.conftest import QUOTED, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

REMOTE = Folder("memory://bucket/run")


def ask(storage: str, words: str) -> list[tuple]:
    with psycopg.connect(storage, autocommit=True) as connection:
        return connection.execute(words).fetchall()


LOCKS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory'"


def test_a_second_driver_is_refused_and_told_of_the_first(storage):
    name = f"{socket.gethostname()[:16]} pid {os.getpid()} since 20"
    with one_writer(REMOTE, storage, "a"):
        with one_writer(REMOTE, storage, "b"):  # another study in the same database
            assert len(ask(storage, LOCKS)) == 2
        with (
            pytest.raises(Refused, match=f"a in postgresql.*is locked by {name}") as refused,
            one_writer(REMOTE, storage, "a"),
        ):
            raise AssertionError("two drivers at once")
        assert QUOTED not in str(refused.value)
        assert len(ask(storage, LOCKS)) == 1
    with one_writer(REMOTE, storage, "a"):
        pass
    assert ask(storage, LOCKS) == []


def test_a_lost_lock_is_taken_again_unless_another_driver_has_it(storage):
    end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks WHERE locktype = 'advisory'"
    with one_writer(REMOTE, storage, "a") as first:
        (before,) = ask(storage, LOCKS)
        assert ask(storage, end) == [(True,)]
        first.require()
        (after,) = ask(storage, LOCKS)
        assert before != after
        assert ask(storage, end) == [(True,)]
        with one_writer(REMOTE, storage, "a"), pytest.raises(Refused, match="took over: a in"):
            first.require()


def test_our_own_lock_of_a_connection_thought_alive_is_not_anothers(storage):
    with one_writer(REMOTE, storage, "a") as writer:
        (lock,) = writer.locks
        (before,) = ask(storage, LOCKS)
        ghost, lock.connection = lock.connection, None  # the network was cut: the server holds it
        writer.require()
        (after,) = ask(storage, LOCKS)
        assert before != after
        ghost.invalidate()


def test_making_sure_of_the_lock_is_cheap(storage):
    with one_writer(REMOTE, storage, "a") as writer:
        seconds = []
        for _ in range(50):
            start = time.perf_counter()
            writer.require()
            seconds.append(time.perf_counter() - start)
    assert statistics.median(seconds) < 0.002


def test_a_restart_in_the_middle_of_an_operation(server: Server, storage):
    ledger = Ledger(storage, "x")
    with one_writer(REMOTE, storage, "x") as writer:
        ledger.storage.guard = writer.require
        server.stop()
        server.start()
        ledger.settle("memory://bucket/run")
        writer.require()
        assert len(ask(storage, LOCKS)) == 1
    assert Ledger(storage, "x").studies["grid"].user_attrs == {"home": "memory://bucket/run"}


def test_both_ends_notice_within_30_s_that_the_other_is_gone(storage):
    ledger = Ledger(storage, "x")
    with ledger.storage.engine.connect() as connection:
        show = "idle", "interval", "count"
        told = [
            int(str(connection.exec_driver_sql(f"SHOW tcp_keepalives_{word}").scalar()))
            for word in show
        ]
        idle, interval, count = told
        assert 0 < idle + interval * count <= 30
        assert connection.exec_driver_sql("SHOW tcp_user_timeout").scalar() in ("30s", "30000")
        ours = connection.connection.dbapi_connection
        assert ours is not None
        with socket.socket(fileno=os.dup(ours.fileno())) as end:  # pyright: ignore
            option = [
                end.getsockopt(socket.IPPROTO_TCP, number)
                for number in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            ]
            assert option == told
            assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_many_drivers_may_lay_out_a_new_database_at_once(storage):
    """Each in a process of its own, for Optuna makes its tables without asking anyone."""
    words = "import sys; from mmrec.study.ledger import Ledger; Ledger(sys.argv[1], sys.argv[2])"
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", words, storage, name], stderr=subprocess.PIPE, text=True
        )
        for name in "abcd"
    ]
    for driver in drivers:
        _, said = driver.communicate(timeout=90)
        assert driver.returncode == 0, said
    assert len(ask(storage, "SELECT 1 FROM studies")) == 8


@pytest.mark.parametrize(
    ("part", "wrong", "words"),
    [
        (QUOTED, "wr0ng-S3CRET", "password authentication failed"),
        (":{port}/", ":1/", "connection.*failed"),
        ("/{name}", "/nosuch", "does not exist"),
    ],
)
def test_what_cannot_be_opened_is_refused_without_the_password(
    server: Server, storage, part, wrong, words
):
    part = part.format(port=server.port, name=storage.rpartition("/")[2])
    assert storage.count(part) == 1
    url = storage.replace(part, wrong)
    start = time.monotonic()
    for opened in (lambda: Ledger(url, "x"), one_writer(REMOTE, url, "x").__enter__):
        with pytest.raises(Refused, match=words) as refused:
            opened()
        assert "S3CRET" not in str(refused.value)
    assert time.monotonic() - start < 10  # nobody waits for it

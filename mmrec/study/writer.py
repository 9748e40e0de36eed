"""One writer a study: a second driver is refused, and told who the first one is.

A run folder or an SQLite file has a file lock beside it, of which the system lets go when the
driver dies. In PostgreSQL it is an advisory lock on a connection of its own, of which the server
lets go when the driver dies or, within 30 s, when its machine is gone.
"""

import datetime
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from mmrec.study.database import Patience, Refused, file_of, nothing, server_options, url_of
from mmrec.study.store import Folder, StorageFailed

LOCK = ".lock"
"""What the names of a lock's files begin with; they stay where they are."""


class _Lock(Protocol):
    def require(self) -> None: ...


@dataclass(frozen=True)
class Writer:
    """The right to write a study."""

    locks: tuple[_Lock, ...]

    def require(self) -> None:
        """Make sure of the right; a round trip to the server, or a look at a file.

        Raises:
            Refused: it was lost, and another driver has it.
        """
        for lock in self.locks:
            lock.require()


@contextmanager
def one_writer(folder: Folder, storage: str | None, name: str) -> Iterator[Writer]:
    """Hold a study for this driver.

    Args:
        folder: the run folder.
        storage: the ledger's database; None: SQLite in the run folder.
        name: the ledger's name, of which a database may hold many.

    Raises:
        Refused: another driver holds it.
    """
    locks: list[_Lock] = []
    with ExitStack() as stack:
        # A dead machine's lock on a network file system may outlive it; the server's does not.
        if folder.is_local and not folder.on_network:
            locks.append(stack.enter_context(_file_lock(folder.path, LOCK)))
        if storage is not None:
            file = file_of(url_of(storage))
            if file is None:
                locks.append(stack.enter_context(_server_lock(storage, name)))
            else:
                beside = f"{LOCK}-{file.name}-{_digest(name).hex()}"
                locks.append(stack.enter_context(_file_lock(file.parent, beside)))
        yield Writer(tuple(locks))


def _this_driver() -> str:
    """Who we are, with four digits by chance: at most 63 bytes, as PostgreSQL keeps of a name."""
    since = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%MZ")
    host = socket.gethostname()[:16]
    return f"mmrec {host} pid {os.getpid()} since {since} {secrets.token_hex(2)}"


def _shown(holder: str) -> str:
    """What a reader wants to know of a holder."""
    return holder.removeprefix("mmrec ").rpartition(" ")[0] or "it"


def _taken_over(what: str, holder: str) -> Refused:
    return Refused(
        f"another driver took over: {what} is locked by {_shown(holder)}. What this one has done is"
        " kept"
    )


def _digest(name: str) -> bytes:
    return hashlib.sha256(f"mmrec {name}".encode()).digest()[:8]


# --- files


class _FileLock:
    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.file = folder, folder / name
        self.text = folder / f"{name}.txt"
        self.known = self._known()

    def _known(self) -> tuple[int, int] | None:
        try:
            stat = self.file.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def require(self) -> None:
        if self._known() != self.known:  # deleted or replaced: who holds that holds another lock
            raise _taken_over(str(self.folder), _read(self.text))


@contextmanager
def _file_lock(folder: Path, name: str) -> Iterator[_FileLock]:
    lock, text = FileLock(folder / name), folder / f"{name}.txt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
        text.write_text(_this_driver())
    except Timeout:
        raise Refused(
            f"another driver is running this study: {folder} is locked by {_shown(_read(text))}."
            " Wait for it, or give this one another --out"
        ) from None
    except OSError as error:
        lock.release()
        raise StorageFailed(f"{folder} cannot be written: {error}") from error
    try:
        yield _FileLock(folder, name)
    finally:
        with suppress(OSError):  # on storage that failed; it only says who holds the lock
            text.unlink(missing_ok=True)
        lock.release()


def _read(text: Path) -> str:
    return text.read_text() if text.exists() else ""


# --- a server


class _ServerLock:
    """An advisory lock; it is gone when its connection is, and then taken again."""

    def __init__(self, storage: str, name: str) -> None:
        self.me, self.key = _this_driver(), int.from_bytes(_digest(name), signed=True)
        self.patience = Patience(storage)
        self.what = f"{name} in {self.patience.shown}"
        url = self.patience.url
        self.engine = sqlalchemy.create_engine(
            url,
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
            connect_args={**server_options(url), "application_name": self.me},
        )
        self.connection: sqlalchemy.Connection | None = None

    def require(self) -> None:
        """One round trip while the connection lives; the lock lives as long."""
        self.patience(self._hold, nothing)

    def _hold(self) -> None:
        if self.connection is not None:
            try:
                self.connection.exec_driver_sql("SELECT 1")
                return
            except DBAPIError:
                self.close()
        holder = self.take()
        if holder is not None:
            raise _taken_over(self.what, holder)

    def take(self) -> str | None:
        """Try to take the lock; who has it, if not we."""
        self.connection = self.engine.connect()
        until = time.monotonic() + 5.0
        while not self._try():
            pid, holder = self._holder()
            if holder != self.me or time.monotonic() > until:
                self.close()
                return holder
            # Our own, of a connection of whose end the server does not know yet.
            self._first("SELECT pg_terminate_backend(:pid)", pid=pid)
            time.sleep(0.05)
        return None

    def _try(self) -> bool:
        return bool(self._first("SELECT pg_try_advisory_lock(:key)", key=self.key)[0])

    def _holder(self) -> tuple[int, str]:
        found = self._first(
            "SELECT pid, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
            " AND classid = :high AND objid = :low"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            high=self.key >> 32 & 0xFFFFFFFF,
            low=self.key & 0xFFFFFFFF,
        )
        return found or (0, "")

    def _first(self, words: str, **values: int) -> Any:
        assert self.connection is not None
        return self.connection.execute(sqlalchemy.text(words), values).first()

    def close(self) -> None:
        """Let go."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


@contextmanager
def _server_lock(storage: str, name: str) -> Iterator[_ServerLock]:
    lock = _ServerLock(storage, name)
    try:
        holder = lock.take()
    except SQLAlchemyError as error:
        raise lock.patience.refusal(error) from error
    if holder is not None:
        raise Refused(
            f"another driver is running this study: {lock.what} is locked by {_shown(holder)}."
            " Wait for it"
        )
    try:
        yield lock
    finally:
        lock.close()
        lock.engine.dispose()

"""The database behind a ledger: SQLite for one machine, PostgreSQL for a team.

SQLite is a file on a local disk. A PostgreSQL server may go away for a while (a restart, a cut
network): then an operation, which is one transaction, is tried again until the server is back.
"""

import functools
import os
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.orm import scoped_session, sessionmaker

from mmrec.study.store import Folder, StorageFailed

STORAGE = "MMREC_STORAGE"
"""Environment variable: the default of `--storage`, so that no password is on a command line."""

PATIENCE = 120.0
"""Seconds for which an operation is tried again while the server is away."""

T = TypeVar("T")


class Refused(RuntimeError):
    """A wish that cannot be met here and now; its message is all that a user needs."""


def usual_storage() -> str | None:
    """What `--storage` is when it is not given; None: SQLite in the run folder."""
    return os.environ.get(STORAGE) or None


def url_of(storage: str) -> URL:
    """A database URL whose driver is named.

    Raises:
        Refused: it is not one of SQLite (a file) or PostgreSQL, or psycopg is not installed.
    """
    shown = without_password(storage)
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # their text may hold the password
        raise Refused(f"--storage {shown!r} is not a database URL; {_TAKEN}") from None
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if url.database in (None, "", ":memory:"):
            raise Refused(f"--storage {shown!r} names no file, and a ledger is to be kept")
        return url.set(drivername="sqlite")
    if url.drivername in ("postgresql", "postgresql+psycopg"):
        try:
            import psycopg  # noqa: F401 - an extra
        except ImportError as error:
            raise Refused(
                "a ledger in PostgreSQL needs psycopg 3: pip install 'mmrec[postgres]'"
            ) from error
        return url.set(drivername="postgresql+psycopg")
    raise Refused(f"--storage {shown!r}: no ledger is kept in {url.drivername!r}; {_TAKEN}")


_TAKEN = "give sqlite:////local/disk/x.db or postgresql://user@host/database"


def file_of(url: URL) -> Path | None:
    """Where an SQLite database lies; None for a server's."""
    return Path(url.database or "").resolve() if url.drivername == "sqlite" else None


def require_local_disk(url: URL) -> None:
    """SQLite's locks and write-ahead log do not work over a network.

    Raises:
        Refused: the SQLite file would lie on a network file system.
    """
    file = file_of(url)
    network = Folder.at(file.parent).on_network if file is not None else None
    if network:
        raise Refused(
            f"{file} would be an SQLite database on a network file system ({network}), where"
            " several machines would damage it: give --storage sqlite:////local/disk/x.db, or"
            " postgresql://user@host/database"
        )


def _engine_options(url: URL) -> dict[str, Any]:
    if url.drivername == "sqlite":
        return {"connect_args": {"timeout": 60, "factory": _Connection}}
    return {"pool_pre_ping": True, "connect_args": server_options(url)}


def server_options(url: URL) -> dict[str, Any]:
    """Both ends of a connection notice within 30 s that the other is gone.

    Otherwise this end would wait a quarter of an hour for a lost packet, and the server would keep
    the locks of a machine that lost its power for two hours.
    """
    ours = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}
    own = url.query.get("options") or os.environ.get("PGOPTIONS", "")
    words = [own if isinstance(own, str) else " ".join(own)]
    words += [f"-c {name}={value}" for name, value in ours.items()]
    return {
        "connect_timeout": 10,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,  # milliseconds
        "options": " ".join([*words, "-c tcp_user_timeout=30000"]).strip(),
    }


class _Connection(sqlite3.Connection):
    """SQLite with a write-ahead log, which need not wait for the disk at every commit.

    On a busy disk a commit is then milliseconds in place of tens. A killed process loses nothing;
    a power cut may lose the last rows but leaves the file whole.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


# --- passwords

_USER_PASSWORD = re.compile(r"(?<=://)([^:/@?]*):.+@")
_QUERY_PASSWORD = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", re.IGNORECASE)


def without_password(url: str) -> str:
    """A database URL as it may be shown and stored: no password before the host or after a `?`.

    A password that itself holds `@`, `/` or `:` (it should have been quoted) is hidden whole.
    """
    return _QUERY_PASSWORD.sub(r"\1***", _USER_PASSWORD.sub(r"\1:***@", url))


# --- what went wrong


def _complaint(error: BaseException | None) -> DBAPIError | None:
    """The driver's own complaint, in whatever Optuna or SQLAlchemy has wrapped it."""
    while error is not None and not isinstance(error, DBAPIError):
        error = error.__cause__ or error.__context__
    return error


def is_away(error: BaseException) -> bool:
    """Whether a server did not answer, went away in the middle, or asks to try again.

    A complaint of psycopg without an SQLSTATE did not come from a server.
    """
    complaint = _complaint(error)
    if complaint is None or isinstance(complaint.orig, sqlite3.Error):
        return False
    if complaint.connection_invalidated:
        return True
    state = getattr(complaint.orig, "sqlstate", None)
    if state is None:
        return isinstance(complaint, OperationalError | InterfaceError)
    return state in _AWAY or state.startswith("08")


_AWAY = {
    "57P01",  # the server is being shut down
    "57P02",  # it has crashed
    "57P03",  # it is starting up
    "57P05",  # it closed an idle session
    "53300",  # it has too many connections
    "40001",  # two transactions met, and this one is to be tried again
    "40P01",
}


def is_unwritable(error: BaseException) -> bool:
    """Whether the disk under the database is full, read-only or broken."""
    complaint = _complaint(error)
    if complaint is None:
        return False
    name = getattr(complaint.orig, "sqlite_errorname", "")
    state = getattr(complaint.orig, "sqlstate", None)
    return name.startswith(_UNWRITABLE) or state in ("53100", "58030", "25006")


def _is_laid_out_by_another(error: BaseException) -> bool:
    """Whether two drivers made the tables of a new database at once; the first one did."""
    complaint = _complaint(error)
    state = getattr(complaint.orig, "sqlstate", None) if complaint else None
    return state in ("23505", "42P07", "42710")


_UNWRITABLE = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN")


def said(error: BaseException, url: URL) -> str:
    """What the driver said, in a line and without the password."""
    complaint = _complaint(error)
    text = " ".join(str(complaint.orig if complaint else error).split())
    for secret in (url.password, url.query.get("password")):
        text = text.replace(str(secret), "***") if secret else text
    return text


# --- patience

_trying: ContextVar[bool] = ContextVar("trying", default=False)


class Patience:
    """Tries an operation again while the server is away."""

    def __init__(self, storage: str) -> None:
        self.url, self.shown = url_of(storage), without_password(storage)
        self.gave_up = False
        """After this the next operation is not waited for, since the study is being ended."""

    def __call__(self, operation: Callable[[], T], found: Callable[[], T | None]) -> T:
        """What `operation` gives; one within another is the other's to try again.

        Args:
            operation: one transaction.
            found: what it gave, if it did take place and only the answer was lost; else None.

        Raises:
            StorageFailed: the server stayed away, or the disk cannot be written.
        """
        if _trying.get():
            return operation()
        token = _trying.set(True)
        try:
            return self._tried(operation, found)
        finally:
            _trying.reset(token)

    def _tried(self, operation: Callable[[], T], found: Callable[[], T | None]) -> T:
        until, pause = 0.0, 0.25
        while True:
            try:
                before = found() if until else None
                result = operation() if before is None else before
                break
            except (SQLAlchemyError, StorageInternalError) as error:
                if is_unwritable(error):
                    raise StorageFailed(self._unwritable(error)) from error
                if not is_away(error):
                    raise
                if not until:
                    until = time.monotonic() + (0.0 if self.gave_up else PATIENCE)
                    self._say(f"does not answer ({said(error, self.url)}); waiting for it")
                if time.monotonic() >= until:
                    self.gave_up = True
                    raise StorageFailed(self._away(error)) from error
            time.sleep(max(0.0, min(pause, until - time.monotonic())))
            pause = min(2 * pause, 10.0)
        if until:
            self._say("answers again")
        self.gave_up = False
        return result

    def refusal(self, error: Exception) -> Refused | StorageFailed:
        """What to raise when the database cannot even be opened: nobody waits for it."""
        if is_unwritable(error) and "unable to open" not in str(error):
            return StorageFailed(self._unwritable(error))
        return Refused(f"the ledger {self.shown!r} cannot be opened: {said(error, self.url)}")

    def _say(self, what: str) -> None:
        if not self.gave_up:
            sys.stderr.write(f"the ledger {self.shown} {what}\n")
            sys.stderr.flush()

    def _away(self, error: BaseException) -> str:
        return (
            f"the ledger {self.shown} did not answer for {PATIENCE:.0f} s:"
            f" {said(error, self.url)}. What is done is kept; the same command goes on"
        )

    def _unwritable(self, error: BaseException) -> str:
        return (
            f"the ledger {self.shown} cannot be written: {said(error, self.url)}. What is done is"
            " kept; make room, or mend the disk, and the same command goes on"
        )


def nothing() -> None:
    """Where there is nothing to find, or nothing to ask."""


# --- Optuna's storage


class Database(RDBStorage):
    """Optuna's storage, patient with a server, and able to do several things in one commit."""

    def __init__(self, storage: str) -> None:
        """Open it, and lay out its tables where there are none.

        Raises:
            Refused: there is no such database, or it does not answer.
            StorageFailed: its disk is full or cannot be written.
        """
        self._patience = Patience(storage)
        url = self._patience.url
        self.guard: Callable[[], None] = nothing
        """Called before writing and after a lost connection; raises if we may not write."""
        # Optuna fills braces in, as in a template; a password may hold some.
        whole = url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
        for last in (False, False, True):
            try:
                super().__init__(whole, _engine_options(url))
                break
            except (SQLAlchemyError, StorageInternalError) as error:
                if last or not _is_laid_out_by_another(error):
                    raise self._patience.refusal(error) from error

    def tried(self, operation: Callable[[], T], found: Callable[[], T | None] = nothing) -> T:
        """What an operation of one transaction gives, once the server is there.

        `found` tells what it gave if it took place and only the answer was lost.
        """

        def found_again() -> T | None:
            self.guard()
            return found()

        try:
            return self._patience(operation, found_again)
        except UpdateFinishedTrialError:
            self.guard()  # another driver took over and closed the row
            raise

    def together(self, write: Callable[[], T], found: Callable[[], T | None] = nothing) -> T:
        """Several operations as one transaction: all or none, and one commit to wait for."""

        def written() -> T:
            self.guard()
            with self._one_transaction():
                return write()

        return self.tried(written, found)

    @contextmanager
    def _one_transaction(self) -> Iterator[None]:
        usual = self.scoped_session
        with self.engine.begin() as connection:
            inner = sessionmaker(bind=connection, join_transaction_mode="rollback_only")
            self.scoped_session = scoped_session(inner)
            try:
                yield
            finally:
                self.scoped_session = usual


def _patient(operation: Callable[..., T]) -> Callable[..., T]:
    @functools.wraps(operation)
    def tried(self: Database, *args: Any, **kwargs: Any) -> T:
        return self.tried(functools.partial(operation, self, *args, **kwargs))

    return tried


for _name in (
    "create_new_study", "delete_study", "get_all_studies", "get_study_id_from_name",
    "get_study_name_from_id", "get_study_directions", "get_study_user_attrs",
    "get_study_system_attrs", "set_study_user_attr", "set_study_system_attr",
    "create_new_trial", "_create_new_trial", "set_trial_param", "_set_trial_param",
    "set_trial_state_values", "set_trial_intermediate_value", "set_trial_user_attr",
    "set_trial_system_attr", "get_trial", "get_all_trials", "_get_trials", "get_best_trial",
    "get_trial_user_attrs", "get_trial_system_attrs", "get_trial_param",
    "get_trial_id_from_study_id_trial_number",
):  # fmt: skip
    setattr(Database, _name, _patient(getattr(RDBStorage, _name)))

"""Which databases a ledger is kept in, and what is done when one goes away or cannot be written."""

import sqlite3
import sys

import pytest
import sqlalchemy.exc
from optuna.trial import TrialState

from mmrec.study import database
from mmrec.study.database import Refused, require_local_disk, url_of, without_password
from mmrec.study.ledger import Ledger
from mmrec.study.store import Folder, StorageFailed
from tests.study.fabricated import ALPHA, SPANS, facts, finish, plan

# --- which


@pytest.mark.parametrize(
    ("storage", "driver"),
    [
        ("sqlite:////disk/x.db", "sqlite"),
        ("postgresql://me@host/db", "postgresql+psycopg"),
        ("postgresql+psycopg:///db?host=/run", "postgresql+psycopg"),
    ],
)
def test_sqlite_and_postgresql_are_taken(storage, driver):
    assert url_of(storage).drivername == driver


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("mysql://me:S3CRET@host/db", "no ledger is kept in 'mysql'"),
        (
            "postgresql+psycopg2://me:S3CRET@host/db",
            r"'postgresql\+psycopg2'; give .*postgresql://",
        ),
        ("postgres://me:S3CRET@host/db", "'postgres'; give .*postgresql://"),
        ("redis://:S3CRET@host", "'redis'"),
        ("/disk/x.db", "'/disk/x.db' is not a database URL"),
        ("postgresql://me:S3CRET@host:port/db", r"me:\*\*\*@host:port/db' is not a database"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_other_databases_are_refused_by_name(storage, words):
    with pytest.raises(Refused, match=words) as refused:
        url_of(storage)
    assert "S3C" not in str(refused.value)


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(Refused, match=r"pip install 'mmrec\[postgres\]'"):
        url_of("postgresql://host/db")


def test_sqlite_on_a_network_disk_is_refused(monkeypatch, tmp_path):
    require_local_disk(url_of(f"sqlite:///{tmp_path / 'x.db'}"))
    monkeypatch.setattr(Folder, "on_network", "nfs4")
    require_local_disk(url_of("postgresql://host/db"))
    with pytest.raises(Refused, match=r"nfs4.*sqlite:////local/disk/x.db"):
        require_local_disk(url_of(f"sqlite:///{tmp_path / 'x.db'}"))


@pytest.mark.slow
def test_a_reader_makes_nothing(open_ledger, tmp_path):
    open_ledger()
    there = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(there, "made_up", make=False)
    with pytest.raises(Refused, match="has no study 'other/grid'"):
        Ledger(there, "other", make=False)
    with pytest.raises(Refused, match="there is no ledger"):
        Ledger(f"sqlite:///{tmp_path / 'nowhere.db'}", "made_up", make=False)
    assert not (tmp_path / "nowhere.db").exists()


# --- away, and back


class Gone(Exception):
    """What psycopg raises, as SQLAlchemy sees it."""

    def __init__(self, sqlstate: str | None = None) -> None:
        super().__init__("server closed the connection")
        self.sqlstate = sqlstate


def lost(sqlstate: str | None = None) -> sqlalchemy.exc.OperationalError:
    return sqlalchemy.exc.OperationalError("COMMIT", {}, Gone(sqlstate))


@pytest.fixture
def naps(monkeypatch) -> list[float]:
    """The waits, on a clock that only they move."""
    taken: list[float] = []
    monkeypatch.setattr(database.time, "sleep", taken.append)
    monkeypatch.setattr(database.time, "monotonic", lambda: 1000.0 + sum(taken))
    return taken


def flaky(monkeypatch, method: str, errors: list[Exception], *, after: bool = False) -> list[int]:
    """Optuna's `method` fails with `errors`, before or after it has done its work."""
    real, calls = getattr(database.RDBStorage, method), []

    def failing(self, *args, **kwargs):
        calls.append(1)
        result = real(self, *args, **kwargs) if after or not errors else None
        if errors:
            raise errors.pop(0)
        return result

    patient = database._patient(failing)
    monkeypatch.setattr(database.Database, method, patient)
    return calls


def test_an_operation_waits_for_a_server_that_comes_back(open_ledger, monkeypatch, naps, capsys):
    ledger = open_ledger()
    calls = flaky(monkeypatch, "_create_new_trial", [lost(), lost("57P03"), lost("08006")])
    ledger.begin(plan()[0], 1, SPANS)
    assert len(calls) == 4
    assert naps == [0.25, 0.5, 1.0]
    assert [row.state for row in ledger.rows("grid")] == ["running"]
    said = capsys.readouterr().err.splitlines()
    assert ["waiting for it" in line for line in said] == [True, False]
    assert "answers again" in said[1]


def test_a_server_that_stays_away_ends_the_study_once(open_ledger, monkeypatch, naps):
    ledger = open_ledger()
    flaky(monkeypatch, "_create_new_trial", [lost() for _ in range(99)])
    with pytest.raises(StorageFailed, match=r"did not answer for 120 s.*the same command goes on"):
        ledger.begin(plan()[0], 1, SPANS)
    assert sum(naps) == 120
    with pytest.raises(StorageFailed):  # nobody waits again for what closes the study
        ledger.begin(plan()[0], 1, SPANS)
    assert sum(naps) == 120


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.IntegrityError("INSERT", {}, Gone("23505")),
        sqlalchemy.exc.ProgrammingError("SELECT", {}, Gone("42601")),
        sqlalchemy.exc.OperationalError("SELECT", {}, Gone("57014")),
        sqlalchemy.exc.OperationalError("SELECT", {}, sqlite3.OperationalError("locked")),
        KeyError("no such trial"),
    ],
)
def test_other_errors_rise_at_once(open_ledger, monkeypatch, naps, error):
    ledger = open_ledger()
    flaky(monkeypatch, "_create_new_trial", [error])
    with pytest.raises(type(error)):
        ledger.begin(plan()[0], 1, SPANS)
    assert naps == []


@pytest.mark.parametrize("sqlstate", ["53100", "25006"])
def test_a_servers_full_disk_is_not_waited_for(open_ledger, monkeypatch, naps, sqlstate):
    ledger = open_ledger()
    flaky(monkeypatch, "_create_new_trial", [lost(sqlstate)])
    with pytest.raises(StorageFailed, match=r"cannot be written.*the same command goes on"):
        ledger.begin(plan()[0], 1, SPANS)
    assert naps == []


@pytest.mark.slow
def test_a_commit_whose_answer_was_lost_is_not_repeated(open_ledger, monkeypatch, naps):
    ledger = open_ledger()
    flaky(monkeypatch, "_create_new_trial", [lost()], after=True)
    row = ledger.begin(plan()[0], 1, SPANS)
    end = ledger.storage._one_transaction

    def answer_lost():
        with end():
            yield
        monkeypatch.setattr(ledger.storage, "_one_transaction", end)
        raise lost()

    monkeypatch.setattr(ledger.storage, "_one_transaction", database.contextmanager(answer_lost))
    ledger.finish(row, 0.2, facts(0.2), stopped=False)
    assert len(naps) == 2
    (trial,) = ledger.studies["grid"].get_trials()
    assert (trial.state, trial.value, trial.params[ALPHA]) == (TrialState.COMPLETE, 0.2, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("ghost_first", [True, False])
def test_a_row_that_was_left_twice_counts_once(open_ledger, ghost_first):
    ledger, one = open_ledger(), plan()[0]
    if ghost_first:
        ledger.begin(one, 1, SPANS)
    finish(ledger, one, 0.2)
    if not ghost_first:
        ledger.begin(one, 1, SPANS)
    for _ in range(2):  # while it is open, and when it is closed
        assert [(row.state, row.value) for row in ledger.rows("grid")] == [("done", 0.2)]
        ledger.close_interrupted()


@pytest.mark.slow
def test_a_row_is_opened_whole_and_closed_whole(open_ledger, monkeypatch):
    ledger, (one, two) = open_ledger(), plan()[:2]
    row = ledger.begin(one, 1, SPANS)
    with pytest.raises(TypeError, match="not JSON serializable"):
        ledger.begin(two, object(), SPANS)
    with pytest.raises(TypeError, match="not JSON serializable"):
        ledger.finish(row, 0.2, {"seconds": 1.0, "host": object()}, stopped=False)
    (trial,) = ledger.studies["grid"].get_trials()
    assert trial.state == TrialState.RUNNING
    assert "seconds" not in trial.user_attrs


# --- a disk that cannot be written


@pytest.mark.slow
def test_a_full_disk_is_the_storages_fault(open_ledger, naps):
    ledger = open_ledger()
    with ledger.storage.engine.begin() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")  # of this connection

    def fill() -> None:
        for planned in plan(seeds=20):
            finish(ledger, planned, 0.1)

    with pytest.raises(StorageFailed, match=r"database or disk is full.*make room"):
        fill()


# --- who may write


@pytest.mark.slow
def test_a_driver_that_lost_its_lock_writes_nothing(open_ledger):
    ledger, one = open_ledger(), plan()[0]
    row = ledger.begin(one, 1, SPANS)

    def taken() -> None:
        raise Refused("another driver took over")

    ledger.storage.guard = taken
    for write in (
        lambda: ledger.begin(one, 2, SPANS),
        lambda: ledger.finish(row, 0.2, facts(0.2), stopped=False),
        lambda: ledger.fail(row, "why", {}),
        ledger.close_interrupted,
    ):
        with pytest.raises(Refused, match="took over"):
            write()
    open_ledger().close_interrupted()
    with pytest.raises(Refused, match="took over"):  # not Optuna's "already finished"
        row.report(0.1, 1)


# --- passwords


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:////runs/ledger.db", "sqlite:////runs/ledger.db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://me:S3CRET@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("postgresql+psycopg://me:S3CRET@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql://:S3CRET@host/db", "postgresql://:***@host/db"),
        ("mysql://me:S3@CRET@host/db", "mysql://me:***@host/db"),
        ("mysql://me:S3/CR:ET?@host/db", "mysql://me:***@host/db"),
        ("--storage=postgresql://me:S3CRET@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://me@host/db?password=S3CRET", "postgresql://me@host/db?password=***"),
        (
            "postgresql:///db?host=h&user=me&password=S3CRET&sslmode=require",
            "postgresql:///db?host=h&user=me&password=***&sslmode=require",
        ),
        ("mysql://h/db?Passwd=S3CRET&charset=utf8", "mysql://h/db?Passwd=***&charset=utf8"),
        ("postgresql://h/db?sslpassword=S3CRET", "postgresql://h/db?sslpassword=***"),
        (
            "postgresql://me:S3CRET@h/db?password=S3CRET&passfile=x",
            "postgresql://me:***@h/db?password=***&passfile=***",
        ),
        ("model.alpha=[0.1, 0.2]", "model.alpha=[0.1, 0.2]"),
    ],
)
def test_a_password_is_never_shown(url, shown):
    assert without_password(url) == shown
    assert "S3" not in shown

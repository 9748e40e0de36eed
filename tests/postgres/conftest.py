"""A PostgreSQL server of our own: Debian's, in a temporary folder, on a loopback port."""

import functools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from mmrec.study.ledger import Ledger

PASSWORD = "S3CRET{x}%41"
QUOTED = "S3CRET%7Bx%7D%2541"
"""As in a URL. Braces and percent signs are what those who read URLs stumble on."""


class Server:
    """One that may be stopped and started; it asks for a password."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", inside: tuple[str, ...] = ()) -> None:
        """Lay it out; `inside` is what runs a command in the network of `host`."""
        self.folder, self.host, self.before = folder, host, inside
        folder.chmod(0o755)
        if os.getuid() == 0:  # as whom initdb refuses to run
            self.before += ("runuser", "-u", "postgres", "--")
            shutil.chown(folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        self._run(
            "initdb", "--username=me", "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8",
            f"--pwfile={folder / 'password'}",
        )  # fmt: skip

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [*self.before, str(programs() / program), "-D", str(self.folder / "data"), *words],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # a pipe would stay open as long as the server
            stderr=subprocess.DEVNULL,
            check=False,
            timeout=60,
        )
        log = self.folder / "log"
        assert done.returncode == 0, log.read_text() if log.exists() else f"{program} failed"

    def start(self) -> None:
        own = [f"port={self.port}", f"listen_addresses={self.host}", "fsync=off"]
        own.append(f"unix_socket_directories={self.folder}")
        words = " ".join(f"-c {setting}" for setting in own)
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", words)

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def database(self, name: str) -> str:
        """The URL of a new database."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://me:{QUOTED}@{self.host}:{self.port}/{name}"


@functools.cache
def programs() -> Path:
    """The newest folder with all that a server needs; a lone `postgres` on PATH is not enough."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: -int(p.parts[-2]))
    on_path = shutil.which("initdb")
    folders = [*found, Path(on_path).resolve().parent] if on_path else found
    needed = ("initdb", "pg_ctl", "postgres")
    whole = [f for f in folders if all((f / name).exists() for name in needed)]
    if not whole:
        pytest.skip("no PostgreSQL server on this machine: apt-get install postgresql")
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return whole[0]


@pytest.fixture(scope="session")
def _server() -> Iterator[Server]:
    programs()
    with tempfile.TemporaryDirectory(prefix="mmrec-pg-", ignore_cleanup_errors=True) as folder:
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def server(_server: Server) -> Server:
    """The session's server, and up."""
    return _server


@pytest.fixture
def storage(server: Server, tmp_path: Path) -> str:
    """An empty database of this test's own."""
    return server.database(f"{tmp_path.parent.name}-{tmp_path.name}"[-63:])


@pytest.fixture
def open_ledger(storage: str) -> Callable[..., Ledger]:
    """As for SQLite: opens the test's ledger, each time as a new driver would."""
    return lambda name="made_up": Ledger(storage, name)

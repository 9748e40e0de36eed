"""`mmrec dashboard`: what it shows, where it listens, and that nothing is changed through it."""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest
import sqlalchemy

from mmrec.cli_dashboard import guarded, only_read
from mmrec.study.ledger import Ledger

NAME = "made_up/00ff/full"
COMMAND = "import sys; from mmrec.cli import mmrec_command; sys.exit(mmrec_command())"


def application(environ, start):
    start("200 OK", [])
    return [b"the page"]


@pytest.mark.parametrize(
    ("method", "host", "status"),
    [
        ("GET", "127.0.0.1:8080", "200"),
        ("GET", "localhost:8080", "200"),
        ("HEAD", "127.0.0.1:8080", "200"),
        ("POST", "127.0.0.1:8080", "405"),
        ("DELETE", "127.0.0.1:8080", "405"),
        ("PUT", "localhost:8080", "405"),
        ("GET", "evil.example:8080", "403"),
        ("GET", "127.0.0.1.evil.example:8080", "403"),
        ("GET", "", "403"),
    ],
)
def test_only_looking_and_only_from_here(method, host, status):
    said = []
    environ = {"REQUEST_METHOD": method, "HTTP_HOST": host}
    body = b"".join(guarded(application)(environ, lambda line, _: said.append(line)))
    assert said[0].startswith(status)
    assert (body == b"the page") == (status == "200")


@pytest.mark.slow
def test_the_database_itself_refuses_to_write(open_ledger_file):
    ledger = Ledger(f"sqlite:///{open_ledger_file}", NAME, make=False)
    only_read(ledger.storage.engine)
    with (
        pytest.raises(sqlalchemy.exc.OperationalError, match="readonly database"),
        ledger.storage.engine.begin() as connection,
    ):
        connection.exec_driver_sql("DELETE FROM studies")
    assert len(optuna.get_all_study_names(ledger.storage)) == 2


@pytest.fixture
def open_ledger_file(tmp_path: Path) -> Path:
    """A ledger with a done trial, in a run folder."""
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db", NAME)
    study = ledger.studies["grid"]
    trial = study.ask(
        fixed_distributions={"model.alpha": optuna.distributions.FloatDistribution(0, 1)}
    )
    study.tell(trial, 0.25)
    ledger.storage.engine.dispose()
    manifest = {"ledger": NAME, "storage": "sqlite in the run folder", "study": "made_up"}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    return tmp_path / "ledger.db"


@pytest.fixture
def served(open_ledger_file) -> Iterator[tuple[str, subprocess.Popen]]:
    """The command as a user gives it, and its address."""
    run = str(open_ledger_file.parent)
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, "dashboard", run, "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    ) as process:
        try:
            assert process.stderr is not None
            words = process.stderr.readline()
            found = re.match(r"(http://127\.0\.0\.1:\d+)/ shows the ledger", words)
            assert found, words + process.stderr.read()
            yield found[1], process
        finally:
            process.kill()


def ask(url: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    data = b"{}" if method in ("POST", "PUT") else None
    request = urllib.request.Request(url, method=method, data=data, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.slow
def test_it_shows_the_studies_listens_here_alone_and_changes_nothing(served, open_ledger_file):
    url, process = served
    status, body = ask(f"{url}/api/studies")
    studies = {s["study_name"]: s["study_id"] for s in json.loads(body)["study_summaries"]}
    assert status == 200
    assert sorted(studies) == [f"{NAME}/grid", f"{NAME}/search"]
    one = f"{url}/api/studies/{studies[f'{NAME}/grid']}"
    _, body = ask(one)
    assert [trial["values"] for trial in json.loads(body)["trials"]] == [[0.25]]
    assert ask(f"{url}/dashboard")[0] == 200

    listening = [c for c in psutil.Process(process.pid).net_connections() if c.status == "LISTEN"]
    assert [c.laddr.ip for c in listening] == ["127.0.0.1"]
    assert ask(f"{url}/api/studies", Host="evil.example:80")[0] == 403

    before = open_ledger_file.read_bytes()
    for method, address in (
        ("DELETE", one),
        ("POST", f"{one}/rename"),
        ("PUT", f"{one}/note"),
        ("POST", f"{url}/api/studies"),
        ("POST", f"{url}/api/trials/1/tell"),
    ):
        assert ask(address, method)[0] == 405
    assert open_ledger_file.read_bytes() == before


@pytest.mark.slow
def test_a_port_that_is_taken_and_a_package_that_is_missing_are_said(served, open_ledger_file):
    url, _ = served
    command = [sys.executable, "-c", COMMAND, "dashboard", str(open_ledger_file.parent)]
    port = url.rpartition(":")[2]
    taken = subprocess.run([*command, "--port", port], capture_output=True, text=True, check=False)
    assert taken.returncode == 2
    assert taken.stderr == (
        f"error: port {port} of 127.0.0.1: Address already in use; give another --port\n"
    )
    command[2] = f"import sys; sys.modules['optuna_dashboard'] = None; {COMMAND}"
    missing = subprocess.run(command, capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "pip install 'mmrec[dashboard]'" in missing.stderr
    assert "Traceback" not in missing.stderr

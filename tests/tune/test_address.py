"""Which cluster is joined, from what a command line, the environment and Ray's file say."""

import socket
import threading
from pathlib import Path

import pytest

from mmrec.study.database import Refused
from mmrec.tune.address import Found, cluster_address, find, require_answer, token_source


@pytest.fixture(autouse=True)
def ray_folder(tmp_path, monkeypatch) -> Path:
    """Where `ray start` would leave its address; nothing is set from outside."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


def started_here(folder: Path, address: str) -> None:
    (folder / "ray_current_cluster").write_text(address)


def test_nothing_said_and_nothing_started_is_this_machine_alone():
    assert cluster_address(None) is None


def test_asked_before_environment_before_file(ray_folder, monkeypatch):
    started_here(ray_folder, "10.0.0.3:6379\n")
    assert cluster_address(None) == cluster_address("auto") == "10.0.0.3:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert cluster_address(None) == cluster_address("auto") == "10.0.0.2:6379"
    assert cluster_address("10.0.0.1:6379") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert cluster_address(None) == "10.0.0.3:6379"


def test_local_means_this_machine_wherever_it_is_said(ray_folder, monkeypatch):
    started_here(ray_folder, "10.0.0.3:6379")
    assert cluster_address("local") is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert cluster_address(None) is None
    assert cluster_address("10.0.0.1:6379") == "10.0.0.1:6379"


def test_auto_without_a_cluster_is_refused(ray_folder):
    with pytest.raises(Refused, match="no Ray cluster was started on this machine") as refused:
        cluster_address("auto")
    assert str(ray_folder) in str(refused.value)
    assert "--address local" in str(refused.value)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("ray://head:10001", "ray submit"),
        ("http://head:8265", "ray job submit"),
        ("head", "host:port"),
        ("head:", "host:port"),
        (":6379", "host:port"),
        ("head:65536", "host:port"),
    ],
)
def test_what_is_no_address_of_a_cluster(monkeypatch, address, why):
    for source in ("--address", "RAY_ADDRESS"):
        if source == "RAY_ADDRESS":
            monkeypatch.setenv(source, address)
        with pytest.raises(Refused) as refused:
            find(address if source == "--address" else None)
        for part in (address, source, why, "--address local"):
            assert part in str(refused.value)


# --- the door


@pytest.fixture
def port():
    """Of a listener that says `greeting` to whoever speaks to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def answers(server: socket.socket, greeting: bytes) -> Found:
    def serve() -> None:
        line, _ = server.accept()
        with line:
            line.recv(64)
            line.sendall(greeting)

    threading.Thread(target=serve, daemon=True).start()
    return Found(f"127.0.0.1:{server.getsockname()[1]}", "from --address")


def test_a_head_greets_with_settings(port):
    # RFC 9113, 6.5: a frame's head is its length (3), type (4 is SETTINGS), flags, stream (4).
    require_answer(answers(port, bytes.fromhex("000006 04 00 00000000") + bytes(6)))


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 505 Version Not Supported\r\n", b""])
def test_what_is_no_head_is_refused(port, greeting):
    with pytest.raises(Refused, match="is not Ray's head"):
        require_answer(answers(port, greeting))


def test_a_cluster_that_is_gone_is_refused_with_where_its_address_stood(ray_folder):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    started_here(ray_folder, address)
    found = find(None)
    assert found is not None
    with pytest.raises(Refused, match="nothing answers") as refused:
        require_answer(found)
    for part in (address, str(ray_folder / "ray_current_cluster"), "ray stop", "--address local"):
        assert part in str(refused.value)


def test_where_the_token_is_from(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert token_source() == "/home/ann/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/etc/token")
    assert token_source() == "/etc/token, by RAY_AUTH_TOKEN_PATH"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    assert token_source() == "RAY_AUTH_TOKEN"

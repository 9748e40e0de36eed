"""Run folders in a real S3 API: what others write is seen, what fails says what is missing."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from mmrec.study import store
from mmrec.study.store import Folder, StorageFailed
from tests.s3 import s3_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def s3() -> Iterator[None]:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with s3_server("studies") as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setattr(store, "PAUSES", ())
        yield
    s3fs.S3FileSystem.clear_instance_cache()


def elsewhere(words: str) -> None:
    """Done by another process, as by another machine."""
    code = f"from mmrec.study.store import Folder\n{words}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_written_is_read_and_only_whole():
    folder = Folder.at("s3://studies/first/") / "data-00ff"
    folder.require()  # a run that is yet to be written
    assert not folder.exists()
    for content in (b"first", b"", b"a\x00longer one" * 1000):
        folder.write("trials/x/state.pt", content)
        assert folder.read("trials/x/state.pt") == content
    assert [folder.exists(name) for name in ("", "trials", "trials/x", "trials/y")] == [
        True, True, True, False,
    ]  # fmt: skip
    with pytest.raises(FileNotFoundError):
        folder.read("trials/y/state.pt")
    folder.remove("trials/x/state.pt")
    folder.remove("trials/x/state.pt")
    assert not folder.exists("trials/x/state.pt")


def test_what_another_machine_writes_is_seen_at_once():
    folder = Folder.at("s3://studies/shared")
    folder.write("trials/x/attempt", b"1")
    assert not folder.exists("trials/y/attempt")
    assert not folder.exists("trials/y")
    elsewhere(
        "folder = Folder.at('s3://studies/shared')\n"
        "folder.write('trials/x/attempt', b'22')\n"
        "folder.write('trials/y/attempt', b'3')\n"
    )
    assert folder.read("trials/x/attempt") == b"22"
    assert folder.exists("trials/y")
    assert folder.read("trials/y/attempt") == b"3"
    elsewhere("Folder.at('s3://studies/shared').remove('trials/y/attempt')")
    assert not folder.exists("trials/y/attempt")
    assert not folder.exists("trials/y")


def test_a_run_is_moved_aside_whole():
    folder = Folder.at("s3://studies/old")
    names = ["run.json", *(f"trials/{n}/{file}" for n in range(20) for file in ("a b", "state.pt"))]
    for name in names:
        folder.write(name, name.encode())
    (Folder.at("s3://studies") / "older").write("run.json", b"another's")
    aside = folder.move_aside("2026-01-01T000000")
    assert aside.address == "s3://studies/old.2026-01-01T000000"
    assert [aside.read(name) for name in names] == [name.encode() for name in names]
    assert not folder.exists()
    assert Folder.at("s3://studies/older").read("run.json") == b"another's"


def test_a_bucket_that_is_not_there_is_named():
    folder = Folder.at("s3://elsewhere/run")
    with pytest.raises(ValueError, match=r"s3://elsewhere/run: there is no bucket 'elsewhere'"):
        folder.require()
    with pytest.raises(StorageFailed, match=r"s3://elsewhere/run .*bucket does not exist"):
        folder.write("run.json", b"{}")
    assert not folder.exists("run.json")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9", "Could not connect"),
        ("AWS_ACCESS_KEY_ID", None, "Unable to locate credentials"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_and_no_trial_is_to_blame(
    monkeypatch, tmp_path, name, value, said
):
    import s3fs

    for file in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(file, str(tmp_path / file))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    folder = Folder.at("s3://studies/run")
    with pytest.raises(ValueError, match=rf"s3://studies/run: .*{said}.*right to list"):
        folder.require()
    for act in (folder.exists, lambda: folder.read("run.json"), lambda: folder.write("x", b"")):
        with pytest.raises(StorageFailed, match=f"s3://studies/run cannot be .*{said}"):
            act()
    s3fs.S3FileSystem.clear_instance_cache()

import errno
import sys
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from mmrec.study import store
from mmrec.study.store import Folder, StorageFailed, network_type


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path) -> Folder:
    """On a disk, and where there is none, as on an object store."""
    if request.param == "local":
        return Folder.at(tmp_path / "runs")
    return Folder.at(f"memory://{uuid.uuid4().hex}/runs/")


def test_what_is_written_is_read(folder):
    inner = folder / "a study" / "data-00ff"
    assert not inner.exists()
    assert not inner.exists("trials/x/state.pt")
    for content in (b"first", b"", b"a\x00longer one"):
        inner.write("trials/x/state.pt", content)
        assert inner.read("trials/x/state.pt") == content
    assert inner.exists()
    assert inner.exists("trials/x")
    assert folder.read("a study/data-00ff/trials/x/state.pt") == b"a\x00longer one"


def test_what_is_not_there_is_not_there(folder):
    with pytest.raises(FileNotFoundError):
        folder.read("run.json")
    folder.remove("run.json")
    folder.write("run.json", b"{}")
    folder.remove("run.json")
    assert not folder.exists("run.json")


def test_what_comes_late_is_seen_and_what_does_not_come_is_not(folder):
    start = time.monotonic()
    writer = threading.Timer(0.3, folder.write, ("late", b"1"))
    writer.start()
    assert folder.seen("late")
    assert 0.3 <= time.monotonic() - start < 3
    writer.join()
    assert not folder.seen("never", seconds=0.3)


def test_a_folder_may_be_an_address_and_a_path():
    relative = Folder.at("some/runs")
    assert relative.path == Path.cwd() / "some/runs"
    assert (relative / "x").address == f"{Path.cwd()}/some/runs/x"
    assert Folder.at("~/runs").path == Path.home() / "runs"
    remote = Folder.at("s3://bucket/runs/")
    assert remote.address == "s3://bucket/runs"
    assert (remote.is_local, relative.is_local) == (False, True)
    with pytest.raises(ValueError, match="s3://bucket/runs is not on a local disk"):
        assert remote.path


def parts(folder: Folder) -> list[str]:
    return sorted(file.name for file in folder.path.rglob("*") if file.is_file())


@pytest.mark.parametrize("broken", ["write_bytes", "replace"])
def test_a_write_that_is_cut_short_leaves_the_old_file_whole(monkeypatch, tmp_path, broken):
    folder = Folder.at(tmp_path)
    folder.write("state.pt", b"old and whole")
    real = Path.write_bytes

    def cut_short(self: Path, content: object) -> None:
        if broken == "write_bytes":
            real(self, b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, broken, cut_short)
    with pytest.raises(OSError, match="no space"):
        folder.write("state.pt", b"new and long")
    monkeypatch.undo()
    assert folder.read("state.pt") == b"old and whole"
    assert parts(folder) == ["state.pt"]


def test_a_reader_meets_whole_files_only(monkeypatch, tmp_path):
    folder = Folder.at(tmp_path)
    folder.write("state.pt", b"old")
    seen = []
    real = Path.replace

    def looked_at(self: Path, target: Path) -> Path:
        seen.append((folder.read("state.pt"), self.read_bytes(), self.parent == target.parent))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", looked_at)
    folder.write("state.pt", b"new")
    assert seen == [(b"old", b"new", True)]  # one rename within a folder, of a whole file
    assert folder.read("state.pt") == b"new"


def test_a_disk_that_is_full_is_not_a_file_that_is_not_there(monkeypatch, tmp_path):
    folder = Folder.at(tmp_path)

    def full(self: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFailed, match=f"{tmp_path} cannot be .*No space left.*same command"):
        folder.write("state.pt", b"new")
    assert parts(folder) == []


# --- object stores


class Far(MemoryFileSystem):
    """A store that first fails as often as it is told to."""

    protocol = "far"
    cachable = False
    errors: list[Exception] = []

    def cat_file(self, path, start=None, end=None, **kwargs):
        if Far.errors:
            raise Far.errors.pop(0)
        return b"at last"


@pytest.fixture
def far(monkeypatch) -> list[Exception]:
    fsspec.register_implementation("far", Far, clobber=True)
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(Far, "errors", [])
    return Far.errors


def test_a_store_that_does_not_answer_is_asked_again_and_then_has_failed(far):
    far += [RuntimeError("reset by peer"), TimeoutError()]
    assert Folder.at("far://bucket/run").read("x") == b"at last"
    far += [RuntimeError("reset by peer")] * 3
    with pytest.raises(StorageFailed, match=r"far://bucket/run cannot be .*reset by peer"):
        Folder.at("far://bucket/run").read("x")
    assert not far  # asked three times


def test_what_is_not_there_and_what_is_not_allowed_need_no_patience(far):
    far += [FileNotFoundError("bucket/run/x"), PermissionError("Access Denied")]
    with pytest.raises(FileNotFoundError):
        Folder.at("far://bucket/run").read("x")
    with pytest.raises(StorageFailed, match=r"far://bucket/run cannot be .*Access Denied"):
        Folder.at("far://bucket/run").read("x")
    assert Folder.at("far://bucket/run").read("x") == b"at last"


def test_an_address_that_nothing_here_can_read_says_what_would(monkeypatch):
    with pytest.raises(ValueError, match="s4://bucket/run: there is no storage 's4'"):
        Folder.at("s4://bucket/run").require()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ValueError, match=r"gs://bucket/run: .*pip install 'mmrec\[gcs\]'"):
        Folder.at("gs://bucket/run").require()


@pytest.mark.parametrize(
    "address", ["ftp://me:S3CRET@host/run", "s3://key:S3/CRET@bucket/run", "ftp://:S3CRET@host"]
)
def test_a_password_in_an_address_is_refused_and_not_told(address):
    with pytest.raises(ValueError, match="credentials belong in the environment") as raised:
        Folder.at(address)
    assert "CRET" not in str(raised.value)


def test_a_remote_run_is_moved_aside_whole():
    folder = Folder.at(f"memory://{uuid.uuid4().hex}/run")
    for name in ("run.json", "trials/x/state.pt", "trials/y/state.pt"):
        folder.write(name, name.encode())
    aside = folder.move_aside("old")
    assert aside.address == f"{folder.address}.old"
    assert aside.read("trials/y/state.pt") == b"trials/y/state.pt"
    assert aside.exists("run.json")
    assert not folder.exists("run.json")
    assert not folder.exists("trials/x")


def test_a_file_uri_is_a_local_folder(tmp_path):
    assert Folder.at(f"file://{tmp_path}/run") == Folder.at(tmp_path / "run")


# --- network file systems

MOUNTS = """\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:20 / /proc rw,nosuid shared:2 - proc proc rw
30 21 0:40 / /home rw,relatime shared:9 - nfs4 server:/home rw,vers=4.2
31 30 8:17 /fast /home/me/fast rw - xfs /dev/sdb1 rw
32 21 0:41 / /home2 rw - overlay overlay rw
33 21 0:42 / /mnt/with\\040blank rw - cifs //server/share rw
34 21 0:43 / /mnt/far rw - fuse.sshfs me@server:/ rw
35 21 0:44 / /mnt/near rw - fuse.gocryptfs /home/me/secret rw
36 21 0:45 / /mnt/s3 rw - fuse mountpoint-s3 rw
37 21 0:46 / /scratch rw master:5 propagate_from:3 - lustre 10.0.0.1@tcp:/scratch rw
38 21 8:33 / /twice rw - nfs server:/twice rw
39 38 8:34 / /twice rw - ext4 /dev/sdc rw
"""
"""As proc(5) lays it out: optional words up to the dash, blanks in octal, later mounts on top."""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", None),
        ("/data/runs", None),
        ("/home", "nfs4"),
        ("/home/me/runs/yet/to/be/made", "nfs4"),
        ("/home/me/fast/runs", None),
        ("/home/me/faster", "nfs4"),
        ("/home2/me", None),
        ("/homes", None),
        ("/mnt/with blank/runs", "cifs"),
        ("/mnt/far/runs", "fuse.sshfs"),
        ("/mnt/near/runs", None),
        ("/mnt/s3/runs", "fuse"),
        ("/scratch/me", "lustre"),
        ("/twice/runs", None),
    ],
)
def test_network_file_systems_are_known_by_their_type(path, kind):
    assert network_type(Path(path), MOUNTS) == kind


def test_this_machines_disk_and_an_object_store_are_no_network_file_system(tmp_path):
    assert Folder.at(tmp_path).on_network is None
    assert Folder.at("s3://bucket/run").on_network is None

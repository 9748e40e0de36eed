import uuid
from pathlib import Path

import pytest

from mmrec.study.store import Folder


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

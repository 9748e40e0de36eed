"""A run folder on a local disk or an object store; files are written whole or not at all."""

import uuid
from dataclasses import dataclass
from pathlib import Path

import fsspec


@dataclass(frozen=True)
class Folder:
    """A folder by its address: an absolute local path, or a URI such as `s3://bucket/run`."""

    address: str

    @classmethod
    def at(cls, address: str | Path) -> "Folder":
        """From what a user typed; a relative local path is made absolute here and now."""
        text = str(address)
        return cls(text.rstrip("/") if "://" in text else str(Path(text).expanduser().resolve()))

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine's file system."""
        return "://" not in self.address

    @property
    def path(self) -> Path:
        """The local path; ValueError where there is none."""
        if not self.is_local:
            raise ValueError(f"{self.address} is not on a local disk")
        return Path(self.address)

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.address}/{name}")

    def read(self, name: str) -> bytes:
        """A file's bytes; FileNotFoundError where there is none."""
        fs, root = self._open()
        with fs.open(f"{root}/{name}", "rb") as file:
            return file.read()  # pyright: ignore[reportReturnType] - opened as bytes

    def write(self, name: str, content: bytes) -> None:
        """Replace a file; a reader sees the old one or the new one, never a part."""
        fs, root = self._open()
        if not self.is_local:
            fs.pipe_file(f"{root}/{name}", content)  # object stores put whole objects
            return
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            temporary.write_bytes(content)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        fs, root = self._open()
        return fs.exists(f"{root}/{name}" if name else root)

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        fs, root = self._open()
        if fs.exists(f"{root}/{name}"):
            fs.rm_file(f"{root}/{name}")

    def move_aside(self, suffix: str) -> "Folder":
        """Rename the folder to `<name>.<suffix>` and return where it went."""
        aside = Folder(f"{self.address}.{suffix}")
        fs, root = self._open()
        fs.mv(root, aside._open()[1], recursive=True)
        return aside

    def _open(self) -> "tuple[fsspec.AbstractFileSystem, str]":
        return fsspec.core.url_to_fs(self.address)

"""A run folder on a local disk or an object store; files are written whole or not at all.

An object store is anything that fsspec has a client for. Its credentials come from the environment,
never from the address, which stands in reports. Several machines write there, so that no client may
remember what it once listed.
"""

import errno
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import fsspec

T = TypeVar("T")


class StorageFailed(RuntimeError):
    """The run folder or the ledger cannot be read or written; no trial is to blame."""


STORAGE_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}
)
"""What the system says of a full disk, a quota, a read-only or a lost file system."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""Protocol -> which extra of this project has its client."""

PAUSES = (1.0, 5.0, 20.0)
"""Seconds between attempts at a store that does not answer; its client tries for a while too."""

SEEN_SECONDS = 5.0
"""How long a file may take to be seen by other machines."""

_PASSWORD = re.compile(r"(?<=://)[^/@]*:.*@")


@dataclass(frozen=True)
class Folder:
    """A folder by its address: an absolute local path, or a URI such as `s3://bucket/run`."""

    address: str

    @classmethod
    def at(cls, address: str | Path) -> "Folder":
        """From what a user typed; a relative local path is made absolute here and now.

        Raises:
            ValueError: the address holds a password.
        """
        text = str(address).removeprefix("file://")
        if "://" not in text:
            return cls(str(Path(text).expanduser().resolve()))
        if _PASSWORD.search(text):
            shown = _PASSWORD.sub("***@", text)
            raise ValueError(f"{shown} holds a password: credentials belong in the environment")
        return cls(text.rstrip("/"))

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

    @property
    def on_network(self) -> str | None:
        """The type of the network file system that holds a local folder, such as `nfs4`.

        None on a disk of this machine's, and where the system does not say (no /proc). Of an object
        store too, which is no file system. SQLite cannot be on what has a type here: the locks of
        these systems fail silently, and its write-ahead log wants memory that machines share.
        """
        mounts = Path("/proc/self/mountinfo")
        if not self.is_local or not mounts.exists():
            return None
        # A name may be any bytes but a zero.
        return network_type(self.path, mounts.read_bytes().decode(errors="surrogateescape"))

    def __truediv__(self, name: str) -> "Folder":
        return Folder(f"{self.address}/{name}")

    def require(self) -> None:
        """Make sure that an object store is there for us, before anything is run.

        Raises:
            ValueError: there is no client, no bucket, or no right to list what is in it.
        """
        if self.is_local:
            return
        try:
            _once(self.address, _list)
        except StorageFailed as error:
            raise ValueError(f"{self.address}: {_said(error.__cause__)}; {_NEEDED}") from error

    def read(self, name: str) -> bytes:
        """A file's bytes; FileNotFoundError where there is none."""
        if self.is_local:
            with _in(self.address):
                return (self.path / name).read_bytes()
        # In one request: opening would ask for the size first, of what may be replaced meanwhile.
        content = self._do(lambda fs, root: fs.cat_file(f"{root}/{name}"))
        return content  # pyright: ignore[reportReturnType] - a file without an encoding

    def write(self, name: str, content: bytes) -> None:
        """Replace a file; a reader sees the old one or the new one, never a part."""
        if self.is_local:
            with _in(self.address):
                _write(self.path / name, content)
            return
        try:  # object stores put whole objects
            self._do(lambda fs, root: fs.pipe_file(f"{root}/{name}", content))
        except FileNotFoundError as error:
            raise StorageFailed(_failed(self.address, error)) from error

    def exists(self, name: str = "") -> bool:
        """Whether there is such a file or folder."""
        if self.is_local:
            with _in(self.address):
                return (self.path / name).exists()
        return self._do(lambda fs, root: bool(fs.exists(f"{root}/{name}" if name else root)))

    def seen(self, name: str, seconds: float = SEEN_SECONDS) -> bool:
        """Whether there is such a file by then: what another machine wrote may come late."""
        end = time.monotonic() + seconds
        while not self.exists(name):
            if time.monotonic() > end:
                return False
            time.sleep(0.2)
        return True

    def remove(self, name: str) -> None:
        """Delete a file if it is there."""
        if self.is_local:
            with _in(self.address):
                (self.path / name).unlink(missing_ok=True)
        elif self.exists(name):
            self._do(lambda fs, root: fs.rm_file(f"{root}/{name}"))

    def move_aside(self, suffix: str) -> "Folder":
        """Rename the folder to `<name>.<suffix>` and return where it went.

        An object store has no folders: all is copied, then all is deleted. If it ends in between,
        nothing is lost, and the next time moves what is there.
        """
        aside = Folder(f"{self.address}.{suffix}")
        if self.is_local:
            with _in(self.address):
                self.path.rename(aside.path)
            return aside
        self._do(lambda fs, root: _move(fs, root, f"{root}.{suffix}"))
        return aside

    def _do(self, what: "Callable[[fsspec.AbstractFileSystem, str], T]") -> T:
        """The result of what a client does; it is tried again while the store does not answer."""
        for pause in PAUSES:
            try:
                return _once(self.address, what)
            except StorageFailed as error:
                if _is_right(error.__cause__):
                    raise
            time.sleep(pause)
        return _once(self.address, what)


def _once(address: str, what: "Callable[[fsspec.AbstractFileSystem, str], T]") -> T:
    """One attempt. Clients raise errors of many packages, which have no class in common."""
    fs, root = _open(address)
    try:
        return what(fs, root)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise StorageFailed(_failed(address, error)) from error


def _open(address: str) -> "tuple[fsspec.AbstractFileSystem, str]":
    """The client of an address, and the address as that client wants it.

    Raises:
        ValueError: there is no such protocol, or its client is not installed.
    """
    protocol = address.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        how = f"pip install 'mmrec[{extra}]'" if extra else str(error)
        raise ValueError(f"{address}: the client of {protocol} is not installed: {how}") from error
    except ValueError as error:
        raise ValueError(
            f"{address}: there is no storage {protocol!r}; a local path, s3:// and gs:// are"
        ) from error


def _failed(address: str, error: BaseException) -> str:
    """What to tell of a storage that fails."""
    return (
        f"{address} cannot be written or read: {_said(error)}. What is done is kept; make room, or"
        " mend the storage or its credentials, and give the same command again"
    )


_NEEDED = (
    "the bucket must be there, and this machine must have the right to list, read and write it (an"
    " instance profile, or what the client's own configuration says)"
)


def _said(error: BaseException | None) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _is_right(error: BaseException | None) -> bool:
    """Whether it is a right that is missing, which no patience brings."""
    return isinstance(error, PermissionError) or "Credentials" in type(error).__name__


def _list(fs: fsspec.AbstractFileSystem, root: str) -> None:
    """List a folder, which may be yet to be written, but not the bucket."""
    try:
        fs.ls(root)
    except FileNotFoundError:
        bucket = root.partition("/")[0]
        if not fs.exists(bucket):
            raise PermissionError(f"there is no bucket {bucket!r} to be seen") from None


def _move(fs: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    files = fs.find(source)
    fs.copy(files, [target + file[len(source) :] for file in files])
    fs.rm(files)


@contextmanager
def _in(address: str) -> Iterator[None]:
    """Tell a disk that fails from a file that is not there."""
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        raise StorageFailed(_failed(address, error)) from error


def _write(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


# --- which file system a path is on

NETWORK = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs", "gfs2", "glusterfs", "gpfs",
        "lustre", "mfs", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3",
        "smbfs", "wekafs",
    }
)  # fmt: skip
"""Types of file systems that other machines may write as well."""

_LOCAL_FUSE = frozenset(
    {
        "fuse.bindfs", "fuse.cryfs", "fuse.encfs", "fuse.exfat", "fuse.fuse-overlayfs",
        "fuse.gocryptfs", "fuse.mergerfs", "fuse.ntfs-3g",
    }
)  # fmt: skip
"""FUSE makes file systems of anything, mostly of what is far; these lie on a disk."""


def network_type(path: Path, mountinfo: str) -> str | None:
    r"""The type of the network file system that holds an absolute path; None for a local one.

    Args:
        path: need not be there.
        mountinfo: as of /proc/self/mountinfo (proc(5)): the mount point is the fifth word of a line
            (blanks as \040), the type the first after ` - `; a later mount hides an earlier one.
    """
    deepest, found = 0, ""
    for line in mountinfo.splitlines():
        mount, _, kind = line.partition(" - ")
        point = Path(_unescaped(mount.split(" ")[4]))
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, found = len(point.parts), kind.split(" ")[0]
    fuse = found == "fuse" or found.startswith("fuse.")
    return found if found in NETWORK or (fuse and found not in _LOCAL_FUSE) else None


def _unescaped(word: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word)

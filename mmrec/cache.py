"""Arrays that are costly to derive, on disk under the hash of what they are derived from.

A file is written whole or not at all, so any number of processes may share the folder; deleting
it, or any file in it, costs time and nothing else. It is `~/.cache/mmrec` unless the environment
variable MMREC_CACHE names another.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray]


def folder() -> Path:
    """Where the files lie."""
    named = os.environ.get("MMREC_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "mmrec"


def cached(
    what: str, inputs: Mapping[str, NDArray | int | float | str], build: Callable[[], Arrays]
) -> Arrays:
    """What `build` returns, from disk if the same was built before.

    Args:
        what: the name of the derivation, with a number that is raised when its result changes.
        inputs: all that decides the result: arrays by content, everything else by value.
        build: returns arrays by name.

    Raises:
        ValueError: the file is damaged (the message names it).
    """
    path = folder() / f"{what}-{_key(what, inputs)}.npz"
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as stored:
                return dict(stored)
        except (BadZipFile, EOFError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete it") from error
    arrays = build()
    _write_whole(path, arrays)
    return arrays


def cached_matrix(
    what: str, inputs: Mapping[str, NDArray | int | float | str], build: Callable[[], sp.csr_array]
) -> sp.csr_array:
    """`cached` for a `build` that returns a sparse matrix."""

    def parts() -> Arrays:
        matrix = build()
        shape = np.array(matrix.shape)
        return {
            "data": matrix.data,
            "indices": matrix.indices,
            "indptr": matrix.indptr,
            "shape": shape,
        }

    found = cached(what, inputs, parts)
    rows, columns = found["shape"].tolist()
    return sp.csr_array((found["data"], found["indices"], found["indptr"]), shape=(rows, columns))


def _key(what: str, inputs: Mapping[str, Any]) -> str:
    sha = hashlib.sha256(what.encode())
    for name, value in sorted(inputs.items()):
        if isinstance(value, np.ndarray):
            sha.update(f"/{name}:{value.dtype.str}{value.shape}".encode())
            sha.update(np.ascontiguousarray(value).data)
        else:
            sha.update(f"/{name}={value!r}".encode())
    return sha.hexdigest()[:24]


def _write_whole(path: Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
        try:
            np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]
        except BaseException:
            Path(part.name).unlink()
            raise
    Path(part.name).replace(path)

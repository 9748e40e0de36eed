"""Single files, read safely: nothing is unpickled, and what cannot be read is refused by its name.

Letters in names: N rows, F columns of a feature.
"""

import csv
import json
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv

_NPY_MAGIC = b"\x93NUMPY"
_PICKLE = "it holds pickled Python objects, which could run code when read; save plain numbers"


def read_npy(path: Path) -> NDArray:
    """The array of an `.npy` file.

    Raises:
        ValueError: not an `.npy` file, cut short, or holding pickled objects.
    """
    _expect_file(path)
    with path.open("rb") as file:
        if file.read(len(_NPY_MAGIC)) != _NPY_MAGIC:
            raise ValueError(f"{path}: not an .npy file (it does not begin as one)")
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError) as error:
        raise _unreadable(path, error) from error


def read_npz(path: Path, names: Iterable[str]) -> dict[str, NDArray]:
    """The arrays `names` of an `.npz` file.

    Raises:
        ValueError: not an `.npz` file, cut short, holding pickled objects, or without a name.
    """
    _expect_file(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            lacking = sorted(set(names) - set(file.files))
            if not lacking:
                return {name: file[name] for name in names}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error
    raise ValueError(f"{path}: lacks the arrays {', '.join(lacking)}")


def read_json(path: Path) -> Any:
    """The value of a JSON file; ValueError when it is cut short or is not JSON."""
    _expect_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # covers JSONDecodeError and UnicodeDecodeError
        raise _unreadable(path, error) from error


def read_table(
    path: Path,
    required: Iterable[str],
    optional: Iterable[str] = (),
    *,
    text: Iterable[str] = (),
    separator: str = ",",
) -> tuple[pd.DataFrame, list[str]]:
    """(the named columns of a csv, tsv or parquet file, the names of its other columns).

    Columns of `text` are strings as they are in the file: an empty cell is "", "NA" is "NA".

    Raises:
        ValueError: unreadable, cut short, empty, or without a required column.
    """
    have = columns(path, separator)
    lacking = [name for name in required if name not in have]
    if lacking:
        raise ValueError(
            f"{path}: lacks the column {', '.join(map(repr, lacking))}; it has {', '.join(have)}"
        )
    wanted = [name for name in have if name in {*required, *optional}]
    as_text = [name for name in wanted if name in set(text)]
    frame = _read_columns(path, wanted, as_text, separator)
    if frame.empty:
        raise ValueError(f"{path}: holds no rows")
    return frame, [name for name in have if name not in wanted]


def columns(path: Path, separator: str = ",") -> list[str]:
    """The column names of a csv, tsv or parquet file."""
    _expect_file(path)
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, delimiter=separator), None)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if header is None:
        raise ValueError(f"{path}: the file is empty")
    return header


def _read_columns(
    path: Path, wanted: list[str], as_text: list[str], separator: str
) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            frame = pq.read_table(path, columns=wanted).to_pandas()
            return frame.assign(**{n: frame[n].fillna("").astype(str) for n in as_text})
        # Types are guessed from the first block: one block, or a late "3.5" among ratings fails.
        block = min(max(path.stat().st_size + 1, 1 << 20), (1 << 31) - 1)
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(block_size=block),
            parse_options=_parse(separator),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=wanted,
                column_types=dict.fromkeys(as_text, pa.string()),
                null_values=[""],
                strings_can_be_null=False,
            ),
        )
        return table.to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def _parse(separator: str) -> arrow_csv.ParseOptions:
    """A row with more or fewer cells than the header is an error; a quoted cell may hold lines."""
    return arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True)


def _refuse_gaps(frame: pd.DataFrame, column: str, path: Path) -> None:
    gaps = np.flatnonzero(frame[column].isna())
    if len(gaps):
        raise ValueError(
            f"{path}: {len(gaps)} rows have no {column!r} (first: data row {gaps[0]});"
            " the file may be cut short"
        )


def integers(frame: pd.DataFrame, column: str, path: Path) -> NDArray[np.int64]:
    """A column as int64.

    Raises:
        ValueError: a cell is empty or not a whole number; the message shows the first one.
    """
    series = frame[column]
    _refuse_gaps(frame, column, path)
    if not pd.api.types.is_integer_dtype(series):
        number = pd.to_numeric(series, errors="coerce")
        odd = np.flatnonzero(number.isna() | (number % 1 != 0))
        if len(odd):
            raise ValueError(
                f"{path}: column {column!r} must hold whole numbers, but data row {odd[0]} has"
                f" {series.iloc[odd[0]]!r}"
            )
        series = number
    return np.ascontiguousarray(series.to_numpy(dtype=np.int64))


def numbers(
    frame: pd.DataFrame, column: str, path: Path, *, gaps: bool = False
) -> NDArray[np.float64]:
    """A column as float64, finite; ValueError shows the first cell that is not.

    With `gaps` a cell may be empty (or a parquet NaN), and is NaN.
    """
    number = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    empty = frame[column].isna().to_numpy()
    odd = np.flatnonzero(~empty & ~np.isfinite(number) if gaps else ~np.isfinite(number) | empty)
    if len(odd):
        raise ValueError(
            f"{path}: column {column!r} must hold finite numbers, but {len(odd)} rows do not"
            f" (first: data row {odd[0]}, {frame[column].iloc[odd[0]]!r})"
        )
    return number


def strings(frame: pd.DataFrame, column: str) -> NDArray[np.object_]:
    """A text column as an array of Python strings."""
    return np.asarray(frame[column].to_numpy(dtype=object))


def listing(folder: Path) -> str:
    """What lies in a folder, for an error message."""
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "") if names else "nothing"


def contiguous_keys(values: Mapping[str, Any], path: Path) -> list[Any]:
    """The values of a JSON object whose keys are 0..n-1 in any order, by key.

    Raises:
        ValueError: it is no object, or its keys are anything else.
    """
    if not isinstance(values, dict) or not values:
        raise ValueError(f"{path}: must be a JSON object from id to list, and not empty")
    wanted = [str(number) for number in range(len(values))]
    lacking = [key for key in wanted if key not in values]
    if lacking:
        raise ValueError(
            f"{path}: the keys of {len(values)} entries must be 0..{len(values) - 1},"
            f" but {lacking[0]!r} is not there"
        )
    return [values[key] for key in wanted]


def _expect_file(path: Path) -> None:
    if not path.is_file():
        where = path.parent
        have = listing(where) if where.is_dir() else "no such folder"
        raise FileNotFoundError(f"{path}: no such file; in {where}: {have}")


def _unreadable(path: Path, error: Exception) -> ValueError:
    if "allow_pickle" in str(error) or "Object arrays" in str(error):
        return ValueError(f"{path}: refused: {_PICKLE}")
    return ValueError(f"{path}: cut short or unreadable: {type(error).__name__}: {error}")

"""Modalities made from what files hold: missing rows found, values checked, scales made alike.

Letters in names: N entities (users or items), F columns, T distinct labels, E labelled rows.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from mmrec.data.dataset import Category, Codes, Dense, Feature, Neighbours, Tags, starts_of

Scale = Literal["auto", "standard", "none"]

UNSCALED_RMS = 10.0
"""`scale="auto"` standardises a dense modality whose root mean square is beyond this."""
DEAD_COLUMN = 1e-6
"""A column whose deviation is at most this share of the median column's carries only rounding."""
SHOWN_LEVELS = 8
"""A description names so many levels of a category."""

_CODE_WORD = re.compile(r"<?(?:[A-Za-z]+_)?(\d+)>?")


def dense(values: NDArray, label: str) -> tuple[Dense, tuple[str, ...]]:
    """(modality, notes) from an (N, F) array; a row that is wholly NaN is a missing entity.

    Raises:
        ValueError: not a matrix of numbers, every row missing, or rows that are partly NaN or
            hold infinities (the message counts them).
    """
    if values.ndim != 2 or values.shape[1] == 0 or values.dtype.kind not in "fiu":
        raise ValueError(
            f"modality {label!r}: expected an (N, F) array of numbers, got shape {values.shape}"
            f" of {values.dtype}"
        )
    with np.errstate(over="ignore"):  # too large for float32 becomes inf, refused below
        values_NF = np.array(values, dtype=np.float32, order="C")
    finite = np.asarray(np.isfinite(values_NF).all(axis=1))
    missing = np.asarray(np.isnan(values_NF).all(axis=1))
    refused = np.flatnonzero(~finite & ~missing)
    if len(refused):
        raise ValueError(
            f"modality {label!r}: {len(refused)} rows are partly NaN or hold infinities"
            f" (first: row {refused[0]}); a missing entity is a row that is wholly NaN"
        )
    if missing.all():
        raise ValueError(f"modality {label!r}: all {len(values_NF)} rows are missing")
    if not missing.any():
        return Dense(~missing, values_NF), ()
    values_NF[missing] = 0
    note = f"{label}: {int(missing.sum())} of {len(missing)} rows are NaN, taken as missing"
    return Dense(~missing, values_NF), (note,)


def rescaled(feature: Dense, label: str, scale: Scale) -> tuple[Dense, tuple[str, ...]]:
    """(modality, notes) with comparable columns.

    `standard` gives each column mean 0 and deviation 1 over the present rows; `auto` does so only
    when the root mean square of all present entries exceeds `UNSCALED_RMS`, for such a modality
    would drown every other; `none` never. Columns whose deviation is at most `DEAD_COLUMN` of the
    median column's are set to 0: divided by it, they would be blown-up rounding. Missing rows
    stay 0.
    """
    if scale not in ("auto", "standard", "none"):
        raise ValueError(f"scale must be auto, standard or none, got {scale!r}")
    here_NF = feature.values[feature.present]
    rms = float(np.sqrt(np.mean(np.square(here_NF, dtype=np.float64))))
    if scale == "none" or (scale == "auto" and rms <= UNSCALED_RMS):
        return feature, ()
    centred_NF = here_NF - here_NF.mean(axis=0, dtype=np.float64)
    deviation_F = np.sqrt(np.mean(np.square(centred_NF), axis=0))
    dead_F = deviation_F <= DEAD_COLUMN * np.median(deviation_F)
    centred_NF /= np.where(dead_F, 1.0, deviation_F)
    centred_NF[:, dead_F] = 0
    values_NF = np.zeros_like(feature.values)
    values_NF[feature.present] = centred_NF
    note = f"{label}: columns standardised (root mean square was {rms:.4g})"
    if dead_F.any():
        note += f", {int(dead_F.sum())} of {len(dead_F)} columns without variation set to 0"
    return Dense(feature.present, values_NF), (note,)


def tags(row_E: NDArray[np.int64], label_E: NDArray[np.object_], count: int, what: str) -> Tags:
    """Label sets from (row, label) pairs in any order; a row without a label is missing.

    Raises:
        ValueError: a row outside 0..count-1, or not one label.
    """
    within(row_E, count, what)
    if not len(row_E):
        raise ValueError(f"modality {what!r}: not one row has a label")
    names_T, id_E = _levels(label_E)
    key_E = np.unique(row_E * len(names_T) + id_E)
    row_E, id_E = np.divmod(key_E, len(names_T))
    per_row = np.bincount(row_E, minlength=count)
    return Tags(per_row > 0, starts_of(per_row), id_E, names_T)


def category(
    row_E: NDArray[np.int64], label_E: NDArray[np.object_], count: int, what: str
) -> Category:
    """One level an entity from (row, level) pairs; an empty level or no pair means missing.

    Numbers are levels like any other word: 24 and 25 are as far apart as 24 and 60.

    Raises:
        ValueError: a row outside 0..count-1 or given twice, or not one level.
    """
    _once(row_E, count, what)
    filled = label_E != ""
    if not filled.any():
        raise ValueError(f"modality {what!r}: not one row has a level")
    names, id_E = _levels(label_E[filled])
    codes, present = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
    codes[row_E[filled]], present[row_E[filled]] = id_E, True
    return Category(present, codes, names)


def number(row_E: NDArray[np.int64], value_E: NDArray[np.floating], count: int, what: str) -> Dense:
    """One number an entity, such as an age, as a column scaled to [0, 1]; NaN or no pair: missing.

    The least number is 0 and the greatest 1 (the paper on SiBraR scales an age so); a column of
    years would drown the other modalities.

    Raises:
        ValueError: a row outside 0..count-1 or given twice, or not two different numbers.
    """
    _once(row_E, count, what)
    filled = ~np.isnan(value_E)
    row_E, value_E = row_E[filled], value_E[filled]
    if not len(value_E):
        raise ValueError(f"modality {what!r}: not one row has a number")
    low, high = value_E.min(), value_E.max()
    if low == high:
        raise ValueError(f"modality {what!r}: all {len(value_E)} numbers are {low:g}: no variation")
    present, values_N1 = np.zeros(count, dtype=np.bool_), np.zeros((count, 1), dtype=np.float32)
    present[row_E], values_N1[row_E, 0] = True, (value_E - low) / (high - low)
    return Dense(present, values_N1)


def codes(words: Sequence[Any], count: int, what: str) -> tuple[Codes, tuple[str, ...]]:
    """(modality, notes) from one list of code words an item: 17, "17", "a_17" or "<a_17>".

    A level's size is its largest code plus one. Items that share all their codes are counted.

    Raises:
        ValueError: not `count` lists of one length, or a word that is no code.
    """
    if len(words) != count:
        raise ValueError(f"modality {what!r}: codes of {len(words)} items, but there are {count}")
    lengths = {len(word) if isinstance(word, list) else 0 for word in words}
    if len(lengths) != 1 or lengths == {0}:
        raise ValueError(
            f"modality {what!r}: every item needs a list of codes of one length, got lengths"
            f" {sorted(lengths)}"
        )
    found = [[_CODE_WORD.fullmatch(str(code)) for code in word] for word in words]
    for item, matches in enumerate(found):
        if None in matches:
            odd = words[item][matches.index(None)]
            raise ValueError(f"modality {what!r}: item {item} has {odd!r}, which is no code")
    values = np.array([[int(m[1]) for m in row if m] for row in found], dtype=np.int64)
    sizes = tuple(int(size) for size in values.max(axis=0) + 1)
    feature = Codes(np.ones(count, dtype=np.bool_), values, sizes)
    distinct = len(np.unique(values, axis=0))
    if distinct == count:
        return feature, ()
    return feature, (f"{what}: {count} items share {distinct} distinct codes",)


def neighbours(
    arrays: dict[str, NDArray], count: int, what: str
) -> tuple[Neighbours, tuple[str, ...]]:
    """(modality, notes) from the arrays `indptr indices data shape` of a CSR matrix.

    Raises:
        ValueError: not a (count, count) matrix, or arrays that do not fit one another.
    """
    shape = tuple(int(side) for side in arrays["shape"])
    if shape != (count, count):
        raise ValueError(f"modality {what!r}: a graph of shape {shape}, but there are {count} rows")
    starts = arrays["indptr"].astype(np.int64)
    ids, weights = arrays["indices"].astype(np.int64), arrays["data"].astype(np.float32)
    fits = len(starts) == count + 1 and starts[0] == 0 and bool((np.diff(starts) >= 0).all())
    if not fits or not starts[-1] == len(ids) == len(weights) or not np.isfinite(weights).all():
        raise ValueError(f"modality {what!r}: indptr, indices and data do not make a CSR matrix")
    within(ids, count, what)
    own = int((ids == np.repeat(np.arange(count), np.diff(starts))).sum())
    note = f"{what}: {own} rows of the graph name themselves as a neighbour, kept"
    return Neighbours(np.diff(starts) > 0, starts, ids, weights), ((note,) if own else ())


def described(feature: Feature) -> str:
    """What a modality holds, in a line: `category, 2 levels (F, M), 40 of 40 present (100 %)`."""
    match feature:
        case Dense():
            holds = _counted(feature.values.shape[1], "column")
        case Tags():
            mean = len(feature.ids) / max(1, int(feature.present.sum()))
            holds = f"{_counted(len(feature.names), 'tag')}, {mean:.3g} each"
        case Category():
            shown = ", ".join(feature.names[:SHOWN_LEVELS])
            more = ", ..." if len(feature.names) > SHOWN_LEVELS else ""
            holds = f"{_counted(len(feature.names), 'level')} ({shown}{more})"
        case Codes():
            holds = f"code books of {', '.join(map(str, feature.sizes))}"
        case Neighbours():
            holds = _counted(len(feature.ids), "edge")
        case _:
            raise TypeError(f"a {type(feature).__name__} cannot be described")
    there = int(feature.present.sum())
    share = f"{100 * there / len(feature):.3g} %"
    return f"{feature.kind}, {holds}, {there} of {len(feature)} present ({share})"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def take(feature: Feature, rows: NDArray[np.int64]) -> Feature:
    """The modality of a subset of entities, row n being `rows[n]` of the old one.

    A graph keeps the edges between those that stay.
    """
    present = feature.present[rows]
    match feature:
        case Dense():
            return Dense(present, feature.values[rows])
        case Category():
            return Category(present, feature.codes[rows], feature.names)
        case Codes():
            return Codes(present, feature.codes[rows], feature.sizes)
        case Tags():
            ones = np.ones(len(feature.ids), dtype=np.int8)
            shape = (len(feature), len(feature.names))
            kept = sparse.csr_array((ones, feature.ids, feature.starts), shape=shape)[rows]
            kept.sort_indices()
            starts, ids = kept.indptr.astype(np.int64), kept.indices.astype(np.int64)
            return Tags(present, starts, ids, feature.names)
        case Neighbours():
            shape = (len(feature), len(feature))
            graph = sparse.csr_array((feature.weights, feature.ids, feature.starts), shape=shape)
            graph = graph[rows][:, rows]
            starts, ids = graph.indptr.astype(np.int64), graph.indices.astype(np.int64)
            return Neighbours(np.diff(starts) > 0, starts, ids, graph.data.astype(np.float32))
        case _:
            raise TypeError(f"rows of a {type(feature).__name__} cannot be taken")


def within(ids: NDArray[np.int64], count: int, what: str) -> None:
    """ValueError, with the count and an example, when an id is outside 0..count-1."""
    outside = np.flatnonzero((ids < 0) | (ids >= count))
    if len(outside):
        raise ValueError(
            f"{what!r}: {len(outside)} ids are outside 0..{count - 1} (first: {ids[outside[0]]})"
        )


def _once(row_E: NDArray[np.int64], count: int, what: str) -> None:
    within(row_E, count, what)
    times = np.bincount(row_E, minlength=count)
    if times.max(initial=0) > 1:
        raise ValueError(f"modality {what!r}: row {int(times.argmax())} is given more than once")


def _levels(label_E: NDArray[np.object_]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(the distinct labels in alphabetical order, the number of each row's label)."""
    id_E, names = pd.factorize(label_E, sort=True)
    return tuple(str(name) for name in names), id_E.astype(np.int64)

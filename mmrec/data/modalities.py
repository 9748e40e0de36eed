"""Modality files: one file to one modality, or, for a table of attributes, to several.

Letters in names: E rows of a table, N entities.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from mmrec.data import features, files
from mmrec.data.dataset import Feature

Kind = Literal["dense", "number", "tags", "category", "codes", "graph"]
Side = Literal["item", "user"]
Found = tuple[Mapping[str, Feature], tuple[str, ...]]
"""(modalities by name, notes)."""

MANY_LEVELS = 30
"""A category of more levels than this, all of them numbers, is likely to be meant as a number."""


def read_kind(kind: Kind, path: Path, name: str, count: int) -> Found:
    """The modality `name` of `count` entities from a file of a stated kind.

    Tables have the columns `id` and, for tags, `tag`, for a category, `level`, for a number,
    `value`.
    """
    match kind:
        case "dense":
            return read_dense(path, name, count)
        case "codes":
            return read_codes(path, name, count)
        case "graph":
            return read_graph(path, name, count)
        case "tags":
            return read_tags(path, name, count, "id", "tag")
        case "number":
            frame, _ = files.read_table(path, ("id", "value"))
            row_E = files.integers(frame, "id", path)
            value_E = files.numbers(frame, "value", path, gaps=True)
            return {name: features.number(row_E, value_E, count, name)}, ()
        case "category":
            frame, _ = files.read_table(path, ("id", "level"), text=("level",))
            row_E, level_E = files.integers(frame, "id", path), files.strings(frame, "level")
            return {name: features.category(row_E, level_E, count, name)}, ()


def read_side_file(path: Path, side: Side, count: int) -> Found:
    """What a file's name promises of a side's entities; nothing, where it promises nothing."""
    if path.name == f"{side}_tags.csv":
        return read_tags(path, "tags", count, f"{side}ID", "tag")
    if path.name == f"{side}_features.csv":
        return read_categories(path, count, f"{side}ID")
    if path.name == f"{side}_numbers.csv":
        return read_numbers(path, count, f"{side}ID")
    if side == "item" and path.name == "item_text.csv":
        return read_genres(path, count)
    for pattern, label, read in _PATTERNS[side]:
        found = re.fullmatch(pattern, path.name)
        if found:
            return read(path, label.format(found[1]), count)
    return {}, ()


def read_dense(path: Path, name: str, count: int) -> Found:
    """An `.npy` matrix, row = id."""
    values = files.read_npy(path)
    if values.ndim and len(values) != count:
        raise ValueError(
            f"{path}: {len(values)} rows, but the interactions and their ids make {count}:"
            " row n must be the feature of id n"
        )
    feature, notes = features.dense(values, name)
    return {name: feature}, notes


def read_codes(path: Path, name: str, count: int) -> Found:
    """A JSON object from id to a list of code words."""
    words = files.contiguous_keys(files.read_json(path), path)
    feature, notes = features.codes(words, count, name)
    return {name: feature}, notes


def read_graph(path: Path, name: str, count: int) -> Found:
    """The arrays of a scipy CSR matrix."""
    arrays = files.read_npz(path, ("indptr", "indices", "data", "shape"))
    feature, notes = features.neighbours(arrays, count, name)
    return {name: feature}, notes


def read_tags(path: Path, name: str, count: int, id_column: str, tag_column: str) -> Found:
    """A table of one row an (id, tag) pair."""
    frame, _ = files.read_table(path, (id_column, tag_column), text=(tag_column,))
    row_E, tag_E = files.integers(frame, id_column, path), files.strings(frame, tag_column)
    if (tag_E == "").any():
        raise ValueError(f"{path}: {int((tag_E == '').sum())} rows have an empty {tag_column!r}")
    return {name: features.tags(row_E, tag_E, count, name)}, ()


def read_genres(path: Path, count: int) -> Found:
    """The column `genres` of a table of item texts, "Drama|Comedy"; nothing without it."""
    if "genres" not in files.columns(path):
        return {}, ()
    frame, _ = files.read_table(path, ("itemID", "genres"), text=("genres",))
    row_E = files.integers(frame, "itemID", path)
    lists = [text.split("|") if text else [] for text in files.strings(frame, "genres")]
    row_E = np.repeat(row_E, [len(genres) for genres in lists])
    genre_E = np.array([genre for genres in lists for genre in genres], dtype=object)
    return {"genres": features.tags(row_E, genre_E, count, "genres")}, ()


def read_categories(path: Path, count: int, id_column: str) -> Found:
    """Every further column of a table, each as a category of its own values."""
    names = [name for name in files.columns(path) if name != id_column]
    frame, _ = files.read_table(path, (id_column,), names, text=names)
    row_E = files.integers(frame, id_column, path)
    found, notes = {}, []
    for name in names:
        found[name] = features.category(row_E, files.strings(frame, name), count, name)
        levels = found[name].names
        if len(levels) > MANY_LEVELS and all(re.fullmatch(r"-?\d+(\.\d+)?", x) for x in levels):
            instead = path.name.replace("features", "numbers")
            notes.append(
                f"{name}: {len(levels)} levels, all of them numbers, taken as a category;"
                f" {instead} would make it a number"
            )
    return found, tuple(notes)


def read_numbers(path: Path, count: int, id_column: str) -> Found:
    """Every further column of a table, each as a number scaled to [0, 1]; empty is missing."""
    names = [name for name in files.columns(path) if name != id_column]
    frame, _ = files.read_table(path, (id_column,), names)
    row_E = files.integers(frame, id_column, path)
    return {
        name: features.number(row_E, files.numbers(frame, name, path, gaps=True), count, name)
        for name in names
    }, ()


_PATTERNS: Mapping[Side, tuple[tuple[str, str, Callable[[Path, str, int], Found]], ...]] = {
    "item": (
        (r"(.+)(?<!_user)_feat\.npy", "{}", read_dense),
        (r"semantic_ids_(.+)\.json", "{}_codes", read_codes),
        (r"(.+)_knn\d+\.npz", "{}", read_graph),
    ),
    "user": ((r"(.+)_user_feat\.npy", "{}", read_dense),),
}
"""(file name, name of the modality, how it is read)."""

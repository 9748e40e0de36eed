"""Folders on disk, as they are: the MMRec toolbox's format, sequence files, and a manifest.

Ids are whole numbers from 0. Which of three kinds a folder is, its files say:

  manifest.json   names everything itself; see `mmrec.data.manifest`.
  NAME.inter      tab-separated `userID itemID`, and optionally `x_label` (0 train, 1 valid,
                  2 test), `rating`, `timestamp` (rows of a user are put in order of time).
  sequences.json  {"0": [items of user 0 in order of time], ...}.

Beside the last two, these files are modalities of items (X is any name):

  X_feat.npy           dense X, row = item id; a row that is wholly NaN is a missing item
  item_tags.csv        tags `tags`: itemID, tag, one row a pair (a `count` is not used)
  item_text.csv        tags `genres`: itemID, genres separated by "|" (texts are not used)
  item_features.csv    itemID, and one category a further column; an empty cell is missing, and
                       numbers are levels like any other
  item_numbers.csv     itemID, and one number a further column, scaled to [0, 1] from the least to
                       the greatest; an empty cell is missing
  semantic_ids_X.json  codes `X_codes`: {"0": ["<a_17>", ...], ...}
  X_knnK.npz           graph `X`: the arrays of a scipy CSR matrix

and these of users: `X_user_feat.npy`, `user_tags.csv`, `user_features.csv` and `user_numbers.csv`,
with userID. So an age in years belongs into `user_numbers.csv`, and a code such as 25 for "25 to
34" into `user_features.csv`.

What else lies in a folder is left alone, and a note says so.

Letters in names: E interactions.
"""

import dataclasses
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmrec.data import files
from mmrec.data.checks import check_features, check_ids, check_unique
from mmrec.data.dataset import Feature
from mmrec.data.manifest import MANIFEST, PARTS, FeatureFile, read_manifest
from mmrec.data.modalities import Side, read_kind, read_side_file
from mmrec.data.raw import Raw

SEQUENCES = "sequences.json"
MAX_SPARSITY = 10
"""Ids beyond so many times the number of distinct ones are no numbering from 0."""


def read_folder(folder: Path) -> Raw:
    """The interactions and modalities of a folder, of whichever kind it is, checked.

    Raises:
        FileNotFoundError: there is no such folder, or it is of no known kind.
        ValueError: a file is unreadable or does not fit the rest; the message names it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    inter = sorted(folder.glob("*.inter"))
    if len(inter) > 1:
        names = ", ".join(path.name for path in inter)
        raise ValueError(f"{folder}: more than one dataset in a folder: {names}")
    if (folder / MANIFEST).exists():
        raw = _read_by_manifest(folder)
    elif inter:
        raw = _read_inter(inter[0])
    elif (folder / SEQUENCES).exists():
        raw = _read_sequences(folder / SEQUENCES)
    else:
        raise FileNotFoundError(
            f"{folder}: looked for {MANIFEST}, NAME.inter or {SEQUENCES}, and found"
            f" {files.listing(folder)}"
        )
    check_ids(raw.pairs, raw.num_users, raw.num_items, raw.name)
    check_unique(raw.pairs, raw.num_items, raw.name)
    check_features(raw.features, raw.num_items, "items")
    check_features(raw.user_features, raw.num_users, "users")
    return raw


def _read_inter(path: Path) -> Raw:
    optional = ("x_label", "rating", "timestamp")
    frame, unused = files.read_table(path, ("userID", "itemID"), optional, separator="\t")
    return _with_files_beside(_interactions(path.stem, path, frame), path, unused)


def _interactions(name: str, path: Path, frame: pd.DataFrame) -> Raw:
    """From the columns userID and itemID, and x_label, rating and timestamp where there."""
    pairs = np.stack([files.integers(frame, key, path) for key in ("userID", "itemID")], axis=1)
    label = files.integers(frame, "x_label", path) if "x_label" in frame else None
    rating = files.numbers(frame, "rating", path) if "rating" in frame else None
    if label is not None and not np.isin(label, (0, 1, 2)).all():
        odd = sorted({int(value) for value in label} - {0, 1, 2})
        raise ValueError(f"{path}: x_label must be 0, 1 or 2 (train, valid, test), found {odd}")
    if "timestamp" in frame:
        order = np.lexsort((files.numbers(frame, "timestamp", path), pairs[:, 0]))
        pairs = pairs[order]
        label = None if label is None else label[order]
        rating = None if rating is None else rating[order]
    return Raw(
        name,
        _count(pairs[:, 0], "user", path),
        _count(pairs[:, 1], "item", path),
        pairs,
        label=label,
        rating=rating,
        ordered="timestamp" in frame,
        default_split="random" if label is None else "given",
    )


def _count(ids: NDArray[np.int64], entity: str, path: Path) -> int:
    """One more than the largest id; ValueError when that cannot be a count, as of raw shop ids."""
    largest, distinct = int(ids.max()), len(pd.unique(ids))
    if largest >= MAX_SPARSITY * distinct and largest >= 1000:
        raise ValueError(
            f"{path}: the largest {entity} id is {largest}, but only {distinct} distinct ones"
            f" occur: number {entity}s from 0 without large gaps"
        )
    return largest + 1


def _read_sequences(path: Path) -> Raw:
    sequences = files.contiguous_keys(files.read_json(path), path)
    if not all(isinstance(row, list) and all(type(i) is int for i in row) for row in sequences):
        raise ValueError(f"{path}: every user needs a list of whole numbers")
    user_E = np.repeat(np.arange(len(sequences)), [len(row) for row in sequences])
    item_E = np.fromiter(chain.from_iterable(sequences), dtype=np.int64, count=len(user_E))
    if not len(item_E):
        raise ValueError(f"{path}: holds no interaction")
    raw = Raw(
        path.parent.name,
        len(sequences),
        _count(item_E, "item", path),
        np.stack([user_E, item_E], axis=1),
        ordered=True,
        default_split="leave-one-out",
    )
    return _with_files_beside(raw, path, [])


def _with_files_beside(raw: Raw, interactions: Path, unused: list[str]) -> Raw:
    """`raw` with the modality files of its folder; `unused` columns join the closing note."""
    found: dict[str, dict[str, Feature]] = {"item": {}, "user": {}}
    counts: dict[Side, int] = {"item": raw.num_items, "user": raw.num_users}
    notes, unused = list(raw.notes), list(unused)
    for path in sorted(interactions.parent.iterdir()):
        if path == interactions:
            continue
        of_sides = {side: read_side_file(path, side, count) for side, count in counts.items()}
        if not any(more for more, _ in of_sides.values()):
            unused.append(path.name)
        for side, (more, said) in of_sides.items():
            for name in more.keys() & found[side].keys():
                raise ValueError(f"{path}: a second file for the modality {name!r}")
            found[side] |= more
            notes += said
    if unused:
        notes.append(f"not used: {', '.join(unused)}")
    return dataclasses.replace(
        raw, features=found["item"], user_features=found["user"], notes=tuple(notes)
    )


def _read_by_manifest(folder: Path) -> Raw:
    manifest = read_manifest(folder)
    path = folder / manifest.interactions
    optional = ("split", "timestamp", "rating")
    frame, unused = files.read_table(path, ("user", "item"), optional, text=("split",))
    frame = frame.rename(columns={"user": "userID", "item": "itemID"})
    if "split" in frame:
        odd = sorted({str(name) for name in frame["split"]} - PARTS.keys())
        if odd:
            raise ValueError(f"{path}: split must be train, valid or test, found {odd}")
        frame["x_label"] = frame["split"].map(PARTS)
    raw = _interactions(manifest.name or folder.name, path, frame)
    num_users = raw.num_users if manifest.num_users is None else manifest.num_users
    num_items = raw.num_items if manifest.num_items is None else manifest.num_items
    item_features, item_notes = _named(folder, manifest.features, num_items)
    user_features, user_notes = _named(folder, manifest.user_features, num_users)
    notes = [*item_notes, *user_notes]
    if unused:
        notes.append(f"not used: {', '.join(unused)}")
    return dataclasses.replace(
        raw,
        num_users=num_users,
        num_items=num_items,
        features=item_features,
        user_features=user_features,
        notes=tuple(notes),
    )


def _named(
    folder: Path, named: Mapping[str, FeatureFile], count: int
) -> tuple[dict[str, Feature], list[str]]:
    found: dict[str, Feature] = {}
    notes: list[str] = []
    for name, entry in named.items():
        feature, said = read_kind(entry.kind, folder / entry.file, name, count)
        found |= feature
        notes += said
    return found, notes

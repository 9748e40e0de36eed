"""Datasets by name: the real ones this project studies, the planted ones, or any folder."""

import dataclasses
import difflib
import os
from pathlib import Path

from mmrec.data import splits
from mmrec.data.dataset import Dataset
from mmrec.data.features import Scale
from mmrec.data.planted import BUILT_IN, Planted, planted_raw
from mmrec.data.planted_features import Modality
from mmrec.data.planted_sequences import SEQUENCES, PlantedSequences, sequences_raw
from mmrec.data.raw import Raw, Split, scaled, with_k_core, with_min_rating
from mmrec.data.readers import read_folder

ROOT_VARIABLE = "MMREC_DATA"
"""The environment variable that names the folder of the real datasets."""

SOURCES: dict[str, str] = {
    "baby": "Amazon reviews, the MMRec toolbox's split; no modalities",
    "clothing": "Amazon reviews, the MMRec toolbox's split; no modalities",
    "lfm2k": "Last.fm (HetRec 2011), split; text, tags as text, two audio tables, tags",
    "ml-1m": "MovieLens, split; plot and title texts, genres, user attributes",
    "ml-100k": "MovieLens, ratings and times; summaries with gaps, titles, genres, poster graph",
    "instruments": "Amazon reviews, sequences; semantic ids of text and image",
    "beauty": "Amazon reviews, sequences; semantic ids",
}
"""A real dataset a line: it lies under the data root in a folder of its own name."""


def load(
    name: str,
    *,
    data_root: Path | None = None,
    split: Split | None = None,
    k_core: int = 0,
    scale: Scale = "auto",
    min_rating: float | None = None,
    split_seed: int = splits.SPLIT_SEED,
) -> Dataset:
    """The dataset `name`, filtered, scaled, split, checked and read-only, in this order.

    Args:
        name: a key of `SOURCES`, of `planted.BUILT_IN` or of `planted_sequences.SEQUENCES`, or a
            path to a folder that `mmrec.data.readers` understands.
        data_root: where the real datasets lie; by default what `MMREC_DATA` names.
        split: see `mmrec.data.splits.split`; None takes the file's own labels, leave-one-out for
            sequences, else random.
        k_core: users and items with fewer interactions are removed; 0 keeps all.
        scale: of dense modalities; see `mmrec.data.features.rescaled`.
        min_rating: interactions rated lower are removed, before the k-core.
        split_seed: of the splits that draw.

    Raises:
        FileNotFoundError: no such folder; the message says what was looked for.
        ValueError: unknown name, or anything in the folder that does not fit.
    """
    raw = _raw(name, data_root)
    if min_rating is not None:
        raw = with_min_rating(raw, min_rating)
    if k_core:
        raw = with_k_core(raw, k_core)
    return splits.split(scaled(raw, scale), split, split_seed)


def available(data_root: Path | None = None) -> dict[str, str]:
    """What each dataset that can be loaded here holds, by name: planted ones, then real ones."""
    found = {name: _summary(spec) for name, spec in BUILT_IN.items()}
    found |= {name: _summary_of_sequences(spec) for name, spec in SEQUENCES.items()}
    root = data_root or _root_of_environment()
    if root is not None:
        found |= {name: holds for name, holds in SOURCES.items() if (root / name).is_dir()}
    return found


def _summary(spec: Planted) -> str:
    items, users = map(_names, (spec.modalities, spec.user_modalities))
    return f"{_sizes(spec)}; {items}" + (f"; of users {users}" if users else "")


def _summary_of_sequences(spec: PlantedSequences) -> str:
    follows = {"text": spec.follow_text, "image": spec.follow_image}
    telling = " and ".join(name for name, share in follows.items() if share > 0) or "nothing"
    return f"{_sizes(spec)} in order of time; text, image; what comes next follows from {telling}"


def _sizes(spec: Planted | PlantedSequences) -> str:
    return f"synthetic, {spec.users} users, {spec.items} items, {spec.interactions} interactions"


def _names(modalities: tuple[Modality, ...]) -> str:
    """`text, image (pure noise), genres (tags)`."""
    names = []
    for modality in modalities:
        said = [] if modality.kind == "dense" else [modality.kind]
        said += ["pure noise"] if modality.informativeness == 0 else []
        names.append(modality.name + (f" ({', '.join(said)})" if said else ""))
    return ", ".join(names)


def _raw(name: str, data_root: Path | None) -> Raw:
    if name in BUILT_IN:
        return planted_raw(BUILT_IN[name], name)
    if name in SEQUENCES:
        return sequences_raw(SEQUENCES[name], name)
    if name in SOURCES:
        return dataclasses.replace(read_folder(_folder(name, data_root)), name=name)
    path = Path(name).expanduser()
    if path.is_dir():
        return read_folder(path)
    if len(path.parts) > 1:
        raise FileNotFoundError(f"dataset {name!r}: no such folder as {path.absolute()}")
    known = [*SOURCES, *BUILT_IN, *SEQUENCES]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}, or a folder."
    raise ValueError(f"there is no dataset {name!r}; {hint}")


def _folder(name: str, data_root: Path | None) -> Path:
    root = data_root or _root_of_environment()
    if root is None:
        raise FileNotFoundError(
            f"dataset {name!r} lies in a folder of that name under the data root: name that root"
            f" by --data-root or the environment variable {ROOT_VARIABLE}"
        )
    if not (root / name).is_dir():
        have = ", ".join(sorted(available(root).keys() & SOURCES.keys())) or "no known dataset"
        raise FileNotFoundError(
            f"dataset {name!r}: looked for the folder {root / name}; under {root} there is {have}"
        )
    return root / name


def _root_of_environment() -> Path | None:
    value = os.environ.get(ROOT_VARIABLE)
    return Path(value) if value else None

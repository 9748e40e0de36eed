"""A plain folder that says itself what its files are, in `manifest.json`."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from pydantic import TypeAdapter, ValidationError

from mmrec.config import config
from mmrec.data import files
from mmrec.data.modalities import Kind

MANIFEST = "manifest.json"
PARTS = {"train": 0, "valid": 1, "test": 2}
PLAIN = re.compile(r"[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,99}")
"""What a dataset may be called: it must not lead out of the folder that --out names."""


@config
class FeatureFile:
    """One modality of a manifest."""

    file: str
    """Path from the manifest's folder."""
    kind: Kind
    """What the file holds, of items and of users alike.

    dense: `.npy`, (N, F), row = id. number: csv or parquet with columns `id` and `value`, scaled to
    [0, 1] from the least to the greatest. tags: csv or parquet with columns `id` and `tag`, one row
    a pair. category: csv or parquet with columns `id` and `level`. codes: JSON from id to a list of
    code words. graph: `.npz` with the arrays of a scipy CSR matrix. An id without a row (or, of a
    dense file, whose row is NaN) is missing.
    """


@config
class Manifest:
    """The keys of `manifest.json`; others are refused. Only `interactions` is required.

    An example:

    {"interactions": "interactions.parquet",
     "features": {"text": {"file": "text.npy", "kind": "dense"},
                  "genres": {"file": "genres.csv", "kind": "tags"}},
     "user_features": {"gender": {"file": "gender.csv", "kind": "category"},
                       "age": {"file": "age.csv", "kind": "number"}}}
    """

    interactions: str
    """A csv or parquet file with the columns `user`, `item`, and optionally `split` (train, valid
    or test), `timestamp` (a number, or a parquet datetime), `rating`. Ids are whole numbers from
    0."""
    name: str | None = None
    """The folder's name by default. Run folders are named after it: no slash, no dot in front."""
    num_users: Annotated[int, Ge(1)] | None = None
    """One more than the largest id by default; larger, where some never interact."""
    num_items: Annotated[int, Ge(1)] | None = None
    """As for users."""
    features: dict[str, FeatureFile] = dataclasses.field(default_factory=dict)
    """Item modalities by name."""
    user_features: dict[str, FeatureFile] = dataclasses.field(default_factory=dict)
    """User modalities by name."""


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder; ValueError names the key that is unknown, missing or wrong."""
    path = folder / MANIFEST
    files.read_json(path)
    try:
        manifest = TypeAdapter(Manifest).validate_json(path.read_bytes())
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        raise ValueError(f"{path}: {wrong}") from error
    if manifest.name is not None and not PLAIN.fullmatch(manifest.name):
        raise ValueError(
            f"{path}: name: a run folder is named after it, which {manifest.name!r} cannot be: no"
            " slash, no dot in front, at most 100 letters"
        )
    return manifest

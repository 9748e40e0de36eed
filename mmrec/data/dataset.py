"""What every model is given: who interacted with what, and what each item and user is like."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

Pairs = NDArray[np.int64]
"""(E, 2) user-item pairs."""

Part = Literal["valid", "test"]
"""What is ranked for."""

INTERACTIONS = "interactions"
"""What training pairs tell of an item or a user, where it stands among their modalities."""


@dataclass(frozen=True)
class Feature:
    """One modality: a row an entity, and for each entity whether the modality is there at all."""

    kind: ClassVar[str]
    present: NDArray[np.bool_]
    """(N,) False where the modality is missing; what the other arrays hold there is zero."""

    def arrays(self) -> dict[str, NDArray]:
        """Every array that makes the content, by name, `present` among them."""
        raise TypeError(f"{type(self).__name__} is not a kind of feature")

    def __len__(self) -> int:
        return len(self.present)


@dataclass(frozen=True)
class Dense(Feature):
    """Vectors, such as an image or a text embedding."""

    kind = "dense"
    values: NDArray[np.float32]
    """(N, F), finite."""

    def arrays(self) -> dict[str, NDArray]:
        return {"present": self.present, "values": self.values}


@dataclass(frozen=True)
class Tags(Feature):
    """A set of labels an entity, such as genres: row n is `ids[starts[n]:starts[n + 1]]`."""

    kind = "tags"
    starts: NDArray[np.int64]
    """(N + 1,) offsets into `ids`."""
    ids: NDArray[np.int64]
    """Distinct and sorted within a row, each in [0, num_tags)."""
    names: tuple[str, ...]
    """One a tag, in alphabetical order."""

    def arrays(self) -> dict[str, NDArray]:
        names = np.frombuffer("\n".join(self.names).encode(), dtype=np.uint8)
        return {"present": self.present, "starts": self.starts, "ids": self.ids, "names": names}


@dataclass(frozen=True)
class Category(Feature):
    """One of a few levels an entity, such as gender or occupation."""

    kind = "category"
    codes: NDArray[np.int64]
    """(N,) in [0, len(names)); 0 where missing."""
    names: tuple[str, ...]
    """One a level, in alphabetical order."""

    def arrays(self) -> dict[str, NDArray]:
        names = np.frombuffer("\n".join(self.names).encode(), dtype=np.uint8)
        return {"present": self.present, "codes": self.codes, "names": names}


@dataclass(frozen=True)
class Codes(Feature):
    """Semantic IDs: a short tuple of code words an item."""

    kind = "codes"
    codes: NDArray[np.int64]
    """(N, L), level l in [0, sizes[l])."""
    sizes: tuple[int, ...]
    """Code-book size of each level."""

    def arrays(self) -> dict[str, NDArray]:
        sizes = np.asarray(self.sizes, dtype=np.int64)
        return {"present": self.present, "codes": self.codes, "sizes": sizes}


@dataclass(frozen=True)
class Neighbours(Feature):
    """A weighted graph between entities without the vectors it came from, as CSR."""

    kind = "graph"
    starts: NDArray[np.int64]
    ids: NDArray[np.int64]
    weights: NDArray[np.float32]

    def arrays(self) -> dict[str, NDArray]:
        return {
            "present": self.present,
            "starts": self.starts,
            "ids": self.ids,
            "weights": self.weights,
        }


@dataclass(frozen=True)
class Dataset:
    """One split dataset. Its arrays are read-only numpy, so that a node can share one copy."""

    name: str
    num_users: int
    num_items: int
    train: Pairs
    """Unique pairs; kept in file order, which is the order of time where the file has one."""
    valid: Pairs
    test: Pairs
    features: Mapping[str, Feature] = field(default_factory=dict)
    """Item modalities by name, N = num_items."""
    user_features: Mapping[str, Feature] = field(default_factory=dict)
    """User modalities by name, N = num_users."""
    split: str = "given"
    """How the pairs were split: given, random, leave-one-out, cold-item or cold-user."""
    notes: tuple[str, ...] = ()
    """What a reader should know: rows missing, columns rescaled, interactions dropped."""
    condition: str = "baseline"
    """What was done to the features, in words; see `mmrec.data.conditions`."""
    ordered: bool = False
    """Whether every user's rows are in order of time: within train, and train before valid before
    test. Models of sequences need it."""
    items_known: bool = True
    """Whether a model may use what training pairs tell of the items that it scores. Without it
    they are what the items of a cold-item split are; what pairs tell of users stays."""

    @cached_property
    def digest(self) -> str:
        """16 hex digits of the content: sizes, pairs of all three parts, and every feature.

        Also whether items are known, where they are not.
        """
        sha = hashlib.sha256(f"{self.num_users} {self.num_items}".encode())
        for part in ("train", "valid", "test"):
            _feed(sha, part, {"pairs": getattr(self, part)})
        for side in ("features", "user_features"):
            for name, feature in sorted(getattr(self, side).items()):
                _feed(sha, f"{side}/{name}/{feature.kind}", feature.arrays())
        if not self.items_known:
            sha.update(b"items unknown")
        return sha.hexdigest()[:16]

    def feature(self, name: str) -> Feature:
        """The item modality `name`; KeyError says which ones there are."""
        if name not in self.features:
            have = ", ".join(sorted(self.features)) or "none"
            raise KeyError(f"dataset {self.name!r} has no modality {name!r}; it has: {have}")
        return self.features[name]

    def part(self, name: str) -> Pairs:
        """The pairs of `train`, `valid` or `test`."""
        if name not in ("train", "valid", "test"):
            raise KeyError(f"a dataset has train, valid and test, not {name!r}")
        return getattr(self, name)


def _feed(sha: "hashlib._Hash", label: str, arrays: Mapping[str, NDArray]) -> None:
    for name, array in sorted(arrays.items()):
        sha.update(f"{label}/{name}/{array.dtype.str}/{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).data)


def csr_rows(pairs: Pairs, num_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(starts, columns): the second members of `pairs` by the first, sorted within a row."""
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    starts = starts_of(np.bincount(pairs[:, 0], minlength=num_rows))
    return starts, np.ascontiguousarray(pairs[order, 1])


def starts_of(per_row: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N + 1,) offsets of rows that lie one after the other: row n is `starts[n]:starts[n + 1]`."""
    starts = np.zeros(len(per_row) + 1, dtype=np.int64)
    np.cumsum(per_row, out=starts[1:])
    return starts


def freeze(arrays: Iterable[NDArray]) -> None:
    """Make arrays read-only, in place."""
    for array in arrays:
        array.flags.writeable = False

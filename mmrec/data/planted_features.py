"""What planted modalities show of their entities' tastes: vectors, tags, categories and numbers.

Letters in names: N entities, L latent factors, F columns of a modality, E rows of a table.
"""

import dataclasses
import hashlib
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Interval
from numpy.typing import NDArray

from mmrec.config import config
from mmrec.data import features
from mmrec.data.dataset import Dense, Feature

Side = Literal["item", "user"]

_Array = NDArray[np.float64]
_GRID = 1024.0
TAG_SHARE = 0.35
"""Share of the entities that have the most frequent tag; that of the r-th is 1 / sqrt(r) of it."""


@config
class Modality:
    """What one planted modality is like."""

    name: str
    kind: Literal["dense", "tags", "category", "number"] = "dense"
    """What becomes of an entity's columns. dense: they are the vector. tags: it has the tags whose
    columns are among the highest of all entities', or else the tag that it misses by least.
    category: its level is the highest column. number: the one column, scaled to [0, 1]."""
    width: Annotated[int, Ge(1)] = 32
    """Columns of the feature table: entries of a vector, tags, or levels of a category."""
    informativeness: Annotated[float, Interval(ge=0, le=1)] = 0.85
    """Share of the modality's latent variance that is the entities' taste factors; the rest is
    something about the entities that has nothing to do with taste. 0 is pure noise."""
    noise: Annotated[float, Ge(0)] = 0.3
    """Deviation of white noise in each column; a column's latent part has deviation near 1."""
    missing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the entities without this modality, rounded down."""
    encodes: str = ""
    """The modality whose latent rows this one shows too, by a map and white noise of its own, as a
    second encoder of the same texts does; empty: it has latent rows of its own. The
    informativeness is that of those rows, so the two must agree in it."""
    kept: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Share of the latent factors that are shown at all, the first ones; rounded, at least one. A
    lossy encoder keeps few."""


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own, keyed by name."""
    key = hashlib.sha256(f"planted/{seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))


def on_grid(values: _Array) -> _Array:
    """Rounded. Machines differ in the last bits of a matrix product; on a grid digests agree."""
    return np.round(values * _GRID) / _GRID


def check_modalities(modalities: tuple[Modality, ...]) -> None:
    """ValueError when the modalities of a side do not fit one another, or one not its kind."""
    by_name = {modality.name: modality for modality in modalities}
    if len(by_name) != len(modalities):
        names = [modality.name for modality in modalities]
        raise ValueError(f"planted modalities must have distinct names, got {names}")
    own = [modality.name for modality in modalities if not modality.encodes]
    for modality in modalities:
        if modality.encodes and modality.encodes not in own:
            raise ValueError(
                f"planted modality {modality.name!r} encodes {modality.encodes!r}, which has no"
                f" latent rows of its own; there are: {', '.join(own) or 'none'}"
            )
        informed = by_name[modality.encodes or modality.name].informativeness
        if modality.informativeness != informed:
            raise ValueError(
                f"planted modality {modality.name!r} has an informativeness of"
                f" {modality.informativeness}, but that of {modality.encodes!r}, whose latent rows"
                f" it shows, is {informed}"
            )
        if modality.kind != "dense" and (modality.kind == "number") != (modality.width == 1):
            raise ValueError(
                f"planted modality {modality.name!r} of kind {modality.kind!r} has width"
                f" {modality.width}: a number has 1 column, tags and categories have 2 or more"
            )


@dataclasses.dataclass(frozen=True)
class Tastes:
    """The entities of one side and what draws their modalities."""

    taste_NL: _Array
    side: Side
    seed: int
    noise_correlation: float
    """Between modalities, of what they show beside taste."""

    def show(self, modality: Modality) -> Feature:
        """The modality of each entity; see `mmrec.data.planted.planted_raw`."""
        count, factors = self.taste_NL.shape
        own = self._stream(f"modality/{modality.name}")
        latent_NL = self._latent(modality, own)
        kept = max(1, round(modality.kept * factors))
        map_LF = own.standard_normal((kept, modality.width)) / np.sqrt(kept)
        values_NF = latent_NL[:, :kept] @ map_LF
        values_NF += modality.noise * own.standard_normal(values_NF.shape)
        values_NF = on_grid(values_NF)
        present = np.ones(count, dtype=np.bool_)
        present[own.permutation(count)[: int(modality.missing * count)]] = False
        return _of_kind(modality, values_NF, present)

    def _latent(self, modality: Modality, own: np.random.Generator) -> _Array:
        """(N, L) what a modality could show; rows of its own are the first draw of `own`."""
        source = self._stream(f"modality/{modality.encodes}") if modality.encodes else own
        shared_NL = self._stream("shared noise").standard_normal(self.taste_NL.shape)
        correlation, informed = self.noise_correlation, modality.informativeness
        beside_NL = source.standard_normal(self.taste_NL.shape) * np.sqrt(1 - correlation)
        beside_NL += shared_NL * np.sqrt(correlation)
        return np.sqrt(informed) * self.taste_NL + np.sqrt(1 - informed) * beside_NL

    def _stream(self, name: str) -> np.random.Generator:
        return stream(self.seed, name if self.side == "item" else f"user {name}")


def _of_kind(modality: Modality, values_NF: _Array, present: NDArray[np.bool_]) -> Feature:
    name, count, rows = modality.name, len(present), np.flatnonzero(present)
    match modality.kind:
        case "dense":
            values_NF[~present] = 0
            return Dense(present, values_NF.astype(np.float32))
        case "number":
            return features.number(rows, values_NF[present, 0], count, name)
        case "category":
            level_E = _names(modality)[values_NF[present].argmax(axis=1)]
            return features.category(rows, level_E, count, name)
        case "tags":
            row_E, tag_E = np.nonzero(_tagged(values_NF) & present[:, None])
            return features.tags(row_E, _names(modality)[tag_E], count, name)


def _tagged(values_NF: _Array) -> NDArray[np.bool_]:
    """(N, F) which entity has which tag, each at least one."""
    share_F = TAG_SHARE / np.sqrt(1 + np.arange(values_NF.shape[1]))
    beyond_NF = np.empty_like(values_NF)
    for f, share in enumerate(share_F):
        rank = int(share * len(values_NF))
        beyond_NF[:, f] = values_NF[:, f] - np.sort(values_NF[:, f])[::-1][rank]
    tagged_NF = beyond_NF > 0
    tagged_NF[np.arange(len(values_NF)), beyond_NF.argmax(axis=1)] = True
    return tagged_NF


def _names(modality: Modality) -> NDArray[np.object_]:
    """(F,) of tags or levels; their alphabet is their order."""
    digits = len(str(modality.width - 1))
    names = [f"{modality.name}-{f:0{digits}}" for f in range(modality.width)]
    return np.array(names, dtype=object)

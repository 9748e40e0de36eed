"""Synthetic datasets whose answer is known: how much of a user's taste each modality shows.

Letters in names: U users, I items, L latent factors, F columns of a modality, C users of a chunk,
K most interactions of a user in the chunk, E interactions, T users with two tastes.
"""

import dataclasses
import hashlib
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval
from numpy.typing import NDArray

from mmrec.config import config
from mmrec.data.dataset import Dataset, Dense, Feature
from mmrec.data.raw import Raw, Split
from mmrec.data.splits import SPLIT_SEED, split

_Array = NDArray[np.float64]
_CHUNK_CELLS = 4_000_000
_GRID = 1024.0


@config
class Modality:
    """What one planted modality is like."""

    name: str
    width: Annotated[int, Ge(1)] = 32
    """Columns of the feature table."""
    informativeness: Annotated[float, Interval(ge=0, le=1)] = 0.85
    """Share of the modality's latent variance that is the items' taste factors; the rest is
    something about the items that no user cares for. 0 is pure noise."""
    noise: Annotated[float, Ge(0)] = 0.3
    """Deviation of white noise in each column; a column's latent part has deviation near 1."""
    missing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Share of the items without this modality, rounded down."""
    encodes: str = ""
    """The modality whose latent rows this one shows too, by a map and white noise of its own, as a
    second encoder of the same texts does; empty: it has latent rows of its own. The
    informativeness is that of those rows, so the two must agree in it."""
    kept: Annotated[float, Interval(gt=0, le=1)] = 1.0
    """Share of the latent factors that are shown at all, the first ones; rounded, at least one. A
    lossy encoder keeps few."""


@config
class Planted:
    """What a planted dataset is like; the defaults are the built-in `planted`."""

    users: Annotated[int, Ge(1)] = 400
    items: Annotated[int, Ge(2)] = 400
    interactions: Annotated[int, Ge(1)] = 4_000
    """In all; a user's share varies, by a factor of 16 at most."""
    modalities: tuple[Modality, ...] = (
        Modality(name="text", width=32),
        Modality(name="image", width=48),
    )
    factors: Annotated[int, Ge(1)] = 24
    """Latent taste factors, standard normal for users and items."""
    taste: Annotated[float, Ge(0)] = 3.0
    """Deviation of a user's log-odds over items that are equally popular; 0 is popularity only."""
    popularity: Annotated[float, Ge(0)] = 0.6
    """Power law: the r-th most popular item has weight r ** -popularity; 0 is flat."""
    noise_correlation: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Correlation, between modalities, of what they show beside taste."""
    second_taste: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the users, rounded, who have two unrelated tastes and take half of their
    interactions by each; the other users' interactions are those without it."""
    seed: int = 0
    """Of everything here; the split has a seed of its own."""


def planted(
    spec: Planted | None = None,
    *,
    name: str = "planted",
    how: Split = "random",
    split_seed: int = SPLIT_SEED,
) -> Dataset:
    """A planted dataset, split 8:1:1 per user unless `how` says otherwise.

    Raises:
        ValueError: a user would have over three quarters of the items, two modalities have one
            name, or one encodes another that has no latent rows of its own.
    """
    return split(planted_raw(spec or Planted(), name), how, split_seed)


def planted_raw(spec: Planted, name: str = "planted") -> Raw:
    """Before the split.

    User u takes item i with odds popularity_i * exp(taste * p_u . q_i / sqrt(L)), without
    replacement. One with two tastes takes the first item by p_u, the second by the other taste,
    and so on. A modality's row of item i is A (sqrt(v) q_i + sqrt(1 - v) z_i) / sqrt(L) plus
    white noise, where v is its informativeness, A a random matrix, and z_i standard normal with
    the stated correlation between modalities. One that encodes another has that one's z_i. One
    that keeps K of the L factors has these alone, divided by sqrt(K).

    Every array has a random stream of its own, keyed by name: changing a modality changes neither
    the interactions nor another modality.
    """
    _check_modalities(spec.modalities)
    taste_UL = _stream(spec, "users").standard_normal((spec.users, spec.factors))
    taste_IL = _stream(spec, "items").standard_normal((spec.items, spec.factors))
    features: dict[str, Feature] = {
        modality.name: _modality(spec, modality, taste_IL) for modality in spec.modalities
    }
    return Raw(name, spec.users, spec.items, _interactions(spec, taste_UL, taste_IL), features)


def _stream(spec: Planted, name: str) -> np.random.Generator:
    key = hashlib.sha256(f"planted/{spec.seed}/{name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(key[:16], "big"))


def _check_modalities(modalities: tuple[Modality, ...]) -> None:
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


def _modality(spec: Planted, modality: Modality, taste_IL: _Array) -> Dense:
    own = _stream(spec, f"modality/{modality.name}")
    latent_IL = _latent(spec, modality, taste_IL, own)
    kept = max(1, round(modality.kept * spec.factors))
    map_LF = own.standard_normal((kept, modality.width)) / np.sqrt(kept)
    values_IF = latent_IL[:, :kept] @ map_LF
    values_IF += modality.noise * own.standard_normal(values_IF.shape)
    # Machines differ in the last bits of a matrix product; on a grid their digests agree.
    values_IF = np.round(values_IF * _GRID) / _GRID
    missing = own.permutation(spec.items)[: int(modality.missing * spec.items)]
    present = np.ones(spec.items, dtype=np.bool_)
    present[missing], values_IF[missing] = False, 0
    return Dense(present, values_IF.astype(np.float32))


def _latent(
    spec: Planted, modality: Modality, taste_IL: _Array, own: np.random.Generator
) -> _Array:
    """(I, L) what a modality could show; rows of its own are the first draw of its stream `own`."""
    source = _stream(spec, f"modality/{modality.encodes}") if modality.encodes else own
    shared_IL = _stream(spec, "shared noise").standard_normal(taste_IL.shape)
    correlation, informed = spec.noise_correlation, modality.informativeness
    beside_IL = source.standard_normal(taste_IL.shape) * np.sqrt(1 - correlation)
    beside_IL += shared_IL * np.sqrt(correlation)
    return np.sqrt(informed) * taste_IL + np.sqrt(1 - informed) * beside_IL


def _interactions(spec: Planted, taste_UL: _Array, taste_IL: _Array) -> NDArray[np.int64]:
    """(E, 2) pairs, by user, then by the order of the draw."""
    rng = _stream(spec, "interactions")
    count_U = _counts(spec, rng)
    weight_I = (1.0 + rng.permutation(spec.items)) ** -spec.popularity
    strength = spec.taste / np.sqrt(spec.factors)
    own = _stream(spec, "second taste")
    second_T = np.sort(own.permutation(spec.users)[: round(spec.second_taste * spec.users)])
    later_U = np.zeros_like(count_U)
    later_U[second_T] = count_U[second_T] // 2
    pairs_E2 = _race(rng, strength * taste_UL, taste_IL, weight_I, count_U - later_U)
    if not len(second_T):
        return pairs_E2
    taken_UI = np.zeros((spec.users, spec.items), dtype=np.bool_)
    taken_UI[pairs_E2[:, 0], pairs_E2[:, 1]] = True
    other_TL = strength * own.standard_normal((len(second_T), spec.factors))
    taken_TI = taken_UI[second_T]
    more_E2 = _race(own, other_TL, taste_IL, weight_I, later_U[second_T], taken_TI)
    more_E2[:, 0] = second_T[more_E2[:, 0]]
    # In turn: the first of one taste, the first of the other, the second of the one ...
    turn_E = np.concatenate([_nth(pairs_E2[:, 0]), _nth(more_E2[:, 0])])
    all_E2 = np.concatenate([pairs_E2, more_E2])
    return all_E2[np.lexsort((np.arange(len(all_E2)), turn_E, all_E2[:, 0]))]


def _race(
    rng: np.random.Generator,
    taste_UL: _Array,
    taste_IL: _Array,
    weight_I: NDArray[np.floating],
    count_U: NDArray[np.int64],
    taken_UI: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """(E, 2) pairs of `count_U` items a user that are not taken, by user, then in order.

    A weighted sample without replacement is the first arrivals of an exponential race (the same
    law as Gumbel-top-k), which needs no logarithms.
    """
    rows = max(1, _CHUNK_CELLS // len(taste_IL))
    chosen = []
    for start in range(0, len(taste_UL), rows):
        count_C = count_U[start : start + rows]
        score_CI = taste_UL[start : start + rows] @ taste_IL.T
        arrival_CI = rng.standard_exponential(score_CI.shape) / (weight_I * np.exp(score_CI))
        if taken_UI is not None:
            arrival_CI[taken_UI[start : start + rows]] = np.inf
        most = int(count_C.max())
        first_CK = np.argpartition(arrival_CI, max(most - 1, 0), axis=1)[:, :most]
        order_CK = np.argsort(np.take_along_axis(arrival_CI, first_CK, axis=1), axis=1)
        first_CK = np.take_along_axis(first_CK, order_CK, axis=1)
        chosen.append(first_CK[np.arange(most) < count_C[:, None]])
    user_E = np.repeat(np.arange(len(taste_UL)), count_U)
    return np.stack([user_E, np.concatenate(chosen)], axis=1)


def _nth(user_E: NDArray[np.int64]) -> NDArray[np.int64]:
    """(E,) how many of the user's pairs come before; users ascend."""
    return np.arange(len(user_E)) - np.searchsorted(user_E, user_E)


def _counts(spec: Planted, rng: np.random.Generator) -> NDArray[np.int64]:
    """(U,) interactions of each user, log-normal within a factor of 4 of the middle."""
    share_U = np.exp(np.clip(0.5 * rng.standard_normal(spec.users), -np.log(4), np.log(4)))
    ends_U = np.round(np.cumsum(share_U) / share_U.sum() * spec.interactions)
    count_U = np.diff(ends_U, prepend=0).astype(np.int64)
    if 4 * count_U.max() > 3 * spec.items:
        raise ValueError(
            f"planted: a user would have {count_U.max()} of {spec.items} items, over three"
            f" quarters; lower interactions ({spec.interactions}) or raise users or items"
        )
    return count_U


def noise_only(spec: Planted) -> Planted:
    """The same interactions, and modalities that show nothing of taste."""
    blind = (dataclasses.replace(m, informativeness=0.0) for m in spec.modalities)
    return dataclasses.replace(spec, modalities=tuple(blind))


def with_worse_encoders(spec: Planted) -> Planted:
    """The same, and of each modality X an `X_b` that keeps the first third of the same latent."""
    worse = (
        dataclasses.replace(m, name=f"{m.name}_b", encodes=m.name, kept=1 / 3)
        for m in spec.modalities
    )
    return dataclasses.replace(spec, modalities=(*spec.modalities, *worse))


BUILT_IN: dict[str, Planted] = {
    "planted": Planted(),
    "planted-noise": noise_only(Planted()),
    "planted-text": Planted(
        modalities=(
            Modality(name="text", width=32),
            Modality(name="image", width=48, informativeness=0.0),
        )
    ),
    "planted-encoders": with_worse_encoders(Planted()),
    # Few factors and long histories, so that two tastes show in a user's items.
    "planted-diverse": Planted(second_taste=0.5, factors=8, interactions=8_000),
    "planted-1m": Planted(users=10_000, items=4_000, interactions=1_000_000),
}
"""By the names that `mmrec.data.sources.load` knows."""

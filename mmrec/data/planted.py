"""Synthetic datasets whose answer is known: how much of a user's taste each modality shows.

Letters in names: U users, I items, L latent factors, C users of a chunk, K most interactions of a
user in the chunk, E interactions, T users with two tastes.
"""

import dataclasses
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval
from numpy.typing import NDArray

from mmrec.config import config
from mmrec.data.dataset import Dataset
from mmrec.data.planted_features import Modality, Tastes, check_modalities, stream
from mmrec.data.raw import Raw, Split
from mmrec.data.splits import SPLIT_SEED, split

_Array = NDArray[np.float64]
_CHUNK_CELLS = 4_000_000


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
    user_modalities: tuple[Modality, ...] = ()
    """What is known of users, from their tastes (of those with two, from the first)."""
    factors: Annotated[int, Ge(1)] = 24
    """Latent taste factors, standard normal for users and items."""
    taste: Annotated[float, Ge(0)] = 3.0
    """Deviation of a user's log-odds over items that are equally popular; 0 is popularity only."""
    popularity: Annotated[float, Ge(0)] = 0.6
    """Power law: the r-th most popular item has weight r ** -popularity; 0 is flat."""
    noise_correlation: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Correlation, between modalities of a side, of what they show beside taste."""
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
    that keeps K of the L factors has these alone, divided by sqrt(K). Tags, a level or a number
    are read off such a row. Modalities of users have p_u for q_i.

    Every array has a random stream of its own, keyed by name: changing a modality changes neither
    the interactions nor another modality.
    """
    check_modalities(spec.modalities)
    check_modalities(spec.user_modalities)
    taste_UL = stream(spec.seed, "users").standard_normal((spec.users, spec.factors))
    taste_IL = stream(spec.seed, "items").standard_normal((spec.items, spec.factors))
    items = Tastes(taste_IL, "item", spec.seed, spec.noise_correlation)
    users = Tastes(taste_UL, "user", spec.seed, spec.noise_correlation)
    return Raw(
        name,
        spec.users,
        spec.items,
        _interactions(spec, taste_UL, taste_IL),
        {modality.name: items.show(modality) for modality in spec.modalities},
        {modality.name: users.show(modality) for modality in spec.user_modalities},
    )


def _interactions(spec: Planted, taste_UL: _Array, taste_IL: _Array) -> NDArray[np.int64]:
    """(E, 2) pairs, by user, then by the order of the draw."""
    rng = stream(spec.seed, "interactions")
    count_U = _counts(spec, rng)
    weight_I = (1.0 + rng.permutation(spec.items)) ** -spec.popularity
    strength = spec.taste / np.sqrt(spec.factors)
    own = stream(spec.seed, "second taste")
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
    count_U = shares(rng, spec.users, spec.interactions)
    require_choice(count_U, spec.items, spec.interactions, "planted")
    return count_U


def shares(rng: np.random.Generator, users: int, total: int) -> NDArray[np.int64]:
    """(U,) log-normal parts of a total, within a factor of 4 of the middle."""
    share_U = np.exp(np.clip(0.5 * rng.standard_normal(users), -np.log(4), np.log(4)))
    ends_U = np.round(np.cumsum(share_U) / share_U.sum() * total)
    return np.diff(ends_U, prepend=0).astype(np.int64)


def require_choice(count_U: NDArray[np.int64], items: int, interactions: int, what: str) -> None:
    """ValueError where a user would have so many items that hardly any are left to be found."""
    if 4 * count_U.max() > 3 * items:
        raise ValueError(
            f"{what}: a user would have {count_U.max()} of {items} items, over three"
            f" quarters; lower interactions ({interactions}) or raise users or items"
        )


def noise_only(spec: Planted) -> Planted:
    """The same interactions, and modalities that show nothing of taste."""
    items, users = (
        tuple(dataclasses.replace(m, informativeness=0.0) for m in modalities)
        for modalities in (spec.modalities, spec.user_modalities)
    )
    return dataclasses.replace(spec, modalities=items, user_modalities=users)


def with_worse_encoders(spec: Planted) -> Planted:
    """The same, and of each item modality X an `X_b` that keeps a third of the same latent."""
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
    # Of every kind on both sides. Half of a content is beside taste, so that no single one ranks as
    # well as the interactions do.
    "planted-five": Planted(
        interactions=8_000,
        factors=12,
        modalities=(
            Modality(name="text", width=32, informativeness=0.6),
            Modality(name="image", width=48, informativeness=0.5),
            Modality(name="audio", width=24, informativeness=0.5),
            Modality(name="genres", kind="tags", width=20, informativeness=1.0, noise=0.0),
        ),
        user_modalities=(
            Modality(name="gender", kind="category", width=2),
            Modality(name="occupation", kind="category", width=8),
            Modality(name="age", kind="number", width=1),
        ),
    ),
    "planted-1m": Planted(users=10_000, items=4_000, interactions=1_000_000),
}
"""By the names that `mmrec.data.sources.load` knows."""

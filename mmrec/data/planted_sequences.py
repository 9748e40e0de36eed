"""Synthetic sequences whose answer is known: what each modality says of the item that comes next.

Letters in names: U users, I items, A text classes, B image classes, N classes of a modality,
R items of a cell, P users whose sequence goes on, E interactions, L own latent factors,
F columns of a modality.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Interval
from numpy.typing import NDArray

from mmrec.config import config
from mmrec.data.dataset import Dense
from mmrec.data.planted import require_choice, shares
from mmrec.data.planted_features import on_grid, stream
from mmrec.data.raw import Raw

TEXT_WIDTH = 32
IMAGE_WIDTH = 48
OWN_FACTORS = 8
"""Latent factors of what tells the items of a class apart."""
SHORTEST = 5
"""Interactions of a user at least."""

_Array = NDArray[np.float64]
_Ids = NDArray[np.int64]


@config
class PlantedSequences:
    """What a dataset of planted sequences is like; the defaults are `planted-sequences`."""

    users: Annotated[int, Ge(1)] = 400
    items: Annotated[int, Ge(4)] = 400
    interactions: Annotated[int, Ge(5)] = 5_200
    """In all; a user has 5 at least, and of the others a share that varies by a factor of 16 at
    most."""
    text_classes: Annotated[int, Ge(2)] = 8
    """A."""
    image_classes: Annotated[int, Ge(2)] = 8
    """B; all A * B cells have equally many items, as far as that can be."""
    follow_text: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """Probability that the next text class is the one that the map has for the current one; else
    it is any, all equally likely, that one too."""
    follow_image: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """As for texts; at 0 images say nothing of what comes next."""
    text_strength: Annotated[float, Ge(0)] = 1.5
    """Deviation of a column of the class centres; that of the items' own latent is 1."""
    image_strength: Annotated[float, Ge(0)] = 1.5
    """As for texts."""
    noise: Annotated[float, Ge(0)] = 0.3
    """Deviation of white noise in each column."""
    popularity: Annotated[float, Ge(0)] = 0.6
    """Power law: the r-th most popular item of a cell has weight r ** -popularity; 0 is flat."""
    seed: int = 0
    """Of everything here."""


@dataclass(frozen=True)
class Truth:
    """What decides the interactions: classes, the maps between them, and popularity."""

    text: _Ids
    """(I,) class of each item, in [0, A)."""
    image: _Ids
    """(I,) in [0, B)."""
    next_text: _Ids
    """(A,) the class that follows each; a permutation of one cycle."""
    next_image: _Ids
    """(B,) as for texts."""
    weight: _Array
    """(I,) popularity within the cell."""
    cells: _Ids
    """(A * B, R) the items of each cell, the most popular first; -1 behind those of a cell that has
    one less."""


def truth(spec: PlantedSequences) -> Truth:
    """What an oracle would know.

    Raises:
        ValueError: there are fewer items than cells.
    """
    num_cells = spec.text_classes * spec.image_classes
    if spec.items < num_cells:
        raise ValueError(
            f"planted sequences: {spec.text_classes} text and {spec.image_classes} image classes"
            f" make {num_cells} cells, more than the {spec.items} items"
        )
    places = -(-spec.items // num_cells) * num_cells
    drawn_I = stream(spec.seed, "items").permutation(spec.items)
    cells = np.append(drawn_I, np.full(places - spec.items, -1)).reshape(-1, num_cells).T
    place_I = np.argsort(drawn_I)
    rank_I, cell_I = np.divmod(place_I, num_cells)
    text_I, image_I = np.divmod(cell_I, spec.image_classes)
    return Truth(
        text_I,
        image_I,
        _cycle(stream(spec.seed, "text map"), spec.text_classes),
        _cycle(stream(spec.seed, "image map"), spec.image_classes),
        (1.0 + rank_I) ** -spec.popularity,
        np.ascontiguousarray(cells),
    )


def _cycle(rng: np.random.Generator, classes: int) -> _Ids:
    """(N,) a random permutation that leads through all classes before it returns."""
    order_N = rng.permutation(classes)
    next_N = np.empty(classes, dtype=np.int64)
    next_N[order_N] = np.roll(order_N, -1)
    return next_N


def sequences_raw(spec: PlantedSequences, name: str = "planted-sequences") -> Raw:
    """Before the split.

    An item has a text class and an image class, independent of each other. Of a user's first item
    both are random. Those of each further item follow from the classes of the item before, each
    through a map of its own with the stated probability, and are random otherwise. The item is
    drawn from the cell of both by popularity, among those that the user has not had; where the user
    has had them all, from the whole catalogue in the same way.

    So of the next item texts alone tell the text class, images alone the image class, and both
    together the cell. A modality's row is that of its class centre, standard normal times the
    strength, plus A z_i / sqrt(L), plus white noise, where A is a random matrix and z_i standard
    normal, the item's own.

    Every array has a random stream of its own, keyed by name: changing a modality changes neither
    the interactions nor the other modality.

    Raises:
        ValueError: fewer items than cells, fewer than 5 interactions a user, or a user would have
            over three quarters of the items.
    """
    true = truth(spec)
    text = _feature(spec, "text", true.text, spec.text_classes, TEXT_WIDTH, spec.text_strength)
    image = _feature(
        spec, "image", true.image, spec.image_classes, IMAGE_WIDTH, spec.image_strength
    )
    return Raw(
        name,
        spec.users,
        spec.items,
        _pairs(spec, true),
        {"text": text, "image": image},
        ordered=True,
        default_split="leave-one-out",
    )


def _pairs(spec: PlantedSequences, true: Truth) -> _Ids:
    """(E, 2) pairs by user, then in order of time."""
    length_U = _lengths(spec)
    texts, images, items = (stream(spec.seed, f"next {what}") for what in ("text", "image", "item"))
    had_UI = np.zeros((spec.users, spec.items), dtype=np.bool_)
    now_U = np.zeros(spec.users, dtype=np.int64)
    pairs: list[_Ids] = []
    for step in range(int(length_U.max())):
        user_P = np.flatnonzero(length_U > step)
        now_P, goes_on = now_U[user_P], float(step > 0)
        text_P = _next(texts, true.next_text, true.text[now_P], goes_on * spec.follow_text)
        image_P = _next(images, true.next_image, true.image[now_P], goes_on * spec.follow_image)
        cell_P = text_P * spec.image_classes + image_P
        now_U[user_P] = _drawn(items, true, cell_P, had_UI[user_P])
        had_UI[user_P, now_U[user_P]] = True
        pairs.append(np.stack([user_P, now_U[user_P]], axis=1))
    pairs_E2 = np.concatenate(pairs)
    return pairs_E2[np.argsort(pairs_E2[:, 0], kind="stable")]


def _next(rng: np.random.Generator, next_N: _Ids, class_P: _Ids, follow: float) -> _Ids:
    any_P = rng.integers(len(next_N), size=len(class_P))
    return np.where(rng.random(len(class_P)) < follow, next_N[class_P], any_P)


def _drawn(rng: np.random.Generator, true: Truth, cell_P: _Ids, had_PI: NDArray[np.bool_]) -> _Ids:
    """(P,) an item of each cell that is not had yet; one of the catalogue where all of it is.

    A weighted draw is the first arrival of an exponential race.
    """
    item_PR = true.cells[cell_P]
    arrival_PR = rng.standard_exponential(item_PR.shape) / true.weight[item_PR]
    arrival_PR[(item_PR < 0) | np.take_along_axis(had_PI, item_PR, axis=1)] = np.inf
    first_P1 = arrival_PR.argmin(axis=1)[:, None]
    item_P = np.take_along_axis(item_PR, first_P1, axis=1)[:, 0]
    for p in np.flatnonzero(np.isinf(arrival_PR).all(axis=1)):
        arrival_I = rng.standard_exponential(len(true.weight)) / true.weight
        item_P[p] = np.where(had_PI[p], np.inf, arrival_I).argmin()
    return item_P


def _lengths(spec: PlantedSequences) -> _Ids:
    """(U,) interactions of each user: 5, and a log-normal share of the others."""
    rest = spec.interactions - SHORTEST * spec.users
    if rest < 0:
        raise ValueError(
            f"planted sequences: {spec.interactions} interactions are fewer than {SHORTEST} for"
            f" each of {spec.users} users"
        )
    length_U = SHORTEST + shares(stream(spec.seed, "lengths"), spec.users, rest)
    require_choice(length_U, spec.items, spec.interactions, "planted sequences")
    return length_U


def _feature(
    spec: PlantedSequences, name: str, class_I: _Ids, classes: int, width: int, strength: float
) -> Dense:
    rng = stream(spec.seed, f"modality/{name}")
    centre_NF = rng.standard_normal((classes, width))
    map_LF = rng.standard_normal((OWN_FACTORS, width)) / np.sqrt(OWN_FACTORS)
    own_IF = rng.standard_normal((spec.items, OWN_FACTORS)) @ map_LF
    noise_IF = rng.standard_normal((spec.items, width))
    values_IF = on_grid(strength * centre_NF[class_I] + own_IF + spec.noise * noise_IF)
    return Dense(np.ones(spec.items, dtype=np.bool_), values_IF.astype(np.float32))


SEQUENCES: dict[str, PlantedSequences] = {
    "planted-sequences": PlantedSequences(),
    "planted-sequences-text": PlantedSequences(follow_image=0.0),
}
"""By the names that `mmrec.data.sources.load` knows.

What an oracle that knows classes, maps and popularity has as NDCG@10 on test, leave-one-out (mean
of seeds 0 to 4): 0.44 by both modalities, 0.13 by either alone, 0.02 by popularity; where only
texts tell, 0.13 by the text and by both, 0.02 by the image. Items recur so often that ids alone
tell nearly as much as both modalities: a low-rank matrix of which item followed which has 0.38
(mean of seeds 0 to 2, each at the best of five ranks by test itself, so a little too high).
"""

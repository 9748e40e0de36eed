"""The modality gap as numbers: how far apart a model puts what different modalities say of an item.

Tables map a modality to (N, D), row n of all being one item; a row of nan says that the item lacks
the modality, and one that all items lack is passed over. float64 inside, nothing rounded.

Letters in names: N items, M modalities, D width, V vectors (of N items by M modalities, less those
that are missing).
"""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mmrec.geometry import ALIKE, mean_cosine

Tables = Mapping[str, NDArray[np.floating]]
Array = NDArray[np.float64]

MEASURES = (
    "gap_intra_cosine", "gap_inter_cosine", "gap_centroid", "gap_accuracy", "gap_chance", "gap_cka",
)  # fmt: skip
"""What `measures` gives, in its order."""
MOST_ITEMS = 300
"""Items whose vectors a forest sees: more cost time and change little."""
TREES, FOLDS = 50, 3
_SEED = 0
"""Of the sample of items, the folds and the trees: models compared meet the same ones."""


def require_comparable(tables: Tables) -> None:
    """Raise the ValueError that `measures` would; this takes no time."""
    _vectors(tables)


def measures(tables: Tables) -> dict[str, float]:
    """All measures of one model's tables, by the names in `MEASURES`.

    Raises:
        ValueError: as the functions below say.
    """
    # Threads would sum in another order on another machine.
    with threadpool_limits(1):
        numbers = (
            intra_cosine(tables),
            inter_cosine(tables),
            centroid_distance(tables),
            *modality_accuracy(tables),
            linear_cka(tables),
        )
    return dict(zip(MEASURES, numbers, strict=True))


def intra_cosine(tables: Tables) -> float:
    """Mean cosine of an item's vectors from two modalities, in [-1, 1]; without a gap 1.

    Over all pairs of modalities and all items that have both (Ganhoer et al., TORS 2025); one minus
    it is `mmrec.metrics.modality_gap`. A vector of zeros is like nothing: its cosine is 0.

    Raises:
        ValueError: no two modalities have 2 items in common, tables are not of one shape, or a
            vector is not finite.
    """
    cosines = [(_unit(pair.a_ND) * _unit(pair.b_ND)).sum(1) for pair in _pairs(tables)]
    return float(np.concatenate(cosines).mean())


def inter_cosine(tables: Tables) -> float:
    """Mean cosine of two items' vectors from one modality, in [-1, 1]: how narrow its cone is.

    Over distinct pairs of the items that have it, then over modalities (Ganhoer et al., TORS 2025).
    An `intra_cosine` says little where this is as high: then all vectors are alike. A modality
    that fewer than 2 items have is left out.

    Raises:
        ValueError: as `intra_cosine`.
    """
    known = [_known(x_ND) for x_ND in _checked(tables, one_width=True).values()]
    return float(np.mean([mean_cosine(x_ND) for x_ND in known if len(x_ND) > 1]))


def centroid_distance(tables: Tables) -> float:
    """|mean of x / |x| - mean of y / |y||, in [0, 2]; without a gap 0.

    Liang et al., "Mind the Gap", NeurIPS 2022, section 2: the distance between the centroids of the
    vectors of two modalities, each scaled to length 1. Departures: with more than two modalities
    the mean over their pairs; both centroids are of the items that have both modalities; a vector
    of zeros stays one.

    Raises:
        ValueError: as `intra_cosine`.
    """
    ends = [(_unit(pair.a_ND).mean(0), _unit(pair.b_ND).mean(0)) for pair in _pairs(tables)]
    return float(np.mean([np.linalg.norm(a_D - b_D) for a_D, b_D in ends]))


def linear_cka(tables: Tables) -> float:
    """Linear centred kernel alignment of two modalities' clouds, in [0, 1]; mean over their pairs.

    |Y' X|^2 / (|X' X| |Y' Y|), Frobenius norms, of columns less their means (Kornblith et al., ICML
    2019, section 3, "linear CKA"). Blind to where the clouds lie, to rotation and to one common
    scale: it says whether modalities order items alike, gap or none, and their widths may differ.
    Of fewer items than columns it is high whatever they say. A cloud whose points are all alike has
    no structure to share: 0.

    Raises:
        ValueError: no two modalities have 2 items in common, tables are not of one length, or a
            vector is not finite.
    """
    return float(np.mean([_cka(pair) for pair in _pairs(tables, one_width=False)]))


def modality_accuracy(tables: Tables) -> tuple[float, float]:
    """How well a forest tells from a vector which modality it is of, and by chance: both in [0, 1].

    Ganhoer et al. (TORS 2025) predict modalities by a random forest; their size and folds are not
    known. Here scikit-learn's, 50 trees, in 3 stratified folds that share no item, so that a
    vector's neighbour of the same item is never among those that were learned from. Of more than
    300 items those with the most modalities, the others drawn at random. Chance is the share of
    the modality that most vectors are of, which is 1 / M if no vector is missing.

    Raises:
        ValueError: as `intra_cosine`, or a modality is there for fewer than 3 of the items.
    """
    # Half a second, and few come here.
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    vectors = _vectors(tables)
    told_V = cross_val_predict(
        RandomForestClassifier(TREES, random_state=_SEED, n_jobs=1),
        vectors.x_VD,
        vectors.modality_V,
        groups=vectors.item_V,
        cv=StratifiedGroupKFold(FOLDS, shuffle=True, random_state=_SEED),
        n_jobs=1,
    )
    chance = np.bincount(vectors.modality_V).max() / len(told_V)
    return float(np.mean(told_V == vectors.modality_V)), float(chance)


# --- what they are made of


class _Pair(NamedTuple):
    """Two modalities' vectors of the items that have both."""

    a_ND: Array
    b_ND: Array


def _pairs(tables: Tables, *, one_width: bool = True) -> list[_Pair]:
    """Every two modalities that 2 items or more have both of."""
    found = []
    checked = _checked(tables, one_width=one_width)
    for a_ND, b_ND in combinations(checked.values(), 2):
        both_N = ~np.isnan(a_ND[:, 0]) & ~np.isnan(b_ND[:, 0])
        if both_N.sum() > 1:
            found.append(_Pair(a_ND[both_N], b_ND[both_N]))
    if not found:
        raise ValueError(f"no two of {', '.join(tables)} have 2 items in common")
    return found


def _checked(tables: Tables, *, one_width: bool) -> dict[str, Array]:
    """Those of modalities that some item has."""
    tables = {name: x_ND for name, x_ND in tables.items() if not np.isnan(x_ND).all()}
    if len(tables) < 2:
        raise ValueError(f"a gap lies between two modalities, got {', '.join(tables) or 'none'}")
    for name, x_ND in tables.items():
        if x_ND.ndim != 2 or not x_ND.shape[1]:
            raise ValueError(f"a table is (N, D), that of {name!r} has the shape {x_ND.shape}")
        missing_N = np.isnan(x_ND).all(1)
        bad = int((~np.isfinite(x_ND).all(1) & ~missing_N).sum())
        if bad:
            raise ValueError(f"{bad} of {len(x_ND)} vectors of {name!r} are not finite")
    shapes = {name: x_ND.shape if one_width else len(x_ND) for name, x_ND in tables.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"tables of the same items and one space are compared, got {shapes}")
    return {name: x_ND.astype(np.float64) for name, x_ND in tables.items()}


def _known(x_ND: Array) -> Array:
    return x_ND[~np.isnan(x_ND[:, 0])]


def _unit(x_ND: Array) -> Array:
    """Rows of length 1; a row of zeros stays one."""
    norm_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    return x_ND / np.where(norm_N1 == 0, 1.0, norm_N1)


def _cka(pair: _Pair) -> float:
    if _alike(pair.a_ND) or _alike(pair.b_ND):
        return 0.0
    a_ND, b_ND = (x_ND - x_ND.mean(0) for x_ND in pair)
    if min(a_ND.shape[1], b_ND.shape[1]) > len(a_ND):
        # The same by the smaller products: |Y' X|^2 = tr(X X' Y Y'), |X' X| = |X X'|.
        a_NN, b_NN = a_ND @ a_ND.T, b_ND @ b_ND.T
        return float((a_NN * b_NN).sum() / np.linalg.norm(a_NN) / np.linalg.norm(b_NN))
    within = np.linalg.norm(a_ND.T @ a_ND) * np.linalg.norm(b_ND.T @ b_ND)
    return float(np.linalg.norm(b_ND.T @ a_ND) ** 2 / within)


def _alike(x_ND: Array) -> bool:
    """Whether points differ by rounding only."""
    return bool(np.abs(x_ND - x_ND[0]).max() <= ALIKE * np.abs(x_ND).max())


class _Vectors(NamedTuple):
    """Single vectors, and what is known of them."""

    x_VD: Array
    modality_V: NDArray[np.int64]
    item_V: NDArray[np.int64]


def _vectors(tables: Tables) -> _Vectors:
    """The vectors of at most `MOST_ITEMS` items."""
    _pairs(tables)
    checked = _checked(tables, one_width=True)
    x_MND = np.stack(list(checked.values()))
    there_MN = ~np.isnan(x_MND[:, :, 0])
    order_N = np.random.default_rng(_SEED).permutation(there_MN.shape[1])
    fewer_N = -there_MN.sum(0)[order_N]
    item_N = order_N[np.argsort(fewer_N, kind="stable")][:MOST_ITEMS]
    modality_V, place_V = there_MN[:, item_N].nonzero()
    for name, count in zip(checked, np.bincount(modality_V, minlength=len(checked)), strict=True):
        if count < FOLDS:
            raise ValueError(f"{FOLDS} folds need {FOLDS} items with {name!r}, there are {count}")
    item_V = item_N[place_V]
    return _Vectors(x_MND[modality_V, item_V], modality_V, item_V)

"""How diverse a user's interests are, by the features of the items in the user's training history.

Letters in names: U users, I items, F columns of a modality, B columns of a block, E interactions.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mmrec.cache import cached
from mmrec.data.dataset import Dataset, Dense

_BLOCK = 64
"""Columns at a time: all users' sums over a wide modality would be larger than its table."""


def diversity(data: Dataset) -> NDArray[np.float64]:
    """(U,) 1 - the mean cosine of two training items of a user, averaged over dense modalities.

    The cosine is that of feature rows from which the catalogue's mean row is taken, so that it is
    about 0 for two items at random. Items that lack a modality, or have its mean row exactly, are
    left out of it; a modality in which a user has fewer than two items is left out of the average,
    and a user without any such modality has nan. Higher is more diverse: about 0 for items that
    are all alike, 1 for unrelated ones, and at most 2.
    """
    return cached("interests-1", {"data": data.digest}, lambda: {"diversity": _diversity(data)})[
        "diversity"
    ]


def _diversity(data: Dataset) -> NDArray[np.float64]:
    user_E, item_E = data.train.T
    liked_UI = sp.csr_array(
        (np.ones(len(data.train)), (user_E, item_E)), shape=(data.num_users, data.num_items)
    )
    total_U, modalities_U = np.zeros(data.num_users), np.zeros(data.num_users)
    for _, feature in sorted(data.features.items()):
        if isinstance(feature, Dense):
            cosine_U = _mean_cosine(feature, liked_UI)
            known_U = ~np.isnan(cosine_U)
            total_U[known_U] += 1 - cosine_U[known_U]
            modalities_U += known_U
    # Rounded, so that histories that are equal in all but the last bits stay in one third.
    with np.errstate(invalid="ignore"):
        return np.round(total_U / modalities_U, 9)


def _mean_cosine(feature: Dense, liked_UI: sp.csr_array) -> NDArray[np.float64]:
    """(U,) over pairs of distinct items of a user; nan where a user has fewer than two.

    The squared length of the sum of n unit rows is n plus twice the sum over pairs.
    """
    square_I = sum(
        (np.square(block_IB).sum(axis=1) for block_IB in _centred(feature)),
        start=np.zeros(len(feature)),
    )
    unit_I = np.zeros(len(feature))
    np.divide(1, np.sqrt(square_I), out=unit_I, where=square_I > 0)
    count_U = liked_UI @ (square_I > 0).astype(np.float64)
    resultant_U = np.zeros(liked_UI.shape[0])
    for block_IB in _centred(feature):
        resultant_U += np.square(liked_UI @ (block_IB * unit_I[:, None])).sum(axis=1)
    cosine_U = np.full(liked_UI.shape[0], np.nan)
    pairs_U = count_U * (count_U - 1)
    np.divide(resultant_U - count_U, pairs_U, out=cosine_U, where=pairs_U > 0)
    return cosine_U


def _centred(feature: Dense) -> Iterator[NDArray[np.float64]]:
    """(I, B) blocks of columns less their mean over the items that have them; missing rows 0."""
    for start in range(0, feature.values.shape[1], _BLOCK):
        block_IB = feature.values[:, start : start + _BLOCK].astype(np.float64)
        if feature.present.any():
            block_IB -= block_IB.mean(axis=0, where=feature.present[:, None])
        block_IB[~feature.present] = 0
        yield block_IB

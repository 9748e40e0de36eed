"""How a cloud of points lies: its directions, its neighbourhoods, and what two clouds share.

Numbers about embeddings beside those of `mmrec.metrics`: points in as arrays of any float type,
float64 inside, nothing rounded. Neighbours are by cosine, ties as in `mmrec.graphs.nearest`.

Letters in names: N points, D width, R components (the smaller of N and D), K neighbours.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from mmrec import metrics
from mmrec.graphs import nearest

Points = NDArray[np.floating]
Lists = NDArray[np.int64]

ALIKE = 1e-6
"""Points nearer to one another than this share of their largest entry differ by rounding only."""


def variance_spectrum(x_ND: Points) -> NDArray[np.float64]:
    """(R,) share of the variance along each principal component, descending, sum 1.

    l_r / sum l, l the eigenvalues of the covariance of the centred points (Pearson 1901). Points
    that are all alike, but for `ALIKE`, vary in no direction: all shares are 0.

    Raises:
        ValueError: fewer than 2 points, or numbers that are not finite.
    """
    x_ND = _checked(x_ND)
    spread_ND = x_ND - x_ND[0]  # exactly 0 for equal points, whatever their mean is rounded to
    largest = np.abs(spread_ND).max()
    if largest <= ALIKE * np.abs(x_ND).max():
        return np.zeros(min(x_ND.shape))
    spread_ND /= largest  # squares of tiny or huge values stay finite
    spread_ND -= spread_ND.mean(axis=0)
    if x_ND.shape[1] > len(x_ND):
        spread_ND = spread_ND.T  # the smaller of the two products has the same eigenvalues
    value_R = np.linalg.eigvalsh(spread_ND.T @ spread_ND)[::-1].clip(min=0.0)
    return value_R / value_R.sum()


def effective_rank(x_ND: Points) -> float:
    """`mmrec.metrics.effective_rank` (Roy & Vetterli 2007): of the points as they are, not centred.

    The farther a cloud lies from the origin, the more the one direction to its centre outweighs
    all others; how it spreads about the centre is in `variance_spectrum`.

    Raises:
        ValueError: fewer than 2 points, or numbers that are not finite.
    """
    return metrics.effective_rank(torch.from_numpy(_checked(x_ND)))


def mean_cosine(x_ND: Points) -> float:
    """`mmrec.metrics.mean_cosine`: over distinct pairs, a point at the origin counting as 0.

    Raises:
        ValueError: fewer than 2 points, or numbers that are not finite.
    """
    return metrics.mean_cosine(torch.from_numpy(_checked(x_ND)))


# --- neighbourhoods


def neighbours(x_ND: Points, k: int) -> Lists:
    """(N, K) the K nearest others of each point by cosine, nearest first.

    A point at the origin is nobody's neighbour and has none: its list is -1 throughout, and others'
    lists end in -1 where too few points are left.

    Raises:
        ValueError: fewer than 2 points, numbers that are not finite, or k not in [1, N - 1].
    """
    x_ND = _checked(x_ND)
    if not 1 <= k < len(x_ND):
        raise ValueError(f"k must be in [1, {len(x_ND) - 1}] for {len(x_ND)} points, got {k}")
    return nearest(torch.from_numpy(x_ND), k + 1)[:, 1:].numpy()


def occurrences(near_NK: Lists) -> Lists:
    """(N,) N_k: in how many of the lists that `neighbours` gave each point is."""
    return np.bincount(near_NK[near_NK >= 0], minlength=len(near_NK))


def hubness(near_NK: Lists) -> float:
    """Skewness of the k-occurrences: E (N_k - mean)^3 / deviation^3, 0 where all are equal.

    Radovanovic et al., "Hubs in Space", JMLR 2010. Above 0, a few points, the hubs, are in
    many lists and most points in few.
    """
    count_N = occurrences(near_NK).astype(np.float64)
    count_N -= count_N.mean()
    deviation = np.sqrt(np.mean(count_N**2))
    return float(np.mean((count_N / deviation) ** 3)) if deviation else 0.0


def hub_share(near_NK: Lists) -> float:
    """Share of the other points' lists that the largest hub is in, in [0, 1]."""
    return float(occurrences(near_NK).max() / (len(near_NK) - 1))


def neighbour_overlap(near_NK: Lists, other_NK: Lists) -> float:
    """Mean over points of |A & B| / K: the share of neighbours that a point has in both clouds.

    In [0, 1]; lists drawn at random share k / (N - 1) on average, see `overlap_by_chance`. The
    lists are of the same points, row by row; a place without a neighbour (-1) is shared with none.
    Two clouds of points that are all alike overlap wholly, as ties go to the same points in both.

    Raises:
        ValueError: lists of different numbers or lengths.
    """
    if near_NK.shape != other_NK.shape:
        raise ValueError(
            "lists of the same points and of one length are compared, got"
            f" {near_NK.shape} and {other_NK.shape}"
        )
    same_NKK = near_NK[:, :, None] == other_NK[:, None, :]
    return float((same_NKK & (near_NK >= 0)[:, :, None]).any(axis=2).mean())


def overlap_by_chance(near_NK: Lists) -> float:
    """What `neighbour_overlap` is expected to be for lists drawn at random: k / (N - 1)."""
    return near_NK.shape[1] / (len(near_NK) - 1)


def _checked(x_ND: Points) -> NDArray[np.float64]:
    """A copy in float64."""
    if x_ND.ndim != 2 or len(x_ND) < 2 or x_ND.shape[1] < 1:
        raise ValueError(f"a cloud is (N, D) with at least 2 points, got shape {x_ND.shape}")
    bad = int((~np.isfinite(x_ND)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(x_ND)} points hold numbers that are not finite")
    return np.array(x_ND, dtype=np.float64, order="C")

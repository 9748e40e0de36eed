"""Numbers about ranked lists and about embeddings: tensors in, float64 out, never rounded.

Letters in names: U or B users, K list length (rank 1 first), I items, N entities, D width.

In `top_UK` an entry of -1 means "nothing recommended at this rank" (a user with fewer than K
candidates); such entries count neither as recommendations nor in a list's length.
"""

import math
from collections.abc import Callable, Mapping
from itertools import combinations

import torch
from torch import Tensor

# --- accuracy: hits_BK holds 1 where the item at that rank is relevant, else 0;
# --- relevant_B the number of relevant items a user has. A user with none gets nan.


def recall(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) share of a user's relevant items that are in the list."""
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    return hits_BK.sum(1) / relevant_B


def precision(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) share of the list that is relevant; the divisor is K however few are relevant."""
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    return hits_BK.sum(1) / hits_BK.shape[1] + 0 * relevant_B


def f1(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) harmonic mean of precision and recall: 2 h / (K + n); 0 without a hit."""
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    return 2 * hits_BK.sum(1) / (hits_BK.shape[1] + relevant_B)


def hit(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) 1 where the list has a relevant item, else 0."""
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    return (hits_BK.sum(1) > 0) + 0 * relevant_B


def ndcg(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) binary NDCG@K: discount 1 / log2(rank + 1), divided by the best that n items allow.

    The ideal list has min(K, n) hits (Jarvelin & Kekalainen 2002, in the binary form of MMRec).
    """
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    discount_K = 1 / torch.log2(_ranks(hits_BK) + 1)
    reachable_B = relevant_B.nan_to_num(nan=1).clamp(max=hits_BK.shape[1]).long()
    ideal_B = discount_K.cumsum(0)[reachable_B - 1]
    return (hits_BK * discount_K).sum(1) / ideal_B + 0 * relevant_B


def average_precision(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) average precision: sum over hits of (hits so far / rank), divided by min(K, n).

    As in MMRec. Others divide by n or by the number of hits, which gives other numbers.
    """
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    found_BK = hits_BK.cumsum(1) / _ranks(hits_BK)
    return (hits_BK * found_BK).sum(1) / relevant_B.clamp(max=hits_BK.shape[1])


def reciprocal_rank(hits_BK: Tensor, relevant_B: Tensor) -> Tensor:
    """(B,) 1 / rank of the first hit; 0 where no hit is in the list."""
    hits_BK, relevant_B = _checked(hits_BK, relevant_B)
    return (hits_BK / _ranks(hits_BK)).amax(1) + 0 * relevant_B


ACCURACY: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "map": average_precision,
    "mrr": reciprocal_rank,
    "f1": f1,
    "hit": hit,
}
"""(hits_BK, relevant_B) -> (B,); the metric at a smaller K is that of `hits_BK[:, :K]`."""


def _checked(hits_BK: Tensor, relevant_B: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, with nan for users who have nothing to find."""
    if hits_BK.ndim != 2 or relevant_B.shape != hits_BK.shape[:1] or hits_BK.shape[1] == 0:
        raise ValueError(
            "hits must be (B, K) with K >= 1 and the relevant counts (B,),"
            f" got {tuple(hits_BK.shape)} and {tuple(relevant_B.shape)}"
        )
    relevant_B = relevant_B.double()
    return hits_BK.double(), torch.where(relevant_B > 0, relevant_B, torch.nan)


def _ranks(hits_BK: Tensor) -> Tensor:
    """(K,) 1, 2, ... K."""
    return torch.arange(1, hits_BK.shape[1] + 1, dtype=torch.float64, device=hits_BK.device)


# --- beyond accuracy: over all users' lists at once


def coverage(top_UK: Tensor, num_items: int) -> float:
    """Share of the catalogue that at least one user is recommended."""
    return len(torch.unique(top_UK[top_UK >= 0])) / num_items


def arp(top_UK: Tensor, popularity_I: Tensor) -> float:
    """Average recommendation popularity: mean over users of their lists' mean popularity.

    `popularity_I` is the number of training interactions of each item (Yin et al. 2012).
    """
    return float(_list_mean(top_UK, popularity_I.double()).nanmean())


def aplt(top_UK: Tensor, popularity_I: Tensor, tail_share: float = 0.8) -> float:
    """Average percentage of long-tail items: the share of a list in the tail, mean over users.

    Abdollahpouri et al. 2019; the tail is that of `long_tail`.
    """
    return float(_list_mean(top_UK, long_tail(popularity_I, tail_share).double()).nanmean())


def pl(top_UK: Tensor, popularity_I: Tensor, profile_U: Tensor) -> float:
    """Popularity lift: (list's mean popularity - profile's) / profile's, averaged over users.

    Abdollahpouri et al. 2020 ("The Connection Between Popularity Bias, Calibration, and Fairness
    in Recommendation") define it for a group of users from the group's averages; here each user is
    a group. `profile_U` is from `profile_popularity`; users without a profile (nan) are left out.
    """
    return float((_list_mean(top_UK, popularity_I.double()) / profile_U.double() - 1).nanmean())


def long_tail(popularity_I: Tensor, tail_share: float = 0.8) -> Tensor:
    """(I,) bool: the floor(tail_share * I) least popular items.

    Items of one popularity are taken in order of their number, so that the tail's size is exact.
    """
    tail = torch.zeros(len(popularity_I), dtype=torch.bool, device=popularity_I.device)
    size = math.floor(tail_share * len(popularity_I) + 1e-9)  # 0.7 * 10 is 6.999...
    tail[torch.argsort(popularity_I, stable=True)[:size]] = True
    return tail


def tertile(count_N: Tensor) -> Tensor:
    """(N,) 0, 1 or 2 for the low, the middle and the high third of numbers.

    Low is at most their 1/3 quantile, high is above their 2/3 quantile. Equal numbers are never
    parted, so that thirds differ in size and may be empty.
    """
    # Where a quantile lies between two neighbours, it parts them as the lower one does.
    ordered_N = count_N.sort().values
    low, high = (ordered_N[thirds * (len(count_N) - 1) // 3] for thirds in (1, 2))
    return (count_N > low).long() + (count_N > high).long()


def profile_popularity(train_E2: Tensor, popularity_I: Tensor, num_users: int) -> Tensor:
    """(U,) mean popularity of the items a user interacted with in training; nan without any."""
    sum_U = torch.zeros(num_users, dtype=torch.float64, device=train_E2.device)
    sum_U.index_add_(0, train_E2[:, 0], popularity_I.double()[train_E2[:, 1]])
    return sum_U / torch.bincount(train_E2[:, 0], minlength=num_users)


def _list_mean(top_UK: Tensor, value_I: Tensor) -> Tensor:
    """(U,) mean of an item property over each user's list; nan for an empty list."""
    there_UK = top_UK >= 0
    return (value_I[top_UK.clamp(min=0)] * there_UK).sum(1) / there_UK.sum(1)


# --- geometry of embeddings


def mean_cosine(x_ND: Tensor) -> float:
    """Mean cosine over distinct pairs of rows, in [-1, 1]; 1 is a collapse to one direction.

    In O(N D): the squared norm of the sum of unit rows is N plus twice the sum over pairs. A zero
    row has cosine 0 with every other. Nan for fewer than two rows.
    """
    if len(x_ND) < 2:
        return math.nan
    unit_ND = _unit(x_ND)
    pairs = unit_ND.sum(0).square().sum() - unit_ND.square().sum()
    return float(pairs / (len(x_ND) * (len(x_ND) - 1)))


def effective_rank(x_ND: Tensor) -> float:
    """Exp of the entropy (nats) of the singular values scaled to sum 1, in [1, min(N, D)].

    Roy & Vetterli 2007, eq. 4. As there the rows are not centred: a collapse of all embeddings to
    one direction must show as rank 1, and centring would hide it. 0 for a table of zeros.
    """
    value_R = torch.linalg.svdvals(x_ND.detach().double())
    if not value_R.any():
        return 0.0
    return float(torch.special.entr(value_R / value_R.sum()).sum().exp())


def dirichlet_energy(x_ND: Tensor, neighbour_NK: Tensor) -> float:
    """How much rows differ from their listed neighbours, relative to their size; not negative.

    The mean over listed pairs (n, j) of |x_n - x_j|^2 / 2, divided by the mean of |x|^2 over rows:
    0 where all neighbours are alike (over-smoothing: Cai & Wang 2020, Rusch et al. 2023), about 1
    for unrelated rows. An entry of -1 lists nobody, and a row listed as its own neighbour is left
    out. 0 for a table of zeros; nan where no pair is listed.
    """
    x_ND = x_ND.detach().double()
    own_N = torch.arange(len(x_ND), device=x_ND.device)
    there_NK = (neighbour_NK >= 0) & (neighbour_NK != own_N[:, None])
    if not there_NK.any():
        return math.nan
    peak = x_ND.abs().amax()
    if peak == 0:
        return 0.0
    x_ND = x_ND / peak  # so that squares of tiny or huge values stay finite
    total = x_ND.new_zeros(())
    # One column at a time: all at once would be K tables.
    for neighbour_N, there_N in zip(neighbour_NK.T, there_NK.T, strict=True):
        apart_N = (x_ND - x_ND[neighbour_N.clamp(min=0)]).square().sum(1)
        total += apart_N[there_N].sum()
    return float(total / 2 / there_NK.sum() / x_ND.square().sum(1).mean())


def modality_gap(tables: Mapping[str, Tensor]) -> float:
    """1 - mean cosine between one entity's embeddings from two modalities, in [0, 2].

    The mean is over entities and over all pairs of modalities. `tables` holds (N, D) each, rows
    aligned; a row of nan means that the entity lacks the modality, and its pairs are left out.
    Nan if no entity has two modalities.

    Raises:
        ValueError: fewer than two modalities.
    """
    if len(tables) < 2:
        raise ValueError(f"a gap lies between two modalities, got {', '.join(tables) or 'none'}")
    unit = {name: _unit(table) for name, table in tables.items()}
    cosine_PN = torch.stack([(unit[a] * unit[b]).sum(1) for a, b in combinations(unit, 2)])
    return float(1 - cosine_PN.nanmean())


def _unit(x_ND: Tensor) -> Tensor:
    """Rows scaled to length 1 in float64; rows of zeros stay zero, rows of nan stay nan."""
    x_ND = x_ND.detach().double()
    # Scaled by the largest entry first, so that squares of tiny or huge values stay finite.
    peak_N1 = x_ND.abs().amax(1, keepdim=True)
    x_ND = torch.where(peak_N1 == 0, 0.0, x_ND / peak_N1)
    norm_N1 = x_ND.norm(dim=1, keepdim=True)
    return torch.where(norm_N1 == 0, 0.0, x_ND / norm_N1)

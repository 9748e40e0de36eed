"""Full ranking of a catalogue for every user, in chunks, with seen items masked.

Letters in names: U users with something to find, B users in a chunk, C candidate items,
K length of the longest list, D embedding width, P pairs of the part, E training interactions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmrec.data.dataset import Dataset, Part, csr_rows
from mmrec.data.interests import diversity
from mmrec.metrics import ACCURACY, aplt, arp, coverage, pl, profile_popularity, tertile
from mmrec.models.base import Ranker, Recommender

CHUNK_BYTES = 16 * 2**20
"""Size of a chunk's score matrix. Top-k and masking need about three times as much."""


ITEM_STRATA = ("rare-items", "mid-items", "popular-items")
USER_STRATA = ("short-histories", "mid-histories", "long-histories")
INTEREST_STRATA = ("narrow-interests", "mid-interests", "wide-interests")


@dataclass(frozen=True)
class Protocol:
    """What counts as a fair list: which items are hidden, and which may be recommended."""

    name: str
    text: str
    """For the reader of a report."""
    hide_train: bool = True
    hide_valid_at_test: bool = True
    only_items_of_part: bool = False


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol(
            "full",
            "all items are candidates; training items are hidden at validation, training and"
            " validation items at test",
        ),
        Protocol(
            "mmrec",
            "all items are candidates; only training items are hidden, at test too (as the MMRec"
            " toolbox does)",
            hide_valid_at_test=False,
        ),
        Protocol(
            "repeats",
            "all items are candidates, and none is hidden (as next-item rankers such as TIGER do)",
            hide_train=False,
            hide_valid_at_test=False,
        ),
        Protocol(
            "split-items",
            "only the items of the evaluated part are candidates (as the released SiBraR code does"
            " for cold items)",
            only_items_of_part=True,
        ),
    )
}


def protocol(name: str | None, split: str) -> Protocol:
    """The protocol called `name`; None is `split-items` for a cold-item split, else `full`."""
    name = name or ("split-items" if split == "cold-item" else "full")
    if name not in PROTOCOLS:
        raise KeyError(f"no protocol {name!r}; there are: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


@dataclass(frozen=True)
class Ranking:
    """What one evaluation found."""

    metrics: dict[str, float]
    """`ndcg@10`, `ndcg@10:rare-items` and so on: means over users, not rounded."""
    users: Tensor
    """(U,) the users who had something to find, ascending."""
    per_user: dict[str, Tensor]
    """Metric name -> (U,) float64, for the accuracy metrics."""


class Evaluator:
    """Ranks for one part of one dataset under one protocol. Built once, used every epoch."""

    def __init__(
        self,
        data: Dataset,
        part: Part,
        protocol: Protocol,
        ks: Sequence[int],
        device: torch.device | str = "cpu",
        *,
        baseline: Dataset | None = None,
    ) -> None:
        """Prepare masks and candidates.

        Args:
            data: what the model is trained on, under its condition.
            part: what is ranked for.
            protocol: which items are hidden, and which may be recommended.
            ks: lengths of the lists.
            device: where the model lies.
            baseline: the dataset before any condition, by default `data`. Its training items are
                hidden and its histories and features make the strata, so that all conditions are
                ranked on the same candidates and divided into the same thirds.

        Raises:
            ValueError: the part is empty, or a cut-off is not positive.
        """
        if min(ks, default=0) < 1:
            raise ValueError(f"cut-offs must be positive, got {list(ks)}")
        pairs = data.part(part)
        if not len(pairs):
            raise ValueError(f"dataset {data.name!r} has no {part} interactions to rank")
        self.data, self.ks = data, sorted(set(ks))
        self.part: Part = part
        self.device = torch.device(device)
        self.baseline = data if baseline is None else baseline
        hidden = [data.train[:0]]
        if protocol.hide_train:
            hidden.append(self.baseline.train)
        if part == "test" and protocol.hide_valid_at_test:
            hidden.append(data.valid)
        self.users = np.unique(pairs[:, 0])
        self._hidden = csr_rows(np.concatenate(hidden), data.num_users)
        # Ids often follow popularity, so equal scores must not fall in order of id: candidates are
        # scored in an order drawn once from a fixed seed.
        items = np.unique(pairs[:, 1]) if protocol.only_items_of_part else np.arange(data.num_items)
        order = np.random.default_rng(0).permutation(items)
        self._item_C = torch.from_numpy(order).to(self.device)
        column = np.full(data.num_items, -1)
        column[order] = np.arange(len(order))
        self._column_of_item = column
        keys = np.unique(pairs[:, 0] * data.num_items + pairs[:, 1])
        self._keys = torch.from_numpy(keys).to(self.device)
        relevant = np.bincount(pairs[:, 0], minlength=data.num_users)[self.users]
        self._relevant_U = torch.from_numpy(relevant).to(self.device)

    @torch.no_grad()
    def rank(
        self,
        model: Recommender,
        *,
        beyond: bool = False,
        per_user: bool = False,
        strata: str | None = None,
    ) -> Ranking:
        """Rank all candidates for all users of the part.

        Args:
            model: in evaluation mode; its two embedding tables are computed once.
            beyond: also coverage, ARP, APLT and PL, which need the lists themselves.
            per_user: also keep every user's accuracy metrics.
            strata: an accuracy metric that is also given by stratum, see `_by_stratum`.

        Raises:
            FloatingPointError: an embedding or a score is not finite.
            KeyError: `strata` is no accuracy metric, or not at one of the cut-offs.
        """
        top_UK = self.top(model, max(self.ks))
        hits_UK = self._hits(top_UK)
        vectors = {
            f"{name}@{k}": function(hits_UK[:, :k], self._relevant_U)
            for name, function in ACCURACY.items()
            for k in self.ks
        }
        names, means = list(vectors), torch.stack(list(vectors.values())).mean(1).tolist()
        metrics = dict(zip(names, means, strict=True))
        if strata is not None:
            objective_of(metrics, strata)
            metrics |= self._by_stratum(strata, vectors[strata], top_UK, hits_UK)
        if beyond:
            metrics |= self._beyond_accuracy(top_UK)
        users = torch.from_numpy(self.users)
        return Ranking(metrics, users, {n: v.cpu() for n, v in vectors.items()} if per_user else {})

    @torch.no_grad()
    def top(self, model: Recommender, k: int) -> Tensor:
        """(U, k) item ids, best first; -1 where a user has fewer than k candidates left."""
        ranker = model.ranker(self.part)
        if ranker is not None:
            return self._top_by(ranker, k)
        user_UD, item_ID = model.embeddings_at(self.part)
        _require_finite(user_UD, "user embedding")
        _require_finite(item_ID, "item embedding")
        item_CD = item_ID[self._item_C]
        rows = max(1, CHUNK_BYTES // (item_CD.element_size() * len(item_CD)))
        # Lists kept apart would lie between the chunks' freed score matrices, and the heap would
        # grow by one matrix a chunk.
        top_UK = torch.empty(len(self.users), k, dtype=torch.int64, device=self.device)
        for start in range(0, len(self.users), rows):
            chunk = slice(start, start + rows)
            top_UK[chunk] = self._top_of(self.users[chunk], model, user_UD, item_CD, k)
        return top_UK

    def _top_of(
        self, users: np.ndarray, model: Recommender, user_UD: Tensor, item_CD: Tensor, k: int
    ) -> Tensor:
        user_B = torch.from_numpy(users).to(self.device)
        score_BC = model.score(user_UD[user_B], item_CD)
        # One pass without a copy: NaN and infinities, of either sign, show in the two extremes.
        if not torch.stack(score_BC.aminmax()).isfinite().all():
            raise FloatingPointError(f"a score of the {self.part} ranking is not finite")
        score_BC.view(-1)[self._mask_of(users, score_BC.shape[1])] = -torch.inf
        best = score_BC.topk(min(k, score_BC.shape[1]), dim=1)
        top_BK = torch.where(best.values > -torch.inf, self._item_C[best.indices], -1)
        return torch.nn.functional.pad(top_BK, (0, k - top_BK.shape[1]), value=-1)

    def _top_by(self, ranker: Ranker, k: int) -> Tensor:
        """As `top`, from a model that lists items without scoring them all."""
        items = self.data.num_items
        candidate_I = torch.zeros(items, dtype=torch.bool, device=self.device)
        candidate_I[self._item_C] = True
        parts = []
        for user_B in np.array_split(self.users, -(-len(self.users) * items // CHUNK_BYTES)):
            allowed_BI = candidate_I.repeat(len(user_B), 1)
            row, item = self._hidden_of(user_B)
            allowed_BI[torch.from_numpy(row), torch.from_numpy(item)] = False
            parts.append(ranker.top(torch.from_numpy(user_B).to(self.device), allowed_BI, k))
        return torch.cat(parts)

    def _hidden_of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place among the users, item) of all that is hidden of them."""
        starts, items = self._hidden
        counts = starts[users + 1] - starts[users]
        row = np.repeat(np.arange(len(users)), counts)
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return row, items[np.repeat(starts[users], counts) + offset]

    def _mask_of(self, users: np.ndarray, num_candidates: int) -> Tensor:
        """Flat positions of the hidden items in the users' rows."""
        row, item = self._hidden_of(users)
        column = self._column_of_item[item]
        flat = (row * num_candidates + column)[column >= 0]
        return torch.from_numpy(flat).to(self.device)

    def _hits(self, top_UK: Tensor) -> Tensor:
        user_U1 = torch.from_numpy(self.users).to(self.device)[:, None]
        wanted = user_U1 * self.data.num_items + top_UK
        at = torch.searchsorted(self._keys, wanted).clamp_(max=len(self._keys) - 1)
        return (self._keys[at] == wanted) & (top_UK >= 0)

    def _by_stratum(
        self, name: str, value_U: Tensor, top_UK: Tensor, hits_UK: Tensor
    ) -> dict[str, float]:
        """A metric by the popularity of items, and by the users' histories, in training.

        `:rare-items` and so on: only a user's relevant items in that third of all items count, in
        the list and in the ideal one alike; the mean is over users who have such an item.
        `:short-histories` and so on, by length, and `:narrow-interests` and so on, by `diversity`:
        the mean of the metric itself over that third of the part's users; interests are those of
        the users for whom they are known. A stratum without users is left out. Thirds are those of
        `tertile`, and those of the baseline whatever the condition.
        """
        metric, _, k = name.partition("@")
        train_E2 = torch.tensor(self.baseline.train, device=self.device)
        third_I = tertile(torch.bincount(train_E2[:, 1], minlength=self.data.num_items))
        user_U = torch.from_numpy(self.users).to(self.device)
        third_U = tertile(torch.bincount(train_E2[:, 0], minlength=self.data.num_users)[user_U])
        row_P = torch.searchsorted(user_U, self._keys // self.data.num_items)
        third_P = third_I[self._keys % self.data.num_items]
        hits_Uk, third_Uk = hits_UK[:, : int(k)], third_I[top_UK[:, : int(k)].clamp(min=0)]
        values = {}
        for third, stratum in enumerate(ITEM_STRATA):
            relevant_U = torch.bincount(row_P[third_P == third], minlength=len(user_U))
            has_U = relevant_U > 0
            hits_Bk = (hits_Uk & (third_Uk == third))[has_U]
            values[stratum] = ACCURACY[metric](hits_Bk, relevant_U[has_U])
        for third, stratum in enumerate(USER_STRATA):
            values[stratum] = value_U[third_U == third]
        diverse_U = torch.tensor(diversity(self.baseline)[self.users], device=self.device)
        known_U = ~diverse_U.isnan()
        if known_U.any():
            third_B = tertile(diverse_U[known_U])
            for third, stratum in enumerate(INTEREST_STRATA):
                values[stratum] = value_U[known_U][third_B == third]
        return {f"{name}:{s}": float(v.mean()) for s, v in values.items() if len(v)}

    def _beyond_accuracy(self, top_UK: Tensor) -> dict[str, float]:
        train_E2 = torch.tensor(self.data.train, device=self.device)
        popularity_I = torch.bincount(train_E2[:, 1], minlength=self.data.num_items)
        profile_U = profile_popularity(train_E2, popularity_I, self.data.num_users)
        profile_U = profile_U[torch.from_numpy(self.users).to(self.device)]
        metrics = {}
        for k in self.ks:
            top_Uk = top_UK[:, :k]
            metrics[f"coverage@{k}"] = coverage(top_Uk, self.data.num_items)
            metrics[f"arp@{k}"] = arp(top_Uk, popularity_I)
            metrics[f"aplt@{k}"] = aplt(top_Uk, popularity_I)
            metrics[f"pl@{k}"] = pl(top_Uk, popularity_I, profile_U)
        return metrics


def _require_finite(table: Tensor, what: str) -> None:
    bad = ~torch.isfinite(table).all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0, 0])
        raise FloatingPointError(
            f"{int(bad.sum())} {what} rows are not finite, the first is {first}"
        )


def objective_of(metrics: Mapping[str, float], name: str) -> float:
    """The metric to select on; KeyError lists what there is."""
    if name not in metrics:
        raise KeyError(f"no metric {name!r}; there are: {', '.join(sorted(metrics))}")
    return metrics[name]

"""Ranking against a dense one that sorts every user's scores in numpy, and the released toolbox's.

Letters in names: U users, I items, D embedding width, K list length.
"""

import dataclasses
import json
import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import Tensor

from mmrec import evaluation
from mmrec.data.dataset import Dataset, Dense, Part
from mmrec.evaluation import PROTOCOLS, Evaluator, objective_of, protocol
from mmrec.metrics import ACCURACY
from mmrec.models.base import Batch, Losses, Ranker, Recommender

GOLDEN = json.loads((Path(__file__).parent / "golden" / "_toolbox.json").read_text())


class Fixed(Recommender):
    """Two tables that are never trained."""

    def __init__(self, user_UD: np.ndarray, item_ID: np.ndarray) -> None:
        super().__init__()
        self.user_UD, self.item_ID = torch.as_tensor(user_UD), torch.as_tensor(item_ID)

    def losses(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def embeddings(self) -> tuple[Tensor, Tensor]:
        return self.user_UD, self.item_ID


def random_problem(seed: int, users: int = 17, items: int = 29) -> tuple[Dataset, Fixed]:
    """Pairs of all parts at random; some users have nothing to find, one nothing to train on."""
    rng = np.random.default_rng(seed)
    part = rng.choice(4, (users, items), p=[0.55, 0.25, 0.1, 0.1])
    part[3][part[3] == 2], part[5][part[5] == 3], part[7][part[7] == 1] = 0, 0, 0
    part[:, 11] = np.where(part[:, 11] > 1, 0, part[:, 11])  # held out for nobody
    train, valid, test = (rng.permutation(np.argwhere(part == which)) for which in (1, 2, 3))
    user_UD, item_ID = rng.normal(size=(users, 6)), rng.normal(size=(items, 6))
    return Dataset("random", users, items, train, valid, test), Fixed(user_UD, item_ID)


def items_of(pairs: np.ndarray, user: int) -> set[int]:
    return {int(i) for u, i in pairs if u == user}


def dense_lists(data: Dataset, model: Fixed, part: str, name: str) -> dict[int, list[int]]:
    """Every user's whole list, best first, from the definitions of the protocols."""
    score_UI = model.user_UD.numpy() @ model.item_ID.numpy().T
    asked = data.valid if part == "valid" else data.test
    lists = {}
    for user in sorted({int(u) for u in asked[:, 0]}):
        hidden = set() if name == "repeats" else items_of(data.train, user)
        if part == "test" and name in ("full", "split-items"):
            hidden |= items_of(data.valid, user)
        candidates = set(range(data.num_items)) - hidden
        if name == "split-items":
            candidates &= {int(i) for i in asked[:, 1]}
        lists[user] = sorted(candidates, key=lambda item: -score_UI[user, item])
    return lists


def accuracy_by_hand(ranked: list[int], wanted: set[int], k: int) -> dict[str, float]:
    hits = [item in wanted for item in ranked[:k]]
    places = [rank for rank, hit in enumerate(hits, 1) if hit]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
    precision, recall = len(places) / k, len(places) / len(wanted)
    return {
        "recall": recall,
        "precision": precision,
        "f1": 2 * precision * recall / (precision + recall) if places else 0.0,
        "hit": float(bool(places)),
        "mrr": 1 / places[0] if places else 0.0,
        "ndcg": sum(1 / math.log2(rank + 1) for rank in places) / ideal,
        "map": sum(n / rank for n, rank in enumerate(places, 1)) / min(k, len(wanted)),
    }


def beyond_by_hand(data: Dataset, lists: dict[int, list[int]], k: int) -> dict[str, float]:
    popularity = np.bincount(data.train[:, 1], minlength=data.num_items)
    tail = set(np.argsort(popularity, kind="stable")[: math.floor(0.8 * data.num_items)].tolist())
    tops = {user: ranked[:k] for user, ranked in lists.items() if ranked}
    lifts = []
    for user, top in tops.items():
        profile = [popularity[item] for item in items_of(data.train, user)]
        if profile:
            lifts.append(popularity[top].mean() / np.mean(profile) - 1)
    return {
        "coverage": len({item for top in tops.values() for item in top}) / data.num_items,
        "arp": float(np.mean([popularity[top].mean() for top in tops.values()])),
        "aplt": float(np.mean([np.mean([i in tail for i in top]) for top in tops.values()])),
        "pl": float(np.mean(lifts)),
    }


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("seed", [0, 1])
def test_ranking_equals_a_dense_one(name, part, seed):
    data, model = random_problem(seed)
    ks = (1, 3, 10, 40)  # 40 is more than there are items
    evaluator = Evaluator(data, part, PROTOCOLS[name], ks)
    found = evaluator.rank(model, beyond=True, per_user=True)
    lists = dense_lists(data, model, part, name)
    top_UK = evaluator.top(model, 40).tolist()

    assert found.users.tolist() == list(lists)
    assert [[i for i in top if i >= 0] for top in top_UK] == list(lists.values())
    expected: dict[str, float] = {}
    for k in ks:
        wanted = {user: items_of(data.part(part), user) for user in lists}
        users = [accuracy_by_hand(lists[user], wanted[user], k) for user in lists]
        for metric in users[0]:
            vector = [user[metric] for user in users]
            np.testing.assert_allclose(found.per_user[f"{metric}@{k}"], vector, rtol=1e-14)
            expected[f"{metric}@{k}"] = float(np.mean(vector))
        expected |= {f"{m}@{k}": v for m, v in beyond_by_hand(data, lists, k).items()}
    assert found.metrics == pytest.approx(expected, rel=1e-12)


# --- by a ranker of the model's own


class Listing(Fixed, Ranker):
    """The same tables, whose lists it makes itself; keeps what it was allowed to list."""

    def __init__(self, model: Fixed) -> None:
        super().__init__(model.user_UD.numpy(), model.item_ID.numpy())
        self.allowed: dict[int, set[int]] = {}
        self.parts: list[str] = []

    def ranker(self, part: Part) -> Ranker:
        self.parts.append(part)
        return self

    def top(self, user_B: Tensor, allowed_BI: Tensor, k: int) -> Tensor:
        lists = []
        for user, allowed_I in zip(user_B.tolist(), allowed_BI, strict=True):
            self.allowed[user] = set(allowed_I.nonzero()[:, 0].tolist())
            score_I = (self.item_ID @ self.user_UD[user]).tolist()
            best = sorted(self.allowed[user], key=lambda item: -score_I[item])[:k]
            lists.append(best + [-1] * (k - len(best)))
        return torch.tensor(lists)


@pytest.mark.parametrize("limit", [evaluation.CHUNK_BYTES, 29 * 4])
@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_models_own_lists_are_scored_like_any_other(monkeypatch, name, part, limit):
    monkeypatch.setattr(evaluation, "CHUNK_BYTES", limit)
    data, model = random_problem(1)
    listing = Listing(model)
    evaluator = Evaluator(data, part, PROTOCOLS[name], (3, 40))
    found = evaluator.rank(listing, beyond=True, per_user=True, strata="ndcg@3")
    expected = evaluator.rank(model, beyond=True, per_user=True, strata="ndcg@3")
    assert found.metrics == expected.metrics
    assert torch.equal(found.users, expected.users)
    assert all(torch.equal(v, expected.per_user[n]) for n, v in found.per_user.items())
    assert listing.parts == [part]
    lists = dense_lists(data, model, part, name)
    assert listing.allowed == {user: set(items) for user, items in lists.items()}


# --- by popularity and by history


def thirds(counts: np.ndarray, names: tuple[str, str, str]) -> dict[str, set[int]]:
    """Positions of the low, middle and high counts, from the definition."""
    low, high = np.quantile(counts, [1 / 3, 2 / 3])
    split = (counts <= low, (counts > low) & (counts <= high), counts > high)
    return {n: set(np.flatnonzero(at).tolist()) for n, at in zip(names, split, strict=True)}


def strata_of(data: Dataset, users: list[int]) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """The items of every item stratum, and the users of every user stratum."""
    popularity = np.bincount(data.train[:, 1], minlength=data.num_items)
    history = np.bincount(data.train[:, 0], minlength=data.num_users)[users]
    at = thirds(history, ("short-histories", "mid-histories", "long-histories"))
    return (
        thirds(popularity, ("rare-items", "mid-items", "popular-items")),
        {name: {users[n] for n in places} for name, places in at.items()},
    )


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("name", ["full", "mmrec", "split-items"])
def test_strata_equal_a_dense_ranking_for_every_accuracy_metric(name, part):
    data, model = random_problem(4)
    evaluator = Evaluator(data, part, PROTOCOLS[name], (3, 10))
    lists = dense_lists(data, model, part, name)
    of_items, of_users = strata_of(data, list(lists))
    plain = evaluator.rank(model).metrics
    for metric, k in [*((metric, 10) for metric in ACCURACY), ("ndcg", 3)]:
        whole = f"{metric}@{k}"
        expected = {}
        for stratum, items in of_items.items():
            wanted = {user: items_of(data.part(part), user) & items for user in lists}
            having = [user for user in lists if wanted[user]]
            assert 0 < len(having) < len(lists)
            expected[f"{whole}:{stratum}"] = np.mean(
                [accuracy_by_hand(lists[user], wanted[user], k)[metric] for user in having]
            )
        for stratum, users in of_users.items():
            expected[f"{whole}:{stratum}"] = np.mean(
                [
                    accuracy_by_hand(lists[user], items_of(data.part(part), user), k)[metric]
                    for user in users
                ]
            )
        found = evaluator.rank(model, strata=whole).metrics
        assert found == pytest.approx(plain | expected, rel=1e-12)
        assert {n: found[n] for n in plain} == plain


def test_ndcg_of_rare_items_equals_scikit_learn():
    data, model = random_problem(4)
    found = Evaluator(data, "test", PROTOCOLS["full"], [10]).rank(model, strata="ndcg@10")
    users = found.users.tolist()
    score_UI = model.user_UD.numpy() @ model.item_ID.numpy().T
    for user, item in np.concatenate([data.train, data.valid]):
        score_UI[user, item] = -1e9
    rare = strata_of(data, users)[0]["rare-items"]
    truth_UI = [[i in rare & items_of(data.test, u) for i in range(29)] for u in users]
    having = [n for n, row in enumerate(truth_UI) if any(row)]
    expected = ndcg_score(np.array(truth_UI)[having], score_UI[users][having], k=10)
    assert found.metrics["ndcg@10:rare-items"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_history_strata_weighted_by_their_users_average_to_the_whole(seed):
    data, model = random_problem(seed)
    found = Evaluator(data, "test", PROTOCOLS["full"], [5]).rank(model, strata="map@5")
    sizes = {name: len(of) for name, of in strata_of(data, found.users.tolist())[1].items()}
    assert sum(sizes.values()) == len(found.users)
    total = sum(size * found.metrics[f"map@5:{name}"] for name, size in sizes.items())
    assert total / len(found.users) == pytest.approx(found.metrics["map@5"], rel=1e-12)


def test_histories_are_compared_among_the_users_of_the_part():
    # Histories of 1, 2 and 3 items, beside five users with 4 who have nothing to find.
    lengths = [1, 2, 3, 4, 4, 4, 4, 4]
    train = np.array([[user, item] for user, n in enumerate(lengths) for item in range(n)])
    held_out = np.array([[0, 1], [1, 4], [2, 3]])
    data = Dataset("few", 8, 5, train, held_out, held_out)
    model = Fixed(np.ones((8, 1)), np.array([[5.0], [4], [3], [2], [1]]))
    found = Evaluator(data, "valid", PROTOCOLS["full"], [2]).rank(model, strata="mrr@2").metrics
    # Lists 1 2, 2 3 and 3 4.
    strata = [found[f"mrr@2:{length}-histories"] for length in ("short", "mid", "long")]
    assert strata == [1.0, 0.0, 1.0]


def test_a_stratum_that_nobody_belongs_to_is_left_out():
    # Counts of items 0 to 5: 2 2 1 1 1 0, so that the 1/3 and the 2/3 quantile are both 1; users 2
    # and 3 have no training item at all. User 2 wants item 5, user 3 items 1 and 4.
    train = np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 3], [1, 4]])
    held_out = np.array([[2, 5], [3, 1], [3, 4]])
    data = Dataset("cold", 4, 6, train, held_out, held_out)
    model = Fixed(np.ones((4, 1)), np.array([[6.0], [5], [4], [3], [2], [1]]))
    found = Evaluator(data, "valid", PROTOCOLS["full"], [2]).rank(model, strata="recall@2").metrics
    # The list of both is 0, 1: of rare items it has none, of popular ones all that user 3 wants.
    assert {n: v for n, v in found.items() if n.startswith("recall")} == {
        "recall@2": 0.25,
        "recall@2:rare-items": 0.0,
        "recall@2:popular-items": 1.0,
        "recall@2:short-histories": 0.25,
    }


def with_features(data: Dataset) -> Dataset:
    rng = np.random.default_rng(5)
    there = np.ones(data.num_items, bool)
    features = {
        name: Dense(there, rng.normal(size=(data.num_items, width)).astype(np.float32))
        for name, width in (("image", 3), ("text", 5))
    }
    return dataclasses.replace(data, features=features)


def interests_of(data: Dataset, users: list[int]) -> dict[str, set[int]]:
    """The users of every interests stratum, from the cosines of all pairs of items."""
    diversities = {}
    for user in users:
        items = sorted(items_of(data.train, user))
        cosines = []
        for feature in data.features.values():
            assert isinstance(feature, Dense)
            rows = feature.values - feature.values.mean(0)
            rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
            cosines += [rows[a] @ rows[b] for a, b in combinations(items, 2)]
        if cosines:
            diversities[user] = 1 - np.mean(cosines)
    known = list(diversities)
    at = thirds(
        np.array([diversities[user] for user in known]),
        ("narrow-interests", "mid-interests", "wide-interests"),
    )
    return {name: {known[n] for n in places} for name, places in at.items()}


def test_users_are_divided_by_how_diverse_their_training_items_are():
    data, model = random_problem(4)
    data = with_features(data)
    found = Evaluator(data, "test", PROTOCOLS["full"], [10]).rank(model, strata="ndcg@10")
    lists = dense_lists(data, model, "test", "full")
    of_users = interests_of(data, list(lists))
    assert sum(map(len, of_users.values())) == len(lists) - 1  # user 7 has nothing to train on
    for stratum, users in of_users.items():
        scores = [
            accuracy_by_hand(lists[user], items_of(data.test, user), 10)["ndcg"] for user in users
        ]
        assert found.metrics[f"ndcg@10:{stratum}"] == pytest.approx(np.mean(scores), rel=1e-12)


@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_under_a_condition_candidates_and_strata_are_those_of_the_baseline(name, part):
    """Fewer interactions and other features; popularity of lists is that of what is trained on."""
    data, model = random_problem(4)
    data = with_features(data)
    turned = {"image": data.features["text"]}
    other = dataclasses.replace(data, train=data.train[::3], features=turned)
    whole = Evaluator(data, part, PROTOCOLS[name], [3, 10])
    thin = Evaluator(other, part, PROTOCOLS[name], [3, 10], baseline=data)
    assert torch.equal(thin.top(model, 29), whole.top(model, 29))
    expected = whole.rank(model, beyond=True, strata="ndcg@10").metrics
    found = thin.rank(model, beyond=True, strata="ndcg@10").metrics
    assert found.keys() == expected.keys()
    own = {f"{metric}@{k}" for metric in ("arp", "aplt", "pl") for k in (3, 10)}
    assert {n: found[n] for n in found.keys() - own} == {n: expected[n] for n in found.keys() - own}
    assert found["arp@10"] < expected["arp@10"]


@pytest.mark.parametrize("name", ["ndgc@10", "ndcg@7", "coverage@10"])
def test_strata_of_what_is_not_measured_for_users_are_refused(name):
    data, model = random_problem(0)
    evaluator = Evaluator(data, "valid", PROTOCOLS["full"], [10])
    with pytest.raises(KeyError, match=rf"no metric '{name}'; there are: .*ndcg@10"):
        evaluator.rank(model, beyond=True, strata=name)


def test_hidden_items_tell_the_protocols_apart():
    data, model = random_problem(0)
    tops = {n: Evaluator(data, "test", PROTOCOLS[n], [5]).top(model, 29) for n in PROTOCOLS}
    validated = {tuple(pair) for pair in data.valid.tolist()}
    shown = {
        name: {(u, i) for u, top in enumerate(top_UK.tolist()) for i in top if i >= 0}
        for name, top_UK in tops.items()
    }
    users = sorted(set(data.test[:, 0].tolist()))
    named = {n: {(users[row], item) for row, item in pairs} for n, pairs in shown.items()}
    assert not named["full"] & validated
    assert named["mmrec"] & validated
    assert {item for _, item in named["split-items"]} <= set(data.test[:, 1].tolist())


@pytest.mark.parametrize("limit", [1, 29 * 8, 5 * 29 * 8 - 1])
def test_the_size_of_a_chunk_changes_no_number(monkeypatch, limit):
    data, model = random_problem(2)
    evaluator = Evaluator(data, "test", PROTOCOLS["full"], (3, 10))
    whole = evaluator.rank(model, beyond=True, per_user=True)
    monkeypatch.setattr(evaluation, "CHUNK_BYTES", limit)
    sizes = []
    score = model.score
    monkeypatch.setattr(
        model,
        "score",
        lambda user_BD, item_ID: sizes.append(len(user_BD)) or score(user_BD, item_ID),
    )
    chunked = evaluator.rank(model, beyond=True, per_user=True)
    assert max(sizes) == max(1, limit // (29 * 8))
    assert sum(sizes) == len(whole.users)
    assert chunked.metrics == whole.metrics
    assert all(torch.equal(chunked.per_user[name], whole.per_user[name]) for name in whole.per_user)


@pytest.mark.parametrize("part", ["valid", "test"])
def test_numbers_of_the_released_toolbox(part):
    """Its score sin(0.5 + 1.7 u + 0.9 i) is a dot product of two angles' sines and cosines."""
    user_U, item_I = 0.5 + 1.7 * np.arange(GOLDEN["n_users"]), 0.9 * np.arange(GOLDEN["n_items"])
    model = Fixed(
        np.stack([np.sin(user_U), np.cos(user_U)], 1), np.stack([np.cos(item_I), np.sin(item_I)], 1)
    )
    train, valid, test = (np.array(GOLDEN["kept"][name]) for name in ("train", "valid", "test"))
    data = Dataset("golden", GOLDEN["n_users"], GOLDEN["n_items"], train, valid, test)
    released = GOLDEN["eval"][part]
    evaluator = Evaluator(data, part, PROTOCOLS["mmrec"], range(1, 6))
    found = evaluator.rank(model, per_user=True)

    top5 = dict(zip(found.users.tolist(), evaluator.top(model, 5).tolist(), strict=True))
    assert top5 == dict(zip(released["users"], released["top5"], strict=True))
    for name in ("recall", "ndcg", "precision", "map"):
        means = [found.metrics[f"{name}@{k}"] for k in range(1, 6)]
        np.testing.assert_allclose(means, released["unrounded_at_1_to_5"][name], rtol=0, atol=2e-15)
    for name, value in released["rounded"].items():
        assert round(found.metrics[name], 4) == value


@pytest.mark.parametrize("items", [60, 400, 2000])
def test_equal_scores_do_not_fall_in_order_of_item_ids(items):
    users, k = 4, 20
    pairs = np.stack([np.arange(users), np.arange(users)], axis=1)
    data = Dataset("ties", users, items, pairs[:0], pairs, pairs)
    model = Fixed(np.ones((users, 2)), np.ones((items, 2)))
    top_UK = Evaluator(data, "valid", PROTOCOLS["full"], [k]).top(model, k)
    place = top_UK[0].double() / items
    assert abs(float(place.mean()) - 1 / 2) < 4 / math.sqrt(12 * k)
    assert abs(float(place.std()) - 1 / math.sqrt(12)) < 0.1  # neighbours would lie closer
    again = Evaluator(data, "valid", PROTOCOLS["full"], [k]).top(model, k)
    assert torch.equal(top_UK, again)


def test_a_user_without_candidates_finds_nothing():
    data = Dataset(
        "few", 2, 3, np.array([[0, 0], [0, 1]]), np.array([[0, 2]]), np.array([[0, 2], [1, 0]])
    )
    model = Fixed(np.ones((2, 1)), np.array([[1.0], [2.0], [3.0]]))
    evaluator = Evaluator(data, "test", PROTOCOLS["full"], [2])
    assert evaluator.top(model, 2).tolist() == [[-1, -1], [2, 1]]
    found = evaluator.rank(model, beyond=True, per_user=True)
    assert found.per_user["recall@2"].tolist() == [0.0, 0.0]
    assert found.metrics["coverage@2"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_raises(bad):
    data, model = random_problem(0)
    evaluator = Evaluator(data, "valid", PROTOCOLS["full"], [5])
    model.item_ID[[4, 6], 2] = bad
    with pytest.raises(FloatingPointError, match=r"2 item embedding rows .* the first is 4"):
        evaluator.rank(model)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_that_overflows_raises(sign):
    data, model = random_problem(0)
    evaluator = Evaluator(data, "valid", PROTOCOLS["full"], [5])
    model.user_UD = torch.full_like(model.user_UD, 1e200)
    model.item_ID[4] = sign * 1e200
    with pytest.raises(FloatingPointError, match="score of the valid ranking"):
        evaluator.rank(model)


def test_wrong_wishes_are_refused_by_name():
    data, _ = random_problem(0)
    with pytest.raises(ValueError, match=r"cut-offs must be positive, got \[5, 0\]"):
        Evaluator(data, "valid", PROTOCOLS["full"], [5, 0])
    empty = Dataset("bare", 17, 29, data.train, data.valid, data.test[:0])
    with pytest.raises(ValueError, match="'bare' has no test interactions"):
        Evaluator(empty, "test", PROTOCOLS["full"], [5])
    with pytest.raises(
        KeyError, match="no protocol 'ful'; there are: full, mmrec, repeats, split-items"
    ):
        protocol("ful", "random")
    with pytest.raises(KeyError, match=r"no metric 'ndgc@10'; there are: ndcg@10"):
        objective_of({"ndcg@10": 0.1}, "ndgc@10")


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        (None, "random", "full"),
        (None, "cold-item", "split-items"),
        (None, "cold-user", "full"),
        ("mmrec", "cold-item", "mmrec"),
    ],
)
def test_the_split_names_a_protocol_where_the_user_does_not(name, split, expected):
    assert protocol(name, split).name == expected


BIG = """
from pathlib import Path
import numpy as np, torch
from mmrec.data.dataset import Dataset, Dense
from mmrec.evaluation import PROTOCOLS, Evaluator
from tests.test_evaluation import Fixed

torch.set_num_threads(1)
size, rng = 20_000, np.random.default_rng(0)
train = np.stack([np.repeat(np.arange(size), 50), rng.integers(0, size, 50 * size)], axis=1)
held_out = np.stack([np.arange(size), rng.integers(0, size, size)], axis=1)
data = Dataset("big", size, size, train, (held_out + 1) % size, held_out)
tables = (rng.standard_normal((size, 64), dtype=np.float32) for _ in range(2))
found = Evaluator(data, "test", PROTOCOLS["full"], (10, 50)).rank(Fixed(*tables), beyond=True)
assert 0 < found.metrics["recall@50"] < 0.01
# Not ru_maxrss: after a fork that begins with the parent's peak.
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""


@pytest.mark.slow
def test_twenty_thousand_users_by_items_need_less_than_a_gibibyte():
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", BIG], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 2**30

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from mmrec.data.dataset import Dataset
from mmrec.models.itemknn import ItemKNN, neighbours_by_users

EMPTY = np.empty((0, 2), dtype=np.int64)
USERS, ITEMS = 40, 15


def dataset(seen: np.ndarray) -> Dataset:
    return Dataset("by hand", *seen.shape, np.argwhere(seen), EMPTY, EMPTY)


@pytest.fixture
def seen() -> np.ndarray:
    """Binary, with a user and an item that nobody met."""
    seen = (np.random.default_rng(0).random((USERS, ITEMS)) < 0.3).astype(float)
    seen[4], seen[:, 7] = 0, 0
    return seen


def scores(seen: np.ndarray, cfg: ItemKNN) -> torch.Tensor:
    model = cfg.build(dataset(seen), torch.Generator())
    return model.score(*model.embeddings())


BY_HAND = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]])
"""Items of 3, 2, 2 and 1 users; items 0 and 1 share two of them."""


@pytest.mark.usefixtures("float64")
def test_shared_users_over_norms_by_hand():
    near = neighbours_by_users(dataset(BY_HAND), 3, 1.0).toarray()
    s01, s02, s23 = 2 / (6**0.5 + 1), 1 / (6**0.5 + 1), 1 / (2**0.5 + 1)
    expected = [[0, s01, s02, 0], [s01, 0, 0, 0], [s02, 0, 0, s23], [0, 0, s23, 0]]
    np.testing.assert_allclose(near, expected, rtol=1e-15)
    found = scores(BY_HAND, ItemKNN(knn_k=3, shrink=1.0))
    expected = [s01, s01, s02, 0], [s02, s01, s02, s23]
    np.testing.assert_allclose(found[[0, 2]], expected, rtol=1e-15)


@pytest.mark.usefixtures("float64")
def test_whose_lists_count():
    """With one neighbour each the lists are 0: [1], 1: [0], 2: [3], 3: [2]; 2 is not in 0's."""
    s01, s23 = 2 / 6**0.5, 1 / 2**0.5
    lists = ItemKNN(knn_k=1, shrink=0.0)
    expected = [[s01, s01, 0, 0], [0, s01, 0, s23], [0, 0, s23, s23]]
    np.testing.assert_allclose(scores(BY_HAND, lists)[[0, 2, 3]], expected, rtol=1e-15)

    star = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1]])  # 0: [1], 1: [0], 2: [0]
    s01, s02 = 2 / 6**0.5, 1 / 3**0.5
    of_scored = scores(star, ItemKNN(knn_k=1, shrink=0.0, lists="scored"))
    of_history = scores(star, ItemKNN(knn_k=1, shrink=0.0, lists="history"))
    np.testing.assert_allclose(of_scored[0], [s01, s01, s02], rtol=1e-15)
    np.testing.assert_allclose(of_history[0], [s01, s01, 0], rtol=1e-15)


@pytest.mark.usefixtures("float64")
def test_without_limits_it_is_the_plain_cosine(seen):
    cosine = cosine_similarity(seen.T)
    np.fill_diagonal(cosine, 0)
    found = scores(seen, ItemKNN(knn_k=ITEMS, shrink=0.0))
    np.testing.assert_allclose(found, seen @ cosine, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("lists", ["scored", "history"])
def test_lists_hold_the_most_similar_and_ties_go_to_lower_ids(seen, k, lists):
    shared, count = seen.T @ seen, seen.sum(0)
    similarity = shared / (np.sqrt(np.outer(count, count)) + 10.0)
    kept = np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        others = [j for j in range(ITEMS) if j != i and shared[i, j]]
        best = sorted(others, key=lambda j: (-similarity[i, j], j))[:k]
        kept[i, best] = similarity[i, best]
    found = scores(seen, ItemKNN(knn_k=k, shrink=10.0, lists=lists))
    expected = seen @ (kept.T if lists == "scored" else kept)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from mmrec.data.dataset import Dataset
from mmrec.models import ease
from mmrec.models.ease import EASE, item_weights

EMPTY = np.empty((0, 2), dtype=np.int64)
USERS, ITEMS = 30, 12


def dataset(seen: np.ndarray) -> Dataset:
    return Dataset("by hand", *seen.shape, np.argwhere(seen), EMPTY, EMPTY)


@pytest.fixture
def seen() -> np.ndarray:
    """Binary, with a user and an item that nobody met."""
    seen = (np.random.default_rng(0).random((USERS, ITEMS)) < 0.3).astype(float)
    seen[4], seen[:, 7] = 0, 0
    return seen


def test_two_items_by_hand():
    """Item 1 from item 0, which both users took, and item 0 from item 1, which one took."""
    weight = item_weights(dataset(np.array([[1, 1], [1, 0]])), 3.0)
    expected = torch.tensor([[0, 1 / (2 + 3)], [1 / (1 + 3), 0]], dtype=torch.float64)
    torch.testing.assert_close(weight, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_is_the_papers_closed_form(seen, l2):
    inverse = np.linalg.inv(seen.T @ seen + l2 * np.eye(ITEMS))
    expected = np.eye(ITEMS) - inverse @ np.diag(1 / np.diag(inverse))
    found = item_weights(dataset(seen), l2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    # Else the inverse was no longer in place: another 8 I^2 bytes.
    assert found.is_contiguous()


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_nothing_but_a_diagonal_could_improve_the_fit(seen, l2):
    """The gradient of |X - X B|^2 + l2 |B|^2 vanishes wherever B may differ from zero."""
    weight = item_weights(dataset(seen), l2).numpy()
    half_gradient = seen.T @ (seen @ weight - seen) + l2 * weight
    np.testing.assert_array_equal(np.diag(weight), 0)
    np.fill_diagonal(half_gradient, 0)
    np.testing.assert_allclose(half_gradient, 0, atol=1e-12)
    assert np.abs(weight).max() > 0.01


def test_each_item_is_a_ridge_regression_on_the_others(seen):
    weight = item_weights(dataset(seen), 2.0).numpy()
    for item in range(ITEMS):
        others = np.arange(ITEMS) != item
        ridge = Ridge(alpha=2.0, fit_intercept=False).fit(seen[:, others], seen[:, item])
        np.testing.assert_allclose(weight[others, item], ridge.coef_, rtol=0, atol=1e-12)


def test_scores_are_histories_times_weights(seen):
    model = EASE(l2=2.0).build(dataset(seen), torch.Generator())
    user, item = model.embeddings()
    order = torch.tensor([3, 0, 11])
    found = model.score(user[5:9], item[order])
    assert found.dtype == torch.float32
    expected = seen[5:9] @ item_weights(dataset(seen), 2.0).numpy()[:, order]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_catalogue_that_is_too_large_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(ease, "MOST_BYTES", 8 * 12**2)
    item_weights(dataset(np.eye(12)), 1.0)
    with pytest.raises(ValueError, match="matrix of all pairs of 13 items"):
        item_weights(dataset(np.eye(13)), 1.0)

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmrec.data.dataset import Dataset
from mmrec.nn.history import HistorySums

USERS, ITEMS = 7, 5
EMPTY = np.empty((0, 2), dtype=np.int64)


def problem() -> tuple[Dataset, np.ndarray, np.ndarray]:
    """A dataset whose user 3 has no training items, its matrix, and a similarity with holes."""
    rng = np.random.default_rng(0)
    seen = (rng.random((USERS, ITEMS)) < 0.5).astype(float)
    seen[3] = 0
    similarity = rng.normal(size=(ITEMS, ITEMS)) * (rng.random((ITEMS, ITEMS)) < 0.6)
    similarity[2] = 0
    train = rng.permutation(np.argwhere(seen))
    return Dataset("by hand", USERS, ITEMS, train, EMPTY, EMPTY), seen, similarity


@pytest.mark.parametrize("kind", [torch.from_numpy, sp.csr_array])
@pytest.mark.parametrize("users", [list(range(USERS)), [6, 1, 1, 3, 0], [3], [3, 3], []])
@pytest.mark.usefixtures("float64")
def test_it_is_the_product_of_history_and_similarity(kind, users):
    data, seen, similarity = problem()
    found = HistorySums(data, kind(similarity))(torch.tensor(users, dtype=torch.int64))
    np.testing.assert_allclose(found, seen[users] @ similarity, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("kind", [torch.from_numpy, sp.csr_array])
def test_it_takes_the_models_type_and_no_place_in_its_state(kind):
    data, seen, similarity = problem()
    sums = HistorySums(data, kind(similarity.astype(np.float32)))
    assert sums.state_dict() == {}
    everyone = torch.arange(USERS)
    assert sums(everyone).dtype == torch.float32
    exact = sums.double()(everyone)
    assert exact.dtype == torch.float64
    np.testing.assert_allclose(exact, seen @ similarity.astype(np.float32), rtol=1e-14, atol=1e-15)


def test_sparse_sums_do_not_depend_on_the_order_of_their_terms():
    weight = np.random.default_rng(0).random(100)
    num_items = len(weight) + 2
    similarity = np.zeros((num_items, num_items))
    similarity[:-2, -2], similarity[:-2, -1] = weight, weight[::-1]
    train = np.array([(0, item) for item in range(len(weight))])
    data = Dataset("by hand", 1, num_items, train, EMPTY, EMPTY)
    left, right = HistorySums(data, sp.csr_array(similarity))(torch.tensor([0]))[0, -2:].tolist()
    assert left == right


def test_a_similarity_of_other_items_is_refused():
    data, _, similarity = problem()
    with pytest.raises(ValueError, match=r"of 5 items has as many rows and columns, got \(4, 5\)"):
        HistorySums(data, sp.csr_array(similarity[:4]))

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from mmrec.data.dataset import Dataset, Dense, Feature
from mmrec.models.contentknn import ContentKNN
from tests.models.tiny import tiny

EMPTY = np.empty((0, 2), dtype=np.int64)
ITEMS = 9
NAMES = ("audio", "image", "text")


def feature(values: np.ndarray) -> Dense:
    return Dense(values.any(axis=1), values.astype(np.float32))


@pytest.fixture
def features() -> dict[str, Dense]:
    rng = np.random.default_rng(0)
    return {name: feature(rng.normal(1, 2, (ITEMS, 3 + 2 * n))) for n, name in enumerate(NAMES)}


def similarity(features: Mapping[str, Feature], cfg: ContentKNN, *, items: int = ITEMS):
    """(I, I): user u has item u alone, so that scores are rows of the similarity."""
    own = np.repeat(np.arange(items)[:, None], 2, axis=1)
    data = Dataset("by hand", items, items, own, EMPTY, EMPTY, features=features)
    model = cfg.build(data, torch.Generator())
    return model.score(*model.embeddings()).numpy()


def mean_cosine(features: Mapping[str, Dense], names: tuple[str, ...]) -> np.ndarray:
    cosine = np.mean([cosine_similarity(features[n].values.astype(float)) for n in names], axis=0)
    np.fill_diagonal(cosine, 0)
    return cosine


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("names", [("text",), ("audio", "text"), NAMES])
def test_similarity_is_the_mean_of_the_modalities_cosines(features, names):
    found = similarity(features, ContentKNN(knn_k=ITEMS, modalities=names))
    np.testing.assert_allclose(found, mean_cosine(features, names), atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("k", [1, 4])
def test_an_item_is_scored_by_its_own_neighbours(features, k):
    expected = mean_cosine(features, NAMES)
    for item in range(ITEMS):
        others = [j for j in range(ITEMS) if j != item]
        rest = sorted(others, key=lambda j: -expected[j, item])[k:]
        expected[rest, item] = 0
    found = similarity(features, ContentKNN(knn_k=k))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_what_an_item_lacks_by_hand():
    """Item 0 has both modalities, item 1 one, items 2 and 3 the other; item 4 has none."""
    image = np.array([[3, 4], [4, 3], [0, 0], [0, 0], [0, 0]])
    text = np.array([[1, 0], [0, 0], [1, 1], [2, 0], [0, 0]])
    features = {"image": feature(image), "text": feature(text)}
    found = similarity(features, ContentKNN(knn_k=4), items=5)
    expected = np.zeros((5, 5))
    expected[0, 1] = 24 / 25 / 2**0.5
    expected[0, 2] = 1 / 2**0.5 / 2**0.5
    expected[0, 3] = 1 / 2**0.5
    expected[2, 3] = 1 / 2**0.5
    np.testing.assert_allclose(found, expected + expected.T, atol=1e-6)


def test_a_history_adds_up():
    data = tiny()
    model = ContentKNN(knn_k=3).build(data, torch.Generator())
    user, item = model.embeddings()
    everyone = model.score(user, item).numpy()
    rows = similarity(data.features, ContentKNN(knn_k=3), items=data.num_items)
    seen = np.zeros((data.num_users, data.num_items))
    seen[tuple(data.train.T)] = 1
    np.testing.assert_allclose(everyone, seen @ rows, rtol=1e-5, atol=1e-6)


def test_a_dataset_without_content_is_refused():
    with pytest.raises(ValueError, match="ContentKNN needs at least a modality"):
        similarity({}, ContentKNN())

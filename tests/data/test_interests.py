"""Diversity of interests, against the cosines of all pairs of a user's items."""

from itertools import combinations

import numpy as np
import pytest

from mmrec.data.dataset import Dataset, Dense, Tags
from mmrec.data.interests import diversity


def dataset(train, items, **features):
    held_out = np.array([[0, items - 1]])
    return Dataset("made", 6, items, np.array(train), held_out, held_out, features)


def dense(values, missing=()):
    values = np.array(values, dtype=np.float32)
    present = np.ones(len(values), dtype=bool)
    present[list(missing)], values[list(missing)] = False, 0
    return Dense(present, values)


def test_diversity_equals_the_mean_over_all_pairs():
    """Two modalities, one with gaps and wider than a block of columns."""
    rng = np.random.default_rng(0)
    liked = rng.random((6, 40)) < 0.3
    liked[4], liked[5] = False, np.arange(40) == 7  # nothing and a single item
    features = {
        "image": dense(rng.normal(3, 1, (40, 150)), missing=rng.permutation(40)[:15]),
        "text": dense(rng.normal(-1, 2, (40, 5))),
    }
    found = diversity(dataset(np.argwhere(liked), 40, **features))
    for user in range(4):
        means = []
        for feature in features.values():
            rows = feature.values.astype(float) - feature.values[feature.present].mean(0, float)
            items = [i for i in np.flatnonzero(liked[user]) if feature.present[i]]
            cosines = [
                rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
                for a, b in combinations(items, 2)
            ]
            means.append(np.mean(cosines))
        assert found[user] == pytest.approx(1 - np.mean(means), abs=2e-9)
    assert np.isnan(found[4:]).all()


def test_diversity_by_hand():
    # The mean row is 0, so that the rows are their own directions; item 4 has none.
    text = dense([[1, 0], [-2, 0], [0, 3], [1, -3], [0, 0]])
    train = [[0, 0], [0, 1], [1, 0], [1, 2], [2, 0], [2, 4], [3, 1], [3, 3], [3, 4]]
    found = diversity(dataset(train, 5, text=text))
    assert found[:2] == pytest.approx([2, 1], abs=1e-9)
    assert np.isnan(found[2])
    assert found[3] == pytest.approx(1 + 1 / np.sqrt(10), abs=1e-9)


def test_a_user_lacking_a_modality_is_judged_by_the_others():
    rows = [[1, 0], [-1, 0], [0, 1], [0, -1]]
    data = dataset([[0, 0], [0, 1]], 4, text=dense(rows), image=dense(rows, missing=[0]))
    assert diversity(data)[0] == pytest.approx(2, abs=1e-9)


def test_without_vectors_no_interests_are_known():
    tags = Tags(np.ones(4, bool), np.arange(5), np.zeros(4, np.int64), ("a",))
    assert np.isnan(diversity(dataset([[0, 0], [0, 1]], 4, tags=tags))).all()
    absent = dense(np.ones((4, 2)), missing=range(4))
    assert np.isnan(diversity(dataset([[0, 0], [0, 1]], 4, text=absent))).all()

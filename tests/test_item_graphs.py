from collections import Counter

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dataset
from mmrec.data.sampling import Draws
from mmrec.graphs import knn
from mmrec.nn.item_graphs import PrunedBipartite, image_shares, mean_of_neighbours, neighbours

EPSILON = 1e-7
NONE = np.zeros((0, 2), dtype=np.int64)


def table(items: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(items, columns)).astype(np.float32)


def test_neighbours_are_those_of_the_features_whatever_was_asked_before():
    first, second = table(9, 4, 0), table(9, 4, 1)
    for values, k in ((first, 3), (second, 3), (first, 2), (first, 3)):
        np.testing.assert_array_equal(neighbours(values, k).toarray(), knn(values, k).toarray())


@pytest.mark.parametrize(
    ("names", "shares"),
    [
        (("image",), (1.0,)),
        (("text",), (1.0,)),
        (("image", "text"), (0.2, 0.8)),
        (("text", "image"), (0.8, 0.2)),
        (("audio", "image", "text"), (0.4, 0.2, 0.4)),
        (("tags", "text"), (0.5, 0.5)),
    ],
)
def test_the_image_has_its_share_and_the_others_the_rest(names, shares):
    assert image_shares(names, 0.2) == pytest.approx(shares)


def lists(values: np.ndarray, k: int) -> np.ndarray:
    """1 where the column's item is in the row's list; an empty row has itself alone."""
    norms = np.linalg.norm(values, axis=1)
    found = np.zeros((len(values), len(values)))
    for i in range(len(values)):
        found[i, i] = 1
        if not norms[i]:
            continue
        cosine = np.full(len(values), -np.inf)
        able = (norms > 0) & (np.arange(len(values)) != i)
        cosine[able] = values[able] @ values[i] / norms[able]
        found[i, np.argsort(-cosine)[: k - 1]] = 1
    return found


@pytest.mark.parametrize("shares", [(1.0,), (0.3, 0.7), (0.2, 0.3, 0.5)])
def test_the_item_graph_is_a_weighted_mean_over_neighbours(shares):
    tables = [table(11, 5, seed) for seed in range(len(shares))]
    tables[0][4] = 0
    k = 3
    expected = np.zeros((11, 11))
    for share, values in zip(shares, tables, strict=True):
        found = lists(values, k)
        scale = (found.sum(1) + EPSILON) ** -0.5
        expected += share * scale[:, None] * found * scale
    graph = mean_of_neighbours(tables, shares, k)
    np.testing.assert_allclose(graph.dense().numpy(), expected, rtol=1e-6)


TRAIN = np.array([(0, 0), (0, 1), (0, 2), (1, 0), (2, 0), (2, 3), (3, 0)])


def pruned(kept: int) -> PrunedBipartite:
    share = (kept + 0.5) / len(TRAIN)  # rounded down
    return PrunedBipartite(Dataset("small", 4, 5, TRAIN, NONE, NONE), share)


def weights(part: PrunedBipartite) -> np.ndarray:
    """(V, V) what an epoch trains on."""
    dense = np.zeros(part.graph.shape)
    dense[part.graph.row_E.numpy(), part.graph.column_E.numpy()] = part.weight_E.numpy()
    return dense


def normalised(edges: np.ndarray) -> np.ndarray:
    seen = np.zeros((4, 5))
    seen[tuple(edges.T)] = 1
    adjacency = np.block([[np.zeros((4, 4)), seen], [seen.T, np.zeros((5, 5))]])
    scale = (adjacency.sum(1) + EPSILON) ** -0.5
    return scale[:, None] * adjacency * scale


def test_kept_edges_are_normalised_by_their_own_degrees_both_ways():
    part = pruned(3)
    np.testing.assert_allclose(weights(part), normalised(TRAIN), rtol=1e-6)
    for chosen in ([0, 1, 5], [2, 3, 6], [0, 3, 4]):
        mask = torch.zeros(len(TRAIN), dtype=torch.bool)
        mask[chosen] = True
        part.keep(mask)
        np.testing.assert_allclose(weights(part), normalised(TRAIN[chosen]), rtol=1e-6)


def test_an_epoch_draws_its_own_edges_and_draws_them_again():
    part = pruned(3)
    found = []
    for epoch in (0, 1, 2, 0):
        part.prune(Draws(5), epoch)
        dense = weights(part)
        kept = np.argwhere(dense[:4, 4:])
        assert len(kept) == 3
        np.testing.assert_allclose(dense, normalised(kept), rtol=1e-6)
        found.append(dense)
    assert np.array_equal(found[0], found[3])
    assert not all(np.array_equal(found[0], other) for other in found[1:3])


def test_edges_between_rare_nodes_are_kept_more_often():
    part, draws = pruned(1), 800
    counts = Counter()
    for epoch in range(draws):
        part.prune(Draws(0), epoch)
        counts[tuple(np.argwhere(weights(part)[:4, 4:])[0].tolist())] += 1
    users, items = np.bincount(TRAIN[:, 0]), np.bincount(TRAIN[:, 1])
    chance = (users[TRAIN[:, 0]] * items[TRAIN[:, 1]]) ** -0.5
    chance /= chance.sum()
    for edge, p in zip(map(tuple, TRAIN.tolist()), chance, strict=True):
        assert abs(counts[edge] / draws - p) < 4 * (p * (1 - p) / draws) ** 0.5


@pytest.mark.parametrize("kept", [0, 8])
def test_no_edge_and_more_than_there_are_is_refused(kept):
    with pytest.raises(ValueError, match=f"cannot train on {kept} of 7 edges"):
        pruned(kept)

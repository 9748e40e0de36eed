import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmrec.graphs import (
    Graph,
    bipartite,
    bipartite_halves,
    co_occurrence,
    edge_dots,
    incidence,
    keep_likely,
    knn,
    nearest,
    row_mean,
    spmm,
    strongest,
    symmetric,
)
from tests.models.golden import golden, pairs

F64 = torch.float64


@st.composite
def matrices(draw) -> sp.csr_array:
    """Small matrices with empty rows, empty columns and entries that occur twice."""
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    entry = st.tuples(
        st.integers(0, rows - 1), st.integers(0, columns - 1), st.floats(-2, 2, width=32)
    )
    entries = draw(st.lists(entry, max_size=12))
    row, column, value = zip(*entries, strict=True) if entries else ((), (), ())
    return sp.csr_array(
        sp.coo_array((np.array(value, dtype=float), (row, column)), shape=(rows, columns))
    )


@given(matrices(), st.integers(1, 4))
@settings(deadline=None, max_examples=50)
def test_product_and_gradient_are_those_of_the_dense_matrix(matrix, width):
    graph = Graph(matrix, dtype=F64)
    dense = torch.from_numpy(matrix.toarray())
    torch.testing.assert_close(graph.dense(), dense, rtol=0, atol=1e-12)
    x = torch.randn(matrix.shape[1], width, dtype=F64, requires_grad=True)
    weight = torch.randn(matrix.shape[0], width, dtype=F64)
    out = spmm(graph, x)
    torch.testing.assert_close(out, dense @ x, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    torch.testing.assert_close(gradient, dense.T @ weight, rtol=1e-12, atol=1e-12)


@pytest.fixture
def graph() -> Graph:
    matrix = sp.random_array((6, 5), density=0.4, rng=np.random.default_rng(3))
    return Graph(sp.csr_array(matrix), dtype=F64)


def test_gradients_of_first_and_second_order(graph):
    x = torch.randn(5, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: spmm(graph, x).tanh(), x)
    assert torch.autograd.gradgradcheck(lambda x: spmm(graph, x).tanh(), x)


@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_lanes_are_a_loop(graph, in_dim):
    lanes = torch.randn(4, 5, 3, dtype=F64)
    laid = lanes.movedim(0, in_dim)
    together = torch.func.vmap(lambda x: spmm(graph, x), in_dims=in_dim)(laid)
    torch.testing.assert_close(together, torch.stack([graph.dense() @ x for x in lanes]))

    def loss(x: torch.Tensor) -> torch.Tensor:
        return (spmm(graph, x) ** 3).sum()

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=in_dim)(laid)
    expected = torch.stack([3 * graph.dense().T @ (graph.dense() @ x) ** 2 for x in lanes])
    torch.testing.assert_close(gradient, expected)


def test_moves_with_its_model_but_is_not_saved(graph):
    model = nn.Sequential(graph, nn.Linear(2, 2))
    assert set(model.state_dict()) == {"1.weight", "1.bias"}
    twin = copy.deepcopy(model).float()
    assert spmm(twin[0], torch.ones(5, 1)).dtype == torch.float32
    assert spmm(graph, torch.ones(5, 1, dtype=F64)).dtype == F64
    torch.testing.assert_close(twin[0].dense().double(), graph.dense(), rtol=1e-6, atol=0)


def test_refuses_embeddings_of_another_size(graph):
    with pytest.raises(ValueError, match=r"6 x 5 graph needs 5 rows.*shape \(6, 2\)"):
        spmm(graph, torch.ones(6, 2, dtype=F64))


def test_refuses_a_false_claim_of_symmetry():
    with pytest.raises(ValueError, match="3 x 3 matrix is not symmetric"):
        Graph(sp.csr_array(np.triu(np.ones((3, 3)))), symmetric=True)


def test_incidence_counts_a_pair_once():
    seen = incidence(np.array([[0, 1], [2, 0], [0, 1]]), 3, 2)
    assert seen.dense().tolist() == [[0, 1], [0, 0], [1, 0]]
    assert seen.num_entries == 2


@pytest.mark.parametrize("pair", [[0, 2], [3, 0], [0, -1]])
def test_incidence_refuses_ids_out_of_range(pair):
    with pytest.raises(ValueError, match="ids must be in"):
        incidence(np.array([[0, 0], pair]), 3, 2)


def test_bipartite_is_the_formula_with_its_epsilon():
    train = np.array([[0, 0], [0, 1], [2, 1], [0, 1]])  # user 1 and item 2 have no edge
    dense = np.zeros((6, 6))
    for user, item in ((0, 0), (0, 1), (2, 1)):
        dense[user, 3 + item] = dense[3 + item, user] = 1
    scale = np.diag((dense.sum(1) + 1e-7) ** -0.5)
    graph = bipartite(train, 3, 3, dtype=F64)
    np.testing.assert_allclose(graph.dense().numpy(), scale @ dense @ scale, rtol=1e-14)
    assert graph.num_entries == 6
    assert bipartite(train, 3, 3).dense().dtype == torch.float32


def test_the_halves_are_the_blocks_of_the_whole():
    train = np.array([[0, 0], [0, 1], [2, 1], [0, 3]])
    dense = bipartite(train, 3, 4, epsilon=0.5, dtype=F64).dense()
    to_users, to_items = bipartite_halves(train, 3, 4, epsilon=0.5, dtype=F64)
    assert torch.equal(to_users.dense(), dense[:3, 3:])
    assert torch.equal(to_items.dense(), dense[3:, :3])


def test_bipartite_is_the_released_graph():
    record = golden("lightgcn")
    graph = bipartite(pairs(record["cases"]["main"]["train"]), 6, 8, dtype=F64)
    expected = np.array(record["detail"]["graph_dense"]["value"])
    np.testing.assert_allclose(graph.dense().numpy(), expected, rtol=0, atol=1e-7)


@given(matrices(), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_weights_in_place_of_entries(matrix, width):
    graph = Graph(matrix, dtype=F64)
    weight = torch.randn(graph.num_entries, dtype=F64, requires_grad=True)
    x = torch.randn(matrix.shape[1], width, dtype=F64, requires_grad=True)
    dense = torch.zeros(matrix.shape, dtype=F64).index_put((graph.row_E, graph.column_E), weight)
    factor = torch.randn(matrix.shape[0], width, dtype=F64)
    out, expected = spmm(graph, x, weight), dense @ x
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    found = torch.autograd.grad((out * factor).sum(), (weight, x))
    wanted = torch.autograd.grad((expected * factor).sum(), (weight, x))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_weights_and_edge_dots_have_gradients_of_second_order(graph):
    weight = torch.randn(graph.num_entries, dtype=F64, requires_grad=True)
    left = torch.randn(6, 3, dtype=F64, requires_grad=True)
    right = torch.randn(5, 3, dtype=F64, requires_grad=True)
    torch.testing.assert_close(
        edge_dots(graph, left, right), (left @ right.T)[graph.row_E, graph.column_E]
    )
    assert torch.autograd.gradcheck(lambda w, x: spmm(graph, x, w), (weight, right))
    assert torch.autograd.gradcheck(lambda a, b: edge_dots(graph, a, b), (left, right))
    assert torch.autograd.gradgradcheck(lambda a, b: edge_dots(graph, a, b), (left, right))


@pytest.mark.parametrize("shared", ["neither", "weights", "rows"])
def test_lanes_under_weights_are_a_loop(graph, shared):
    weights = torch.randn(4, graph.num_entries, dtype=F64)
    x = torch.randn(4, 5, 3, dtype=F64)
    in_dims = (None if shared == "weights" else 0, None if shared == "rows" else 0)
    args = (weights[0] if shared == "weights" else weights, x[0] if shared == "rows" else x)

    def value(weight, x):
        return spmm(graph, x, weight).tanh().sum()

    both = torch.func.grad(value, argnums=(0, 1))
    found = torch.func.vmap(both, in_dims=in_dims)(*args)
    for lane in range(4):
        ends = [a if d is None else a[lane] for a, d in zip(args, in_dims, strict=True)]
        for part, expected in zip(found, both(*ends), strict=True):
            torch.testing.assert_close(part[lane], expected, rtol=1e-12, atol=1e-12)


def test_weights_of_another_length_are_refused(graph):
    with pytest.raises(ValueError, match="as many weights"):
        spmm(graph, torch.zeros(5, 2, dtype=F64), torch.zeros(3, dtype=F64))


def test_normalisations_by_hand():
    matrix = sp.csr_array(np.array([[0.0, 2.0, 2.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    # Row sums 4, 1, 0, on both sides: 2 / sqrt(4 * 1), and nothing towards the empty row.
    expected = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(symmetric(matrix).toarray(), expected)
    np.testing.assert_allclose(symmetric(matrix, epsilon=5.0).toarray()[0, 1], 2 / 54**0.5)
    np.testing.assert_allclose(row_mean(matrix).toarray(), [[0, 0.5, 0.5], [1, 0, 0], [0, 0, 0]])
    with pytest.raises(ValueError, match="row 0 of the graph sums to -1"):
        symmetric(sp.csr_array([[-1.0]]))


@given(st.integers(2, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_neighbours_are_the_largest_cosines(items, width, k, seed):
    table = np.random.default_rng(seed).standard_normal((items, width))
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    cosine = unit @ unit.T
    found = knn(table, k).toarray()
    for row in range(items):
        near = np.flatnonzero(found[row])
        assert row in near
        assert len(near) == min(k, items)
        np.testing.assert_allclose(found[row, near], cosine[row, near], atol=1e-12)
        rest = np.delete(cosine[row], near)
        assert not len(rest) or rest.max() <= cosine[row, near].min() + 2e-6


def test_ties_fall_in_one_random_order_and_empty_rows_are_nobodys():
    place = np.random.default_rng(0).permutation(40)
    table = np.ones((40, 3), dtype=np.float32)
    table[4] = 0
    hub = [item for item in np.argsort(place).tolist() if item != 4]
    assert hub[:3] != sorted(hub)[:3]
    expected = [[row, *[i for i in hub if i != row][:2]] for row in range(40)]
    expected[4] = [4, -1, -1]
    assert nearest(torch.from_numpy(table), 3).tolist() == expected
    found = knn(table, 3)
    assert [set(found[[row]].indices) for row in range(40)] == [{*e} - {-1} for e in expected]
    np.testing.assert_allclose(found.data, 1.0)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_lists_are_sorted_by_cosine_then_by_the_random_order(items, k, seed):
    table = np.random.default_rng(seed).integers(-1, 2, size=(items, 2)).astype(np.float64)
    length = np.linalg.norm(table, axis=1)
    cosine = np.round(table @ table.T / np.maximum(np.outer(length, length), 1), 3)
    place = np.random.default_rng(0).permutation(items)
    for row, near in enumerate(nearest(torch.from_numpy(table), k).tolist()):
        others = [i for i in range(items) if i != row and length[i] and length[row]]
        best = [row, *sorted(others, key=lambda i: (-cosine[row, i], place[i]))][:k]
        assert near == best + [-1] * (min(k, items) - len(best))


def test_a_pair_that_is_not_kept_is_no_neighbour():
    near = nearest(torch.eye(4) + 1, 3, keep=lambda start, stop: torch.eye(4)[start:stop] > 0)
    assert near.tolist() == [[row, -1, -1] for row in range(4)]


def test_common_columns_are_counted():
    rng = np.random.default_rng(1)
    seen = (rng.random((9, 7)) < 0.5).astype(float)
    counts = seen @ seen.T
    np.fill_diagonal(counts, 0)
    np.testing.assert_array_equal(co_occurrence(sp.csr_array(seen)).toarray(), counts)
    cut = co_occurrence(sp.csr_array(seen), least=2, most=3).toarray()
    shuffled = co_occurrence(sp.csr_array(seen), most=3, ties=np.random.default_rng(0)).toarray()
    for row in range(9):
        order = sorted(range(9), key=lambda column: (-counts[row, column], column))
        best = [column for column in order if counts[row, column] >= 2][:3]
        assert sorted(np.flatnonzero(cut[row])) == sorted(best)
        kept = np.sort(shuffled[row][shuffled[row] > 0])[::-1]
        np.testing.assert_array_equal(kept, [c for c in np.sort(counts[row])[::-1] if c][:3])


def test_the_strongest_of_each_row_and_lower_columns_of_equals():
    rows = np.array([[0.5, 0.25, 0.5, 0.5], [0, -1, 0, -2], [0, 0, 0, 0], [0.1, 0.2, 0.3, 0.4]])
    kept = strongest(sp.csr_array(rows), 2).toarray()
    expected = [[0.5, 0, 0.5, 0], [0, -1, 0, -2], [0, 0, 0, 0], [0, 0, 0.3, 0.4]]
    np.testing.assert_array_equal(kept, expected)
    lots = np.random.default_rng(0)
    drawn = sum(strongest(sp.csr_array(rows), 2, ties=lots).toarray()[0] > 0 for _ in range(60))
    assert drawn[1] == 0
    assert min(drawn[[0, 2, 3]]) > 20  # 40 each on average


def test_likely_edges_are_kept_more_often():
    weight = torch.tensor([1.0, 2.0, 5.0])
    draws = torch.Generator().manual_seed(0)
    first = np.array([keep_likely(weight, 1, draws).int().argmax() for _ in range(4000)])
    share = np.bincount(first, minlength=3) / len(first)
    np.testing.assert_allclose(share, [1 / 8, 2 / 8, 5 / 8], atol=0.03)  # 4 deviations
    assert keep_likely(weight, 2, draws).sum() == 2
    with pytest.raises(ValueError, match="cannot keep 0 of 3 edges"):
        keep_likely(weight, 0, draws)

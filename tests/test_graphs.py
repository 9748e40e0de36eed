import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmrec.graphs import Graph, bipartite, incidence, spmm
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


def test_bipartite_is_the_released_graph():
    record = golden("lightgcn")
    graph = bipartite(pairs(record["cases"]["main"]["train"]), 6, 8, dtype=F64)
    expected = np.array(record["detail"]["graph_dense"]["value"])
    np.testing.assert_allclose(graph.dense().numpy(), expected, rtol=0, atol=1e-7)

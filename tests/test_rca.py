from itertools import combinations, pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch.func import functional_call, grad, vmap

from mmrec.graphs import Graph
from mmrec.nn import rca
from mmrec.nn.rca import RCA, correlated

F64 = torch.float64
NODES, DIM = 7, 4


def module(modalities=2, depth=2, *, seed=0, **changes) -> RCA:
    rules = {"reading": "nodes", "shared": False, "mean": True, **changes}
    return RCA(modalities, DIM, depth, torch.Generator().manual_seed(seed), **rules)


def views(modalities=2, nodes=NODES, seed=1) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return [torch.randn(nodes, DIM, generator=draws, dtype=F64) for _ in range(modalities)]


def graph(mask_NN) -> Graph:
    return Graph(sp.csr_array(np.asarray(mask_NN, dtype=np.float64)), dtype=F64)


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().astype(np.float64)


def unit(x: np.ndarray, axis: int) -> np.ndarray:
    length = np.linalg.norm(x, axis=axis, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def refined(model: RCA, views, mask_NN=None) -> list[np.ndarray]:
    """The equations of the docstring, dense, in NumPy."""
    x = [array(view) for view in views]
    nodes, dim = x[0].shape
    for r in range(model.depth):
        w = model.sets[0 if len(model.sets) == 1 else r]
        pairs = list(combinations(range(len(x)), 2)) or [(0, 0)]
        after = []
        for m in range(len(x)):
            heard = []
            for at, pair in enumerate(pairs):
                if m not in pair:
                    continue
                both = np.hstack([x[pair[0]], x[pair[1]]])
                j = both @ array(w.joint[at].weight).T + array(w.joint[at].bias)
                value = x[m] @ array(w.value[m])
                if model.reading == "nodes":
                    q = x[m] @ array(w.query[m])
                    if model.normalise:
                        q, j = unit(q, 1) * dim**0.25, unit(j, 1) * dim**0.25
                    c = np.tanh(q @ j.T / np.sqrt(dim))
                    mask = np.ones((nodes, nodes)) if mask_NN is None else mask_NN
                    h = (c * mask) @ value
                    if model.mean:
                        h = h / np.maximum(mask.sum(1, keepdims=True), 1)
                else:
                    key = x[m]
                    if model.normalise:
                        key, j = (unit(unit(a, 1), 0) * nodes**0.25 for a in (key, j))
                    h = value @ np.tanh(key.T @ j / np.sqrt(nodes))
                heard.append(np.maximum(h, 0))
            after.append(x[m] + np.mean(heard, axis=0) @ array(w.back[m]))
        x = after
    return x


def assert_same(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        other = torch.as_tensor(other, dtype=one.dtype)
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


RULES = [
    {"reading": reading, "shared": shared, "mean": mean, "normalise": normalise}
    for reading in ("nodes", "features")
    for shared in (True, False)
    for mean in (True, False)
    for normalise in (True, False)
]


@pytest.mark.parametrize("modalities", [1, 2, 3])
@pytest.mark.parametrize("rules", RULES, ids=lambda rules: "-".join(map(str, rules.values())))
def test_follows_the_equations(modalities, rules):
    for depth in range(4):
        model = module(modalities, depth, **rules).double()
        assert_same(model(views(modalities)), refined(model, views(modalities)))


def test_depth_0_is_the_identity_and_trains_nothing():
    model = module(depth=0)
    assert_same(model(views()), views())
    assert not list(model.parameters())


def test_shared_weights_are_one_set():
    count = [
        sum(p.numel() for p in module(depth=depth, shared=True).parameters()) for depth in (1, 3)
    ]
    assert count[0] == count[1] == 2 * DIM * DIM + DIM + 2 * 3 * DIM * DIM


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("mean", [True, False])
def test_near_is_a_mask_of_the_correlation(mean, normalise):
    model = module(mean=mean, normalise=normalise).double()
    mask = np.random.default_rng(0).random((NODES, NODES)) < 0.4
    mask[2] = False  # a node with no neighbour
    assert_same(model(views(), graph(mask)), refined(model, views(), mask))
    assert_same(model(views(), graph(np.ones((NODES, NODES)))), model(views()))


@pytest.mark.parametrize("reading", ["nodes", "features"])
@pytest.mark.parametrize("normalise", [True, False])
def test_gradients_of_views_and_weights(reading, normalise):
    model = module(3, 1, reading=reading, normalise=normalise).double()
    names = [name for name, _ in model.named_parameters()]

    def run(*tensors):
        weights = dict(zip(names, tensors[3:], strict=True))
        return tuple(functional_call(model, weights, (tensors[:3],)))

    inputs = [view.requires_grad_() for view in views(3, nodes=5)]
    assert torch.autograd.gradcheck(run, (*inputs, *model.parameters()), fast_mode=True)


def test_every_weight_is_trained():
    for rules in RULES:
        model = module(3, 2, **rules).double()
        sum(view.square().sum() for view in model(views(3))).backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("reading", ["nodes", "features"])
def test_nodes_in_another_order_are_refined_alike(reading):
    model = module(3, reading=reading).double()
    order = torch.randperm(NODES, generator=torch.Generator().manual_seed(2))
    turned = model([view[order] for view in views(3)])
    assert_same(turned, [view[order] for view in model(views(3))])


@pytest.mark.parametrize("reading", ["nodes", "features"])
def test_longer_views_correlate_alike(reading):
    # The equations but for C are homogeneous in a view's length, so without a bias all is.
    model = module(reading=reading).double()
    for weights in model.sets:
        torch.nn.init.zeros_(weights.joint[0].bias)
    longer = model([1000 * view for view in views()])
    assert_same([view / 1000 for view in longer], model(views()))


@pytest.mark.parametrize("reading", ["nodes", "features"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_row_of_zeros_stays_and_has_a_finite_gradient(reading, masked):
    model = module(reading=reading).double()
    first, second = (view.requires_grad_() for view in views())
    with torch.no_grad():
        first[3] = 0
    near = graph(np.ones((NODES, NODES))) if masked and reading == "nodes" else None
    out = model([first, second], near)
    assert not out[0][3].any()
    sum(view.square().sum() for view in out).backward()
    everything = [first, second, *model.parameters()]
    assert all(t.grad is not None and t.grad.isfinite().all() for t in everything)
    assert first.grad.abs().max() < 1e3


@pytest.mark.parametrize("reading", ["nodes", "features"])
@pytest.mark.parametrize("masked", [True, False])
def test_lanes_are_a_loop(reading, masked):
    model = module(reading=reading).double()
    near = graph(np.eye(NODES) + 1) if masked and reading == "nodes" else None
    solo = [dict(module(reading=reading, seed=s).double().named_parameters()) for s in range(3)]

    seen = views()

    def loss(weights):
        return sum(v.square().sum() for v in functional_call(model, weights, (seen, near)))

    stacked = {name: torch.stack([lane[name] for lane in solo]).detach() for name in solo[0]}
    found = vmap(grad(loss))(stacked)
    for lane, weights in enumerate(solo):
        expected = grad(loss)({name: w.detach() for name, w in weights.items()})
        assert_same([found[name][lane] for name in expected], expected.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: module(0), "modalities=0"),
        (lambda: module(depth=-1), "depth=-1"),
        (lambda: module(3)(views(2)), "3 modalities .* got 2"),
        (lambda: module(reading="features")(views(), graph(np.eye(NODES))), "features"),
        (lambda: module()(views(), graph(np.eye(3))), r"7 nodes .* \(3, 3\)"),
    ],
)
def test_refuses_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the correlation of all nodes with all


def operands(dtype=F64, rows=NODES, columns=6, width=3) -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(3)
    shapes = ((rows, DIM), (columns, DIM), (columns, width), (rows, width))
    return [torch.randn(shape, generator=draws, dtype=dtype) for shape in shapes]


def with_slopes(function, x, j, v, factor) -> list[torch.Tensor]:
    inputs = [part.clone().requires_grad_() for part in (x, j, v)]
    out = function(*inputs)
    return [out, *torch.autograd.grad((out * factor).sum(), inputs)]


def dense(x, j, v):
    return torch.tanh(x @ j.T) @ v


@pytest.mark.parametrize("tile", [(1, 1), (3, 2), (7, 5), (100, 100)])
def test_tiles_are_the_whole(tile, monkeypatch):
    monkeypatch.setattr(rca, "_TILE", tile)
    assert_same(with_slopes(correlated, *operands()), with_slopes(dense, *operands()))
    inputs = [part.requires_grad_() for part in operands()[:3]]
    assert torch.autograd.gradcheck(correlated, inputs)


@pytest.mark.parametrize("least", [1, 2**30])
def test_single_precision_with_and_without_one_dnn(least, monkeypatch):
    monkeypatch.setattr(rca, "_LEAST", least)
    monkeypatch.setattr(rca, "_TILE", (64, 48))
    single = operands(torch.float32, rows=150, columns=130, width=5)
    found = with_slopes(correlated, *single)
    expected = with_slopes(dense, *[part.double() for part in single])
    for one, other in zip(found, expected, strict=True):
        size = float(other.detach().abs().max())
        torch.testing.assert_close(one.double() / size, other / size, rtol=1e-6, atol=1e-6)


def test_memory_may_be_in_any_order(monkeypatch):
    monkeypatch.setattr(rca, "_LEAST", 1)
    turned = [part.T.contiguous().T for part in operands(torch.float32, rows=40, columns=30)[:3]]
    found, expected = (
        torch.autograd.grad(function(*inputs).sum(), inputs)  # of one number in all places
        for function in (correlated, dense)
        for inputs in ([part.requires_grad_() for part in turned],)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("in_dims", [(0, 0, 0), (None, 0, 1), (0, None, None)])
def test_lanes_of_the_correlation_are_a_loop(in_dims):
    args = [
        part if dim is None else torch.stack([part, 2 * part, -part], dim)
        for part, dim in zip(operands()[:3], in_dims, strict=True)
    ]
    both = grad(lambda *ends: correlated(*ends).tanh().sum(), argnums=(0, 1, 2))
    found = vmap(both, in_dims=in_dims)(*args)
    for lane in range(3):
        ends = [a if d is None else a.select(d, lane) for a, d in zip(args, in_dims, strict=True)]
        assert_same([part[lane] for part in found], both(*ends))


def test_keeps_memory_linear_in_nodes_for_the_way_back():
    kept = []
    for nodes in (200, 400, 800):
        sizes = {}  # by storage: what is kept twice is in memory once

        def note(tensor, sizes=sizes):
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = module().double()([v.requires_grad_() for v in views(nodes=nodes)])
        kept.append(sum(sizes.values()))
        assert max(sizes.values()) < nodes * nodes
        del out
    assert all(second <= 2 * first for first, second in pairwise(kept))

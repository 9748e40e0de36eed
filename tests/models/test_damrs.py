import dataclasses

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from mmrec.data.dataset import Dataset, Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs, distinct
from mmrec.models.damrs import DAMRS, discriminate, divergence, shares
from mmrec.nn.agreed_graphs import agreed_neighbours, mean_of_listed
from tests.models.golden import assert_like, assert_norm, batch_of, golden, pairs
from tests.models.tiny import tiny

RECORD = golden("damrs")
DETAIL = RECORD["detail"]["cases"]


def features(num_items: int, *, alternate: bool) -> dict[str, Dense]:
    i, j = np.ogrid[:num_items, :10]
    image = np.sin(1 + 0.7 * i + 1.3 * j + 0.31 * i * j * alternate) + 0.5 * alternate
    i, j = np.ogrid[:num_items, :7]
    text = np.cos(2 + 1.1 * i - 0.9 * j + 0.23 * i * j * alternate) + 0.5 * alternate
    there = np.ones(num_items, dtype=bool)
    return {"image": Dense(there, image), "text": Dense(there, text)}


def problem(train: list[list[int]], num_items: int, *, alternate: bool) -> Dataset:
    none = np.zeros((0, 2), dtype=np.int64)
    table = features(num_items, alternate=alternate)
    return Dataset("golden", len(train), num_items, pairs(train), none, none, features=table)


def released(name: str):
    """The model of a golden case with its weights and its behaviour file, and its batch."""
    case, alternate = RECORD["cases"][name], "alternate" in name
    hyper, (user, item) = case["hyper"], case["parameters"][:2]
    cfg = DAMRS(
        dim=hyper["embedding_size"],
        ui_layers=hyper["n_ui_layers"],
        item_layers=hyper["n_mm_layers"],
        knn_k=hyper["knn_k"],
        behaviour_k=hyper["topk_behaviour"],
        shared_users=hyper["cooccurrence_threshold"],
        pool=hyper["pool_size"],
        tau=hyper["temperature"],
        neighbour_weight=hyper["neighbor_weight"],
        kl_weight=hyper["kl_weight"],
    )
    num_items = len(case["item"])
    data = problem(DETAIL[name]["interactions"], num_items, alternate=alternate)
    model = cfg.build(data, torch.Generator())
    with torch.no_grad():
        for table, record in ((model.user_UD, user), (model.item_ID, item)):
            at = torch.arange(table.numel(), dtype=torch.float64)
            angle = 0.37 * at + 0.013 * at * at * alternate + record["p"]
            table.copy_((record["amplitude"] * torch.sin(angle)).view(table.shape))
    listed = {int(i): near for i, (near, _) in DETAIL[name]["item_graph_file"].items()}
    file = np.zeros((data.num_items, data.num_items))
    for i, near in listed.items():
        file[i, near] = 7.0
    model.views[-1] = mean_of_listed(sp.csr_array(file))
    return model, with_lists(batch_of(case))


def with_lists(batch):
    users, user_at = distinct(batch.user)
    items, positive_at, negative_at = distinct(batch.positive, batch.negative)
    extra = {
        "users": users,
        "user_at": user_at,
        "items": items,
        "positive_at": positive_at,
        "negative_at": negative_at,
    }
    return dataclasses.replace(batch, extra=extra)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RECORD["cases"])
def test_reproduces_the_released_model(name):
    case, detail = RECORD["cases"][name], DETAIL[name]
    model, batch = released(name)
    for graph, key in zip(model.views, ("image_knn", "text_knn", "behaviour"), strict=True):
        assert_like(graph.dense().round(decimals=7), detail["graphs"][key])
    user, item = model.embeddings()
    assert_like(user.round(decimals=7), case["user"])
    assert_like(item.round(decimals=7), case["item"])
    assert_like(model.score(user, item), case["scores"])

    wanted, hyper = case["loss_terms"], case["hyper"]
    parts = [wanted[f"neighbour_{name}"] for name in ("image", "text", "behaviour")]
    views = model.smoothed()
    unit = torch.nn.functional.normalize(views, dim=-1)
    items = batch.extra["items"]
    assert_like(discriminate(unit, items, shares(items), model.tau, model.pool), parts)
    kept, turned = model.pair_weights(user[batch.user], views, batch)
    weights = torch.cat((kept, turned), dim=1)
    assert_like(
        weights, np.stack([detail["pair_weights"][n] for n in ("positive", "negative")], axis=1)
    )

    terms = model.losses(batch).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert_like(terms["bpr"], wanted["bpr"])
    assert_like(terms["kl"], hyper["kl_weight"] * wanted["kl"])
    assert_like(terms["neighbour"], hyper["neighbor_weight"] * np.mean(parts))
    assert_like(total, case["loss_total"])
    assert_norm(model.user_UD.grad, case["grad_l2"]["user_table"])
    assert_norm(model.item_ID.grad, case["grad_l2"]["item_table"])


@pytest.mark.parametrize("name", ["wide_pool10_alternate_rule", "tiny_pool3"])
def test_behaviour_counts_agree_with_the_file_up_to_ties(name):
    detail = DETAIL[name]
    counts = np.array(detail["cooccurrence_counts_thresholded"])
    data = problem(detail["interactions"], len(counts), alternate=False)
    behaviour = DAMRS(dim=2, pool=2).build(data, torch.Generator()).views[-1].dense().numpy() > 0
    for i, (near, weights) in detail["item_graph_file"].items():
        ours = np.flatnonzero(behaviour[int(i)] & (np.arange(len(counts)) != int(i)))
        assert sorted(counts[int(i), ours]) == sorted(weights)
        best = np.argsort(-counts[int(i)], kind="stable")[: len(near)]
        assert set(ours) == set(best)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def dense_graphs(data: Dataset, names: tuple[str, ...], k: int) -> list[np.ndarray]:
    """The views' graphs and, last, the user-item graph, from the specification's sentences."""
    tables = [np.asarray(data.features[name].values) for name in names]
    cosines = [unit(table) @ unit(table).T for table in tables]
    survive = np.all([cosine >= cosine.mean() for cosine in cosines], axis=0)
    patterns = []
    for cosine in cosines:
        pattern = np.zeros_like(cosine)
        for i, row in enumerate(np.where(survive, cosine, -np.inf)):
            best = np.argsort(-row, kind="stable")[:k]
            pattern[i, best[row[best] > -np.inf]] = 1
        patterns.append(pattern)
    seen = np.zeros((data.num_users, data.num_items))
    seen[tuple(data.train.T)] = 1
    shared = seen.T @ seen
    np.fill_diagonal(shared, 0)
    pattern = np.eye(data.num_items)
    for i, row in enumerate(shared):
        best = np.argsort(-row, kind="stable")[:2]
        pattern[i, best[row[best] >= 2]] = 1
    patterns.append(pattern)
    users = np.zeros((data.num_users,) * 2)
    patterns.append(np.block([[users, seen], [seen.T, np.zeros((data.num_items,) * 2)]]))
    scales = [(pattern.sum(1) + 1e-7) ** -0.5 for pattern in patterns]
    return [s[:, None] * p * s for p, s in zip(patterns, scales, strict=True)]


def dense_neighbour(
    h: list[np.ndarray], gates: list[float], items: np.ndarray, tau: float, pool: int
) -> list[float]:
    cosine = [unit(x[items]) @ unit(x).T for x in h]
    p = [np.exp(c) / np.exp(c).sum(1, keepdims=True) for c in cosine]
    losses = []
    for v, c in enumerate(cosine):
        others = sum(gates[w] * q for w, q in enumerate(p) if w != v)
        first = np.argsort(-(others + (len(h) - 1) * p[v]), axis=1)[:, :pool]
        left = p[v].copy()
        np.put_along_axis(left, first, 0, axis=1)
        second = np.argsort(-left, axis=1)[:, :pool]
        e = np.exp(c / tau)
        s1, s2 = (np.take_along_axis(e, at, axis=1).sum(1) for at in (first, second))
        total = e.sum(1)
        parts = -np.log(s1 / total + 1e-9) - np.log(s2 / (total - s1) + 1e-9)
        losses.append(gates[v] * parts.mean())
    return losses


def heard(chances: list[np.ndarray], gates: list[float]) -> np.ndarray:
    """Predictions of the views, each as far from their weighted mean as its gate lets it."""
    mean = np.average(chances, axis=0, weights=gates)
    return np.stack([mean + g * (chance - mean) for g, chance in zip(gates, chances, strict=True)])


def opened(model, gates: tuple[float, ...] | None) -> list[float]:
    """The gates of the views, once they are set; behaviour has 1."""
    if gates is None:
        return [1] * len(model.views)
    with torch.no_grad():
        model.gates.logit_M.copy_((torch.tensor(gates) / 2).logit())
    return [*gates, 1]


def third(data: Dataset) -> Dataset:
    i, j = np.ogrid[: data.num_items, :5]
    audio = Dense(np.ones(data.num_items, dtype=bool), np.cos(0.4 * i * (j + 1) + j) + 0.4)
    return dataclasses.replace(data, features={**data.features, "audio": audio})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("names", "gates"),
    [
        (("text",), None),
        (("image", "text"), None),
        (("audio", "image", "text"), None),
        (("image", "text"), (0.5, 1.3)),
    ],
)
def test_follows_the_equations_for_one_to_three_modalities(names, gates):
    train = DETAIL["wide_pool10_alternate_rule"]["interactions"]
    data = third(problem(train, 24, alternate=True))
    cfg = DAMRS(
        dim=5,
        ui_layers=3,
        item_layers=2,
        knn_k=4,
        pool=4,
        tau=0.3,
        neighbour_weight=0.2,
        kl_weight=0.7,
        modalities=names,
        gate_modalities=gates is not None,
    )
    model = cfg.build(data, torch.Generator().manual_seed(1))
    gates = opened(model, gates)
    *views, whole = dense_graphs(data, names, 4)
    for graph, wanted in zip(model.views, views, strict=True):
        assert_like(graph.dense(), wanted)

    with torch.no_grad():
        model.user_UD.mul_(10)
    table = model.item_ID.detach().numpy()
    start = np.concatenate((model.user_UD.detach().numpy(), table))
    mean = np.mean([np.linalg.matrix_power(whole, hop) @ start for hop in range(4)], axis=0)
    u, c = mean[: data.num_users], mean[data.num_users :]
    h = [np.linalg.matrix_power(graph, 2) @ table for graph in views]
    added = np.mean([gate * x for gate, x in zip(gates, h, strict=True)], axis=0)
    item = c + added
    user, actual = model.embeddings()
    assert_like(user, u)
    assert_like(actual, item)

    draws = Draws(1)
    batch = next(iter(model.epoch_batches(TrainingPairs.of(data), draws, 0, BatchShape(60, 2))))
    terms = model.losses(batch).terms
    users, positives, negatives = (
        ids.numpy() for ids in (batch.user, batch.positive, batch.negative)
    )
    items = np.unique(np.concatenate((positives, negatives.ravel())))
    assert_like(terms["neighbour"], 0.2 * np.mean(dense_neighbour(h, gates, items, 0.3, 4)))

    some = np.unique(users)
    p, q = (sigmoid(u[some] @ unit(x[items]).T) for x in (c, added))

    def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))

    assert_like(terms["kl"], 0.7 * (kl(p, q) + kl(q, p)).mean())

    a = heard([sigmoid((u[users] * unit(x)[positives]).sum(1)) for x in h], gates)
    b = heard([sigmoid(np.einsum("bd,bnd->bn", u[users], unit(x)[negatives])) for x in h], gates)
    kept = np.clip(a.mean(0) * np.exp(-a.var(0, ddof=1)) ** 2, 0, 1)
    turned = np.where(a.mean(0) < b.mean(), np.clip(a.max(0) - b.mean(), 0, 1), 0)
    assert 0 < (turned > 0).sum() < len(turned)
    own = (u[users] * item[positives]).sum(1)[:, None]
    x = own - np.einsum("bd,bnd->bn", u[users], item[negatives])
    wanted = kept[:, None] * np.log(sigmoid(x)) + turned[:, None] * np.log(sigmoid(-x))
    assert_like(terms["bpr"], -wanted.mean())


@pytest.mark.usefixtures("float64")
def test_the_gradient_that_is_formed_with_the_loss_is_its_derivative():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 12, 2, generator=rng).requires_grad_()
    items = torch.tensor([0, 3, 4, 11])

    def loss(x: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(x, dim=-1)
        return discriminate(unit, items, shares(items), torch.tensor(0.4), 2)

    assert torch.autograd.gradcheck(loss, (x,), fast_mode=True)


@pytest.mark.usefixtures("float64")
def test_the_divergence_comes_with_its_derivative_whatever_the_weights():
    rng = torch.Generator().manual_seed(0)
    tables = [torch.randn(n, 3, generator=rng).requires_grad_() for n in (4, 5, 5)]
    share_S, share_Q = shares(torch.tensor([0, 2, 3, 3])), torch.rand(5, generator=rng)
    assert torch.autograd.gradcheck(
        lambda *tables: divergence(*tables, share_S, share_Q), tables, fast_mode=True
    )


def test_neighbour_terms_are_exact_in_float32_and_finite_when_cold():
    rng = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(3, 200, 8, generator=rng), dim=-1)
    items = torch.arange(0, 200, 7)
    tau = torch.tensor(0.2)
    near = discriminate(x, items, shares(items), tau, 10)
    exact = discriminate(x.double(), items, shares(items).double(), tau.double(), 10)
    torch.testing.assert_close(near.double(), exact, rtol=1e-6, atol=0)
    cold = x.clone().requires_grad_()
    discriminate(cold, items, shares(items), torch.tensor(0.002), 10).sum().backward()
    assert cold.grad.isfinite().all()


def test_a_saturated_prediction_has_a_finite_divergence():
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[-1.0, 0.0]])
    user = torch.tensor([[300.0, 0.0]]).requires_grad_()
    one = torch.ones(1)
    found = divergence(user, first, second, one, one)
    # p = 1 and q = 0 to rounding: their logits are 600 apart.
    assert float(found.detach()) == pytest.approx(600)
    found.backward()
    assert float(user.grad[0, 0]) == pytest.approx(2)


def test_an_id_that_a_lane_repeats_has_no_share():
    listed = torch.tensor([0, 2, 5, 5, 5])
    assert shares(listed).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0])
    assert shares(torch.tensor([4])).tolist() == [1]


def test_a_pair_is_judged_by_the_modalities_that_both_items_have():
    angle = np.deg2rad([0, 10, 20, 180])
    text = np.stack((np.cos(angle), np.sin(angle)), axis=1).astype(np.float32)
    image = np.array([[1, 0], [-1, 0], [0, 0], [1, 0.1]], dtype=np.float32)
    by_image, by_text = (g.toarray().astype(int) for g in agreed_neighbours([image, text], 4))
    # 0 and 1 differ in the image; 2 has none; 3 differs from all in the text.
    assert by_text.tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert by_image.tolist() == np.eye(4, dtype=int).tolist()


def test_equal_rows_agree_with_each_other_and_with_all():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(9, 4)).astype(np.float32)
    alone = agreed_neighbours([text], 5)[0].toarray()
    same = np.repeat(rng.normal(size=(1, 300)), 9, axis=0).astype(np.float32)
    beside = agreed_neighbours([text, same], 5)
    np.testing.assert_array_equal(beside[0].toarray(), alone)
    assert (beside[1].toarray().sum(1) == alone.sum(1)).all()


def test_refuses_pools_that_do_not_fit_and_items_without_features():
    with pytest.raises(ValueError, match="two pools of 11 items need 22 or more, got 20"):
        DAMRS(dim=4, pool=11).build(tiny(), torch.Generator())
    with pytest.raises(ValueError, match="DAMRS needs at least a modality"):
        DAMRS(dim=4).build(dataclasses.replace(tiny(), features={}), torch.Generator())

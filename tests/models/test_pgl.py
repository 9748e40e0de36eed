import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmrec.data.dataset import Dataset, Dense
from mmrec.data.sampling import BatchShape, Draws, TrainingPairs
from mmrec.graphs import spmm
from mmrec.models.pgl import PGL, principal_part
from mmrec.nn.item_graphs import PrunedBipartite
from tests.models.golden import assert_like, assert_norm, batch_of, golden, pairs
from tests.models.tiny import tiny

RECORD = golden("pgl")
DETAIL = RECORD["detail"]["cases"]
VIEWS = ("user_view1", "user_view2", "item_view1", "item_view2")


def features(num_items: int, *, alternate: bool) -> dict[str, Dense]:
    i, j = np.ogrid[:num_items, :10]
    image = np.sin(1 + 0.7 * i + 1.3 * j + 0.31 * i * j * alternate) + 0.5 * alternate
    i, j = np.ogrid[:num_items, :7]
    text = np.cos(2 + 1.1 * i - 0.9 * j + 0.23 * i * j * alternate) + 0.5 * alternate
    there = np.ones(num_items, dtype=bool)
    return {"image": Dense(there, image), "text": Dense(there, text)}


def problem(train: list[list[int]], *, alternate: bool = False) -> Dataset:
    num_items = 1 + max(map(max, train))
    none = np.zeros((0, 2), dtype=np.int64)
    table = features(num_items, alternate=alternate)
    return Dataset("golden", len(train), num_items, pairs(train), none, none, features=table)


def config_of(hyper: dict, **more) -> PGL:
    return PGL(
        dim=hyper["embedding_size"],
        ui_layers=hyper["n_ui_layers"],
        item_layers=hyper["n_mm_layers"],
        knn_k=hyper["knn_k"],
        image_weight=hyper["mm_image_weight"],
        mode=hyper["mode"],
        kept_fraction=hyper["kept_fraction"],
        cl_weight=hyper["reg_weight"],
        tau=hyper["temperature"],
        dropout=hyper["dropout"],
        **more,
    )


def released(name: str, **more):
    """The model of a golden case with its weights, its kept edges and its batch."""
    case, alternate = RECORD["cases"][name], "alternate" in name
    model = config_of(case["hyper"], **more).build(
        problem(case["train"], alternate=alternate), torch.Generator()
    )

    def filled(record: dict) -> torch.Tensor:
        at = torch.arange(int(np.prod(record["shape"])), dtype=torch.float64)
        angle = 0.37 * at + 0.013 * at * at * alternate + record["p"]
        return (record["amplitude"] * torch.sin(angle)).view(record["shape"])

    image, text, *maps = (filled(record) for record in case["parameters"][:6])
    with torch.no_grad():
        model.user_UC.copy_(torch.cat((image, text), dim=1))
        for part, weight, bias in zip(model.maps, maps[::2], maps[1::2], strict=True):
            part.map.weight.copy_(weight)
            part.map.bias.copy_(bias)
    detail = DETAIL[name]
    if case["hyper"]["mode"] == "local":
        kept = torch.zeros(len(pairs(case["train"])), dtype=torch.bool)
        kept[detail["kept_edge_positions"]] = True
        model.trained.keep(kept)
    masks = detail["dropout_keep_masks"]
    shape = (len(case["batch"]["users"]), model.user_UC.shape[1])
    every = [masks[view] if masks else torch.ones(shape) for view in VIEWS]
    keep = torch.stack([torch.as_tensor(mask) for mask in every], dim=1).bool()
    return model, batch_of(case, keep=keep)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RECORD["cases"])
def test_reproduces_the_released_model(name):
    case, detail = RECORD["cases"][name], DETAIL[name]
    model, batch = released(name)
    user, item = model.embeddings()
    assert_like(user.round(decimals=7), case["user"])
    assert_like(item.round(decimals=7), case["item"])
    assert_like(model.score(user, item), case["scores"])
    assert_like(model.alike.dense().round(decimals=7), detail["graphs"]["item_graph"])
    assert_like(part_of(model).round(decimals=9), detail["graphs"]["subgraph"])

    terms, wanted = model.losses(batch).terms, case["loss_terms"]
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    contrast = (wanted["contrast_users"] + wanted["contrast_items"]) / 2
    assert_like(terms["bpr"], wanted["bpr"])
    assert_like(terms["contrast"], case["hyper"]["reg_weight"] * contrast)
    assert_like(total, case["loss_total"])
    halves = model.user_UC.grad.chunk(2, dim=1)
    for m, modality in enumerate(("image", "text")):
        norms = case["grad_l2"]
        assert_norm(halves[m], norms[f"user_{modality}_table"])
        assert_norm(model.maps[m].map.weight.grad, norms[f"{modality}_weight"])
        assert_norm(model.maps[m].map.bias.grad, norms[f"{modality}_bias"])
        assert_norm(model.maps[m].features.table_IF.grad, norms[f"{modality}_features"])


def part_of(model) -> torch.Tensor:
    """(V, V) the graph that is trained on."""
    if isinstance(model.trained, PrunedBipartite):
        return spmm(model.graph, torch.eye(model.graph.shape[0]), model.trained.weight_E)
    return model.trained.dense()


def audio(data: Dataset) -> Dataset:
    """The same data with a third modality."""
    i, j = np.ogrid[: data.num_items, :5]
    third = Dense(np.ones(data.num_items, dtype=bool), np.cos(0.4 * i * (j + 1) + j))
    return dataclasses.replace(data, features={**data.features, "audio": third})


def dense_embeddings(
    model,
    data: Dataset,
    shares: dict[str, float],
    graph: np.ndarray,
    gates: tuple[float, ...] = (1, 1, 1),
):
    """The specification's equations in numpy, from a model's weights."""
    names = sorted(shares)
    mapped, alike = [], np.zeros((data.num_items, data.num_items))
    for name, part, gate in zip(names, model.maps, gates, strict=False):
        table = part.features.table_IF.detach().numpy()
        out = table @ part.map.weight.detach().numpy().T + part.map.bias.detach().numpy()
        mapped.append(gate * out / np.linalg.norm(out, axis=1, keepdims=True))
        unit = table / np.linalg.norm(table, axis=1, keepdims=True)
        best = np.argsort(-(unit @ unit.T), axis=1, kind="stable")[:, :4]
        entry = gate * shares[name] / (4 + 1e-7)
        np.add.at(alike, (np.arange(data.num_items)[:, None], best), entry)
    item = np.concatenate(mapped, axis=1)
    state = np.concatenate((model.user_UC.detach().numpy(), item))
    states = [np.linalg.matrix_power(graph, hop) @ state for hop in range(model.ui_layers + 1)]
    mean = np.mean(states, axis=0)
    smooth = np.linalg.matrix_power(alike, model.item_layers) @ item
    return mean[: data.num_users], mean[data.num_users :] + smooth


def normalised(data: Dataset) -> np.ndarray:
    seen = np.zeros((data.num_users, data.num_items))
    seen[tuple(data.train.T)] = 1
    square = np.block(
        [
            [np.zeros((data.num_users,) * 2), seen],
            [seen.T, np.zeros((data.num_items,) * 2)],
        ]
    )
    scale = (square.sum(1) + 1e-7) ** -0.5
    return scale[:, None] * square * scale


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("modalities", "shares", "gates"),
    [
        (("text",), {"text": 1.0}, None),
        (("image", "text"), {"image": 0.3, "text": 0.7}, None),
        (("audio", "image", "text"), {"audio": 0.35, "image": 0.3, "text": 0.35}, None),
        (("audio", "image", "text"), {"audio": 0.35, "image": 0.3, "text": 0.35}, (1, 0.5, 1.3)),
    ],
)
def test_follows_the_equations_for_one_to_three_modalities(modalities, shares, gates):
    data = audio(problem(DETAIL["global_two_pairs_alternate_rule"]["interactions"], alternate=True))
    cfg = PGL(
        dim=5,
        ui_layers=3,
        item_layers=2,
        knn_k=4,
        image_weight=0.3,
        cl_weight=0.4,
        tau=0.7,
        modalities=modalities,
        gate_modalities=gates is not None,
    )
    model = cfg.build(data, torch.Generator().manual_seed(3))
    if gates:
        with torch.no_grad():
            model.gates.logit_M.copy_((torch.tensor(gates) / 2).logit())
    gates = gates or (1, 1, 1)
    wanted = dense_embeddings(model, data, shares, normalised(data), gates)
    for actual, table in zip(model.embeddings(), wanted, strict=True):
        assert_like(actual, table)
    for view_ID, gate in zip(model.item_views().values(), gates, strict=False):
        assert_like(view_ID.norm(dim=1), np.full(data.num_items, gate))

    model.start_epoch(Draws(1), 0)
    batch = next(iter(model.epoch_batches(TrainingPairs.of(data), Draws(1), 0, BatchShape(9, 2))))
    terms = model.losses(batch).terms
    part = part_of(model).numpy()
    tables = dense_embeddings(model, data, shares, part, gates)
    user, positive, negative = (
        table[ids.numpy()]
        for table, ids in zip(
            (tables[0], tables[1], tables[1]),
            (batch.user, batch.positive, batch.negative),
            strict=True,
        )
    )
    x = (user * positive).sum(1)[:, None] - np.einsum("bc,bnc->bn", user, negative)
    assert_like(terms["bpr"], np.log1p(np.exp(-x)).mean())

    def contrast(row: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
        views = [row * mask for mask in (first, second)]
        views = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in views]
        logits = np.exp(views[0] @ views[1].T / 0.7)
        return -np.log(np.diag(logits) / logits.sum(1)).mean()

    keep = batch.extra["keep"].numpy()
    both = contrast(user, keep[:, 0], keep[:, 1]) + contrast(positive, keep[:, 2], keep[:, 3])
    assert_like(terms["contrast"], 0.4 * both / 2)


@pytest.mark.usefixtures("float64")
def test_an_epoch_trains_on_the_kept_edges_normalised_by_themselves():
    data = tiny()
    model = PGL(dim=4, kept_fraction=0.5).build(data, torch.Generator())
    model.start_epoch(Draws(5), 2)
    part = part_of(model).numpy()
    kept = part[:24, 24:] > 0
    assert kept.sum() == len(data.train) // 2
    scale = [(kept.sum(axis) + 1e-7) ** -0.5 for axis in (1, 0)]
    np.testing.assert_allclose(part[:24, 24:], kept * scale[0][:, None] * scale[1], atol=1e-12)
    np.testing.assert_array_equal(part, part.T)


@pytest.mark.usefixtures("float64")
def test_the_global_part_is_a_truncated_decomposition():
    rng = np.random.default_rng(0)
    train = np.argwhere(rng.random((24, 20)) < 0.3)
    data, dim = dataclasses.replace(tiny(), train=train), 32
    block = normalised(data)[:24, 24:]
    left, value, right = np.linalg.svd(block)
    assert np.diff(value).max() < -1e-3
    # Of the 16 largest values the first 4 meet the last 4.
    wanted = (left[:, :4] * value[:4] * value[12:16]) @ right[:4]
    wanted[np.abs(wanted) < 1e-3] = 0
    part = principal_part(data, dim).dense()
    assert_like(part[:24, 24:], wanted)
    assert_like(part[24:, :24], wanted.T)
    assert not part[:24, :24].any()
    assert not part[24:, 24:].any()


def test_the_global_part_needs_vectors_and_a_dataset_that_has_them():
    for dim in (4, 40):
        with pytest.raises(ValueError, match=f"got a dim of {dim}, 24 users and 20 items"):
            PGL(dim=dim, mode="global").build(tiny(), torch.Generator())


def test_the_described_model_has_the_contrastive_term_and_no_other_difference():
    cfg = PGL(dim=4)
    rows = TrainingPairs.of(tiny())
    models = [
        replace(cfg, **more).build(tiny(), Draws(0).generator("init"))
        for more in ({}, {"variant": "described"}, {"cl_weight": 0.05}, {"cl_weight": 0.0})
    ]
    found = []
    for model in models:
        model.start_epoch(Draws(0), 0)
        batch = next(iter(model.epoch_batches(rows, Draws(0), 0, BatchShape(20, 1))))
        assert ("keep" in batch.extra) == (model is not models[0])
        terms = model.losses(batch).terms
        found.append({name: float(term.detach()) for name, term in terms.items()})
    off, described, given, weightless = found
    assert list(off) == ["bpr"]
    assert described == given
    assert described["contrast"] > 0
    assert weightless == {"bpr": off["bpr"], "contrast": 0.0}
    assert described["bpr"] == off["bpr"]


def test_dropout_is_the_share_of_entries_that_a_view_loses():
    data = tiny()
    model = PGL(dim=16, dropout=0.3, cl_weight=0.1).build(data, torch.Generator())
    batches = model.epoch_batches(TrainingPairs.of(data), Draws(0), 0, BatchShape(30, 1))
    keep = torch.cat([batch.extra["keep"] for batch in batches]).double()
    assert keep.shape == (72, 4, 32)
    assert keep.mean(dim=(0, 2)) == pytest.approx(0.7, abs=0.03)
    agreement = (keep[:, 0] == keep[:, 1]).double().mean()
    assert float(agreement) == pytest.approx(0.7**2 + 0.3**2, abs=0.04)


def test_frozen_features_are_no_parameters_and_give_the_same_losses():
    models = [
        PGL(dim=4, train_features=trained).build(tiny(), Draws(0).generator("init"))
        for trained in (True, False)
    ]
    names = [dict(model.named_parameters()) for model in models]
    assert {n for n in names[0] if n not in names[1]} == {
        "maps.0.features._table",
        "maps.1.features._table",
    }
    losses = []
    for model in models:
        model.start_epoch(Draws(0), 0)
        batches = model.epoch_batches(TrainingPairs.of(tiny()), Draws(0), 0, BatchShape(20, 1))
        losses.append(model.losses(next(iter(batches))).terms["bpr"])
    torch.testing.assert_close(losses[0], losses[1])


def test_scores_use_the_whole_graph_whatever_was_kept():
    model = PGL(dim=4).build(tiny(), torch.Generator())
    before = model.embeddings()
    model.start_epoch(Draws(0), 0)
    for was, now in zip(before, model.embeddings(), strict=True):
        assert torch.equal(was, now)
    assert not torch.allclose(model.graph.dense(), part_of(model))


def test_needs_a_modality():
    data = dataclasses.replace(tiny(), features={})
    with pytest.raises(ValueError, match="PGL needs at least a modality"):
        PGL(dim=4).build(data, torch.Generator())

import dataclasses

import numpy as np
import pytest
import torch

from mmrec.config import override
from mmrec.data.dataset import Dense
from mmrec.data.sampling import Draws, distinct
from mmrec.models.base import Batch
from mmrec.models.freedom import FREEDOM
from tests.models.golden import (
    assert_like,
    assert_norm,
    batch_of,
    features,
    filled,
    golden,
    pairs,
    problem,
)
from tests.models.tiny import tiny

RECORD = golden("freedom")
CASE = RECORD["cases"]["main"]
DETAIL = RECORD["detail"]
HYPER = CASE["hyper"]
REG = HYPER["reg_weight"]
KNOBS = {
    "n_ui_layers": "ui_layers",
    "n_mm_layers": "item_layers",
    "knn_k": "knn_k",
    "mm_image_weight": "image_weight",
    "dropout": "dropout",
    "reg_weight": "reg_weight",
    "embedding_size": "dim",
}
TABLES = {"user_table": "user_UD", "item_table": "item_ID"}


def placed(batch: Batch) -> Batch:
    items, positive_at, negative_at = distinct(batch.positive, batch.negative)
    places = {"items": items, "positive_at": positive_at, "negative_at": negative_at}
    return dataclasses.replace(batch, extra=places)


def released(changes: dict | None = None, names: tuple[str, ...] = ("image", "text")):
    """The model of a record, and the release's names of its parameters."""
    hyper = HYPER | (changes or {})
    cfg = FREEDOM(modalities=names)
    cfg = override(cfg, {ours: hyper[theirs] for theirs, ours in KNOBS.items()})
    model = cfg.build(problem(CASE, features=features()), torch.Generator())
    ours = dict(TABLES)
    for m, name in enumerate(names):
        ours[f"{name}_projection_weight"] = f"map_DF.{m}"
        ours[f"{name}_features"] = f"features.{m}._table"
    with torch.no_grad():
        for parameter in CASE["parameters"]:
            if parameter["filled"] and parameter["name"] in ours:
                model.get_parameter(ours[parameter["name"]]).copy_(filled(parameter))
    return model, ours


def assert_step(model, ours, terms: dict[str, float], gradients: dict[str, float]) -> None:
    found = model.losses(placed(batch_of(CASE))).terms
    total = torch.stack(list(found.values())).sum()
    total.backward()
    assert found.keys() == terms.keys() - {"total"}
    for name, term in found.items():
        assert_like(term, terms[name] * (1 if name == "bpr" else REG))
    assert_like(total, terms["total"])
    for name, norm in gradients.items():
        if name.endswith("_projection_bias"):
            assert norm < 1e-15  # so that our model has none
        else:
            assert_norm(model.get_parameter(ours[name]).grad, norm)


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_model():
    model, ours = released()
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])
    assert_step(model, ours, DETAIL["train"]["loss_terms"], CASE["grad_l2"])


VARIANTS = {record["label"]: record for record in DETAIL["variants"]}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("label", VARIANTS)
def test_reproduces_the_released_variants(label):
    record = VARIANTS[label]
    names = tuple(n for n in ("image", "text") if f"bpr_{n}" in record["loss_terms"])
    model, ours = released(record["changes"], names)
    if "number_kept" in record:
        assert model.part.kept == record["number_kept"]
        chosen = torch.zeros(len(DETAIL["graphs"]["edge_users"]), dtype=torch.bool)
        chosen[record["kept_edge_ids_in_drawn_order"]] = True
        model.part.keep(chosen)
    assert_step(model, ours, record["loss_terms"], record["gradient_l2"])
    assert_like(model.score(*model.embeddings()).detach(), record["scores"])


@pytest.mark.usefixtures("float64")
def test_trains_like_the_released_model():
    record = DETAIL["trajectory"]
    second = DETAIL["problem"]["second_batch_of_trajectories"]
    batches = [placed(batch_of(CASE)), placed(batch_of({"batch": second}))]
    model, ours = released()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for at, step in enumerate(record["steps"]):
        total = sum(model.losses(batches[at % 2]).terms.values())
        assert_like(total.detach(), step["total"])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    assert_like(model.score(*model.embeddings()).detach(), record["scores_after"])
    for name in ("image", "text"):
        table = model.get_parameter(ours[f"{name}_features"])
        assert_like(table.detach().norm(), record[f"{name}_feature_table_after_l2"])


def three() -> dict[str, Dense]:
    audio = np.random.default_rng(3).normal(size=(8, 5))
    return features() | {"audio": Dense(np.ones(8, dtype=bool), audio)}


BATCH = placed(
    Batch(
        torch.tensor([0, 1, 3, 3, 5]),
        torch.tensor([2, 3, 0, 7, 6]),
        torch.tensor([[5, 6], [0, 2], [1, 1], [3, 4], [0, 3]]),
    )
)


def ranking(user: np.ndarray, item: np.ndarray) -> np.float64:
    """Mean of -ln sigmoid(x_ui - x_uj) over a row's negatives and the rows."""
    scores = user @ item.T
    gaps = scores[BATCH.user, BATCH.positive][:, None] - np.take_along_axis(
        scores[BATCH.user], BATCH.negative.numpy(), 1
    )
    return np.mean(np.log1p(np.exp(-gaps)))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("names", "shares", "gates"),
    [
        (("audio",), (1.0,), None),
        (("audio", "text"), (0.5, 0.5), None),
        (("audio", "image", "text"), (0.3, 0.4, 0.3), None),
        (("audio", "image", "text"), (0.3, 0.4, 0.3), (1.0, 0.5, 1.3)),
    ],
)
@pytest.mark.parametrize("item_layers", [0, 2])
def test_is_the_formula_on_a_pruned_graph(names, shares, gates, item_layers):
    cfg = FREEDOM(
        dim=3,
        ui_layers=1,
        item_layers=item_layers,
        knn_k=4,
        image_weight=0.4,
        dropout=0.5,
        reg_weight=0.7,
        modalities=names,
        gate_modalities=gates is not None,
    )
    model = cfg.build(problem(CASE, features=three()), torch.Generator().manual_seed(1))
    if gates:
        with torch.no_grad():
            model.gates.logit_M.copy_((torch.tensor(gates) / 2).logit())
    gates = gates or (1,) * len(names)
    p = {name: value.detach().numpy() for name, value in model.named_parameters()}

    alike = np.zeros((8, 8))
    for name, share, gate in zip(names, shares, gates, strict=True):
        unit = three()[name].values
        unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
        nearest = np.argsort(-(unit @ unit.T), axis=1)[:, :4]
        np.put_along_axis(part := np.zeros((8, 8)), nearest, 1 / (4 + 1e-7), 1)
        alike += gate * share * part

    def propagated(edges):
        seen = np.zeros((6, 8))
        seen[tuple(edges.T)] = 1
        scale_u, scale_i = (seen.sum(axis) + 1e-7 for axis in (1, 0))
        norm = seen / np.sqrt(scale_u[:, None] * scale_i)
        user, item = p["user_UD"], p["item_ID"]
        smooth = np.linalg.matrix_power(alike, item_layers) @ item
        return (user + norm @ item) / 2, (item + norm.T @ user) / 2 + smooth

    edges = pairs(CASE["train"])
    user, item = propagated(edges)
    assert_like(model.score(*model.embeddings()).detach(), user @ item.T)

    chosen = np.arange(len(edges)) % 2 == 0
    model.part.keep(torch.tensor(chosen))
    assert_like(model.score(*model.embeddings()).detach(), user @ item.T)
    user, item = propagated(edges[chosen])
    terms = {name: term.detach() for name, term in model.losses(BATCH).terms.items()}
    assert_like(terms.pop("bpr"), ranking(user, item))
    for m, name in enumerate(names):
        content = gates[m] * three()[name].values @ p[f"map_DF.{m}"].T
        assert_like(model.item_views()[name].detach(), content)
        assert_like(terms.pop(f"bpr_{name}"), 0.7 * ranking(user, content))
    assert not terms


def test_an_epoch_trains_on_its_own_edges_and_scores_on_all():
    model = FREEDOM(dim=4, dropout=0.5).build(tiny(), torch.Generator().manual_seed(0))
    scored = [table.detach() for table in model.embeddings()]
    seen = []
    for epoch in (0, 1, 0):
        model.start_epoch(Draws(0), epoch)
        seen.append(model.part.weight_E.clone())
        assert int(seen[-1].count_nonzero()) == 2 * 36
        again = model.embeddings()
        assert all(torch.equal(a, b) for a, b in zip(scored, again, strict=True))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_what_an_item_lacks_makes_it_nobodys_neighbour():
    model = FREEDOM(knn_k=3).build(tiny(missing=True), torch.Generator())
    # Item 5 lacks both modalities, items 1 and 9 one each.
    alike = model.alike.dense()
    assert alike[5].nonzero().flatten().tolist() == [5]
    assert alike[:, 5].nonzero().flatten().tolist() == [5]
    assert alike[1].count_nonzero() > 1
    assert alike[9].count_nonzero() > 1


@pytest.mark.usefixtures("float64")
def test_features_are_trained_unless_frozen():
    for trained in (False, True):
        cfg = FREEDOM(dim=3, dropout=0.0, train_features=trained)
        model = cfg.build(problem(CASE, features=features()), torch.Generator())
        sum(model.losses(BATCH).terms.values()).backward()
        tables = [p for n, p in model.named_parameters() if n.startswith("features.")]
        assert len(tables) == 2 * trained
        inside = torch.isin(torch.arange(8), BATCH.extra["items"])
        assert all(bool((p.grad.any(1) == inside).all()) for p in tables)


@pytest.mark.usefixtures("float64")
def test_without_its_weight_the_side_loss_moves_nothing():
    cfg = FREEDOM(dim=3, reg_weight=0.0)
    model = cfg.build(problem(CASE, features=features()), torch.Generator().manual_seed(0))
    sum(model.losses(BATCH).terms.values()).backward()
    moved = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == set(TABLES.values())


def test_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="FREEDOM needs at least a modality"):
        FREEDOM().build(problem(CASE), torch.Generator())
    with pytest.raises(ValueError, match="cannot train on 0 of 20 edges"):
        FREEDOM(dropout=0.99).build(problem(CASE, features=features()), torch.Generator())

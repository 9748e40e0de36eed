import math
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.data.sampling import Draws
from mmrec.models.dragon import DRAGON
from tests.models.golden import (
    assert_adam,
    assert_like,
    assert_norm,
    batch_of,
    features,
    golden,
    problem,
)
from tests.models.slots import (
    dense_tower,
    fill_parameters,
    ranking_loss,
    recorded_users,
    three_modalities,
)

RECORD = golden("dragon")
MAIN = RECORD["cases"]["main"]
K3 = MAIN | RECORD["detail"]["variants"]["k3"]
SLOTS = {"main": RECORD["detail"]["case"]["user_slots"], "k3": K3["user_slots"]}
HYPER = MAIN["hyper"]


def recorded(name: str, **more: Any) -> tuple[Any, list[str]]:
    cfg = DRAGON(
        reg_weight=HYPER["reg_weight"],
        knn_k=HYPER["knn_k"],
        image_weight=HYPER["mm_image_weight"],
        layers=HYPER["n_mm_layers"],
        user_neighbours=SLOTS[name]["k"],
        **more,
    )
    model = cfg.build(problem(MAIN, features=features()), torch.Generator())
    names = fill_parameters(model, MAIN)
    model.users = recorded_users(RECORD, SLOTS[name])
    return model, names


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "case"), [("main", MAIN), ("k3", K3)])
def test_reproduces_the_released_model(name, case):
    model, names = recorded(name)
    user, item = model.embeddings()
    assert_like(user, case["user"])
    assert_like(item, case["item"])
    assert_like(model.score(user, item), case["scores"])

    terms, expected = model.losses(batch_of(MAIN)).terms, case["loss_terms"]
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    preferences = expected["reg_img_preference_batch"] + expected["reg_txt_preference_batch"]
    assert_like(terms["bpr"], expected["bpr_log2"])
    assert_like(terms["preferences"], 0.1 * preferences)
    assert_like(terms["weights"], 0.1 * expected["reg_Wu"])
    assert_like(total, case["loss_total"])
    for own, parameter in zip(names, model.parameters(), strict=True):
        assert_norm(parameter.grad, case["grad_l2"][own])


@pytest.mark.usefixtures("float64")
def test_trains_as_the_released_model():
    model, names = recorded("main")
    run = RECORD["detail"]["case"]["adam_same_batch_5_steps"]
    # The release also has the modality weights of items, which nothing reads.
    lengths = {name: run["final_param_l2"][name] for name in names}
    assert_adam(model, batch_of(MAIN), run | {"final_param_l2": lengths})


@pytest.mark.usefixtures("float64")
def test_described_ranks_in_nats():
    model, _ = recorded("main", variant="described")
    user, item = model.embeddings()
    assert_like(model.score(user, item), MAIN["scores"])
    bpr = model.losses(batch_of(MAIN)).terms["bpr"]
    assert_like(bpr, math.log(2) * MAIN["loss_terms"]["bpr_log2"])


def item_graph(values_IF: np.ndarray, k: int) -> np.ndarray:
    unit = values_IF / np.linalg.norm(values_IF, axis=1, keepdims=True)
    near = np.argsort(-(unit @ unit.T), axis=1)[:, :k]
    graph = np.zeros((len(unit), len(unit)))
    np.put_along_axis(graph, near, 1 / (k + 1e-7), axis=1)
    return graph


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    "shares",
    [{"text": 1.0}, {"image": 0.3, "text": 0.7}, {"audio": 0.35, "image": 0.3, "text": 0.35}],
)
@pytest.mark.parametrize(
    ("layers", "ui_layers", "gates"), [(1, 3, None), (3, 0, None), (2, 1, (0.5, 1.3, 0.8))]
)
def test_follows_the_formula(shares, layers, ui_layers, gates):
    data = three_modalities(MAIN, *shares)
    cfg = DRAGON(
        dim=5,
        hidden_dim=6,
        layers=layers,
        ui_layers=ui_layers,
        knn_k=4,
        image_weight=0.3,
        user_neighbours=3,
        reg_weight=0.3,
        gate_modalities=gates is not None,
    )
    rng = torch.Generator().manual_seed(1)
    model = cfg.build(data, rng)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    if gates:
        with torch.no_grad():
            model.gates.logit_M.copy_((torch.tensor(gates[: len(shares)]) / 2).logit())
    gate = dict(zip(shares, gates or (1, 1, 1), strict=False))
    towers = [
        dense_tower(tower, data, data.features[name].values, ui_layers, gate[name])
        for tower, name in zip(model.towers, shares, strict=True)
    ]
    several = len(shares) > 1
    weight = model.user_UM.detach().numpy() if several else np.ones((6, 1))
    mixed = np.concatenate([weight[:, [m]] * t[:6] for m, t in enumerate(towers)], axis=1)
    hop = model.users.graph.dense().numpy() > 0
    hop = hop * np.exp(np.array(RECORD["detail"]["user_graph"]["co_occurrence"]))
    user = mixed + hop / hop.sum(1, keepdims=True) @ mixed
    own = np.concatenate([t[6:] for t in towers], axis=1)
    graph = sum(
        gate[n] * share * item_graph(data.features[n].values, 4) for n, share in shares.items()
    )
    item = own + np.linalg.matrix_power(graph, layers) @ own
    found_user, found_item = model.embeddings()
    assert_like(found_user, user)
    assert_like(found_item, item)

    terms = model.losses(batch_of(MAIN)).terms
    assert_like(terms["bpr"], ranking_loss(user, item, MAIN) / math.log(2))
    assert ("weights" in terms) == several
    if several:
        assert_like(terms["weights"], 0.3 * (weight**2).mean())


def test_every_epoch_fills_the_slots_of_users_anew():
    model = DRAGON(knn_k=3).build(three_modalities(MAIN, "image", "text"), torch.Generator())
    drawn = []
    for epoch in (0, 1, 0):
        model.start_epoch(Draws(0), epoch)
        drawn.append(model.embeddings())
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][0], drawn[2][0])
    assert torch.equal(drawn[0][1], drawn[1][1])


def test_features_are_trained_on_request_only():
    data = three_modalities(MAIN, "image", "text")
    for trained in (False, True):
        model = DRAGON(knn_k=3, train_features=trained).build(data, torch.Generator())
        sum(model.losses(batch_of(MAIN)).terms.values()).backward()
        tables = [p for n, p in model.named_parameters() if "features" in n]
        assert len(tables) == 2 * trained
        assert all(table.grad.any() for table in tables)

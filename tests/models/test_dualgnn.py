import math
from typing import Any

import numpy as np
import pytest
import torch

from mmrec.data.sampling import Draws
from mmrec.models.dualgnn import DualGNN
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

RECORD = golden("dualgnn")
MAIN = RECORD["cases"]["main"]
K3 = MAIN | RECORD["detail"]["variants"]["k3"]
SLOTS = {"main": RECORD["detail"]["case"]["user_slots"], "k3": K3["user_slots"]}


def released(name: str) -> tuple[Any, list[str]]:
    cfg = DualGNN(reg_weight=MAIN["hyper"]["reg_weight"], user_neighbours=SLOTS[name]["k"])
    model = cfg.build(problem(MAIN, features=features()), torch.Generator())
    names = fill_parameters(model, MAIN)
    model.users = recorded_users(RECORD, SLOTS[name])
    return model, names


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "case"), [("main", MAIN), ("k3", K3)])
def test_reproduces_the_released_model(name, case):
    model, names = released(name)
    user, item = model.embeddings()
    assert_like(user, case["user"])
    assert_like(item, case["item"])
    assert_like(model.score(user, item), case["scores"])

    terms, recorded = model.losses(batch_of(MAIN)).terms, case["loss_terms"]
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    preferences = recorded["reg_img_preference_batch"] + recorded["reg_txt_preference_batch"]
    assert_like(terms["bpr"], recorded["bpr_log2"])
    assert_like(terms["preferences"], 0.1 * preferences)
    assert_like(terms["weights"], 0.1 * (recorded["reg_Wu"] + recorded["reg_Wi"]))
    assert_like(total, case["loss_total"])
    for own, parameter in zip(names, model.parameters(), strict=True):
        assert_norm(parameter.grad, case["grad_l2"][own])


@pytest.mark.usefixtures("float64")
def test_trains_as_the_released_model():
    model, _ = released("main")
    assert_adam(model, batch_of(MAIN), RECORD["detail"]["case"]["adam_same_batch_5_steps"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("variant", ["released", "described"])
@pytest.mark.parametrize("names", [("text",), ("image", "text"), ("audio", "image", "text")])
@pytest.mark.parametrize("layers", [0, 3])
def test_follows_the_formula(variant, names, layers):
    data = three_modalities(MAIN, *names)
    cfg = DualGNN(
        dim=5, hidden_dim=6, layers=layers, user_neighbours=3, reg_weight=0.3, variant=variant
    )
    rng = torch.Generator().manual_seed(1)
    model = cfg.build(data, rng)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=rng))
    towers = [
        dense_tower(tower, data, data.features[name].values, layers)
        for tower, name in zip(model.towers, names, strict=True)
    ]
    user_towers = [tower[:6] for tower in towers]
    several = len(names) > 1
    if several:
        weight = model.user_UM.detach().numpy()
        # The release reads the sum of all where it means the first.
        read = [sum(user_towers), *user_towers[1:]] if variant == "released" else user_towers
        mixed = sum(weight[:, [m]] * tower for m, tower in enumerate(read))
    else:
        (mixed,) = user_towers
    hop = model.users.graph.dense().numpy() > 0
    hop = hop * np.exp(np.array(RECORD["detail"]["user_graph"]["co_occurrence"]))
    user = mixed + hop / hop.sum(1, keepdims=True) @ mixed
    item = sum(tower[6:] for tower in towers)
    found_user, found_item = model.embeddings()
    assert_like(found_user, user)
    assert_like(found_item, item)

    terms = model.losses(batch_of(MAIN)).terms
    nats = ranking_loss(user, item, MAIN)
    assert_like(terms["bpr"], nats / math.log(2) if variant == "released" else nats)
    drawn = [tower.preference_UD[MAIN["batch"]["users"]].detach() for tower in model.towers]
    assert_like(terms["preferences"], 0.3 * sum((p**2).mean() for p in drawn))
    tables = [p for n, p in model.named_parameters() if n in ("user_UM", "item_IM")]
    assert len(tables) == several * (2 if variant == "released" else 1)
    assert ("weights" in terms) == several
    if several:
        assert_like(terms["weights"], 0.3 * sum((p.detach() ** 2).mean() for p in tables))


@pytest.mark.usefixtures("float64")
def test_gates_come_after_the_division_by_the_length():
    names = ("image", "text")
    data = three_modalities(MAIN, *names)
    cfg = DualGNN(dim=5, hidden_dim=6, gate_modalities=True)
    model = cfg.build(data, torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.gates.logit_M.copy_(torch.tensor([math.log(3), -math.log(7)]))
    towers = [
        dense_tower(tower, data, data.features[name].values, 2, gate)
        for tower, name, gate in zip(model.towers, names, (1.5, 0.25), strict=True)
    ]
    views = model.item_views()
    for name, tower in zip(names, towers, strict=True):
        assert_like(views[name].detach(), tower[6:])
    assert_like(model.embeddings()[1].detach(), sum(tower[6:] for tower in towers))


def test_users_start_with_all_modalities_nearly_alike():
    model = DualGNN().build(three_modalities(MAIN, "image", "text"), torch.Generator())
    torch.testing.assert_close(model.user_UM.sum(1), torch.ones(6))
    assert model.user_UM.std() < 0.3


def test_every_epoch_fills_the_slots_of_users_anew():
    model = DualGNN().build(three_modalities(MAIN, "image", "text"), torch.Generator())
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
        model = DualGNN(train_features=trained).build(data, torch.Generator())
        sum(model.losses(batch_of(MAIN)).terms.values()).backward()
        tables = [p for n, p in model.named_parameters() if "features" in n]
        assert len(tables) == 2 * trained
        assert all(table.grad.any() for table in tables)

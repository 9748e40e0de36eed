import numpy as np
import pytest
import torch

from mmrec.models.lightgcn import LightGCN
from tests.models.golden import (
    assert_adam,
    assert_like,
    assert_norm,
    batch_of,
    filled,
    golden,
    pairs,
    problem,
)

RECORD = golden("lightgcn")
CASE = RECORD["cases"]["main"]


def built(layers: int):
    cfg = LightGCN(dim=4, layers=layers, reg_weight=CASE["hyper"]["reg_weight"])
    model = cfg.build(problem(CASE), torch.Generator())
    with torch.no_grad():
        model.user_UD.copy_(filled(CASE["parameters"][0]))
        model.item_ID.copy_(filled(CASE["parameters"][1]))
    return model


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_model():
    model = built(CASE["hyper"]["n_layers"])
    user, item = model.embeddings()
    assert_like(user, CASE["user"])
    assert_like(item, CASE["item"])
    assert_like(model.score(user, item), CASE["scores"])

    terms = model.losses(batch_of(CASE)).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert_like(terms["bpr"], CASE["loss_terms"]["rank"])
    assert_like(terms["reg"], CASE["hyper"]["reg_weight"] * CASE["loss_terms"]["reg"])
    assert_like(total, CASE["loss_total"])
    assert_norm(model.user_UD.grad, CASE["grad_l2"]["U0"])
    assert_norm(model.item_ID.grad, CASE["grad_l2"]["I0"])

    assert_adam(model, batch_of(CASE), RECORD["detail"]["case"]["adam_same_batch_5_steps"])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("layers", [1, 4])
def test_is_the_mean_of_matrix_powers(layers):
    model = built(layers)
    seen = np.zeros((6, 8))
    seen[tuple(pairs(CASE["train"]).T)] = 1
    adjacency = np.block([[np.zeros((6, 6)), seen], [seen.T, np.zeros((8, 8))]])
    scale = np.diag((adjacency.sum(1) + 1e-7) ** -0.5)
    norm = scale @ adjacency @ scale
    start = torch.cat((model.user_UD, model.item_ID)).detach().numpy()
    powers = [np.linalg.matrix_power(norm, k) @ start for k in range(layers + 1)]
    assert_like(torch.cat(model.propagate()).detach(), np.mean(powers, axis=0))

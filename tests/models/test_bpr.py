import pytest
import torch

from mmrec.models.bpr import BPR
from tests.models.golden import (
    assert_adam,
    assert_like,
    assert_norm,
    batch_of,
    filled,
    golden,
    problem,
)


@pytest.mark.usefixtures("float64")
def test_reproduces_the_released_model():
    record = golden("bpr")
    case = record["cases"]["main"]
    cfg = BPR(dim=case["hyper"]["d"], reg_weight=case["hyper"]["reg_weight"])
    model = cfg.build(problem(case), torch.Generator())
    with torch.no_grad():
        model.user_UD.copy_(filled(case["parameters"][0]))
        model.item_ID.copy_(filled(case["parameters"][1]))
    assert_like(model.score(*model.embeddings()), case["scores"])

    terms = model.losses(batch_of(case)).terms
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert_like(terms["bpr"], case["loss_terms"]["rank"])
    assert_like(terms["reg"], 0.1 * case["loss_terms"]["reg"])
    assert_like(total, case["loss_total"])
    assert_norm(model.user_UD.grad, case["grad_l2"]["P"])
    assert_norm(model.item_ID.grad, case["grad_l2"]["Q"])

    assert_adam(model, batch_of(case), record["detail"]["case"]["adam_same_batch_5_steps"])


def test_starts_as_glorot_normal():
    many = BPR(dim=200).build(
        problem(golden("bpr")["cases"]["main"]), torch.Generator().manual_seed(0)
    )
    # 1,200 draws know their deviation to 2 %, one standard error.
    assert many.user_UD.std().item() == pytest.approx((2 / 206) ** 0.5, rel=0.08)

import math

import pytest
import torch

from mmrec.losses import infonce
from mmrec.nn import formed
from mmrec.nn.contrast import indexed_infonce


def problem():
    rng = torch.Generator().manual_seed(3)
    anchor_QD, candidate_CD = (3 * torch.randn(n, 4, generator=rng) for n in (5, 7))
    # Anchor 3 and candidates 1 and 5 belong to no pair; others recur.
    anchor_B = torch.tensor([0, 0, 1, 2, 4, 4, 4, 2])
    target_B = torch.tensor([6, 0, 0, 2, 3, 4, 4, 6])
    return anchor_QD, candidate_CD, torch.tensor(0.7), anchor_B, target_B


def gradients(loss, *tables):
    leaves = [table.clone().requires_grad_() for table in tables]
    value = loss(*leaves)
    return [value.detach(), *torch.autograd.grad(value * 1.5, leaves)]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("cells", [1, 15, 1000])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("against", ["batch", "all"])
def test_is_infonce_of_gathered_rows(monkeypatch, cells, similarity, against):
    monkeypatch.setattr(formed, "_CHUNK_CELLS", cells)
    anchor_QD, candidate_CD, tau, anchor_B, target_B = problem()

    def plain(anchor, candidate):
        everyone = candidate if against == "all" else None
        rows = anchor[anchor_B], candidate[target_B]
        return infonce(*rows, tau, similarity=similarity, candidates=everyone)

    def indexed(anchor, candidate):
        return indexed_infonce(
            anchor, candidate, tau, anchor_B, target_B, similarity=similarity, against=against
        )

    wanted = gradients(plain, anchor_QD, candidate_CD)
    for found, value in zip(gradients(indexed, anchor_QD, candidate_CD), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_logits_whose_exponentials_overflow_do_not():
    _, _, _, anchor_B, target_B = problem()
    tau = torch.tensor(0.01)
    value, *grads = gradients(
        lambda a, c: indexed_infonce(a, c, tau, anchor_B, target_B, against="all"),
        torch.full((5, 4), 100.0),
        torch.full((7, 4), 100.0),
    )
    assert float(value) == pytest.approx(math.log(7), abs=1e-6)
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.usefixtures("float64")
def test_lanes_share_what_they_share():
    anchor_QD, candidate_CD, tau, anchor_B, target_B = problem()
    anchors_LQD = torch.stack((anchor_QD, -anchor_QD))

    def loss(anchor):
        return indexed_infonce(anchor, candidate_CD, tau, anchor_B, target_B)

    lanes_LQD = torch.func.vmap(torch.func.grad(loss))(anchors_LQD)
    for lane_QD, anchor in zip(lanes_LQD, anchors_LQD, strict=True):
        torch.testing.assert_close(lane_QD, gradients(loss, anchor)[1] / 1.5)

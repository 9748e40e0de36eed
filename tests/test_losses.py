import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from torch import Tensor

from mmrec.losses import (
    bpr,
    cosine_distance,
    emb_loss,
    half_squares,
    infonce,
    symmetric_infonce,
)

TOOLBOX = json.loads((Path(__file__).parent / "golden" / "_toolbox.json").read_text())


def table(rows) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_bpr_with_a_floor_is_the_toolbox_loss():
    record = TOOLBOX["bprloss"]
    loss = bpr(table(record["pos"]), table(record["neg"]), floor=1e-10)
    assert loss.item() == pytest.approx(record["value"], rel=1e-12)


def test_the_floor_bounds_the_loss_and_its_gradient():
    far = torch.tensor([-60.0], dtype=torch.float64, requires_grad=True)
    bpr(far, table([0.0]), floor=1e-10).backward()
    assert bpr(far, table([0.0]), floor=1e-10).item() == pytest.approx(10 * np.log(10))
    assert abs(far.grad.item()) < 1e-15
    plain = torch.tensor([-60.0], dtype=torch.float64, requires_grad=True)
    bpr(plain, table([0.0])).backward()
    assert plain.grad.item() == pytest.approx(-1.0)


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.floats(-30, 30)), min_size=1, max_size=8),
    st.floats(-5, 5),
)
def test_bpr_sees_only_differences_and_means_over_pairs(pairs, shift):
    positive, negative = table(pairs).T
    expected = np.mean([np.log1p(np.exp(-(p - n))) for p, n in pairs])
    assert bpr(positive, negative).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    moved = bpr(positive + shift, negative + shift)
    assert moved.item() == pytest.approx(bpr(positive, negative).item(), rel=1e-9, abs=1e-9)


def test_bpr_by_hand_with_two_negatives():
    positive, negative = table([[1.0], [0.0]]), table([[1.0, 0.0], [0.0, 2.0]])
    expected = (2 * np.log(2) + np.log1p(np.exp(-1)) + np.log1p(np.exp(2))) / 4
    assert bpr(positive, negative).item() == pytest.approx(expected)


def test_emb_loss_is_the_toolbox_one_and_divides_by_the_last_rows():
    record = TOOLBOX["embloss"]
    x, y = table(record["X"]), table(record["Y"])
    assert emb_loss(x, y).item() == pytest.approx(record["XY"], rel=1e-12)
    assert emb_loss(y, x).item() == pytest.approx(record["YX"], rel=1e-12)


def test_emb_loss_of_zeros_has_gradient_zero():
    zero = torch.zeros(2, 3, requires_grad=True)
    emb_loss(zero).backward()
    assert torch.equal(zero.grad, torch.zeros(2, 3))


def one_direction(anchor: np.ndarray, target: np.ndarray, tau: float) -> np.ndarray:
    """(B, Q) the loss of each anchor, written as a loop over pairs."""
    batch, size, _ = anchor.shape
    found = np.zeros((batch, size))
    for b in range(batch):
        for q in range(size):
            logits = [anchor[b, q] @ target[b, other] / tau for other in range(size)]
            found[b, q] = logsumexp(logits) - logits[q]
    return found


@pytest.fixture
def views() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 4, 5)), rng.normal(size=(3, 4, 5))


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("tau", [0.05, 1.0, 7.0])
@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_infonce_is_the_loop_over_pairs(views, similarity, tau):
    first, second = views if similarity == "dot" else map(unit, views)
    there, back = one_direction(first, second, tau), one_direction(second, first, tau)
    tensors = [torch.from_numpy(view) for view in views]
    temperature = torch.tensor(tau, dtype=torch.float64)
    one = infonce(*tensors, temperature, similarity=similarity)
    assert one.item() == pytest.approx(there.mean(), rel=1e-10)
    both = symmetric_infonce(*tensors, temperature, similarity=similarity)
    assert both.item() == pytest.approx(there.mean() + back.mean(), rel=1e-10)


def test_infonce_weighs_anchors_but_keeps_them_as_negatives(views):
    weight = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0.5]])
    loss = one_direction(*views, 0.5) + one_direction(*views[::-1], 0.5)
    expected = (weight * loss).sum() / weight.sum()
    tensors = [torch.from_numpy(view) for view in views]
    tau = torch.tensor(0.5, dtype=torch.float64)
    found = symmetric_infonce(*tensors, tau, weight=torch.from_numpy(weight))
    assert found.item() == pytest.approx(expected, rel=1e-10)
    nothing = symmetric_infonce(*tensors, tau, weight=torch.zeros(3, 4, dtype=torch.float64))
    assert nothing.item() == 0.0


def test_losses_run_in_lanes(views):
    first, second = (torch.from_numpy(view) for view in views)
    taus = torch.tensor([0.1, 1.0], dtype=torch.float64)

    def total(x: Tensor, tau: Tensor) -> Tensor:
        return (
            bpr(x[..., 0], x[..., 1], floor=1e-10)
            + emb_loss(x)
            + symmetric_infonce(x, second, tau, similarity="cosine")
        )

    lanes = torch.stack((first, 2 * first - 1))
    gradient = torch.func.vmap(torch.func.grad(total))(lanes, taus)
    for lane, tau, found in zip(lanes, taus, gradient, strict=True):
        leaf = lane.clone().requires_grad_()
        total(leaf, tau).backward()
        torch.testing.assert_close(found, leaf.grad, rtol=1e-12, atol=1e-14)


def test_candidates_are_what_a_target_is_held_against():
    torch.manual_seed(0)
    anchor, target, others = (torch.randn(n, 3, dtype=torch.float64) for n in (4, 4, 6))
    candidates = torch.cat((target, others))
    tau = torch.tensor(0.3, dtype=torch.float64)
    for similarity in ("dot", "cosine"):
        terms = []
        for a, t in zip(anchor, target, strict=True):

            def sim(x, a=a, similarity=similarity):
                return float(a @ x / (a.norm() * x.norm() if similarity == "cosine" else 1))

            total = sum(math.exp(sim(c) / 0.3) for c in candidates)
            terms.append(-math.log(math.exp(sim(t) / 0.3) / total))
        found = infonce(anchor, target, tau, similarity=similarity, candidates=candidates)
        assert float(found) == pytest.approx(sum(terms) / 4, rel=1e-12)
        weight = torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
        found = infonce(
            anchor, target, tau, similarity=similarity, candidates=candidates, weight=weight
        )
        assert float(found) == pytest.approx((terms[0] + 2 * terms[2]) / 3, rel=1e-12)


def test_half_squares_by_hand():
    found = half_squares(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), size=7)
    assert float(found) == pytest.approx((1 + 4 + 9) / 14)


def test_cosine_distance_by_hand():
    first = torch.tensor([[3.0, 4.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[4.0, 3.0], [-2.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert float(cosine_distance(first, second)) == pytest.approx(1 - (24 / 25 - 1 + 0) / 3)

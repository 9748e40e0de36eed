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
    mmd,
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


def looped_mmd(x: np.ndarray, y: np.ndarray, sigmas: list[float]) -> float:
    """The mean over kernels of the squared discrepancy, pair by pair."""

    def mean(a: np.ndarray, b: np.ndarray, sigma: float) -> float:
        values = [math.exp(-((p - q) ** 2).sum() / (2 * sigma**2)) for p in a for q in b]
        return sum(values) / len(values)

    return np.mean([mean(x, x, s) + mean(y, y, s) - 2 * mean(x, y, s) for s in sigmas])


def test_mmd_is_the_loop_over_pairs():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)), rng.normal(0.5, 2, size=(4, 3))
    found = mmd(table(x), table(y), table(0.8))
    assert found.item() == pytest.approx(looped_mmd(x, y, [0.8]), rel=1e-12)
    several = mmd(table(x), table(y), table([0.5, 1.0, 4.0]))
    assert several.item() == pytest.approx(looped_mmd(x, y, [0.5, 1, 4]), rel=1e-12)


def test_mmd_counts_a_row_as_often_as_its_weight_says():
    rng = np.random.default_rng(2)
    x, y, count = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), np.array([2, 0, 1, 3])
    found = mmd(table(x), table(y), table(1.3), weight=table(count))
    expected = looped_mmd(np.repeat(x, count, axis=0), np.repeat(y, count, axis=0), [1.3])
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_mmd_of_normal_samples_comes_near_that_of_their_distributions():
    """Of N(0, s^2 I) and N(m, t^2 I) every mean of the kernel is a Gaussian integral.

    The biased estimate adds (1 - E k) / n for each sample; what remains is of the order of
    2 |distance| / sqrt(n) (Gretton et al. 2012, theorem 7).
    """
    n, dim, sigma, s, t = 1500, 3, 1.2, 0.8, 1.1
    shift = np.array([0.9, -0.4, 0.0])
    rng = np.random.default_rng(3)
    x, y = s * rng.normal(size=(n, dim)), shift + t * rng.normal(size=(n, dim))

    def mean(variance: float, apart: float) -> float:
        wide = sigma**2 + variance
        return (sigma**2 / wide) ** (dim / 2) * math.exp(-apart / (2 * wide))

    own_x, own_y, cross = mean(2 * s**2, 0), mean(2 * t**2, 0), mean(s**2 + t**2, shift @ shift)
    expected = own_x + own_y - 2 * cross + (1 - own_x + 1 - own_y) / n
    found = mmd(table(x), table(y), table(sigma)).item()
    assert found == pytest.approx(expected, abs=3 * 2 * expected**0.5 / n**0.5)
    assert expected > 10 * (1 - own_x) / n


ROWS = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=6)


@given(ROWS, ROWS, st.floats(0.1, 5))
def test_mmd_is_symmetric_never_negative_and_zero_for_a_sample_with_itself(first, second, sigma):
    x, y, bandwidth = table(first), table(second), table(sigma)
    there, back = mmd(x, y, bandwidth).item(), mmd(y, x, bandwidth).item()
    assert there == pytest.approx(back, rel=1e-9, abs=1e-12)
    assert there >= -1e-12
    assert mmd(x, x, bandwidth).item() == pytest.approx(0, abs=1e-12)
    assert mmd(x, torch.cat((x, x)), bandwidth).item() == pytest.approx(0, abs=1e-12)


def test_mmd_has_the_gradient_of_the_formula_also_where_rows_are_equal(monkeypatch):
    """Against autograd through the whole array of differences, in chunks of one and all rows."""
    torch.manual_seed(1)
    x, y = (torch.randn(n, 3, dtype=torch.float64) for n in (5, 4))
    y[1] = x[2]
    x[3] = x[0]
    sigmas, count = table([0.7, 2.0]), table([1.0, 3.0, 0.0, 2.0])

    def dense(a: Tensor, b: Tensor, weight: Tensor | None = None) -> Tensor:
        signs = [torch.ones(len(part), dtype=torch.float64) for part in (a, b)]
        if weight is not None:
            signs = [weight, weight]
        signed = torch.cat((signs[0] / signs[0].sum(), -signs[1] / signs[1].sum()))
        rows = torch.cat((a, b))
        square = (rows[:, None] - rows).square().sum(-1)
        kernel = torch.stack([torch.exp(-square / (2 * s**2)) for s in sigmas]).mean(0)
        return signed @ kernel @ signed

    for cells in (1, 2**20):
        monkeypatch.setattr("mmrec.losses._MMD_CELLS", cells)
        for a, b, weight in ((x, y, None), (x[:4], y, count), (x, x.clone(), None)):
            leaves = [part.clone().requires_grad_() for part in (a, b)]
            expected = torch.autograd.grad(3 * dense(*leaves, weight), leaves)
            found = torch.autograd.grad(3 * mmd(*leaves, sigmas, weight=weight), leaves)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_mmd_runs_in_lanes():
    torch.manual_seed(2)
    x, y = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    sigmas = table([0.5, 2.0])
    gradient = torch.func.vmap(torch.func.grad(lambda a, s: mmd(a, y, s)))(x, sigmas)
    for lane, sigma, found in zip(x, sigmas, gradient, strict=True):
        leaf = lane.clone().requires_grad_()
        mmd(leaf, y, sigma).backward()
        torch.testing.assert_close(found, leaf.grad, rtol=1e-12, atol=1e-14)

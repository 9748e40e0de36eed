import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, ndcg_score

from mmrec import metrics

GOLDEN = json.loads((Path(__file__).parent / "golden" / "_toolbox.json").read_text())


def golden_hits(split):
    """Hit rows of the released evaluator's top-5 lists, and how many items each user has."""
    part = GOLDEN["eval"][split]
    truth = {user: set() for user in part["users"]}
    for user, item in GOLDEN["kept"][split]:
        truth[user].add(item)
    rows = zip(part["users"], part["top5"], strict=True)
    hits = [[item in truth[user] for item in top] for user, top in rows]
    return torch.tensor(hits), torch.tensor(part["n_u"]), part["unrounded_at_1_to_5"]


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("name", ["recall", "ndcg", "precision", "map"])
def test_means_equal_the_released_toolbox_at_every_k(split, name):
    hits_BK, relevant_B, expected = golden_hits(split)
    got = [float(metrics.ACCURACY[name](hits_BK[:, :k], relevant_B).mean()) for k in range(1, 6)]
    np.testing.assert_allclose(got, expected[name], rtol=0, atol=2e-15)


HITS = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
RELEVANT = torch.tensor([3, 1, 2, 0])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("recall", [2 / 3, 1, 0]),
        ("precision", [1 / 2, 1 / 4, 0]),
        ("f1", [4 / 7, 2 / 5, 0]),
        ("hit", [1, 1, 0]),
        ("mrr", [1 / 2, 1, 0]),
        ("map", [(1 / 2 + 2 / 3) / 3, 1, 0]),
        ("ndcg", [(1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2), 1, 0]),
    ],
)
def test_values_by_hand_and_nan_for_a_user_with_nothing_to_find(name, expected):
    got = metrics.ACCURACY[name](HITS, RELEVANT)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got, [*expected, math.nan], rtol=1e-15)


def full_ranking(seed, items=12):
    """Random relevance and scores; hits in order of score, all items ranked."""
    rng = np.random.default_rng(seed)
    truth = rng.random((6, items)) < 0.3
    truth[:, 0] = True
    score = rng.permuted(np.tile(np.arange(items), (6, 1)), axis=1).astype(float)
    hits = np.take_along_axis(truth, np.argsort(-score, axis=1), axis=1)
    return truth, score, torch.from_numpy(hits), torch.from_numpy(truth.sum(1))


@pytest.mark.parametrize("k", [1, 4, 12])
def test_ndcg_equals_scikit_learn(k):
    truth, score, hits, relevant = full_ranking(seed=k)
    got = float(metrics.ndcg(hits[:, :k], relevant).mean())
    assert got == pytest.approx(ndcg_score(truth, score, k=k), rel=1e-12)


def test_average_precision_over_a_full_ranking_equals_scikit_learn():
    truth, score, hits, relevant = full_ranking(seed=3)
    expected = [average_precision_score(t, s) for t, s in zip(truth, score, strict=True)]
    np.testing.assert_allclose(metrics.average_precision(hits, relevant), expected, rtol=1e-12)


@pytest.mark.parametrize("k", [1, 5])
def test_f1_equals_scikit_learn(k):
    truth, score, hits, relevant = full_ranking(seed=4)
    chosen = score >= np.sort(score, axis=1)[:, -k][:, None]
    expected = [f1_score(t, c) for t, c in zip(truth, chosen, strict=True)]
    np.testing.assert_allclose(metrics.f1(hits[:, :k], relevant), expected, rtol=1e-12)


rankings = st.lists(st.booleans(), min_size=1, max_size=12).flatmap(
    lambda hits: st.tuples(st.just(hits), st.integers(max(sum(hits), 1), sum(hits) + 5))
)


@settings(max_examples=50)
@given(rankings)
def test_every_metric_is_between_0_and_1_and_1_only_for_a_perfect_list(ranking):
    hits, relevant = torch.tensor([ranking[0]]), torch.tensor([ranking[1]])
    values = {name: float(f(hits, relevant)[0]) for name, f in metrics.ACCURACY.items()}
    assert all(0 <= value <= 1 for value in values.values())
    best = min(len(ranking[0]), ranking[1])
    perfect = all(ranking[0][:best])
    for name in ("ndcg", "map"):
        assert (values[name] == pytest.approx(1, abs=1e-12)) == perfect


@settings(max_examples=50)
@given(rankings, st.integers(0, 11))
def test_a_hit_that_moves_up_never_lowers_a_metric(ranking, rank):
    hits = list(ranking[0])
    rank = rank % len(hits)
    better = list(hits)
    if rank and hits[rank] and not hits[rank - 1]:
        better[rank - 1], better[rank] = True, False
    n = torch.tensor([ranking[1]])
    for name, f in metrics.ACCURACY.items():
        before, after = (float(f(torch.tensor([h]), n)[0]) for h in (hits, better))
        assert after >= before
        if better != hits and name in ("ndcg", "map"):
            assert after > before


@settings(max_examples=50)
@given(rankings)
def test_recall_hit_and_mrr_never_fall_with_k(ranking):
    hits, n = torch.tensor([ranking[0]]), torch.tensor([ranking[1]])
    for name in ("recall", "hit", "mrr"):
        curve = [float(metrics.ACCURACY[name](hits[:, :k], n)) for k in range(1, len(hits[0]) + 1)]
        assert curve == sorted(curve)


def test_users_do_not_meet():
    _, _, hits, relevant = full_ranking(seed=5)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    for f in metrics.ACCURACY.values():
        assert torch.equal(f(hits[order], relevant[order]), f(hits, relevant)[order])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) and \(3,\)"):
        metrics.recall(HITS, RELEVANT[:3])


# --- beyond accuracy. Popularity 5 1 1 3 0: with a tail of 3 of 5, items 4, 1 and 2 are the tail.

POPULARITY = torch.tensor([5, 1, 1, 3, 0])
TOP = torch.tensor([[0, 3], [0, 4], [1, -1]])


def test_coverage_by_hand():
    assert metrics.coverage(TOP, 5) == 4 / 5
    assert metrics.coverage(torch.tensor([[2, 2], [-1, -1]]), 8) == 1 / 8


def test_arp_by_hand_short_lists_by_their_own_length():
    assert metrics.arp(TOP, POPULARITY) == pytest.approx((4 + 2.5 + 1) / 3)


def test_aplt_by_hand():
    assert metrics.aplt(TOP, POPULARITY, 0.6) == pytest.approx((0 + 1 / 2 + 1) / 3)


def test_a_tail_cut_between_equals_takes_the_lower_item():
    assert metrics.long_tail(POPULARITY, 0.4).tolist() == [False, True, False, False, True]
    assert int(metrics.long_tail(torch.zeros(10), 0.7).sum()) == 7


def test_thirds_by_hand():
    assert metrics.tertile(torch.tensor([9, 1, 5, 3, 4, 2])).tolist() == [2, 0, 2, 1, 1, 0]
    # The quantiles of 0 1 1 3 5 are 1 and 7/3: nothing lies between.
    assert metrics.tertile(POPULARITY).tolist() == [2, 0, 0, 2, 0]
    assert metrics.tertile(torch.tensor([7, 7, 7])).tolist() == [0, 0, 0]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_thirds_are_those_of_the_quantiles_and_never_part_equal_counts(counts):
    low, high = np.quantile(counts, [1 / 3, 2 / 3])
    expected = [int(count > low) + int(count > high) for count in counts]
    assert metrics.tertile(torch.tensor(counts)).tolist() == expected


def test_popularity_lift_by_hand():
    train = torch.tensor([[0, 3], [0, 1], [1, 0]])
    profile = metrics.profile_popularity(train, POPULARITY, 3)
    assert profile[:2].tolist() == [2, 5]
    assert math.isnan(profile[2])
    # user 0: 4 over 2; user 1: 2.5 over 5; user 2 has no profile
    assert metrics.pl(TOP, POPULARITY, profile) == pytest.approx((1 - 0.5) / 2)


def test_recommending_the_own_profile_has_no_lift():
    train = torch.tensor([[u, i] for u in range(4) for i in (u, u + 1, 7)])
    popularity = torch.bincount(train[:, 1], minlength=8)
    profile = metrics.profile_popularity(train, popularity, 4)
    assert metrics.pl(train[:, 1].view(4, 3), popularity, profile) == pytest.approx(0, abs=1e-15)


# --- geometry


@given(st.integers(2, 9), st.integers(1, 5), st.integers(0, 99))
def test_mean_cosine_equals_the_sum_over_all_pairs(rows, width, seed):
    x = np.random.default_rng(seed).normal(size=(rows, width))
    x[0] = 0
    pairs = [(i, j) for i in range(rows) for j in range(i)]
    norm = np.maximum(np.linalg.norm(x, axis=1), 1e-300)
    expected = np.mean([x[i] @ x[j] / (norm[i] * norm[j]) for i, j in pairs])
    assert metrics.mean_cosine(torch.from_numpy(x)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_mean_cosine_of_known_tables_at_any_scale(scale):
    one_way = torch.tensor([[3.0, 4.0]]).double().repeat(5, 1) * scale
    assert metrics.mean_cosine(one_way) == pytest.approx(1)
    assert metrics.mean_cosine(torch.eye(4).double() * scale) == 0
    assert metrics.mean_cosine(torch.tensor([[1.0], [-1.0]]).double() * scale) == -1


def test_mean_cosine_of_one_row_has_no_pair():
    assert math.isnan(metrics.mean_cosine(torch.ones(1, 3)))


def test_effective_rank_of_known_spectra():
    assert metrics.effective_rank(torch.eye(6)[:, :4]) == pytest.approx(4)
    assert metrics.effective_rank(torch.ones(7, 3)) == pytest.approx(1)
    # singular values 3 and 1: entropy of (3/4, 1/4)
    by_hand = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert metrics.effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(by_hand)
    assert metrics.effective_rank(torch.zeros(3, 2)) == 0


@given(st.integers(0, 50))
def test_effective_rank_is_blind_to_rotation_and_scale_and_bounded_by_rank(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 2)) @ rng.normal(size=(2, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    value = metrics.effective_rank(torch.from_numpy(x))
    assert 1 <= value <= 2 + 1e-9
    assert metrics.effective_rank(torch.from_numpy(7 * x @ turn)) == pytest.approx(value, rel=1e-9)


def test_dirichlet_energy_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    # Pairs 0-1, 0-2 and 2-0; row 1 lists itself and nobody, which are no pairs.
    neighbours = torch.tensor([[1, 2], [1, -1], [0, -1]])
    by_hand = ((2 + 4 + 4) / 2 / 3) / ((1 + 1 + 9) / 3)
    for scale in (1.0, 1e-30):
        assert metrics.dirichlet_energy(x.double() * scale, neighbours) == pytest.approx(by_hand)


def test_dirichlet_energy_is_the_quadratic_form_of_the_laplacian():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 4))
    near = np.stack([rng.permutation(np.delete(np.arange(30), n))[:5] for n in range(30)])
    adjacency = np.zeros((30, 30))
    np.put_along_axis(adjacency, near, 0.5, axis=1)
    adjacency += adjacency.T
    laplacian = np.diag(adjacency.sum(1)) - adjacency
    expected = np.trace(x.T @ laplacian @ x) / 150 / np.square(x).sum(1).mean()
    found = metrics.dirichlet_energy(torch.from_numpy(x), torch.from_numpy(near))
    assert found == pytest.approx(expected, rel=1e-12)


def test_dirichlet_energy_is_0_when_all_are_alike_and_near_1_for_unrelated_rows():
    draws = torch.Generator().manual_seed(0)
    near = torch.randint(2000, (2000, 4), generator=draws)
    x = torch.randn(2000, 8, generator=draws)
    assert metrics.dirichlet_energy(x, near) == pytest.approx(1, abs=0.03)
    assert metrics.dirichlet_energy(x[:1].expand(2000, 8), near) == 0
    assert metrics.dirichlet_energy(0 * x, near) == 0
    assert math.isnan(metrics.dirichlet_energy(x, torch.full((2000, 2), -1)))


def test_modality_gap_by_hand():
    nan = math.nan
    text = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    image = torch.tensor([[5.0, 0.0], [0.0, 1.0], [nan, nan]])
    audio = torch.tensor([[-1.0, 0.0], [nan, nan], [nan, nan]])
    # entity 0: text-image 1, text-audio -1, image-audio -1; entity 1: text-image 0
    tables = {"text": text, "image": image, "audio": audio}
    assert metrics.modality_gap(tables) == pytest.approx(1 + 1 / 4)
    assert metrics.modality_gap({"a": text, "b": 3 * text}) == pytest.approx(0)


def test_modality_gap_needs_two_modalities():
    with pytest.raises(ValueError, match="got text"):
        metrics.modality_gap({"text": torch.ones(2, 2)})

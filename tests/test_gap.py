"""The modality gap in numbers: on clouds whose gap is known, against direct formulas, and laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec import gap
from mmrec.metrics import modality_gap

SEEDS = st.integers(0, 99)


def cloud(seed: int, shape: tuple[int, int] = (40, 6)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=shape[1]), rng.uniform(0.2, 3, shape[1]), shape)


def turn(width: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def without(x_ND: np.ndarray, *items: int) -> np.ndarray:
    x_ND = x_ND.copy()
    x_ND[list(items)] = np.nan
    return x_ND


@pytest.fixture(autouse=True)
def few_trees(monkeypatch, request):
    """Quicker, and what holds for a forest holds for a small one."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(gap, "TREES", 8)


# --- no gap, and a gap known by hand


def test_alike_modalities_have_no_gap():
    tables = {name: cloud(0) for name in ("text", "image", "audio")}
    found = gap.measures(tables)
    assert list(found) == list(gap.MEASURES)
    assert found["gap_intra_cosine"] == pytest.approx(1, abs=1e-12)
    assert found["gap_centroid"] == 0
    assert found["gap_cka"] == pytest.approx(1, abs=1e-12)
    # An item's three equal vectors get one answer, which is right for one of them.
    assert found["gap_accuracy"] == found["gap_chance"] == pytest.approx(1 / 3)


def test_two_clouds_on_two_axes():
    # Directions (1, 0) and (0, 1) whatever the lengths: centroids sqrt 2 apart, cosines 0 and 1.
    length = np.random.default_rng(0).uniform(0.5, 9, 12)
    tables = {"a": np.outer(length, [1.0, 0]), "b": np.outer(length[::-1], [0, 2.0])}
    found = gap.measures(tables)
    assert found["gap_intra_cosine"] == 0
    assert found["gap_inter_cosine"] == pytest.approx(1, abs=1e-12)
    assert found["gap_centroid"] == pytest.approx(np.sqrt(2), rel=1e-12)
    assert (found["gap_accuracy"], found["gap_chance"]) == (1, 0.5)
    correlation = np.corrcoef(length, length[::-1])[0, 1]
    assert found["gap_cka"] == pytest.approx(correlation**2, rel=1e-9)  # of one column each


def test_shifted_clouds():
    x = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    # Each point (x, y, h) has the length sqrt(1 + h^2): centroids at +-h / sqrt(1 + h^2).
    for height in (0.5, 3.0):
        shift = np.array([0, 0, height])
        tables = {"up": x + shift, "down": x - shift}
        squared = 1 + height**2
        expected = 2 * height / np.sqrt(squared)
        assert gap.centroid_distance(tables) == pytest.approx(expected, rel=1e-12)
        assert gap.intra_cosine(tables) == pytest.approx((1 - height**2) / squared, abs=1e-12)
        # Of 6 pairs of the four points 4 lie at right angles and 2 opposite.
        inter = (4 * height**2 + 2 * (height**2 - 1)) / 6 / squared
        assert gap.inter_cosine(tables) == pytest.approx(inter, abs=1e-12)
        assert gap.linear_cka(tables) == pytest.approx(1, abs=1e-12)


def test_a_shift_is_told_by_the_forest():
    tables = {"up": cloud(0) + 40, "down": cloud(1) - 40}
    assert gap.modality_accuracy(tables) == (1, 0.5)


@settings(max_examples=10, deadline=None)
@given(SEEDS)
def test_intra_cosine_and_the_metric_of_the_gap_add_up_to_one(seed):
    tables = {n: cloud(seed + n) for n in range(3)}
    tables = {str(n): without(x, 3 * n, 7) for n, x in tables.items()}
    tensors = {name: torch.from_numpy(x) for name, x in tables.items()}
    assert gap.intra_cosine(tables) == pytest.approx(1 - modality_gap(tensors), abs=1e-12)


# --- alignment of kernels


def hsic_cka(x_ND: np.ndarray, y_ND: np.ndarray) -> float:
    """HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)), HSIC = tr(K H L H), by (N, N) matrices."""
    h_NN = np.eye(len(x_ND)) - 1 / len(x_ND)
    k_NN, l_NN = x_ND @ x_ND.T, y_ND @ y_ND.T

    def hsic(a_NN: np.ndarray, b_NN: np.ndarray) -> float:
        return np.trace(a_NN @ h_NN @ b_NN @ h_NN)

    return hsic(k_NN, l_NN) / np.sqrt(hsic(k_NN, k_NN) * hsic(l_NN, l_NN))


@pytest.mark.parametrize("width", [3, 60])
def test_alignment_is_that_of_centred_kernels(width):
    x, y = cloud(0), cloud(1, (40, width))
    z = x @ cloud(2, (6, width + 2))
    expected = np.mean([hsic_cka(x, y), hsic_cka(x, z), hsic_cka(y, z)])
    assert gap.linear_cka({"x": x, "y": y, "z": z}) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3))
def test_alignment_is_blind_to_rotation_scale_and_place(seed, scale):
    x, y = cloud(seed), cloud(seed + 1)
    moved = scale * x @ turn(6, seed) + 7
    assert gap.linear_cka({"a": x, "b": moved}) == pytest.approx(1, abs=1e-9)
    of_both = gap.linear_cka({"a": x, "b": y})
    assert gap.linear_cka({"a": moved, "b": y}) == pytest.approx(of_both, abs=1e-9)


def test_a_cloud_of_one_point_shares_no_structure():
    alike = np.full((40, 6), 0.1) * (1 + 1e-9 * np.arange(40))[:, None]
    assert gap.linear_cka({"a": cloud(0), "b": alike}) == 0
    assert gap.linear_cka({"a": alike, "b": alike}) == 0


# --- which modality a vector is of


@pytest.mark.parametrize("modalities", [2, 5])
def test_modalities_of_one_distribution_are_told_by_chance_alone(modalities):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        tables = {str(n): rng.normal(size=(60, 4)) for n in range(modalities)}
        accuracy, chance = gap.modality_accuracy(tables)
        assert chance == pytest.approx(1 / modalities)
        # An item's vectors are drawn alike, so that hits are at most as spread as coin tosses.
        low, high = sps.binom.interval(0.999, 60 * modalities, chance)
        assert low <= accuracy * 60 * modalities <= high


@pytest.mark.slow
def test_modalities_of_one_distribution_are_told_by_chance_alone_under_many_seeds():
    hits, num_vectors = 0.0, 0
    for seed in range(30):
        rng = np.random.default_rng(100 + seed)
        common = rng.normal(size=(80, 6))  # what an item's vectors share does not tell them apart
        tables = {str(n): common + rng.normal(size=(80, 6)) for n in range(3)}
        hits += gap.modality_accuracy(tables)[0] * 240
        num_vectors += 240
    assert sps.binomtest(round(hits), num_vectors, 1 / 3).pvalue > 0.01


def test_an_items_vectors_never_lie_on_both_sides():
    # An item's two vectors lie side by side, far from all others, which one is left being random.
    # Whoever learned from one would take the other for the same: all wrong. Without it all is open.
    rng = np.random.default_rng(0)
    place, side = 100.0 * np.arange(60)[:, None], rng.choice([-1.0, 1.0], size=(60, 1))
    low, high = sps.binom.interval(0.999, 120, 0.5)
    assert low <= 120 * gap.modality_accuracy({"a": place + side, "b": place - side})[0] <= high


def test_chance_is_the_share_of_the_commonest_modality():
    tables = {"a": cloud(0) + 40, "b": without(cloud(1) - 40, *range(30))}
    assert gap.modality_accuracy(tables) == (1, 40 / 50)


def test_of_many_items_those_with_all_modalities_are_asked(monkeypatch):
    monkeypatch.setattr(gap, "MOST_ITEMS", 25)
    # The 15 items without b would make a the commoner one.
    tables = {"a": cloud(0) + 40, "b": without(cloud(1) - 40, *range(15))}
    assert gap.modality_accuracy(tables) == (1, 0.5)


# --- what is missing


def test_missing_rows_are_left_out_pair_by_pair():
    a, b, c = (cloud(seed) for seed in range(3))
    tables = {"a": without(a, 0, 1), "b": without(b, 1, 5), "c": c}
    pairs = [((a, b), [0, 1, 5]), ((a, c), [0, 1]), ((b, c), [1, 5])]
    kept = [[np.delete(x, rows, 0) for x in pair] for pair, rows in pairs]
    units = [[x / np.linalg.norm(x, axis=1)[:, None] for x in pair] for pair in kept]
    cosines = np.concatenate([(x * y).sum(1) for x, y in units])
    assert gap.intra_cosine(tables) == pytest.approx(cosines.mean(), rel=1e-12)
    distances = [np.linalg.norm(x.mean(0) - y.mean(0)) for x, y in units]
    assert gap.centroid_distance(tables) == pytest.approx(np.mean(distances), rel=1e-12)
    expected = np.mean([hsic_cka(x, y) for x, y in kept])
    assert gap.linear_cka(tables) == pytest.approx(expected, rel=1e-9)
    alone = [np.delete(a, [0, 1], 0), np.delete(b, [1, 5], 0), c]
    alone = [x / np.linalg.norm(x, axis=1)[:, None] for x in alone]
    inter = [(x @ x.T)[np.triu_indices(len(x), 1)].mean() for x in alone]
    assert gap.inter_cosine(tables) == pytest.approx(np.mean(inter), rel=1e-9)


def test_a_modality_that_no_item_has_is_passed_over():
    tables = {"a": cloud(0), "b": cloud(1)}
    nothing = without(cloud(2), *range(40))
    assert gap.measures({"a": tables["a"], "no": nothing, "b": tables["b"]}) == gap.measures(tables)


def test_a_vector_of_zeros_is_like_nothing():
    tables = {"a": np.array([[1.0, 0], [0, 0], [1, 0]]), "b": np.array([[2.0, 0], [1, 0], [0, 0]])}
    assert gap.intra_cosine(tables) == pytest.approx(1 / 3)
    assert gap.inter_cosine(tables) == pytest.approx(1 / 3)
    assert gap.centroid_distance(tables) == pytest.approx(0)


@pytest.mark.parametrize(
    "number",
    [
        gap.intra_cosine,
        gap.inter_cosine,
        gap.centroid_distance,
        gap.linear_cka,
        gap.modality_accuracy,
        gap.measures,
    ],
)
def test_what_has_no_gap_is_refused(number):
    with pytest.raises(ValueError, match="between two modalities, got text"):
        number({"text": cloud(0)})
    with pytest.raises(ValueError, match="between two modalities, got none"):
        number({})
    with pytest.raises(ValueError, match="between two modalities, got text"):
        number({"text": cloud(0), "image": without(cloud(0), *range(40))})
    bad = cloud(1)
    bad[3, 2] = np.inf
    with pytest.raises(ValueError, match="1 of 40 vectors of 'b' are not finite"):
        number({"a": cloud(0), "b": bad})


@pytest.mark.parametrize(
    "number", [gap.intra_cosine, gap.centroid_distance, gap.linear_cka, gap.modality_accuracy]
)
def test_modalities_that_no_two_items_share_are_refused(number):
    tables = {"a": without(cloud(0), *range(20)), "b": without(cloud(1), *range(21, 40))}
    with pytest.raises(ValueError, match="no two of a, b have 2 items in common"):
        number(tables)


def test_tables_must_be_of_one_shape():
    with pytest.raises(ValueError, match=r"'a': \(40, 6\), 'b': \(40, 5\)"):
        gap.intra_cosine({"a": cloud(0), "b": cloud(0)[:, 1:]})
    with pytest.raises(ValueError, match="'a': 40, 'b': 39"):
        gap.linear_cka({"a": cloud(0), "b": cloud(0)[1:]})
    with pytest.raises(ValueError, match="3 folds need 3 items with 'b', there are 2"):
        gap.modality_accuracy({"a": cloud(0), "b": without(cloud(0), *range(2, 40))})

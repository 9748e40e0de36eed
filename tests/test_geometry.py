"""Numbers about clouds of points, against numpy, scipy, scikit-learn, values by hand, and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as sps
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from mmrec import geometry

SEEDS = st.integers(0, 99)
SHAPES = [(40, 6), (9, 30)]


def cloud(seed: int, shape: tuple[int, int] = (40, 6)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=shape[1]), rng.uniform(0.2, 3, shape[1]), shape)


def turned(x_ND: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return x_ND @ np.linalg.qr(rng.normal(size=(x_ND.shape[1],) * 2))[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_spectrum_is_that_of_principal_component_analysis(shape):
    x = cloud(0, shape)
    expected = PCA(svd_solver="full").fit(x).explained_variance_ratio_
    np.testing.assert_allclose(geometry.variance_spectrum(x), expected, atol=1e-12)
    np.testing.assert_allclose(
        geometry.variance_spectrum(x),
        np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2 / (x.var(0).sum() * len(x)),
        atol=1e-12,
    )


def test_spectrum_of_known_clouds():
    cross = np.array([[2.0, 0, 0], [-2, 0, 0], [0, 1, 0], [0, -1, 0]])
    np.testing.assert_allclose(geometry.variance_spectrum(cross), [0.8, 0.2, 0], atol=1e-15)
    away = cross.astype(np.float32) + 7  # where a cloud lies does not matter
    np.testing.assert_allclose(geometry.variance_spectrum(away), [0.8, 0.2, 0], atol=1e-15)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-300, 1e300])
def test_points_that_are_all_alike_vary_in_no_direction(value):
    alike = np.full((7, 3), value)
    assert geometry.variance_spectrum(alike).tolist() == [0, 0, 0]
    rounded = alike * (1 + 1e-8 * np.arange(21).reshape(7, 3))
    assert geometry.variance_spectrum(rounded).tolist() == [0, 0, 0]


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3), st.sampled_from(SHAPES))
def test_spectrum_is_blind_to_rotation_scale_and_place(seed, scale, shape):
    x = cloud(seed, shape)
    moved = scale * turned(x, seed) + np.arange(shape[1])
    spectrum = geometry.variance_spectrum(x)
    assert spectrum.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff(spectrum) <= 0).all()
    np.testing.assert_allclose(geometry.variance_spectrum(moved), spectrum, atol=1e-9)


def test_effective_rank_is_near_the_width_of_an_isotropic_cloud():
    x = np.random.default_rng(0).normal(size=(4000, 12))
    assert geometry.effective_rank(x) == pytest.approx(12, rel=2e-3)
    value_R = np.linalg.svd(cloud(1), compute_uv=False)
    expected = np.exp(sps.entropy(value_R))
    assert geometry.effective_rank(cloud(1)) == pytest.approx(expected, rel=1e-12)


def test_mean_cosine_of_one_direction_is_one():
    x = np.outer([1.0, 2, 5], [3.0, -4])
    assert geometry.mean_cosine(x.astype(np.float32)) == pytest.approx(1, abs=1e-7)
    # cosines 1, 0 and 0: the point at the origin is like nothing
    assert geometry.mean_cosine(np.array([[1.0, 0], [2, 0], [0, 0]])) == pytest.approx(1 / 3)


@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_are_those_of_scikit_learn(k):
    x = cloud(3)
    other = NearestNeighbors(n_neighbors=k, metric="cosine").fit(x)
    expected = other.kneighbors(return_distance=False)
    np.testing.assert_array_equal(geometry.neighbours(x, k), expected)


@settings(max_examples=10, deadline=None)
@given(SEEDS, st.floats(1e-3, 1e3))
def test_neighbours_are_blind_to_rotation_and_to_each_points_length(seed, scale):
    x = cloud(seed, (15, 6))
    length = scale * np.random.default_rng(seed).uniform(0.5, 2, (15, 1))
    np.testing.assert_array_equal(
        geometry.neighbours(turned(x, seed) * length, 3), geometry.neighbours(x, 3)
    )


def test_hubness_is_the_skewness_of_how_often_points_are_neighbours():
    near = geometry.neighbours(cloud(4, (60, 20)), 5)
    count = [(near == point).sum() for point in range(60)]
    assert geometry.occurrences(near).tolist() == count
    assert geometry.hubness(near) == pytest.approx(sps.skew(count), rel=1e-12)
    assert geometry.hub_share(near) == max(count) / 59


def test_one_hub():
    # Rays around an axis: each is nearer to the axis than to any other ray.
    rays = np.hstack([3 * np.eye(6), np.full((6, 1), 3.0)])
    near = geometry.neighbours(np.vstack([rays, [0] * 6 + [1]]), 1)
    assert near[:6, 0].tolist() == [6] * 6
    counts = np.bincount(near[:, 0], minlength=7)
    assert sorted(counts) == [0, 0, 0, 0, 0, 1, 6]
    assert geometry.hub_share(near) == 1
    assert geometry.hubness(near) == pytest.approx(sps.skew(counts), rel=1e-12)


def test_points_in_a_ring_have_no_hub():
    angle = 2 * np.pi * np.arange(12) / 12
    near = geometry.neighbours(np.column_stack([np.cos(angle), np.sin(angle)]), 2)
    expected = [{(n - 1) % 12, (n + 1) % 12} for n in range(12)]
    assert [set(row) for row in near.tolist()] == expected
    assert geometry.hubness(near) == 0


def test_overlap_by_hand():
    near = np.array([[1, 2], [0, 2], [-1, -1]])
    other = np.array([[2, 1], [2, 0], [-1, -1]])
    assert geometry.neighbour_overlap(near, other) == pytest.approx((1 + 1 + 0) / 3)
    third = np.array([[2, 4], [1, 3], [0, 1]])
    assert geometry.neighbour_overlap(near, third) == pytest.approx((1 / 2 + 0 + 0) / 3)


def test_overlap_of_unrelated_clouds_is_that_of_chance():
    rng = np.random.default_rng(0)
    lists = [geometry.neighbours(rng.normal(size=(400, 8)), 20) for _ in range(2)]
    chance = geometry.overlap_by_chance(lists[0])
    assert chance == 20 / 399
    assert geometry.neighbour_overlap(*lists) == pytest.approx(chance, rel=0.1)
    assert geometry.neighbour_overlap(lists[0], lists[0]) == 1


def test_points_at_the_origin_and_points_all_alike():
    x = np.array([[1.0, 0], [1, 1], [0, 0]])
    assert geometry.neighbours(x, 2).tolist() == [[1, -1], [0, -1], [-1, -1]]
    alike = geometry.neighbours(np.ones((8, 3)), 2)
    assert sorted(geometry.occurrences(alike))[-2:] == [7, 7]  # the two that ties go to


@pytest.mark.parametrize(
    "number",
    [
        geometry.variance_spectrum,
        geometry.effective_rank,
        geometry.mean_cosine,
        lambda x: geometry.neighbours(x, 1),
    ],
)
def test_what_is_no_cloud_is_refused(number):
    with pytest.raises(ValueError, match=r"at least 2 points, got shape \(1, 3\)"):
        number(np.ones((1, 3)))
    with pytest.raises(ValueError, match="1 of 4 points hold numbers that are not finite"):
        number(np.array([[1.0, 2], [np.nan, np.inf], [0, 1], [1, 1]]))


@pytest.mark.parametrize("k", [0, 5])
def test_k_must_fit_the_cloud(k):
    with pytest.raises(ValueError, match=rf"k must be in \[1, 4\] for 5 points, got {k}"):
        geometry.neighbours(cloud(0)[:5], k)


def test_lists_of_other_lengths_are_not_compared():
    with pytest.raises(ValueError, match=r"got \(40, 2\) and \(40, 3\)"):
        geometry.neighbour_overlap(*(geometry.neighbours(cloud(0), k) for k in (2, 3)))

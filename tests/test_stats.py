import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as sps

from mmrec import stats
from mmrec.stats import Paired

A = np.array([0.310, 0.295, 0.322, 0.301, 0.317])
B = np.array([0.300, 0.291, 0.305, 0.303, 0.298])


def within_binomial_error(count, n, p):
    """Whether a count is one that would be seen in 99.99 % of repetitions."""
    low, high = sps.binom.interval(0.9999, n, p)
    return low <= count <= high


# --- one comparison


def test_paired_numbers_equal_scipys_paired_t_test():
    pair, expected = Paired.of(A, B), sps.ttest_rel(A, B)
    assert pair.p() == pytest.approx(expected.pvalue, rel=1e-12)
    interval = expected.confidence_interval(0.9)
    np.testing.assert_allclose(pair.interval(0.1), interval, rtol=1e-12)
    assert pair.effect == pytest.approx(0.0096)
    assert pair.relative == pytest.approx(0.0096 / 0.2994)


@pytest.mark.parametrize(("side", "words"), [("p_above", "greater"), ("p_below", "less")])
def test_one_sided_p_equals_scipy_far_into_the_tail(side, words):
    for at in (0.001, 0.01, -3.0, 3.0):
        expected = sps.ttest_1samp(A - B, at, alternative=words).pvalue
        assert getattr(Paired.of(A, B), side)(at) == pytest.approx(expected, rel=1e-9)


def test_differences_that_are_all_alike_are_certain_or_nothing():
    assert Paired.of([0.5, 0.75, 1.0], [0.25, 0.5, 0.75]).p() == 0
    assert Paired.of([0.5, 0.75], [0.5, 0.75]).p() == 1


def test_one_seed_gives_an_effect_and_nothing_else():
    pair = Paired.of([0.5], [0.4])
    assert pair.effect == pytest.approx(0.1)
    assert all(math.isnan(x) for x in (pair.p(), *pair.interval(), pair.mde, pair.standardised))


@pytest.mark.parametrize("other", [[1.0], [1.0, math.nan], []])
def test_pairs_that_are_none_are_refused(other):
    with pytest.raises(ValueError, match=r"one length|finite"):
        Paired.of([1.0, 2.0], other)


def test_standardised_effect_by_hand():
    # 5 pairs: J = gamma(2) / (sqrt(2) gamma(1.5)) = .797885
    pair = Paired(n=5, effect=2.0, base=1.0, sd=4.0)
    assert pair.standardised == pytest.approx(0.7978845608 * 0.5, rel=1e-9)


@pytest.mark.parametrize(("d", "needed"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_detectable_effect_agrees_with_the_sample_sizes_of_g_power(d, needed):
    assert stats.detectable(needed) <= d < stats.detectable(needed - 1)


def test_the_detectable_effect_is_found_four_times_in_five():
    n, runs = 5, 4000
    rng = np.random.default_rng(1)
    x = rng.normal(stats.detectable(n), 1, size=(runs, n))
    found = int((sps.ttest_1samp(x, 0, axis=1).pvalue < 0.05).sum())
    assert within_binomial_error(found, runs, 0.8)


def test_bootstrap_t_covers_a_skewed_mean():
    rng = np.random.default_rng(2)
    runs = 400
    draws = rng.exponential(size=(runs, 12))
    ends = [stats.bootstrap_t(x, 0.1, draws=500) for x in draws]
    covered = sum(low <= 1 <= high for low, high in ends)
    assert within_binomial_error(covered, runs, 0.9)


def test_bootstrap_t_is_the_t_interval_for_many_normal_values():
    x = sps.norm.ppf((np.arange(400) + 0.5) / 400)
    low, high = stats.bootstrap_t(x, draws=8000)
    expected = Paired.of(x, 0 * x).interval()
    np.testing.assert_allclose((low, high), expected, rtol=0.08)


def test_bootstrap_t_of_two_or_of_equal_seeds_claims_no_more_than_it_knows():
    assert stats.bootstrap_t([0.1, 0.2]) == (-math.inf, math.inf)
    assert stats.bootstrap_t([0.25, 0.25, 0.25]) == (0.25, 0.25)


@pytest.mark.parametrize("users", [300, 12_000])
def test_user_interval_equals_scipys_bootstrap(users):
    rng = np.random.default_rng(3)
    difference_SU = rng.normal(0.01, 0.2, size=(5, users)) + rng.exponential(0.1, size=users)
    difference_SU[:, :4] = math.nan  # users without a test item
    got = stats.user_interval(difference_SU)
    expected = sps.bootstrap(
        (difference_SU[:, 4:].mean(0),), np.mean, n_resamples=600, method="percentile", rng=4
    ).confidence_interval
    np.testing.assert_allclose(got, expected, atol=0.15 * (expected.high - expected.low))


# --- many claims


def test_holm_on_a_published_example():
    # four hypotheses with p = .01 .04 .03 .005: the fourth and the first are rejected at .05
    got = stats.holm([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(got, [0.03, 0.06, 0.06, 0.02])


def test_a_claim_that_was_not_tested_costs_the_others_nothing():
    got = stats.holm([0.02, math.nan, 0.03])
    np.testing.assert_allclose(got, [0.04, math.nan, 0.04])
    assert stats.holm([0.9, 0.8]).tolist() == [1, 1]
    assert len(stats.holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.floats(0.01, 0.3))
def test_the_level_left_to_a_claim_decides_as_its_corrected_p(p, alpha):
    corrected, level = stats.holm(p), stats.holm_levels(p, alpha)
    clear = np.abs(corrected - alpha) > 1e-12
    assert ((np.array(p) < level) == (corrected < alpha))[clear].all()
    assert (level <= alpha * (1 + 1e-12)).all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=7), st.randoms())
def test_holm_is_blind_to_order_and_never_lowers_p_nor_swaps_two(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    corrected = stats.holm(p)
    np.testing.assert_array_equal(stats.holm([p[i] for i in order]), corrected[order])
    assert (corrected >= p).all()
    assert (np.diff(corrected[np.argsort(p)]) >= 0).all()


def test_holm_keeps_the_chance_of_any_false_verdict():
    rng = np.random.default_rng(5)
    runs = 3000
    x = rng.normal(size=(runs, 4, 5))
    p = sps.ttest_1samp(x, 0, axis=2).pvalue
    wrong = sum((stats.holm(row) < 0.05).any() for row in p)
    assert within_binomial_error(wrong, runs, 1 - (1 - 0.05 / 4) ** 4)


# Five seeds with sd .01: the 95 % interval is the effect +- 2.776 * .01 / sqrt(5) = +- .01242,
# the 90 % one +- 2.132 * .01 / sqrt(5) = +- .00953.
@pytest.mark.parametrize(
    ("effect", "base", "expected"),
    [
        (0.013, 0.3, "supported"),
        (0.012, 0.3, "not separable"),
        (-0.012, 0.3, "not separable"),
        (-0.013, 0.3, "refuted"),
        (0.001, 1.4, "refuted"),
        (0.001, 1.3, "not separable"),
        (0.013, 4.0, "supported"),
    ],
)
def test_verdict_of_a_difference_by_hand(effect, base, expected):
    got = stats.judge_better(Paired(5, effect, base, 0.01))
    assert got.verdict == expected
    assert (got.low, got.high) == pytest.approx((effect - 0.012417, effect + 0.012417), abs=1e-6)
    assert got.relative == pytest.approx(effect / base)


@pytest.mark.parametrize(
    ("effect", "base", "both", "one_sided"),
    [
        (0.0, 1.0, "equivalent", "supported"),
        (0.001, 1.0, "not separable", "supported"),
        (-0.001, 1.0, "not separable", "not separable"),
        # One side is tested at .05, two at .05 in all: the half-widths are .0095 and .0124.
        (0.02, 1.0, "not separable", "supported"),
        (-0.02, 1.0, "not separable", "refuted"),
        (0.03, 1.0, "refuted", "supported"),
        (-0.03, 1.0, "refuted", "refuted"),
    ],
)
def test_verdict_of_equivalence_by_hand(effect, base, both, one_sided):
    pair = Paired(5, effect, base, 0.01)
    assert stats.judge_equivalent(pair).verdict == both
    assert stats.judge_equivalent(pair, one_sided=True).verdict == one_sided


def test_equivalence_p_is_the_larger_of_two_one_sided_tests():
    margin = 0.05 * B.mean()
    tests = [
        sps.ttest_1samp(A - B, -margin, alternative="greater"),
        sps.ttest_1samp(A - B, margin, alternative="less"),
    ]
    got = stats.judge_equivalent(Paired.of(A, B), smallest=0.05)
    assert got.p == pytest.approx(max(t.pvalue for t in tests), rel=1e-12)


def test_p_of_a_refuted_equivalence_is_that_of_lying_outside():
    margin = 0.001 * B.mean()
    outside = sps.ttest_1samp(A - B, margin, alternative="greater").pvalue
    got = stats.judge_equivalent(Paired.of(A, B), smallest=0.001)
    assert got.p == pytest.approx(2 * outside, rel=1e-12)
    assert got.verdict == ("refuted" if 2 * outside < 0.05 else "not separable")


@pytest.mark.slow
def test_many_equal_pairs_are_seldom_called_different():
    rng, false, studies = np.random.default_rng(0), 0, 150
    for _ in range(studies):
        pairs = [Paired.of(rng.normal(1.0, 0.03, 5), np.ones(5)) for _ in range(8)]
        levels = stats.holm_levels([stats.judge_equivalent(pair).p for pair in pairs])
        judged = zip(pairs, levels, strict=True)
        false += any(stats.judge_equivalent(p, float(a)).verdict == "refuted" for p, a in judged)
    # 5 % of 150 is 7.5; three standard errors more is 15.5.
    assert false <= 15


@given(st.floats(-0.05, 0.05), st.floats(1e-4, 0.05), st.floats(0.001, 0.2))
def test_equivalence_verdict_and_p_agree_at_every_level(effect, sd, alpha):
    for one_sided in (False, True):
        got = stats.judge_equivalent(Paired(8, effect, 1.0, sd), alpha, one_sided=one_sided)
        if abs(got.p - alpha) > 1e-9:
            assert (got.verdict != "not separable") == (got.p < alpha)


def test_four_seeds_give_numbers_and_no_verdict():
    for judge in (stats.judge_better, stats.judge_equivalent):
        got = judge(Paired(4, 1.0, 1.0, 0.001))
        assert got.verdict == "too few seeds"
        assert got.p < 1e-3 or judge is stats.judge_equivalent
        assert got.n == 4


# --- grids

GRAFTS = np.array(
    # Montgomery, Design and Analysis of Experiments, table 4.3: yield of vascular grafts under
    # four pressures, in six batches of resin (blocks).
    [
        [90.3, 89.2, 98.2, 93.9, 87.4, 97.9],
        [92.5, 89.5, 90.6, 94.7, 87.0, 95.8],
        [85.5, 90.8, 89.6, 86.2, 88.0, 93.4],
        [82.5, 89.5, 85.6, 87.4, 78.9, 90.7],
    ]
)


def test_anova_with_blocks_on_a_textbook_table():
    got = stats.anova(GRAFTS, ["pressure"])
    assert (got.df_error, got["pressure"].df) == (15, 3)
    assert got.mse == pytest.approx(7.33, abs=5e-3)
    assert got["pressure"].f == pytest.approx(8.11, abs=5e-3)
    assert got["pressure"].p == pytest.approx(0.0019, abs=5e-5)
    # signal 178.17 - 3 * 7.33, over itself and 24 times the error
    assert got["pressure"].omega2 == pytest.approx(0.470, abs=1e-3)


def test_anova_of_two_cells_is_the_paired_t_test():
    got = stats.anova([A, B], ["cell"])["cell"]
    assert got.f == pytest.approx(sps.ttest_rel(A, B).statistic ** 2, rel=1e-9)
    assert got.p == pytest.approx(sps.ttest_rel(A, B).pvalue, rel=1e-9)


def test_anova_has_the_f_of_one_way_once_blocks_are_taken_out_of_both():
    y = GRAFTS - GRAFTS.mean(0)
    one_way = sps.f_oneway(*y)
    got = stats.anova(GRAFTS, ["cell"])["cell"]
    assert got.f == pytest.approx(one_way.statistic * 15 / 20, rel=1e-9)


def dense_anova(y, effect_axes):
    """F of one effect by two least squares fits with dummy columns, with and without it."""
    axes = y.ndim - 1
    place = np.indices(y.shape).reshape(y.ndim, -1)

    def columns(of):
        code = np.ravel_multi_index(place[list(of)], [y.shape[a] for a in of])
        return np.eye(code.max() + 1)[code]

    def rss(effects):
        design = np.hstack([columns((axes,)), *(columns(e) for e in effects)])
        fit = design @ np.linalg.lstsq(design, y.ravel())[0]
        return ((y.ravel() - fit) ** 2).sum(), np.linalg.matrix_rank(design)

    every = [e for k in range(1, axes + 1) for e in combinations(range(axes), k)]
    full, rank = rss(every)
    # Take out the effect and all that holds it, then put the rest back in by their own columns.
    below = [e for e in every if not set(effect_axes) <= set(e)]
    small, small_rank = rss(below)
    with_it, with_rank = rss([*below, effect_axes])
    mse = full / (y.size - rank)
    return (small - with_it) / (with_rank - small_rank) / mse, with_rank - small_rank


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_factorial_anova_equals_dense_least_squares(axes):
    rng = np.random.default_rng(6)
    y = rng.normal(size=(3, 2, 4, 5)) + rng.normal(size=(3, 1, 4, 1)) + rng.normal(size=5)
    names = ["a", "b", "c"]
    got = stats.anova(y, names)[" x ".join(names[a] for a in axes)]
    f, df = dense_anova(y, axes)
    assert (got.f, got.df) == (pytest.approx(f, rel=1e-9), df)


def test_shares_of_variance_find_the_truth():
    # a: variance 1 (levels -1 1), b: 4 (-2 2), noise 5: shares .1 and .4, partial 1/6 and 4/9
    rng = np.random.default_rng(7)
    a, b = np.array([-1, 1.0])[:, None, None], np.array([-2, 2.0])[None, :, None]
    y = a + b + 30 * rng.normal(size=4000) + math.sqrt(5) * rng.normal(size=(2, 2, 4000))
    got = stats.anova(y, ["a", "b"])
    assert got["a"].share == pytest.approx(0.1, abs=0.01)
    assert got["b"].share == pytest.approx(0.4, abs=0.01)
    assert got["b"].omega2 == pytest.approx(4 / 9, abs=0.01)
    assert got["a x b"].share == pytest.approx(0, abs=0.001)


def test_with_one_factor_the_partial_share_is_the_whole_share():
    effect = stats.anova(GRAFTS, ["pressure"])["pressure"]
    assert effect.share == pytest.approx(effect.omega2, rel=1e-12)


def test_interval_of_omega_squared_covers_and_excludes_0_with_p():
    rng = np.random.default_rng(8)
    mean_C = np.array([-1.0, 0.0, 1.0])
    truth = mean_C.var() / (mean_C.var() + 1)
    runs = 150
    covered = agree = 0
    for _ in range(runs):
        y = mean_C[:, None] + rng.normal(size=5) + rng.normal(size=(3, 5))
        effect = stats.anova(y, ["cell"])["cell"]
        covered += effect.low <= truth <= effect.high
        agree += (effect.low > 0) == (effect.p < 0.05)
    assert agree == runs
    assert within_binomial_error(covered, runs, 0.9)


def test_a_grid_that_cannot_be_analysed_is_refused():
    hole = GRAFTS.copy()
    hole[1, 2] = math.nan
    with pytest.raises(ValueError, match="1 holes"):
        stats.anova(hole, ["pressure"])
    with pytest.raises(ValueError, match=">= 2 seeds"):
        stats.anova(GRAFTS[:, :1], ["pressure"])
    with pytest.raises(KeyError, match="there are: pressure"):
        stats.anova(GRAFTS, ["pressure"])["batch"]


def test_a_grid_without_any_noise():
    assert stats.anova(np.ones((3, 4)), ["a"])["a"].p == 1
    assert stats.anova([[1.0, 1.0], [2.0, 2.0]], ["a"])["a"].p == 0


def test_polynomial_and_lack_of_fit_equal_a_fit_to_single_observations():
    rng = np.random.default_rng(9)
    x_C, n_C = np.array([0.0, 1, 2, 2, 4, 5]), np.array([3, 5, 2, 4, 3, 3])
    x, cell = np.repeat(x_C, n_C), np.repeat(np.arange(6), n_C)
    y = 1 + x - 0.2 * x**2 + rng.normal(size=len(x))
    mean_C = np.array([y[cell == c].mean() for c in range(6)])
    pure, df = ((y - mean_C[cell]) ** 2).sum(), len(y) - 6
    curve = stats.polynomial(x_C, mean_C, n_C, 2, mse=pure / df, df_error=df)
    expected = np.polynomial.polynomial.polyfit(x, y, 2)
    np.testing.assert_allclose(curve.coefficients, expected, rtol=1e-8)
    rest = ((y - np.polynomial.polynomial.polyval(x, expected)) ** 2).sum()
    assert curve.lack_f == pytest.approx((rest - pure) / 3 / (pure / df), rel=1e-8)
    line = stats.polynomial(x_C, mean_C, n_C, 1, mse=pure / df, df_error=df)
    more = curve.against(line)[0]
    rest_line = ((y - np.polynomial.polynomial.polyval(x, np.polyfit(x, y, 1)[::-1])) ** 2).sum()
    assert more == pytest.approx((rest_line - rest) / (pure / df), rel=1e-8)


def test_band_of_a_line_by_the_textbook_formula():
    x = np.array([1.0, 2, 3, 4, 10])
    line = stats.polynomial(x, 2 * x + 1, np.full(5, 3), 1, mse=0.7, df_error=9)
    at = np.array([0.0, 4, 12])
    mean, low, high = line.at(at)
    error = np.sqrt(0.7 * (1 / 15 + (at - 4) ** 2 / (3 * ((x - 4) ** 2).sum())))
    np.testing.assert_allclose(mean, 2 * at + 1)
    np.testing.assert_allclose(high - mean, 2.262157 * error, rtol=1e-6)
    np.testing.assert_allclose(mean - low, high - mean)


def test_a_polynomial_with_too_few_places_is_refused():
    with pytest.raises(ValueError, match="more than 2 distinct x"):
        stats.polynomial([1.0, 1.0, 2.0], [1.0, 2.0, 3.0], [1, 1, 1], 2, mse=1.0, df_error=3)


def test_probability_of_the_best_level_by_enumeration():
    # Two seeds, each the best for another level: (0,0) and (1,1) are drawn 1/4 each, else a tie.
    got = stats.best_level([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], draws=4000)
    assert got == pytest.approx([0.5, 0.5, 0.0], abs=0.03)
    # Three seeds; level 0 wins by 3 in one and loses by 1 in the others: it wins unless that one
    # is not drawn at all (8/27).
    got = stats.best_level([[3.0, -1, -1], [0.0, 0, 0]], draws=4000)
    assert got[0] == pytest.approx(19 / 27, abs=0.03)
    assert got.sum() == pytest.approx(1)


def test_share_of_variance_without_noise_is_r_squared():
    rng = np.random.default_rng(10)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    design = np.column_stack([np.ones(20), x])
    rest = y - design @ np.linalg.lstsq(design, y)[0]
    got = stats.explained(np.repeat(y[:, None], 4, axis=1) + np.arange(4), [x])
    np.testing.assert_allclose(got, 1 - rest.var() / y.var())


def test_share_of_variance_comes_from_products_of_different_seeds_by_hand():
    # Profiles (1, -1, 0) and (1, 0, -1): their product is 1; along (1, -1, 0) it is 2 * 1 / 2.
    # Products of a seed with itself would make it (4 + 1 + 4) / (4 + 4 + 2).
    y = np.array([[1.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    got = stats.explained(y, [np.array([[1.0], [-1.0], [0.0]]), np.array([[1.0], [1.0], [-2.0]])])
    assert got[:, 0].tolist() == pytest.approx([1.0, 0.0])


def test_share_of_variance_is_not_moved_by_noise_of_any_shape_within_a_seed():
    rng = np.random.default_rng(11)
    x = np.linspace(-1, 1, 12)
    other = np.cos(9 * x) - np.polyval(np.polyfit(x, np.cos(9 * x), 1), x)
    mean = x / x.std() + other / other.std()  # half of it along x
    slopes, waves = rng.normal(size=(2, 800))
    noise = 2 * np.outer(x, slopes) + np.outer(np.sin(20 * x), waves)
    y = mean[:, None] + noise + rng.normal(size=(12, 800))
    assert stats.explained(y, [x[:, None]])[0, 0] == pytest.approx(0.5, abs=0.04)


def test_jackknife_of_a_mean_is_its_t_interval():
    values = np.array([A.mean(), *(np.delete(A, s).mean() for s in range(5))])
    got, expected = stats.jackknife(values), Paired.of(A, 0 * A)
    assert got.sd == pytest.approx(expected.sd, rel=1e-9)
    np.testing.assert_allclose(got.interval(), expected.interval(), rtol=1e-9)


def test_jackknife_interval_of_a_share_covers():
    rng = np.random.default_rng(12)
    x = np.linspace(-1, 1, 12)
    mean = np.sin(5 * x) + x
    truth = float(stats.explained(np.repeat(mean[:, None], 2, 1), [x[:, None]])[0, 0])
    runs = 500
    covered = 0
    for _ in range(runs):
        y = mean[:, None] + rng.normal(size=5) + 0.4 * rng.normal(size=(12, 5))
        low, high = stats.jackknife(stats.explained(y, [x[:, None]])[0]).interval()
        covered += low <= truth <= high
    assert within_binomial_error(covered, runs, 0.95)

"""How differences are judged: one procedure for all studies.

Seeds are the replicates: two cells are compared by their paired differences per seed. What the
users of the same trained models say stands beside it and decides nothing. Every interval that a
verdict rests on is at the level that Holm's correction leaves to the claim, so that the verdict can
be read off the interval: it excludes the tested value exactly when `p_corrected` is below `ALPHA`.

Letters in names: S seeds, U users, C cells, L levels, M claims, D bootstrap draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize
from scipy import stats as sps

Vector = NDArray[np.float64]

ALPHA = 0.05
"""Level of a study: the chance of one or more false verdicts among its claims."""
MIN_SEEDS = 5
"""Fewer seeds give no verdict."""
SMALLEST = 0.01
"""Smallest effect of interest, as a share of the base."""
DRAWS = 2000
NAN = math.nan


@dataclass(frozen=True)
class Verdict:
    """What the data say about one claim; nan where a number does not apply."""

    verdict: str
    """supported, refuted, equivalent, not separable, too few seeds or not tested."""
    effect: float = NAN
    relative: float = NAN
    """Effect over the base's size."""
    low: float = NAN
    """Lower end of the effect's interval, at the level that the verdict used; see `detail`."""
    high: float = NAN
    p: float = NAN
    p_corrected: float = NAN
    """After Holm over the claims of the study that had enough seeds."""
    user_low: float = NAN
    """95 % interval over users, for these trained models only. Never decides."""
    user_high: float = NAN
    mde: float = NAN
    """Minimum detectable effect: found with probability .8 by a test at .05, at this spread."""
    n: int = 0
    """Seeds."""
    unit: str = ""
    detail: str = ""


# --- one comparison


@dataclass(frozen=True)
class Paired:
    """Paired differences over seeds."""

    n: int
    effect: float
    base: float
    """Mean of what is compared with."""
    sd: float
    """Standard deviation of the differences."""

    @classmethod
    def of(cls, a_S: ArrayLike, b_S: ArrayLike) -> "Paired":
        """`a - b`, seed by seed.

        Raises:
            ValueError: different lengths, nothing at all, or numbers that are not finite.
        """
        a_S, b_S = np.asarray(a_S, dtype=np.float64), np.asarray(b_S, dtype=np.float64)
        if a_S.shape != b_S.shape or a_S.ndim != 1 or not len(a_S):
            raise ValueError(f"pairs need two vectors of one length, got {a_S.shape}, {b_S.shape}")
        difference_S = a_S - b_S
        if not np.isfinite(difference_S).all():
            raise ValueError(f"differences must be finite, got {difference_S.tolist()}")
        sd = float(difference_S.std(ddof=1)) if len(a_S) > 1 else NAN
        return cls(len(a_S), float(difference_S.mean()), float(b_S.mean()), sd)

    @property
    def relative(self) -> float:
        """The effect as a share of the base's size; nan for a base of 0."""
        return self.effect / abs(self.base) if self.base else NAN

    @property
    def standardised(self) -> float:
        """Hedges' g for pairs: effect / sd, with the exact small-sample correction."""
        if self.n < 3 or not self.sd:
            return NAN
        half = (self.n - 1) / 2
        shrink = math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)
        return shrink * self.effect / self.sd

    def p(self, at: float = 0.0) -> float:
        """Two-sided p of "the mean difference is `at`" (paired t test)."""
        return NAN if self.n < 2 else min(1.0, 2 * min(self.p_below(at), self.p_above(at)))

    def p_above(self, at: float = 0.0) -> float:
        """One-sided p against "the mean difference is `at` or less"."""
        return self._tail(self.effect - at)

    def p_below(self, at: float = 0.0) -> float:
        """One-sided p against "the mean difference is `at` or more"."""
        return self._tail(at - self.effect)

    def _tail(self, distance: float) -> float:
        if self.n < 2:
            return NAN
        if self.sd == 0:  # all differences alike: t is infinite, or nothing speaks either way
            return 0.5 if distance == 0 else float(distance < 0)
        return float(sps.t.sf(distance * math.sqrt(self.n) / self.sd, self.n - 1))

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        """Two-sided t interval at level 1 - alpha."""
        if self.n < 2:
            return NAN, NAN
        half = float(sps.t.isf(alpha / 2, self.n - 1)) * self.sd / math.sqrt(self.n)
        return self.effect - half, self.effect + half

    @property
    def mde(self) -> float:
        """The smallest true difference that this test finds with power .8 at alpha .05."""
        return detectable(self.n) * self.sd


@lru_cache
def detectable(n: int, power: float = 0.8, alpha: float = ALPHA) -> float:
    """The difference, in standard deviations of a difference, that a two-sided paired t test finds.

    From the noncentral t distribution; nan for n < 2.
    """
    if n < 2:
        return NAN
    critical = sps.t.isf(alpha / 2, n - 1)

    def missing(shift: float) -> float:
        # Power .8 is reached where the other tail holds less than 1e-5: it is left out.
        return float(sps.nct.sf(critical, n - 1, shift)) - power

    high = 1.0
    while missing(high) < 0:
        high *= 1.5
    return float(optimize.brentq(missing, 0, high)) / math.sqrt(n)


def bootstrap_t(
    difference_S: ArrayLike, alpha: float = ALPHA, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Studentised bootstrap interval of a mean (Efron & Tibshirani 1993, ch. 12.5).

    Resamples without spread count as infinitely far off, so that few seeds give wide intervals.
    """
    x_S = np.asarray(difference_S, dtype=np.float64)
    n = len(x_S)
    if n < 2:
        return NAN, NAN
    mean, error = x_S.mean(), x_S.std(ddof=1) / math.sqrt(n)
    drawn_DS = x_S[np.random.default_rng(seed).integers(n, size=(draws, n))]
    off_D = drawn_DS.mean(1) - mean
    spread_D = drawn_DS.std(axis=1, ddof=1) / math.sqrt(n)
    flat_D = np.ptp(drawn_DS, axis=1) == 0
    far_D = np.where(off_D == 0, 0.0, np.copysign(np.inf, off_D))
    t_D = np.where(flat_D, far_D, off_D / np.where(flat_D, 1, spread_D))
    # Order statistics, not interpolation, which has no answer between a number and infinity.
    low, high = np.quantile(t_D, [1 - alpha / 2, alpha / 2], method="inverted_cdf")
    return (
        (float(mean - low * error), float(mean - high * error))
        if error
        else (float(mean), float(mean))
    )


def user_interval(
    difference_SU: ArrayLike, alpha: float = ALPHA, draws: int = DRAWS, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval over users of differences that were averaged over seeds.

    Says how sure one can be for these trained models only. Users with a nan are left out. Above
    10,000 users the resampled means are normal to a fraction of a per cent, and their t interval
    is given without drawing.
    """
    mean_U = np.atleast_2d(np.asarray(difference_SU, dtype=np.float64)).mean(0)
    mean_U = mean_U[~np.isnan(mean_U)]
    if len(mean_U) < 2:
        return NAN, NAN
    if len(mean_U) > 10_000:
        return Paired.of(mean_U, np.zeros_like(mean_U)).interval(alpha)
    rng = np.random.default_rng(seed)
    size = max(1, 2_000_000 // len(mean_U))  # draws at a time: bounds memory, not the answer
    means = [
        mean_U[rng.integers(len(mean_U), size=(min(size, draws - d), len(mean_U)))].mean(1)
        for d in range(0, draws, size)
    ]
    low, high = np.quantile(np.concatenate(means), [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


# --- many claims


def holm(p_M: ArrayLike) -> Vector:
    """Holm's step-down correction (1979), at most 1; nan is no test and stays nan."""
    return np.minimum(_holm_unbounded(p_M), 1)


def holm_levels(p_M: ArrayLike, alpha: float = ALPHA) -> Vector:
    """The level that Holm leaves to each claim: `p < level` exactly where `holm(p) < alpha`.

    An interval at 1 - level excludes the tested value exactly when the claim survives.
    """
    p_M = np.asarray(p_M, dtype=np.float64)
    corrected_M = _holm_unbounded(p_M)
    count = np.count_nonzero(~np.isnan(p_M))
    # Divided in this order, so that the smallest p do not underflow. For p = 0 any level does.
    with np.errstate(invalid="ignore"):
        return np.where(corrected_M == 0, alpha / max(count, 1), alpha / (corrected_M / p_M))


def _holm_unbounded(p_M: ArrayLike) -> Vector:
    p_M = np.asarray(p_M, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(p_M))
    order = tested[np.argsort(p_M[tested], kind="stable")]
    corrected_M = np.full(len(p_M), np.nan)
    corrected_M[order] = np.maximum.accumulate(p_M[order] * np.arange(len(order), 0, -1))
    return corrected_M


def judge_better(pair: Paired, alpha: float = ALPHA, smallest: float = SMALLEST) -> Verdict:
    """The claim that a mean difference is above 0.

    Supported if its interval is above 0; refuted if below 0, or inside +- `smallest` of the base
    with 0 in it; else not separable. An effect above 0 yet below the smallest of interest is
    supported, and said to be small.
    """
    low, high = pair.interval(alpha)
    margin = smallest * abs(pair.base)
    words, detail = "not separable", ""
    if low > 0:
        words = "supported"
        detail = f"but below the smallest effect of interest ({smallest:.0%})" * (high < margin)
    elif high < 0:
        words, detail = "refuted", "the difference is on the other side of 0"
    elif -margin < low and high < margin:
        words, detail = "refuted", f"the difference is inside +-{smallest:.0%} of the base"
    return _judged(words, pair, (low, high), pair.p(), detail)


def judge_equivalent(
    pair: Paired, alpha: float = ALPHA, smallest: float = SMALLEST, one_sided: bool = False
) -> Verdict:
    """The claim that a difference is inside +- `smallest` of the base; one-sided: not below it.

    Two one-sided tests (Schuirmann 1987), read off the interval at 1 - 2 alpha: equivalent (one-
    sided: supported) if it is inside, else not separable. Refuted if the difference is wholly
    outside: of the one-sided claim by the same interval, of the two-sided by that at 1 - alpha,
    since it can be outside on either side. `p` is that of the nearer verdict: only one of the two
    can be false, so that each is tested at alpha, and both are corrected when `p` is.
    """
    low, high = ends = pair.interval(2 * alpha)
    margin = smallest * abs(pair.base)
    detail = f"margin {margin:.4g} ({smallest:.0%} of the base)"
    if one_sided:
        p = min(pair.p_above(-margin), pair.p_below(-margin))
        words = "supported" if low > -margin else "refuted" if high < -margin else "not separable"
        return _judged(words, pair, ends, p, detail)
    p_inside = max(pair.p_above(-margin), pair.p_below(margin))
    p_outside = min(1.0, 2 * min(pair.p_above(margin), pair.p_below(-margin)))
    p, words = min(p_inside, p_outside), "equivalent"
    if not (low > -margin and high < margin) or pair.n < MIN_SEEDS:
        low, high = ends = pair.interval(alpha)
        words = "refuted" if low > margin or high < -margin else "not separable"
    return _judged(words, pair, ends, p, detail)


def _judged(words: str, pair: Paired, ends: tuple[float, float], p: float, detail: str) -> Verdict:
    words = words if pair.n >= MIN_SEEDS else "too few seeds"
    return Verdict(
        words, pair.effect, pair.relative, *ends, p=p, mde=pair.mde, n=pair.n, detail=detail
    )


# --- grids


@dataclass(frozen=True)
class Effect:
    """One line of an analysis of variance."""

    name: str
    """A factor, or factors joined by " x "."""
    df: int
    f: float
    p: float
    omega2: float
    """Partial omega squared: share of (this effect + error), corrected for noise; may be < 0."""
    low: float
    high: float
    share: float
    """Omega squared: share of all variance but the seeds' own; adds up over effects."""


@dataclass(frozen=True)
class Anova:
    """A factorial (or one-way) analysis of variance with seeds as blocks."""

    effects: tuple[Effect, ...]
    """Main effects first, then interactions by order."""
    mse: float
    """Replicate error: variance of one trial that neither its cell nor its seed explains."""
    df_error: int

    def __getitem__(self, name: str) -> Effect:
        for effect in self.effects:
            if effect.name == name:
                return effect
        raise KeyError(f"no effect {name!r}; there are: {', '.join(e.name for e in self.effects)}")


def anova(y_LS: ArrayLike, names: Sequence[str], alpha: float = 0.1) -> Anova:
    """Which factors matter, on a complete grid whose cells all met the same seeds.

    A seed draws the same initial weights, order and negatives in every cell, so it is a random
    block: its own mean is taken out, and the error is what is left within cells, on
    (cells - 1)(seeds - 1) degrees of freedom. (Montgomery, Design and Analysis of Experiments,
    ch. 4.1 and 5.6.)

    Args:
        y_LS: one axis of levels a factor, then one of seeds. Holes are refused.
        names: the factors', in the order of the axes.
        alpha: intervals of partial omega squared are at 1 - alpha. The 90 % default excludes 0
            exactly when p < .05, since an F test looks one way only (Steiger 2004).

    Raises:
        ValueError: axes do not fit the names, numbers are not finite, or fewer than two seeds.
    """
    y_LS = np.asarray(y_LS, dtype=np.float64)
    if y_LS.ndim != len(names) + 1 or y_LS.shape[-1] < 2 or not names:
        raise ValueError(f"{len(names)} factors need that many axes and >= 2 seeds, {y_LS.shape}")
    if not np.isfinite(y_LS).all():
        raise ValueError(f"the grid has {np.sum(~np.isfinite(y_LS))} holes; give complete cells")
    cells, seeds = y_LS[..., 0].size, y_LS.shape[-1]
    y_CS = y_LS.reshape(cells, seeds)
    rest_CS = y_CS - y_CS.mean(1, keepdims=True) - y_CS.mean(0) + y_CS.mean()
    df_error = (cells - 1) * (seeds - 1)
    mse = float((rest_CS**2).sum()) / df_error if df_error else NAN
    mean_L = y_LS.mean(-1)
    between = seeds * float(((mean_L - mean_L.mean()) ** 2).sum()) - (cells - 1) * mse
    noise = y_LS.size * mse

    def effect(axes: tuple[int, ...]) -> Effect:
        squares = seeds * float((_pure(mean_L, axes) ** 2).sum())
        df = math.prod(y_LS.shape[a] - 1 for a in axes)
        f, p = _f_test(squares / df, mse, df, df_error)
        signal = squares - df * mse
        low, high = (v / (v + y_LS.size) for v in noncentrality(f, df, df_error, alpha))
        partial = _ratio(signal, signal + noise)
        name = " x ".join(names[a] for a in axes)
        return Effect(name, df, f, p, partial, low, high, _ratio(signal, between + noise))

    turned = [axis for axis in range(len(names)) if y_LS.shape[axis] > 1]
    orders = range(1, len(turned) + 1)
    effects = tuple(effect(axes) for order in orders for axes in combinations(turned, order))
    return Anova(effects, mse, df_error)


def _pure(mean_L: Vector, axes: tuple[int, ...]) -> Vector:
    """The effect of `axes` alone: averaged over the other axes, centred along its own."""
    others = tuple(a for a in range(mean_L.ndim) if a not in axes)
    effect_L = np.broadcast_to(mean_L.mean(axis=others, keepdims=True), mean_L.shape)
    for axis in axes:
        effect_L = effect_L - effect_L.mean(axis=axis, keepdims=True)
    return effect_L


def _ratio(above: float, below: float) -> float:
    return above / below if below else NAN


def _f_test(above: float, below: float, df: int, df_error: int) -> tuple[float, float]:
    if below == 0:  # no noise at all: any difference is certain, and none is none
        return (math.inf, 0.0) if above > 0 else (NAN, 1.0)
    return above / below, float(sps.f.sf(above / below, df, df_error))


def noncentrality(f: float, df: int, df_error: int, alpha: float = 0.1) -> tuple[float, float]:
    """Interval at 1 - alpha of a noncentral F's parameter, by inverting the test (Steiger 2004)."""
    # Beyond 1e9 scipy's noncentral F has no digits left: replicates without noise.
    if not f < 1e9 or not df_error:
        return NAN, NAN

    def end(q: float) -> float:
        if sps.f.cdf(f, df, df_error) <= q:
            return 0.0
        high = f * df + 1
        while sps.ncf.cdf(f, df, df_error, high) > q:
            high *= 2
        return float(
            optimize.brentq(lambda nc: float(sps.ncf.cdf(f, df, df_error, nc)) - q, 0, high)
        )

    return end(1 - alpha / 2), end(alpha / 2)


@dataclass(frozen=True)
class Curve:
    """A polynomial through cell means."""

    coefficients: NDArray
    """In powers 0, 1, ... of x."""
    covariance: NDArray
    f: float
    """Against a constant."""
    p: float
    lack_f: float
    """Lack of fit: what cell means differ from the curve, against the replicate error."""
    lack_p: float
    rss: float
    """Weighted squares of the cell means about the curve."""
    mse: float
    df_error: int

    def at(self, x: ArrayLike, alpha: float = ALPHA) -> tuple[Vector, Vector, Vector]:
        """(mean, low, high) of the curve at `x`; the interval is pointwise."""
        powers = np.vander(np.asarray(x, np.float64), len(self.coefficients), increasing=True)
        mean = powers @ self.coefficients
        error = np.sqrt(np.einsum("xi,ij,xj->x", powers, self.covariance, powers).clip(min=0))
        half = sps.t.isf(alpha / 2, self.df_error) * error
        return mean, mean - half, mean + half

    def against(self, simpler: "Curve") -> tuple[float, float]:
        """(F, p) of the powers that this curve has and `simpler` has not."""
        more = len(self.coefficients) - len(simpler.coefficients)
        if more < 1:
            raise ValueError("the simpler curve must have fewer powers")
        return _f_test((simpler.rss - self.rss) / more, self.mse, more, self.df_error)


def polynomial(
    x_C: ArrayLike, mean_C: ArrayLike, n_C: ArrayLike, degree: int, *, mse: float, df_error: int
) -> Curve:
    """Weighted least squares of cell means on powers of `x`, with the error known from replicates.

    Args:
        x_C: where the cells lie; several may share one x.
        mean_C: their means.
        n_C: replicates of each: the weights.
        degree: highest power.
        mse: replicate error, as of `anova`.
        df_error: its degrees of freedom.

    Raises:
        ValueError: not more distinct x than powers of x.
    """
    x_C, mean_C, n_C = (np.asarray(v, dtype=np.float64) for v in (x_C, mean_C, n_C))
    distinct = len(np.unique(x_C))
    if distinct <= degree:
        raise ValueError(f"a polynomial of degree {degree} needs more than {distinct} distinct x")
    powers = np.vander(x_C, degree + 1, increasing=True)
    root_C = np.sqrt(n_C)
    coefficients = np.linalg.lstsq(powers * root_C[:, None], mean_C * root_C)[0]
    about = np.linalg.pinv((powers * n_C[:, None]).T @ powers)
    rss = float((n_C * (mean_C - powers @ coefficients) ** 2).sum())
    flat = float((n_C * (mean_C - np.average(mean_C, weights=n_C)) ** 2).sum())
    f, p = _f_test((flat - rss) / degree, mse, degree, df_error) if degree else (NAN, NAN)
    left = len(x_C) - degree - 1
    lack_f, lack_p = _f_test(rss / left, mse, left, df_error) if left else (NAN, NAN)
    return Curve(coefficients, about * mse, f, p, lack_f, lack_p, rss, mse, df_error)


def best_level(y_LS: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Vector:
    """(L,) the probability that each level is the best, by bootstrap over seeds; ties are shared.

    Levels stay paired: a draw takes whole seeds.
    """
    y_LS = np.asarray(y_LS, dtype=np.float64)
    seeds = y_LS.shape[1]
    weight_DS = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1 / seeds), draws)
    mean_DL = weight_DS @ y_LS.T
    best_DL = np.isclose(mean_DL, mean_DL.max(1, keepdims=True), rtol=1e-12, atol=0)
    return (best_DL / best_DL.sum(1, keepdims=True)).mean(0)


def explained(y_CS: ArrayLike, spaces: Sequence[NDArray]) -> Vector:
    """(spaces, 1 + S) share of the true variance between cells that lies in each space.

    Column 0 is the estimate, the others leave one seed out each. Noise drops out by itself: the
    variance is estimated from products of different seeds' cell profiles only, whose errors are
    independent, so that errors may be of any shape within a seed.

    Args:
        y_CS: cells by seeds.
        spaces: (C, d) columns of a function's terms each; the constant is taken out.
    """
    profile_CS: Vector = np.asarray(y_CS, dtype=np.float64)
    profile_CS = profile_CS - profile_CS.mean(0)
    left = np.vstack([np.ones(profile_CS.shape[1]), 1 - np.eye(profile_CS.shape[1])])
    between = _cross_seed(profile_CS.T @ profile_CS, left)
    shares = []
    for space in spaces:
        centred = space - space.mean(0)
        vector, value, _ = np.linalg.svd(centred, full_matrices=False)
        inside = vector[:, value > 1e-10 * value.max()].T @ profile_CS
        with np.errstate(divide="ignore", invalid="ignore"):
            shares.append(_cross_seed(inside.T @ inside, left) / between)
    return np.array(shares)


def _cross_seed(gram_SS: NDArray, left: Vector) -> Vector:
    """Sum of products of distinct seeds, over the seeds that each row of `left` keeps."""
    return ((left @ gram_SS) * left).sum(1) - left @ np.diag(gram_SS)


def jackknife(value_S1: Vector) -> Paired:
    """A statistic judged like a mean over seeds: its spread comes from leaving one seed out each.

    `value_S1` is the full estimate, then the S that leave one seed out; `sd` is that of the
    pseudo-values (Efron & Tibshirani 1993, ch. 11). In simulated studies with 5 or 10 seeds this t
    interval covered a share of variance in 92 to 99 % of cases. A percentile bootstrap over 5 seeds
    covered it in as few as 76 %, and is not used.
    """
    left_S = value_S1[1:]
    sd = math.sqrt((len(left_S) - 1) * float(((left_S - left_S.mean()) ** 2).sum()))
    return Paired(len(left_S), float(value_S1[0]), 1.0, sd)

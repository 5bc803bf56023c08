"""Many networks as the sample: means, what the next may have, heterogeneity, groups, shapes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

import natstats
from natstats.law.meta_analysis import compare_groups, homogeneity_p, pool
from natstats.law.shape_agreement import fit_shape, shapes_agree

# Thirteen trials of the BCG vaccine (Colditz and others 1994, JAMA 271): cases and others with the
# vaccine, cases and others without. The usual example of random effects.
BCG = np.array(
    [
        (4, 119, 11, 128), (6, 300, 29, 274), (3, 228, 11, 209), (62, 13536, 248, 12619),
        (33, 5036, 47, 5761), (180, 1361, 372, 1079), (8, 2537, 10, 619), (505, 87886, 499, 87892),
        (29, 7470, 45, 7232), (17, 1699, 65, 1600), (186, 50448, 141, 27197), (5, 2493, 3, 2338),
        (27, 16886, 29, 17825),
    ], dtype=float,
)  # fmt: skip
WITH, WITHOUT = BCG[:, :2].sum(1), BCG[:, 2:].sum(1)
LOG_RISK = np.log(BCG[:, 0] / WITH) - np.log(BCG[:, 2] / WITHOUT)
VARIANCE = 1 / BCG[:, 0] - 1 / WITH + 1 / BCG[:, 2] - 1 / WITHOUT
KNOWN = np.full(13, np.inf)


def test_the_published_trials_of_a_vaccine():
    """By metafor 4 for R: rma(yi, vi, method = "PM") has tau^2 0.3181, Q(12) 152.2330."""
    found = pool(LOG_RISK, np.sqrt(VARIANCE), KNOWN)
    assert found.mean.value == pytest.approx(-0.7150, abs=5e-5)
    assert found.tau**2 == pytest.approx(0.3181, abs=5e-5)
    assert found.q == pytest.approx(152.2330, abs=5e-5)
    assert found.i2 == pytest.approx(0.9233, abs=5e-5)
    assert found.q_p == pytest.approx(stats.chi2.sf(152.2330, 12), rel=1e-3)
    # Weights differ three-fold here, and the interval is nearly Hartung and Knapp's.
    usual = combine_effects(LOG_RISK, VARIANCE, use_t=True).conf_int()[3]
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(usual), abs=0.002)
    assert sum(found.weights) == pytest.approx(1)


def test_by_hand():
    """Three networks with equal errors: everything follows from mean and variance."""
    value, error = np.array([1.0, 2.0, 6.0]), np.full(3, 0.5)
    found = pool(value, error, np.full(3, np.inf))
    between = 7.0 - 0.25  # the variance of the values less that of an error
    se = np.sqrt(7.0 / 3)
    reach = stats.t.ppf(0.975, 2) * se
    assert found.tau**2 == pytest.approx(between)
    assert found.mean.value == pytest.approx(3.0)
    assert (found.mean.low, found.mean.high) == pytest.approx((3 - reach, 3 + reach))
    assert found.mean.p == pytest.approx(2 * stats.t.sf(3 / se, 2))
    ahead = stats.t.ppf(0.975, 1) * np.sqrt(between + 7.0 / 3)
    assert (found.next_low, found.next_high) == pytest.approx((3 - ahead, 3 + ahead))
    assert found.q == pytest.approx(14 / 0.25)
    assert found.i2 == pytest.approx(between / 7.0)


def test_equal_weights_are_hartung_and_knapps_interval():
    value = np.random.default_rng(0).normal(size=9)
    found = pool(value, np.full(9, 0.3), np.full(9, 20.0))
    usual = combine_effects(value, np.full(9, 0.09), use_t=True).conf_int()[3]
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(usual))
    assert found.mean.dof == pytest.approx(8)


@pytest.mark.parametrize("k", [2, 3, 10])
def test_one_network_many_times_has_no_spread(k):
    found = pool([0.02] * k, [0.005] * k, [15] * k)
    assert (found.tau, found.i2, found.q) == (0, 0, 0)
    assert found.q_p == 1
    assert found.mean.value == 0.02


def test_a_constant_moves_the_mean_and_nothing_else():
    found, moved = (pool(LOG_RISK + c, np.sqrt(VARIANCE), KNOWN) for c in (0.0, 1e4))
    assert moved.mean.value - 1e4 == pytest.approx(found.mean.value, abs=1e-9)
    assert moved.tau == pytest.approx(found.tau, rel=1e-6)
    assert moved.q == pytest.approx(found.q, rel=1e-6)
    assert moved.q_p == pytest.approx(found.q_p, rel=1e-6)


@pytest.mark.parametrize("unit", [1e-6, -1.0, 1e6])
def test_the_unit_of_slopes_does_not_matter(unit):
    found = pool(LOG_RISK, np.sqrt(VARIANCE), KNOWN)
    scaled = pool(unit * LOG_RISK, abs(unit) * np.sqrt(VARIANCE), KNOWN)
    assert scaled.mean.value == pytest.approx(unit * found.mean.value)
    assert scaled.tau == pytest.approx(abs(unit) * found.tau)
    assert (scaled.q, scaled.mean.p) == pytest.approx((found.q, found.mean.p))
    assert scaled.weights == pytest.approx(found.weights)


def test_the_order_of_networks_does_not_matter():
    order = np.random.default_rng(0).permutation(13)
    found = pool(LOG_RISK, np.sqrt(VARIANCE), KNOWN)
    mixed = pool(LOG_RISK[order], np.sqrt(VARIANCE)[order], KNOWN)
    assert mixed.mean.value == pytest.approx(found.mean.value)
    assert mixed.mean.low == pytest.approx(found.mean.low)
    assert mixed.weights == pytest.approx(np.array(found.weights)[order])


def test_two_networks_weigh_the_same_and_foretell_nothing():
    found = pool([1.0, 2.0], [0.1, 1.0], [10, 10])
    assert found.weights == (0.5, 0.5)
    assert found.mean.dof == 1
    assert found.mean.high - 1.5 == pytest.approx(stats.t.ppf(0.975, 1) * 0.5)
    assert np.isnan(found.next_low)


def test_one_network_is_no_sample():
    found = pool([1.0], [0.1], [10])
    assert found.mean.value == 1.0
    assert np.isnan([found.mean.low, found.tau, found.q_p, found.next_high]).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([], [], []), "one number for each network"),
        (([1.0, 2.0], [0.1], [3, 3]), "one number for each network"),
        (([1.0, np.nan], [0.1, 0.1], [3, 3]), "values: expected finite numbers; got nan"),
        (([1.0, 2.0], [0.1, -0.1], [3, 3]), "errors: expected finite numbers of at least 0"),
        (([1.0, 2.0], [0.1, np.inf], [3, 3]), "errors: .* got inf"),
        (([1.0, 2.0], [0.1, 0.1], [3, 0]), "dofs: expected numbers above 0; got 0"),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(natstats.UsageError, match=words):
        pool(*arguments)


@pytest.mark.parametrize("errors", [[0.0, 0.0, 0.0], [0.0, 1.0, 1.0], [1e-200, 1.0, 1e100]])
def test_errors_of_nothing_and_huge_ones(errors):
    found = pool([1.0, 2.0, 4.0], errors, [5, 5, 5])
    assert np.isfinite([found.mean.value, found.tau, found.q_p]).all()
    assert sum(found.weights) == pytest.approx(1)


def test_errors_that_few_layers_tell_count_for_less():
    """Welch (1951): with many degrees of freedom the test is that of chi-square."""
    value, variance = np.array([[0.0], [2.0], [4.0]]), np.ones((3, 1, 1))
    few, many = (homogeneity_p(value, variance, np.full(3, n)) for n in (4.0, 1e9))
    assert many == pytest.approx(stats.chi2.sf(8.0, 2))
    assert few > 2 * many
    # Two networks: Welch's t-test with Satterthwaite's degrees of freedom.
    p = homogeneity_p(np.array([[0.0], [3.0]]), np.array([[[1.0]], [[2.0]]]), np.array([5.0, 9.0]))
    dof = 3.0**2 / (1 / 5 + 4 / 9)
    assert p == pytest.approx(2 * stats.t.sf(np.sqrt(3), dof), rel=1e-9)


def test_independent_coefficients_by_hand():
    """Two networks, known errors: the squares of both differences add up."""
    value = np.array([[0.0, 0.0], [1.0, 2.0]])
    covariance = np.stack([np.diag([0.5, 2.0])] * 2)
    p = homogeneity_p(value, covariance, np.full(2, np.inf))
    assert p == pytest.approx(stats.chi2.sf(1 / 1 + 4 / 4, 2))


@pytest.mark.slow
@pytest.mark.parametrize("k", [5, 10, 20])
@pytest.mark.parametrize("scatter", [0.0, 1.0, 3.0])
def test_the_mean_is_covered(k, scatter):
    """Errors that differ four-fold, with 3 to 53 degrees of freedom: 95 % within four sd."""
    rng = np.random.default_rng([k, int(scatter)])
    n, hits = 300, 0
    for _ in range(n):
        true = np.exp(rng.uniform(-0.7, 0.7, k))
        dof = rng.choice([3.0, 6.0, 15.0, 24.0, 53.0], k)
        error = true * np.sqrt(rng.chisquare(dof) / dof)
        value = scatter * rng.standard_normal(k) + true * rng.standard_normal(k)
        mean = pool(value, error, dof).mean
        hits += mean.low < 0 < mean.high
    assert abs(hits / n - 0.95) < 4 * np.sqrt(0.95 * 0.05 / n)


def test_groups_with_equal_errors_are_an_analysis_of_variance():
    """With errors as small as this tau^2 is the variance within groups, and weights are equal."""
    rng = np.random.default_rng(1)
    groups = [rng.normal(shift, 1, 6) for shift in (0, 1, 2)]
    found = compare_groups(np.concatenate(groups), np.full(18, 1e-6), list("aaaaaabbbbbbcccccc"))
    usual = stats.f_oneway(*groups)
    assert found.f == pytest.approx(usual.statistic, rel=1e-6)
    assert found.p == pytest.approx(usual.pvalue, rel=1e-5)
    assert found.dof == pytest.approx((2, 15))


def test_groups_that_cannot_be_compared():
    assert np.isnan(compare_groups([1, 2, 3], [1, 1, 1], ["a", "a", "a"]).p)
    assert np.isnan(compare_groups([1, 2, 3], [1, 1, 1], ["a", "b", "c"]).p)
    # One network alone in its group is compared with the spread of the others.
    assert 0 < compare_groups([1, 2, 9], [1, 1, 1], ["a", "a", "b"]).p < 1


def shape_of(curve, n, seed, sd=0.03):
    rng = np.random.default_rng(seed)
    depth = np.arange(1, n + 1) / n
    exponent = curve(depth) + sd * rng.standard_normal(n)
    return fit_shape(depth, exponent, 0.001 * rng.standard_normal((16, n)))


def test_networks_of_one_shape_and_of_two():
    def bent(depth):
        return 1 + depth**2

    same = shapes_agree([shape_of(bent, n, n) for n in (12, 20, 33, 50)], 0.95)
    assert same.p > 0.05
    assert same.n == 4
    square = same.terms["square"].mean
    assert square.value == pytest.approx(1 / 6, abs=0.02)  # d^2 = ... + P2(2d - 1) / 6
    apart = [shape_of(bent, 30, 0), shape_of(lambda depth: 1 + depth, 30, 1)]
    assert shapes_agree(apart, 0.95).p < 1e-3


def test_too_few_layers_have_no_shape():
    assert shape_of(np.sqrt, 7, 0) is None
    depth = np.repeat([0.25, 0.5, 0.75, 1.0], 4)
    assert fit_shape(depth, depth, np.zeros((4, 16))) is None
    with pytest.raises(natstats.UsageError, match="shapes: expected one or more"):
        shapes_agree([], 0.95)


def test_the_variance_between_networks_solves_its_equation():
    """Paule and Mandel (1982): weighted squares sum to k - 1, or already fall short at zero."""
    for seed in range(300):
        rng = np.random.default_rng(seed)
        k = int(rng.integers(2, 12))
        variance = np.exp(rng.normal(size=k))
        value = rng.normal(size=k) * (0, 1, 3)[seed % 3] + rng.normal(size=k) * np.sqrt(variance)
        found = pool(value, np.sqrt(variance), np.full(k, 9.0))
        weight = 1 / (variance + found.tau**2)
        left = weight @ (value - np.average(value, weights=weight)) ** 2 - (k - 1)
        assert left == pytest.approx(0, abs=1e-6) if found.tau else left <= 0


@pytest.mark.parametrize("k", [3, 5, 13])
def test_the_next_network_is_less_sure_than_the_mean(k):
    values = np.random.default_rng(k).normal(0.03, 0.005, k)
    found = pool(values, np.geomspace(0.01, 0.05, k), np.full(k, 20.0))
    assert found.next_low <= found.mean.low < found.mean.high <= found.next_high

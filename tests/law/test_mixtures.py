"""Mixtures of Student's t: intervals and tests that agree, in the middle and far out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from natstats.law.mixtures import Mixture, intervals_of, p_values_of
from natstats.law.regression import Design, LayerErrors

RNG = np.random.default_rng(0)
PARTS = Mixture(
    RNG.dirichlet(np.ones(9)), RNG.normal(0.5, 0.3, 9), RNG.uniform(0.1, 0.9, 9),
    RNG.uniform(1.0, 30.0, 9),
)  # fmt: skip


def single(value, error, dof):
    return Mixture(*(np.array([float(x)]) for x in (1, value, error, dof)))


@pytest.mark.parametrize("dof", [1, 2.5, 16, 1000])
@pytest.mark.parametrize("value", [-0.4, 0.0, 3.0])
def test_a_single_part_is_students_t(value, dof):
    one = single(value, 0.2, dof)
    assert one.interval(0.9) == pytest.approx(stats.t.interval(0.9, dof, value, 0.2))
    assert one.p() == pytest.approx(2 * stats.t.sf(abs(value) / 0.2, dof))
    assert (one.mean, one.variance) == (value, pytest.approx(0.04))


def test_p_far_out_is_small_and_never_below_zero():
    for value in (20.0, -20.0):
        assert single(value, 0.2, 40).p() == pytest.approx(2 * stats.t.sf(100, 40), rel=1e-6)
    parts = replace(PARTS, value=PARTS.value + 1e6, dof=np.full(9, 60.0))
    assert 0 <= parts.p() < 1e-100


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_several_at_once_are_each_by_itself_whatever_their_parts(level):
    rng = np.random.default_rng(5)
    several = [
        Mixture(rng.dirichlet(np.ones(n)), *rng.uniform(0.01, 3.0, (2, n)), rng.uniform(1, 90, n))
        for n in (1, 3, 40, 7)
    ]
    several += [single(0.0, 0.0, 5), single(-1.0, 0.0, 5), single(-9.0, 1e-9, 3)]
    several += [replace(one, value=-one.value) for one in several]
    alone = [one.interval(level) for one in several]
    np.testing.assert_allclose(intervals_of(several, level), alone, rtol=1e-12)
    np.testing.assert_allclose(p_values_of(several), [one.p() for one in several], rtol=1e-12)
    for one, (low, high) in zip(several, alone, strict=True):
        if np.any(one.error > 0):
            assert one.below(low) == pytest.approx(0.5 - level / 2, rel=1e-6)
            assert one.below(high) == pytest.approx(0.5 + level / 2, rel=1e-6)


def test_the_interval_ends_where_the_test_turns():
    for level in (0.5, 0.9, 0.95, 0.999):
        for end in PARTS.interval(level):
            moved = replace(PARTS, value=PARTS.value - end)
            assert moved.p() == pytest.approx(1 - level, rel=1e-4)
    low, high = PARTS.interval(0.95)
    assert PARTS.below(high) - PARTS.below(low) == pytest.approx(0.95)


def test_mean_and_variance_are_those_of_the_whole():
    parts = replace(PARTS, dof=np.full(9, 1e9))
    part = RNG.choice(9, 400_000, p=parts.weight)
    drawn = parts.value[part] + parts.error[part] * RNG.standard_normal(400_000)
    assert parts.mean == pytest.approx(drawn.mean(), abs=0.01)
    assert parts.variance == pytest.approx(drawn.var(), rel=0.02)


def test_mirrored_it_has_the_mirrored_interval_and_the_same_p():
    mirrored = replace(PARTS, value=-PARTS.value)
    low, high = PARTS.interval(0.9)
    assert mirrored.interval(0.9) == pytest.approx((-high, -low))
    assert mirrored.p() == pytest.approx(PARTS.p())


def test_without_errors_it_is_its_value():
    exact = single(0.25, 0.0, 5)
    assert exact.interval(0.95) == (0.25, 0.25)
    assert np.isnan(exact.p())
    assert single(0.0, 0.0, 5).p() == 1.0


def at_point(fit, place):
    """The regression as if only one point of the grid were possible."""
    names = ("coefficients", "covariance", "dof", "rows", "phi", "stage_sd", "variance")
    parts = {name: getattr(fit, name)[place : place + 1] for name in names}
    return replace(fit, weight=np.ones(1), **parts)


@pytest.mark.parametrize("place", [0, 6, 12])
def test_several_coefficients_are_tested_by_f(place):
    x = np.linspace(-1, 1, 16)
    columns = np.polynomial.legendre.legvander(x, 3)
    exponent = 1 + x + 0.3 * x**2 + 0.2 * RNG.standard_normal(16)
    fit = LayerErrors(exponent, 1e-9 * RNG.standard_normal((20, 16))).regress(Design(columns, x))
    own = fit.phi[place] ** np.abs(np.arange(16)[:, None] - np.arange(16))
    other = sm.GLS(exponent, columns, sigma=own).fit()
    found = at_point(fit, place)
    assert found.joint_p([2, 3]) == pytest.approx(float(other.f_test(np.eye(4)[2:]).pvalue))
    assert found.joint_p([1]) == pytest.approx(found.coefficient(1).p())
    assert found.joint_p([1]) == pytest.approx(other.pvalues[1])


def test_f_is_averaged_over_the_grid():
    x = np.linspace(-1, 1, 16)
    columns = np.polynomial.legendre.legvander(x, 3)
    exponent = 1 + x + 0.3 * x**2 + 0.2 * RNG.standard_normal(16)
    fit = LayerErrors(exponent, 0.05 * RNG.standard_normal((20, 16))).regress(Design(columns, x))
    each = [at_point(fit, place).joint_p([2, 3]) for place in range(len(fit.weight))]
    assert fit.joint_p([2, 3]) == pytest.approx(fit.weight @ each)


def test_stages_and_neighbours_are_told_in_shares():
    n = 30
    labels = [str(place // 6) for place in range(n)]
    x = np.arange(n, dtype=float)
    line = np.column_stack([np.ones(n), x])
    levels = np.repeat([0.0, 2.0, -2.0, 3.0, -3.0], 6)
    nothing = 1e-9 * RNG.standard_normal((20, n))
    noise = 0.3 * RNG.standard_normal(n)
    stepped = LayerErrors(levels + noise, nothing).regress(Design(line, x, labels))
    plain = LayerErrors(noise, nothing).regress(Design(line, x, labels))
    assert stepped.stage_share > 0.8 > 0.5 > plain.stage_share > 0
    assert plain.scatter_sd == pytest.approx(0.3, rel=0.5)
    assert stepped.scatter_sd > 1
    low, high = plain.correlation_interval(0.95)
    assert -0.5 <= low < plain.correlation < high <= 0.98
    narrow = plain.correlation_interval(0.5)
    assert low <= narrow[0] <= narrow[1] <= high

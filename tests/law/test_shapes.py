"""The shapes: AICc as other programs have it, and that each is found where it is true."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, special, stats

from natstats.law.regression import LayerErrors
from natstats.law.shapes import SHAPES, best_of, compare_shapes

N = 30
DEPTH = np.arange(1.0, N + 1)
LABELS = ["56"] * 10 + ["28"] * 10 + ["14"] * 10
UNIT = (DEPTH - 1) / (N - 1)
CURVES = {
    "constant": 2 + 0 * UNIT,
    "linear": 1 + UNIT,
    "quadratic": 1 + 4 * (UNIT - 0.4) ** 2,
    "saturating": 1 + 1.5 * (1 - np.exp(-UNIT / 0.1)),
    "step per resolution": np.repeat([1.0, 2.0, 1.4], 10),
}


def errors_of(curve, scatter=0.05, seed=0, images=1e-4):
    rng = np.random.default_rng(seed)
    exponent = curve + scatter * rng.standard_normal(len(curve))
    return LayerErrors(exponent, images * rng.standard_normal((40, len(curve))))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_each_is_found_where_it_is_true(shape):
    found = [
        best_of({name: one.aicc for name, one in
                 compare_shapes(errors_of(CURVES[shape], seed=seed), DEPTH, LABELS).items()})
        for seed in range(12)
    ]  # fmt: skip
    assert found.count(shape) >= 8


def largest(columns, errors):
    """Largest Gaussian likelihood of V = S + tau^2 R(phi), by a general optimiser.

    phi lies between -0.5 and 0.98, tau^2 above a thousandth of the variance of the exponents.
    """
    at = np.arange(N)

    def minus(theta):
        phi = -0.5 + 1.48 * special.expit(theta[0])
        variance = np.var(errors.exponent) * (1e-3 + np.exp(theta[1]))
        covariance = errors.covariance + variance * phi ** np.abs(at[:, None] - at)
        return -stats.multivariate_normal.logpdf(
            sm.GLS(errors.exponent, columns, sigma=covariance).fit().resid, None, covariance
        )

    starts = [(-0.7, -4.0), (-0.7, 0.0), (3.0, 0.0)]
    return -min(optimize.minimize(minus, x, method="Nelder-Mead").fun for x in starts)


@pytest.mark.slow
@pytest.mark.parametrize("images", [1e-4, 0.005, 0.02])
@pytest.mark.parametrize("curve", ["linear", "quadratic", "step per resolution"])
def test_aicc_is_that_of_the_largest_likelihood(curve, images):
    """The likelihood of the grid is at most a quarter below the largest: half a unit of AICc."""
    errors = errors_of(CURVES[curve], images=images)
    shapes = compare_shapes(errors, DEPTH, LABELS)
    for name in ("constant", "linear", "quadratic", "step per resolution"):
        columns = shapes[name].columns
        k = columns.shape[1] + 2
        aicc = 2 * k - 2 * largest(columns, errors) + 2 * k * (k + 1) / (N - k - 1)
        assert aicc - 1e-3 < shapes[name].aicc < aicc + 0.5


def test_where_neighbours_are_independent_it_is_the_aicc_of_least_squares():
    """With phi and tau^2 counted as statsmodels counts tau^2, which has phi = 0 for given."""
    columns = np.column_stack([np.ones(N), UNIT])
    for seed in range(99):
        rest = np.random.default_rng(seed).standard_normal(N)
        rest -= columns @ np.linalg.lstsq(columns, rest, rcond=None)[0]
        if abs(rest[1:] @ rest[:-1] / (rest @ rest)) < 0.02:
            break
    errors = LayerErrors(1 + UNIT + 0.05 * rest, 1e-6 * np.ones((3, N)))
    found = compare_shapes(errors, DEPTH, LABELS)["linear"].aicc
    other = sm.OLS(errors.exponent, columns).fit()
    k = 4
    aicc = 2 * k - 2 * other.llf + 2 * k * (k + 1) / (N - k - 1)
    assert found == pytest.approx(aicc, abs=0.5)


@pytest.mark.parametrize(
    ("n", "missing"),
    [
        (5, {"linear", "quadratic", "saturating", "step per resolution"}),
        (6, {"quadratic", "saturating", "step per resolution"}),
        (7, {"step per resolution"}),
        (30, set()),
    ],
)
def test_too_few_layers_for_the_parameters_give_nan(n, missing):
    """n - k - 1 has to be positive, k the columns, two of the scatter, and a rate of saturation."""
    labels = ["56", "28", "14", "7"] * 8
    shapes = compare_shapes(errors_of(CURVES["linear"][:n]), DEPTH[:n], labels[:n])
    assert tuple(shapes) == SHAPES
    assert {name for name, shape in shapes.items() if np.isnan(shape.aicc)} == missing


def test_neither_the_unit_of_depth_nor_an_added_line_changes_the_comparison():
    errors = errors_of(CURVES["quadratic"])
    moved = LayerErrors(errors.exponent + 5, errors.deviations)
    plain = compare_shapes(errors, DEPTH, LABELS)
    for name, other in compare_shapes(moved, 100 + 7 * DEPTH, LABELS).items():
        assert other.aicc == pytest.approx(plain[name].aicc, abs=1e-6)
    tilted = LayerErrors(errors.exponent + 3 * UNIT, errors.deviations)
    other = compare_shapes(tilted, DEPTH, LABELS)
    # The grid of tau^2 goes with the variance of the exponents.
    gain = plain["linear"].aicc - plain["quadratic"].aicc
    assert other["linear"].aicc - other["quadratic"].aicc == pytest.approx(gain, abs=0.5)


def test_one_resolution_makes_a_step_a_constant():
    shapes = compare_shapes(errors_of(CURVES["linear"]), DEPTH, ["28"] * N)
    assert shapes["step per resolution"].aicc == pytest.approx(shapes["constant"].aicc)


def test_values_are_those_of_least_squares():
    errors = errors_of(CURVES["quadratic"])
    shape = compare_shapes(errors, DEPTH, LABELS)["quadratic"]
    parabola = np.polynomial.Polynomial.fit(DEPTH, errors.exponent, 2)
    assert shape.fitted(errors.exponent) == pytest.approx(parabola(DEPTH))


def test_without_any_there_is_no_best():
    assert best_of(dict.fromkeys(SHAPES, float("nan"))) is None
    assert best_of({}) is None

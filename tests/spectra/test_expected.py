"""The expected spectrum against simulation, and its table against itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.spectra import expected
from natstats.spectra.edges import EDGES
from natstats.spectra.expected import (
    EXPONENT_RANGE,
    _covariance,
    _tapered,
    expected_power,
    expected_spectrum,
)
from natstats.spectra.frequencies import radius_grid, rings


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 1.5, 3.0, 4.5])
@pytest.mark.parametrize(("height", "width"), [(7, 7), pytest.param(8, 14, marks=pytest.mark.slow)])
def test_expectation_agrees_with_simulation(height, width, alpha):
    """The mean of 3000 simulated crops lies within four standard errors in every ring."""
    fields = torch.from_numpy(natstats.power_law_fields(3000, height, width, alpha, seed=6))
    for edges in EDGES:
        power = natstats.power_spectrum(fields[:, None], edges).double().numpy()
        error = power.std(0) / np.sqrt(len(power))
        z = (power.mean(0) - expected_power(alpha, height, width, edges)) / error
        assert np.abs(z).max() < 4, edges
        # The test has teeth: half an exponent off is far outside.
        other = (power.mean(0) - expected_power(alpha + 0.5, height, width, edges)) / error
        assert np.abs(other).max() > 8, edges


@pytest.mark.parametrize("edges", ["none", "sine", "hann"])
def test_white_noise_is_flat(edges):
    """Density 1 everywhere but for the removed mean, which is felt at the lowest frequencies."""
    power = expected_power(0.0, 32, 32, edges)
    np.testing.assert_allclose(power[3:], 1.0, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), [(7, 7), (16, 40), (56, 56), (112, 112)])
def test_the_table_is_the_function(height, width, edges):
    table = expected_spectrum(height, width, edges)
    for alpha in (-2.9, -0.7, 0.3, 1.9, 2.95, 4.4, 5.8):
        exact = np.log(expected_power(alpha, height, width, edges))
        np.testing.assert_allclose(table.log_power(alpha), exact, atol=2e-3)


@pytest.mark.parametrize("side", [7, 8, 14, 16, pytest.param(112, marks=pytest.mark.slow)])
def test_the_tables_that_are_kept_are_those_that_are_made(side):
    """analyses/expected_tables.py writes them anew; rounding differs from machine to machine."""
    kept, made = (
        expected._kept_coefficients(side, side, "sine"),
        expected._tabulated(side, side, "sine"),
    )
    np.testing.assert_allclose(kept, made, rtol=0, atol=1e-6)


def test_other_maps_and_edges_are_not_kept():
    for height, width, edges in [(9, 9, "sine"), (8, 14, "sine"), (8, 8, "hann")]:
        assert expected._kept_coefficients(height, width, edges) is None


def test_the_derivative_is_the_derivative():
    table = expected_spectrum(20, 20)
    alpha, step = 2.2, 1e-4
    difference = (table.log_power(alpha + step) - table.log_power(alpha - step)) / (2 * step)
    np.testing.assert_allclose(table.log_power_slope(alpha), difference, atol=1e-5)


def test_many_alphas_at_once_and_clipping_at_the_range():
    table = expected_spectrum(9, 9)
    many = table.log_power(np.array([[0.0, 1.0], [2.0, 99.0]]))
    assert many.shape == (2, 2, 4)
    np.testing.assert_allclose(many[1, 1], table.log_power(EXPONENT_RANGE[1]))


def test_transposed_maps_have_the_same_expectation():
    np.testing.assert_allclose(expected_power(2.0, 9, 21), expected_power(2.0, 21, 9))
    np.testing.assert_allclose(
        expected_power(2.0, 9, 21, "periodic"), expected_power(2.0, 21, 9, "periodic")
    )


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 9), (16, 5)])
@pytest.mark.parametrize("alpha", [-1.0, 2.0, 3.0, 4.5])
def test_the_refined_lattice_is_that_of_one_large_torus(height, width, alpha):
    """Long waves on lattices of their own, against the plain sum over all waves of the torus."""
    side = 12 * max(height, width)
    radius = radius_grid(side, side)
    radius[0, 0] = 1.0
    density = radius**-alpha
    density[0, 0] = 0.0
    plain = np.fft.ifft2(density).real[:height, :width]
    refined = _covariance(height, width, alpha)
    np.testing.assert_allclose(
        rings(height, width).mean(_tapered(refined, "sine")),
        rings(height, width).mean(_tapered(plain - plain[0, 0], "sine")),
        rtol=0.01,
    )


@pytest.mark.slow
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), [(5, 5), (5, 512), (512, 512)])
def test_every_size_has_an_expectation(height, width, edges):
    for alpha in (0.0, 2.0, 4.0):
        power = expected_power(alpha, height, width, edges)
        assert power.shape == (min(height, width) // 2,)
        assert np.isfinite(power).all()
        assert (power > 0).all()


def test_longer_waves_matter_only_for_steep_fields():
    usual, longer = (expected_power(2.0, 14, 14, outer_scale=scale) for scale in (12, 36))
    np.testing.assert_allclose(longer, usual, rtol=0.01)
    usual, longer = (expected_power(4.5, 14, 14, outer_scale=scale) for scale in (12, 36))
    assert longer[0] > 1.2 * usual[0]
    with pytest.raises(natstats.UsageError, match="outer_scale: expected one of 4, 12, 36"):
        expected_power(2.0, 14, 14, outer_scale=10)

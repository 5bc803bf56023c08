"""The expected spectrum against simulation, and its table against itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.edges import EDGES
from natstats.expected import EXPONENT_RANGE, expected_power, expected_spectrum


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("alpha", [0.0, 1.5, 3.0, 4.5])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (12, 20)])
def test_expectation_agrees_with_simulation(height, width, alpha, edges):
    """The mean of 3000 simulated crops lies within four standard errors in every ring."""
    fields = natstats.power_law_fields(3000, height, width, alpha, seed=5)
    power = natstats.power_spectrum(torch.from_numpy(fields[:, None]), edges).double().numpy()
    error = power.std(0) / np.sqrt(len(power))
    z = (power.mean(0) - expected_power(alpha, height, width, edges)) / error
    assert np.abs(z).max() < 4
    # The test has teeth: half an exponent off is far outside.
    other = (power.mean(0) - expected_power(alpha + 0.5, height, width, edges)) / error
    assert np.abs(other).max() > 8


@pytest.mark.parametrize("edges", ["none", "sine", "hann"])
def test_white_noise_is_flat(edges):
    """Density 1 everywhere but for the removed mean, which is felt at the lowest frequencies."""
    power = expected_power(0.0, 32, 32, edges)
    np.testing.assert_allclose(power[3:], 1.0, atol=2e-3)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), [(7, 7), (16, 40), (56, 56), (112, 112)])
def test_the_table_is_the_function(height, width, edges):
    table = expected_spectrum(height, width, edges)
    for alpha in (-2.9, -0.7, 0.3, 1.9, 2.95, 4.4, 5.8):
        exact = np.log(expected_power(alpha, height, width, edges))
        np.testing.assert_allclose(table.log_power(alpha), exact, atol=2e-3)


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

"""Rectifiers: closed forms, and Gaussian fields that are rectified and measured."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import natstats
from natstats.errors import UsageError
from natstats.fits.exponents import fit_spectrum
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.frequencies import rings
from natstats.theory.activation_functions import Activation, activation, second_moment
from natstats.theory.covariances import about_the_mean, lag_covariance, power_of_lags
from natstats.theory.expected_exponents import exponent_of_lags
from natstats.theory.rectifiers import rectified_mean, rectified_sum, rectifier

FUNCTIONS = [
    ("relu", {}), ("leaky_relu", {"negative_slope": 0.2}), ("relu6", {}), ("gelu", {}),
    ("hardswish", {}), ("silu", {}), ("tanh", {}), ("hardtanh", {"max_val": 0.5}),
    ("threshold", {"threshold": 0.5, "value": 0.0}),
]  # fmt: skip
each = pytest.mark.parametrize(("name", "parameters"), FUNCTIONS)


def lags_of(height=6, width=7, n=3):
    """Covariances of filtered white noise, (n, 2H, 2W), and the kernels, (n, 3, 4)."""
    kernels = np.random.default_rng(0).normal(0.4, 1.0, size=(n, 3, 4))
    whole = np.zeros((n, 2 * height, 2 * width))
    whole[:, :3, :4] = kernels
    return np.fft.ifft2(abs(np.fft.fft2(whole)) ** 2).real, kernels


@each
def test_the_variance_is_exact_and_no_covariance_exceeds_it(name, parameters):
    lags, mean = lags_of()[0], np.array([-1.0, 0.0, 2.0])
    found = rectifier(lags, mean, name, **parameters)
    assert found.shape == lags.shape
    function = activation(name, **parameters)
    square = second_moment(function, mean, np.sqrt(lags[:, 0, 0]))
    first = rectified_mean(lags, mean, name, **parameters)
    np.testing.assert_allclose(found[:, 0, 0], square - first**2, rtol=1e-9)
    assert (abs(found) <= found[:, :1, :1] * (1 + 1e-9)).all()
    flipped = np.roll(found[:, ::-1, ::-1], (1, 1), (1, 2))
    np.testing.assert_allclose(found, flipped, atol=1e-12)
    np.testing.assert_allclose(
        rectified_sum(lags, mean, name, **parameters), found.sum(0), rtol=1e-12
    )


def test_a_rectifier_without_mean_is_the_arc_cosine_kernel():
    """Cho and Saul 2009; the mean, 1 / sqrt(2 pi) of a deviation, is removed."""
    lags, _ = lags_of()
    rho = lags / lags[:, :1, :1]
    t = np.arccos(np.clip(rho, -1, 1))
    exact = (np.sin(t) + (np.pi - t) * rho - 1) / (2 * np.pi) * lags[:, :1, :1]
    np.testing.assert_allclose(rectifier(lags, 0.0), exact, atol=2e-3 * exact.max())
    near = rectifier(lags, 0.0, n_terms=200)
    np.testing.assert_allclose(near, exact, atol=2e-4 * exact.max())


def test_a_rectifier_far_above_or_below_zero_is_a_line_or_nothing():
    lags, _ = lags_of()
    np.testing.assert_allclose(rectifier(lags, 100.0), lags, atol=1e-9)
    np.testing.assert_allclose(rectifier(lags, -100.0), 0.0, atol=1e-9)
    np.testing.assert_allclose(rectifier(lags, 3.0, "identity"), lags, atol=1e-9)


def test_scale_passes_through_a_rectifier():
    lags, _ = lags_of()
    one = rectifier(lags, 0.5)
    np.testing.assert_allclose(rectifier(9 * lags, 1.5), 9 * one, rtol=1e-9)


def test_tensors_come_back_as_tensors_and_pieces_do_not_show(monkeypatch):
    lags = torch.from_numpy(lags_of()[0])
    whole = rectifier(lags, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    assert isinstance(whole, torch.Tensor)
    assert isinstance(rectified_sum(lags, 0.0), torch.Tensor)
    assert isinstance(rectifier(lags.numpy(), 0.0), np.ndarray)
    monkeypatch.setattr("natstats.theory.rectifiers._PIECE", 1)
    assert torch.equal(rectifier(lags, [0.1, 0.2, 0.3]), whole)
    single = rectifier(lags.float(), [0.1, 0.2, 0.3])
    assert single.dtype == torch.float64
    np.testing.assert_allclose(single, whole, rtol=1e-4, atol=1e-5)


def test_noise_is_cut_and_channels_without_variance_are_zero():
    lags, _ = lags_of()
    noisy = lags.copy()
    noisy[0, 0, 1], noisy[0, 3, 3] = 1.4 * lags[0, 0, 0], -1.4 * lags[0, 0, 0]
    noisy[1] = 0.0
    found = rectifier(noisy, 0.3)
    np.testing.assert_allclose(found[0, 0, 1], found[0, 0, 0])
    assert np.isfinite(found).all()
    assert (found[1] == 0).all()
    np.testing.assert_allclose(found[2], rectifier(lags, 0.3)[2])
    assert (rectifier(noisy, -1.0, "sigmoid")[1] == 0).all()


def test_a_function_of_ones_own_and_a_slope_for_each_channel():
    lags, _ = lags_of()
    own = Activation("square", np.square)
    # Cov(x^2, x'^2) = 2 C^2 + 4 mu^2 C
    np.testing.assert_allclose(
        rectifier(lags, 0.7, own), 2 * lags**2 + 4 * 0.49 * lags, atol=1e-9 * lags.max() ** 2
    )
    slopes = np.array([0.0, 0.3, 1.0])
    found = rectifier(lags, 0.0, "prelu", weight=slopes)
    np.testing.assert_allclose(found[0], rectifier(lags, 0.0)[0])
    np.testing.assert_allclose(found[2], lags[2], atol=1e-9)


@pytest.mark.slow
@each
def test_rectified_fields_have_the_expected_power(name, parameters):
    """Gaussian fields of known covariance, through torch's function, ring by ring."""
    height, width, n = 9, 12, 12_000
    lags, kernels = lags_of(height, width, 2)
    mean = np.array([-0.5, 1.0])
    noise = torch.from_numpy(
        np.random.default_rng(1).normal(size=(n, 2, height + 2, width + 3)).astype(np.float32)
    )
    weight = torch.from_numpy(kernels.astype(np.float32))[:, None]
    fields = F.conv2d(noise, weight, groups=2) + torch.tensor(mean[:, None, None]).float()
    power = power_spectrum(getattr(F, name)(fields, **parameters)).double()
    total = rectified_sum(lags, mean, name, n_terms=60, **parameters) / 2
    expectation = rings(height, width).mean(power_of_lags(torch.from_numpy(total)).numpy())
    error = power.std(0).numpy() / np.sqrt(n)
    assert (abs(power.mean(0).numpy() - expectation) / error).max() < 4


def fit_of(maps):
    accumulator = natstats.SpectrumAccumulator(*maps.shape[2:])
    accumulator.update(maps)
    return fit_spectrum(accumulator.compute())


@lru_cache
def power_law(alpha):
    """Fields of two channels with a mean each, and the fit of their exponent."""
    fields = torch.from_numpy(natstats.power_law_fields(800, 32, 32, alpha, seed=1))
    fields = (fields / fields.std()).view(400, 2, 32, 32) + torch.tensor([0.5, -0.3])[:, None, None]
    return fields, fit_of(fields)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.0])
@pytest.mark.parametrize(("name", "parameters"), FUNCTIONS[:5])
def test_the_exponent_changes_as_predicted(name, parameters, alpha):
    """Power-law fields: from the covariance that is estimated, as with the maps of a network."""
    fields, before = power_law(alpha)
    mean, lags = about_the_mean(lag_covariance(fields, "sine").mean(0), fields.mean(0), "sine")
    predicted = exponent_of_lags(rectified_sum(lags, mean, name, **parameters))
    after = fit_of(getattr(F, name)(fields, **parameters))
    assert exponent_of_lags(lags.sum(0)) == pytest.approx(before.exponent, abs=0.01)
    change = predicted - exponent_of_lags(lags.sum(0))
    error = np.hypot(after.standard_error, before.standard_error)
    assert change == pytest.approx(after.exponent - before.exponent, abs=max(3 * error, 0.02))
    assert error < 0.05
    assert predicted < before.exponent + 0.02


LAGS = np.ones((2, 8, 8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: rectifier(LAGS[0], 0.0), r"covariance: .* \(C, 2H, 2W\); got \(8, 8\)"),
        (lambda: rectifier(LAGS, [0.0]), r"mean: expected shape \(2,\); got \(1,\)"),
        (lambda: rectifier(-LAGS, 0.0), "covariance: .* got -1 and mean 0 in channel 0"),
        (lambda: rectifier(LAGS, [0.0, np.nan]), "mean: expected finite numbers"),
        (lambda: rectifier(LAGS, 0.0, "rleu"), r"function: .*\(did you mean relu"),
        (lambda: rectifier(LAGS, 0.0, "relu", slope=1), "relu: expected parameters of none"),
        (lambda: rectifier(LAGS, 0.0, np.tanh), "function: expected a name"),
        (lambda: rectifier(LAGS, 0.0, activation("relu"), a=1), "function: expected a name"),
        (lambda: rectified_sum(LAGS, 0.0, n_terms=0), "n_terms: expected a whole number"),
        (lambda: rectified_sum(torch.ones(1, 2, 2) * 1j, 0.0), "covariance: expected a real"),
    ],
)
def test_what_cannot_be_is_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()

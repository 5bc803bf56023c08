"""From covariances to expected power: three ways that must agree, and simulated fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natstats.errors import UsageError
from natstats.spectra import expected
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.edges import EDGES, axis_taper
from natstats.spectra.frequencies import rings
from natstats.theory import covariances
from natstats.theory.covariances import (
    about_the_mean,
    lag_covariance,
    mean_lag_covariance,
    power_of_lags,
    power_of_matrix,
)

SIZES = [(8, 8), (7, 10), (9, 6), (12, 5)]


def slanted(height, width):
    """Covariance of filtered white noise: no symmetry but C(-h) = C(h)."""
    rng = np.random.default_rng(height * 100 + width)
    kernel = np.zeros((2 * height, 2 * width))
    kernel[:4, :3] = rng.normal(size=(4, 3))
    return torch.from_numpy(np.fft.ifft2(np.abs(np.fft.fft2(kernel)) ** 2).real), kernel[:4, :3]


def as_matrix(lags):
    """The covariance of every pair of pixels, (HW, HW)."""
    height, width = (n // 2 for n in lags.shape)
    rows, columns = (i.ravel() for i in np.mgrid[:height, :width])
    return lags[rows[None] - rows[:, None], columns[None] - columns[:, None]]


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_lags_and_the_matrix_of_all_pairs_give_the_same_power(height, width, edges):
    lags, _ = slanted(height, width)
    by_lags = power_of_lags(lags, edges)
    by_matrix = power_of_matrix(as_matrix(lags), height, width, edges)
    assert by_lags.shape == (height, width)
    np.testing.assert_allclose(by_lags, by_matrix, atol=1e-10)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 14), (12, 1)])
def test_an_even_covariance_gives_what_the_expected_spectrum_does(height, width, edges):
    quarter = expected._covariance(height, width, 2.3)
    even = torch.zeros(2 * height, 2 * width, dtype=torch.float64)
    rows, columns = np.ix_(*(np.r_[0:n, -n + 1 : 0] for n in (height, width)))
    even[rows, columns] = torch.from_numpy(quarter[abs(rows), abs(columns)])
    power = rings(height, width).mean(power_of_lags(even, edges).numpy())
    np.testing.assert_allclose(
        power, expected.expected_power(2.3, height, width, edges), rtol=1e-10
    )


@pytest.mark.parametrize("edges", EDGES)
def test_simulated_fields_have_the_expected_power(edges):
    height, width, n = 9, 12, 20_000
    lags, kernel = slanted(height, width)
    noise = torch.from_numpy(
        np.random.default_rng(0).normal(size=(n, 1, height + 3, width + 2)).astype(np.float32)
    )
    weight = torch.from_numpy(kernel.astype(np.float32))[None, None]
    power = power_spectrum(torch.nn.functional.conv2d(noise, weight), edges).double()
    expectation = rings(height, width).mean(power_of_lags(lags, edges).numpy())
    error = power.std(0).numpy() / np.sqrt(n)
    assert (abs(power.mean(0).numpy() - expectation) / error).max() < 4


def test_moments_at_each_lag_are_those_of_the_pairs():
    maps = torch.from_numpy(np.random.default_rng(1).normal(1.0, 2.0, size=(2, 3, 4, 5)))
    lags = lag_covariance(maps)
    assert lags.shape == (2, 3, 8, 10)
    for h, w in [(0, 0), (1, 2), (3, -4), (-2, 1), (0, -3)]:
        here = maps[..., max(-h, 0) : 4 - max(h, 0), max(-w, 0) : 5 - max(w, 0)]
        there = maps[..., max(h, 0) : 4 + min(h, 0), max(w, 0) : 5 + min(w, 0)]
        np.testing.assert_allclose(lags[..., h, w], (here * there).mean((-2, -1)), atol=1e-12)
    assert (lags[..., 4, :] == 0).all()
    assert (lags[..., 5] == 0).all()


@pytest.mark.parametrize("edges", ["sine", "hann"])
def test_pairs_count_as_much_as_their_weights(edges):
    maps = torch.from_numpy(np.random.default_rng(1).normal(1.0, 2.0, size=(2, 7, 6)))
    window = np.outer(axis_taper(7, edges), axis_taper(6, edges))
    lags = lag_covariance(maps, edges)
    assert lags.shape == (2, 14, 12)
    for h, w in [(0, 0), (2, 1), (6, -5), (-3, 2)]:
        here = np.s_[max(-h, 0) : 7 - max(h, 0), max(-w, 0) : 6 - max(w, 0)]
        there = np.s_[max(h, 0) : 7 + min(h, 0), max(w, 0) : 6 + min(w, 0)]
        weight = window[here] * window[there]
        expected = (maps.numpy()[(..., *here)] * maps.numpy()[(..., *there)] * weight).sum(
            (-2, -1)
        ) / weight.sum()
        np.testing.assert_allclose(lags[:, h, w], expected, atol=1e-9)


@pytest.mark.parametrize("edges", ["sine", "hann", "none"])
def test_moments_with_a_taper_have_the_power_that_is_measured(edges):
    """Also of fields that are not stationary; but for the mean, which is that of no lag."""
    rng = np.random.default_rng(4)
    maps = torch.from_numpy(rng.normal(size=(3, 1, 12, 10)) * np.linspace(0, 3, 10))
    moments = lag_covariance(maps, edges)[:, 0]
    window = torch.from_numpy(np.outer(axis_taper(12, edges), axis_taper(10, edges)))
    measured = torch.fft.fft2(maps[:, 0] * window).abs().square() / (window**2).sum()
    sums = moments * covariances.overlap(12, 10, edges, maps.device)
    folded = sums.view(3, 2, 12, 2, 10).sum((1, 3))
    np.testing.assert_allclose(torch.fft.fft2(folded).real / (window**2).sum(), measured, atol=1e-9)


def test_many_maps_are_worked_off_in_pieces(monkeypatch):
    maps = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 5, 6, 7)))
    whole = lag_covariance(maps, "sine")
    np.testing.assert_allclose(mean_lag_covariance(maps, "sine"), whole.mean(0), atol=1e-12)
    monkeypatch.setitem(covariances._PIECE, "cpu", 400)
    np.testing.assert_allclose(lag_covariance(maps, "sine"), whole, atol=1e-12)
    np.testing.assert_allclose(mean_lag_covariance(maps, "sine"), whole.mean(0), atol=1e-12)
    single = mean_lag_covariance(maps.half(), "sine")
    assert single.dtype == torch.float64
    np.testing.assert_allclose(single, whole.mean(0), atol=0.01)
    assert lag_covariance(maps[:0]).shape == (0, 5, 12, 14)


@pytest.mark.parametrize("edges", EDGES)
def test_the_mean_can_be_removed_after_the_pass(edges):
    maps = torch.from_numpy(np.random.default_rng(1).normal(size=(5, 3, 8, 7)))
    maps = maps * 0.1 + torch.linspace(-2, 3, 7) + torch.tensor([1.0, 10.0, 0.0])[:, None, None]
    mean, lags = about_the_mean(lag_covariance(maps, edges).mean(0), maps.mean(0), edges)
    direct = lag_covariance(maps - mean[:, None, None], edges).mean(0)
    np.testing.assert_allclose(lags, direct, atol=1e-9)
    assert mean.shape == (3,)
    window = np.outer(axis_taper(8, edges), axis_taper(7, edges)) ** 2
    weighted = (maps.mean(0).numpy() * window).sum((-2, -1))
    np.testing.assert_allclose(mean, weighted / window.sum())


@pytest.mark.slow
def test_the_mean_moment_of_many_fields_is_their_covariance():
    lags, kernel = slanted(8, 7)
    noise = torch.from_numpy(np.random.default_rng(2).normal(size=(20_000, 1, 11, 9)))
    fields = torch.nn.functional.conv2d(noise, torch.from_numpy(kernel)[None, None])
    found = lag_covariance(fields[:, 0])
    error = found.std(0) / np.sqrt(len(found))
    near = np.ix_(range(-4, 5), range(-4, 5))
    assert (abs(found.mean(0) - lags)[near] / error[near]).max() < 4.5


@pytest.mark.parametrize("edges", EDGES)
def test_a_constant_is_no_power_and_power_is_linear(edges):
    lags, _ = slanted(8, 9)
    plain = power_of_lags(lags, edges)
    both = power_of_lags(torch.stack([lags + 3.0, -2 * lags]), edges)
    inside = rings(8, 9).index >= 0
    np.testing.assert_allclose(both[0][inside], plain[inside], atol=1e-10)
    np.testing.assert_allclose(both[1], -2 * plain, atol=1e-10)
    shifted = power_of_matrix(as_matrix(lags) + 3.0, 8, 9, edges)
    np.testing.assert_allclose(shifted[inside], plain[inside], atol=1e-10)


def test_lags_that_no_pixels_have_are_not_looked_at():
    lags, _ = slanted(8, 9)
    spoiled = lags.clone()
    spoiled[8], spoiled[:, 9] = torch.nan, torch.inf
    for edges in EDGES:
        assert torch.equal(power_of_lags(spoiled, edges), power_of_lags(lags, edges))


def test_matrices_come_in_batches():
    matrix = as_matrix(slanted(6, 5)[0])
    power = power_of_matrix(torch.stack([matrix, 2 * matrix])[None], 6, 5)
    assert power.shape == (1, 2, 6, 5)
    np.testing.assert_allclose(power[0, 1], 2 * power[0, 0])
    assert power_of_matrix(matrix[None][:0], 6, 5).shape == (0, 6, 5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: lag_covariance(np.ones((4, 4))), r"maps: .* \(..., H, W\); got ndarray"),
        (lambda: lag_covariance(torch.ones(4)), r"maps: .* got shape \(4,\)"),
        (lambda: lag_covariance(torch.ones(4, 0)), r"maps: .* got \(4, 0\)"),
        (lambda: lag_covariance(torch.ones(4, 4), "sin"), "edges: expected one of sine"),
        (lambda: mean_lag_covariance(torch.ones(3, 4, 4)), r"maps: .* got \(3, 4, 4\)"),
        (lambda: mean_lag_covariance(torch.ones(0, 1, 4, 4)), r"maps: .* got \(0, 1, 4, 4\)"),
        (lambda: about_the_mean(torch.ones(4, 4), torch.ones(4, 4)), r"moments: .* got \(4, 4\)"),
        (lambda: power_of_lags(torch.ones(5, 4)), r"covariance: .* even sides; got shape \(5, 4\)"),
        (lambda: power_of_lags(torch.ones(4, 4), "sin"), "edges: expected one of sine"),
        (lambda: power_of_lags(torch.ones(4, 4) * 1j), "covariance: expected a real"),
        (lambda: power_of_matrix(torch.ones(4, 5), 2, 2), r"\(..., 4, 4\) .* got \(4, 5\)"),
        (lambda: power_of_matrix(torch.ones(4, 4), 2, 0), "width: expected a whole number"),
    ],
)
def test_what_cannot_be_is_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()

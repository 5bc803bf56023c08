"""Kernels: against transforms of each of them, all permutations, and filtered noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import natstats
from natstats.errors import UsageError
from natstats.fits.exponents import fit_spectrum
from natstats.theory.expected_exponents import exponent_of_lags
from natstats.theory.kernels import (
    fold,
    kernel_exponent,
    kernel_power,
    shuffled_channel_power,
    shuffled_kernel_power,
)

# weight, dilation, groups
CONVOLUTIONS = [
    ((5, 3, 3, 3), 1, 1), ((4, 2, 1, 1), 1, 1), ((4, 3, 5, 2), (1, 2), 2), ((6, 1, 3, 3), 2, 6),
    ((6, 1, 3, 3), 1, 3), ((2, 2, 7, 11), 1, 1), ((2, 1, 3, 3), (3, 5), 1),
]  # fmt: skip
each = pytest.mark.parametrize(("shape", "dilation", "groups"), CONVOLUTIONS)


def weights(shape, seed=0):
    return np.random.default_rng(seed).normal(0.3, 1.0, size=shape)


def transfer(kernel, height, width, dilation):
    """W(f) by its definition, (H, W)."""
    dy, dx = dilation if isinstance(dilation, tuple) else (dilation, dilation)
    p, q = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    taps = np.ndenumerate(kernel)
    return sum(w * np.exp(2j * np.pi * (p * y * dy + q * x * dx)) for (y, x), w in taps)


def by_definition(weight, height, width, dilation, groups):
    n_outputs, per_group = weight.shape[:2]
    power = np.zeros((per_group * groups, height, width))
    for o, i in np.ndindex(n_outputs, per_group):
        channel = o // (n_outputs // groups) * per_group + i
        power[channel] += abs(transfer(weight[o, i], height, width, dilation)) ** 2
    return power[..., : width // 2 + 1]


@each
@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 6), (5, 7)])
def test_power_is_that_of_the_transfer_functions(shape, dilation, groups, height, width):
    weight = weights(shape)
    found = kernel_power(weight, height, width, dilation, groups)
    np.testing.assert_allclose(
        found, by_definition(weight, height, width, dilation, groups), atol=1e-11
    )


@each
def test_the_mean_over_frequencies_is_the_norm(shape, dilation, groups):
    weight = weights(shape)
    for make in (kernel_power, shuffled_kernel_power, shuffled_channel_power):
        half = make(weight, 96, 95, dilation, groups).sum(0)
        mean = (half.sum() + half[:, 1:].sum()) / (96 * 95)
        np.testing.assert_allclose(mean, (weight**2).sum(), rtol=1e-10)


@pytest.mark.parametrize("kernel", [(2, 2), (1, 4), (1, 1), (2, 3)])
def test_shuffled_kernels_are_the_mean_of_all_permutations(kernel):
    weight = weights((2, 2, *kernel), seed=3)
    mean = np.mean(
        [
            kernel_power(weight.reshape(2, 2, -1)[..., list(order)].reshape(weight.shape), 8, 9)
            for order in itertools.permutations(range(kernel[0] * kernel[1]))
        ],
        axis=0,
    )
    np.testing.assert_allclose(shuffled_kernel_power(weight, 8, 9), mean, atol=1e-11)


def test_a_shuffle_keeps_the_power_at_zero_and_knows_no_direction():
    weight = weights((4, 1, 3, 3))
    shuffled = shuffled_kernel_power(weight, 12, 12, 2, 4)
    np.testing.assert_allclose(shuffled[:, 0, 0], kernel_power(weight, 12, 12, 2, 4)[:, 0, 0])
    np.testing.assert_allclose(shuffled[:, :7], np.swapaxes(shuffled[:, :7], 1, 2), atol=1e-12)
    constant = np.ones((3, 2, 3, 3))
    for make in (shuffled_kernel_power, shuffled_channel_power):
        np.testing.assert_allclose(make(constant, 8, 8), kernel_power(constant, 8, 8), atol=1e-11)


def test_shuffled_channels_are_the_mean_of_their_group():
    weight = weights((4, 3, 3, 3))
    plain = kernel_power(weight, 8, 8, groups=2)
    found = shuffled_channel_power(weight, 8, 8, groups=2)
    for group in (slice(0, 3), slice(3, 6)):
        expected = np.broadcast_to(plain[group].mean(0), plain[group].shape)
        np.testing.assert_allclose(found[group], expected, atol=1e-12)
    depthwise = weights((8, 1, 3, 3))
    found = shuffled_channel_power(depthwise, 8, 8, groups=4)
    assert found.shape == (4, 8, 5)
    mean = kernel_power(depthwise, 8, 8, groups=4).mean(0)
    np.testing.assert_allclose(found, np.broadcast_to(mean, found.shape), atol=1e-12)


def test_many_outputs_are_worked_off_in_pieces(monkeypatch):
    weight = weights((7, 3, 3, 3))
    whole = kernel_power(weight, 8, 8), shuffled_channel_power(weight, 8, 8)
    monkeypatch.setattr("natstats.theory.kernels._PIECE", 1)
    np.testing.assert_allclose(kernel_power(weight, 8, 8), whole[0], atol=1e-12)
    np.testing.assert_allclose(shuffled_channel_power(weight, 8, 8), whole[1], atol=1e-12)


@pytest.mark.parametrize("edges", ["sine", "hann", "none", "periodic"])
@pytest.mark.parametrize(("height", "width"), [(5, 5), (8, 14), (32, 32)])
def test_a_kernel_of_one_tap_leaves_white_noise_white(edges, height, width):
    weight = weights((6, 4, 1, 1))
    assert kernel_exponent(weight, height, width, edges) == pytest.approx(0.0, abs=4e-3)
    for shuffle in ("kernels", "channels"):
        assert kernel_exponent(weight, height, width, edges, shuffle=shuffle) == kernel_exponent(
            weight, height, width, edges
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "dilation", "groups"), [((4, 3, 3, 3), 1, 1), ((6, 1, 5, 5), 2, 3)]
)
def test_filtered_white_noise_has_the_exponent_of_the_kernels(shape, dilation, groups):
    weight = abs(weights(shape))
    n_inputs, reach = shape[1] * groups, (shape[2] - 1) * dilation
    noise = torch.from_numpy(
        np.random.default_rng(0).normal(size=(400, n_inputs, 20 + reach, 26 + reach))
    )
    maps = F.conv2d(noise, torch.from_numpy(weight), dilation=dilation, groups=groups)
    accumulator = natstats.SpectrumAccumulator(20, 26)
    accumulator.update(maps)
    fit = fit_spectrum(accumulator.compute())
    found = kernel_exponent(weight, 20, 26, dilation=dilation, groups=groups)
    assert found == pytest.approx(fit.exponent, abs=4 * fit.standard_error)
    assert fit.standard_error < 0.03


def test_low_pass_kernels_rise_and_shuffled_ones_less():
    blur = np.outer([1, 2, 1], [1, 2, 1]).astype(float)[None, None]
    edge = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], dtype=float)[None, None]
    assert kernel_exponent(blur, 16, 16) > kernel_exponent(blur, 16, 16, shuffle="kernels") > 0
    assert kernel_exponent(edge, 16, 16) < kernel_exponent(edge, 16, 16, shuffle="kernels") < 0
    assert kernel_exponent(blur, 16, 16, dilation=2) < kernel_exponent(blur, 16, 16)
    assert kernel_exponent(blur, 16, 16, low=0.2) > kernel_exponent(blur, 16, 16, high=0.2)


def test_a_kernel_larger_than_the_map_is_cut_where_no_pixels_are():
    weight = weights((1, 1, 9, 21))
    lags = np.zeros((64, 64))
    lags[:9, :21] = weight[0, 0]
    lags = np.fft.ifft2(abs(np.fft.fft2(lags)) ** 2).real
    rows, columns = (np.r_[0:6, 0, -5:0], np.r_[0:8, 0, -7:0])
    expected = exponent_of_lags(lags[np.ix_(rows, columns)])
    assert kernel_exponent(weight, 6, 8) == pytest.approx(expected, abs=1e-9)


def test_kernels_without_power_have_no_exponent():
    assert np.isnan(kernel_exponent(np.zeros((2, 2, 3, 3)), 8, 8))
    assert np.isnan(kernel_exponent(np.ones((2, 2, 1, 1)), 8, 8, low=0.49))


@pytest.mark.parametrize("stride", [1, 2, (3, 2), (1, 4)])
def test_folded_power_is_that_of_every_sth_pixel(stride):
    """Exact for the mean over all places that the first pixel may have."""
    field = np.random.default_rng(0).normal(size=(2, 12, 8)).cumsum(1)
    down, across = stride if isinstance(stride, tuple) else (stride, stride)

    def density(maps):
        return abs(np.fft.fft2(maps)) ** 2 / maps[0].size

    mean = np.mean(
        [
            density(np.roll(field, (-y, -x), (1, 2))[:, ::down, ::across])
            for y, x in np.ndindex(down, across)
        ],
        axis=0,
    )
    np.testing.assert_allclose(fold(density(field), stride), mean, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: kernel_power(np.ones((2, 3, 3)), 8, 8), r"weight: .* got \(2, 3, 3\)"),
        (lambda: kernel_power(np.ones((3, 1, 3, 3)), 8, 8, groups=2), "groups: .* divisor of 3"),
        (lambda: kernel_power(np.ones((3, 1, 3, 3)), 8, 0), "width: expected a whole number"),
        (lambda: kernel_power(np.ones((3, 1, 3, 3)), 8, 8, 0), "dilation: expected a whole"),
        (lambda: kernel_power(np.ones((3, 1, 3, 3)), 8, 8, (1, 2, 3)), "dilation: .* or two"),
        (lambda: kernel_exponent(np.ones((1, 1, 1, 1)), 4, 8), "map size: .* got 4 x 8"),
        (lambda: kernel_exponent(np.ones((1, 1, 1, 1)), 8, 8, shuffle="taps"), "shuffle: expected"),
        (lambda: kernel_exponent(np.ones((1, 1, 1, 1)), 8, 8, low=0.5), "band: expected two"),
        (lambda: kernel_exponent(np.ones((1, 1, 1, 1)), 8, 8, "sin"), "edges: expected one of"),
        (lambda: fold(np.ones((8, 9)), 2), r"stride: .* \(8, 9\); got 2"),
        (lambda: fold(np.ones(8), 2), r"stride: .* got 2"),
    ],
)
def test_what_cannot_be_is_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()

"""Linear operations on periodic fields: what theory says of power, and what torch makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from natstats.errors import UsageError
from natstats.theory.kernels import kernel_power
from natstats.theory.linear_operations import addition, convolution, normalization, pooling

# in, out, kernel, dilation, groups, height, width
CONVOLUTIONS = [
    (3, 5, (3, 3), (1, 1), 1, 8, 8), (4, 6, (1, 1), (1, 1), 2, 6, 9),
    (4, 4, (3, 3), (2, 1), 4, 12, 8), (2, 8, (5, 2), (1, 3), 2, 10, 12),
    (3, 2, (4, 9), (1, 1), 1, 6, 5),
]  # fmt: skip


def fields(n, channels, height, width, seed=0):
    """Periodic fields whose channels are alike in part, with long waves."""
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(n, channels, height, width))
    mixed = np.einsum("ij,njhw->nihw", rng.normal(size=(channels, channels)), white)
    mixed = mixed + 0.7 * np.roll(mixed[:, ::-1], (1, 2), (-2, -1)) + 0.3
    return torch.from_numpy(mixed)


def spectra(maps):
    """Power (C, H, W) and cross-spectra (C, C, H, W), means over images."""
    transform = np.fft.fft2(maps.numpy())
    cross = np.einsum("nihw,njhw->ijhw", transform, transform.conj())
    cross /= len(maps) * maps[0, 0].numel()
    return np.einsum("iihw->ihw", cross).real, cross


def circular(maps, weight, dilation, groups):
    """A convolution that wraps around, whatever its size; the result stands where it may."""
    height, width = maps.shape[-2:]
    reach = [(k - 1) * d for k, d in zip(weight.shape[-2:], dilation, strict=True)]
    rows, columns = (torch.arange(n + r) % n for n, r in zip((height, width), reach, strict=True))
    return F.conv2d(maps[:, :, rows][..., columns], weight, dilation=dilation, groups=groups)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_a_convolution_with_correlations_is_exact(case):
    n_in, n_out, kernel, dilation, groups, height, width = case
    maps = fields(3, n_in, height, width)
    weight = torch.from_numpy(
        np.random.default_rng(1).normal(0.2, 1.0, size=(n_out, n_in // groups, *kernel))
    )
    power, cross = spectra(maps)
    found = convolution(power, weight, dilation=dilation, groups=groups, cross=cross)
    measured, _ = spectra(circular(maps, weight, dilation, groups))
    np.testing.assert_allclose(found.linear, measured, atol=1e-9 * measured.max())
    assert found.output.shape == (n_out, height, width)
    np.testing.assert_allclose(found.output, found.linear)


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_without_correlations_the_channels_add_up(case):
    n_in, n_out, kernel, dilation, groups, height, width = case
    maps = fields(2, n_in, height, width)
    weight = np.random.default_rng(1).normal(0.2, 1.0, size=(n_out, n_in // groups, *kernel))
    power, _ = spectra(maps)
    found = convolution(power, weight, dilation=dilation, groups=groups)
    assert found.linear is None
    # Each channel by itself, the others silent, is exact.
    alone = np.zeros((n_out, height, width))
    for i in range(n_in):
        one = torch.zeros_like(maps)
        one[:, i] = maps[:, i]
        alone += spectra(circular(one, torch.from_numpy(weight), dilation, groups))[0]
    np.testing.assert_allclose(found.independent, alone, atol=1e-9 * alone.max())
    diagonal = np.einsum("ij,ihw->ijhw", np.eye(n_in), power)
    same = convolution(power, weight, dilation=dilation, groups=groups, cross=diagonal)
    np.testing.assert_allclose(same.linear, found.independent, atol=1e-9 * alone.max())
    cheap = kernel_power(weight, height, width, dilation, groups) * power[..., : width // 2 + 1]
    np.testing.assert_allclose(
        cheap.sum(0), found.independent.sum(0)[:, : width // 2 + 1], atol=1e-9 * alone.max()
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 9), (5, 4)])
def test_the_step_of_kernels_is_what_white_input_leaves_with(height, width):
    weight = np.random.default_rng(2).normal(size=(4, 3, 3, 3))
    found = convolution(np.ones((3, height, width)), weight)
    assert found.kernels.shape == (height, width)
    np.testing.assert_allclose(found.kernels, found.independent.sum(0), atol=1e-11)
    index = [np.arange(n) * -1 % n for n in (height, width)]
    np.testing.assert_allclose(found.kernels, found.kernels[np.ix_(*index)], atol=1e-11)


def test_a_stride_folds_the_power():
    """Every s-th pixel, mean over the places of the first: exact, as the cross terms average out"""
    maps = fields(4, 3, 12, 8)
    conv = nn.Conv2d(3, 5, 3, stride=(3, 2), bias=False).double()
    weight = conv.weight.detach()
    power, cross = spectra(maps)
    found = convolution(power, weight, stride=(3, 2), cross=cross)
    shifted = [
        F.conv2d(
            F.pad(maps.roll((-y, -x), (2, 3)), (0, 2, 0, 2), "circular"), weight, stride=(3, 2)
        )
        for y, x in np.ndindex(3, 2)
    ]
    measured = np.mean([spectra(one)[0] for one in shifted], axis=0)
    np.testing.assert_allclose(found.output, measured, atol=1e-10)
    np.testing.assert_allclose(found.output.mean((1, 2)), found.linear.mean((1, 2)))


def test_a_large_convolution_is_worked_off_in_pieces(monkeypatch):
    maps = fields(2, 4, 8, 8)
    weight = np.random.default_rng(1).normal(size=(6, 2, 3, 3))
    power, cross = spectra(maps)
    whole = convolution(power, weight, groups=2, cross=cross)
    monkeypatch.setattr("natstats.theory.linear_operations._PIECE", 1)
    pieces = convolution(power, weight, groups=2, cross=cross)
    np.testing.assert_allclose(pieces.linear, whole.linear)
    np.testing.assert_allclose(pieces.independent, whole.independent)


def test_batch_norm_in_eval_scales_every_channel():
    maps = fields(3, 4, 6, 7)
    norm = nn.BatchNorm2d(4, eps=1e-3).double().eval()
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.copy_(torch.from_numpy(np.random.default_rng(3).uniform(0.1, 3.0, 4)))
        measured, _ = spectra(norm(maps))
    power, _ = spectra(maps)
    found = normalization(power, norm.weight, norm.running_var, norm.eps)
    expected = measured.copy()
    expected[:, 0, 0] = found.output[:, 0, 0]  # the shift is there
    np.testing.assert_allclose(found.output, expected, rtol=1e-10, atol=1e-10)
    plain = normalization(power, None, np.ones(4), 0.0)
    np.testing.assert_allclose(plain.output, power)


@pytest.mark.parametrize(
    ("kernel", "stride"), [(2, None), (3, 1), ((2, 3), (2, 3)), (3, 2), ((1, 4), (1, 2))]
)
def test_average_pooling_averages_and_folds(kernel, stride):
    maps = fields(3, 2, 12, 12)
    power, _ = spectra(maps)
    found = pooling(power, kernel, stride)
    kh, kw = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    steps = kernel if stride is None else stride
    dy, dx = steps if isinstance(steps, tuple) else (steps, steps)
    wrapped = F.pad(maps, (0, kw - 1, 0, kh - 1), "circular") if kh * kw > 1 else maps
    averaged = F.avg_pool2d(wrapped, (kh, kw), 1)
    np.testing.assert_allclose(found.averaged, spectra(averaged)[0], atol=1e-10)
    places = [averaged.roll((-y, -x), (2, 3))[:, :, ::dy, ::dx] for y, x in np.ndindex(dy, dx)]
    measured = np.mean([spectra(one)[0] for one in places], axis=0)
    np.testing.assert_allclose(found.output, measured, atol=1e-10)
    # The same by the kernels of a convolution.
    ones = np.full((1, 1, kh, kw), 1 / (kh * kw))
    np.testing.assert_allclose(found.transfer[:, :7], kernel_power(ones, 12, 12)[0], atol=1e-12)


def test_a_sum_has_a_cross_term():
    maps = fields(5, 4, 7, 8)
    a, b = maps[:, :2], maps[:, 2:]
    (first, _), (second, _), (_, cross) = spectra(a), spectra(b), spectra(maps)
    both = cross[[0, 1], [2, 3]]
    found = addition(first, second, both)
    np.testing.assert_allclose(found.output, spectra(a + b)[0], atol=1e-10)
    np.testing.assert_allclose(found.independent + found.cross, found.total)
    alone = addition(first, second)
    assert alone.cross is None
    np.testing.assert_allclose(alone.output, first + second)


ONES = np.ones((2, 8, 8))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: convolution(np.ones((8, 8)), ONES[None]), r"power: .* \(C, H, W\); got \(8, 8\)"),
        (lambda: convolution(ONES, np.ones((4, 3, 1, 1))), "power: expected 3 channels .* got 2"),
        (lambda: convolution(ONES, np.ones((4, 2, 1, 1)), stride=3), "stride: .* got 3"),
        (lambda: convolution(ONES, np.ones((4, 2, 1, 1)), cross=ONES), r"cross: .* \(2, 2, 8, 8\)"),
        (lambda: normalization(ONES, [1.0], [1.0, 1.0]), r"weight: expected shape \(2,\)"),
        (lambda: normalization(ONES, None, [1.0]), r"variance: expected shape \(2,\)"),
        (lambda: normalization(ONES, None, [1.0, -1.0]), "variance: expected at least 0; got -1"),
        (lambda: pooling(ONES, 0), "kernel: expected a whole number"),
        (lambda: pooling(ONES, 3), "stride: .* got"),
        (lambda: addition(ONES, ONES[:1]), r"second: expected shape \(2, 8, 8\)"),
        (lambda: addition(ONES, ONES, ONES[0]), r"cross: expected shape \(2, 8, 8\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: convolution("a", np.ones((1, 1, 1, 1))), "power: expected an array of numbers"),
        (lambda: convolution(np.ones((1, 8, 8)) * 1j, np.ones((1, 1, 1, 1))), "power: .* complex"),
        (lambda: convolution(-np.ones((1, 8, 8)), np.ones((1, 1, 1, 1))), "power of at least 0"),
        (
            lambda: convolution(np.ones((1, 8, 8)), np.ones((1, 1, 1, 1)), cross="x"),
            "cross: expected an array",
        ),
        (lambda: addition(np.full((1, 8, 8), np.nan), np.ones((1, 8, 8))), "first: .* finite"),
        (
            lambda: normalization(np.ones((1, 8, 8)), [1.0], [-1e-6], eps=1e-5),
            "variance: expected at least 0",
        ),
    ],
)
def test_what_is_no_power_is_named(call, said):
    with pytest.raises(UsageError, match=said):
        call()

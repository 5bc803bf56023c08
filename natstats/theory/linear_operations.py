"""What linear operations do to the power of every channel, step by step.

Everything here is on a torus: power is given at the frequencies of the map, and a convolution wraps
around. A measurement also shows the effect of padding, which is not predicted. With W_oi(f) the
transfer functions of a convolution, P_i(f) the power of its input and P_ij(f) = E F_i conj(F_j) the
cross-spectra:

    kernels       sum_oi |W_oi|^2: the output for white, independent input,
    independent   sum_i |W_oi|^2 P_i: the output if the input channels were independent,
    linear        sum_ij W_oi conj(W_oj) P_ij: exact,
    strided       the aliases that a stride folds onto each other, s^-2 sum_m S((f + m) / s).

Batch norm in eval mode multiplies channel i by gamma_i / sqrt(var_i + eps) and adds a shift, which
changes no frequency but 0. Average pooling over p pixels multiplies the power by
(sin(pi p f) / (p sin(pi f)))^2 along each axis, and has a stride; max pooling has no closed form.
A sum has the power S_a + S_b + 2 Re S_ab.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from natstats import checks
from natstats.errors import UsageError
from natstats.theory.arrays import as_array, checked_pair
from natstats.theory.kernels import checked_weight, fold, kernel_power

__all__ = [
    "AdditionPower",
    "ConvolutionPower",
    "NormalizationPower",
    "PoolingPower",
    "addition",
    "convolution",
    "normalization",
    "pooling",
]

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

_PIECE = 1 << 21
"""Numbers of a transform that are worked on at once."""


@dataclass(frozen=True, eq=False)
class ConvolutionPower:
    """Power after a convolution, as each step of the theory predicts it, in FFT order.

    Attributes:
        kernels: sum over inputs and outputs of |W_oi|^2, (H, W).
        independent: of every output, as if the input channels were independent, (O, H, W).
        linear: of every output, with the correlations of the channels, (O, H, W); None without
            cross-spectra.
        strided: `linear`, or else `independent`, after the stride, (O, H / sy, W / sx).
    """

    kernels: Array
    independent: Array
    linear: Array | None
    strided: Array

    @property
    def output(self) -> Array:
        """Power of every output channel, the input of the next operation."""
        return self.strided


@dataclass(frozen=True, eq=False)
class NormalizationPower:
    """Power after a normalisation with fixed statistics.

    Attributes:
        factor: what the power of every channel is multiplied by, (C,).
        scaled: power of every channel, (C, H, W).
    """

    factor: Array
    scaled: Array

    @property
    def output(self) -> Array:
        """Power of every channel, the input of the next operation."""
        return self.scaled


@dataclass(frozen=True, eq=False)
class PoolingPower:
    """Power after average pooling.

    Attributes:
        transfer: |W|^2 of the window, (H, W).
        averaged: power before the stride, (C, H, W).
        strided: power after it, (C, H / sy, W / sx).
    """

    transfer: Array
    averaged: Array
    strided: Array

    @property
    def output(self) -> Array:
        """Power of every channel, the input of the next operation."""
        return self.strided


@dataclass(frozen=True, eq=False)
class AdditionPower:
    """Power of a sum.

    Attributes:
        independent: S_a + S_b, (..., H, W).
        cross: 2 Re S_ab, (..., H, W); None where it was not given.
        total: their sum.
    """

    independent: Array
    cross: Array | None
    total: Array

    @property
    def output(self) -> Array:
        """Power of every channel, the input of the next operation."""
        return self.total


def _checked_power(argument: str, power: ArrayLike) -> Array:
    array = as_array(argument, power)
    if array.ndim != 3 or 0 in array.shape:
        raise UsageError(f"{argument}: expected shape (C, H, W); got {array.shape}")
    if array.min() < 0:
        raise UsageError(f"{argument}: expected power of at least 0; got {array.min():g}")
    return array


def _half(n: int) -> int:
    return n // 2 + 1


def _whole_plane(half: Array, width: int) -> Array:
    """An even plane in FFT order from the half (..., H, W // 2 + 1) that rfft2 has."""
    rest = half[..., 1 : (width + 1) // 2]
    mirrored = np.roll(rest[..., ::-1, ::-1], 1, axis=-2)
    return np.concatenate([half, mirrored], axis=-1)


def _transfer(kernels: Array, height: int, width: int, dilation: tuple[int, int]) -> Complex:
    """W(f) = sum_b w(b) exp(2 pi i f b) of kernels (..., kh, kw), (..., H, W // 2 + 1)."""
    grid = np.zeros((*kernels.shape[:-2], height, width))
    for (y, x), _ in np.ndenumerate(kernels[(0,) * (kernels.ndim - 2)]):
        # A tap b reads the pixel b further on: in networks, convolutions are correlations.
        grid[..., y * dilation[0] % height, x * dilation[1] % width] += kernels[..., y, x]
    return np.asarray(scipy.fft.rfft2(grid).conj())


def _checked_cross(cross: ArrayLike, n_channels: int, height: int, width: int) -> Complex:
    try:
        array = np.asarray(cross, dtype=np.complex128)
    except (ValueError, TypeError) as error:
        raise UsageError(f"cross: expected an array of numbers; got {cross!r}") from error
    expected = (n_channels, n_channels, height, width)
    if array.shape != expected:
        raise UsageError(f"cross: expected shape {expected}; got {array.shape}")
    return array[..., : _half(width)]


def _with_correlations(transfer: Complex, cross: Complex) -> Array:
    """Sum over i, j of W_oi conj(W_oj) P_ij: (O, I, H, W), (I, I, H, W) -> (O, H, W)."""
    rows = np.moveaxis(transfer, (0, 1), (-2, -1))  # (H, W, O, I)
    product = rows @ np.moveaxis(cross, (0, 1), (-2, -1))
    return np.moveaxis((product * rows.conj()).sum(-1).real, -1, 0)


def convolution(
    power: ArrayLike,
    weight: ArrayLike,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    cross: ArrayLike | None = None,
) -> ConvolutionPower:
    """Power after a convolution with circular borders.

    Args:
        power: of every input channel, at all frequencies in FFT order, (I, H, W).
        weight: (O, I / groups, kh, kw), as torch.nn.Conv2d has it; an array or a tensor.
        stride: one number or one for each axis; it must divide the map.
        dilation: pixels between taps, one number or two.
        groups: of the convolution.
        cross: P_ij, the mean of F_i conj(F_j) over images, in the units of `power`,
            (I, I, H, W), complex, for the step ``linear``.

    Raises:
        UsageError: shapes that do not fit, or an argument out of range.

    >>> white = np.ones((2, 8, 8))
    >>> blur = np.full((1, 2, 1, 2), 0.5)
    >>> found = convolution(white, blur, stride=(1, 2))
    >>> found.independent[0, 0].round(2) + 0.0
    array([2.  , 1.71, 1.  , 0.29, 0.  , 0.29, 1.  , 1.71])
    >>> found.output[0, 0].round(2) + 0.0
    array([1., 1., 1., 1.])
    """
    power = _checked_power("power", power)
    kernels = checked_weight(weight, groups)
    n_inputs, (height, width) = len(power), power.shape[1:]
    per_group = kernels.shape[2]
    if per_group * groups != n_inputs:
        raise UsageError(
            f"power: expected {per_group * groups} channels for this weight; got {n_inputs}"
        )
    steps = checked_pair("dilation", dilation)
    checked = None if cross is None else _checked_cross(cross, n_inputs, height, width)
    half = np.empty((2, groups, kernels.shape[1], height, _half(width)))
    piece = max(1, _PIECE // (per_group * height * width))
    for group, own in enumerate(kernels):
        members = slice(group * per_group, (group + 1) * per_group)
        for first in range(0, len(own), piece):
            outputs = slice(first, first + piece)
            transfer = _transfer(own[outputs], height, width, steps)
            squares = transfer.real**2 + transfer.imag**2
            half[0, group, outputs] = np.einsum(
                "oihw,ihw->ohw", squares, power[members, :, : _half(width)]
            )
            if checked is not None:
                half[1, group, outputs] = _with_correlations(transfer, checked[members, members])
    independent, linear = (
        _whole_plane(one.reshape(-1, height, _half(width)), width) for one in half
    )
    white = kernel_power(weight, height, width, steps, groups).sum(0)
    return ConvolutionPower(
        kernels=_whole_plane(white, width),
        independent=independent,
        linear=None if checked is None else linear,
        strided=fold(independent if checked is None else linear, stride),
    )


def normalization(
    power: ArrayLike,
    weight: ArrayLike | None,
    variance: ArrayLike,
    eps: float = 1e-5,
) -> NormalizationPower:
    """Power after batch norm in eval mode: every channel has a factor of its own.

    Args:
        power: of every channel, (C, H, W).
        weight: gamma, (C,); None for ones.
        variance: the running variance, at least 0, (C,).
        eps: what is added to it.

    Raises:
        UsageError: shapes that do not fit, or a variance that with eps is not above 0.

    >>> normalization(np.ones((2, 1, 1)), [1.0, 3.0], [4.0, 1.0], eps=0.0).factor
    array([0.25, 9.  ])
    """
    power = _checked_power("power", power)
    running = as_array("variance", variance)
    if running.min(initial=0.0) < 0:
        raise UsageError(f"variance: expected at least 0; got {running.min():g}")
    total = running + checks.finite("eps", eps, least=0.0)
    gamma = np.ones(len(power)) if weight is None else as_array("weight", weight)
    for argument, value in (("weight", gamma), ("variance", total)):
        if value.shape != (len(power),):
            raise UsageError(f"{argument}: expected shape ({len(power)},); got {value.shape}")
    if not (total > 0).all():
        raise UsageError(f"variance: expected numbers above 0 with eps; got {total.min():g}")
    factor = gamma**2 / total
    return NormalizationPower(factor, power * factor[:, None, None])


def pooling(power: ArrayLike, kernel: Any, stride: Any = None) -> PoolingPower:
    """Power after average pooling with circular borders.

    It also holds for the linear part of max pooling; the rest has no closed form.

    Args:
        power: of every channel, (C, H, W).
        kernel: p, pixels that are averaged along each axis, one number or two.
        stride: one number or two, which divide the map; by default that of the kernel.

    Raises:
        UsageError: an argument is out of range, or the stride does not divide the map.

    >>> pooling(np.ones((1, 4, 4)), 2).output[0].round(3)
    array([[0.25, 0.25],
           [0.25, 0.25]])
    """
    power = _checked_power("power", power)
    sides = checked_pair("kernel", kernel)
    down, across = (_averaging(n, side) for n, side in zip(power.shape[1:], sides, strict=True))
    transfer = np.outer(down, across)
    averaged = power * transfer
    return PoolingPower(transfer, averaged, fold(averaged, sides if stride is None else stride))


def _averaging(n: int, side: int) -> Array:
    """(sin(pi p f) / (p sin(pi f)))^2 at every frequency of an axis, (n,)."""
    f = np.fft.fftfreq(n)
    ratio = np.ones(n)
    ratio[1:] = np.sin(np.pi * side * f[1:]) / (side * np.sin(np.pi * f[1:]))
    return ratio**2


def addition(first: ArrayLike, second: ArrayLike, cross: ArrayLike | None = None) -> AdditionPower:
    """Power of the sum of two branches.

    Args:
        first: S_a, power of one branch, (..., H, W).
        second: S_b, power of the other, the same shape.
        cross: S_ab, the mean of F_a conj(F_b), complex, the same shape; None for independent
            branches.

    Raises:
        UsageError: the shapes differ.

    >>> addition(np.ones((1, 1, 2)), np.ones((1, 1, 2)), [[[1.0, -1.0]]]).total
    array([[[4., 0.]]])
    """
    a, b = as_array("first", first), as_array("second", second)
    if a.shape != b.shape:
        raise UsageError(f"second: expected shape {a.shape} as the first; got {b.shape}")
    independent = a + b
    if cross is None:
        return AdditionPower(independent, None, independent)
    twice = 2 * np.real(np.asarray(cross))
    if twice.shape != a.shape:
        raise UsageError(f"cross: expected shape {a.shape} as the first; got {twice.shape}")
    return AdditionPower(independent, twice, independent + twice)

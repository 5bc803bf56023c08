"""What the kernels of a convolution do to power, and what they would do when shuffled.

A convolution turns input channel i into output o with the transfer function W_oi(f), the transform
of its kernel. For white, independent input of power 1 in every channel, the output has the power
sum_oi |W_oi(f)|^2: the spectrum of the kernels alone. sum_o |W_oi|^2 is the transform of the
autocorrelation of the kernels summed over outputs, so one transform for each input channel is
enough.

When the n taps of a kernel are shuffled, with S its sum and Q its sum of squares, two different
taps have the mean product (S^2 - Q) / (n (n - 1)) over all permutations, and one with itself Q / n.
The norm and the sum stay, the shape is lost.

Power at a frequency of the map is that of the torus: borders are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from natstats import checks
from natstats.errors import UsageError
from natstats.spectra.frequencies import check_size
from natstats.theory.arrays import as_array, checked_pair
from natstats.theory.expected_exponents import exponent_of_lags

__all__ = [
    "SHUFFLES",
    "checked_weight",
    "fold",
    "kernel_exponent",
    "kernel_power",
    "shuffled_channel_power",
    "shuffled_kernel_power",
]

Array = NDArray[np.float64]

SHUFFLES = ("none", "kernels", "channels")
"""What may be shuffled: nothing, the taps within each kernel, or the input channels."""

_PIECE = 1 << 21
"""Numbers that are transformed at once: 16 MB."""


def checked_weight(weight: ArrayLike, groups: int) -> Array:
    """Return the weight of a convolution by group, (groups, O / groups, I / groups, kh, kw).

    Args:
        weight: (O, I / groups, kh, kw), as torch.nn.Conv2d has it; an array or a tensor.
        groups: of the convolution.

    Raises:
        UsageError: the weight has another shape, or the groups do not divide its outputs.

    >>> checked_weight(np.ones((6, 1, 3, 3)), 3).shape
    (3, 2, 1, 3, 3)
    """
    array = as_array("weight", weight)
    if array.ndim != 4 or 0 in array.shape:
        raise UsageError(f"weight: expected shape (O, I / groups, kh, kw); got {array.shape}")
    if len(array) % checks.positive_int("groups", groups):
        raise UsageError(f"groups: expected a divisor of {len(array)} outputs; got {groups}")
    return array.reshape(groups, -1, *array.shape[1:])


def _lags(weight: ArrayLike, groups: int, shuffle: str) -> Array:
    """Autocorrelation of the kernels of each input, summed over outputs, (I, 2kh - 1, 2kw - 1).

    Lags in FFT order, in taps.
    """
    kernels = checked_weight(weight, groups)
    n_outputs, (kh, kw) = kernels.shape[1], kernels.shape[-2:]
    size = (2 * kh - 1, 2 * kw - 1)
    if shuffle == "kernels":
        squares = (kernels**2).sum((1, 3, 4)).ravel()
        products = (kernels.sum((-2, -1)) ** 2).sum(1).ravel() - squares
        n = kh * kw
        pairs = np.outer(
            *(k - abs(scipy.fft.fftfreq(2 * k - 1, 1 / (2 * k - 1))) for k in (kh, kw))
        )
        pairs[0, 0] = 0.0
        lags = products[:, None, None] * (pairs / max(n * (n - 1), 1))
        lags[:, 0, 0] = squares
        return np.asarray(lags)
    power = np.zeros((*kernels.shape[::2][:2], size[0], kw))
    step = max(1, _PIECE // (power.size * 2))
    for first in range(0, n_outputs, step):
        transform = scipy.fft.rfft2(kernels[:, first : first + step], s=size)
        power += (transform.real**2 + transform.imag**2).sum(1)
    if shuffle == "channels":
        within = (0, 1) if kernels.shape[2] == 1 else 1
        power = np.broadcast_to(power.mean(within, keepdims=True), power.shape)
    lags = scipy.fft.irfft2(power, s=size)
    return np.asarray(lags.reshape(-1, *size))


def _on_grid(lags: Array, height: int, width: int, dilation: tuple[int, int]) -> Array:
    """Lags in taps (I, 2kh - 1, 2kw - 1), put at lags in pixels modulo (H, W)."""
    grid = np.zeros((len(lags), height, width))
    rows, columns = (
        (np.rint(scipy.fft.fftfreq(n, 1 / n)).astype(np.int64) * step) % side
        for n, step, side in zip(lags.shape[1:], dilation, (height, width), strict=True)
    )
    places: Any = (slice(None), rows[:, None], columns)
    np.add.at(grid, places, lags)
    return grid


def _power(
    weight: ArrayLike, height: int, width: int, dilation: Any, groups: int, shuffle: str
) -> Array:
    checks.positive_int("height", height)
    checks.positive_int("width", width)
    steps = checked_pair("dilation", dilation)
    lags = _lags(weight, groups, shuffle)
    found = np.empty((len(lags), height, width // 2 + 1))
    piece = max(1, _PIECE // (height * width))
    for first in range(0, len(lags), piece):
        grid = _on_grid(lags[first : first + piece], height, width, steps)
        found[first : first + piece] = scipy.fft.rfft2(grid).real
    return np.maximum(found, 0.0)


def kernel_power(
    weight: ArrayLike, height: int, width: int, dilation: Any = 1, groups: int = 1
) -> Array:
    """Power that each input channel, white and of power 1, brings to all outputs together.

    Args:
        weight: of the convolution, (O, I / groups, kh, kw); an array or a tensor.
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        dilation: pixels between taps, one number or two.
        groups: of the convolution.

    Returns:
        sum_o |W_oi(f)|^2, (I, H, W // 2 + 1), at the frequencies of rfft2.

    Raises:
        UsageError: an argument is out of range.

    >>> kernel_power(np.ones((1, 1, 1, 2)), 1, 4)[0, 0].round(6) + 0.0
    array([4., 2., 0.])
    """
    return _power(weight, height, width, dilation, groups, "none")


def shuffled_kernel_power(
    weight: ArrayLike, height: int, width: int, dilation: Any = 1, groups: int = 1
) -> Array:
    """What :func:`kernel_power` is on average when the taps of every kernel are shuffled.

    Each kernel, of one output and one input, is shuffled by itself; all orders are equally likely.
    Arguments, result and errors are those of :func:`kernel_power`.

    >>> edge = np.array([[[[1.0, -1.0, 0.0]]]])
    >>> shuffled_kernel_power(edge, 1, 4)[0, 0].round(3) + 0.0
    array([0.   , 2.667, 2.667])
    """
    return _power(weight, height, width, dilation, groups, "kernels")


def shuffled_channel_power(
    weight: ArrayLike, height: int, width: int, dilation: Any = 1, groups: int = 1
) -> Array:
    """What :func:`kernel_power` is on average when the input channels are shuffled.

    Channels are shuffled within each group; of a depthwise convolution, whose groups have one
    channel, the kernels are shuffled over all channels.
    Arguments, result and errors are those of :func:`kernel_power`.

    >>> shuffled_channel_power(np.array([1.0, 3.0]).reshape(1, 2, 1, 1), 1, 1).ravel()
    array([5., 5.])
    """
    return _power(weight, height, width, dilation, groups, "channels")


def kernel_exponent(
    weight: ArrayLike,
    height: int,
    width: int,
    edges: str = "sine",
    dilation: Any = 1,
    groups: int = 1,
    low: float = 0.0,
    high: float = checks.NYQUIST,
    *,
    shuffle: str = "none",
) -> float:
    """Exponent of the output for white, independent input of the same power in every channel.

    Filtered white noise has the autocorrelation of its kernels as covariance, whatever the size of
    the map, so that the power of a map with this treatment of the edges is known exactly.

    Args:
        weight: of the convolution, (O, I / groups, kh, kw); an array or a tensor.
        height: H of the maps, pixels, at least 5.
        width: W of the maps, pixels, at least 5.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        dilation: pixels between taps, one number or two.
        groups: of the convolution.
        low: lowest frequency of the band, cycles/pixel.
        high: highest frequency of the band, cycles/pixel.
        shuffle: one of :data:`SHUFFLES`: the weight as it is, or what is expected of it with the
            taps of every kernel shuffled, or the input channels. Channels of white input are all
            alike: shuffling them changes nothing.

    Returns:
        The exponent by the estimator ``octave``; for kernels of one tap 0, within the 0.004 of its
        table. NaN where no power is left, or the band has fewer than two rings.

    Raises:
        UsageError: an argument is out of range.

    >>> smooth = np.array([1.0, 2.0, 1.0])
    >>> kernel = np.outer(smooth, smooth)[None, None]
    >>> round(kernel_exponent(kernel, 32, 32), 1)
    1.5
    >>> round(kernel_exponent(kernel, 32, 32, shuffle="kernels"), 1)
    1.1
    """
    checks.one_of("shuffle", shuffle, SHUFFLES)
    steps = checked_pair("dilation", dilation)
    lags = _lags(weight, groups, shuffle).sum(0)[None]
    check_size("map size", height, width)
    # On this larger grid, lags beyond the map do not wrap onto lags that pixels of the map have.
    sides = [
        max(2 * n, n + (taps // 2) * step + 1)
        for n, taps, step in zip((height, width), lags.shape[1:], steps, strict=True)
    ]
    grid = _on_grid(lags, sides[0], sides[1], steps)[0]
    rows, columns = (np.r_[0 : n + 1, -n + 1 : 0] for n in (height, width))
    return exponent_of_lags(grid[np.ix_(rows, columns)], edges, low, high)


def fold(plane: ArrayLike, stride: Any) -> Array:
    """Power of every s-th pixel: the mean over the frequencies that alias onto each other.

    A stationary field on a torus that is read at every s-th pixel of both axes has the power
    s^-2 sum_m S((f + m) / s), f the frequency in cycles per pixel that is kept.

    Args:
        plane: power in FFT order, (..., H, W), the whole plane.
        stride: s, one number or one for each axis.

    Returns:
        (..., H / sy, W / sx), in FFT order.

    Raises:
        UsageError: the stride does not divide the sides.

    >>> fold(np.array([[3.0, 1.0, 1.0, 1.0]]), (1, 2))
    array([[2., 1.]])
    """
    plane = as_array("plane", plane)
    down, across = checked_pair("stride", stride)
    if plane.ndim < 2 or plane.shape[-2] % down or plane.shape[-1] % across:
        raise UsageError(
            f"stride: expected one that divides the plane (..., H, W) = {plane.shape}; "
            f"got {stride!r}"
        )
    height, width = plane.shape[-2] // down, plane.shape[-1] // across
    shape = (*plane.shape[:-2], down, height, across, width)
    return np.asarray(plane.reshape(shape).mean((-4, -2)))

"""Exponents by depth of a plain ReLU network with random weights, from that of the images.

In the limit of many channels, and away from the borders, a convolution with independent weights
leaves the autocorrelation rho of its input as it is, and a rectifier after it turns rho into

    kappa(rho) = (sqrt(1 - rho^2) + rho (pi - arccos rho)) / pi

(Cho and Saul 2009, the arc-cosine kernel of order one). Near 1, with D = 1 - rho, every layer
reduces D by 0.300 D^(3/2): the finest waves keep their shape, long ones lose theirs, and the
exponent falls with depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from natstats import checks
from natstats.errors import UsageError
from natstats.spectra.frequencies import radius_grid, rings

__all__ = ["random_exponents"]

Array = NDArray[np.float64]

_SMALLEST = 16
_LARGEST = 4096
_DEEPEST = 100_000


def _rectified(rho: Array) -> Array:
    """kappa(rho), the correlation after a rectifier."""
    rho = np.clip(rho, -1.0, 1.0)
    return np.asarray((np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / np.pi)


def random_exponents(
    alpha: float,
    depth: int | Sequence[int],
    size: int = 64,
    *,
    band: tuple[float, float] | None = None,
) -> Array:
    """Exponents by depth of a network of convolutions and ReLUs with random weights.

    The field lives on a torus, without borders, and has the power f^-alpha at depth 0; every layer
    is a convolution with a ReLU before it, but for the first, which sees the images themselves.
    The recursion is exact for many channels. How an exponent is read off is a convention, here that
    of natstats: rings one cycle wide, without DC, and a straight line through log power against log
    cycles, with equal weight for every ring. The mean power of a ring is not that at its middle, so
    that depth 0 reads a little below alpha: 1.96 for 2, and 2.94 for 3.

    Args:
        alpha: exponent of the images' power.
        depth: layers with a ReLU before them, or several such depths.
        size: side of the torus, pixels, even.
        band: lowest and highest number of cycles along the side; by default 2 to size / 4.

    Returns:
        Exponents at depths 0 to `depth`, (depth + 1,); of several depths, those alone.

    Raises:
        UsageError: an argument is out of range.

    >>> random_exponents(2.0, [0, 1, 8, 32]).round(2)
    array([1.96, 1.82, 1.39, 0.96])
    >>> len(random_exponents(3.0, 4))
    5
    """
    alpha = checks.finite("alpha", alpha)
    checks.positive_int("size", size, _SMALLEST, _LARGEST)
    if size % 2:
        raise UsageError(f"size: expected an even number of pixels; got {size}")
    if isinstance(depth, Iterable):
        depths = [checks.positive_int("depth", one, 0, _DEEPEST) for one in depth]
    else:
        depths = list(range(checks.positive_int("depth", depth, 0, _DEEPEST) + 1))
    low, high = (2.0, size / 4) if band is None else band
    checks.pair_in_order("band", (low, high), 1.0, size / 2)
    cycles = np.arange(1, size // 2 + 1)
    inside = (cycles >= low) & (cycles <= high)
    if inside.sum() < 2:
        raise UsageError(f"band: expected at least two rings in it; got {low:g} to {high:g} cycles")
    radius = radius_grid(size, size)
    radius[0, 0] = 1.0
    density = radius**-alpha
    density[0, 0] = 0.0
    rho = scipy.fft.ifft2(density).real
    rho /= rho[0, 0]
    ring, x = rings(size, size), np.log(cycles[inside])
    x -= x.mean()
    found = {}
    for layer in range(max(depths, default=0) + 1):
        if layer:
            rho = _rectified(rho)
        if layer in depths:
            power = ring.mean(scipy.fft.fft2(rho).real)[inside]
            found[layer] = float(-(x @ np.log(power)) / (x @ x))
    return np.array([found[layer] for layer in depths])

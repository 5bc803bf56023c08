"""Frequency grids and rings: where each two-dimensional frequency of a map belongs.

Frequencies are true radii in cycles per pixel on both axes, so maps that are not square are
treated correctly: a ring is the same set of wavelengths whichever way they run. A map that is one
pixel wide is a column, such as the values of a pixel along time, with frequencies on one axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from natstats import checks
from natstats.checks import MINIMUM_SIDE, NYQUIST

__all__ = ["NYQUIST", "Rings", "check_size", "extent", "radius_grid", "rings"]


def extent(height: int, width: int) -> int:
    """Shorter side of a map, pixels; of a column, its length.

    >>> extent(16, 64), extent(16, 1)
    (16, 16)
    """
    return height if width == 1 else min(height, width)


def check_size(argument: str, height: int, width: int) -> tuple[int, int]:
    """Return (height, width) when a map, or with a width of 1 a column, is large enough.

    Raises:
        UsageError: a side is shorter than MINIMUM_SIDE, or the map larger than MOST_PIXELS.

    >>> check_size("maps", 16, 1)
    (16, 1)
    """
    if width == 1:
        checks.spatial_shape(argument, height, MINIMUM_SIDE, MINIMUM_SIDE)
    else:
        checks.spatial_shape(argument, height, width, MINIMUM_SIDE)
    return height, width


@dataclass(frozen=True, eq=False)
class Rings:
    """The rings of an (H, W) map: which frequencies each holds, and at what frequency it stands.

    Ring k, for k = 1 .. m // 2, holds the frequencies whose radius lies in
    [(k - 1/2) / m, (k + 1/2) / m) cycles per pixel, m = min(H, W), or H for a column. DC, what lies
    inside the first ring, and everything beyond the Nyquist frequency (the corners) belong to no
    ring.

    Attributes:
        height: H, pixels.
        width: W, pixels.
        frequency: mean radius of each ring's members, cycles/pixel, (n_rings,), rising.
        n_members: members of each ring in the full plane, (n_rings,).
        index: ring of each frequency of the full plane in FFT order, -1 for none, (H, W).
    """

    height: int
    width: int
    frequency: NDArray[np.float64]
    n_members: NDArray[np.int64]
    index: NDArray[np.int64]

    @property
    def n_rings(self) -> int:
        """Number of rings."""
        return len(self.frequency)

    @property
    def cycles_per_image(self) -> NDArray[np.float64]:
        """Ring frequencies in cycles along the shorter side of the map."""
        return self.frequency * extent(self.height, self.width)

    def mean(self, plane: NDArray[np.floating]) -> NDArray[np.float64]:
        """Average a full plane (..., H, W) in FFT order over each ring: (..., n_rings).

        >>> r = rings(8, 8)
        >>> bool(np.allclose(r.mean(radius_grid(8, 8)), r.frequency))
        True
        """
        flat = np.asarray(plane, dtype=np.float64).reshape(-1, self.height * self.width)
        index = self.index.ravel()
        inside = index >= 0
        sums = np.stack(
            [np.bincount(index[inside], row[inside], minlength=self.n_rings) for row in flat]
        )
        return np.asarray((sums / self.n_members).reshape(*np.shape(plane)[:-2], self.n_rings))


def radius_grid(height: int, width: int) -> NDArray[np.float64]:
    """Radius of every frequency of an (H, W) transform, cycles/pixel, FFT order, (H, W).

    >>> float(radius_grid(8, 4)[1, 0]), float(radius_grid(8, 4)[0, 1])
    (0.125, 0.25)
    """
    return np.asarray(np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :]))


@lru_cache(maxsize=256)
def rings(height: int, width: int) -> Rings:
    """Return the rings of an (H, W) map.

    Args:
        height: H in pixels, at least 5.
        width: W in pixels, at least 5; or 1 for a column of H values.

    Raises:
        UsageError: a side is shorter than 5 pixels (fewer than two rings).

    >>> rings(7, 7).n_rings, rings(14, 14).n_rings, rings(16, 64).n_rings
    (3, 7, 8)
    >>> rings(7, 7).n_members
    array([ 8, 12, 16])
    """
    check_size("map size", height, width)
    shorter = extent(height, width)
    radius = radius_grid(height, width)
    # A whole number of half widths lies exactly on an edge; the small shift keeps rounding in the
    # radius from deciding on which side.
    index = np.floor(radius * shorter + 0.5 + 1e-9).astype(np.int64) - 1
    index[(radius > NYQUIST + 1e-9) | (index >= shorter // 2)] = -1
    inside = index >= 0
    n_members = np.bincount(index[inside], minlength=shorter // 2)
    frequency = np.bincount(index[inside], radius[inside], minlength=shorter // 2) / n_members
    for array in (frequency, n_members, index):
        array.setflags(write=False)
    return Rings(height, width, frequency, n_members, index)

"""The rings of one map size in a band, as the forms need them: expected power and bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from natstats.fits.bands import band_of
from natstats.spectra.expected import EXPONENT_RANGE, expected_spectrum, independent_modes

__all__ = ["FormRings"]

Array = NDArray[np.float64]


class FormRings:
    """The rings of one map size in a band, and their bins.

    Args:
        height: H, pixels.
        width: W, pixels.
        edges: edge treatment.
        band: lowest and highest frequency, cycles/pixel; with five rings or more between them.
        most: bins at most, five or more.

    Attributes:
        frequency: frequencies of the rings in the band, cycles/pixel, (n,).
        log_frequency: their logarithms, (n,).
        expected: log T_b(alpha), and with 1 as second argument its derivative in alpha: (..., n)
            for alpha of shape (...).
        average: takes rings to bins, a mean weighted by independent modes, (k, n).
        middles: mean log frequency of the bins, (k,).
    """

    def __init__(
        self, height: int, width: int, edges: str, band: tuple[float, float], most: int
    ) -> None:
        inside = band_of(height, width, edges, *band).inside
        table = expected_spectrum(height, width, edges)
        self.frequency = table.frequency[inside]
        self.log_frequency = np.log(self.frequency)
        # Cubic between exponents 1/15 apart: as exact as the table, and a tenth of its cost.
        grid = np.linspace(*EXPONENT_RANGE, 136)
        self.expected = CubicSpline(grid, table.log_power(grid)[:, inside])
        place = _evenly(self.log_frequency, most)
        modes = independent_modes(height, width, edges)[inside]
        average = (place == np.arange(place[-1] + 1)[:, None]) * modes
        self.average: Array = average / average.sum(axis=1, keepdims=True)
        self.middles: Array = self.average @ self.log_frequency

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.average)


def _evenly(log_frequency: Array, most: int) -> NDArray[np.int64]:
    """The bin of each ring, (n,): at most `most` bins, evenly spaced, none empty.

    >>> _evenly(np.log(np.arange(1.0, 9.0)), 5).tolist()
    [0, 1, 2, 3, 3, 4, 4, 4]
    """
    n = len(log_frequency)
    if n <= most:
        return np.arange(n)
    position = (log_frequency - log_frequency[0]) / np.ptp(log_frequency)
    place = np.zeros(n, dtype=np.int64)
    # More cells fill more bins, until the low rings have one each and cells between stay empty.
    for n_cells in range(2, 50 * most):
        cell = np.minimum((position * n_cells).astype(np.int64), n_cells - 1)
        filled, finer = np.unique(cell, return_inverse=True)
        if len(filled) > most:
            break
        place = finer
    return place

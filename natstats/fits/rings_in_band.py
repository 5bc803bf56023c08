"""The rings of one map size that lie in a band, with what estimators and forms need there."""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from natstats.spectra.edge_names import Edges
from natstats.spectra.expected import EXPONENT_RANGE, expected_spectrum, independent_modes
from natstats.spectra.frequencies import rings

__all__ = ["GRID", "RingsInBand"]

Array = NDArray[np.float64]

GRID = np.linspace(*EXPONENT_RANGE, 361)
"""Exponents for which expected spectra are tabled."""


@lru_cache(maxsize=64)
def _on_grid(height: int, width: int, edges: Edges) -> Array:
    """Log T_b of the exponents of the grid in all rings, which the bands of a map size share."""
    return expected_spectrum(height, width, edges).log_power(GRID)


class RingsInBand:
    """The rings of one map size in a band, and the spectrum that is expected there.

    Args:
        height: H, pixels.
        width: W, pixels.
        edges: edge treatment.
        low: lowest frequency, cycles/pixel.
        high: highest frequency, cycles/pixel.

    Attributes:
        inside: which rings of the map lie in the band, (n_rings,).
        n_rings: number of rings in the band, n; with fewer than two, nothing that follows is set.
        log_frequency: log frequency of the rings in the band, (n,).
        octave_weights: weights 1 / f, under which every octave counts the same, (n,).
        modes: independent modes of each ring, (n,).
        grid: exponents for which the expected spectrum is tabled, (k,).
        log_expected: log T_b of these exponents, (k, n).
        octave_contrast: what the log ring power is multiplied by to give the slope with
            `octave_weights`, (n,).
        straight_contrast: the same with equal weights for all rings, (n,).
        inverse: measured slopes, rising, and the exponents of `grid` that they belong to.
        follows: change of the measured slope with the exponent, on `grid`, (k,).
        is_single: whether no other exponent of `grid` has the same slope, (k,).
    """

    def __init__(self, height: int, width: int, edges: Edges, low: float, high: float) -> None:
        frequency = rings(height, width).frequency
        # Rounding in a mean radius must not push the last ring out of the full band.
        self.inside = (frequency >= low - 1e-9) & (frequency <= high + 1e-9)
        self.n_rings = int(self.inside.sum())
        if self.n_rings < 2:
            return
        self.log_frequency = np.log(frequency[self.inside])
        self.octave_weights = 1.0 / frequency[self.inside]
        self.modes = independent_modes(height, width, edges)[self.inside]
        self.grid = GRID
        self._expected = expected_spectrum(height, width, edges)
        self.log_expected = _on_grid(height, width, edges)[:, self.inside]
        self.octave_contrast = self._slope_contrast(self.octave_weights)
        self.straight_contrast = self._slope_contrast(np.ones(self.n_rings))
        self._calibrate()

    def _slope_contrast(self, weights: Array) -> Array:
        """Weights v with sum(v y) the weighted slope of y against log frequency."""
        x = self.log_frequency
        centred = x - np.average(x, weights=weights)
        return np.asarray(weights * centred / np.sum(weights * centred**2))

    def _calibrate(self) -> None:
        """Find which exponent a measured slope belongs to."""
        calibration = -self.log_expected @ self.octave_contrast
        before = np.concatenate(([-np.inf], np.maximum.accumulate(calibration)[:-1]))
        # The calibration rises until leakage stops it; beyond, np.interp clips to its range.
        rising = calibration > before
        self.inverse = calibration[rising], GRID[rising]
        self.follows = np.gradient(calibration, GRID)
        # Where leakage folds the calibration back, one slope belongs to two exponents.
        after = np.minimum.accumulate(calibration[::-1])[::-1]
        after = np.concatenate((after[1:], [np.inf]))
        self.is_single = (before < calibration) & (calibration < after)

    @cached_property
    def likelihood_weights(self) -> Array:
        """Share of the modes over T_b, whose geometric mean over modes is set to 1, (k, n)."""
        share = self.modes / self.modes.sum()
        shape = self.log_expected - (self.log_expected @ share)[:, None]  # no overflow in 1 / T
        return np.asarray(share * np.exp(-shape))

    def log_expected_power(self, alpha: Array | float) -> Array:
        """Log T_b(alpha) in the band, (..., n) for alpha of shape (...)."""
        return self._expected.log_power(alpha)[..., self.inside]

    def log_expected_slope(self, alpha: float) -> Array:
        """Derivative of log T_b(alpha) in alpha, in the band, (n,)."""
        return self._expected.log_power_slope(alpha)[self.inside]

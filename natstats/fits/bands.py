"""A band of one map size, from whose ring power exponents are estimated."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from natstats.fits.estimators import ESTIMATORS
from natstats.fits.rings_in_band import RingsInBand
from natstats.spectra.edge_names import Edges
from natstats.spectra.expected import EXPONENT_RANGE, OUTER_SCALE, expected_power

__all__ = ["Band", "band_of"]

Array = NDArray[np.float64]


@lru_cache(maxsize=256)
def band_of(height: int, width: int, edges: Edges, low: float, high: float) -> Band:
    """Return the rings of an (H, W) map between two frequencies, prepared once and kept."""
    return Band(height, width, edges, low, high)


@lru_cache(maxsize=256)
def _outer_change(height: int, width: int, edges: Edges, alpha: float) -> Array:
    """Change of log T_b(alpha) when the longest wave is three times as long, (n_rings,)."""
    longer, usual = (
        expected_power(alpha, height, width, edges, outer_scale=scale)
        for scale in (3 * OUTER_SCALE, OUTER_SCALE)
    )
    return np.asarray(np.log(longer / usual))


class Band(RingsInBand):
    """The rings of one map size in a band, and what the estimators make of power there.

    Arguments and attributes are those of :class:`natstats.fits.rings_in_band.RingsInBand`;
    estimators go by their names in :data:`natstats.fits.estimators.ESTIMATORS`.

    >>> band = Band(16, 16, "sine", 0.0, 0.5)
    >>> power = np.exp(band.log_expected_power(2.3))
    >>> [round(float(band.estimate(power[None], name)[0]), 2) for name in ("octave", "whittle")]
    [2.3, 2.3]
    """

    def __init__(self, height: int, width: int, edges: Edges, low: float, high: float) -> None:
        super().__init__(height, width, edges, low, high)
        self._size = height, width, edges

    def estimate(self, power: Array, estimator: str) -> Array:
        """Alpha for each row of ring power in the band, (R, n) -> (R,)."""
        return ESTIMATORS[estimator].estimate(self, power)

    def gradient(self, power: Array, alpha: Array, estimator: str) -> Array:
        """Derivative of the estimate `alpha` (R,) in the log of every ring's power, (R, n)."""
        return ESTIMATORS[estimator].gradient(self, power, alpha)

    def octave_calibration(self) -> tuple[Array, Array, Array]:
        """The parts of the estimator ``octave``, for code that computes its gradient itself.

        Returns:
            The contrast (n,), whose product with the log ring power is minus the measured slope,
            and the slopes, rising, with the exponents that they belong to.
        """
        slopes, alphas = self.inverse
        return self.octave_contrast, slopes, alphas

    def is_resolvable(self, alpha: float, estimator: str = "octave") -> bool:
        """True where the spectrum tells this alpha from others.

        An estimator without a correction for the finite map has no such test: every alpha between
        the ends of the table of :mod:`natstats.spectra.expected` passes.
        """
        if not EXPONENT_RANGE[0] < alpha < EXPONENT_RANGE[1]:
            return False
        resolves = ESTIMATORS[estimator].is_resolvable
        return resolves is None or resolves(self, alpha)

    def outer_shift(self, alpha: float, estimator: str = "octave") -> float:
        """Change of the estimate when the field has wavelengths three times as long."""
        change = _outer_change(*self._size, round(alpha, 1))[self.inside]
        expected = np.exp(self.log_expected_power(alpha))
        return float(change @ self.gradient(expected[None], np.array([alpha]), estimator)[0])

    def curvature(self, log_power: Array, alpha: Array) -> Array:
        """Coefficient of (ln f)^2 in log S - log T(alpha), octave-weighted, (R, n) -> (R,)."""
        residual = log_power - self.log_expected_power(alpha)
        x = self.log_frequency - np.average(self.log_frequency, weights=self.octave_weights)
        root = np.sqrt(self.octave_weights)
        basis = np.stack([np.ones_like(x), x, x**2], axis=1) * root[:, None]
        return np.asarray((np.linalg.pinv(basis)[2] * root) @ residual.T)

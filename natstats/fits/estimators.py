"""From ring power to the exponent: three estimators, for many spectra of one map size at once.

They read ring power S_b at ring frequencies f_b:

* ``octave`` (default): the slope of log S_b against log f_b with weights 1 / f_b, so that every
  octave counts the same, turned into alpha by the slope that the expected spectrum T_b(alpha) of
  :mod:`natstats.spectra.expected` has under the same weights. Unbiased for an ideal field of finite
  size.
* ``whittle``: the alpha that maximises the debiased Gamma likelihood
  -sum_b m_b (S_b / (A T_b(alpha)) + log A T_b(alpha)) / 2, m_b the independent modes of the ring
  (:func:`natstats.spectra.expected.independent_modes`), A profiled out. Efficient when the power
  law is exact, and the least biased for single images.
* ``ols``: minus the slope of the straight line through (log f_b, log S_b), every ring the same and
  no correction, as most papers do.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from natstats.spectra.expected import (
    EXPONENT_RANGE,
    OUTER_SCALE,
    expected_power,
    expected_spectrum,
    independent_modes,
)
from natstats.spectra.frequencies import rings

__all__ = ["Band", "band_of"]

RESOLVABLE = 0.5
"""An exponent is beyond range where the measured slope follows it by less than this factor."""

Array = NDArray[np.float64]

_GRID = np.linspace(*EXPONENT_RANGE, 361)


@lru_cache(maxsize=256)
def band_of(height: int, width: int, edges: str, low: float, high: float) -> Band:
    """Return the rings of an (H, W) map between two frequencies, prepared once and kept."""
    return Band(height, width, edges, low, high)


@lru_cache(maxsize=256)
def _outer_change(height: int, width: int, edges: str, alpha: float) -> Array:
    """Change of log T_b(alpha) when the longest wave is three times as long, (n_rings,)."""
    longer, usual = (
        expected_power(alpha, height, width, edges, outer_scale=scale)
        for scale in (3 * OUTER_SCALE, OUTER_SCALE)
    )
    return np.asarray(np.log(longer / usual))


class Band:
    """The rings of one map size that lie in a band, with what the estimators need there.

    Args:
        height: H, pixels.
        width: W, pixels.
        edges: edge treatment.
        low: lowest frequency, cycles/pixel.
        high: highest frequency, cycles/pixel.

    Attributes:
        inside: which rings lie in the band, (n_rings,).
        n_rings: how many.
        log_frequency: their log frequency, (n,).
        octave_weights: 1 / f, (n,).

    >>> band = Band(16, 16, "sine", 0.0, 0.5)
    >>> power = np.exp(band.log_expected_power(2.3))
    >>> [round(float(band.estimate(power[None], name)[0]), 2) for name in ("octave", "whittle")]
    [2.3, 2.3]
    """

    def __init__(self, height: int, width: int, edges: str, low: float, high: float) -> None:
        frequency = rings(height, width).frequency
        # Rounding in a mean radius must not push the last ring out of the full band.
        self.inside = (frequency >= low - 1e-9) & (frequency <= high + 1e-9)
        self.n_rings = int(self.inside.sum())
        self._size = height, width, edges
        if self.n_rings < 2:
            return
        self.log_frequency = np.log(frequency[self.inside])
        self.octave_weights = 1.0 / frequency[self.inside]
        self._expected = expected_spectrum(height, width, edges)
        self._modes = independent_modes(height, width, edges)[self.inside]
        self._log_expected = self._expected.log_power(_GRID)[:, self.inside]
        self._contrast = self._slope_contrast(self.octave_weights)
        self._straight = self._slope_contrast(np.ones(self.n_rings))
        self._calibration = -self._log_expected @ self._contrast
        # The calibration rises until leakage holds it; np.interp clips to the range beyond.
        rising = self._calibration > np.concatenate(
            ([-np.inf], np.maximum.accumulate(self._calibration)[:-1])
        )
        self._inverse = self._calibration[rising], _GRID[rising]
        self._follows = np.gradient(self._calibration, _GRID)
        # Where leakage folds the calibration back, one slope belongs to two exponents.
        before = np.concatenate(([-np.inf], np.maximum.accumulate(self._calibration)[:-1]))
        after = np.minimum.accumulate(self._calibration[::-1])[::-1]
        after = np.concatenate((after[1:], [np.inf]))
        self._is_single = (before < self._calibration) & (self._calibration < after)

    def _slope_contrast(self, weights: Array) -> Array:
        """Weights v with sum(v y) the weighted slope of y against log frequency."""
        x = self.log_frequency
        centred = x - np.average(x, weights=weights)
        return np.asarray(weights * centred / np.sum(weights * centred**2))

    def log_expected_power(self, alpha: Array | float) -> Array:
        """Log T_b(alpha) in the band, (..., n) for alpha of shape (...)."""
        return self._expected.log_power(alpha)[..., self.inside]

    def estimate(self, power: Array, estimator: str) -> Array:
        """Alpha for each row of ring power in the band, (R, n) -> (R,)."""
        if estimator == "whittle":
            return self._whittle(power)
        contrast = self._straight if estimator == "ols" else self._contrast
        slope = -np.log(power) @ contrast
        return slope if estimator == "ols" else np.interp(slope, *self._inverse)

    def octave_calibration(self) -> tuple[Array, Array, Array]:
        """What the estimator ``octave`` is made of, for those who need its gradient elsewhere.

        Returns:
            The contrast (n,), whose product with the log ring power is minus the measured slope,
            and the slopes, rising, with the exponents that they belong to.
        """
        slopes, alphas = self._inverse
        return self._contrast, slopes, alphas

    def gradient(self, power: Array, alpha: Array, estimator: str) -> Array:
        """Derivative of the estimate `alpha` (R,) in the log of every ring's power, (R, n)."""
        if estimator == "ols":
            return np.broadcast_to(-self._straight, power.shape)
        if estimator == "octave":
            return -self._contrast / np.interp(alpha, _GRID, self._follows)[:, None]
        # Between two rows of the table a line is exact enough, and many times faster.
        place = np.clip((alpha - _GRID[0]) / (_GRID[1] - _GRID[0]), 0, len(_GRID) - 1.001)
        below = place.astype(np.intp)
        rise = self._log_expected[below + 1] - self._log_expected[below]
        expected = self._log_expected[below] + (place - below)[:, None] * rise
        slope = rise / (_GRID[1] - _GRID[0])
        share = self._modes * power / np.exp(expected)
        share /= share.sum(axis=1, keepdims=True)
        # The score of the profiled likelihood is sum_b (m_b - share_b) dlog T_b / dalpha.
        centred = slope - np.sum(share * slope, axis=1, keepdims=True)
        information = np.sum(share * centred**2, axis=1, keepdims=True)
        return np.asarray(share * centred / information)

    def _whittle(self, power: Array) -> Array:
        share = self._modes / self._modes.sum()
        level = self._log_expected @ share
        shape = self._log_expected - level[:, None]  # log T less its mean: no overflow in 1 / T
        power = power / np.exp(np.log(power) @ share)[:, None]
        # -log likelihood per mode with A profiled out, up to constants, on the grid.
        objective = np.log(power @ (share * np.exp(-shape)).T)
        lowest = objective.argmin(axis=1)
        best = np.clip(lowest, 1, len(_GRID) - 2)
        rows = np.arange(len(power))
        left, middle, right = (objective[rows, best + step] for step in (-1, 0, 1))
        bend = left - 2 * middle + right
        shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
        refined = _GRID[best] + np.clip(shift, -1, 1) * (_GRID[1] - _GRID[0])
        return np.asarray(np.where(lowest == best, refined, _GRID[lowest]))

    def is_resolvable(self, alpha: float, estimator: str = "octave") -> bool:
        """True where the spectrum still follows alpha, and no other alpha has the same slope."""
        if not EXPONENT_RANGE[0] < alpha < EXPONENT_RANGE[1]:
            return False
        if estimator == "whittle":
            share = self._modes / self._modes.sum()
            slope = self._expected.log_power_slope(alpha)[self.inside]
            ideal, found = (share @ (y - share @ y) ** 2 for y in (self.log_frequency, slope))
            return bool(np.sqrt(found / ideal) >= RESOLVABLE)
        place = int(np.searchsorted(_GRID, alpha))
        is_single = bool(self._is_single[place - 1 : place + 1].all())
        return is_single and float(np.interp(alpha, _GRID, self._follows)) >= RESOLVABLE

    def outer_shift(self, alpha: float, estimator: str = "octave") -> float:
        """What the estimate changes by when the field has wavelengths three times as long."""
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

"""The exponent that a measurement would find for power or a covariance that theory gives.

Rings, band and estimator are those of every measurement of natstats, so that a predicted exponent
and a measured one can be compared to the last digit.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.fits.bands import band_of
from natstats.spectra.edges import EDGES
from natstats.spectra.frequencies import check_size, rings
from natstats.theory.arrays import as_array
from natstats.theory.covariances import power_of_lags

__all__ = ["exponent_of_lags", "exponent_of_power"]


def exponent_of_power(
    plane: ArrayLike | Tensor,
    edges: str = "sine",
    low: float = 0.0,
    high: float = checks.NYQUIST,
    estimator: str = "octave",
) -> float:
    """Exponent of the power of a map at all frequencies.

    Args:
        plane: power as it is measured or expected with this treatment of the edges, in FFT order,
            (H, W), at least 5 x 5; an array or a tensor.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        low: lowest frequency of the band, cycles/pixel.
        high: highest frequency of the band, cycles/pixel.
        estimator: one of :data:`natstats.fits.estimators.ESTIMATORS`.

    Returns:
        The exponent; NaN where a ring of the band has no power, or the band fewer than two rings.

    Raises:
        UsageError: an argument is out of range.

    >>> white = torch.zeros(32, 32)
    >>> white[0, 0] = 1.0
    >>> round(exponent_of_power(power_of_lags(white)), 2) + 0.0
    0.0
    """
    plane = as_array("power", plane)
    if plane.ndim != 2:
        raise UsageError(f"plane: expected shape (H, W); got {plane.shape}")
    height, width = check_size("plane", *plane.shape)
    low, high = checks.pair_in_order("band", (low, high), 0.0, checks.NYQUIST)
    band = band_of(height, width, checks.one_of("edges", edges, EDGES), low, high)
    if band.n_rings < 2:
        return float("nan")
    power = rings(height, width).mean(plane)[band.inside]
    if not (np.isfinite(power) & (power > 0)).all():
        return float("nan")
    return float(band.estimate(power[None], estimator)[0])


def exponent_of_lags(
    covariance: ArrayLike | Tensor,
    edges: str = "sine",
    low: float = 0.0,
    high: float = checks.NYQUIST,
    estimator: str = "octave",
) -> float:
    """Exponent that maps cut from a stationary field of this covariance are expected to have.

    Args:
        covariance: (2H, 2W), lags in FFT order, see
            :func:`natstats.theory.covariances.power_of_lags`.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        low: lowest frequency of the band, cycles/pixel.
        high: highest frequency of the band, cycles/pixel.
        estimator: one of :data:`natstats.fits.estimators.ESTIMATORS`.

    Returns:
        As :func:`exponent_of_power`.

    Raises:
        UsageError: an argument is out of range.

    >>> white = np.zeros((32, 32))
    >>> white[0, 0] = 1.0
    >>> round(exponent_of_lags(white), 2) + 0.0
    0.0
    """
    lags = (
        covariance
        if isinstance(covariance, Tensor)
        else torch.from_numpy(as_array("covariance", covariance))
    )
    return exponent_of_power(power_of_lags(lags, edges).cpu().numpy(), edges, low, high, estimator)

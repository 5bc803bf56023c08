"""How the spectrum of a layer would move with other images, ring by ring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from natstats.fits.bands import band_of
from natstats.fits.exponents import group_power
from natstats.fits.held_bands import NOWHERE, held_band
from natstats.fits.intervals import (
    FEWEST_GROUPS,
    effective_dof,
    jackknife_deviations,
    leave_one_out,
)
from natstats.fits.options import FitOptions
from natstats.fits.records import LayerFit
from natstats.spectra.records import LayerSpectrum

__all__ = ["ShapeIntervals", "intervals_of_shape"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ShapeIntervals:
    """The mean spectrum of a layer with intervals that say what its shape owes to the images.

    Images differ in contrast, and that moves all rings together. A spectrum is drawn against
    another one, or against its fit, so the common part is taken out first.

    Attributes:
        power: mean power that was fitted, (n_rings,).
        shape: half the width of the interval of log power, after its mean level in the band is
            taken out, (n_rings,); NaN where there is none.
        left: the same for log power less the fit, whose exponent moves with the images, too,
            (n_rings,).
    """

    power: Array
    shape: Array
    left: Array


def intervals_of_shape(
    measured: LayerSpectrum, fit: LayerFit, options: FitOptions
) -> ShapeIntervals:
    """Intervals of the mean power in every ring, by the jackknife over groups of images.

    Args:
        measured: the layer.
        fit: its fit.
        options: of the fit.

    Returns:
        What to draw; without intervals where there are fewer than three groups, or no fit, or where
        a ring of the band has no power without one of the groups.

    Raises:
        UsageError: normalised power is asked for and was not measured.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> found = intervals_of_shape(run.spectra[0], run.fits.layers[0], run.options)
    >>> bool((found.left < found.shape).mean() > 0.5)
    True
    """
    spectrum = measured.spectrum
    filled = spectrum.count > 0
    power = group_power(spectrum, options.normalize)[filled]
    count = spectrum.count[filled].astype(np.float64)
    none = np.full(spectrum.n_rings, np.nan)
    whole = power.sum(0) / count.sum() if len(count) else none
    if len(count) < FEWEST_GROUPS or not np.isfinite(fit.exponent):
        return ShapeIntervals(whole, none, none)
    held = held_band(options.band, spectrum, measured.span) or NOWHERE
    band = band_of(spectrum.height, spectrum.width, spectrum.edges, *held)
    left_out = leave_one_out(power, count)
    good = (left_out > 0).all(axis=0) & (whole > 0)
    if not good[band.inside].all():
        return ShapeIntervals(whole, none, none)
    deviations = np.full(power.shape, np.nan)
    deviations[:, good] = jackknife_deviations(
        np.log(whole[good]), np.log(left_out[:, good]), count, options.stopped
    )
    weights = band.octave_weights / band.octave_weights.sum()
    shape = deviations - (deviations[:, band.inside] @ weights)[:, None]
    # Log power of the fit falls by the change of the exponent times log frequency.
    log_frequency = np.log(spectrum.frequency)
    about = log_frequency - weights @ log_frequency[band.inside]
    left = shape + fit.deviations[filled][:, None] * about
    return ShapeIntervals(whole, _reach(shape, options.level), _reach(left, options.level))


def _reach(deviations: Array, level: float) -> Array:
    """Half the width of the interval by Student's t, (g, n) -> (n,)."""
    error = np.sqrt(np.sum(deviations**2, axis=0))
    return np.asarray(special.stdtrit(effective_dof(deviations), 0.5 + level / 2) * error)

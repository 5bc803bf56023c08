"""The exponents of layers by every estimator and in other bands, without what a full fit adds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.fits.band_choice import ImageBand, band_text
from natstats.fits.bands import Band, band_of
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.held_bands import common_band, held_band
from natstats.fits.intervals import FEWEST_GROUPS, jackknife_deviations, leave_one_out
from natstats.fits.options import FitOptions
from natstats.fits.sample import group_power
from natstats.spectra.expected import EXPONENT_RANGE
from natstats.spectra.records import LayerSpectrum

__all__ = ["Exponents", "alternative_exponents"]

Array = NDArray[np.float64]
Ends = tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Exponents:
    """The exponents of layers by one estimator in one band.

    Attributes:
        estimator: its name.
        band: the band in words.
        exponents: NaN for layers that have none there, or one that is beyond range, (L,).
        deviations: as each group of images is left out, (G, L).
    """

    estimator: str
    band: str
    exponents: Array
    deviations: Array


def alternative_exponents(
    layers: Sequence[LayerSpectrum], options: FitOptions
) -> Iterator[Exponents]:
    """Exponents in the band that was asked for and in three others, by every estimator.

    The one that the options ask for comes first. Of the others, two lack the top or the bottom
    octave of the rings of every layer's own map; the third is the common band, the widest in
    cycles/image that the layers hold.
    """
    estimators = [options.estimator, *(one for one in ESTIMATORS if one != options.estimator)]
    for name, ends in _bands(layers, options).items():
        fitted = [_fitted(one, end, options) for one, end in zip(layers, ends, strict=True)]
        for estimator in estimators:
            found = [by_estimator[estimator] for by_estimator in fitted]
            yield Exponents(
                estimator,
                name,
                np.array([exponent for exponent, _ in found]),
                np.stack([deviations for _, deviations in found], axis=1),
            )


def _bands(layers: Sequence[LayerSpectrum], options: FitOptions) -> dict[str, list[Ends]]:
    """Name and ends for every layer, cycles/pixel; None where a map does not hold the band."""
    whole = [held_band(options.band, one.spectrum, one.span) for one in layers]
    is_whole = isinstance(options.band, tuple) and options.band == FitOptions.band
    bands = {"whole" if is_whole else band_text(options.band): whole}
    outermost = [_rings(one, ends) for one, ends in zip(layers, whole, strict=True)]
    bands["without the top octave"] = [end and (end[0], end[1] / 2) for end in outermost]
    bands["without the bottom octave"] = [end and (2 * end[0], end[1]) for end in outermost]
    common = common_band(layers)
    if common is not None:
        band = ImageBand(*common)
        bands[band_text(band)] = [held_band(band, one.spectrum, one.span) for one in layers]
    return bands


def _rings(measured: LayerSpectrum, ends: Ends) -> Ends:
    """The frequencies of the outermost rings in a band; None where there is no ring."""
    if ends is None:
        return None
    frequency = measured.spectrum.frequency
    inside = frequency[(frequency >= ends[0] - 1e-9) & (frequency <= ends[1] + 1e-9)]
    return (float(inside[0]), float(inside[-1])) if len(inside) else None


def _fitted(
    measured: LayerSpectrum, ends: Ends, options: FitOptions
) -> dict[str, tuple[float, Array]]:
    """Exponent and deviations (G,) by every estimator; NaN where there is none."""
    spectrum = measured.spectrum
    filled = spectrum.count > 0
    nothing = np.nan, np.full(len(filled), np.nan)
    missing = dict.fromkeys(ESTIMATORS, nothing)
    if ends is None or spectrum.is_constant or filled.sum() < FEWEST_GROUPS:
        return missing
    band = band_of(spectrum.height, spectrum.width, spectrum.edges, *ends)
    if band.n_rings < options.min_rings:
        return missing
    count = spectrum.count[filled].astype(np.float64)
    power = group_power(spectrum, options.normalize)[filled][:, band.inside]
    mean = power.sum(0, keepdims=True) / count.sum()
    rows = np.concatenate([mean, leave_one_out(power, count)])
    if not np.all(rows > 0):
        return missing
    found = {}
    for name in ESTIMATORS:
        exponent, *left = band.estimate(rows, name)
        if exponent in EXPONENT_RANGE or not _is_resolvable(band, float(exponent), name):
            found[name] = nothing
            continue
        deviations = np.zeros(len(filled))
        deviations[filled] = jackknife_deviations(exponent, np.array(left), count, options.stopped)
        found[name] = float(exponent), deviations
    return found


def _is_resolvable(band: Band, exponent: float, estimator: str) -> bool:
    corrects = ESTIMATORS[estimator].is_resolvable is not None
    return not corrects or band.is_resolvable(exponent, estimator)

"""How the exponent depends on the choice of the band: fitted again with either end moved inwards.

A power law has one exponent in every band. Where the exponent moves as the lower end of the band is
raised or the upper end lowered, by more than its interval, the number belongs to the band as much
as to the layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.bands import Band
from natstats.fits.held_bands import held_band
from natstats.fits.intervals import effective_dof, jackknife_deviations, leave_one_out, t_reach
from natstats.fits.options import FitOptions
from natstats.fits.records import Fits
from natstats.fits.sample import group_power
from natstats.spectra.expected import EXPONENT_RANGE
from natstats.spectra.records import LayerSpectrum

__all__ = ["SIDES", "sensitivity_frame"]

SIDES = ("low", "high")
"""The end of the band that is moved: the lower one raised, or the upper one lowered."""

STEP = 2 ** (1 / 3)
"""Factor between the ends of one band and the next: a third of an octave."""

FEWEST_RINGS = 4
"""Bands with fewer rings than this are left out."""

Array = NDArray[np.float64]
Size = tuple[int, int, Any]
Ends = tuple[float, float]

COLUMNS = (
    "layer", "call", "depth", "side", "band_low", "band_high", "n_rings", "exponent",
    "exponent_low", "exponent_high",
)  # fmt: skip


def sensitivity_frame(spectra: Sequence[LayerSpectrum], fits: Fits) -> pd.DataFrame:
    """The exponent of every layer in ever narrower bands, by the estimator of the fits.

    The ends move by about a third of an octave, where that takes a ring away, and as long as four
    rings are left (or as many as the fits ask for). Each side begins with the band of the fits.
    Layers without an exponent are left out. Intervals are by the jackknife whatever those of the
    fits are; a bootstrap of every band would take minutes and hardly differ.

    Columns: layer, call, depth, side (see :data:`SIDES`), band_low and band_high (frequencies of
    the outermost rings, cycles/pixel), n_rings, exponent, exponent_low, exponent_high; these three
    NaN where the exponent leaves the table of :mod:`natstats.spectra.expected`.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(64, 32, 32, alpha=2.0)[:, None])
    >>> frame = sensitivity_frame(run.spectra, run.fits)
    >>> frame.n_rings[frame.side == "low"].tolist()
    [16, 15, 14, 13, 12, 11, 9, 7, 4]
    >>> bool(((frame.exponent_low < 2.0) & (2.0 < frame.exponent_high)).mean() > 0.8)
    True
    """
    options, rows = fits.options, []
    bands: dict[tuple[Size, Ends], list[tuple[str, Band]]] = {}  # layers of one size share theirs
    for measured, fit in zip(spectra, fits.layers, strict=True):
        if not np.isfinite(fit.exponent):
            continue
        layer, spectrum = measured.layer, measured.spectrum
        size = spectrum.height, spectrum.width, spectrum.edges
        ends = held_band(options.band, spectrum, measured.span)
        assert ends is not None  # there is an exponent
        if (size, ends) not in bands:
            bands[size, ends] = list(_bands(spectrum.frequency, size, ends, options.min_rings))
        filled = spectrum.count > 0
        power = group_power(spectrum, options.normalize)[filled]
        count = spectrum.count[filled].astype(np.float64)
        rows += [
            (
                layer.name,
                layer.call,
                layer.depth,
                side,
                *spectrum.frequency[band.inside][[0, -1]].tolist(),
                band.n_rings,
                *_exponent(power[:, band.inside], count, band, options),
            )
            for side, band in bands[size, ends]
        ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = [name for name in COLUMNS if name.startswith(("exponent", "band"))]
    return frame.astype(dict.fromkeys(numbers, float))


def _bands(frequency: Array, size: Size, ends: Ends, min_rings: int) -> Iterator[tuple[str, Band]]:
    """Side and band, each side from the widest band to the narrowest."""
    low, high = ends
    inside = frequency[(frequency >= low - 1e-9) & (frequency <= high + 1e-9)]
    fewest = max(FEWEST_RINGS, min_rings)
    n_steps = int(np.log(inside[-1] / inside[0]) / np.log(STEP)) + 1
    for side in SIDES:
        before = 0
        for step in range(n_steps):
            factor = STEP**step
            kept = (
                inside[inside >= inside[0] * factor - 1e-9]
                if side == "low"
                else inside[inside <= inside[-1] / factor + 1e-9]
            )
            if len(kept) in (before, *range(fewest)):
                continue
            before = len(kept)
            yield side, Band(*size, float(kept[0]), float(kept[-1]))


def _exponent(
    power: Array, count: Array, band: Band, options: FitOptions
) -> tuple[float, float, float]:
    """Exponent with the ends of its interval, from group sums in the band, (g, n)."""
    whole = power.sum(0, keepdims=True) / count.sum()
    exponent, *left = band.estimate(
        np.concatenate([whole, leave_one_out(power, count)]), options.estimator
    )
    if exponent in EXPONENT_RANGE:
        return np.nan, np.nan, np.nan
    deviations = jackknife_deviations(exponent, np.array(left), count, options.stopped)
    error = float(np.sqrt(np.sum(deviations**2)))
    reach = t_reach(error, float(effective_dof(deviations)), options.level)
    return float(exponent), float(exponent - reach), float(exponent + reach)

"""What a fit rests on: the power of groups of images in the rings of a band, and how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.fits.bands import Band, band_of
from natstats.fits.estimators import ESTIMATORS, Estimator
from natstats.fits.held_bands import NOWHERE, held_band
from natstats.fits.intervals import (
    FEWEST_GROUPS,
    bootstrap_reach,
    effective_dof,
    jackknife_deviations,
    leave_one_out,
    t_reach,
)
from natstats.fits.options import FitOptions
from natstats.fits.plain_arrays import PlainSpectrum
from natstats.fits.records import LayerFit
from natstats.spectra.expected import EXPONENT_RANGE
from natstats.spectra.records import Spectrum

__all__ = ["FEW_RINGS", "Interval", "Sample", "group_power"]

FEW_RINGS = 4
"""A fit through fewer rings than this is flagged: two of them carry most of the slope."""

FEW_IMAGES = 16
"""An interval from this many images or fewer is flagged: it may be too short."""

FEW_EFFECTIVE = 4.0
"""With fewer effective degrees of freedom than this an interval is flagged."""

LEAST_ERROR = 1e-6
"""A standard error below this is mere rounding: the sample is one image many times over."""

OUTER_SHIFT = 0.1
"""An exponent is flagged if waves three times as long in the field would change it by more."""

Array = NDArray[np.float64]


def group_power(spectrum: Spectrum, normalize: bool) -> Array:
    """Sum of power over the images of each group, (G, n_rings).

    Raises:
        UsageError: normalised power is asked for and was not measured.
    """
    if not normalize:
        return spectrum.power
    if np.isnan(spectrum.normalized).any():
        raise UsageError(
            "normalize: expected spectra measured by natstats 0.2 or newer; these hold no "
            "normalised power"
        )
    return spectrum.normalized


@dataclass(frozen=True, eq=False)
class Sample:
    """What a fit rests on: the power of groups of images in the rings of a band.

    Attributes:
        spectrum: what was measured.
        options: how to fit.
        band: the rings that are fitted, n of them.
        is_held: whether the maps hold the band that was asked for; if not, there are no rings.
        filled: which groups have images, (G,).
        count: images in each of these, (g,).
        power: sum of their power, (g, n).
    """

    spectrum: Spectrum
    options: FitOptions
    band: Band
    is_held: bool
    filled: NDArray[np.bool_]
    count: Array
    power: Array

    @classmethod
    def of(cls, spectrum: Spectrum, options: FitOptions, span: float) -> Sample:
        """Take from a spectrum what the options ask for."""
        held: tuple[float, float] | None
        band: Band
        if isinstance(spectrum, PlainSpectrum):
            held, band = spectrum.held(options.band), spectrum.band(options.band)
        else:
            held = held_band(options.band, spectrum, span)
            band = band_of(spectrum.height, spectrum.width, spectrum.edges, *(held or NOWHERE))
        filled = spectrum.count > 0
        count = spectrum.count[filled].astype(np.float64)
        power = group_power(spectrum, options.normalize)[filled][:, band.inside]
        return cls(spectrum, options, band, held is not None, filled, count, power)

    @property
    def estimator(self) -> Estimator:
        """The one whose exponent heads the table."""
        return ESTIMATORS[self.options.estimator]

    @cached_property
    def mean(self) -> Array:
        """Mean power, (n,)."""
        return np.asarray(self.power.sum(0) / max(self.count.sum(), 1))

    @cached_property
    def left_out(self) -> Array:
        """Mean power without each group, (g, n)."""
        return leave_one_out(self.power, self.count) if len(self.count) > 1 else self.power[:0]

    def estimate(self, power: Array) -> Array:
        """Alpha for each row of ring power, (R, n) -> (R,)."""
        return self.estimator.estimate(self.band, power)

    @cached_property
    def image_exponents(self) -> Array:
        """Alpha of every kept image that has one: power in all rings, and within the table."""
        if self.band.n_rings < self.options.min_rings:
            return np.zeros(0)
        power = self.spectrum.image_power[:, self.band.inside].astype(np.float64)
        good = np.all(np.isfinite(power) & (power > 0), axis=1)
        if self.spectrum.is_constant or not good.any():
            return np.zeros(0)
        found = self.estimate(power[good])
        return found[~np.isin(found, EXPONENT_RANGE)]

    def hindrance(self) -> str:
        """Why there is no exponent; empty where one can be estimated."""
        reasons = (
            (self.spectrum.n_images == 0, "no images"),
            (self.spectrum.is_constant, "constant"),
            (not self.is_held, "band not in this map"),
            (self.band.n_rings < self.options.min_rings, "too few rings in band"),
            (not np.all(self.mean > 0), "no power in a ring"),
            (self.spectrum.n_images < FEWEST_GROUPS, "too few images"),
            (len(self.count) < FEWEST_GROUPS, "too few groups"),
            (not np.all(self.left_out > 0), "power from one group only"),
        )
        return next((flag for is_so, flag in reasons if is_so), "")

    def doubts(self, exponent: float) -> list[str]:
        """What a reader must know of an exponent, before its interval is known."""
        flags = []
        if self.band.n_rings < FEW_RINGS:
            flags.append("few rings")
        if self.spectrum.n_images <= FEW_IMAGES:
            flags.append("few images")
        elif len(self.count) <= FEW_IMAGES:
            flags.append("few groups")
        if self.estimator.is_resolvable is not None:
            name = self.options.estimator
            if not self.band.is_resolvable(exponent, name):
                flags.append("beyond range")
            elif abs(self.band.outer_shift(exponent, name)) > OUTER_SHIFT:
                flags.append("outer scale")
        return flags

    def empty(self, flags: Sequence[str]) -> LayerFit:
        """The fit of a layer without an exponent."""
        nan = float("nan")
        return LayerFit(
            exponent=nan,
            standard_error=nan,
            dof=nan,
            low=nan,
            high=nan,
            by_estimator=dict.fromkeys(ESTIMATORS, nan),
            log_amplitude=nan,
            fitted_power=np.full(self.spectrum.n_rings, np.nan),
            r2=nan,
            curvature=nan,
            curvature_p=nan,
            n_rings=self.band.n_rings,
            n_images=self.spectrum.n_images,
            image_exponents=self.image_exponents,
            deviations=np.full(len(self.filled), np.nan),
            flags=tuple(flags),
        )


@dataclass(frozen=True, eq=False)
class Interval:
    """How sure an exponent is.

    Attributes:
        standard_error: from the groups of images.
        dof: effective degrees of freedom of the standard error.
        reach: half the width of the interval; infinite where the bootstrap gives none.
        deviations: scaled deviations of the groups that have images, (g,).
    """

    standard_error: float
    dof: float
    reach: float
    deviations: Array

    @classmethod
    def of(cls, sample: Sample, exponent: float) -> Interval:
        """The interval of an exponent, in the way that the options ask for."""
        options = sample.options
        left_out = sample.estimate(sample.left_out)
        deviations = jackknife_deviations(exponent, left_out, sample.count, options.stopped)
        error, dof = float(np.sqrt(np.sum(deviations**2))), float(effective_dof(deviations))
        if options.interval == "bootstrap":
            reach = bootstrap_reach(
                sample.power,
                sample.count,
                sample.estimate,
                lambda rows, alpha: sample.estimator.gradient(sample.band, rows, alpha),
                error,
                options.level,
                options.resamples,
            )
        else:
            reach = t_reach(error, dof, options.level)
        return cls(error, dof, reach, deviations)

    def doubts(self) -> list[str]:
        """What a reader must know of the interval."""
        if self.standard_error < LEAST_ERROR:
            return ["images do not differ"]
        return ["few images decide"] if self.dof < FEW_EFFECTIVE else []

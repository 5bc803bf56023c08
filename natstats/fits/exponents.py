"""From the spectra of layers to their exponents, each with an interval.

The exponent is that of the mean spectrum of all images (:mod:`natstats.fits.estimators`). Its
interval comes from the groups of images (:mod:`natstats.fits.intervals`), which are left out of all
layers together: that gives the covariance of the layers, which the test of the law needs. For the
exponents of single images see :mod:`natstats.fits.image_spread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.fits.bands import Band, band_of
from natstats.fits.estimators import ESTIMATORS, Estimator
from natstats.fits.held_bands import NOWHERE, held_band
from natstats.fits.intervals import (
    FEWEST_GROUPS,
    STOPPED,
    bootstrap_reach,
    effective_dof,
    jackknife_deviations,
    leave_one_out,
    t_reach,
    two_sided_p,
)
from natstats.fits.options import FitOptions
from natstats.fits.records import Fits, LayerFit
from natstats.spectra.expected import EXPONENT_RANGE
from natstats.spectra.records import LayerSpectrum, Spectrum

__all__ = ["exponent_and_deviations", "fit_layers", "fit_spectrum", "group_power"]

FEW_RINGS = 4
"""A fit through fewer rings than this is flagged: two of them carry most of the slope."""

FEW_IMAGES = 16
"""An interval from this many images or fewer is flagged: it may be too short."""

FEW_EFFECTIVE = 4.0
"""With fewer effective degrees of freedom than this an interval is flagged."""

LEAST_ERROR = 1e-6
"""A smaller standard error is that of rounding: the same image many times over."""

OUTER_SHIFT = 0.1
"""An exponent is flagged that would change by more if the field had waves three times as long."""

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
class _Sample:
    """What a fit rests on: the power of groups of images in the rings of a band.

    Attributes:
        spectrum: what was measured.
        options: how to fit.
        band: the rings that are fitted, n of them.
        is_held: whether the maps hold the band that was asked for; without, there are no rings.
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
    def of(cls, spectrum: Spectrum, options: FitOptions, span: float) -> _Sample:
        """Take from a spectrum what the options ask for."""
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
class _Interval:
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
    def of(cls, sample: _Sample, exponent: float) -> _Interval:
        """The interval of an exponent, in the way that the options ask for."""
        options = sample.options
        deviations = jackknife_deviations(exponent, sample.estimate(sample.left_out), sample.count)
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
        if options.stopped:
            reach *= STOPPED
        return cls(error, dof, reach, deviations)

    def doubts(self) -> list[str]:
        """What a reader must know of the interval."""
        if self.standard_error < LEAST_ERROR:
            return ["images do not differ"]
        return ["few images decide"] if self.dof < FEW_EFFECTIVE else []


def _curvature(sample: _Sample) -> tuple[float, float]:
    """Coefficient of (ln f)^2 in what the law leaves, and the p of the test that it is zero."""
    band = sample.band
    if band.n_rings < 3:
        return np.nan, np.nan
    rows = np.concatenate([sample.mean[None], sample.left_out])
    values = band.curvature(np.log(rows), band.estimate(rows, "octave"))
    deviations = jackknife_deviations(values[0], values[1:], sample.count)
    error = float(np.sqrt(np.sum(deviations**2)))
    if not error > 0:
        return float(values[0]), np.nan
    dof = float(effective_dof(deviations))
    return float(values[0]), two_sided_p(values[0] / error, dof)


def _fitted(sample: _Sample, exponent: float) -> tuple[float, float, Array]:
    """Log amplitude, R^2 and the power that the fit expects at every ring of the map."""
    band, log_power = sample.band, np.log(sample.mean)
    shape = sample.estimator.log_shape(band, exponent)
    weights = band.octave_weights / band.octave_weights.sum()
    log_amplitude = float(weights @ (log_power - shape))
    residual = log_power - shape - log_amplitude
    total = log_power - weights @ log_power
    fitted = np.full(sample.spectrum.n_rings, np.nan)
    fitted[band.inside] = np.exp(shape + log_amplitude)
    return log_amplitude, float(1 - (weights @ residual**2) / (weights @ total**2)), fitted


def fit_spectrum(
    spectrum: Spectrum,
    options: FitOptions | None = None,
    span: float = 1.0,
    *,
    is_brief: bool = False,
) -> LayerFit:
    """Fit the exponent of one layer.

    Args:
        spectrum: what was measured.
        options: band, estimator, interval and level.
        span: share of the image that the maps stand for, to which a band in cycles/image
            refers, see :mod:`natstats.fits.held_bands`.
        is_brief: leave out what only describes the fit: other estimators, amplitude, R^2,
            curvature and the exponents of single images are NaN or empty. The law of many networks
            has no use for them, and they take most of the time.

    Returns:
        The fit. There is never an exponent without an interval: where either cannot be had both
        are NaN, with a flag that says why.

    Raises:
        UsageError: normalised power is asked for and was not measured.

    >>> import natstats, torch
    >>> fields = natstats.power_law_fields(64, 32, 32, alpha=2.0, seed=0)
    >>> accumulator = natstats.SpectrumAccumulator(32, 32)
    >>> accumulator.update(torch.from_numpy(fields[:, None]))
    >>> fit = fit_spectrum(accumulator.compute())
    >>> fit.low < 2.0 < fit.high
    True
    """
    if is_brief:
        spectrum = replace(spectrum, image_power=spectrum.image_power[:0])
    sample = _Sample.of(spectrum, options or FitOptions(), span)
    n_odd = spectrum.n_nonfinite
    flags = [f"non-finite ({n_odd} images left out)"] if n_odd else []
    hindrance = sample.hindrance()
    if hindrance:
        return sample.empty([*flags, hindrance])
    by_estimator = {
        name: float("nan")
        if is_brief and one is not sample.estimator
        else float(one.estimate(sample.band, sample.mean[None])[0])
        for name, one in ESTIMATORS.items()
    }
    exponent = by_estimator[sample.options.estimator]
    if exponent in EXPONENT_RANGE:
        return sample.empty([*flags, "beyond range"])
    interval = _Interval.of(sample, exponent)
    flags += [*sample.doubts(exponent), *interval.doubts()]
    if not np.isfinite(interval.reach):
        return sample.empty([*flags, "too few groups for the bootstrap"])
    curvature = curvature_p = log_amplitude = r2 = float("nan")
    fitted = np.full(spectrum.n_rings, np.nan)
    if not is_brief:
        curvature, curvature_p = _curvature(sample)
        log_amplitude, r2, fitted = _fitted(sample, exponent)
    deviations = np.zeros(len(sample.filled))
    deviations[sample.filled] = interval.deviations
    return LayerFit(
        exponent=exponent,
        standard_error=interval.standard_error,
        dof=interval.dof,
        low=exponent - interval.reach,
        high=exponent + interval.reach,
        by_estimator=by_estimator,
        log_amplitude=log_amplitude,
        fitted_power=fitted,
        r2=r2,
        curvature=curvature,
        curvature_p=curvature_p,
        n_rings=sample.band.n_rings,
        n_images=spectrum.n_images,
        image_exponents=sample.image_exponents,
        deviations=deviations,
        flags=tuple(flags),
    )


def exponent_and_deviations(
    spectrum: Spectrum, options: FitOptions, span: float = 1.0
) -> tuple[float, Array]:
    """The exponent of :func:`fit_spectrum` and its deviations, without what says how good it is.

    Args:
        spectrum: what was measured or predicted.
        options: how to fit.
        span: share of the image that the maps stand for.

    Returns:
        Alpha, NaN where there is none, and how it deviates as each group is left out, (G,).

    Raises:
        UsageError: normalised power is asked for and was not measured.
    """
    sample = _Sample.of(spectrum, options, span)
    deviations = np.zeros(len(sample.filled))
    if sample.hindrance():
        return np.nan, deviations
    found = sample.estimate(np.concatenate([sample.mean[None], sample.left_out]))
    if found[0] in EXPONENT_RANGE:
        return np.nan, deviations
    deviations[sample.filled] = jackknife_deviations(found[0], found[1:], sample.count)
    return float(found[0]), deviations


def fit_layers(
    layers: Sequence[LayerSpectrum], options: FitOptions | None = None, *, is_brief: bool = False
) -> Fits:
    """Fit every layer of a run, briefly where only the exponents are asked for.

    Raises:
        UsageError: the layers were not summed over the same groups of images.
    """
    options = options or FitOptions()
    groups = {len(layer.spectrum.count) for layer in layers}
    if len(groups) > 1:
        raise UsageError(f"layers: expected one number of groups; got {sorted(groups)}")
    fits = [
        fit_spectrum(layer.spectrum, options, layer.span, is_brief=is_brief) for layer in layers
    ]
    return Fits(options, fits)

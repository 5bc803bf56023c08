"""From the spectra of layers to their exponents, each with an interval.

The exponent belongs to the mean spectrum of all images (:mod:`natstats.fits.estimators`); its
interval comes from the groups of images (:mod:`natstats.fits.intervals`), jointly over all layers,
which gives the covariance that the test of the law needs. The exponents of single images are
another matter, see :mod:`natstats.fits.image_spread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natstats.errors import UsageError
from natstats.fits.estimators import Band, band_of
from natstats.fits.intervals import (
    FEWEST_GROUPS,
    bootstrap_reach,
    effective_dof,
    jackknife_deviations,
    leave_one_out,
    t_reach,
)
from natstats.fits.options import ESTIMATORS, FitOptions
from natstats.spectra.expected import EXPONENT_RANGE
from natstats.spectra.records import LayerSpectrum, Spectrum

__all__ = ["Fits", "LayerFit", "fit_layers", "fit_spectrum", "group_power"]

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


@dataclass(frozen=True, eq=False)
class LayerFit:
    """The exponent of one layer's mean spectrum. NaN wherever a number could not be had.

    Attributes:
        exponent: alpha by the chosen estimator.
        standard_error: of `exponent`, from the groups of images.
        dof: effective degrees of freedom of the standard error.
        low: lower end of the interval.
        high: upper end of the interval.
        by_estimator: alpha by every estimator.
        log_amplitude: log A of A T_b(alpha) (of A f^-alpha for ``ols``), by the octave-weighted
            mean of what the shape leaves of log power.
        fitted_power: what the fit expects at every ring, NaN outside the band, (n_rings,).
        r2: share of the octave-weighted variance of log power that the fit explains.
        curvature: coefficient of (ln f)^2 in what the fit leaves of log power.
        curvature_p: of the test that `curvature` is zero.
        n_rings: rings in the band.
        n_images: images in the mean.
        image_exponents: alpha of single images, for those that were kept and can be fitted.
        deviations: of the exponent as each group is left out, scaled so that their squares sum to
            the squared standard error, (G,); 0 for a group without images.
        flags: what a reader must know, in words.
    """

    exponent: float
    standard_error: float
    dof: float
    low: float
    high: float
    by_estimator: dict[str, float]
    log_amplitude: float
    fitted_power: Array
    r2: float
    curvature: float
    curvature_p: float
    n_rings: int
    n_images: int
    image_exponents: Array
    deviations: Array
    flags: tuple[str, ...] = ()

    @property
    def image_mean(self) -> float:
        """Mean of the images' own exponents, three or more; not that of the mean spectrum."""
        several = len(self.image_exponents) >= FEWEST_GROUPS
        return float(np.mean(self.image_exponents)) if several else np.nan

    @property
    def image_sd(self) -> float:
        """Standard deviation of the images' own exponents."""
        several = len(self.image_exponents) >= FEWEST_GROUPS
        return float(np.std(self.image_exponents, ddof=1)) if several else np.nan


@dataclass(frozen=True, eq=False)
class Fits:
    """The fits of all layers of a run, and how they vary together."""

    options: FitOptions
    layers: list[LayerFit] = field(default_factory=list)

    @property
    def exponents(self) -> Array:
        """The exponent of every layer, (L,)."""
        return np.array([fit.exponent for fit in self.layers])

    @property
    def deviations(self) -> Array:
        """Scaled deviations of all layers as each group is left out, (G, L); NaN without a fit."""
        return np.stack([fit.deviations for fit in self.layers], axis=1)

    @property
    def covariance(self) -> Array:
        """Covariance of the exponents, from groups left out jointly over layers, (L, L)."""
        deviations = np.nan_to_num(self.deviations)
        return np.asarray(deviations.T @ deviations)


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


def _empty(spectrum: Spectrum, n_rings: int, flags: list[str], images: Array) -> LayerFit:
    nan = float("nan")
    return LayerFit(
        exponent=nan,
        standard_error=nan,
        dof=nan,
        low=nan,
        high=nan,
        by_estimator=dict.fromkeys(ESTIMATORS, nan),
        log_amplitude=nan,
        fitted_power=np.full(spectrum.n_rings, np.nan),
        r2=nan,
        curvature=nan,
        curvature_p=nan,
        n_rings=n_rings,
        n_images=spectrum.n_images,
        image_exponents=images,
        deviations=np.full(len(spectrum.count), np.nan),
        flags=tuple(flags),
    )


def _image_exponents(spectrum: Spectrum, band: Band, estimator: str) -> Array:
    """Alpha of every kept image that has one: power in all rings, and within the table."""
    power = spectrum.image_power[:, band.inside].astype(np.float64)
    good = np.all(np.isfinite(power) & (power > 0), axis=1)
    if spectrum.is_constant or not good.any():
        return np.zeros(0)
    found = band.estimate(power[good], estimator)
    return found[~np.isin(found, EXPONENT_RANGE)]


def _curvature(band: Band, whole: Array, left: Array, count: Array) -> tuple[float, float]:
    """Coefficient of (ln f)^2 in what the law leaves, and the p of the test that it is zero."""
    if band.n_rings < 3:
        return np.nan, np.nan
    rows = np.concatenate([whole[None], left])
    values = band.curvature(np.log(rows), band.estimate(rows, "octave"))
    deviations = jackknife_deviations(values[0], values[1:], count)
    error = float(np.sqrt(np.sum(deviations**2)))
    if not error > 0:
        return float(values[0]), np.nan
    dof = float(effective_dof(deviations))
    return float(values[0]), float(2 * stats.t.sf(abs(values[0]) / error, dof))


def fit_spectrum(spectrum: Spectrum, options: FitOptions | None = None) -> LayerFit:
    """Fit the exponent of one layer.

    Args:
        spectrum: what was measured.
        options: band, estimator, interval and level.

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
    options = options or FitOptions()
    flags = []
    if spectrum.n_nonfinite:
        flags.append(f"non-finite ({spectrum.n_nonfinite} images left out)")
    band = band_of(spectrum.height, spectrum.width, spectrum.edges, *options.band)
    filled = spectrum.count > 0
    count = spectrum.count[filled].astype(np.float64)
    power = group_power(spectrum, options.normalize)[filled][:, band.inside]
    mean = power.sum(0) / max(count.sum(), 1)
    too_few_rings = band.n_rings < options.min_rings
    left = leave_one_out(power, count) if len(count) > 1 else power[:0]
    for hindrance, flag in (
        (spectrum.n_images == 0, "no images"),
        (spectrum.is_constant, "constant"),
        (too_few_rings, "too few rings in band"),
        (not np.all(mean > 0), "no power in a ring"),
        (spectrum.n_images < FEWEST_GROUPS, "too few images"),
        (len(count) < FEWEST_GROUPS, "too few groups"),
        (not np.all(left > 0), "power from one group only"),
    ):
        if hindrance:
            images = np.zeros(0)
            if not too_few_rings:
                images = _image_exponents(spectrum, band, options.estimator)
            return _empty(spectrum, band.n_rings, [*flags, flag], images)

    by_estimator = {name: float(band.estimate(mean[None], name)[0]) for name in ESTIMATORS}
    exponent = by_estimator[options.estimator]
    images = _image_exponents(spectrum, band, options.estimator)
    if exponent in EXPONENT_RANGE:
        return _empty(spectrum, band.n_rings, [*flags, "beyond range"], images)
    if band.n_rings < FEW_RINGS:
        flags.append("few rings")
    if spectrum.n_images <= FEW_IMAGES:
        flags.append("few images")
    elif len(count) <= FEW_IMAGES:
        flags.append("few groups")
    if options.estimator != "ols":
        if not band.is_resolvable(exponent, options.estimator):
            flags.append("beyond range")
        elif abs(band.outer_shift(exponent, options.estimator)) > OUTER_SHIFT:
            flags.append("outer scale")

    deviations = jackknife_deviations(exponent, band.estimate(left, options.estimator), count)
    error, dof = float(np.sqrt(np.sum(deviations**2))), float(effective_dof(deviations))
    if error < LEAST_ERROR:
        flags.append("images do not differ")
    elif dof < FEW_EFFECTIVE:
        flags.append("few images decide")
    if options.interval == "bootstrap":
        reach = bootstrap_reach(
            power,
            count,
            lambda rows: band.estimate(rows, options.estimator),
            lambda rows, alpha: band.gradient(rows, alpha, options.estimator),
            error,
            options.level,
            options.resamples,
        )
    else:
        reach = t_reach(error, dof, options.level)
    if not np.isfinite(reach):
        flags.append("too few groups for the bootstrap")
        return _empty(spectrum, band.n_rings, flags, images)
    curvature, curvature_p = _curvature(band, mean, left, count)

    log_power = np.log(mean)
    shape = (
        -exponent * band.log_frequency
        if options.estimator == "ols"
        else band.log_expected_power(exponent)
    )
    weights = band.octave_weights / band.octave_weights.sum()
    log_amplitude = float(weights @ (log_power - shape))
    residual = log_power - shape - log_amplitude
    total = log_power - weights @ log_power
    fitted = np.full(spectrum.n_rings, np.nan)
    fitted[band.inside] = np.exp(shape + log_amplitude)
    all_deviations = np.zeros(len(filled))
    all_deviations[filled] = deviations
    return LayerFit(
        exponent=exponent,
        standard_error=error,
        dof=dof,
        low=exponent - reach,
        high=exponent + reach,
        by_estimator=by_estimator,
        log_amplitude=log_amplitude,
        fitted_power=fitted,
        r2=float(1 - (weights @ residual**2) / (weights @ total**2)),
        curvature=curvature,
        curvature_p=curvature_p,
        n_rings=band.n_rings,
        n_images=spectrum.n_images,
        image_exponents=images,
        deviations=all_deviations,
        flags=tuple(flags),
    )


def fit_layers(layers: Sequence[LayerSpectrum], options: FitOptions | None = None) -> Fits:
    """Fit every layer of a run.

    Raises:
        UsageError: the layers were not summed over the same groups of images.
    """
    options = options or FitOptions()
    groups = {len(layer.spectrum.count) for layer in layers}
    if len(groups) > 1:
        raise UsageError(f"layers: expected one number of groups; got {sorted(groups)}")
    return Fits(options, [fit_spectrum(layer.spectrum, options) for layer in layers])

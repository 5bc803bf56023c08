"""From the spectra of layers to their exponents, each with an interval.

The exponent is that of the mean spectrum of all images (:mod:`natstats.fits.estimators`). Its
interval comes from the groups of images (:mod:`natstats.fits.intervals`), which are left out of all
layers together: that gives the covariance of the layers, which the test of the law needs. For the
exponents of single images see :mod:`natstats.fits.image_spread`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from natstats.errors import UsageError
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.intervals import effective_dof, jackknife_deviations, two_sided_p
from natstats.fits.options import FitOptions
from natstats.fits.plain_arrays import arrays_of_layers, spectrum_of_arrays
from natstats.fits.records import Fits, LayerFit
from natstats.fits.sample import FEW_RINGS, Interval, Sample, group_power
from natstats.numbers import counted
from natstats.spectra.edge_names import Edges
from natstats.spectra.expected import EXPONENT_RANGE
from natstats.spectra.records import LayerSpectrum, Spectrum

__all__ = ["FEW_RINGS", "exponent_and_deviations", "fit_layers", "fit_spectrum", "group_power"]

Array = NDArray[np.float64]


def _curvature(sample: Sample) -> tuple[float, float]:
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


def _fitted(sample: Sample, exponent: float) -> tuple[float, float, Array]:
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


@overload
def fit_spectrum(
    spectrum: Spectrum,
    options: FitOptions | None = None,
    span: float = 1.0,
    *,
    is_brief: bool = False,
) -> LayerFit: ...
@overload
def fit_spectrum(
    spectrum: ArrayLike,
    power: ArrayLike,
    options: FitOptions | None = None,
    *,
    size: tuple[int, int] | None = None,
    edges: Edges = "sine",
    n_groups: int | None = None,
    is_brief: bool = False,
) -> LayerFit: ...
def fit_spectrum(  # type: ignore[misc]  # the second argument has two names
    spectrum: Any,
    power: Any = None,
    options: Any = None,
    *,
    span: float = 1.0,
    size: tuple[int, int] | None = None,
    edges: Edges = "sine",
    n_groups: int | None = None,
    is_brief: bool = False,
) -> LayerFit:
    """Fit the exponent of one layer, or of plain arrays.

    A measured spectrum is ``fit_spectrum(spectrum, options, span)``; plain arrays are
    ``fit_spectrum(frequencies, power, options)``.

    Args:
        spectrum: what was measured; or frequencies (R,), rising and above 0.
        power: with frequencies, the power of every image there, (N, R). The images are the sample;
            images with a value that is not finite are left out.
        options: band, estimator, interval and level. A band is in cycles/pixel; by default all
            frequencies are used, whatever their unit.
        span: share of the image that the maps stand for, to which a band in cycles/image
            refers, see :mod:`natstats.fits.held_bands`.
        size: height and width of the maps, pixels, where the frequencies are those of
            :func:`natstats.ring_frequencies`: finite maps and their edges are allowed for then.
            Without it the power law is taken to hold exactly at the frequencies.
        edges: what was done about the edges of these maps.
        n_groups: groups of images, the unit of resampling; by default one for each image, 128 at
            most.
        is_brief: leave out what only describes the fit: other estimators, amplitude, R^2,
            curvature and the exponents of single images are NaN or empty. The law of many networks
            has no use for them, and they take most of the time.

    Returns:
        The fit. There is never an exponent without an interval: where either is missing, both are
        NaN, with a flag that says why.

    Raises:
        UsageError: an array has the wrong shape or values; or normalised power is asked for and
            was not measured.

    >>> import natstats, torch
    >>> fields = natstats.power_law_fields(64, 32, 32, alpha=2.0, seed=0)
    >>> accumulator = natstats.SpectrumAccumulator(32, 32)
    >>> accumulator.update(torch.from_numpy(fields[:, None]))
    >>> fit = fit_spectrum(accumulator.compute())
    >>> fit.low < 2.0 < fit.high
    True
    >>> power = natstats.power_spectrum(torch.from_numpy(fields[:, None])).numpy()
    >>> again = fit_spectrum(natstats.ring_frequencies(32, 32), power, size=(32, 32))
    >>> bool(abs(again.exponent - fit.exponent) < 1e-5)
    True
    """
    if isinstance(spectrum, Spectrum):
        if power is not None:  # the options, when they are not named
            if options is not None:
                span = options
            options = power
        return _fit(spectrum, options or FitOptions(), span, is_brief)
    plain = spectrum_of_arrays(spectrum, power, size, edges, n_groups)
    return _fit(plain, options or FitOptions(), 1.0, is_brief)


def _fit(spectrum: Spectrum, options: FitOptions, span: float, is_brief: bool) -> LayerFit:
    """What :func:`fit_spectrum` makes of a spectrum."""
    if is_brief:
        spectrum = replace(spectrum, image_power=spectrum.image_power[:0])
    sample = Sample.of(spectrum, options, span)
    n_odd = spectrum.n_nonfinite
    flags = [f"non-finite ({counted(n_odd, 'image')} left out)"] if n_odd else []
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
    interval = Interval.of(sample, exponent)
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
    sample = Sample.of(spectrum, options, span)
    deviations = np.zeros(len(sample.filled))
    if sample.hindrance():
        return np.nan, deviations
    found = sample.estimate(np.concatenate([sample.mean[None], sample.left_out]))
    if found[0] in EXPONENT_RANGE:
        return np.nan, deviations
    deviations[sample.filled] = jackknife_deviations(
        found[0], found[1:], sample.count, options.stopped
    )
    return float(found[0]), deviations


@overload
def fit_layers(
    layers: Sequence[LayerSpectrum], options: FitOptions | None = None, *, is_brief: bool = False
) -> Fits: ...
@overload
def fit_layers(
    layers: ArrayLike | Sequence[ArrayLike],
    power: ArrayLike | Sequence[ArrayLike],
    options: FitOptions | None = None,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    edges: Edges = "sine",
    n_groups: int | None = None,
    is_brief: bool = False,
) -> Fits: ...
def fit_layers(  # type: ignore[misc]  # as above
    layers: Any,
    power: Any = None,
    options: Any = None,
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    edges: Edges = "sine",
    n_groups: int | None = None,
    is_brief: bool = False,
) -> Fits:
    """Fit every layer of a run, or plain arrays; groups of images are left out of all together.

    Measured spectra are ``fit_layers(layers, options)``; plain arrays are
    ``fit_layers(frequencies, power, options)``.

    Args:
        layers: what was measured; or the frequencies of every layer, L arrays (R,), or one array
            for all of them.
        power: with frequencies, the power of every layer and image there, L arrays (N, R). The N
            images are the same, and in the same order, in all layers.
        options: how to fit.
        sizes: heights and widths of the maps, L pairs, see :func:`fit_spectrum`.
        edges: what was done about the edges of the maps.
        n_groups: groups of images; by default one for each image, 128 at most.
        is_brief: leave out what only describes the fits.

    Raises:
        UsageError: an array has the wrong shape or values, or the layers were not summed over the
            same groups of images.

    >>> f = np.arange(1, 33) / 64
    >>> noise = np.random.default_rng(0).gamma(20, 1 / 20, (2, 40, 32))
    >>> fits = fit_layers(f, np.stack([f**-2.0, f**-3.0])[:, None] * noise)
    >>> fits.exponents.round(1).tolist()
    [2.0, 3.0]
    """
    if power is not None and not isinstance(power, FitOptions):
        frequencies, powers = arrays_of_layers(layers, power, sizes)
        spectra: list[Spectrum] = [
            spectrum_of_arrays(f, p, None if sizes is None else sizes[place], edges, n_groups)
            for place, (f, p) in enumerate(zip(frequencies, powers, strict=True))
        ]
        spans = [1.0] * len(spectra)
    else:
        options = power if options is None else options
        if isinstance(layers, str | Mapping) or not hasattr(layers, "__iter__"):
            raise UsageError(
                "layers: expected spectra of layers, or frequencies and beside them the power of "
                f"every layer (L, N, R); got a {type(layers).__name__}"
            )
        layers = list(layers)
        for one in layers:
            if not hasattr(one, "spectrum"):
                raise UsageError(
                    "layers: expected spectra of layers (natstats.spectra.LayerSpectrum); got a "
                    f"{type(one).__name__}"
                )
        spectra, spans = [one.spectrum for one in layers], [one.span for one in layers]
    options = options or FitOptions()
    groups = {len(spectrum.count) for spectrum in spectra}
    if len(groups) > 1:
        raise UsageError(f"layers: expected one number of groups; got {sorted(groups)}")
    return Fits(
        options,
        [_fit(one, options, span, is_brief) for one, span in zip(spectra, spans, strict=True)],
    )

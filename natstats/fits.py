"""From the spectrum of a layer to its exponent, with an interval.

Three estimators of alpha read the same ring power S_b at ring frequencies f_b:

* ``octave`` (default): the slope of log S_b against log f_b with weights 1 / f_b, so that every
  octave counts the same, turned into alpha by the slope that the expected spectrum T_b(alpha) of
  :mod:`natstats.expected` has under the same weights. Unbiased for an ideal field of finite size.
* ``whittle``: the alpha that maximises the debiased Gamma likelihood
  -sum_b n_b (S_b / (A T_b(alpha)) + log A T_b(alpha)), n_b members of the ring, A profiled out.
  Efficient when the power law is exact.
* ``ols``: minus the slope of the straight line through (log f_b, log S_b), every ring the same and
  no correction, as most papers do.

Uncertainty comes from the images alone: the groups of images are left out one at a time (the
jackknife for unequal groups of Busing, Meijer and van der Leeden 1999, Statistics and Computing 9),
jointly over all layers, which gives the covariance that the test of the law needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natstats.errors import UsageError
from natstats.expected import EXPONENT_RANGE, ExpectedSpectrum, expected_spectrum
from natstats.options import ESTIMATORS, FitOptions
from natstats.records import LayerSpectrum, Spectrum

__all__ = ["Fits", "LayerFit", "fit_layers", "fit_spectrum"]

FEW_RINGS = 4
"""A fit through fewer rings than this is flagged: two of them carry most of the slope."""

FEW_IMAGES = 16
"""An interval from fewer images than this is flagged: it is known to be too short."""

FEWEST_GROUPS = 3
"""Groups of images without which no interval is given."""

RESOLVABLE = 0.5
"""An exponent is beyond range where the measured slope follows it by less than this factor."""

Array = NDArray[np.float64]

_GRID = np.linspace(*EXPONENT_RANGE, 361)


@dataclass(frozen=True, eq=False)
class LayerFit:
    """The exponent of one layer's mean spectrum. NaN wherever a number could not be had.

    Attributes:
        exponent: alpha by the chosen estimator.
        standard_error: of `exponent`, from the groups of images.
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
            the squared standard error, (G,).
        flags: what a reader must know, in words.
    """

    exponent: float
    standard_error: float
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
        """Mean of the images' own exponents; not the exponent of the mean spectrum."""
        return float(np.mean(self.image_exponents)) if len(self.image_exponents) else np.nan

    @property
    def image_sd(self) -> float:
        """Standard deviation of the images' own exponents."""
        return (
            float(np.std(self.image_exponents, ddof=1)) if len(self.image_exponents) > 1 else np.nan
        )


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
    def n_groups(self) -> int:
        """Groups of images that were left out in turn; 0 when no layer has an interval."""
        used = [int(np.count_nonzero(fit.deviations)) for fit in self.layers if fit.low < fit.high]
        return max(used, default=0)

    @property
    def covariance(self) -> Array:
        """Covariance of the exponents, from groups left out jointly over layers, (L, L)."""
        deviations = np.nan_to_num(np.stack([fit.deviations for fit in self.layers], axis=1))
        return np.asarray(deviations.T @ deviations)


def _inside(spectrum: Spectrum, band: tuple[float, float]) -> NDArray[np.bool_]:
    """Which rings lie in the band, (n_rings,)."""
    # Rounding in a mean radius must not push the last ring out of the full band.
    return np.asarray(
        (spectrum.frequency >= band[0] - 1e-9) & (spectrum.frequency <= band[1] + 1e-9)
    )


class _Band:
    """The rings of one spectrum that lie in the band, with what the estimators need there."""

    def __init__(self, spectrum: Spectrum, inside: NDArray[np.bool_]) -> None:
        self.inside = inside
        self.n_rings = int(self.inside.sum())
        self.log_frequency = np.log(spectrum.frequency[self.inside])
        self.octave_weights = 1.0 / spectrum.frequency[self.inside]
        self.expected: ExpectedSpectrum = expected_spectrum(
            spectrum.height, spectrum.width, spectrum.edges
        )
        self.members = 1.0 * spectrum.n_members[self.inside]
        self.log_expected = self.expected.log_power(_GRID)[:, self.inside]
        self.contrast = self._slope_contrast(self.octave_weights)
        self.calibration = -self.log_expected @ self.contrast

    def _slope_contrast(self, weights: Array) -> Array:
        """Weights v with sum(v y) the weighted slope of y against log frequency."""
        x = self.log_frequency
        centred = x - np.average(x, weights=weights)
        return np.asarray(weights * centred / np.sum(weights * centred**2))

    def estimate(self, power: Array, estimator: str) -> Array:
        """Alpha for each row of ring power in the band, (R, n_rings) -> (R,)."""
        if estimator == "whittle":
            return self._whittle(power)
        log_power = np.log(power)
        if estimator == "ols":
            return np.asarray(-log_power @ self._slope_contrast(np.ones(self.n_rings)))
        # The calibration rises until leakage holds it; np.interp clips to the range beyond.
        return np.interp(-log_power @ self.contrast, *self._rising_calibration())

    def _rising_calibration(self) -> tuple[Array, Array]:
        rising = self.calibration > np.concatenate(
            ([-np.inf], np.maximum.accumulate(self.calibration)[:-1])
        )
        return self.calibration[rising], _GRID[rising]

    def _whittle(self, power: Array) -> Array:
        share = self.members / self.members.sum()
        level = self.log_expected @ share
        shape = self.log_expected - level[:, None]  # log T less its mean: no overflow in 1 / T
        power = power / np.exp(np.log(power) @ share)[:, None]
        # -log likelihood per member with A profiled out, up to constants, on the grid.
        objective = np.log(power @ (share * np.exp(-shape)).T)
        lowest = objective.argmin(axis=1)
        best = np.clip(lowest, 1, len(_GRID) - 2)
        rows = np.arange(len(power))
        left, middle, right = (objective[rows, best + step] for step in (-1, 0, 1))
        bend = left - 2 * middle + right
        shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
        refined = _GRID[best] + np.clip(shift, -1, 1) * (_GRID[1] - _GRID[0])
        return np.asarray(np.where(lowest == best, refined, _GRID[lowest]))

    def is_resolvable(self, alpha: float) -> bool:
        """True where the measured slope still follows alpha."""
        follows = np.gradient(self.calibration, _GRID)
        inside = EXPONENT_RANGE[0] < alpha < EXPONENT_RANGE[1]
        return inside and float(np.interp(alpha, _GRID, follows)) >= RESOLVABLE

    def curvature(self, log_power: Array, alpha: Array) -> Array:
        """Coefficient of (ln f)^2 in log S - log T(alpha), octave-weighted, (R, n) -> (R,)."""
        residual = log_power - self.expected.log_power(alpha)[..., self.inside]
        x = self.log_frequency - np.average(self.log_frequency, weights=self.octave_weights)
        root = np.sqrt(self.octave_weights)
        basis = np.stack([np.ones_like(x), x, x**2], axis=1) * root[:, None]
        return np.asarray((np.linalg.pinv(basis)[2] * root) @ residual.T)


def _leave_one_out(spectrum: Spectrum) -> tuple[Array, Array]:
    """Mean power without each non-empty group, (g, n_rings), and the groups' sizes, (G,)."""
    count = spectrum.count.astype(np.float64)
    filled = count > 0
    total, n_images = spectrum.power.sum(0), count.sum()
    left = (total - spectrum.power[filled]) / (n_images - count[filled])[:, None]
    return left, count


def _deviations(whole: float, left_out: Array, count: Array) -> Array:
    """Scaled jackknife deviations of unequal groups (Busing et al. 1999), (G,), 0 where empty."""
    filled = count > 0
    share = count[filled] / count.sum()
    centre = len(share) * whole - np.sum((1 - share) * left_out)
    pseudo = whole / share - (1 / share - 1) * left_out
    deviations = np.zeros(len(count))
    deviations[filled] = (pseudo - centre) / np.sqrt(len(share) * (1 / share - 1))
    return deviations


def _empty(spectrum: Spectrum, n_rings: int, flags: list[str]) -> LayerFit:
    nan = float("nan")
    return LayerFit(
        exponent=nan,
        standard_error=nan,
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
        image_exponents=np.zeros(0),
        deviations=np.full(len(spectrum.count), np.nan),
        flags=tuple(flags),
    )


def _resampled(
    spectrum: Spectrum, band: _Band, options: FitOptions, whole: tuple[float, float]
) -> dict[str, Any]:
    """Interval of the exponent and test of the curvature; `whole` is both from all images."""
    nan = float("nan")
    deviations = np.full(len(spectrum.count), np.nan)
    result = {"standard_error": nan, "low": nan, "high": nan, "curvature_p": nan}
    n_groups = int(np.count_nonzero(spectrum.count))
    if n_groups < FEWEST_GROUPS or whole[0] in EXPONENT_RANGE:
        return result | {"deviations": deviations}
    left, count = _leave_one_out(spectrum)
    left = left[:, band.inside]
    if not np.all(left > 0):
        return result | {"deviations": deviations}
    exponents = band.estimate(left, options.estimator)
    deviations = _deviations(whole[0], exponents, count)
    error = float(np.sqrt(np.sum(deviations**2)))
    reach = float(stats.t.ppf(0.5 + options.level / 2, n_groups - 1)) * error
    if band.n_rings > 2:
        curvatures = band.curvature(np.log(left), band.estimate(left, "octave"))
        spread = float(np.sqrt(np.sum(_deviations(whole[1], curvatures, count) ** 2)))
        if spread > 0:
            result["curvature_p"] = float(2 * stats.t.sf(abs(whole[1]) / spread, n_groups - 1))
    return result | {
        "standard_error": error,
        "low": whole[0] - reach,
        "high": whole[0] + reach,
        "deviations": deviations,
    }


def _image_exponents(spectrum: Spectrum, band: _Band, estimator: str) -> Array:
    """Alpha of every kept image whose power is positive in all rings of the band."""
    power = spectrum.image_power[:, band.inside].astype(np.float64)
    good = np.all(np.isfinite(power) & (power > 0), axis=1)
    return band.estimate(power[good], estimator) if good.any() else np.zeros(0)


def fit_spectrum(spectrum: Spectrum, options: FitOptions | None = None) -> LayerFit:
    """Fit the exponent of one layer.

    Args:
        spectrum: what was measured.
        options: band, estimator and level.

    Returns:
        The fit; its exponent is NaN, with a flag that says why, when there is nothing to fit.

    >>> import natstats, torch
    >>> fields = natstats.power_law_fields(64, 32, 32, alpha=2.0, seed=1)
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
    inside = _inside(spectrum, options.band)
    power = spectrum.mean_power[inside]
    for hindrance, flag in (
        (spectrum.n_images == 0, "no images"),
        (spectrum.is_constant, "constant"),
        (len(power) < options.min_rings, "too few rings in band"),
        (not np.all(power > 0), "no power in a ring"),
    ):
        if hindrance:
            return _empty(spectrum, len(power), [*flags, flag])
    band = _Band(spectrum, inside)

    by_estimator = {name: float(band.estimate(power[None], name)[0]) for name in ESTIMATORS}
    exponent = by_estimator[options.estimator]
    if band.n_rings < FEW_RINGS:
        flags.append("few rings")
    if spectrum.n_images < FEW_IMAGES:
        flags.append("few images")
    if options.estimator != "ols" and not band.is_resolvable(exponent):
        flags.append("beyond range")

    log_power = np.log(power)
    shape = (
        -exponent * band.log_frequency
        if options.estimator == "ols"
        else band.expected.log_power(exponent)[band.inside]
    )
    weights = band.octave_weights / band.octave_weights.sum()
    log_amplitude = float(weights @ (log_power - shape))
    residual = log_power - shape - log_amplitude
    total = log_power - weights @ log_power
    fitted = np.full(spectrum.n_rings, np.nan)
    fitted[band.inside] = np.exp(shape + log_amplitude)

    curvature = float("nan")
    if band.n_rings > 2:
        octave = np.array([by_estimator["octave"]])
        curvature = float(band.curvature(log_power[None], octave)[0])
    return LayerFit(
        exponent=exponent,
        by_estimator=by_estimator,
        log_amplitude=log_amplitude,
        fitted_power=fitted,
        r2=float(1 - (weights @ residual**2) / (weights @ total**2)),
        curvature=curvature,
        n_rings=band.n_rings,
        n_images=spectrum.n_images,
        image_exponents=_image_exponents(spectrum, band, options.estimator),
        flags=tuple(flags),
        **_resampled(spectrum, band, options, (exponent, curvature)),
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

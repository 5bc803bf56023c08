"""How the exponents of single images spread: mean, sd and quantiles, all with intervals.

The exponent of the mean spectrum is not the mean of the images' exponents. A sum of power laws of
different exponents is no power law: the steepest dominate at low frequency, the shallowest at high.
Images of equal variance with exponents from N(2, 0.3^2), on maps of 28 x 28 pixels, without noise:

>>> from natstats.fits.bands import band_of
>>> from natstats.spectra.expected import expected_spectrum
>>> from natstats.spectra.frequencies import rings
>>> node, weight = np.polynomial.hermite_e.hermegauss(40)
>>> power = np.exp(expected_spectrum(28, 28).log_power(2 + 0.3 * node))
>>> band = band_of(28, 28, "sine", 0.0, 0.5)
>>> def of_the_mean(level, estimator="octave"):
...     mean = (weight / weight.sum()) @ (power / level[:, None])
...     return round(float(band.estimate(mean[None], estimator)[0]), 2)
>>> variance = np.average(power, axis=1, weights=rings(28, 28).n_members)
>>> [of_the_mean(variance, name) for name in ("octave", "whittle", "ols")]
[2.0, 1.95, 2.01]

So the exponent of the mean spectrum depends on how the frequencies are weighted, and even more on
how the power of images depends on their exponent. If they all have the same power in the lowest
ring, or in the highest, in place of the same variance, it is

>>> of_the_mean(power[:, 0]), of_the_mean(power[:, -1])
(1.9, 2.15)

while the mean of the images' exponents is 2 in all of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from natstats.fits.intervals import t_reach
from natstats.fits.records import Fits
from natstats.spectra.records import LayerSpectrum

__all__ = ["QUANTILES", "image_exponents_frame", "quantile_ranks", "sd_interval"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""The quantiles of the exponents of single images that are given."""

Array = NDArray[np.float64]


def image_exponents_frame(spectra: Sequence[LayerSpectrum], fits: Fits) -> pd.DataFrame:
    """The distribution of the single images' exponents, one row per layer.

    Columns: layer, call, depth, n (images with an exponent), and each with its interval, as name,
    name_low, name_high: mean (Student's t), sd (:func:`sd_interval`), and the quantiles q05, q25,
    q50, q75, q95 (:func:`quantile_ranks`). A number without an interval is NaN, too.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(64, 16, 16, alpha=2.0)[:, None])
    >>> frame = image_exponents_frame(run.spectra, run.fits)
    >>> frame.n.tolist(), bool(frame.q50_low[0] < 2.0 < frame.q50_high[0])
    ([64], True)
    >>> bool(frame.q05.isna()[0])  # its interval takes 72 images
    True
    """
    rows = []
    for measured, fit in zip(spectra, fits.layers, strict=True):
        layer, level = measured.layer, fits.options.level
        values = np.sort(fit.image_exponents)
        estimates = {"mean": _mean(values, level), "sd": sd_interval(values, level)}
        for quantile in QUANTILES:
            estimates[f"q{round(100 * quantile):02d}"] = _quantile(values, quantile, level)
        row = {"layer": layer.name, "call": layer.call, "depth": layer.depth, "n": len(values)}
        for name, numbers in estimates.items():
            columns = (name, f"{name}_low", f"{name}_high")
            row.update(zip(columns, numbers, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


Bounded = tuple[float, float, float]
"""A number with the ends of its interval."""

_NONE: Bounded = (np.nan, np.nan, np.nan)


def _mean(values: Array, level: float) -> Bounded:
    n = len(values)
    if n < 2:
        return _NONE
    mean = float(values.mean())
    reach = t_reach(float(values.std(ddof=1)) / np.sqrt(n), n - 1, level)
    return mean, mean - reach, mean + reach


def sd_interval(values: Array, level: float) -> Bounded:
    """Standard deviation with an interval that allows for any kurtosis.

    Bonett (2006, Computational Statistics & Data Analysis 50), by the logarithm of the variance:
    its standard error follows from the fourth moment about a trimmed mean,

        se^2 = c^2 (g - (n - 3) / n) / (n - 1),  g = n sum (x - m)^4 / (sum (x - mean)^2)^2,

    with c = n / (n - z), which scales the variance as well. The textbook interval by chi^2 holds
    for Gaussian values alone, and exponents of images are seldom that.

    Args:
        values: (n,).
        level: level of the interval.

    Returns:
        The standard deviation and the two ends; NaN with fewer than five values or equal ones.

    >>> [round(x, 2) for x in sd_interval(np.arange(20.0), 0.95)]
    [5.92, 4.89, 7.94]
    """
    n = len(values)
    z = float(special.ndtri(0.5 + level / 2))
    squares = np.sum((values - values.mean()) ** 2) if n else 0.0
    if n < 5 or n <= z or not squares > 0:
        return _NONE
    cut = int(min(0.5 / np.sqrt(n - 4), 0.4) * n)
    centre = np.sort(values)[cut : n - cut].mean()
    kurtosis = n * np.sum((values - centre) ** 4) / squares**2
    scale = n / (n - z)
    error = scale * np.sqrt(max(kurtosis - (n - 3) / n, 0.0) / (n - 1))
    log_variance = np.log(scale * squares / (n - 1))
    low, high = np.exp(0.5 * (log_variance + z * error * np.array([-1.0, 1.0])))
    return float(np.sqrt(squares / (n - 1))), float(low), float(high)


@lru_cache(maxsize=64)
def quantile_ranks(n: int, quantile: float, level: float) -> tuple[int, int] | None:
    """Ranks, from 1, of the two values that enclose a quantile in `level` of samples or more.

    The number B of values below the quantile is binomial whatever their distribution is, so the
    interval from the l-th to the u-th value holds it with probability P(l <= B < u) exactly
    (Conover 1999, Practical Nonparametric Statistics, section 3.2). Each side misses it in
    (1 - level) / 2 of samples at most.

    Returns:
        The ranks, or None where the sample is too small for the level.

    >>> quantile_ranks(20, 0.5, 0.95), quantile_ranks(20, 0.05, 0.95)
    ((6, 15), None)
    """
    miss = (1 - level) / 2 + 1e-12  # so that rounding excludes no chance that is met exactly
    below = np.arange(n + 1)
    # The largest l with P(B < l) below `miss`, and the smallest u with P(B >= u) at most that.
    low = int(np.searchsorted(special.bdtr(below, n, quantile), miss))
    high = int(np.argmax(special.bdtrc(below, n, quantile) <= miss)) + 1
    return (low, high) if low >= 1 and high <= n else None


def _quantile(values: Array, quantile: float, level: float) -> Bounded:
    """A quantile of sorted values with its interval."""
    ranks = quantile_ranks(len(values), quantile, level)
    if ranks is None:
        return _NONE
    low, high = ranks
    return float(np.quantile(values, quantile)), float(values[low - 1]), float(values[high - 1])

"""Many networks as the sample: what slopes have in common, and what the next network may have.

Network i has the slope b_i with a standard error s_i. Networks differ: the true slopes scatter with
a variance tau^2 about their mean (random effects). tau^2 is that of Paule and Mandel (1982, Journal
of Research of the National Bureau of Standards 87), by ``combine_effects`` of statsmodels; networks
weigh w_i = 1 / (s_i^2 + tau^2), as shares p_i.

The interval of the mean follows Hartung and Knapp (2001, Statistics in Medicine 20): the error is
taken from the scatter of the networks, not from their own errors. Theirs supposes that the weights
are right up to a factor. Where errors are estimated from few layers, the weights are not, and the
interval is too short (analyses/calibration_networks.py). So the variance is estimated without that
supposition (Sidik and Jonkman 2006, Computational Statistics and Data Analysis 50), with the
degrees of freedom of Satterthwaite's rule for these weights (Tipton 2015, Psychological Methods
20):

    V = sum p_i^2 (b_i - b)^2 / (1 - p_i).

Where networks weigh the same, it is Hartung and Knapp's interval exactly.

The next network is expected within b +- t sqrt(tau^2 + V), t with k - 2 degrees of freedom
(Higgins, Thompson and Spiegelhalter 2009, Journal of the Royal Statistical Society A 172), or those
of V where these are fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from natstats.brief import Brief
from natstats.errors import UsageError
from natstats.law.differences import Estimate

__all__ = ["Contrast", "Pooled", "compare_groups", "homogeneity_p", "pool"]

LEAST_VARIANCE = 1e-12
"""Least variance of a slope, as a share of the total, for slopes without an error."""

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Pooled(Brief):
    """What several networks have in common. NaN where a number is not available.

    Attributes:
        mean: mean slope of networks of this sort, its interval and test.
        next_low: lower end of where the slope of the next network is expected.
        next_high: upper end; both take three networks.
        tau: standard deviation of the true slopes about their mean.
        i2: share of the variance of slopes that is not due to errors of single networks (Higgins
            and Thompson 2002, Statistics in Medicine 21).
        q: weighted sum of squared deviations (Cochran's Q).
        q_p: p-value of the test that all networks have one slope.
        weights: share of each network in the mean, (k,).
    """

    mean: Estimate
    next_low: float
    next_high: float
    tau: float
    i2: float
    q: float
    q_p: float
    weights: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of networks."""
        return len(self.weights)


@dataclass(frozen=True)
class Contrast:
    """A test whether groups of networks have the same mean slope. NaN where there is none.

    Attributes:
        f: the statistic.
        dof: degrees of freedom above and below.
        p: its p-value.
    """

    f: float = np.nan
    dof: tuple[float, float] = (np.nan, np.nan)
    p: float = np.nan


def pool(
    values: Sequence[float] | Array,
    errors: Sequence[float] | Array,
    dofs: Sequence[float] | Array,
    level: float = 0.95,
) -> Pooled:
    """Mean, spread and prediction of the slopes of k networks, by random effects.

    Args:
        values: slope of each network, (k,), all finite.
        errors: their standard errors, (k,).
        dofs: degrees of freedom of these, (k,); infinite for errors that are known.
        level: level of the intervals.

    Returns:
        The mean over networks. One network has no interval. Two weigh the same, since two cannot
        show how far their errors are to be trusted.

    Raises:
        UsageError: the lengths differ, there is no network, a slope is not finite or an error
            below zero.

    >>> found = pool([0.010, 0.014, 0.030], [0.004, 0.003, 0.005], [18, 50, 24])
    >>> round(found.mean.value, 4), round(found.tau, 4), round(found.q_p, 2)
    (0.0176, 0.0095, 0.01)
    """
    value, variance, dof = _checked(values, errors, dofs)
    k = len(value)
    if k == 1:
        alone = Estimate(value=float(value[0]))
        return Pooled(alone, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, weights=(1.0,))
    centre, unit = _scale(value, variance)
    floored = np.maximum(variance / unit**2, LEAST_VARIANCE)
    tau2, q = _paule_mandel((value - centre) / unit, floored)
    weights = 1 / (floored + tau2) if k > 2 else np.ones(2)
    share = weights / weights.sum()
    mean = centre + float(share @ (value - centre))
    spread, spread_dof = _robust_variance(value - mean, share)
    estimate = Estimate.of(mean, [spread], [spread_dof], level)
    reach = np.nan
    if k > 2:
        # No more degrees of freedom than the mean has: its interval lies within this one.
        dof_next = min(k - 2, spread_dof)
        reach = float(stats.t.ppf(0.5 + level / 2, dof_next) * np.sqrt(tau2 * unit**2 + spread))
    own = 1 / floored
    typical = (k - 1) * own.sum() / (own.sum() ** 2 - np.sum(own**2))
    return Pooled(
        mean=estimate,
        next_low=mean - reach,
        next_high=mean + reach,
        tau=float(np.sqrt(tau2) * unit),
        i2=float(tau2 / (tau2 + typical)),
        q=q,
        q_p=homogeneity_p(value[:, None], variance[:, None, None], dof),
        weights=tuple(share.tolist()),
    )


def _checked(values: Any, errors: Any, dofs: Any) -> tuple[Array, Array, Array]:
    value, error, dof = (np.asarray(one, dtype=np.float64) for one in (values, errors, dofs))
    if not (value.shape == error.shape == dof.shape == (len(value),)) or not len(value):
        raise UsageError(
            "values, errors, dofs: expected one number for each network, of one or more; got "
            f"shapes {value.shape}, {error.shape}, {dof.shape}"
        )
    if not np.isfinite(value).all():
        raise UsageError(f"values: expected finite numbers; got {value[~np.isfinite(value)][0]}")
    bad = ~(np.isfinite(error) & (error >= 0))
    if bad.any():
        raise UsageError(f"errors: expected finite numbers of at least 0; got {error[bad][0]}")
    if not (dof > 0).all():
        raise UsageError(f"dofs: expected numbers above 0; got {dof[~(dof > 0)][0]}")
    return value, error**2, dof


def _scale(value: Array, variance: Array) -> tuple[float, float]:
    """A centre and a unit, in which nothing is lost to rounding."""
    centre = float(np.mean(value))
    unit = float(np.sqrt(np.mean(variance) + np.var(value)))
    return centre, unit if unit > 0 else 1.0


def _paule_mandel(value: Array, variance: Array) -> tuple[float, float]:
    """The variance between networks, and Cochran's Q."""
    from statsmodels.stats.meta_analysis import combine_effects

    with np.errstate(all="ignore"):  # its I^2 divides by Q, which is 0 for equal slopes
        found = combine_effects(value, variance, method_re="iterated", maxiter=200, atol=1e-9)
    tau2, q = float(found.tau2), float(max(found.q, 0.0))
    if not tau2 > 0 and q > len(value) - 1:
        # Its last step may go beyond the root by a rounding error, and is then taken for a zero.
        tau2 = _common_variance(value, variance, [np.arange(len(value))])
    return tau2, q


def _robust_variance(deviation: Array, share: Array) -> tuple[float, float]:
    """Variance of a weighted mean from the scatter about it, and its degrees of freedom.

    The variance is a sum of g_i^2 e_i^2 with g_i^2 = p_i^2 / (1 - p_i). With true variances
    proportional to 1 / p_i the e_i have the covariance delta_ij / p_i - 1, up to a factor.
    """
    # A network that has all the weight leaves no scatter to estimate the error from.
    factor = share**2 / np.maximum(1 - share, 1e-15)
    variance = float(factor @ deviation**2)
    own = factor * (1 / share - 1)
    square = np.sum(own**2) + factor.sum() ** 2 - np.sum(factor**2)
    return variance, float(max(own.sum() ** 2 / square, 1.0))


def homogeneity_p(coefficients: Array, covariances: Array, dofs: Array) -> float:
    """P of the test that k networks have the same r coefficients, whose errors are estimated.

    Johansen's (1980, Biometrika 67) approximation; with r = 1 it is the test of Welch (1951,
    Biometrika 38), and with errors that are known the test of Cochran's Q by chi-square.

    Args:
        coefficients: (k, r).
        covariances: (k, r, r).
        dofs: degrees of freedom of each covariance, (k,).

    >>> apart = np.array([[0.0], [3.0]])
    >>> round(homogeneity_p(apart, np.ones((2, 1, 1)), np.full(2, np.inf)), 4)
    0.0339
    """
    k, r = coefficients.shape
    scale = np.sqrt(np.einsum("kii->ki", covariances).mean(axis=0))
    spread = np.std(coefficients, axis=0)
    scale = np.where(scale > 0, scale, np.where(spread > 0, spread, 1.0))
    value = (coefficients - coefficients.mean(axis=0)) / scale
    covariance = covariances / np.outer(scale, scale) + LEAST_VARIANCE * np.eye(r)
    weight = np.linalg.inv(covariance)
    total = np.linalg.inv(weight.sum(axis=0))
    mean = total @ np.einsum("kij,kj->i", weight, value)
    statistic = float(np.einsum("ki,kij,kj->", value - mean, weight, value - mean))
    rest = np.eye(r) - total @ weight
    traces = np.einsum("kij,kji->k", rest, rest) + np.einsum("kii->k", rest) ** 2
    doubt = float(np.sum(traces / dofs)) / 2
    above = r * (k - 1)
    if not doubt > 0:
        return float(stats.chi2.sf(statistic, above))
    expected = above + 2 * doubt - 6 * doubt / (above + 2)
    return float(stats.f.sf(statistic / expected, above, above * (above + 2) / (3 * doubt)))


def compare_groups(
    values: Sequence[float] | Array, errors: Sequence[float] | Array, labels: Sequence[str]
) -> Contrast:
    """Test whether groups of networks have the same mean slope.

    All groups share one tau^2, which is more than a group of two or three networks could tell. The
    statistic is Knapp and Hartung's (2003, Statistics in Medicine 22), with the scatter within
    groups taken without supposing that the weights are right, as in :func:`pool`.

    Args:
        values: slope of each network, (k,).
        errors: their standard errors, (k,).
        labels: group of each network, (k,).

    Returns:
        The test; NaN with one group, or when no group has two networks.

    >>> round(compare_groups([0.1, 0.2, 0.9, 1.1], [0.1] * 4, ["a", "a", "b", "b"]).p, 3)
    0.017
    """
    value, variance, _ = _checked(values, errors, np.ones(len(values)))
    places = [np.flatnonzero(np.array(labels) == one) for one in dict.fromkeys(labels)]
    if len(places) < 2 or len(places) == len(value):
        return Contrast()
    centre, unit = _scale(value, variance)
    value = (value - centre) / unit
    variance = np.maximum(variance / unit**2, LEAST_VARIANCE)
    weight = 1 / (variance + _common_variance(value, variance, places))
    totals = np.array([weight[own].sum() for own in places])
    means = np.array([np.average(value[own], weights=weight[own]) for own in places])
    scatter, below = 0.0, 0.0
    for own, total, mean in zip(places, totals, means, strict=True):
        if len(own) > 1:
            spread, own_dof = _robust_variance(value[own] - mean, weight[own] / total)
            scatter, below = scatter + own_dof * spread * total, below + own_dof
    between = float(totals @ (means - totals @ means / totals.sum()) ** 2) / (len(places) - 1)
    dof = (float(len(places) - 1), float(below))
    if not scatter > 0:
        return Contrast(dof=dof)
    f = float(between / (scatter / below))
    return Contrast(f, dof, float(stats.f.sf(f, *dof)))


def _common_variance(value: Array, variance: Array, places: Sequence[NDArray[np.int64]]) -> float:
    """Paule and Mandel's tau^2 about the means of groups."""
    dof = len(value) - len(places)

    def excess(tau2: float) -> float:
        total = -float(dof)
        for own in places:
            weight = 1 / (variance[own] + tau2)
            mean = np.average(value[own], weights=weight)
            total += float(weight @ (value[own] - mean) ** 2)
        return total

    if excess(0.0) <= 0:
        return 0.0
    # At this variance no deviation counts any more.
    most = float(np.sum((value - value.mean()) ** 2)) * len(value) / dof
    return float(optimize.brentq(excess, 0.0, most, xtol=1e-12))

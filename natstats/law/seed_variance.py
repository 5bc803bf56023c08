"""How much the exponents of a layer differ between seeds of random weights, from few seeds.

Three seeds have two degrees of freedom, so few that among many layers hardly any can be told from
random ones. But layers with maps of one size vary by much the same, so that the variance of each is
drawn towards what the others suggest, as in the analysis of genes: empirical Bayes with a scaled
inverse chi-square prior (Smyth 2004, Statistical Applications in Genetics and Molecular Biology 3),
its level a line in the logarithm of the map's side. With d0 degrees of freedom in the prior the
moderated variance has d0 + n - 1.

The prior is estimated from the same layers, and these are correlated: a seed that moves one moves
the next. In networks of twenty layers their effective number, tr(C)^2 / tr(C^2) with C their
covariance over seeds, is about two. So the degrees of freedom are never more than n - 1 times that
number, which is estimated from n seeds without bias. analyses/control_calibration.py measures the
error rates.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from natstats.law.differences import ErrorSource

__all__ = ["FEWEST_POOLED", "effective_number", "pooled_seeds", "seeds_as_source"]

FEWEST_POOLED = 5
"""Fewest layers whose variances are pooled; fewer do not tell how much variances differ."""

Array = NDArray[np.float64]


def seeds_as_source(exponents: Array) -> ErrorSource:
    """The error of one more seed minus the mean of these, as deviations (n_seeds, L).

    >>> found = seeds_as_source(np.array([[1.0], [3.0]])).deviations  # s^2 = 2, n = 2
    >>> float(np.sum(found**2).round(9))
    3.0
    """
    n = len(exponents)
    scale = np.sqrt((1 + 1 / n) / (n - 1))
    return ErrorSource(scale * (exponents.mean(0) - exponents), dof=n - 1)


def pooled_seeds(exponents: Array, side: Array) -> ErrorSource:
    """As :func:`seeds_as_source` for layers one at a time, with moderated variances.

    It is not for combinations of layers, such as their mean: their variance is that of what layers
    have in common, of which the prior knows nothing.

    Args:
        exponents: (n_seeds, L), NaN where a layer has none.
        side: shorter side of the maps of each layer, pixels, (L,).

    Returns:
        The source; that of :func:`seeds_as_source` with two seeds, or fewer than FEWEST_POOLED
        layers whose exponents differ.
    """
    own, dof = seeds_as_source(exponents), len(exponents) - 1
    variance = exponents.var(axis=0, ddof=1)
    good = np.isfinite(variance) & (variance > 0)
    if dof < 2 or good.sum() < FEWEST_POOLED:
        return own
    expected, prior_dof = _prior(variance[good], dof, side[good])
    share = 1.0 if np.isinf(prior_dof) else prior_dof / (prior_dof + dof)
    moderated = share * expected + (1 - share) * variance[good]
    scale = np.ones(len(variance))
    scale[good] = np.sqrt(moderated / variance[good])
    most = dof * effective_number(exponents[:, good])
    return ErrorSource(own.deviations * scale, dof=float(min(prior_dof + dof, most)))


def effective_number(exponents: Array) -> float:
    """Effective number of layers, tr(C)^2 / tr(C^2), from three seeds or more, (n_seeds, L).

    >>> alike = np.array([[1.0], [2.0], [4.0]]) * np.ones(6)
    >>> effective_number(alike)
    1.0
    """
    dof, n_layers = len(exponents) - 1, exponents.shape[1]
    centred = exponents - exponents.mean(axis=0)
    gram = centred @ centred.T / dof
    trace, square = float(np.trace(gram)), float(np.sum(gram**2))
    # Of Gaussian samples: E[square] = ((dof + 1) tr(C^2) + tr(C)^2) / dof, and
    # E[trace^2] = tr(C)^2 + 2 tr(C^2) / dof.
    of_square = dof**2 / ((dof + 2) * (dof - 1)) * (square - trace**2 / dof)
    squared_trace = trace**2 - 2 * of_square / dof
    if of_square <= 0:
        return float(n_layers)
    return float(np.clip(squared_trace / of_square, 1.0, n_layers))


def _prior(variance: Array, dof: int, side: Array) -> tuple[Array, float]:
    """Variance that is expected of each layer, and how many degrees of freedom it is worth.

    log s^2 has the mean log s0^2 + psi(d/2) - psi(d0/2) - log(d / d0) and the variance
    psi'(d/2) + psi'(d0/2), psi the digamma function.
    """
    log = np.log(variance) - special.digamma(dof / 2) + np.log(dof / 2)
    design = np.stack([np.ones(len(side)), np.log(side)], axis=1)
    if np.ptp(side) == 0:
        design = design[:, :1]
    level = design @ np.linalg.lstsq(design, log, rcond=None)[0]
    spread = np.sum((log - level) ** 2) / (len(log) - design.shape[1])
    spread -= special.polygamma(1, dof / 2)
    if spread <= special.polygamma(1, 1e6):
        return np.asarray(np.exp(level)), np.inf  # no more different than chance makes them
    half = optimize.brentq(lambda x: special.polygamma(1, x) - spread, 1e-6, 1e6)
    return np.asarray(np.exp(level + special.digamma(half) - np.log(half))), float(2 * half)

"""Intervals from groups of images: how an estimate would move with other images of the same sort.

An estimate is a smooth function of group sums. Leaving out one group at a time gives a *deviation*
for every group, scaled so that the squares of the deviations sum to the squared standard error (the
jackknife for unequal groups of Busing, Meijer and van der Leeden 1999, Statistics and Computing 9).

Where a few images with much power rule the mean spectrum, that sum of squares is itself uncertain,
and Student's t with G - 1 degrees of freedom is too short. The *effective* degrees of freedom
follow from the kurtosis of the deviations, by Satterthwaite's (1946, Biometrics Bulletin 2) rule
nu = 2 E[v]^2 / Var[v] for the estimated variance v. They and the deviations work for every linear
combination of estimates that share their groups: a slope, a difference, a mean.

The alternative is the studentised bootstrap (symmetric; Efron 1979, Hall 1988, Annals of Statistics
16), which draws whole groups and needs the derivative of the estimate.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from natstats.errors import UsageError

__all__ = [
    "FEWEST_GROUPS",
    "STOPPED",
    "bootstrap_reach",
    "effective_dof",
    "jackknife_deviations",
    "leave_one_out",
    "t_reach",
    "two_sided_p",
]

FEWEST_GROUPS = 3
"""Groups of images without which there is no interval."""

STOPPED = 1.1
"""Factor on the deviations of an exponent where narrow intervals ended the measurement. With it the
interval holds the truth about as often as its level says, as ``analyses/until_coverage.py``
simulates. It acts on the deviations, so that all that is made of them is wider, too: the intervals
of slopes, of differences between runs and of changes along a series."""

LEAST_SPREAD = 1e-3
"""A resample whose error is below this share of the standard error counts as without spread."""

_MOST_DRAWS = 2**26
"""Groups times resamples; several arrays of this length are held at once, each of half a GiB."""

Array = NDArray[np.float64]


def leave_one_out(power: Array, count: Array) -> Array:
    """Mean power without each group, for group sums (g, n) of count (g,) > 0 images: (g, n).

    >>> leave_one_out(np.array([[2.0], [4.0], [6.0]]), np.ones(3))[:, 0]
    array([5., 4., 3.])
    """
    return np.asarray((power.sum(0) - power) / (count.sum() - count)[:, None])


def jackknife_deviations(
    whole: Array | float, left_out: Array, count: Array, stopped: bool = False
) -> Array:
    """Scaled deviations of unequal groups.

    Args:
        whole: estimate from all groups, (...).
        left_out: estimates without each group, (g, ...).
        count: images in each group, (g,), all positive.
        stopped: whether narrow intervals of such estimates ended the measurement; the deviations
            are then :data:`STOPPED` times as large.

    Returns:
        (g, ...); the squares sum to the squared standard error.

    >>> jackknife_deviations(2.0, np.array([2.5, 2.0, 1.5]), np.ones(3)).round(3)
    array([-0.408,  0.   ,  0.408])
    """
    share = (count / count.sum()).reshape(-1, *[1] * (np.ndim(left_out) - 1))
    centre = len(share) * whole - np.sum((1 - share) * left_out, axis=0)
    pseudo = whole / share - (1 / share - 1) * left_out
    scale = np.sqrt(len(share) * (1 / share - 1)) / (STOPPED if stopped else 1.0)
    return np.asarray((pseudo - centre) / scale)


def effective_dof(deviations: Array) -> Array:
    """Degrees of freedom of the variance that is the sum of squared deviations, (g, ...) -> (...).

    Between 1, when one group decides, and g - 1, which it is when the deviations are Gaussian.

    >>> float(effective_dof(np.array([1.0, -1.0, 1.0, -1.0])))
    3.0
    >>> float(effective_dof(np.array([9.0, *[-1.0] * 9])).round(2))
    2.81
    """
    n = len(deviations)
    if n == 0:
        return np.ones(deviations.shape[1:])
    squares = (deviations - deviations.mean(axis=0)) ** 2
    total = squares.sum(axis=0)
    kurtosis = np.sum(squares**2, axis=0) / np.where(total > 0, total, 1.0) ** 2
    # Var[v] / E[v]^2 is estimated by sum d^4 / (sum d^2)^2 - 1 / n.
    return np.asarray(np.clip(2 / np.maximum(kurtosis - 1 / n, 1e-9), 1, max(n - 1, 1)))


def two_sided_p(t: float, dof: float) -> float:
    """P of a value of Student's t this far from zero or farther, on either side.

    >>> round(two_sided_p(-2.0, 10.0), 4)
    0.0734
    """
    return float(2 * special.stdtr(dof, -abs(t)))


def t_reach(standard_error: float, dof: float, level: float) -> float:
    """Half the width of the interval by Student's t."""
    return float(special.stdtrit(dof, 0.5 + level / 2)) * standard_error


@lru_cache(maxsize=4)
def _draws(n_groups: int, resamples: int) -> Array:
    """How often each group is drawn, (resamples, n_groups); the same ones for every layer."""
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), resamples)
    return drawn.astype(np.float64)


def bootstrap_reach(
    power: Array,
    count: Array,
    estimate: Callable[[Array], Array],
    gradient: Callable[[Array, Array], Array],
    standard_error: float,
    level: float,
    resamples: int,
) -> float:
    """Half the width of the symmetric studentised bootstrap interval.

    Each resample draws groups with replacement; its error is that of the infinitesimal jackknife.

    Args:
        power: group sums, (g, n).
        count: images in each group, (g,).
        estimate: from mean power (R, n) to (R,).
        gradient: derivative in the log of mean power: ((R, n), (R,)) to (R, n).
        standard_error: standard error of the estimate from all groups.
        level: level of the interval.
        resamples: number of resamples.

    Returns:
        Half the width; infinite where too many resamples have no spread or no power in a ring, as
        they have when there are few groups or few with power.

    Raises:
        UsageError: there are too many groups and resamples for the memory that they take.
    """
    n_groups = len(count)
    if n_groups * resamples > _MOST_DRAWS:
        raise UsageError(
            f"resamples: expected at most {_MOST_DRAWS // n_groups} with {n_groups} groups of "
            f"images; got {resamples}"
        )
    draws = _draws(n_groups, resamples)
    mean = (draws @ power) / (draws @ count)[:, None]
    draws, mean = draws[np.all(mean > 0, axis=1)], mean[np.all(mean > 0, axis=1)]
    n_images = draws @ count
    drawn = estimate(mean)
    per_power = gradient(mean, drawn) / mean
    influence = (power @ per_power.T - np.outer(count, np.sum(per_power * mean, 1))) / n_images
    errors = np.sqrt(np.sum(draws.T * influence**2, axis=0) * n_groups / (n_groups - 1))
    whole = estimate(power.sum(0, keepdims=True) / count.sum())[0]
    good = errors > LEAST_SPREAD * standard_error
    # A resample that cannot be studentised counts as infinitely far out: to leave it out would
    # make intervals too short.
    studentised = np.full(resamples, np.inf)
    studentised[: int(good.sum())] = np.abs(drawn[good] - whole) / errors[good]
    return float(np.quantile(studentised, level, method="higher")) * standard_error

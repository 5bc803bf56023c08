"""Difference of two methods over the same seeds and images, with errors from both.

Two trainings with one seed answer the same n images; D[s, i] in {-1, 0, 1} says whether, with seed
s, the first alone (1) or the second alone (-1) was right about image i. The conclusion is meant for
other seeds and other images too, and the mean of D would change with either.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natstats import checks
from natstats.errors import UsageError
from natstats.law.differences import Estimate

__all__ = ["crossed_difference", "exact_difference"]


def crossed_difference(
    differences: NDArray[np.int8],
    level: float = 0.95,
    between_seeds: tuple[float, float] | None = None,
) -> Estimate:
    r"""Mean of the differences, for other seeds and other images at once.

    With d the mean of D (S, n), r_s its mean over images and c_i over seeds::

        V_seeds  = sum_s (r_s - d)^2 / (S (S - 1))
        V_images = sum_i (c_i - d)^2 / (n (n - 1))
        V_cell   = sum_si (D_si - r_s - c_i + d)^2 / (S n (S - 1) (n - 1))
        V        = max(V_seeds + V_images - V_cell, V_seeds, V_images)

    The noise of a single answer is in both V_seeds and V_images, and V_cell takes it away once. It
    is the two-way cluster-robust variance of Cameron, Gelbach and Miller (2011, Journal of Business
    and Economic Statistics 29), with the third part from the interaction mean square, which makes
    V without the floor unbiased for crossed random effects: (MS_seeds + MS_images - MS_cell) / (S
    n) of the two-way analysis of variance. Its degrees of freedom are Satterthwaite's (1946,
    Biometrics Bulletin 2): V^2 / sum_k (V_k^2 / dof_k), dof_k S - 1, n - 1 and their product, and
    no fewer than S - 1.

    V is at least 1 / (S n)^2, the variance that corresponds to one image at one seed, the smallest
    step that d can take. This floor, with S - 1 degrees of freedom, applies where every seed and
    every image say the same. Where all of D is 0, so is V, and p is 1.

    In simulation (``analyses/distill_intervals.py``: 300 images, 95 % intervals) it covers 94.8 to
    98.8 % with five seeds, 94.0 to 98.2 % with three, and with two 88.9 to 98.2 %, the least where
    trainings differ more from seed to seed than the images can tell.

    Args:
        differences: (S, n), of S >= 2 seeds and n >= 2 images.
        level: level of the interval.
        between_seeds: V_seeds and its degrees of freedom where they are known better, as when they
            are pooled over methods.

    Raises:
        UsageError: there are fewer than two seeds or images.

    >>> crossed_difference(np.array([[1, 0, 0, 0], [1, 0, 0, -1]])).value
    0.125
    """
    checks.probability("level", level)
    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 2 or min(values.shape) < 2:
        raise UsageError(
            f"differences: expected (seeds, images), two or more of each; got shape {values.shape}"
        )
    n_seeds, n_images = values.shape
    mean, of_seeds, of_images = values.mean(), values.mean(axis=1), values.mean(axis=0)
    rest = values - of_seeds[:, None] - of_images[None, :] + mean
    dofs = [n_seeds - 1.0, n_images - 1.0, (n_seeds - 1.0) * (n_images - 1.0)]
    seeds = float(np.sum((of_seeds - mean) ** 2)) / (n_seeds * dofs[0])
    if between_seeds is not None:
        seeds, dofs[0] = between_seeds
    images = float(np.sum((of_images - mean) ** 2)) / (n_images * dofs[1])
    cell = float(np.sum(rest**2)) / (n_seeds * n_images * dofs[2])
    variance = max(seeds + images - cell, seeds, images)
    if not values.any():
        return Estimate.of(0.0, [0.0], [1.0], level)
    floor = 1 / (n_seeds * n_images) ** 2
    if variance < 0.999 * floor:
        return Estimate.of(float(mean), [floor], [dofs[0]], level)
    parts = np.array([seeds, images, cell])
    dof = variance**2 / float(np.sum(parts**2 / np.array(dofs)))
    return Estimate.of(float(mean), [variance], [max(dof, dofs[0])], level)


def exact_difference(differences: NDArray[np.int8], level: float = 0.95) -> Estimate:
    """Mean of the differences of two trained networks, for other images.

    The exact test of McNemar (1947, Psychometrika 12): of the m images that one network alone got
    right, how many were the first's is binomial with 1/2 if neither is better. The interval is that
    of Clopper and Pearson (1934, Biometrika 26) for this share p, as m (2 p - 1) / n: it takes m as
    given, and there is none where m is zero. Nothing is said about other trainings.

    Args:
        differences: (n,), of one seed.
        level: level of the interval.

    Raises:
        UsageError: there is no image, or more than one axis.

    >>> found = exact_difference(np.array([1, 1, 1, 1, 1, 1, -1, 0, 0, 0]))
    >>> round(found.value, 3), round(found.p, 3)
    (0.5, 0.125)
    """
    checks.probability("level", level)
    values = np.asarray(differences)
    if values.ndim != 1 or not len(values):
        raise UsageError(f"differences: expected (images,); got shape {values.shape}")
    n_first, n_second = int((values > 0).sum()), int((values < 0).sum())
    apart, n = n_first + n_second, len(values)
    if not apart:
        return Estimate(0.0, p=1.0)
    found = stats.binomtest(n_first, apart)
    ends = found.proportion_ci(level, "exact")
    low, high = (apart * (2 * end - 1) / n for end in (ends.low, ends.high))
    return Estimate((n_first - n_second) / n, float(low), float(high), float(found.pvalue))

"""Planned contrasts between methods whose trainings shared their seeds, with one pooled variance.

Accuracy of a method and a seed is modelled as method + seed + residual: what a seed does to all
methods alike (order and random changes of the images, first weights) is no part of the error of a
difference. The variance of the residuals is pooled over the methods, so that a contrast of a few
seeds has many degrees of freedom: (M - 1)(S - 1) for M methods and S seeds in place of S - 1.

The error is for other seeds on *these evaluation images*. To allow for other images as well,
:func:`natstats.distill.comparison.crossed.crossed_difference` takes the variance between seeds from
here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natstats import checks
from natstats.errors import UsageError
from natstats.law.differences import Estimate
from natstats.numbers import counted

__all__ = [
    "APART_LEVEL", "EQUAL_LEVEL", "FEWEST_SEEDS", "PAIR_LEVEL", "PairDifference",
    "PooledVariance", "pooled_difference", "pooled_variance",
]  # fmt: skip

FEWEST_SEEDS = 6
"""Fewest seeds of a method in the pool, and fewest that a pair must share to take its error from
it: with fewer, the tests too often fail to see that one method varies more than the rest."""

APART_LEVEL = 0.01
"""Level of the test that takes a method out of the pool: many methods are tested, and one that is
taken out without need loses power only."""

EQUAL_LEVEL = 0.05
"""Level of the test for equal variances; with a p-value below it there is no pool."""

PAIR_LEVEL = 0.2
"""Level of the test that leaves a pair to its own variance. A pair left to it without need loses
some power; a pair that is pooled wrongly gets an interval that is too narrow."""

_ROUNDING = 1e-13
"""Standard deviation that rounding alone may leave, relative to the largest accuracy."""

Accuracies = Mapping[str, Mapping[int, float]]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class PooledVariance:
    """Variance of a training about method + seed, and the methods it is pooled over.

    Attributes:
        variance: of a single training; NaN where nothing can be said.
        dof: degrees of freedom.
        members: methods in the pool.
        apart: methods left out because their variance differs, with the p-value of that test.
        equal_p: p-value of Bartlett's test that the members have one variance; NaN for few.
        n_images: number of evaluation images, where known: an accuracy moves in steps of one of
            them.
    """

    variance: float = np.nan
    dof: float = 0.0
    members: tuple[str, ...] = ()
    apart: Mapping[str, float] | None = None
    equal_p: float = np.nan
    n_images: int | None = None

    @property
    def is_one(self) -> bool:
        """Whether the members may be taken to have the same variance."""
        return self.dof > 0 and not self.equal_p < EQUAL_LEVEL

    def holds(self, first: str, second: str) -> bool:
        """Whether the difference of two methods takes its error from the pool."""
        return self.is_one and {first, second} <= set(self.members)


@dataclass(frozen=True)
class PairDifference(Estimate):
    """Mean difference of two methods: an estimate, and where its error comes from.

    Attributes:
        se: standard error; NaN where there is none.
        is_pooled: whether it is the pool's.
        reason: why there is no error, or why it is not the pool's, or that it is the smallest that
            the images can show; empty where there is nothing to say.
    """

    se: float = np.nan
    is_pooled: bool = False
    reason: str = ""


def pooled_variance(accuracies: Accuracies, n_images: int | None = None) -> PooledVariance:
    """The residual variance of method + seed, over the methods that have one variance.

    As long as an F test rejects at :data:`APART_LEVEL`, the method whose residuals are largest
    compared with the rest is taken out. With RSS the residual sum of squares of method + seed, by
    least squares, and nu its degrees of freedom, with and without the method::

        F = ((RSS - RSS_without) / (nu - nu_without)) / (RSS_without / nu_without)

    Its numerator and denominator are independent under normal residuals, so that it is exact for
    one method; at least two methods are left. Then Bartlett's test (1937, Proceedings of the Royal
    Society A 160) asks whether the rest have the same variance; where it rejects
    (:data:`EQUAL_LEVEL`), there is no pool, and every contrast has its own variance.

    In simulation (1000 studies each) 95 % intervals of two common methods cover 93.7 to 96.4 % with
    6 or 8 seeds. Some methods were also made to vary more: one of 3 by five times the standard
    deviation, one of 4, 6 or 12 or two of 6 by three times, and one of 6 by twice. The interval of
    such a method against a common one covers 92.5 to 95.3 % with 6 or 8 seeds; with 5 seeds it
    covers 91.5 % at worst, with 4 88.5 % and with 3 87.7 %, hence :data:`FEWEST_SEEDS`
    (``analyses/distill_intervals.py``).

    Args:
        accuracies: of every method by seed, of trainings with one recipe: only these share what a
            seed does. Methods with fewer than :data:`FEWEST_SEEDS` seeds are left out.
        n_images: number of evaluation images, where known; accuracies are shares of them then. No
            variance is taken to be smaller than the one at which the error of a difference is one
            image at one seed.

    Raises:
        UsageError: an accuracy is not finite, or `n_images` is not a positive whole number.

    >>> runs = {"ce": [50, 60, 55, 57, 52, 59], "kd": [60, 69, 66, 67, 61, 70]}
    >>> runs["at"] = [60, 71, 64, 67, 63, 69]
    >>> found = pooled_variance({name: dict(enumerate(own)) for name, own in runs.items()})
    >>> found.dof, round(found.variance**0.5, 2)
    (10.0, 0.81)
    """
    if n_images is not None:
        n_images = checks.positive_int("n_images", n_images)
    table, names = _table(accuracies)
    kept = [place for place, row in enumerate(table) if np.isfinite(row).sum() >= FEWEST_SEEDS]
    floor = _smallest_variance(table[kept], n_images)
    apart: dict[str, float] = {}
    while len(kept) > 2:
        tests = {place: _apart_p(table[kept], kept.index(place), floor) for place in kept}
        place = min(tests, key=lambda one: tests[one])
        if not tests[place] < APART_LEVEL:
            break
        apart[names[place]] = tests[place]
        kept.remove(place)
    members = tuple(names[place] for place in kept)
    sum_of_squares, dof = _residuals(table[kept]) if len(kept) > 1 else (0.0, 0)
    if dof < 1:
        return PooledVariance(members=members, apart=apart, n_images=n_images)
    equal_p = _equal_p(table[kept], floor)
    return PooledVariance(sum_of_squares / dof, float(dof), members, apart, equal_p, n_images)


def pooled_difference(
    accuracies: Accuracies, first: str, second: str, pool: PooledVariance, level: float = 0.95
) -> PairDifference:
    """Mean difference of two methods over the seeds that both have, for other seeds.

    Its variance is 2 s^2 / S with the variance s^2 of the pool. It is v / S with the variance v of
    the paired differences where the pool does not hold both methods, where they share fewer than
    :data:`FEWEST_SEEDS` seeds, or where v / (2 s^2) is too large for the pool (F test at
    :data:`PAIR_LEVEL`): trainings of some methods may have more in common than those of others.

    The smallest step of the mean difference is one image at one seed, 1 / (n S) for n images. Where
    the standard error would be below that step, as where all seeds have the same difference, it is
    set to that step, and `reason` says so. Where n is not known, a variance within rounding counts
    as zero: the interval is then the value alone, without a standard error, and there is no p
    except for equal methods (p 1).

    Args:
        accuracies: of every method by seed.
        first: a method.
        second: another.
        pool: see :func:`pooled_variance`.
        level: level of the interval.

    Returns:
        The difference, with its standard error and whether that is the pool's.

    Raises:
        UsageError: a method is unknown.

    >>> runs = {"ce": [50, 60, 55, 57, 52, 59], "kd": [60, 69, 66, 67, 61, 70]}
    >>> runs["at"] = [60, 71, 64, 67, 63, 69]
    >>> runs = {name: dict(enumerate(own)) for name, own in runs.items()}
    >>> found = pooled_difference(runs, "kd", "ce", pooled_variance(runs))
    >>> found.value, found.dof, found.is_pooled
    (10.0, 10.0, True)
    """
    checks.probability("level", level)
    for name in (first, second):
        checks.one_of("contrast", name, list(accuracies))
    ours, theirs = accuracies[first], accuracies[second]
    shared = sorted(ours.keys() & theirs.keys())
    differences = np.array([ours[seed] - theirs[seed] for seed in shared])
    if not len(shared):
        return PairDifference(reason="no seed is in both")
    value, n = float(differences.mean()), len(shared)
    if n == 1:
        return PairDifference(value, reason="one seed is in both")
    scale = max(abs(one[seed]) for one in (ours, theirs) for seed in shared)
    floor = _smallest_error(n, scale, pool.n_images) ** 2 * n
    own = float(differences.var(ddof=1))
    variance, dof = own, n - 1.0
    is_pooled, reason = False, _not_pooled(pool, first, second, n)
    if not reason:
        pooled = 2 * pool.variance
        if stats.f.sf(max(own, floor) / max(pooled, floor), n - 1, pool.dof) < PAIR_LEVEL:
            reason = "their differences vary more than the pool allows for"
        else:
            variance, dof, is_pooled = pooled, pool.dof, True
    if variance < 0.999 * floor:
        reason = _WITHOUT_SPREAD[pool.n_images is not None]
        variance = 0.0 if pool.n_images is None else floor
        value = 0.0 if abs(value) <= _ROUNDING * scale else value
    found = Estimate.of(value, [variance / n], [dof], level)
    return PairDifference(
        found.value,
        found.low,
        found.high,
        found.p,
        dof if np.isfinite(found.dof) else np.nan,
        se=float(np.sqrt(variance / n)) if np.isfinite(found.dof) else np.nan,
        is_pooled=is_pooled,
        reason=reason,
    )


_WITHOUT_SPREAD = (
    "all seeds have one difference, and nothing tells how large its error is",
    "all seeds have nearly one difference; the error is that of one image at one seed",
)


def _not_pooled(pool: PooledVariance, first: str, second: str, n_seeds: int) -> str:
    """Why a pair that shares some seeds cannot take its error from the pool; empty if it can."""
    if n_seeds < FEWEST_SEEDS:
        few = counted(n_seeds, "seed is", "seeds are")
        return f"{few} fewer than the {FEWEST_SEEDS} from which errors are pooled"
    if pool.holds(first, second):
        return ""
    if {first, second} & set(pool.apart or {}):
        return "one of them varies more than the rest"
    if not pool.dof:
        return "no other training is there to pool with"
    return "the methods have no one variance"


def _smallest_error(n_seeds: int, scale: float, n_images: int | None) -> float:
    """The smallest standard error of a mean difference: one image at one seed, or rounding."""
    return _ROUNDING * scale if n_images is None else 1 / (n_images * n_seeds)


def _smallest_variance(table: Array, n_images: int | None) -> float:
    """Variance of a single training at which a difference has the smallest error."""
    if not table.size:
        return 0.0
    n_seeds = table.shape[1]
    error: float = _smallest_error(n_seeds, float(np.nanmax(np.abs(table))), n_images)
    return float(error**2 * n_seeds / 2)


def _table(accuracies: Accuracies) -> tuple[Array, list[str]]:
    """Methods by seeds, NaN where there is no training."""
    names = list(accuracies)
    seeds = sorted({seed for own in accuracies.values() for seed in own})
    table = np.full((len(names), len(seeds)), np.nan)
    for row, name in enumerate(names):
        for seed, value in accuracies[name].items():
            if not np.isfinite(value):
                raise UsageError(
                    f"accuracies: expected finite numbers; {name} has {value} with the seed {seed}"
                )
            table[row, seeds.index(seed)] = value
    return table, names


def _residuals(table: Array) -> tuple[float, int]:
    """Residual sum of squares of method + seed and its degrees of freedom."""
    known = np.isfinite(table)
    n_methods, n_seeds = table.shape
    if known.all():
        rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
        return float(np.sum(rest**2)), (n_methods - 1) * (n_seeds - 1)
    method, seed = np.nonzero(known)
    values = table[known]
    design = np.concatenate([np.eye(n_methods)[method], np.eye(n_seeds)[seed]], axis=1)
    values = values - values.mean()
    fitted, _, rank, _ = np.linalg.lstsq(design, values, rcond=None)
    return float(np.sum((values - design @ fitted) ** 2)), len(values) - int(rank)


def _apart_p(table: Array, place: int, floor: float) -> float:
    """p-value of the test that one method varies more than the others, 1 where it is not known.

    No variance is taken to be below `floor`.
    """
    whole, dof = _residuals(table)
    others, dof_others = _residuals(np.delete(table, place, axis=0))
    n = dof - dof_others
    if n < 1 or dof_others < 1:
        return 1.0
    usual = max(others / dof_others, floor)
    if usual == 0:
        return 1.0
    return float(stats.f.sf(max(whole - others, 0.0) / n / usual, n, dof_others))


def _equal_p(table: Array, floor: float) -> float:
    """Bartlett's test on the residuals of every method; they are nearly independent for many."""
    n_methods = len(table)
    if n_methods < 4:
        return np.nan
    known = np.isfinite(table)
    rest = table - np.nanmean(table, axis=1, keepdims=True)
    rest = rest - np.nanmean(rest, axis=0)
    dofs = known.sum(1) - 1.0
    variances = np.maximum([float(np.nanvar(row, ddof=1)) for row in rest], floor)
    if (variances <= 0).any():
        return np.nan
    total = float(dofs.sum())
    pooled = float(np.sum(dofs * variances)) / total
    chi = total * np.log(pooled) - float(np.sum(dofs * np.log(variances)))
    chi /= 1 + (float(np.sum(1 / dofs)) - 1 / total) / (3 * (n_methods - 1))
    return float(stats.chi2.sf(chi, n_methods - 1))

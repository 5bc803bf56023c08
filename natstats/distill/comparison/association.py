"""Rank correlation of closing the spectral gap with accuracy, between methods and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natstats.law.law import format_p
from natstats.numbers import counted, number

__all__ = ["FEWEST_METHODS", "SEEDS_OF_A_METHOD", "Association", "associate"]

FEWEST_METHODS = 5
"""With fewer methods no arrangement of the ranks has a p-value below 5 %."""

SEEDS_OF_A_METHOD = 3
"""Fewest seeds of one method for which its correlation is computed."""

RESAMPLES = 9999

_IN_WORDS = {"exponent": "exponents", "distance": "spectra"}
"""The measures of the gap, in words."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """How closing one measure of the spectral gap correlates with accuracy. NaN where unknown.

    Attributes:
        measure: ``exponent`` or ``distance``.
        between: Spearman's rank correlation over the means of the methods.
        between_p: p-value of the permutation test that it is zero.
        n_methods: number of methods in it.
        within: mean over methods of the rank correlation over seeds.
        within_p: p-value of the permutation of the seeds of each method among themselves.
        n_within: number of methods in it.
        n_seeds: number of trainings in it.
    """

    measure: str
    between: float = np.nan
    between_p: float = np.nan
    n_methods: int = 0
    within: float = np.nan
    within_p: float = np.nan
    n_within: int = 0
    n_seeds: int = 0

    @property
    def is_known(self) -> bool:
        """Whether either correlation could be computed."""
        return bool(np.isfinite(self.between) or np.isfinite(self.within))

    def sentence(self) -> str:
        """The finding in words; it states a correlation and claims no cause."""
        what = f"closing the gap of the {_IN_WORDS[self.measure]}"
        if not self.is_known:
            there = f"is {self.n_methods}" if self.n_methods == 1 else f"are {self.n_methods}"
            return (
                f"Whether {what} goes with accuracy cannot be said: that takes {FEWEST_METHODS} "
                f"methods whose gap was measured and differs, and there {there}, or a "
                f"method with {SEEDS_OF_A_METHOD} seeds whose gap and accuracy vary."
            )
        parts = []
        if np.isfinite(self.between):
            parts.append(
                f"between {counted(self.n_methods, 'method')} {number(self.between, sign=True)} "
                f"(p {format_p(self.between_p)})"
            )
        if np.isfinite(self.within):
            parts.append(
                f"between seeds of one method {number(self.within, sign=True)} in the mean over "
                f"{counted(self.n_within, 'method')} (p {format_p(self.within_p)}; "
                f"{counted(self.n_seeds, 'training')})"
            )
        return f"Rank correlation of {what} with accuracy: {', '.join(parts)}."


def associate(
    measure: str, closed: Sequence[Array], accuracy: Sequence[Array], seed: int = 0
) -> Association:
    """Rank correlations of closing a gap with accuracy.

    Between methods it is Spearman's, over their means; its p-value comes from all permutations for
    up to seven methods, and from 9999 random ones for more. Within methods it is the mean of their
    own correlations, and the permutations move the seeds of each method among themselves, so that
    differences between methods play no part (a stratified permutation test; Good, "Permutation,
    Parametric and Bootstrap Tests of Hypotheses", 2005, chapter 3).

    Args:
        measure: ``exponent`` or ``distance``.
        closed: decrease of the gap for each method, (seeds,); NaN where it is not known.
        accuracy: the same shapes.
        seed: seed of the random permutations.

    >>> gap = [np.array([0.1 * k, 0.1 * k + 0.01]) for k in range(6)]
    >>> round(associate("exponent", gap, [g + 0.5 for g in gap]).between, 6)
    1.0
    """
    pairs = []
    for x, y in zip(closed, accuracy, strict=True):
        known = np.isfinite(x) & np.isfinite(y)
        if known.any():
            pairs.append((np.asarray(x)[known], np.asarray(y)[known]))
    rng = np.random.default_rng(seed)
    means = np.array([[x.mean(), y.mean()] for x, y in pairs]).reshape(-1, 2)
    between, between_p = np.nan, np.nan
    if len(means) >= FEWEST_METHODS and _varies(means[:, 0]) and _varies(means[:, 1]):
        between, between_p = _permuted(means[:, 0], means[:, 1], rng)
    strata = [(x, y) for x, y in pairs if len(x) >= SEEDS_OF_A_METHOD and _varies(x) and _varies(y)]
    within, within_p = _within(strata, rng)
    return Association(
        measure, between, between_p, len(means), within, within_p, len(strata),
        sum(len(x) for x, _ in strata),
    )  # fmt: skip


def _varies(values: Array) -> bool:
    return bool(np.ptp(values) > 1e-12)


def _standardised(values: Array) -> Array:
    """Ranks, scaled so that the dot product of two of them is the rank correlation."""
    ranks = np.asarray(stats.rankdata(values), dtype=np.float64)
    ranks -= ranks.mean()
    return np.asarray(ranks / np.sqrt(np.sum(ranks**2)))


def _permuted(x: Array, y: Array, rng: np.random.Generator) -> tuple[float, float]:
    first, second = _standardised(x), _standardised(y)
    found = stats.permutation_test(
        (second,), lambda moved, axis: np.sum(first * moved, axis=axis),
        permutation_type="pairings", vectorized=True, n_resamples=RESAMPLES, random_state=rng,
    )  # fmt: skip
    return float(found.statistic), float(found.pvalue)


def _within(strata: Sequence[tuple[Array, Array]], rng: np.random.Generator) -> tuple[float, float]:
    if not strata:
        return np.nan, np.nan
    total = 0.0
    moved = np.zeros(RESAMPLES)
    for x, y in strata:
        first, second = _standardised(x), _standardised(y)
        total += float(first @ second) / len(strata)
        shuffled = rng.permuted(np.tile(second, (RESAMPLES, 1)), axis=1)
        moved += shuffled @ first / len(strata)
    beyond = int(np.sum(np.abs(moved) >= abs(total) - 1e-12))
    return total, (beyond + 1) / (RESAMPLES + 1)

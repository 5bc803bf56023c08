"""Differences of the exponents of many layers, with errors from several independent sources.

A *source* of error is a block of deviations (g, L), the squares of whose columns sum to the
variances that it adds (:mod:`natstats.fits.intervals`): the images that two measurements shared,
the images of one of two that shared none, the seeds of random weights. A combination w of the
differences has the variance sum_s |D_s w|^2, with degrees of freedom by Satterthwaite's rule over
the sources; for one layer of two runs with images of their own that is the test of Welch (1947,
Biometrika 34).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.intervals import effective_dof, t_reach, two_sided_p
from natstats.law.law import Law
from natstats.law.mixtures import Regression
from natstats.law.regression import Design, LayerErrors
from natstats.law.trend import FEWEST_DEPTHS, FEWEST_LAYERS
from natstats.numbers import as_number, change
from natstats.spectra.records import LayerSpectrum

__all__ = [
    "Differences",
    "ErrorSource",
    "Estimate",
    "depths_of",
    "holm",
    "layers_text",
    "slopes_apart",
]  # fmt: skip

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its interval and the test that it is zero. NaN where it is not available.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        p: p-value of Student's t-test that it is zero; 1 when it is exactly zero without any error.
        dof: degrees of freedom.
    """

    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    p: float = np.nan
    dof: float = np.nan

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Estimate:
        """Inverse of :func:`dataclasses.asdict`; None stands for NaN.

        Raises:
            TypeError: a field is unknown, or is no number.
            ValueError: a field is a text of something else.

        >>> Estimate.from_dict({"value": 1.5, "p": None})
        Estimate(value=1.5, low=nan, high=nan, p=nan, dof=nan)
        """
        return cls(**{name: as_number(value) for name, value in values.items()})

    @classmethod
    def of(
        cls,
        value: float,
        variances: Sequence[float],
        dofs: Sequence[float],
        level: float,
        most: float | None = None,
    ) -> Estimate:
        """An estimate whose variance is a sum of independent parts, each with its own dof.

        No more than `most` degrees of freedom come out of Satterthwaite's rule.

        >>> Estimate.of(2.0, [1.0, 1.0], [10.0, 10.0], 0.95).dof
        20.0
        """
        parts = np.asarray(variances, dtype=np.float64)
        total = float(parts.sum())
        if not np.isfinite(value + total):
            return cls()
        if total == 0:
            return cls(value, value, value, 1.0 if value == 0 else np.nan, np.nan)
        dof = float(total**2 / np.sum(parts**2 / np.asarray(dofs)))
        dof = dof if most is None else min(dof, most)
        error = float(np.sqrt(total))
        reach = t_reach(error, dof, level)
        p = two_sided_p(value / error, dof)
        return cls(value, value - reach, value + reach, p, dof)

    def text(self) -> str:
        """The value with its interval."""
        return change(self.value, self.low, self.high)


@dataclass(frozen=True, eq=False)
class ErrorSource:
    """One independent source of error.

    Attributes:
        deviations: deviations of the layers as each group is left out, (g, L); NaN for a layer
            without.
        dof: degrees of freedom of its variance; None for the effective ones of the deviations.
    """

    deviations: Array
    dof: float | None = None

    def __post_init__(self) -> None:
        # A group without images moves nothing, and adds no degree of freedom.
        moved = np.any(np.nan_to_num(self.deviations) != 0, axis=1)
        object.__setattr__(self, "deviations", self.deviations[moved])

    def part(self, weights: Array, chosen: NDArray[np.int64]) -> tuple[float, float]:
        """Variance that it adds to a combination of the chosen layers, and its dof."""
        deviations = self.deviations[:, chosen] @ weights
        dof = float(effective_dof(deviations)) if self.dof is None else self.dof
        return float(deviations @ deviations), dof


class Differences:
    """Differences of the exponents of L layers.

    Args:
        value: difference of each layer, (L,); NaN where there is none.
        sources: sources of error, independent of each other.
        level: level of the intervals.

    >>> images = ErrorSource(np.array([[0.1], [-0.1], [0.1]]))
    >>> Differences(np.array([0.5]), [images], 0.95).each()[0].dof
    2.0
    """

    def __init__(self, value: Array, sources: Sequence[ErrorSource], level: float) -> None:
        self.value = value
        self.sources = list(sources)
        self.level = level

    def _combine(self, weights: Array, chosen: NDArray[np.int64]) -> Estimate:
        parts = [source.part(weights, chosen) for source in self.sources]
        return self._estimate(float(weights @ self.value[chosen]), parts)

    def _estimate(self, value: float, parts: Sequence[tuple[float, float]]) -> Estimate:
        """From the variances that the sources add, and their degrees of freedom."""
        variances, dofs = zip(*parts, strict=True)
        # A variance from two or three seeds is small by chance in some of many layers, which would
        # then get the many degrees of freedom of the images by Satterthwaite's rule.
        most = min((source.dof for source in self.sources if source.dof is not None), default=None)
        return Estimate.of(value, variances, dofs, self.level, most)

    def each(self) -> list[Estimate]:
        """The difference of every layer."""
        one = np.ones(1)
        return [self._combine(one, np.array([place])) for place in range(len(self.value))]

    def mean(self, chosen: Sequence[int]) -> Estimate:
        """Mean over the chosen layers; it says nothing about layers that are not there."""
        if not len(chosen):
            return Estimate()
        return self._combine(np.full(len(chosen), 1 / len(chosen)), np.array(chosen))

    def slope(self, depth: Array, chosen: Sequence[int]) -> Estimate:
        """Slope of the differences against depth (L,), over the chosen layers.

        It is free of what both networks share: the errors of common images, and the scatter about
        the line that a kind of layer has in both. The slopes of the two laws differ by about as
        much, but not exactly: each of the three fits weights the layers by its own scatter.
        """
        places, regression = self._line(depth, chosen)
        if regression is None:
            return Estimate()
        if not self.value[places].any() and not self._of_images(places).any():
            return Estimate.of(0.0, [0.0], [1.0], self.level)
        slope, weights = regression.coefficient(1), regression.mean_rows[1]
        others = [s.part(weights, places) for s in self.sources if s.dof is not None]
        own = slope.variance, float(slope.weight @ slope.dof)
        return self._estimate(slope.mean, [own, *others])

    def slope_weights(self, depth: Array, chosen: Sequence[int]) -> Array:
        """Weights under which the sum of the exponents of all layers is that slope, (L,).

        With them the slope of the differences is the difference of the slopes.
        """
        places, regression = self._line(depth, chosen)
        weights = np.zeros(len(self.value))
        if regression is not None:
            weights[places] = regression.mean_rows[1]
        return weights

    def _line(
        self, depth: Array, chosen: Sequence[int]
    ) -> tuple[NDArray[np.int64], Regression | None]:
        """Places of the chosen layers that have a depth, and the line through their differences."""
        places = np.array(chosen, dtype=np.int64)
        places = places[np.isfinite(depth[places])]
        depth = depth[places]
        if len(places) < FEWEST_LAYERS or len(set(depth)) < FEWEST_DEPTHS:
            return places, None
        line = np.stack([np.ones_like(depth), depth], axis=1)
        errors = LayerErrors(self.value[places], self._of_images(places))
        return places, errors.regress(Design(line, depth))

    def _of_images(self, places: NDArray[np.int64]) -> Array:
        """Deviations of all groups of images, (g, n)."""
        images = [s.deviations[:, places] for s in self.sources if s.dof is None]
        return np.concatenate(images)


def layers_text(n: int) -> str:
    """A number of layers, in words.

    >>> layers_text(1), layers_text(2)
    ('1 layer', '2 layers')
    """
    return "1 layer" if n == 1 else f"{n} layers"


def slopes_apart(first: Law, second: Law, level: float) -> Estimate:
    """Slope of the second law minus that of the first, taken as independent."""
    variances = [law.covariance[1][1] for law in (first, second)]
    return Estimate.of(second.slope - first.slope, variances, [first.dof, second.dof], level)


def holm(p: Array) -> Array:
    """P-values corrected for their number by Holm's (1979) rule; NaN stays and does not count.

    >>> holm(np.array([0.01, np.nan, 0.04])).round(3).tolist()
    [0.02, nan, 0.04]
    """
    from statsmodels.stats.multitest import multipletests

    corrected = np.full(len(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        corrected[known] = multipletests(p[known], method="holm")[1]
    return corrected


def depths_of(spectra: Sequence[LayerSpectrum], measure: str) -> Array:
    """Depth of every layer by a measure of depth, (L,); NaN where it is not known."""
    layers = pd.DataFrame([vars(measured.layer) for measured in spectra])
    return DEPTH_AXES[measure].values(layers) if len(layers) else np.zeros(0)

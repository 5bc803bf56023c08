"""Coefficients of which two parameters of the errors were integrated out: mixtures over a grid.

:mod:`natstats.law.regression` makes them, and says of what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Mixture", "Regression"]

MOST_STEPS = 60
"""Steps to the end of an interval; Newton's take about five."""

NEGLIGIBLE = 1e-7
"""Points of the grid with less than this share of the largest weight are left out."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mixture:
    """A coefficient as a mixture of Student's t distributions, one for each point of the grid.

    Attributes:
        weight: of the points, summing to 1, (N,).
        value: centre of each, (N,).
        error: scale of each, (N,).
        dof: degrees of freedom of each, (N,).
    """

    weight: Array
    value: Array
    error: Array
    dof: Array

    @property
    def mean(self) -> float:
        """The estimate."""
        return float(self.weight @ self.value)

    @property
    def variance(self) -> float:
        """Mean square of the errors, and the spread of the centres."""
        return float(self.weight @ (self.error**2 + (self.value - self.mean) ** 2))

    def below(self, x: float) -> float:
        """Share of the mixture below `x`."""
        return float(self._below(np.array([x]))[0])

    @property
    def _positive(self) -> Array:
        """The scales; a part without any has next to none."""
        least = max(1e-12 * float(self.error.max()), 1e-150)
        return np.maximum(self.error, least)

    def _below(self, x: Array) -> Array:
        shares = special.stdtr(self.dof, (x[:, None] - self.value) / self._positive)
        return np.asarray(shares @ self.weight)

    def _density(self, x: Array) -> Array:
        t = (x[:, None] - self.value) / self._positive
        half = (self.dof + 1) / 2
        scale = np.exp(special.gammaln(half) - special.gammaln(self.dof / 2))
        scale /= np.sqrt(self.dof * np.pi) * self._positive
        return np.asarray((1 + t**2 / self.dof) ** -half @ (scale * self.weight))

    def interval(self, level: float) -> tuple[float, float]:
        """The ends that leave half of what `level` leaves on either side."""
        shares = np.array([0.5 - level / 2, 0.5 + level / 2])
        # No part of the mixture has its own quantile beyond the smallest and the largest of them.
        ends = self.value + special.stdtrit(self.dof, shares[:, None]) * self.error
        low, high = ends.min(axis=1), ends.max(axis=1)
        x, exact = ends @ self.weight, 1e-7 * (high[1] - low[0])
        for _ in range(MOST_STEPS):
            if np.all(high - low <= exact):
                break
            away = self._below(x) - shares
            low, high = np.where(away < 0, x, low), np.where(away < 0, high, x)
            newton = x - away / self._density(x)
            inside = (low < newton) & (newton < high)
            before, x = x, np.where(inside, newton, (low + high) / 2)
            if np.all(np.abs(x - before) <= exact):
                break
        return float(x[0]), float(x[1])

    def p(self) -> float:
        """Two-sided p of the test that the coefficient is zero; 0.05 where a 95 % interval ends."""
        if not np.any(self.error > 0):
            return 1.0 if self.mean == 0 else np.nan
        # Both tails for themselves: one less the other would be rounded to zero, or below it.
        return min(2 * min(self.below(0.0), replace(self, value=-self.value).below(0.0)), 1.0)


@dataclass(frozen=True, eq=False)
class Regression:
    """Coefficients of a design, with the errors that the model gives them.

    Attributes:
        weight: of the points of the grid, (N,).
        coefficients: at each point, (N, p).
        covariance: of the coefficients at each point, (N, p, p).
        dof: degrees of freedom of each coefficient's variance, (N, p).
        rows: what the exponents are multiplied by to give the coefficients, (N, p, L).
        phi: correlation of neighbours at each point, (N,).
        stage_sd: standard deviation of what stages share, in units of tau, (N,).
        variance: tau^2 at each point, (N,).
    """

    weight: Array
    coefficients: Array
    covariance: Array
    dof: Array
    rows: Array
    phi: Array
    stage_sd: Array
    variance: Array

    def coefficient(self, column: int) -> Mixture:
        """One of the coefficients."""
        # Points without weight would take most of the time.
        kept = self.weight > NEGLIGIBLE * self.weight.max()
        weight = self.weight[kept] / self.weight[kept].sum()
        variance = np.maximum(self.covariance[kept, column, column], 0.0)
        return Mixture(
            weight, self.coefficients[kept, column], np.sqrt(variance), self.dof[kept, column]
        )

    @property
    def mean(self) -> Array:
        """The estimates, (p,)."""
        return np.asarray(self.weight @ self.coefficients)

    @property
    def mean_covariance(self) -> Array:
        """Covariance of the estimates, with the spread of the centres, (p, p)."""
        apart = self.coefficients - self.mean
        spread = np.einsum("v,vi,vj->ij", self.weight, apart, apart)
        return np.asarray(np.einsum("v,vij->ij", self.weight, self.covariance) + spread)

    @property
    def mean_rows(self) -> Array:
        """What the exponents are multiplied by to give the estimates, (p, L)."""
        return np.asarray(np.einsum("v,vpl->pl", self.weight, self.rows))

    @property
    def correlation(self) -> float:
        """Mean of phi."""
        return float(self.weight @ self.phi)

    def correlation_interval(self, level: float) -> tuple[float, float]:
        """Ends of the interval of phi, on its grid."""
        phi, place = np.unique(self.phi, return_inverse=True)
        share = np.cumsum(np.bincount(place, self.weight))
        tail = (1 - level) / 2
        low, high = np.searchsorted(share, [tail, 1 - tail])
        return float(phi[low]), float(phi[min(high, len(phi) - 1)])

    @property
    def scatter_sd(self) -> float:
        """Standard deviation of the layers about the design, stages and all."""
        return float(np.sqrt(self.weight @ (self.variance * (1 + self.stage_sd**2))))

    @property
    def stage_share(self) -> float:
        """Share of that variance which stages have in common."""
        return float(self.weight @ (self.stage_sd**2 / (1 + self.stage_sd**2)))

    def joint_p(self, columns: Sequence[int]) -> float:
        """P of the F test that these coefficients are all zero, averaged over the grid."""
        k, chosen = len(columns), np.ix_(range(len(self.weight)), columns, columns)
        values, covariance = self.coefficients[:, columns], self.covariance[chosen]
        if not np.all(np.linalg.eigvalsh(covariance) > 0):
            return float("nan")
        solved = np.linalg.solve(covariance, values[..., None])[..., 0]
        wald = np.einsum("vi,vi->v", values, solved) / k
        dof = 1 / np.mean(1 / self.dof[:, columns], axis=1)
        return float(self.weight @ special.fdtrc(k, dof, wald))

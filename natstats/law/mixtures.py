"""Coefficients of a regression whose two error parameters are integrated out: mixtures over a grid.

:mod:`natstats.law.regression` makes them, and describes the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Mixture", "Regression", "intervals_of", "p_values_of"]

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
        """Mean square of the errors, plus the spread of the centres."""
        return float(self.weight @ (self.error**2 + (self.value - self.mean) ** 2))

    def below(self, x: float) -> float:
        """Share of the mixture below `x`."""
        return float(_Stack([self]).below(np.array([x]))[0])

    def interval(self, level: float) -> tuple[float, float]:
        """The ends of the interval, with a share of (1 - `level`) / 2 beyond each."""
        return intervals_of([self], level)[0]

    def p(self) -> float:
        """Two-sided p of the test that the coefficient is zero; 0.05 where a 95 % interval ends."""
        return p_values_of([self])[0]


class _Stack:
    """Several mixtures as arrays (M, N); short ones are padded with parts of no weight."""

    def __init__(self, mixtures: Sequence[Mixture]) -> None:
        most = max(len(one.weight) for one in mixtures)

        def stacked(name: str, filler: float | None = None) -> Array:
            rows = [getattr(one, name) for one in mixtures]
            ends = [row[0] if filler is None else filler for row in rows]
            filled = [
                row if len(row) == most else np.append(row, np.full(most - len(row), end))
                for row, end in zip(rows, ends, strict=True)
            ]
            return np.stack(filled)

        self.weight = stacked("weight", 0.0)
        self.value, self.error, self.dof = stacked("value"), stacked("error"), stacked("dof")
        # The scales to divide by; a scale of zero is replaced by a tiny one.
        least = np.maximum(1e-12 * self.error.max(axis=1, keepdims=True), 1e-150)
        self.positive = np.maximum(self.error, least)

    def some(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> _Stack:
        """Some of the mixtures, or all of them more than once."""
        part = object.__new__(_Stack)
        for name, values in vars(self).items():
            setattr(part, name, values[chosen])
        return part

    def below(self, x: Array) -> Array:
        """Share of each mixture below its x, (M,)."""
        shares = special.stdtr(self.dof, (x[:, None] - self.value) / self.positive)
        return np.asarray(np.sum(shares * self.weight, axis=1))

    def prepare_density(self) -> None:
        """Prepare what all densities of a part share."""
        half = (self.dof + 1) / 2
        scale = np.exp(special.gammaln(half) - special.gammaln(self.dof / 2))
        self.height = scale / (np.sqrt(self.dof * np.pi) * self.positive) * self.weight

    def density(self, x: Array) -> Array:
        """Density of each mixture at its x, (M,), after :meth:`prepare_density`."""
        t = (x[:, None] - self.value) / self.positive
        power = (1 + t**2 / self.dof) ** -((self.dof + 1) / 2)
        return np.asarray(np.sum(power * self.height, axis=1))


def intervals_of(mixtures: Sequence[Mixture], level: float) -> list[tuple[float, float]]:
    """The ends of the interval of each mixture, with a share of (1 - `level`) / 2 beyond each."""
    whole = _Stack(mixtures)
    whole.prepare_density()
    reach = special.stdtrit(whole.dof, 0.5 + level / 2) * whole.error
    # A quantile of the mixture lies between the smallest and the largest of its parts' quantiles.
    ends = np.concatenate([whole.value - reach, whole.value + reach])
    shares = np.repeat([0.5 - level / 2, 0.5 + level / 2], len(mixtures))
    whole = whole.some(np.tile(np.arange(len(mixtures)), 2))
    low, high = ends.min(axis=1), ends.max(axis=1)
    x = np.sum(ends * whole.weight, axis=1)
    exact = 1e-7 * np.tile(high[len(mixtures) :] - low[: len(mixtures)], 2)
    for _ in range(MOST_STEPS):
        left = high - low > exact
        if not left.any():
            break
        part, at = whole.some(left), x[left]
        away = part.below(at) - shares[left]
        under, over = np.where(away < 0, at, low[left]), np.where(away < 0, high[left], at)
        newton = at - away / part.density(at)
        inside = (under < newton) & (newton < over)
        x[left] = np.where(inside, newton, (under + over) / 2)
        is_found = np.abs(x[left] - at) <= exact[left]  # what hardly moved
        low[left], high[left] = np.where(is_found, x[left], [under, over])
    return [(float(one), float(two)) for one, two in x.reshape(2, -1).T]


def p_values_of(mixtures: Sequence[Mixture]) -> list[float]:
    """Two-sided p of the test that each coefficient is zero."""
    whole = _Stack(mixtures)
    # Each tail is summed by itself: 1 minus the other would be rounded to zero, or below it.
    tail = special.stdtr(whole.dof, -np.abs(whole.value) / whole.positive)
    is_above = whole.value > 0
    under, over = (
        np.sum(np.where(is_small, tail, 1 - tail) * whole.weight, axis=1)
        for is_small in (is_above, ~is_above)
    )
    p = np.minimum(2 * np.minimum(under, over), 1.0)
    return [
        float(own) if np.any(one.error > 0) else 1.0 if one.mean == 0 else np.nan
        for own, one in zip(p, mixtures, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Regression:
    """Coefficients of a design, with the errors that the model gives them.

    Attributes:
        weight: of the points of the grid, (N,).
        coefficients: at each point, (N, p).
        covariance: of the coefficients at each point, (N, p, p).
        dof: degrees of freedom of each coefficient's variance, (N, p).
        rows: matrix that turns the exponents into the coefficients at each point, (N, p, L).
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
        """Matrix that turns the exponents into the estimates, (p, L)."""
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
        """Standard deviation of the layers about the design, with what stages have in common."""
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

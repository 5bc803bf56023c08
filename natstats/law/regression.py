"""Regression of exponents whose scatter hangs together: what the law and its tests rest on.

The exponents of the layers of a network have errors from two sources.

* The images: covariance S = D'D with D the deviations of the groups of images
  (:mod:`natstats.fits.intervals`), which layers share.
* The layers themselves: a scatter about the design, of covariance tau^2 (R(phi) + lambda Z Z'). In
  R(phi) neighbours in the order of depth have correlation phi, those k apart phi^k; Z Z' holds what
  all layers of one stage (maps of one size) have in common. With phi = lambda = 0 every layer would
  be a witness of its own, which real networks are not: their neighbours are alike.

phi and lambda are not estimated and then taken as known, which gives intervals that are too short,
but integrated out: on a grid of both, generalised least squares gives coefficients, their errors
and the restricted likelihood of the residuals, and the result is the mixture of Student's t
distributions under the normalised likelihood. The prior is proportional to (1 - phi^2)^(-1/4), half
way between flat and the reference prior for an autoregression (Berger and Yang 1994, Econometric
Theory 10), and flat in sqrt(lambda), with one sixth at zero. analyses/calibration.py has the rates.

At each point of the grid, with V = R + lambda Z Z', W its inverse, P the matrix with the residual
sum of squares r = a'Pa and e = tr(P S) what the images add to it,

    r >= e:  covariance V tau^2 + S,  tau^2 = (r - e) / (n - p);
    r <  e:  covariance S max(r / e, 1/2), the scatter being smaller than S would have it.

The weights of the layers come from V alone: S is estimated from few images, and where an error that
all layers share differs in size from layer to layer, a line weighted by it runs beside the points
(Peelle's puzzle). Degrees of freedom follow from Satterthwaite's rule: n - p for what the residuals
tell, less one for every stage but the first where lambda > 0, and the effective ones of the
deviations for what shared errors add.

This model is ours. How the authors of the paper fitted and tested their law is not known to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.fits.intervals import effective_dof
from natstats.law.mixtures import Regression

__all__ = ["Design", "LayerErrors", "dummies"]

LEAST_SCALE = 0.5
"""The covariance of the images' errors is not scaled down by more than this."""

PHI_RANGE = (-0.5, 0.98)
"""Correlations of neighbours that are taken to be possible."""

STAGE_SD = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
"""Standard deviations of what stages have in common, in units of tau."""

_STAGE_PRIOR = (2.0, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 1.5)
"""Their prior: flat by the trapezoid rule, but for zero, which has twice the weight of the next."""

Array = NDArray[np.float64]


@lru_cache(maxsize=1)
def _correlations() -> tuple[Array, Array]:
    """The grid of phi, and the log of its prior, (16,) each.

    Even steps in arcsin(phi) put more points where phi is large and matters most.
    """
    low, high = np.arcsin(PHI_RANGE)
    phi: Array = np.sin(np.linspace(low, high, 16))
    return phi, 0.25 * np.log1p(-(phi**2))


def dummies(labels: Sequence[Any]) -> Array:
    """One column of zeros and ones for each label, (L, n_labels).

    >>> dummies(["28", "14", "28"]).tolist()
    [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    names = sorted(set(labels), key=str)
    return np.array([[float(name == own) for name in names] for own in labels])


class Design:
    """A design of layers in an order, prepared for any exponents of these layers.

    Args:
        columns: the design, (L, p), L > p.
        order: what the layers are ordered by, such as their depth, (L,); ties keep their order.
        stages: a label of each layer's stage, (L,); None where stages have nothing in common.

    Attributes:
        phi: correlation of neighbours at each point of the grid, (N,).
        stage_sd: standard deviation of what stages share, in units of tau, (N,).
        unit_covariance: of the coefficients, for tau = 1, (N, p, p).
        rows: what exponents are multiplied by to give the coefficients, (N, p, L).
        log_weight: log of prior and restricted likelihood, but for what residuals add, (N,).
        dof: degrees of freedom of the residuals, (N,).
        n_spare: L - p.
    """

    def __init__(self, columns: Array, order: Array, stages: Sequence[Any] | None = None) -> None:
        n, p = columns.shape
        phi, prior = _correlations()
        sd, stage_prior, shared = np.zeros(1), np.ones(1), np.zeros((n, 0))
        if stages is not None and 1 < len(set(stages)) < n:
            sd, stage_prior, shared = np.array(STAGE_SD), np.array(_STAGE_PRIOR), dummies(stages)
        self.phi, self.stage_sd = np.repeat(phi, len(sd)), np.tile(sd, len(phi))
        # W = R^-1 - T K T' by Woodbury's identity, T = R^-1 Z, K = (1 / lambda + Z' R^-1 Z)^-1; the
        # matrices of L x L are made for every phi only, and those of the stages are small.
        self._inverse = _inverse_correlation(phi, np.argsort(np.argsort(order, kind="stable")))
        self._turned = self._inverse @ shared
        inner = shared.T @ self._turned
        self._middle, log_det = _stage_parts(inner, sd)
        log_det += np.repeat((n - 1) * np.log1p(-(phi**2)), len(sd))
        weighted = self._weigh(columns)
        information = weighted @ columns
        self.unit_covariance = np.linalg.inv(information)
        self.rows = self.unit_covariance @ weighted
        self._information = information
        log_prior = np.repeat(prior, len(sd)) + np.tile(np.log(stage_prior), len(phi))
        self.log_weight = log_prior - (log_det + np.linalg.slogdet(information)[1]) / 2
        extra = max(shared.shape[1] - 1, 0)
        self.dof = np.where(self.stage_sd > 0, max(n - p - extra, 1), n - p)
        self.n_spare = n - p

    def _for_stages(self, of_phi: Array) -> Array:
        """What is known for every phi, repeated for every point of the grid."""
        return np.repeat(of_phi, len(self.phi) // len(of_phi), axis=0)

    def _weigh(self, columns: Array) -> Array:
        """(L, p) columns, turned, times W, (N, p, L)."""
        plain, part = columns.T @ self._inverse, columns.T @ self._turned
        turned = self._for_stages(self._turned)
        lost = self._for_stages(part) @ self._middle @ turned.transpose(0, 2, 1)
        return np.asarray(self._for_stages(plain) - lost)

    def residual_squares(self, exponent: Array, coefficients: Array) -> Array:
        """What the design leaves, a'Pa: a'Wa less what the coefficients (N, p) explain, (N,)."""
        plain: Array = np.einsum("i,kij,j->k", exponent, self._inverse, exponent)
        part = self._for_stages(exponent @ self._turned)
        lost = np.einsum("vi,vij,vj->v", part, self._middle, part)
        explained = np.einsum("vi,vij,vj->v", coefficients, self._information, coefficients)
        rest: Array = self._for_stages(plain) - lost - explained
        return np.maximum(rest, 0.0)

    def expected_squares(self, covariance: Array, shared: Array) -> Array:
        """The trace of P S for a covariance S; `shared` is that of the coefficients, (N,)."""
        plain: Array = np.tensordot(self._inverse, covariance, 2)
        part = self._turned.transpose(0, 2, 1) @ covariance @ self._turned
        lost = np.einsum("vij,vji->v", self._middle, self._for_stages(part))
        explained = np.einsum("vij,vji->v", self._information, shared)
        rest: Array = self._for_stages(plain) - lost - explained
        return np.maximum(rest, 0.0)


def _inverse_correlation(phi: Array, place: NDArray[np.intp]) -> Array:
    """Inverse of R(phi) for layers at these places in the order, (K, n, n).

    In order it is tridiagonal: 1 at both ends and 1 + phi^2 between, -phi beside, over 1 - phi^2.
    """
    n, at = len(place), np.arange(len(place))
    ordered = np.zeros((len(phi), n, n))
    ordered[:, at, at] = 1 + phi[:, None] ** 2
    ordered[:, [0, -1], [0, -1]] = 1.0
    ordered[:, at[1:], at[:-1]] = ordered[:, at[:-1], at[1:]] = -phi[:, None]
    ordered /= (1 - phi**2)[:, None, None]
    return ordered[:, place][:, :, place]


def _stage_parts(inner: Array, sd: Array) -> tuple[Array, Array]:
    """K for every phi and stage sd, (N, k, k), and what stages add to the log determinant, (N,)."""
    n_phi, k, _ = inner.shape
    shares = sd[None, :, None, None] ** 2 * inner[:, None]
    whole = np.eye(k) + shares
    # (1 / lambda + Z'R^-1 Z)^-1 = lambda (1 + lambda Z'R^-1 Z)^-1, which holds for lambda = 0, too.
    middle = sd[None, :, None, None] ** 2 * np.linalg.inv(whole)
    log_det = np.linalg.slogdet(whole)[1]
    return middle.reshape(n_phi * len(sd), k, k), log_det.reshape(-1)


class LayerErrors:
    """Exponents (L,) with the deviations of their groups of images, (G, L)."""

    def __init__(self, exponent: Array, deviations: Array) -> None:
        self.exponent = exponent
        self.deviations = deviations
        self.covariance = deviations.T @ deviations

    def regress(self, design: Design) -> Regression:
        """Fit exponent = columns @ coefficients, with what the design was prepared for."""
        n_spare, rows, own = design.n_spare, design.rows, design.unit_covariance
        coefficients = rows @ self.exponent
        shared = rows @ self.covariance @ rows.transpose(0, 2, 1)
        found = design.residual_squares(self.exponent, coefficients)
        expected = design.expected_squares(self.covariance, shared)
        positive = np.where(expected > 0, expected, 1.0)
        scale = np.where(expected > 0, np.clip(found / positive, LEAST_SCALE, 1.0), 1.0)
        variance = np.maximum(found - expected, 0.0) / n_spare
        covariance = scale[:, None, None] * shared + variance[:, None, None] * own

        # A constant that residuals cannot fall below keeps the logarithm finite for exact lines.
        least = 1e-24 * max(float(self.exponent @ self.exponent), 1e-300)
        log_weight = design.log_weight - n_spare / 2 * np.log(np.maximum(found, least))
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()

        # Satterthwaite: the part seen in the residuals, and the excess of the shared errors.
        total, images, alone = (
            np.diagonal(one, axis1=1, axis2=2) for one in (covariance, shared, own)
        )
        largest = np.maximum(total, images)
        largest = np.where(largest > 0, largest, 1.0)
        from_residuals = alone * (found / n_spare)[:, None] / largest
        excess = (images - alone * (expected / n_spare)[:, None]) / largest
        part = np.where((found < expected)[:, None], 1.0, from_residuals)
        of_images = effective_dof(self.deviations @ np.einsum("v,vpl->lp", weight, rows))
        inverse_dof = part**2 / design.dof[:, None] + excess**2 / of_images
        return Regression(
            weight,
            coefficients,
            covariance,
            np.maximum(1 / np.maximum(inverse_dof, 1e-12), 1.0),
            rows,
            design.phi,
            design.stage_sd,
            variance,
        )

    def log_likelihoods(
        self, columns: Array, order: Array, parts: Sequence[Sequence[int]]
    ) -> Array:
        """Largest Gaussian log likelihoods of several designs, over phi, tau^2 and coefficients.

        For AICc, which asks for the likelihood as it is: V = S + tau^2 R(phi), without prior.

        Args:
            columns: columns of all designs, (L, c).
            order: what the layers are ordered by, (L,).
            parts: which of them each design has.

        Returns:
            One for each design.
        """
        n = len(self.exponent)
        phi = _correlations()[0]
        place = np.argsort(np.argsort(order, kind="stable"))
        correlation = phi[:, None, None] ** np.abs(place[:, None] - place)
        # tau^2 from a thousandth of the variance of the exponents (as good as none) up.
        start = max(float(np.var(self.exponent)), 1e-6 * float(np.trace(self.covariance)), 1e-12)
        variances = start * np.geomspace(1e-3, 6.0, 12)
        covariance = self.covariance + variances[:, None, None, None] * correlation
        factor = np.linalg.cholesky(covariance.reshape(-1, n, n))
        log_det = 2 * np.sum(np.log(np.diagonal(factor, axis1=1, axis2=2)), axis=1)
        both = np.column_stack([columns, self.exponent])
        white = np.linalg.solve(factor, np.broadcast_to(both, (len(factor), *both.shape)))
        gram = white.transpose(0, 2, 1) @ white
        found = []
        for part in parts:
            moment = gram[:, part, -1]
            inner = gram[:, np.asarray(part)[:, None], np.asarray(part)]
            fit = np.linalg.solve(inner, moment[..., None])[..., 0]
            rest = gram[:, -1, -1] - np.einsum("vi,vi->v", moment, fit)
            found.append(float(np.max(-0.5 * (n * np.log(2 * np.pi) + log_det + rest))))
        return np.array(found)

"""Regression of exponents with correlated scatter, on which the law and its tests rest.

The exponents of the layers of a network have errors from two sources.

* The images: covariance S = D'D with D the deviations of the groups of images
  (:mod:`natstats.fits.intervals`), which layers share.
* The layers themselves: a scatter about the design, of covariance tau^2 (R(phi) + lambda Z Z'). In
  R(phi) neighbours in the order of depth have correlation phi, those k apart phi^k; Z Z' holds what
  all layers of one stage (maps of one size) have in common. With phi = lambda = 0 the layers would
  be independent, which those of real networks are not: neighbours are alike.

phi and lambda are not estimated and then taken as known, which gives intervals that are too short,
but integrated out: on a grid of both, generalised least squares gives coefficients, their errors
and the restricted likelihood of the residuals, and the result is the mixture of Student's t
distributions under the normalised likelihood. The prior is proportional to (1 - phi^2)^(-1/4), half
way between flat and the reference prior for an autoregression (Berger and Yang 1994, Econometric
Theory 10), and flat in sqrt(lambda), with an eighth at zero. analyses/calibration.py measures the
error rates.

At each point of the grid, with V = R + lambda Z Z', W its inverse, P the matrix with the residual
sum of squares r = a'Pa and e = tr(P S) what the images add to it,

    r >= e:  covariance V tau^2 + S,  tau^2 = (r - e) / (n - p);
    r <  e:  covariance S max(r / e, 1/2), the scatter being smaller than S alone predicts.

The weights of the layers come from V alone, with nu on its diagonal for the part of S that acts as
noise of single layers and would hide phi, nu = e / (r - e) of the least-squares fit. Weights from
all of S would do harm: it is estimated from few images, and where an error that all layers share
differs in size from layer to layer, a line weighted by it misses the points (Peelle's puzzle).

Degrees of freedom follow from Satterthwaite's rule: n - p for what the residuals tell, less one for
every stage but the first where lambda > 0, and the effective ones of the deviations for what shared
errors add.

This model is ours. How the authors of the paper fitted and tested their law is not known to us.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.fits.intervals import effective_dof
from natstats.law.mixtures import Regression

__all__ = ["NUGGETS", "Design", "LayerErrors", "PreparedDesign", "dummies", "regress_together"]

LEAST_SCALE = 0.5
"""The covariance of the images' errors is not scaled down by more than this."""

PHI_RANGE = (-0.5, 0.98)
"""Correlations of neighbours that are taken to be possible."""

STAGE_SD = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0)
"""Standard deviations of what stages have in common, in units of tau."""

_STAGE_PRIOR = (1.5, 1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 1.5)
"""Their prior: flat by the trapezoid rule, but for zero, which has three times its share, and the
last, which has half as much again for what lies beyond."""

NUGGETS = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Values of nu, the variance that images add to single layers, in units of tau^2."""

TRUSTED = 0.7
"""Share of the estimated nu that is used: few layers estimate it roughly, and too small a value
does less harm than too large a one."""

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
    """A design of layers in an order, for any exponents of these layers.

    Args:
        columns: the design, (L, p), L > p.
        order: what the layers are ordered by, such as their depth, (L,); ties keep their order.
        stages: a label of each layer's stage, (L,); None where stages have nothing in common.
    """

    def __init__(self, columns: Array, order: Array, stages: Sequence[Any] | None = None) -> None:
        self.columns = columns
        self.place = np.argsort(np.argsort(order, kind="stable"))
        self.shared = np.zeros((len(columns), 0))
        if stages is not None and 1 < len(set(stages)) < len(columns):
            self.shared = dummies(stages)
        self._basis = np.linalg.qr(columns)[0]
        self._prepared: dict[float, PreparedDesign] = {}

    def prepared(self, nugget: float = 0.0) -> PreparedDesign:
        """What depends on the design alone, for one of :data:`NUGGETS`; made once and kept."""
        if nugget not in self._prepared:
            self._prepared[nugget] = PreparedDesign(self, nugget)
        return self._prepared[nugget]

    def nugget(self, exponent: Array, deviations: Array) -> float:
        """The largest of :data:`NUGGETS` up to :data:`TRUSTED` times the estimated nu."""
        basis = self._basis
        rest = exponent - basis @ (basis.T @ exponent)
        noise = deviations - (deviations @ basis) @ basis.T
        found, expected = float(rest @ rest), float(np.sum(noise**2))
        ratio = expected / max(found - expected, 1e-3 * found, 1e-300)
        return max(nugget for nugget in NUGGETS if nugget <= TRUSTED * ratio)


class PreparedDesign:
    """A design over the grid of phi and lambda, for one nugget nu.

    Attributes:
        phi: correlation of neighbours at each point of the grid, (N,).
        stage_sd: standard deviation of what stages share, in units of tau, (N,).
        rows: matrix that turns exponents into coefficients at each point, (N, p, L).
        total: covariance of the coefficients for a covariance V + nu I, (N, p, p).
        own: the same for V alone, (N, p, p).
        spare: expectation of a'Pa for a covariance V alone, (N,).
        all_spare: the same for V + nu I, which is L - p, (N,).
        log_weight: log of prior and restricted likelihood, but for what residuals add, (N,).
        dof: degrees of freedom of the residuals, (N,).
        n_spare: L - p.
    """

    def __init__(self, design: Design, nugget: float) -> None:
        columns, shared = design.columns, design.shared
        n, p = columns.shape
        phi, prior = _correlations()
        has_stages = shared.shape[1] > 0
        sd, stage_prior = (STAGE_SD, _STAGE_PRIOR) if has_stages else ((0.0,), (1.0,))
        self.phi, self.stage_sd = np.repeat(phi, len(sd)), np.tile(sd, len(phi))
        # W = Q - T K T' by Woodbury's identity: Q the inverse of R + nu I, T = Q Z,
        # K = (1 / lambda + Z' Q Z)^-1. Matrices of L x L are made for every phi only, and those of
        # the stages are small.
        self._inverse, log_det = _inverse_correlation(phi, design.place, nugget)
        self._turned = self._inverse @ shared
        self._middle, log_stages = _stage_parts(shared.T @ self._turned, np.array(sd))
        weighted = self._weigh(columns)
        self._information = weighted @ columns
        self.total = np.linalg.inv(self._information)
        self.rows = self.total @ weighted
        log_prior = np.repeat(prior, len(sd)) + np.tile(np.log(stage_prior), len(phi))
        log_det = np.repeat(log_det, len(sd)) + log_stages
        log_det += np.linalg.slogdet(self._information)[1]
        self.log_weight = log_prior - log_det / 2
        self.dof = np.where(self.stage_sd > 0, max(n - p - max(shared.shape[1] - 1, 0), 1), n - p)
        self.n_spare = n - p
        self.all_spare: Array = np.full(len(self.phi), float(n - p))
        squares = self.rows @ self.rows.transpose(0, 2, 1)
        self.own = self.total - nugget * squares
        self.spare: Array = (
            n - p - nugget * self.expected_squares(np.eye(n)[None], squares[None])[0]
        )

    def _for_stages(self, of_phi: Array) -> Array:
        """What is known for every phi, repeated for every point of the grid."""
        return np.repeat(of_phi, len(self.phi) // len(of_phi), axis=0)

    def _weigh(self, columns: Array) -> Array:
        """(L, p) columns, turned, times W, (N, p, L)."""
        plain, part = columns.T @ self._inverse, columns.T @ self._turned
        turned = self._for_stages(self._turned)
        lost = self._for_stages(part) @ self._middle @ turned.transpose(0, 2, 1)
        return np.asarray(self._for_stages(plain) - lost)

    def residual_squares(self, exponents: Array, coefficients: Array) -> Array:
        """What the design leaves, a'Pa: a'Wa less what the coefficients explain.

        Args:
            exponents: M times those of the layers, (M, L).
            coefficients: at each point, (M, N, p).

        Returns:
            (M, N).
        """
        plain = np.sum((self._inverse @ exponents.T) * exponents.T, axis=1)
        part = self._for_stages(exponents @ self._turned)
        lost = np.sum((part @ self._middle) * part, axis=2)
        turned = coefficients.transpose(1, 0, 2)
        explained = np.sum((turned @ self._information) * turned, axis=2)
        rest: Array = self._for_stages(plain) - lost - explained
        return np.maximum(rest, 0.0).T

    def expected_squares(self, covariances: Array, shared: Array) -> Array:
        """The trace of P S for covariances S of the layers, (M, L, L); (M, N).

        `shared` are the covariances of the coefficients, (M, N, p, p).
        """
        n_points, n_covariances = len(self._inverse), len(covariances)
        plain = self._inverse.reshape(n_points, -1) @ covariances.reshape(n_covariances, -1).T
        part = self._turned.transpose(0, 2, 1) @ covariances[:, None] @ self._turned
        part = self._for_stages(part.swapaxes(0, 1))
        lost = np.einsum("vij,vmji->vm", self._middle, part)
        explained = np.einsum("vij,mvji->vm", self._information, shared)
        rest: Array = self._for_stages(plain) - lost - explained
        return np.maximum(rest, 0.0).T


def _inverse_correlation(phi: Array, place: NDArray[np.intp], nugget: float) -> tuple[Array, Array]:
    """Inverse of R(phi) + nu I for layers at these places, (K, n, n), and its log determinants.

    In order the inverse of R is tridiagonal: 1 at both ends and 1 + phi^2 between, -phi beside,
    over 1 - phi^2.
    """
    n, at = len(place), np.arange(len(place))
    if nugget:
        correlation = phi[:, None, None] ** np.abs(place[:, None] - place)
        whole: Array = np.asarray(correlation + nugget * np.eye(n))
        return np.asarray(np.linalg.inv(whole)), np.asarray(np.linalg.slogdet(whole)[1])
    ordered = np.zeros((len(phi), n, n))
    ordered[:, at, at] = 1 + phi[:, None] ** 2
    ordered[:, [0, -1], [0, -1]] = 1.0
    ordered[:, at[1:], at[:-1]] = ordered[:, at[:-1], at[1:]] = -phi[:, None]
    ordered /= (1 - phi**2)[:, None, None]
    return ordered[:, place][:, :, place], (n - 1) * np.log1p(-(phi**2))


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
        # Keyed by the design itself: the id of a deleted one may be used again.
        self._nuggets: dict[Design, float] = {}

    def nugget(self, design: Design) -> float:
        """How much of the scatter the images make, as :meth:`Design.nugget` has it."""
        if design not in self._nuggets:
            self._nuggets[design] = design.nugget(self.exponent, self.deviations)
        return self._nuggets[design]

    def regress(self, design: Design, nugget: float | None = None) -> Regression:
        """Fit exponent = columns @ coefficients.

        Args:
            design: of these layers.
            nugget: one of :data:`NUGGETS`, by default that of these errors. Where it is given, it
                stands for all errors of images, and `deviations` are not used.
        """
        return regress_together(design, [self], None if nugget is None else [nugget])[0]

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
        # tau^2 from a thousandth of the variance of the exponents (as good as none) up, in steps
        # of 15 %: the largest likelihood of the grid is then less than L / 800 below the largest.
        start = max(float(np.var(self.exponent)), 1e-6 * float(np.trace(self.covariance)), 1e-12)
        variances = start * np.geomspace(1e-3, 6.0, 64)
        # With R = C C' and C^-1 S C'^-1 = Q diag(s) Q': V = C Q diag(s + tau^2) Q' C' for any tau.
        factor = np.linalg.cholesky(correlation)
        both = np.column_stack([self.deviations.T, columns, self.exponent])
        white = np.linalg.solve(factor, np.broadcast_to(both, (len(factor), *both.shape)))
        images, both = white[:, :, : len(self.deviations)], white[:, :, len(self.deviations) :]
        of_images, turn = np.linalg.eigh(images @ images.transpose(0, 2, 1))
        both = turn.transpose(0, 2, 1) @ both
        spread = np.maximum(of_images, 0.0)[:, None] + variances[:, None]
        log_det = np.sum(np.log(spread), axis=2) + ((n - 1) * np.log1p(-(phi**2)))[:, None]
        squares = (both[:, :, :, None] * both[:, :, None]).reshape(len(phi), n, -1)
        size, log_det = both.shape[2], log_det.reshape(-1)
        gram = ((1 / spread) @ squares).reshape(-1, size, size)
        found = []
        for part in parts:
            moment = gram[:, part, -1]
            inner = gram[:, np.asarray(part)[:, None], np.asarray(part)]
            fit = np.linalg.solve(inner, moment[..., None])[..., 0]
            rest = gram[:, -1, -1] - np.einsum("vi,vi->v", moment, fit)
            found.append(float(np.max(-0.5 * (n * np.log(2 * np.pi) + log_det + rest))))
        return np.array(found)


def regress_together(
    design: Design, errors: Sequence[LayerErrors], nuggets: Sequence[float] | None = None
) -> list[Regression]:
    """What :meth:`LayerErrors.regress` gives, for several exponents of the same layers.

    Args:
        design: of these layers.
        errors: the exponents with their errors.
        nuggets: for each one of :data:`NUGGETS`, see there.
    """
    chosen = [one.nugget(design) for one in errors] if nuggets is None else nuggets
    found: dict[int, Regression] = {}
    for nugget in dict.fromkeys(chosen):
        places = [place for place, own in enumerate(chosen) if own == nugget]
        own = [errors[place] for place in places]
        found |= zip(places, _regressed(design.prepared(nugget), own, nuggets is None), strict=True)
    return [found[place] for place in range(len(errors))]


def _regressed(
    ready: PreparedDesign, errors: Sequence[LayerErrors], by_images: bool
) -> Iterator[Regression]:
    """Regressions that share a nugget; `by_images` says whether deviations are used."""
    rows, exponents = ready.rows, np.stack([one.exponent for one in errors])
    flat, shape = rows.reshape(-1, rows.shape[2]), (len(errors), *rows.shape[:2])
    coefficients: Array = (exponents @ flat.T).reshape(shape)
    found = ready.residual_squares(exponents, coefficients)
    shared, expected = np.zeros((*shape, shape[2])), np.zeros(shape[:2])
    own, spare = ready.total, ready.all_spare
    if by_images:
        own, spare = ready.own, ready.spare
        covariances = np.stack([one.covariance for one in errors])
        turned = (flat @ covariances).reshape(len(errors), *rows.shape)
        shared = turned @ rows.transpose(0, 2, 1)
        expected = ready.expected_squares(covariances, shared)
    positive = np.where(expected > 0, expected, 1.0)
    scale = np.where(expected > 0, np.clip(found / positive, LEAST_SCALE, 1.0), 1.0)
    variance = np.maximum(found - expected, 0.0) / spare
    covariance = scale[..., None, None] * shared + variance[..., None, None] * own

    # A constant that residuals cannot fall below keeps the logarithm finite for exact lines.
    least = np.maximum(1e-24 * np.sum(exponents**2, axis=1), 1e-300)[:, None]
    log_weight = ready.log_weight - ready.n_spare / 2 * np.log(np.maximum(found, least))
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    weight /= weight.sum(axis=1, keepdims=True)

    # Satterthwaite: the part seen in the residuals, and the excess of the shared errors.
    total, of_images, alone = (
        np.diagonal(one, axis1=-2, axis2=-1) for one in (covariance, shared, own)
    )
    largest = np.maximum(total, of_images)
    largest = np.where(largest > 0, largest, 1.0)
    from_residuals = alone * (found / spare)[..., None] / largest
    excess = (of_images - alone * (expected / spare)[..., None]) / largest
    part = np.where((found < expected)[..., None], 1.0, from_residuals)
    mean_rows = np.tensordot(weight, rows, 1)
    images_dof = np.stack(
        [
            effective_dof(one.deviations @ mean.T)
            for one, mean in zip(errors, mean_rows, strict=True)
        ]
    )
    inverse_dof = part**2 / ready.dof[:, None] + excess**2 / images_dof[:, None]
    dof = np.maximum(1 / np.maximum(inverse_dof, 1e-12), 1.0)
    for place in range(len(errors)):
        yield Regression(
            weight[place],
            coefficients[place],
            covariance[place],
            dof[place],
            rows,
            ready.phi,
            ready.stage_sd,
            variance[place],
        )

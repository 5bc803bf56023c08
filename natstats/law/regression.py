"""Regression of exponents that share errors: what the law and its tests rest on.

The exponents have errors from two sources: the images, of covariance S = D'D with D the deviations
of the groups of images (:mod:`natstats.fits.intervals`), which layers share; and a scatter of
variance tau^2 between layers that the design does not explain, independent from layer to layer.

The coefficients are those of ordinary least squares. With M the matrix that takes the residuals,
the residual sum of squares r = |M a|^2 is expected to be e + (n - p) tau^2, e = tr(M S). So

    r >= e:  V = S + tau^2 I,  tau^2 = (r - e) / (n - p);
    r <  e:  V = S max(r / e, 1/2),  the scatter being smaller than S would have it;

and the coefficients have covariance X+ V X+'. Their degrees of freedom follow from Satterthwaite's
rule, with n - p for the part that the residuals tell, and the effective ones of the deviations for
what shared errors add to it. Holding tau^2 at zero without the second line would make the tests too
cautious, weighting by the inverse of V would make them trust an S that is estimated from few
images; analyses/calibration.py has the rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from natstats.fits.intervals import effective_dof

__all__ = ["LayerErrors", "Regression", "lack_of_fit_p", "rank_p"]

N_DRAWS = 4000
"""Draws behind the p-value of the rank correlation, always the same ones."""

LEAST_SCALE = 0.5
"""The covariance of the images' errors is not scaled down by more than this."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """Least squares with the covariance that the layers' errors imply.

    Attributes:
        coefficients: the coefficients, (p,).
        covariance: covariance of the coefficients, (p, p).
        dof: degrees of freedom of each coefficient's variance, (p,).
        variance: variance between layers that the design does not explain, tau^2.
        scale: what the images' errors are multiplied by, at most 1.
    """

    coefficients: Array
    covariance: Array
    dof: Array
    variance: float
    scale: float


class LayerErrors:
    """Exponents (L,) with the deviations of their groups of images, (G, L)."""

    def __init__(self, exponent: Array, deviations: Array) -> None:
        self.exponent = exponent
        self.deviations = deviations
        self.covariance = deviations.T @ deviations

    def regress(self, design: Array, contrasts: Array | None = None) -> Regression:
        """Fit exponent = design @ coefficients, with (n, p) design, n > p.

        With `contrasts` (k, p), the combinations contrasts @ coefficients are returned in place of
        the coefficients.
        """
        n, p = design.shape
        inverse = np.linalg.pinv(design)
        residual = self.exponent - design @ (inverse @ self.exponent)
        spread = self.deviations - (self.deviations @ inverse.T) @ design.T
        found, expected = float(residual @ residual), float(np.sum(spread**2))
        scale = float(np.clip(found / expected, LEAST_SCALE, 1.0)) if expected > 0 else 1.0
        variance = max(found - expected, 0.0) / (n - p)

        rows = inverse if contrasts is None else contrasts @ inverse
        shared = rows @ self.covariance @ rows.T
        own = rows @ rows.T
        covariance = scale * shared + variance * own

        # Satterthwaite: the part seen in the residuals, and the excess of the shared errors.
        total, images = np.diag(covariance), np.diag(shared)
        from_residuals = np.diag(own) * found / (n - p)
        excess = images - np.diag(own) * expected / (n - p)
        largest = np.where(np.maximum(total, images) > 0, np.maximum(total, images), 1.0)
        part = np.ones(len(rows)) if found < expected else from_residuals / largest
        inverse_dof = part**2 / (n - p)
        inverse_dof += (excess / largest) ** 2 / effective_dof(self.deviations @ rows.T)
        return Regression(
            rows @ self.exponent, covariance, np.maximum(1 / inverse_dof, 1.0), variance, scale
        )

    def log_likelihood(self, design: Array) -> float:
        """Largest Gaussian log likelihood of a design, over coefficients and tau^2 (for AICc)."""
        values, vectors = np.linalg.eigh(self.covariance)
        values = np.clip(values, 0.0, None)
        turned, exponent = vectors.T @ design, vectors.T @ self.exponent
        outer = turned[:, :, None] * turned[:, None, :]

        def at(log_variance: Array) -> Array:
            """Log likelihood at many variances at once, (V,) -> (V,)."""
            weights = 1.0 / (values + np.exp(log_variance)[:, None])
            information = np.einsum("vl,lij->vij", weights, outer)
            moments = np.einsum("vl,li->vi", weights * exponent, turned)
            coefficients = np.linalg.solve(information, moments[..., None])[..., 0]
            residual = exponent - coefficients @ turned.T
            deviance = np.sum(weights * residual**2 - np.log(weights / (2 * np.pi)), axis=1)
            return np.asarray(-0.5 * deviance)

        # tau^2 from a hundred-thousandth of the variance of the exponents (as good as none) up.
        start = np.log(max(float(np.var(self.exponent)), 1e-12))
        grid = start + np.linspace(np.log(1e-5), np.log(1e2), 33)
        best = int(np.argmax(at(grid)))
        found = optimize.minimize_scalar(
            lambda point: -float(at(np.array([point]))[0]),
            bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 32)]),
            method="bounded",
        )
        return -float(found.fun)


def lack_of_fit_p(model: LayerErrors, depth: Array) -> float:
    """P of the Wald test that the square and the cube of depth add nothing to the line."""
    # One Legendre term per power keeps the columns apart whatever the depths are.
    unit = 2 * (depth - depth.min()) / np.ptp(depth) - 1
    n_extra = min(2, len(set(unit)) - 2)
    if n_extra < 1 or len(depth) - 2 - n_extra < 1:
        return float("nan")
    design = np.polynomial.legendre.legvander(unit, 1 + n_extra)
    extra = np.eye(2 + n_extra)[2:]
    first = model.regress(design, extra)
    # Combinations with independent errors of variance 1, each with its own degrees of freedom.
    values, vectors = np.linalg.eigh(first.covariance)
    if not values[0] > 0:
        return float("nan")
    whitened = model.regress(design, (vectors / np.sqrt(values)).T @ extra)
    wald = float(whitened.coefficients @ whitened.coefficients) / n_extra
    return float(stats.f.sf(wald, n_extra, 1 / np.mean(1 / whitened.dof)))


def rank_p(model: LayerErrors, depth: Array, observed: float) -> float:
    """P of Kendall's tau-b when the exponents have no trend but share errors, by simulation."""
    constant = model.regress(np.ones((len(depth), 1)))
    covariance = constant.scale * model.covariance + constant.variance * np.eye(len(depth))
    values, vectors = np.linalg.eigh(covariance)
    spread = vectors * np.sqrt(np.clip(values, 0.0, None))
    draws = np.random.default_rng(0).standard_normal((N_DRAWS, len(depth))) @ spread.T
    earlier, later = np.triu_indices(len(depth), 1)
    step = np.sign(depth[later] - depth[earlier])
    earlier, later, step = earlier[step != 0], later[step != 0], step[step != 0]
    # Exponents are never tied, so tau-b is this sum over a number that depends on depth alone.
    n_pairs = len(depth) * (len(depth) - 1) / 2
    scale = np.sqrt(len(step) * n_pairs)
    drawn = [np.sign(draw[later] - draw[earlier]) @ step / scale for draw in draws]
    return float((1 + np.count_nonzero(np.abs(drawn) >= abs(observed) - 1e-9)) / (1 + N_DRAWS))

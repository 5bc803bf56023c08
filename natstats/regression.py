"""Regression of exponents that share errors: what the law and its tests rest on.

The errors of the exponents have covariance V = S + tau^2 I: S known, from the resampling of images,
tau^2 estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

__all__ = ["LayerErrors", "Regression", "lack_of_fit_p", "rank_p"]

N_DRAWS = 4000
"""Draws behind the p-value of the rank correlation, always the same ones."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regression:
    """Least squares, with the covariance and likelihood that the errors' covariance implies."""

    coefficients: Array
    covariance: Array
    variance: float
    log_likelihood: float


class LayerErrors:
    """The exponents and their covariance, turned so that the covariance is diagonal."""

    def __init__(self, exponent: Array, covariance: Array) -> None:
        values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
        self.sampling = np.clip(values, 0.0, None)
        self.vectors = vectors
        self.exponent = vectors.T @ exponent
        self.scale = max(float(np.var(exponent)), 1e-12)

    def regress(self, design: Array, *, restricted: bool) -> Regression:
        """Fit, with tau^2 by restricted (for inference) or full (for AICc) maximum likelihood."""
        turned = self.vectors.T @ design
        outer = turned[:, :, None] * turned[:, None, :]

        def log_likelihood(log_variance: Array) -> Array:
            """Of many variances at once, (V,) -> (V,)."""
            weights = 1.0 / (self.sampling + np.exp(log_variance)[:, None])
            information = np.einsum("vl,lij->vij", weights, outer)
            moments = np.einsum("vl,li->vi", weights * self.exponent, turned)
            coefficients = np.linalg.solve(information, moments[..., None])[..., 0]
            residual = self.exponent - coefficients @ turned.T
            deviance = np.sum(weights * residual**2 - np.log(weights / (2 * np.pi)), axis=1)
            if restricted:
                deviance = deviance + np.linalg.slogdet(information)[1]
            return np.asarray(-0.5 * deviance)

        # tau^2 from a hundred-thousandth of the variance of the exponents (as good as none) up.
        grid = np.linspace(np.log(self.scale * 1e-5), np.log(self.scale * 1e2), 33)
        best = int(np.argmax(log_likelihood(grid)))
        found = optimize.minimize_scalar(
            lambda point: -float(log_likelihood(np.array([point]))[0]),
            bounds=(grid[max(best - 1, 0)], grid[min(best + 1, 32)]),
            method="bounded",
        )
        variance = float(np.exp(found.x))
        inverse = np.linalg.pinv(turned)
        covariance = (inverse * (self.sampling + variance)) @ inverse.T
        return Regression(inverse @ self.exponent, covariance, variance, -float(found.fun))


def lack_of_fit_p(model: LayerErrors, depth: Array) -> float:
    """P of the Wald test that the square and the cube of depth add nothing to the line."""
    # One Legendre term per power keeps the columns apart whatever the depths are.
    unit = 2 * (depth - depth.min()) / np.ptp(depth) - 1
    n_extra = min(2, len(set(unit)) - 2)
    dof = len(depth) - 2 - n_extra
    if n_extra < 1 or dof < 1:
        return float("nan")
    design = np.polynomial.legendre.legvander(unit, 1 + n_extra)
    larger = model.regress(design, restricted=True)
    extra = larger.coefficients[2:]
    wald = float(extra @ np.linalg.solve(larger.covariance[2:, 2:], extra)) / n_extra
    return float(stats.f.sf(wald, n_extra, dof))


def rank_p(model: LayerErrors, depth: Array, observed: float) -> float:
    """P of Kendall's tau-b when the exponents have no trend but share errors, by simulation."""
    constant = model.regress(np.ones((len(depth), 1)), restricted=True)
    spread = model.vectors * np.sqrt(model.sampling + constant.variance)
    draws = np.random.default_rng(0).standard_normal((N_DRAWS, len(depth))) @ spread.T
    earlier, later = np.triu_indices(len(depth), 1)
    step = np.sign(depth[later] - depth[earlier])
    earlier, later, step = earlier[step != 0], later[step != 0], step[step != 0]
    # Exponents are never tied, so tau-b is this sum over a number that depends on depth alone.
    n_pairs = len(depth) * (len(depth) - 1) / 2
    scale = np.sqrt(len(step) * n_pairs)
    drawn = [np.sign(draw[later] - draw[earlier]) @ step / scale for draw in draws]
    return float((1 + np.count_nonzero(np.abs(drawn) >= abs(observed) - 1e-9)) / (1 + N_DRAWS))

"""Whether the exponents of many networks change with depth in one shape.

The exponents of a network are written as a constant, a line, a square and a cube of relative depth
(Legendre polynomials from the image, -1, to the deepest layer, 1). The line is the slope, half the
change over the whole depth; square and cube are the shape. Networks of one shape have the same two
coefficients but for their errors: the test is the multivariate form of Cochran's Q for errors that
are estimated, :func:`natstats.law.meta_analysis.homogeneity_p`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.errors import UsageError
from natstats.law.meta_analysis import Pooled, homogeneity_p, pool
from natstats.law.regression import Design, LayerErrors

__all__ = ["FEWEST_LAYERS_FOR_SHAPE", "TERMS", "Shape", "ShapeAgreement", "fit_shape",
           "shapes_agree"]  # fmt: skip

TERMS = ("line", "square", "cube")
"""The terms of a shape beside the constant."""

FEWEST_LAYERS_FOR_SHAPE = 8
"""With fewer layers, or fewer than five depths, four coefficients leave no errors to tell."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shape:
    """Line, square and cube of one network.

    Attributes:
        coefficients: of the Legendre polynomials of relative depth, (3,).
        covariance: their covariance, (3, 3).
        dofs: degrees of freedom of their errors, (3,).
    """

    coefficients: Array
    covariance: Array
    dofs: Array


@dataclass(frozen=True, repr=False)
class ShapeAgreement(Brief):
    """Whether networks have one shape.

    Attributes:
        terms: what the networks have in common in each of :data:`TERMS`.
        p: p-value of the test that square and cube are the same in all networks; NaN with fewer
            than two.
        n: networks with enough layers.
    """

    terms: dict[str, Pooled]
    p: float
    n: int


def fit_shape(
    depth: Array, exponent: Array, deviations: Array, stages: Sequence[str] | None = None
) -> Shape | None:
    """Line, square and cube of a network; None where it has too few layers or depths.

    Args:
        depth: relative depth of each layer, above 0 and at most 1, (L,).
        exponent: exponents of the layers, (L,).
        deviations: their deviations, (G, L), see :mod:`natstats.fits.intervals`.
        stages: a label of each layer's map size, (L,).

    >>> depth = np.arange(1, 13) / 12
    >>> shape = fit_shape(depth, 1 + 0.3 * depth, np.full((4, 12), 0.001))
    >>> (shape.coefficients.round(6) + 0.0).tolist()
    [0.15, 0.0, 0.0]
    """
    good = np.isfinite(depth) & np.isfinite(exponent) & np.isfinite(deviations).all(axis=0)
    depth, exponent, deviations = depth[good], exponent[good], deviations[:, good]
    if len(depth) < FEWEST_LAYERS_FOR_SHAPE or len(set(depth)) < len(TERMS) + 2:
        return None
    design: Array = np.asarray(
        np.polynomial.legendre.legvander(2 * depth - 1, len(TERMS)), dtype=np.float64
    )
    labels = None if stages is None else [s for s, use in zip(stages, good, strict=True) if use]
    found = LayerErrors(exponent, deviations).regress(Design(design, depth, labels))
    dof = found.weight @ found.dof
    return Shape(found.mean[1:], found.mean_covariance[1:, 1:], dof[1:])


def shapes_agree(shapes: Sequence[Shape], level: float) -> ShapeAgreement:
    """Test whether networks have one shape.

    Args:
        shapes: one for each network.
        level: level of the intervals.

    Raises:
        UsageError: `shapes` is empty.
    """
    if not shapes:
        raise UsageError("shapes: expected one or more; got none")
    coefficients = np.stack([one.coefficients for one in shapes])
    covariances = np.stack([one.covariance for one in shapes])
    dofs = np.stack([one.dofs for one in shapes])
    errors = np.sqrt(np.clip(np.einsum("kii->ki", covariances), 0.0, None))
    terms = {
        name: pool(coefficients[:, place], errors[:, place], dofs[:, place], level)
        for place, name in enumerate(TERMS)
    }
    p = np.nan
    if len(shapes) > 1:
        joint = 1 / np.mean(1 / dofs[:, 1:], axis=1)
        p = homogeneity_p(coefficients[:, 1:], covariances[:, 1:, 1:], joint)
    return ShapeAgreement(terms, p, len(shapes))

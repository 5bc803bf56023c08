"""The shapes that the relation of exponent and depth may have, compared by AICc."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.fits.aicc import aicc_charge
from natstats.law.regression import LayerErrors, dummies

__all__ = ["SHAPES", "Shape", "best_of", "compare_shapes"]

SHAPES = ("constant", "linear", "quadratic", "saturating", "step per resolution")
"""The shapes of the law that are compared."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape fitted to the layers.

    Attributes:
        aicc: its AICc; NaN where there are too few layers for its parameters.
        columns: the design, (L, p); where the shape has a parameter of its own, at its best value.
    """

    aicc: float
    columns: Array

    def fitted(self, exponent: Array) -> Array:
        """Its least-squares values at the layers, (L,)."""
        return np.asarray(self.columns @ np.linalg.lstsq(self.columns, exponent, rcond=None)[0])


def _candidates(depth: Array, resolution: Sequence[Any]) -> Iterator[tuple[str, Array, int]]:
    """Name, design and parameters beyond its columns; a shape may come with several designs."""
    one, unit = np.ones_like(depth), (depth - depth.min()) / np.ptp(depth)
    yield "constant", one[:, None], 0
    yield "linear", np.column_stack([one, unit]), 0
    yield "quadratic", np.column_stack([one, unit, unit**2]), 0
    for scale in np.geomspace(0.03, 1.0, 8):  # profiled over a grid; it counts as a parameter
        yield "saturating", np.column_stack([one, 1 - np.exp(-unit / scale)]), 1
    yield "step per resolution", dummies(resolution), 0


def compare_shapes(
    errors: LayerErrors, depth: Array, resolution: Sequence[Any]
) -> dict[str, Shape]:
    """Fit every shape, with correlated scatter, see :mod:`natstats.law.regression`.

    AICc is -2 log L and :func:`natstats.fits.aicc.aicc_charge` for k parameters and n layers, with
    the variance of the scatter and its correlation counted among the parameters.
    """
    n = len(depth)
    candidates = list(_candidates(depth, resolution))
    charges = [aicc_charge(columns.shape[1] + 2 + extra, n) for _, columns, extra in candidates]
    usable = [place for place, charge in enumerate(charges) if np.isfinite(charge)]
    widths = [candidates[place][1].shape[1] for place in usable]
    ends = np.cumsum([0, *widths])
    parts = [list(range(ends[i], ends[i + 1])) for i in range(len(usable))]
    found = np.full(len(candidates), np.nan)
    if usable:
        together = np.column_stack([candidates[place][1] for place in usable])
        likelihoods = errors.log_likelihoods(together, depth, parts)
        for place, likelihood in zip(usable, likelihoods, strict=True):
            found[place] = charges[place] - 2 * likelihood
    shapes: dict[str, Shape] = {}
    for (name, columns, _), aicc in zip(candidates, found, strict=True):
        if name not in shapes or aicc < shapes[name].aicc:
            shapes[name] = Shape(float(aicc), columns)
    return shapes


def best_of(aicc: Mapping[str, float]) -> str | None:
    """The shape with the smallest AICc, None when none could be fitted.

    >>> best_of({"constant": 3.0, "linear": 1.0, "quadratic": float("nan")})
    'linear'
    """
    fitted = {name: value for name, value in aicc.items() if np.isfinite(value)}
    return min(fitted, key=lambda name: fitted[name]) if fitted else None

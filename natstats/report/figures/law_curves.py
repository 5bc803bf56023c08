"""What is drawn through the exponents of a run: the line of the law and the best shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from natstats.law.law import Law
from natstats.law.law_layers import IN_LAW
from natstats.numbers import share

__all__ = ["LawLine", "ShapeCurve", "best_shape", "depths_of_law", "line_of"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LawLine:
    """The line over the depths that it was fitted to, with its interval.

    Attributes:
        depth: (n,).
        exponent: on the line, (n,).
        low: lower end of the interval, (n,).
        high: upper end, (n,).
        is_law: whether the verdict is a linear law.
    """

    depth: Array
    exponent: Array
    low: Array
    high: Array
    is_law: bool

    @property
    def label(self) -> str:
        """What a legend calls it."""
        return "line of the law" if self.is_law else "line, not shown to be a law"


@dataclass(frozen=True, eq=False)
class ShapeCurve:
    """The shape that describes a network best, where that is not the line.

    Attributes:
        depth: (n,).
        exponent: on the curve, (n,).
        name: of the shape.
        share: of the variance that it explains.
    """

    depth: Array
    exponent: Array
    name: str
    share: float

    @property
    def label(self) -> str:
        """What a legend calls it, in one line."""
        told = "" if self.name == "constant" else f" ({share(self.share)} of the variance)"
        return f"best shape here: {self.name}{told}"


def depths_of_law(inner: pd.DataFrame) -> pd.Series:
    """Depths of the layers in the law; without a column ``law``, of all that have an exponent."""
    is_in_law = inner["law"] == IN_LAW if "law" in inner else np.isfinite(inner.exponent)
    return inner.depth[is_in_law].dropna()


def line_of(law: Law, inner: pd.DataFrame) -> LawLine | None:
    """The line of a law over its layers; None where none was fitted."""
    depths = depths_of_law(inner)
    if not np.isfinite(law.slope) or depths.empty:
        return None
    depth = np.linspace(depths.min(), depths.max(), 60)
    return LawLine(depth, *law.predict(depth), is_law=law.verdict == "linear law")


def best_shape(law: Law) -> ShapeCurve | None:
    """The best shape of a network; None where it is the line, or there is none."""
    found = law.network
    if found is None or found.shape in ("", "linear") or not found.shape_values:
        return None
    depth, value = np.array(found.shape_values).T
    at, first = np.unique(depth, return_index=True)
    value = value[first]
    if found.shape.startswith("step"):
        # Each level reaches half way to its neighbours.
        ends = np.concatenate([[at[0]], np.repeat((at[1:] + at[:-1]) / 2, 2), [at[-1]]])
        return ShapeCurve(ends, np.repeat(value, 2), found.shape, found.shape_share)
    between = np.linspace(at[0], at[-1], 200)
    # Between layers far apart the spline is exact for a square; PCHIP adds no bump to other shapes.
    curve = (CubicSpline if found.shape == "quadratic" else PchipInterpolator)(at, value)
    return ShapeCurve(between, curve(between), found.shape, found.shape_share)

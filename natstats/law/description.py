"""A description of one network's exponents: its layers are taken as given, images are a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.fits.intervals import effective_dof, t_reach
from natstats.law.regression import LayerErrors
from natstats.law.shapes import Shape, best_of
from natstats.numbers import nan_for_null

__all__ = ["Departure", "Description", "describe"]

MOST_DEPARTURES = 5
"""Number of layers that are named as farthest from the line."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Departure:
    """How far the exponent of a layer is from the line; the interval is for other images."""

    layer: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, repr=False)
class Description(Brief):
    """Exponent against depth in this network; nothing is said of other layers or networks.

    Attributes:
        slope: of the least-squares line through the layers.
        slope_low: lower end of its interval, for other images of the same sort.
        slope_high: upper end of its interval.
        line_share: share of the variance of the exponents that the line explains.
        shape: the best shape by AICc; empty where none could be fitted.
        shape_share: share of the variance that it explains.
        shape_values: its values at the layers, as pairs of depth and exponent, by depth.
        departures: the layers farthest from the line, the farthest first.
    """

    slope: float
    slope_low: float
    slope_high: float
    line_share: float
    shape: str
    shape_share: float
    shape_values: tuple[tuple[float, float], ...]
    departures: tuple[Departure, ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Description:
        """Inverse of :func:`dataclasses.asdict`; None stands for NaN.

        Raises:
            TypeError: a field is missing or unknown.
        """
        plain = nan_for_null(values)
        plain["shape_values"] = tuple((x, y) for x, y in plain["shape_values"])
        plain["departures"] = tuple(Departure(**one) for one in plain["departures"])
        return cls(**plain)


def describe(
    errors: LayerErrors,
    depth: Array,
    shapes: Mapping[str, Shape],
    names: Sequence[str],
    level: float,
) -> Description:
    """Describe the exponents of the layers.

    Args:
        errors: exponents and deviations of the layers.
        depth: of the layers, (L,).
        shapes: the shapes fitted to them.
        names: of the layers, (L,).
        level: level of the intervals.
    """
    exponent = errors.exponent
    columns = np.stack([np.ones_like(depth), depth], axis=1)
    inverse = np.linalg.pinv(columns)
    keep = np.eye(len(depth)) - columns @ inverse
    residual = keep @ exponent
    slope, reach = float(inverse[1] @ exponent), _reach(errors.deviations @ inverse[1], level)
    best = best_of({name: shape.aicc for name, shape in shapes.items()})
    fitted = residual * np.nan if best is None else shapes[best].fitted(exponent)
    order = np.lexsort((np.arange(len(depth)), depth))
    departures = []
    for place in np.argsort(-np.abs(residual), kind="stable")[:MOST_DEPARTURES]:
        value = float(residual[place])
        error = _reach(errors.deviations @ keep[place], level)
        departures.append(Departure(names[place], value, value - error, value + error))
    return Description(
        slope=slope,
        slope_low=slope - reach,
        slope_high=slope + reach,
        line_share=_share(residual, exponent),
        shape=best or "",
        shape_share=_share(exponent - fitted, exponent),
        shape_values=()
        if best is None
        else tuple((float(depth[i]), float(fitted[i])) for i in order),
        departures=tuple(departures),
    )


def _reach(deviations: Array, level: float) -> float:
    error = float(np.sqrt(deviations @ deviations))
    return t_reach(error, float(effective_dof(deviations)), level)


def _share(rest: Array, exponent: Array) -> float:
    """Share of the variance that is explained; NaN where there is no variance."""
    total = float(np.var(exponent)) * len(exponent)
    # Not below zero by rounding, which reads as "−0.001".
    return max(1 - float(rest @ rest) / total, 0.0) if total > 0 else np.nan

"""The layers that a law is fitted to, and the tests of a trend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from natstats.errors import UsageError
from natstats.law.mixtures import Mixture, Regression, p_values_of
from natstats.law.regression import Design, LayerErrors, dummies, regress_together

__all__ = [
    "FEWEST_DEPTHS",
    "FEWEST_LAYERS",
    "OUTCOMES",
    "SIGNIFICANCE",
    "SMALL_CHANGE",
    "UsableLayers",
    "line_of",
    "outcome_of",
    "rank_p",
    "rank_ps",
    "trend_numbers",
    "usable_layers",
]

FEWEST_LAYERS = 5
"""With fewer layers than this no law is fitted."""

FEWEST_DEPTHS = 3
"""With fewer different depths than this no law is fitted."""

SIGNIFICANCE = 0.05
"""Level of the tests of a trend."""

SMALL_CHANGE = 0.5
"""A change of the exponent over the whole depth that is small: a quarter of the exponent of natural
images. An interval that holds zero, and nothing larger than this, shows that there is no trend."""

OUTCOMES = ("rises", "no trend", "falls")
"""What the tests of a trend can find."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class UsableLayers:
    """The arguments of :func:`fit_law` as arrays, of layers that can be used."""

    depth: Array
    exponent: Array
    deviations: Array
    resolution: list[Any]
    names: list[str]


def line_of(layers: UsableLayers) -> Design:
    """The line, its layers in the order of depth, with maps of one size as a stage."""
    columns = np.stack([np.ones_like(layers.depth), layers.depth], axis=1)
    return Design(columns, layers.depth, layers.resolution)


def usable_layers(
    depth: Sequence[float] | Array,
    exponent: Sequence[float] | Array,
    deviations: Array,
    resolution: Sequence[Any],
    names: Sequence[str],
) -> UsableLayers:
    """The layers that have an exponent, an interval and a depth.

    Raises:
        UsageError: the lengths differ.
    """
    depths: Array = np.asarray(depth, dtype=np.float64)
    exponents: Array = np.asarray(exponent, dtype=np.float64)
    deviations = np.asarray(deviations, dtype=np.float64)
    n = len(depths)
    shaped = deviations.ndim == 2 and deviations.shape[1] == n
    if not (len(exponents) == len(resolution) == len(names) == n and shaped):
        raise UsageError(
            f"exponent, deviations, resolution, names: expected {n} layers, one for each depth; "
            f"got {len(exponents)}, {deviations.shape}, {len(resolution)}, {len(names)}"
        )
    good = np.isfinite(exponents) & np.isfinite(depths) & (np.sum(deviations**2, axis=0) > 0)
    deviations = deviations[:, good]
    return UsableLayers(
        depths[good],
        exponents[good],
        deviations[np.any(deviations != 0, axis=1)],
        [label for label, use in zip(resolution, good, strict=True) if use],
        [name for name, use in zip(names, good, strict=True) if use],
    )


def trend_numbers(
    layers: UsableLayers, errors: LayerErrors, design: Design, line: Regression, level: float
) -> dict[str, float]:
    """The numbers of a law, from the regression on the line and the tests."""
    slope, phi = line.coefficient(1), line.correlation_interval(level)
    low, high = slope.interval(level)
    within = _within_resolution(layers, errors)
    ends = within.interval(level) if within is not None else (np.nan, np.nan)
    return {
        "slope": slope.mean,
        "slope_low": low,
        "slope_high": high,
        "intercept": float(line.mean[0]),
        "trend_p": slope.p(),
        "correlation": line.correlation,
        "correlation_low": phi[0],
        "correlation_high": phi[1],
        "stage_share": line.stage_share,
        "between_layer_sd": line.scatter_sd,
        "rank_correlation": _rank_correlation(layers.depth, layers.exponent),
        "rank_p": rank_p(errors, design),
        "lack_of_fit_p": _lack_of_fit_p(layers, errors),
        "slope_within_resolution": within.mean if within is not None else np.nan,
        "slope_within_resolution_low": ends[0],
        "slope_within_resolution_high": ends[1],
    }


def outcome_of(slope: float, p: float, by_rank: float) -> str:
    """The trend that is found: it takes both tests, so that no single layer can make one.

    >>> outcome_of(0.1, 0.01, 0.02), outcome_of(0.1, 0.01, 0.2)
    ('rises', 'no trend')
    """
    if not (p < SIGNIFICANCE and by_rank < SIGNIFICANCE):  # nor where either is NaN
        return "no trend"
    return "rises" if slope > 0 else "falls"


def rank_p(errors: LayerErrors, line: Design) -> float:
    """P of the test that the normal scores of the exponents' ranks have no slope."""
    return rank_ps([errors], line)[0]


def rank_ps(errors: Sequence[LayerErrors], line: Design) -> list[float]:
    """What :func:`rank_p` gives, for several exponents of the same layers."""
    nothing = np.zeros((1, len(line.columns)))
    ranked = [LayerErrors(_normal_scores(one.exponent), nothing) for one in errors]
    found = regress_together(line, ranked, [one.nugget(line) for one in errors])
    return p_values_of([one.coefficient(1) for one in found])


def _normal_scores(exponent: Array) -> Array:
    """The normal scores of the ranks, (L,)."""
    # Equal exponents share a rank: ranked in the order of the layers they would make a trend.
    _, place, n_equal = np.unique(exponent, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(n_equal) - (n_equal - 1) / 2)[place]
    return np.asarray(special.ndtri((ranks - 0.375) / (len(ranks) + 0.25)))


def _rank_correlation(x: Array, y: Array) -> float:
    """Kendall's tau-b of two arrays, (n,); NaN where all values of one are equal.

    >>> round(_rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 3)
    0.333
    """
    signs = [np.sign(values[:, None] - values) for values in (x, y)]
    pairs = np.sqrt([np.count_nonzero(sign) for sign in signs])
    return float(np.sum(signs[0] * signs[1]) / pairs[0] / pairs[1]) if pairs.all() else np.nan


def _within_resolution(layers: UsableLayers, errors: LayerErrors) -> Mixture | None:
    """The slope with a level for every resolution.

    It exists when depth differs inside at least one of them, and there are more layers than
    coefficients, so that its error can be estimated; else None.
    """
    columns = np.column_stack([layers.depth, dummies(layers.resolution)])
    if not np.linalg.matrix_rank(columns) == columns.shape[1] < len(layers.depth):
        return None
    return errors.regress(Design(columns, layers.depth)).coefficient(0)


def _lack_of_fit_p(layers: UsableLayers, errors: LayerErrors) -> float:
    """P of the F test that the square and the cube of depth add nothing to the line."""
    # One Legendre term per power keeps the columns apart whatever the depths are.
    unit = 2 * (layers.depth - layers.depth.min()) / np.ptp(layers.depth) - 1
    n_extra = min(2, len(set(unit)) - 2)
    if n_extra < 1 or len(unit) - 2 - n_extra < 1:
        return float("nan")
    columns = np.polynomial.legendre.legvander(unit, 1 + n_extra)
    design = Design(columns, layers.depth, layers.resolution)
    return errors.regress(design).joint_p(range(2, 2 + n_extra))

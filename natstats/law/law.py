"""The relation of exponent to depth, and the tests of it.

The paper reports a law that is linear in depth. Here that is a hypothesis: alpha_l = a + b d_l,
with errors that layers share, having seen the same images, and a variance between layers that depth
does not explain (:mod:`natstats.law.regression`). Against it stand four other shapes, compared by
AICc (Hurvich and Tsai 1989, Biometrika 76), a test for lack of fit and a rank correlation that
assumes no shape.

The line itself is the least-squares line; the errors' covariance enters its interval and the tests.
Weighting by its inverse (generalised least squares) would give shorter intervals in theory, but it
is estimated from few images, and where an error that all layers share differs in size from layer to
layer the weighted line runs beside the points (Peelle's puzzle).

How the authors of the paper fitted and tested their law is not known to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from natstats import checks
from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.intervals import t_reach
from natstats.law.regression import LayerErrors, Regression, lack_of_fit_p, rank_p
from natstats.numbers import change, number

__all__ = ["SHAPES", "VERDICTS", "Law", "fit_law", "format_p"]

SHAPES = ("constant", "linear", "quadratic", "saturating", "step per resolution")
"""The shapes of the law that are compared."""

VERDICTS = ("linear", "rises, not linearly", "no trend", "falls", "undecided")
"""What a law can be found to be."""

FEWEST_LAYERS = 5
"""With fewer layers than this no law is fitted."""

FEWEST_DEPTHS = 3
"""With fewer different depths than this no law is fitted."""

FEWEST_FOR_VERDICT = 8
"""With fewer groups of images than this the verdict is ``undecided``."""

SIGNIFICANCE = 0.05
"""Level of the tests behind the verdict."""

CLEAR_AICC = 6.0
"""Another shape must beat the linear one by this much AICc to overrule it."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Law:
    """The fitted law with its tests. NaN wherever a number could not be had.

    Attributes:
        slope: change of the exponent per unit of depth.
        slope_low: lower end of its interval.
        slope_high: upper end of its interval.
        intercept: exponent of the line at depth 0.
        covariance: covariance of intercept and slope, 2 x 2.
        between_layer_sd: tau, the scatter of layers about the line beyond sampling error.
        trend_p: p-value of the test that the slope is zero.
        lack_of_fit_p: p-value of the test that a quadratic and a cubic term add nothing.
        rank_correlation: Kendall's tau-b of exponent and depth.
        rank_p: its p-value, by simulation: the errors that layers share, having seen the same
            images, would make a textbook p too small.
        slope_within_resolution: the slope with every resolution given a level of its own.
        slope_within_resolution_low: lower end of its interval.
        slope_within_resolution_high: upper end of its interval.
        shapes: AICc by shape, the smallest is the best; NaN where there are too few layers.
        verdict: one of :data:`VERDICTS`.
        n_layers: layers used.
        dof: effective degrees of freedom of the slope's interval.
        level: level of the intervals.
        depth: name of the measure of depth, see :data:`natstats.fits.depth_axes.DEPTH_AXES`.
    """

    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    between_layer_sd: float
    trend_p: float
    lack_of_fit_p: float
    rank_correlation: float
    rank_p: float
    slope_within_resolution: float
    slope_within_resolution_low: float
    slope_within_resolution_high: float
    shapes: dict[str, float]
    verdict: str
    n_layers: int
    dof: float
    level: float = 0.95
    depth: str = "layers"

    @property
    def best_shape(self) -> str | None:
        """The shape with the smallest AICc, None when none could be fitted."""
        fitted = {name: value for name, value in self.shapes.items() if np.isfinite(value)}
        return min(fitted, key=lambda name: fitted[name]) if fitted else None

    def predict(self, depth: Array) -> tuple[Array, Array, Array]:
        """The line and the ends of its pointwise interval at `depth` (n,): three (n,) arrays."""
        depth = np.asarray(depth, dtype=np.float64)
        design = np.stack([np.ones_like(depth), depth], axis=1)
        middle = design @ np.array([self.intercept, self.slope])
        error = np.sqrt(np.einsum("ni,ij,nj->n", design, np.array(self.covariance), design))
        reach = stats.t.ppf(0.5 + self.level / 2, self.dof) * error
        return middle, middle - reach, middle + reach

    def sentence(self) -> str:
        """The verdict in words, with the numbers that it rests on."""
        measure = DEPTH_AXES[self.depth]
        if not np.isfinite(self.slope):
            return (
                f"Undecided: a law takes at least {FEWEST_LAYERS} layers with an exponent and an "
                f"interval{measure.condition}, at {FEWEST_DEPTHS} depths or more; there are "
                f"{self.n_layers} layers."
            )
        opening = {
            "linear": f"The exponent rises linearly with {measure.name}",
            "rises, not linearly": f"The exponent rises with {measure.name}, but not linearly",
            "no trend": f"No trend of the exponent with {measure.name} was found",
            "falls": f"The exponent falls with {measure.name}",
            "undecided": "Undecided: the tests of a trend disagree, or the images are too few",
        }[self.verdict]
        text = (
            f"{opening}: slope {change(self.slope, self.slope_low, self.slope_high)} "
            f"{measure.per} ({100 * self.level:g} % interval; p {format_p(self.trend_p)}) over "
            f"{self.n_layers} layers, rank correlation {number(self.rank_correlation, sign=True)} "
            f"(p {format_p(self.rank_p)}), lack of fit p {format_p(self.lack_of_fit_p)}"
        )
        if np.isfinite(self.slope_within_resolution):
            ends = self.slope_within_resolution_low, self.slope_within_resolution_high
            text += f", slope within one map size {change(self.slope_within_resolution, *ends)}"
        if self.best_shape is not None:
            text += f", best shape by AICc: {self.best_shape}"
        return text + "."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Law:
        """Inverse of :meth:`to_dict`; None stands for NaN.

        Raises:
            UsageError: a field is missing or unknown.
        """
        plain: dict[str, Any] = {
            key: np.nan if value is None else value for key, value in values.items()
        }
        try:
            plain["covariance"] = tuple(
                tuple(np.nan if cell is None else cell for cell in row)
                for row in plain["covariance"]
            )
            plain["shapes"] = {
                key: np.nan if value is None else value for key, value in plain["shapes"].items()
            }
            return cls(**plain)
        except (KeyError, TypeError) as error:
            raise UsageError(f"law: expected the fields of a law; {error}") from None


def format_p(p: float) -> str:
    """A p-value as a relation, never rounded to zero.

    >>> format_p(0.0312), format_p(1e-9), format_p(float("nan"))
    ('= 0.031', '< 0.001', 'not available')
    """
    if not np.isfinite(p):
        return "not available"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _dummies(resolution: Sequence[Any]) -> Array:
    """One column per resolution, (L, n_resolutions)."""
    labels = sorted(set(resolution), key=str)
    return np.array([[float(label == own) for label in labels] for own in resolution])


def _shapes(model: LayerErrors, depth: Array, resolution: Sequence[Any]) -> dict[str, float]:
    """AICc of every shape; NaN where there are too few layers for its parameters."""
    one, unit = np.ones_like(depth), depth / np.ptp(depth)

    def aicc(*columns: Array, extra: int = 0) -> float:
        design = np.column_stack(columns)
        n_parameters = design.shape[1] + 1 + extra  # and the between-layer variance
        spare = len(depth) - n_parameters - 1
        if spare <= 0:
            return np.nan
        log_likelihood = model.log_likelihood(design)
        charge = 2 * n_parameters * (1 + (n_parameters + 1) / spare)
        return float(charge - 2 * log_likelihood)

    def saturating(scale: float) -> float:
        """The scale is profiled over a grid; it counts as a parameter."""
        return aicc(one, 1 - np.exp(-(unit - unit.min()) / scale), extra=1)

    return {
        "constant": aicc(one),
        "linear": aicc(one, unit),
        "quadratic": aicc(one, unit, unit**2),
        "saturating": float(np.min([saturating(scale) for scale in np.geomspace(0.03, 1.0, 12)])),
        "step per resolution": aicc(_dummies(resolution)),
    }


def _slope(regression: Regression, column: int, level: float) -> tuple[float, ...]:
    """Estimate, lower end, upper end and p of a coefficient."""
    value, dof = float(regression.coefficients[column]), float(regression.dof[column])
    error = float(np.sqrt(max(regression.covariance[column, column], 0.0)))
    reach = t_reach(error, dof, level)
    p = float(2 * stats.t.sf(abs(value) / error, dof)) if error > 0 else np.nan
    return value, value - reach, value + reach, p


def _verdict(law: dict[str, float], shapes: dict[str, float], n_groups: int) -> str:
    rises_or_falls = law["trend_p"] < SIGNIFICANCE
    if n_groups < FEWEST_FOR_VERDICT or (not rises_or_falls and law["rank_p"] < SIGNIFICANCE):
        return "undecided"
    if not rises_or_falls:
        return "no trend"
    if law["slope"] < 0:
        return "falls"
    # A constant cannot overrule a slope that the test has found.
    rivals = [shapes[name] for name in SHAPES if name not in ("constant", "linear")]
    overruled = any(rival < shapes["linear"] - CLEAR_AICC for rival in rivals)
    bent = law["lack_of_fit_p"] < SIGNIFICANCE or overruled
    return "rises, not linearly" if bent else "linear"


def fit_law(
    depth: Sequence[float] | Array,
    exponent: Sequence[float] | Array,
    deviations: Array,
    resolution: Sequence[Any],
    level: float = 0.95,
    measure: str = "layers",
) -> Law:
    """Fit and test the law of a network.

    Layers without a finite exponent, variance or depth are left out.

    Args:
        depth: depth of each layer, (L,).
        exponent: exponent of each layer, (L,).
        deviations: deviations of the exponents as each group of images is left out, (G, L): D with
            D'D the covariance of the exponents, see :mod:`natstats.fits.intervals`; NaN for a
            layer without.
        resolution: a label of each layer's map size, (L,).
        level: level of the intervals.
        measure: name of the measure of depth, for the words; `depth` is taken as it is.

    Returns:
        The law; with too few layers or depths it is ``undecided`` and its numbers are NaN.

    Raises:
        UsageError: the lengths differ, `level` is out of range or there is no such measure.

    >>> rng = np.random.default_rng(1)
    >>> depth = np.arange(1, 21)
    >>> exponent = 1.0 + 0.05 * depth + 0.02 * rng.standard_normal(20)
    >>> deviations = 0.001 * rng.standard_normal((64, 20))
    >>> fit_law(depth, exponent, deviations, ["28"] * 20).verdict
    'linear'
    """
    checks.probability("level", level)
    checks.one_of("measure", measure, DEPTH_AXES)
    depths, exponents, deviations, labels = _usable(depth, exponent, deviations, resolution)
    n = len(depths)
    if n < FEWEST_LAYERS or len(set(depths)) < FEWEST_DEPTHS:
        return _no_law(n, level, measure)
    model = LayerErrors(exponents, deviations)
    regression = model.regress(np.stack([np.ones(n), depths], axis=1))
    numbers = _numbers(model, regression, depths, labels, level)
    shapes = _shapes(model, depths, labels)
    (aa, ab), (_, bb) = regression.covariance.tolist()
    return Law(
        **numbers,
        covariance=((aa, ab), (ab, bb)),
        shapes=shapes,
        verdict=_verdict(numbers, shapes, len(deviations)),
        n_layers=n,
        dof=float(regression.dof[1]),
        level=level,
        depth=measure,
    )


def _usable(
    depth: Sequence[float] | Array,
    exponent: Sequence[float] | Array,
    deviations: Array,
    resolution: Sequence[Any],
) -> tuple[Array, Array, Array, list[Any]]:
    """The arguments of :func:`fit_law` as arrays, without layers that cannot be used.

    Raises:
        UsageError: the lengths differ.
    """
    depths: Array = np.asarray(depth, dtype=np.float64)
    exponents: Array = np.asarray(exponent, dtype=np.float64)
    deviations = np.asarray(deviations, dtype=np.float64)
    n = len(depths)
    shaped = deviations.ndim == 2 and deviations.shape[1] == n
    if not (len(exponents) == len(resolution) == n and shaped):
        raise UsageError(
            f"exponent, deviations, resolution: expected {n} layers, one for each depth; got "
            f"{len(exponents)}, {deviations.shape}, {len(resolution)}"
        )
    good = np.isfinite(exponents) & np.isfinite(depths) & (np.sum(deviations**2, axis=0) > 0)
    depths, exponents, deviations = depths[good], exponents[good], deviations[:, good]
    deviations = deviations[np.any(deviations != 0, axis=1)]
    labels = [label for label, use in zip(resolution, good, strict=True) if use]
    return depths, exponents, deviations, labels


def _numbers(
    model: LayerErrors, line: Regression, depths: Array, resolution: Sequence[Any], level: float
) -> dict[str, float]:
    """The numbers of a law, from the regression on the line and the tests."""
    slope, low, high, trend_p = _slope(line, 1, level)
    design = np.column_stack([depths, _dummies(resolution)])
    # The slope within resolutions exists when depth differs inside at least one of them, and more
    # layers than levels are there to tell its error.
    estimable = np.linalg.matrix_rank(design) == design.shape[1] < len(depths)
    within = _slope(model.regress(design), 0, level) if estimable else (np.nan,) * 4
    rank = float(stats.kendalltau(depths, model.exponent).statistic)
    return {
        "slope": slope,
        "slope_low": low,
        "slope_high": high,
        "intercept": float(line.coefficients[0]),
        "between_layer_sd": float(np.sqrt(line.variance)),
        "trend_p": trend_p,
        "lack_of_fit_p": lack_of_fit_p(model, depths),
        "rank_correlation": rank,
        "rank_p": rank_p(model, depths, rank),
        "slope_within_resolution": within[0],
        "slope_within_resolution_low": within[1],
        "slope_within_resolution_high": within[2],
    }


def _no_law(n_layers: int, level: float, measure: str) -> Law:
    numbers: dict[str, Any] = {field.name: None for field in fields(Law)}
    return Law.from_dict(
        numbers
        | {
            "covariance": ((None, None), (None, None)),
            "shapes": dict.fromkeys(SHAPES),
            "verdict": "undecided",
            "n_layers": n_layers,
            "dof": None,
            "level": level,
            "depth": measure,
        }
    )

"""The relation of exponent to depth, and the tests of it.

The paper reports a law that is linear in depth. Here that is a hypothesis: alpha_l = a + b d_l,
with errors of covariance V = S + tau^2 I, where S is the joint covariance of the exponents (the
layers saw the same images) and tau^2 the variance between layers that depth does not explain, by
restricted maximum likelihood. Against it stand four other shapes, compared by AICc (Hurvich and
Tsai 1989, Biometrika 76), a test for lack of fit and a rank correlation that assumes no shape.

The line itself is the least-squares line; V enters its interval and the tests. Weighting by the
inverse of V (generalised least squares) would give shorter intervals in theory, but S is estimated
from few images, and where an error that all layers share differs in size from layer to layer the
weighted line runs beside the points (Peelle's puzzle).

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
from natstats.numbers import change, number
from natstats.regression import LayerErrors, Regression, lack_of_fit_p, rank_p

__all__ = ["SHAPES", "VERDICTS", "Law", "fit_law", "format_p"]

SHAPES = ("constant", "linear", "quadratic", "saturating", "step per resolution")
"""The shapes of the law that are compared."""

VERDICTS = ("linear", "rises, not linearly", "no trend", "falls", "undecided")
"""What a law can be found to be."""

FEWEST_LAYERS = 5
"""With fewer layers than this no law is fitted."""

FEWEST_DEPTHS = 3
"""With fewer different depths than this no law is fitted."""

FEWEST_GROUPS = 8
"""With fewer groups of images than this the verdict is ``undecided``."""

SIGNIFICANCE = 0.05
"""Level of the tests behind the verdict."""

CLEAR_AICC = 4.0
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
        covariance: of intercept and slope, 2 x 2.
        between_layer_sd: tau, the scatter of layers about the line beyond sampling error.
        trend_p: of the test that the slope is zero.
        lack_of_fit_p: of the test that a quadratic and a cubic term add nothing to the line.
        rank_correlation: Kendall's tau-b of exponent and depth.
        rank_p: its p, by simulation: the errors that layers share, having seen the same images,
            would make a textbook p too small.
        slope_within_resolution: the slope with every resolution given a level of its own.
        slope_within_resolution_low: lower end of its interval.
        slope_within_resolution_high: upper end of its interval.
        shapes: AICc by shape, the smallest is the best; NaN where there are too few layers.
        verdict: one of :data:`VERDICTS`.
        n_layers: layers used.
        dof: degrees of freedom of the line's interval.
        level: of the intervals.
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
    dof: int
    level: float = 0.95

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
        reach = stats.t.ppf(0.5 + self.level / 2, max(self.dof, 1)) * error
        return middle, middle - reach, middle + reach

    def sentence(self) -> str:
        """The verdict in words, with the numbers that it rests on."""
        if not np.isfinite(self.slope):
            return (
                f"Undecided: a law takes at least {FEWEST_LAYERS} layers with an exponent and an "
                f"interval, at {FEWEST_DEPTHS} depths or more; there are {self.n_layers} layers."
            )
        opening = {
            "linear": "The exponent rises linearly with depth",
            "rises, not linearly": "The exponent rises with depth, but not linearly",
            "no trend": "No trend of the exponent with depth was found",
            "falls": "The exponent falls with depth",
            "undecided": "Undecided: the tests of a trend disagree, or the images are too few",
        }[self.verdict]
        text = (
            f"{opening}: slope {change(self.slope, self.slope_low, self.slope_high)} per weight "
            f"layer ({100 * self.level:g} % interval; p {format_p(self.trend_p)}) over "
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
    one, unit = np.ones_like(depth), depth / max(np.ptp(depth), 1.0)

    def aicc(*columns: Array, extra: int = 0) -> float:
        design = np.column_stack(columns)
        n_parameters = design.shape[1] + 1 + extra  # and the between-layer variance
        spare = len(depth) - n_parameters - 1
        if spare <= 0:
            return np.nan
        log_likelihood = model.regress(design, restricted=False).log_likelihood
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


def _slope(regression: Regression, column: int, dof: int, level: float) -> tuple[float, ...]:
    """Estimate, lower end, upper end and p of a coefficient; NaN without degrees of freedom."""
    if dof < 1:
        return (np.nan,) * 4
    value = float(regression.coefficients[column])
    error = float(np.sqrt(max(regression.covariance[column, column], 0.0)))
    reach = float(stats.t.ppf(0.5 + level / 2, dof)) * error
    p = float(2 * stats.t.sf(abs(value) / error, dof)) if error > 0 else np.nan
    return value, value - reach, value + reach, p


def _verdict(law: dict[str, float], shapes: dict[str, float], n_groups: int) -> str:
    rises_or_falls = law["trend_p"] < SIGNIFICANCE
    if n_groups < FEWEST_GROUPS or (not rises_or_falls and law["rank_p"] < SIGNIFICANCE):
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
    covariance: Array,
    resolution: Sequence[Any],
    level: float = 0.95,
    n_groups: int | None = None,
) -> Law:
    """Fit and test the law of a network.

    Layers without a finite exponent or variance are left out.

    Args:
        depth: of each layer, (L,).
        exponent: of each layer, (L,).
        covariance: of the exponents, (L, L); may be singular.
        resolution: a label of each layer's map size, (L,).
        level: of the intervals.
        n_groups: groups of images that the covariance comes from; None for many.

    Returns:
        The law; with too few layers or depths it is ``undecided`` and its numbers are NaN.

    Raises:
        UsageError: the lengths differ or `level` is out of range.

    >>> rng = np.random.default_rng(1)
    >>> depth = np.arange(1, 21)
    >>> exponent = 1.0 + 0.05 * depth + 0.02 * rng.standard_normal(20)
    >>> fit_law(depth, exponent, 1e-4 * np.eye(20), ["28"] * 20).verdict
    'linear'
    """
    checks.probability("level", level)
    depth, exponent = (np.asarray(a, dtype=np.float64) for a in (depth, exponent))
    covariance = np.asarray(covariance, dtype=np.float64)
    n = len(depth)
    if not (len(exponent) == len(resolution) == n and covariance.shape == (n, n)):
        raise UsageError(
            f"exponent, covariance, resolution: expected {n} layers, one for each depth; got "
            f"{len(exponent)}, {covariance.shape}, {len(resolution)}"
        )
    good = np.isfinite(exponent) & np.isfinite(depth) & (np.diag(covariance) > 0)
    depth, exponent, covariance = depth[good], exponent[good], covariance[np.ix_(good, good)]
    resolution = [label for label, use in zip(resolution, good, strict=True) if use]
    n = len(depth)
    if n < FEWEST_LAYERS or len(set(depth)) < FEWEST_DEPTHS:
        return _no_law(n, level)

    n_groups = n + 1 if n_groups is None else n_groups
    model = LayerErrors(exponent, covariance)

    def dof(n_parameters: int) -> int:
        """The scatter is seen in the layers, the sampling error in the groups: the fewer decide."""
        return min(n - n_parameters, n_groups - 1)

    line = np.stack([np.ones(n), depth], axis=1)
    regression = model.regress(line, restricted=True)
    slope, low, high, trend_p = _slope(regression, 1, dof(2), level)
    levels = _dummies(resolution)
    design = np.column_stack([depth, levels])
    # The slope within resolutions exists when depth differs inside at least one of them.
    full_rank = np.linalg.matrix_rank(design) == design.shape[1]
    within = (
        _slope(model.regress(design, restricted=True), 0, dof(design.shape[1]), level)
        if full_rank
        else (np.nan,) * 4
    )
    rank = float(stats.kendalltau(depth, exponent).statistic)
    numbers = {
        "slope": slope,
        "slope_low": low,
        "slope_high": high,
        "intercept": float(regression.coefficients[0]),
        "between_layer_sd": float(np.sqrt(regression.variance)),
        "trend_p": trend_p,
        "lack_of_fit_p": lack_of_fit_p(model, depth),
        "rank_correlation": rank,
        "rank_p": rank_p(model, depth, rank),
        "slope_within_resolution": within[0],
        "slope_within_resolution_low": within[1],
        "slope_within_resolution_high": within[2],
    }
    shapes = _shapes(model, depth, resolution)
    (aa, ab), (_, bb) = regression.covariance.tolist()
    return Law(
        **numbers,
        covariance=((aa, ab), (ab, bb)),
        shapes=shapes,
        verdict=_verdict(numbers, shapes, n_groups),
        n_layers=n,
        dof=dof(2),
        level=level,
    )


def _no_law(n_layers: int, level: float) -> Law:
    numbers: dict[str, Any] = {field.name: None for field in fields(Law)}
    return Law.from_dict(
        numbers
        | {
            "covariance": ((None, None), (None, None)),
            "shapes": dict.fromkeys(SHAPES),
            "verdict": "undecided",
            "n_layers": n_layers,
            "dof": 0,
            "level": level,
        }
    )

"""The relation of exponent to depth, and the tests of it.

The paper reports a law that is linear in depth. Here that is a hypothesis: alpha_l = a + b d_l.
Two questions are kept apart.

* *This network*: its layers are taken as given, and the images are a sample. That is a description,
  with narrow intervals (:mod:`natstats.law.description`).
* *A law*: the layers are a sample, too, whose distances from the line are correlated from layer to
  layer (:mod:`natstats.law.regression`). The verdict in words is the answer to this question. Even
  so it rests on one network; for many see :func:`natstats.meta_analysis`.

The line is tested in three ways: against four other shapes by AICc (Hurvich and Tsai 1989,
Biometrika 76), for lack of fit, and by the same regression on the normal scores of the ranks (Blom
1958), which no single layer can dominate.

How the authors of the paper fitted and tested their law is not known to us.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from natstats import checks
from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import DepthName
from natstats.html_blocks import html_block, html_table
from natstats.law.description import Description, describe
from natstats.law.regression import LayerErrors
from natstats.law.shapes import SHAPES, best_of, compare_shapes
from natstats.law.trend import (
    FEWEST_DEPTHS,
    FEWEST_LAYERS,
    SIGNIFICANCE,
    line_of,
    outcome_of,
    trend_numbers,
    usable_layers,
)
from natstats.numbers import as_number, change, counted, nan_for_null, number

__all__ = ["OLDER_VERDICTS", "SHAPES", "VERDICTS", "Law", "bare_p", "fit_law", "format_p"]

VERDICTS = (
    "linear law",
    "rises",
    "falls",
    "no trend",
    "depends on the specification",
    "too little to tell",
)
"""What a law can be found to be. ``depends on the specification`` is found only where the law is
fitted in several ways, see :mod:`natstats.law.specifications`."""

OLDER_VERDICTS = ("linear", "rises, not linearly", "undecided")
"""Verdicts of versions before 0.7, which series that were measured then still have."""

FEWEST_FOR_VERDICT = 8
"""With fewer groups of images than this the verdict is ``too little to tell``."""

CLEAR_AICC = 6.0
"""Another shape must beat the linear one by this much AICc to overrule it."""

TREND_SHARE = 0.5
"""``no trend`` is said where no slope in the interval explains more of the variance than this."""

Array = NDArray[np.float64]


OPENINGS = {
    "linear law": "The exponent rises linearly with {}",
    "rises": "The exponent rises with {}, a straight line not being shown",
    "falls": "The exponent falls with {}",
    "no trend": "No trend of the exponent with {} was found",
    "depends on the specification": "Whether the exponent changes with {} depends on the "
    "specification",
    "too little to tell": "Too little to tell whether the exponent changes with {}",
}
"""How the sentence on a law begins, for each of :data:`VERDICTS`; {} stands for the measure."""


@dataclass(frozen=True, repr=False)
class Law:
    """The fitted law with its tests. NaN wherever a number could not be had.

    Attributes:
        slope: change of the exponent per unit of depth, the layers being a sample.
        slope_low: lower end of its interval.
        slope_high: upper end of its interval.
        intercept: exponent of the line at depth 0.
        covariance: covariance of intercept and slope, 2 x 2.
        trend_p: p-value of the test that the slope is zero.
        correlation: phi, the correlation of neighbours in what the line leaves.
        correlation_low: lower end of its interval.
        correlation_high: upper end of its interval.
        stage_share: share of what the line leaves that layers with maps of one size have in common.
        between_layer_sd: scatter of layers about the line beyond sampling error.
        rank_correlation: Kendall's tau-b of exponent and depth.
        rank_p: p-value of the test that ranks have no trend, with correlated scatter.
        lack_of_fit_p: p-value of the test that a quadratic and a cubic term add nothing.
        slope_within_resolution: the slope with every resolution given a level of its own.
        slope_within_resolution_low: lower end of its interval.
        slope_within_resolution_high: upper end of its interval.
        shapes: AICc by shape, the smallest is the best; NaN where there are too few layers.
        network: the exponents of this network, described; None with too few layers.
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
    trend_p: float
    correlation: float
    correlation_low: float
    correlation_high: float
    stage_share: float
    between_layer_sd: float
    rank_correlation: float
    rank_p: float
    lack_of_fit_p: float
    slope_within_resolution: float
    slope_within_resolution_low: float
    slope_within_resolution_high: float
    shapes: dict[str, float]
    network: Description | None
    verdict: str
    n_layers: int
    dof: float
    level: float = 0.95
    depth: str = "layers"

    @property
    def best_shape(self) -> str | None:
        """The shape with the smallest AICc, None when none could be fitted."""
        return best_of(self.shapes)

    def predict(self, depth: Array) -> tuple[Array, Array, Array]:
        """The line and the ends of its pointwise interval at `depth` (n,): three (n,) arrays."""
        depth = np.asarray(depth, dtype=np.float64)
        design = np.stack([np.ones_like(depth), depth], axis=1)
        middle = design @ np.array([self.intercept, self.slope])
        error = np.sqrt(np.einsum("ni,ij,nj->n", design, np.array(self.covariance), design))
        reach = special.stdtrit(self.dof, 0.5 + self.level / 2) * error
        return middle, middle - reach, middle + reach

    def sentence(self) -> str:
        """The verdict in words, with the numbers that it rests on."""
        measure = DEPTH_AXES[self.depth]
        if not np.isfinite(self.slope):
            what = f"with an exponent and an interval{measure.condition}"
            fewest = f"at {FEWEST_DEPTHS} depths or more"
            if self.n_layers > 1:
                return (
                    f"Too little to tell: a law takes at least {FEWEST_LAYERS} layers {what}, "
                    f"{fewest}; this network has {self.n_layers}."
                )
            found = "only 1 layer" if self.n_layers else "no layer"
            return (
                "Too little to tell: a law says how exponents change from layer to layer, and here "
                f"it has {found} {what}; it takes at least {FEWEST_LAYERS}, {fewest}."
            )
        opening = OPENINGS[self.verdict].format(measure.name)
        text = (
            f"{opening}: slope {change(self.slope, self.slope_low, self.slope_high)} "
            f"{measure.per} ({100 * self.level:g} % interval; p {format_p(self.trend_p)}, by ranks "
            f"{format_p(self.rank_p)}) over {self.n_layers} layers, whose neighbours have the "
            f"correlation {number(self.correlation)}"
        )
        if self.verdict == "rises":
            text += f"; lack of fit of a line p {format_p(self.lack_of_fit_p)}"
        if self.best_shape is not None:
            text += f"; best shape by AICc: {self.best_shape}"
        return text + "."

    def __repr__(self) -> str:
        if not np.isfinite(self.slope):
            return f"<Law: {self.verdict}, {counted(self.n_layers, 'layer')}>"
        slope = change(self.slope, self.slope_low, self.slope_high)
        per = DEPTH_AXES[self.depth].briefly
        return f"<Law: {self.verdict}, slope {slope} {per}, {counted(self.n_layers, 'layer')}>"

    def _repr_html_(self) -> str:
        measure = DEPTH_AXES[self.depth]
        if not np.isfinite(self.slope):
            return html_block("Law", [self.sentence()])
        p_values = (bare_p(p) for p in (self.trend_p, self.rank_p))
        rows = [
            (
                f"slope {measure.briefly}",
                change(self.slope, self.slope_low, self.slope_high),
            ),
            (
                "p; by ranks",
                "; ".join(p_values),
            ),
            ("layers", f"{self.n_layers}"),
            ("correlation of neighbours", number(self.correlation)),
            ("best shape by AICc", self.best_shape or "–"),
            ("verdict", self.verdict),
        ]
        return html_block("Law", [self.sentence()], html_table([], rows))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Law:
        """Inverse of :meth:`to_dict`; None stands for NaN.

        Raises:
            UsageError: a field is missing or unknown.
        """
        plain = nan_for_null(values)
        try:
            plain["covariance"] = tuple(
                tuple(as_number(cell) for cell in row) for row in plain["covariance"]
            )
            plain["shapes"] = nan_for_null(plain["shapes"])
            if isinstance(plain["network"], dict):
                plain["network"] = Description.from_dict(plain["network"])
            else:
                plain["network"] = None
            return cls(**plain)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"law: expected the fields of a law; {error}") from None


def format_p(p: float) -> str:
    """A p-value as a relation, never rounded to zero.

    >>> format_p(0.0312), format_p(1e-9), format_p(float("nan"))
    ('= 0.031', '< 0.001', 'not available')
    """
    if not np.isfinite(p):
        return "not available"
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def bare_p(p: float, missing: str = "–") -> str:
    """A p-value without the sign of equality, as cells of tables have it.

    >>> bare_p(0.0312), bare_p(1e-9), bare_p(float("nan"))
    ('0.031', '< 0.001', '–')
    """
    return format_p(p).removeprefix("= ") if np.isfinite(p) else missing


def _verdict(
    law: dict[str, float], shapes: dict[str, float], depth: Array, exponent: Array, n_groups: int
) -> str:
    if n_groups < FEWEST_FOR_VERDICT:
        return "too little to tell"
    outcome = outcome_of(law["slope"], law["trend_p"], law["rank_p"])
    if outcome == "no trend":
        farthest = max(abs(law["slope_low"]), abs(law["slope_high"]))
        explained = (farthest * np.std(depth)) ** 2
        is_small = explained <= TREND_SHARE * float(np.var(exponent))
        return "no trend" if is_small else "too little to tell"
    if outcome == "falls":
        return outcome
    # A constant cannot overrule a slope that the test has found.
    rivals = [shapes[name] for name in SHAPES if name not in ("constant", "linear")]
    overruled = any(rival < shapes["linear"] - CLEAR_AICC for rival in rivals)
    bent = law["lack_of_fit_p"] < SIGNIFICANCE or overruled
    return "rises" if bent else "linear law"


def fit_law(
    depth: Sequence[float] | Array,
    exponent: Sequence[float] | Array,
    deviations: Array,
    resolution: Sequence[Any],
    level: float = 0.95,
    measure: DepthName = "layers",
    names: Sequence[str] | None = None,
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
        names: of the layers, for those that depart most, (L,); by default their numbers.

    Returns:
        The law; with too few layers or depths the verdict is ``too little to tell`` and its numbers
        are NaN.

    Raises:
        UsageError: the lengths differ, `level` is out of range or there is no such measure.

    >>> rng = np.random.default_rng(1)
    >>> depth = np.arange(1, 21)
    >>> exponent = 1.0 + 0.05 * depth + 0.02 * rng.standard_normal(20)
    >>> deviations = 0.001 * rng.standard_normal((64, 20))
    >>> fit_law(depth, exponent, deviations, ["28"] * 20).verdict
    'linear law'
    """
    checks.probability("level", level)
    checks.one_of("measure", measure, DEPTH_AXES)
    names = [str(place) for place in range(len(depth))] if names is None else list(names)
    layers = usable_layers(depth, exponent, deviations, resolution, names)
    n = len(layers.depth)
    if n < FEWEST_LAYERS or len(set(layers.depth)) < FEWEST_DEPTHS:
        return _no_law(n, level, measure)
    errors = LayerErrors(layers.exponent, layers.deviations)
    design = line_of(layers)
    line = errors.regress(design)
    numbers = trend_numbers(layers, errors, design, line, level)
    shapes = compare_shapes(errors, layers.depth, layers.resolution)
    aicc = {name: shape.aicc for name, shape in shapes.items()}
    (aa, ab), (_, bb) = line.mean_covariance.tolist()
    return Law(
        **numbers,
        covariance=((aa, ab), (ab, bb)),
        shapes=aicc,
        network=describe(errors, layers.depth, shapes, layers.names, level),
        verdict=_verdict(numbers, aicc, layers.depth, layers.exponent, len(layers.deviations)),
        n_layers=n,
        dof=float(line.weight @ line.dof[:, 1]),
        level=level,
        depth=measure,
    )


def _no_law(n_layers: int, level: float, measure: str) -> Law:
    numbers: dict[str, Any] = {field.name: None for field in fields(Law)}
    return Law.from_dict(
        numbers
        | {
            "covariance": ((None, None), (None, None)),
            "shapes": dict.fromkeys(SHAPES),
            "network": None,
            "verdict": "too little to tell",
            "n_layers": n_layers,
            "dof": None,
            "level": level,
            "depth": measure,
        }
    )

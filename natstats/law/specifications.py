"""The trend of exponent with depth under many reasonable ways to measure it.

Whoever fits a law chooses an estimator, a band, the layers, a measure of depth. A result that
another reasonable choice reverses is due to the choice. So all combinations of the choices below
are fitted, a specification curve (Simonsohn, Simmons and Nelson 2020, Nature Human Behaviour 4),
and the verdict says first where they disagree:

* estimator: all of :data:`natstats.fits.estimators.ESTIMATORS`;
* band: the one asked for; without its top octave; without its bottom octave; the widest band in
  cycles/image that all layers hold;
* layers: all; those of one kind; without those of few rings; without the first; without those of
  one map size, each in turn;
* depth: along the longest path, in the order of execution, by receptive field;
* map size: left alone, or the logarithm of the maps' side as a covariate.

Combinations that are the same in this network, such as two depths in a chain of layers, count once;
those that leave too few layers for a law do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.fits.alternatives import Exponents, alternative_exponents
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.exponents import FEW_RINGS
from natstats.fits.options import FitOptions
from natstats.law.mixtures import intervals_of, p_values_of
from natstats.law.regression import Design, LayerErrors, regress_together
from natstats.law.trend import FEWEST_DEPTHS, FEWEST_LAYERS, outcome_of, rank_ps
from natstats.numbers import map_size
from natstats.spectra.records import LayerSpectrum

__all__ = ["AGREEMENT", "CHOICES", "Specification", "Specifications", "subsets_of", "try_all"]

CHOICES = ("estimator", "band", "layers", "depth", "map_size")
"""The choices that make a specification."""

AGREEMENT = 0.9
"""Share of specifications that must find the same, or the verdict depends on them."""

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Specification:
    """The trend under one combination of choices.

    Attributes:
        estimator: name of the estimator.
        band: the frequencies that are fitted, in words.
        layers: which layers, in words.
        depth: name of the measure of depth.
        map_size: ``left alone`` or ``covariate``.
        n_layers: layers with an exponent.
        slope: per unit of that depth.
        change: the slope times what lies between the least and the largest depth of all layers of
            the law, so that all specifications can be compared.
        change_low: lower end of its interval.
        change_high: upper end of its interval.
        p: p-value of the test that the slope is zero.
        rank_p: the same by ranks.
        outcome: ``rises``, ``falls`` or ``no trend``.
    """

    estimator: str
    band: str
    layers: str
    depth: str
    map_size: str
    n_layers: int
    slope: float
    change: float
    change_low: float
    change_high: float
    p: float
    rank_p: float
    outcome: str


@dataclass(frozen=True, eq=False, repr=False)
class Specifications(Brief):
    """All specifications of a network; the first is the one that was asked for."""

    rows: Sequence[Specification]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row each, sorted by the change over all depths; columns as in `Specification`."""
        columns = [field.name for field in fields(Specification)]
        frame = pd.DataFrame([asdict(row) for row in self.rows], columns=columns)
        return frame.sort_values("change", kind="stable", ignore_index=True)

    @cached_property
    def counts(self) -> Counter[str]:
        """How many have each outcome."""
        return Counter(row.outcome for row in self.rows)

    def agreement(self, outcome: str) -> float:
        """Share of the specifications that find this; NaN without any."""
        return self.counts[outcome] / len(self.rows) if self.rows else float("nan")

    def sentence(self) -> str:
        """What they find.

        >>> choices = "octave", "whole", "all", "layers", "left alone"
        >>> found = [Specification(*choices, 9, *[0.1] * 6, one) for one in ("rises", "no trend")]
        >>> Specifications(found).sentence()
        'rises in 1 of 2 specifications, falls in none'
        """
        n, counts = len(self.rows), self.counts
        if not counts["rises"] and not counts["falls"]:
            return f"neither rises nor falls in any of {n} specifications"
        ways = ("falls", "rises") if counts["falls"] > counts["rises"] else ("rises", "falls")
        most, least = (counts[way] for way in ways)
        return f"{ways[0]} in {most} of {n} specifications, {ways[1]} in {least or 'none'}"

    def hinge(self, outcome: str) -> str:
        """On which choice it depends most whether this is found, in words; empty if on none.

        It is the choice between whose values the share of specifications with this outcome differs
        most.
        """
        frame, found = self.frame, None
        for choice in CHOICES:
            by_value = (frame.outcome == outcome).groupby(frame[choice], sort=False)
            shares = by_value.agg(["mean", "sum", "size"])
            apart = float(shares["mean"].max() - shares["mean"].min())
            if len(shares) > 1 and apart > 0 and (found is None or apart > found[0]):
                found = apart, choice, shares
        if found is None:
            return ""
        _, choice, shares = found
        ordered = shares.sort_values("mean", ascending=False, kind="stable")
        told = [
            f"{row['sum']} of {row['size']} {_with(choice, value)}{self._fewer(choice, value)}"
            for value, row in zip(ordered.index, ordered.to_dict("records"), strict=True)
        ]
        return f"{outcome} in {told[0]}, in {told[-1]}"

    def _fewer(self, choice: str, value: str) -> str:
        """How many layers have an exponent in a band, where maps are too small for it."""
        n_layers = self.frame.n_layers
        most, total = n_layers[self.frame[choice] == value].max(), n_layers.max()
        return f" ({most} of {total} layers)" if choice == "band" and most < total else ""


def _with(choice: str, value: str) -> str:
    """A value of a choice, in words that continue a sentence."""
    if choice == "map_size":
        return f"with map size {'as a ' if value == 'covariate' else ''}{value}"
    if choice == "layers":
        return value if value.startswith(("without", "only")) else "of all layers"
    if choice == "depth":
        return f"by {DEPTH_AXES[value].name}"
    if choice == "estimator":
        return f"by {value}"
    if value.startswith("without"):
        return value
    return "in the whole band" if value == "whole" else f"in the band of {value}"


def subsets_of(table: pd.DataFrame) -> dict[str, Mask]:
    """Choices of layers by name, all of them first.

    Args:
        table: a row per layer of the law: kind, depth, height, width, n_rings.
    """
    everything = np.ones(len(table), dtype=bool)
    found = {"all": everything}
    kinds = table["kind"].value_counts(sort=False)
    if len(kinds) > 1:
        found |= {f"only {kind}": (table.kind == kind).to_numpy() for kind in kinds.index}
    found["without few rings"] = (table.n_rings >= FEW_RINGS).to_numpy()
    found["without the first"] = np.arange(len(table)) != np.argmin(table.depth.to_numpy())
    sizes = [map_size(h, w) for h, w in zip(table.height, table.width, strict=True)]
    if len(set(sizes)) > 1:
        for size in dict.fromkeys(sizes):
            found[f"without maps of {size}"] = np.array([own != size for own in sizes])
    distinct = {mask.tobytes(): (name, mask) for name, mask in reversed(found.items())}
    kept = {name for name, mask in distinct.values() if mask.sum() >= FEWEST_LAYERS}
    return {name: mask for name, mask in found.items() if name in kept}


def try_all(
    layers: Sequence[LayerSpectrum],
    table: pd.DataFrame,
    options: FitOptions,
    depths: Mapping[str, Array] | None = None,
) -> Specifications:
    """Fit the trend under every combination of choices, that of the options first.

    Args:
        layers: spectra of the layers of the law.
        table: a row for each of them, the columns of ``layers.csv``.
        options: what was asked for: estimator, band, depth, level.
        depths: of these layers, (L,), by the name of the measure; by default those of the table,
            where relative depth is 1 at the deepest layer of the table.
    """
    depths = depths or {name: axis.values(table) for name, axis in DEPTH_AXES.items()}
    alternatives = list(alternative_exponents(layers, options))
    own = (options.estimator, alternatives[0].band if alternatives else "", "all")
    stages = [map_size(h, w) for h, w in zip(table.height, table.width, strict=True)]
    ways = [
        _Way(which, mask, axis, depth, covariate)
        for which, mask in subsets_of(table).items()
        for axis, depth in _depths(depths, mask, options).items()
        for covariate in _covariates(table, mask)
    ]
    distinct = _distinct(ways, alternatives)
    rows: list[Specification] = []
    for place, way in enumerate(ways):
        span = float(np.ptp(way.depth[np.isfinite(way.depth)]))
        # Exponents of the same layers share their design, and are regressed together.
        alike: dict[bytes, list[int]] = {}
        for other, one in enumerate(alternatives):
            if (place, other) in distinct:
                alike.setdefault(way.chosen(one).tobytes(), []).append(other)
        found: dict[int, Specification] = {}
        for others in alike.values():
            several = [alternatives[other] for other in others]
            design = _design(table, way, way.chosen(several[0]), stages)
            if design is not None:
                fitted = _fitted(way, several, design, span, options.level)
                found |= zip(others, fitted, strict=True)
        rows += [found[other] for other in sorted(found)]
    return Specifications(_asked_first(rows, own, options))


@dataclass(frozen=True, eq=False)
class _Way:
    """What is chosen beside the estimator and the band."""

    layers: str
    mask: Mask
    axis: str
    depth: Array
    covariate: str

    def chosen(self, one: Exponents) -> Mask:
        """The layers that have an exponent and a depth, (L,)."""
        return np.asarray(self.mask & np.isfinite(one.exponents) & np.isfinite(self.depth))


def _distinct(ways: Sequence[_Way], alternatives: Sequence[Exponents]) -> set[tuple[int, int]]:
    """Places of the ways and exponents whose regression differs from all that came before.

    In a band that some layers do not hold, leaving these layers out changes nothing; and where all
    maps that are left have one size, the widest common band is the whole one. Of regressions that
    are the same, the one in the band that was asked for is kept.
    """
    found: dict[tuple[str, bytes, bytes, bytes], tuple[int, int]] = {}
    for other, one in enumerate(alternatives):
        for place, way in enumerate(ways):
            chosen = way.chosen(one)
            own = way.depth[chosen]
            if len(own) < FEWEST_LAYERS or len(set(own)) < FEWEST_DEPTHS:
                continue
            exponents = np.round(one.exponents[chosen], 9).tobytes()
            found.setdefault(
                (way.covariate, chosen.tobytes(), _spaced(own), exponents), (place, other)
            )
    return set(found.values())


def _asked_first(
    rows: list[Specification], own: tuple[str, ...], options: FitOptions
) -> list[Specification]:
    """The specifications with the one that the options ask for at the front."""
    column = DEPTH_AXES[options.depth].column
    for place, row in enumerate(rows):
        is_own = (row.estimator, row.band, row.layers) == own and row.map_size == "left alone"
        if is_own and DEPTH_AXES[row.depth].column == column:
            return [row, *rows[:place], *rows[place + 1 :]]
    return rows


def _depths(depths: Mapping[str, Array], mask: Mask, options: FitOptions) -> dict[str, Array]:
    """Measures of depth that order or space these layers in different ways, the asked one first."""
    names = [options.depth, *(name for name in DEPTH_AXES if name != options.depth)]
    found: dict[bytes, tuple[str, Array]] = {}
    for name in names:
        depth = depths[name]
        inner = depth[mask & np.isfinite(depth)]
        if len(inner) >= FEWEST_LAYERS and len(set(inner)) >= FEWEST_DEPTHS:
            found.setdefault(_spaced(inner), (name, depth))
    return dict(found.values())


def _spaced(depth: Array) -> bytes:
    """A key that is the same for depths that differ only in unit and origin."""
    spaced: Array = np.round((depth - depth.min()) / np.ptp(depth), 9)
    return spaced.tobytes()


def _covariates(table: pd.DataFrame, mask: Mask) -> Iterator[str]:
    yield "left alone"
    if len(set(_side(table)[mask])) > 1:
        yield "covariate"


def _side(table: pd.DataFrame) -> Array:
    """Log of the side of the maps, (L,)."""
    return np.asarray(np.log(table.height.to_numpy(float) * table.width.to_numpy(float)) / 2)


def _design(table: pd.DataFrame, way: _Way, chosen: Mask, stages: Sequence[str]) -> Design | None:
    """The line over the chosen layers; None where they cannot carry a covariate."""
    own = way.depth[chosen]
    columns = [np.ones_like(own), own]
    if way.covariate == "covariate":
        columns.append(_side(table)[chosen])
    design = np.stack(columns, axis=1)
    scaled = design / np.abs(design).max(axis=0)
    if np.linalg.matrix_rank(scaled, tol=1e-6) < len(columns) or len(own) < len(columns) + 2:
        return None
    return Design(design, own, [s for s, use in zip(stages, chosen, strict=True) if use])


def _fitted(
    way: _Way, several: Sequence[Exponents], design: Design, span: float, level: float
) -> list[Specification]:
    """The trend of several exponents of the same layers."""
    chosen = way.chosen(several[0])
    errors = []
    for one in several:
        deviations = one.deviations[:, chosen]
        # As for the law, groups without images are dropped: they would change the dof.
        deviations = deviations[np.any(deviations != 0, axis=1)]
        errors.append(LayerErrors(one.exponents[chosen], deviations))
    slopes = [found.coefficient(1) for found in regress_together(design, errors)]
    numbers = zip(
        several,
        slopes,
        intervals_of(slopes, level),
        p_values_of(slopes),
        rank_ps(errors, design),
        strict=True,
    )
    return [
        Specification(
            estimator=one.estimator,
            band=one.band,
            layers=way.layers,
            depth=way.axis,
            map_size=way.covariate,
            n_layers=int(chosen.sum()),
            slope=slope.mean,
            change=slope.mean * span,
            change_low=ends[0] * span,
            change_high=ends[1] * span,
            p=p,
            rank_p=by_rank,
            outcome=outcome_of(slope.mean, p, by_rank),
        )
        for one, slope, ends, p, by_rank in numbers
    ]

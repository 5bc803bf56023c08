"""The random-weights control: what did training do to the exponents, and what architecture?

The same architecture is measured with random weights of several seeds, on the same images in the
same numbering. The difference of a layer, trained minus the mean over seeds, has errors from two
sources. The images: the deviations of the trained layer minus the mean of the seeds'. And the
seeds: the weights that the network began from are one more draw, which nobody measured, so that
with variance s^2 over n seeds the error is s^2 (1 + 1/n), with n - 1 degrees of freedom. (With the
error s^2/n of the mean alone, most networks that learned nothing would be found different from the
rest, the more surely the more seeds there are.) The exponents of the seeds carry errors of the
images too; the part of these that differs from seed to seed counts twice, so the interval tends to
be too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.exponents import fit_layers
from natstats.fits.records import Fits, LayerFit
from natstats.law.differences import (
    Differences,
    ErrorSource,
    Estimate,
    depths_of,
    holm,
    layers_text,
)
from natstats.law.law import format_p
from natstats.law.seed_variance import pooled_seeds, seeds_as_source
from natstats.law.trend import SIGNIFICANCE, SMALL_CHANGE
from natstats.numbers import counted, number
from natstats.report.records import ControlReport
from natstats.runs.random_weights import RandomWeights
from natstats.runs.tables import in_law
from natstats.spectra.frequencies import extent
from natstats.spectra.records import Layer, LayerSpectrum

__all__ = ["Control", "RandomWeights", "compare_with_random"]

SMALL_MEAN = SMALL_CHANGE / 2
"""A small change of the mean exponent: that of a network whose exponents rise by a small change
from its first layer to its last."""

FEW_SEEDS = 10
"""With fewer seeds than this the interval is long for their number alone: Student's t has as many
degrees of freedom less one."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Control(Brief):
    """Trained minus random weights, layer by layer and as slopes.

    Attributes:
        layers: table with a row for each layer of the run but the images: layer, kind, depth,
            exponent, exponent_low, exponent_high, control_mean, control_sd (over seeds),
            difference, low, high, p, p_corrected (Holm), reason (why there is no difference), and
            the exponent with every seed, seed_0 and so on.
        seeds: seeds of the random weights.
        mean: difference in the mean over the layers that count.
        slope: difference of the slopes against depth.
        slope_trained: slope of the trained layers that count. They weigh as in the difference, and
            in the law by their own errors, so that its slope is another.
        slope_random: mean over seeds of the slope of the same layers with random weights.
        n_layers: layers that count: those with a difference that are nowhere beyond range. The
            slopes are over those of them that are in the law.
        n_differ: how many of them differ at 5 % after correction for their number.
        undecided: which of ``mean`` and ``slope`` have an interval that holds both no change and a
            large one: more than :data:`SMALL_MEAN` in the mean, or more than
            :data:`natstats.law.trend.SMALL_CHANGE` over the depths of the layers.
        level: level of the intervals.
        depth: name of the measure of depth, see :data:`natstats.fits.depth_axes.DEPTH_AXES`.
        n_in_slope: layers in the slopes.
    """

    layers: pd.DataFrame
    seeds: tuple[int, ...]
    mean: Estimate
    slope: Estimate
    slope_trained: float
    slope_random: float
    n_layers: int
    n_differ: int
    undecided: tuple[str, ...]
    level: float
    depth: str
    n_in_slope: int = 0

    def report(self) -> ControlReport:
        """Everything that its figure shows."""
        return ControlReport(self.layers, self.seeds, self.sentence())

    def sentence(self) -> str:
        """The verdict in words, with the numbers that it rests on: one to four sentences."""
        against = (
            f"{counted(len(self.seeds), 'network')} of the same architecture with random weights"
        )
        if not self.n_layers:
            return f"Control: no layer has an exponent both trained and in {against}."
        n_layers = layers_text(self.n_layers)
        said = [
            f"{self._opening()}: {self.mean.text()} in the mean over {n_layers} "
            f"({100 * self.level:g} % interval; p {format_p(self.mean.p)}), against {against}",
            f"{self.n_differ} of {n_layers} {'differs' if self.n_differ == 1 else 'differ'} after "
            "Holm's correction",
        ]
        if np.isfinite(self.slope.value):
            over = "" if self.n_in_slope == self.n_layers else f" over {self.n_in_slope} of them"
            said += [
                f"The slope {DEPTH_AXES[self.depth].per}{over} is "
                f"{number(self.slope_trained, 4, sign=True)} trained and "
                f"{number(self.slope_random, 4, sign=True)} with random weights: a difference of "
                f"{self.slope.text()} (p {format_p(self.slope.p)})",
                "Layers weigh here by the errors of their differences, in the law by their own",
            ]
        return ". ".join(said) + "."

    def _opening(self) -> str:
        """What training did, or that the seeds do not tell; it follows from the intervals."""
        n_seeds = len(self.seeds)
        cannot = f"{counted(n_seeds, 'seed does', 'seeds do')} not tell whether"
        if n_seeds < FEW_SEEDS:
            cannot = f"{counted(n_seeds, 'seed is', 'seeds are')} too few to tell whether"
        little = f"by less than {SMALL_MEAN:g}"
        but_mean = f"but their mean, if at all, {little}"
        if "mean" in self.undecided:
            but_mean = f"but {cannot} it changed their mean"
        if moved := _moved(self.mean):
            return f"Training {moved} the exponents"
        if moved := _moved(self.slope):
            return f"Training {moved} the slope of the exponents, {but_mean}"
        if self.n_differ:
            return f"Training changed single layers, {but_mean}"
        if "mean" in self.undecided:
            return f"{cannot} training changed the exponents"
        if "slope" in self.undecided:
            return (
                f"Training changed the mean of the exponents, if at all, {little}, and {cannot} it "
                "changed their slope"
            )
        return f"Training changed the exponents, if at all, {little} in the mean"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the layers are a table of their own."""
        kept = asdict(self)
        del kept["layers"]
        return {"control": "random-weights", **kept, "sentence": self.sentence()}


def compare_with_random(
    spectra: Sequence[LayerSpectrum], fits: Fits, random: Sequence[RandomWeights]
) -> Control:
    """Compare the layers of a trained network with those of random weights, two seeds or more.

    Args:
        spectra: spectra of the trained network, images included.
        fits: their fits; the random weights are fitted with the same options.
        random: what was measured with the random weights of each seed, on the same images.

    Returns:
        Trained minus random weights, layer by layer, in the mean and as slopes.
    """
    beside = _SideBySide.of(spectra, fits, random)
    differences, one_by_one = beside.differences()
    each = one_by_one.each()
    counted = [place for place, one in enumerate(each) if beside.counts(place, one)]
    corrected = np.full(len(each), np.nan)
    corrected[counted] = holm(np.array([each[place].p for place in counted], dtype=np.float64))
    depth = depths_of(spectra, fits.options.depth)[beside.places]
    law = in_law(spectra, fits)[beside.places]
    placed = [place for place in counted if law[place]]
    slope = differences.slope(depth, placed)
    weights = differences.slope_weights(depth, placed)
    trained, with_random = beside.slopes(weights) if weights.any() else _NONE
    mean, level = differences.mean(counted), fits.options.level
    span = float(np.ptp(depth[placed])) if placed else 0.0
    return Control(
        layers=beside.frame(each, corrected),
        seeds=tuple(one.seed for one in random),
        mean=mean,
        slope=slope,
        slope_trained=trained,
        slope_random=with_random,
        n_layers=len(counted),
        n_differ=int(np.sum(corrected < SIGNIFICANCE)),
        undecided=_undecided(mean, slope, span),
        level=level,
        depth=fits.options.depth,
        n_in_slope=len(placed),
    )


_NONE = (np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class _SideBySide:
    """The layers of a trained network beside those of the same network with random weights.

    Attributes:
        random: what was measured with random weights.
        places: where the layers stand in the run, without the images, (L,).
        layers: these layers.
        trained: their fits.
        by_seed: the fits with the weights of each seed, by name of the layer.
        level: level of the intervals.
        exponents: exponents of the layers with each seed, (n_seeds, L); NaN where there is none.
        deviations: their deviations, (n_seeds, G, L).
    """

    random: Sequence[RandomWeights]
    places: list[int]
    layers: list[Layer]
    trained: list[LayerFit]
    by_seed: list[dict[str, LayerFit]]
    level: float
    exponents: Array
    deviations: Array

    @classmethod
    def of(
        cls, spectra: Sequence[LayerSpectrum], fits: Fits, random: Sequence[RandomWeights]
    ) -> _SideBySide:
        """Fit the random weights in the way that the run was, and sort them by its layers."""
        places = [i for i, measured in enumerate(spectra) if measured.layer.kind != "input"]
        layers = [spectra[i].layer for i in places]
        trained = [fits.layers[i] for i in places]
        by_seed = []
        for one in random:
            names = [measured.layer.name for measured in one.spectra]
            fitted = fit_layers(one.spectra, fits.options, is_brief=True).layers
            by_seed.append(dict(zip(names, fitted, strict=True)))
        n_groups = len(trained[0].deviations) if trained else 0
        exponents = np.full((len(random), len(layers)), np.nan)
        deviations = np.full((len(random), n_groups, len(layers)), np.nan)
        for seed, own in enumerate(by_seed):
            for place, layer in enumerate(layers):
                if layer.name in own:
                    exponents[seed, place] = own[layer.name].exponent
                    deviations[seed, :, place] = own[layer.name].deviations
        level = fits.options.level
        return cls(random, places, layers, trained, by_seed, level, exponents, deviations)

    @property
    def own_exponents(self) -> Array:
        """Exponents of the trained layers, (L,)."""
        return np.array([fit.exponent for fit in self.trained])

    def differences(self) -> tuple[Differences, Differences]:
        """Trained minus the mean over seeds: for combinations of layers, and layer by layer."""
        shape = len(self.layers), self.deviations.shape[1]
        own = np.array([fit.deviations for fit in self.trained]).reshape(shape).T
        images = ErrorSource(own - self.deviations.mean(0))
        side = np.array([extent(one.height, one.width) for one in self.layers], dtype=np.float64)
        value = self.own_exponents - self.exponents.mean(0)
        together, apart = (
            Differences(value, [images, seeds], self.level)
            for seeds in (seeds_as_source(self.exponents), pooled_seeds(self.exponents, side))
        )
        return together, apart

    def counts(self, place: int, difference: Estimate) -> bool:
        """Whether a layer has a difference and is nowhere beyond range."""
        if not np.isfinite(difference.p):
            return False
        name = self.layers[place].name
        fits = self.trained[place], *(own[name] for own in self.by_seed)
        return not any("beyond range" in fit.flags for fit in fits)

    def slopes(self, weights: Array) -> tuple[float, float]:
        """Slopes by these weights of the layers (L,): trained, and the mean of seeds."""
        placed = np.flatnonzero(weights)
        trained, with_random = (
            float(weights[placed] @ one[placed])
            for one in (self.own_exponents, self.exponents.mean(0))
        )
        return trained, with_random

    def frame(self, each: Sequence[Estimate], corrected: Array) -> pd.DataFrame:
        """A row for every layer, see :attr:`Control.layers`."""
        layers, trained = self.layers, self.trained
        return pd.DataFrame(
            {
                "layer": [layer.name for layer in layers],
                "kind": [layer.kind for layer in layers],
                "depth": [layer.depth for layer in layers],
                "exponent": [fit.exponent for fit in trained],
                "exponent_low": [fit.low for fit in trained],
                "exponent_high": [fit.high for fit in trained],
                "control_mean": self.exponents.mean(0),
                "control_sd": self.exponents.std(0, ddof=1),
                "difference": self.own_exponents - self.exponents.mean(0),
                "low": [one.low for one in each],
                "high": [one.high for one in each],
                "p": [one.p for one in each],
                "p_corrected": corrected,
                "reason": [
                    _reason(layer.name, fit, self.random, self.by_seed)
                    for layer, fit in zip(layers, trained, strict=True)
                ],
                **{
                    f"seed_{one.seed}": row
                    for one, row in zip(self.random, self.exponents, strict=True)
                },
            }
        )


def _moved(one: Estimate) -> str:
    """What an interval without zero shows, ``raised`` or ``lowered``; empty for all others."""
    return "raised" if one.low > 0 else "lowered" if one.high < 0 else ""


def _undecided(mean: Estimate, slope: Estimate, span: float) -> tuple[str, ...]:
    """Which intervals hold both zero and a large change; `span` is that of depths in the slope."""
    scaled = (("mean", mean, 1 / SMALL_MEAN), ("slope", slope, span / SMALL_CHANGE))
    return tuple(
        name
        for name, one, scale in scaled
        if not _moved(one) and scale * max(abs(one.low), abs(one.high)) > 1
    )


def _reason(
    name: str,
    trained: LayerFit,
    random: Sequence[RandomWeights],
    by_name: Sequence[dict[str, LayerFit]],
) -> str:
    """Why a layer has no difference, or does not count; empty when it does."""
    counts = np.isfinite(trained.exponent) and "beyond range" not in trained.flags
    reasons = [] if counts else [f"trained: {'; '.join(trained.flags)}"]
    for one, own in zip(random, by_name, strict=True):
        skipped = {layer.name: layer.reason for layer in one.skipped}
        if name not in own:
            reasons.append(f"seed {one.seed}: {skipped.get(name, 'not measured')}")
        elif not np.isfinite(own[name].exponent) or "beyond range" in own[name].flags:
            reasons.append(f"seed {one.seed}: {'; '.join(own[name].flags)}")
    return ", ".join(reasons)

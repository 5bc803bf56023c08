"""The random-weights control: what did training do to the exponents, and what architecture?

The same architecture is measured with random weights of several seeds, on the same images in the
same numbering. The difference of a layer, trained minus the mean over seeds, has errors from two
sources. The images: the deviations of the trained layer minus the mean of the seeds'. And the
seeds: the weights that the network began from are one more draw, which nobody measured, so that
with variance s^2 over n seeds the error is s^2 (1 + 1/n), with n - 1 degrees of freedom. (The error
s^2/n of the mean alone would call most networks that learned nothing different from the rest, the
more surely the more seeds there are.) As the exponents of the seeds carry errors of the images too,
what of these differs from seed to seed counts twice, and the interval is rather too long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from natstats.errors import NatstatsError
from natstats.files.paths import member
from natstats.files.schema import shown
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
from natstats.law.law import SIGNIFICANCE, format_p
from natstats.law.seed_variance import pooled_seeds, seeds_as_source
from natstats.numbers import number
from natstats.report.records import ControlReport
from natstats.runs import store
from natstats.spectra.frequencies import extent
from natstats.spectra.records import LayerSpectrum, SkippedLayer

__all__ = [
    "Control",
    "RandomWeights",
    "compare_with_random",
    "read_random_weights",
    "seeds_as_source",
    "write_random_weights",
]

FOLDER = "control"

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RandomWeights:
    """What was measured of the network with random weights of one seed.

    Attributes:
        seed: of the weights.
        info: facts about the measurement, as of a run.
        spectra: of the layers, without the input images and without spectra of single images.
        skipped: layers that were not measured.
    """

    seed: int
    info: dict[str, Any]
    spectra: list[LayerSpectrum]
    skipped: list[SkippedLayer]

    @classmethod
    def of(
        cls,
        seed: int,
        info: dict[str, Any],
        spectra: Sequence[LayerSpectrum],
        skipped: Sequence[SkippedLayer],
    ) -> RandomWeights:
        """Keep what the control needs of a measurement: neither images nor their own spectra."""
        kept = [
            LayerSpectrum(m.layer, replace(m.spectrum, image_power=m.spectrum.image_power[:0]))
            for m in spectra
            if m.layer.kind != "input"
        ]
        return cls(seed, info, kept, list(skipped))


@dataclass(frozen=True, eq=False)
class Control:
    """Trained minus random weights, layer by layer and as slopes.

    Attributes:
        layers: a row for each layer of the run but the images: layer, kind, depth, exponent,
            exponent_low, exponent_high, control_mean, control_sd (over seeds), difference, low,
            high, p, p_corrected (Holm), reason (why there is no difference), and the exponent
            with every seed, seed_0 and so on.
        seeds: of the random weights.
        mean: difference in the mean over the layers that count.
        slope: difference of the slopes against depth.
        slope_trained: slope of the trained layers that count.
        slope_random: mean over seeds of the slope of the same layers with random weights.
        n_layers: layers that count: those with a difference that are nowhere beyond range.
        n_differ: those of them that differ at 5 % after correction for their number.
        undecided: which of ``mean``, ``slope`` and ``layers`` would differ at 5 % if the variance
            of the seeds were known, and do not with so few seeds to tell it.
        level: of the intervals.
        depth: the measure of depth, see :data:`natstats.fits.depth_axes.DEPTH_AXES`.
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

    def report(self) -> ControlReport:
        """Everything that its figure shows."""
        return ControlReport(self.layers, self.seeds, self.sentence())

    def sentence(self) -> str:
        """The verdict in words, with the numbers that it rests on."""
        against = f"{len(self.seeds)} networks of the same architecture with random weights"
        if not self.n_layers:
            return f"Control: no layer has an exponent both trained and in {against}."
        opening = self._opening()
        n_layers = layers_text(self.n_layers)
        text = (
            f"{opening}: {self.mean.text()} in the mean over {n_layers}, against {against} "
            f"({100 * self.level:g} % interval; p {format_p(self.mean.p)}); {self.n_differ} of "
            f"{n_layers} {'differs' if self.n_differ == 1 else 'differ'} after Holm's correction"
        )
        if np.isfinite(self.slope.value):
            text += (
                f"; slope {DEPTH_AXES[self.depth].per} "
                f"{number(self.slope_trained, 4, sign=True)} trained and "
                f"{number(self.slope_random, 4, sign=True)} with random weights, difference "
                f"{self.slope.text()} (p {format_p(self.slope.p)})"
            )
        return text + "."

    def _opening(self) -> str:
        """What training did, as far as the numbers tell; where more seeds might tell, that."""
        too_few = f"{len(self.seeds)} seeds are too few to tell whether"
        but_mean = "but was not found to change their mean"
        if "mean" in self.undecided:
            but_mean = f"but {too_few} it changed their mean"
        if self.mean.p < SIGNIFICANCE:
            return f"Training {'raised' if self.mean.value > 0 else 'lowered'} the exponents"
        if self.slope.p < SIGNIFICANCE:
            moved = "raised" if self.slope.value > 0 else "lowered"
            return f"Training {moved} the slope of the exponents, {but_mean}"
        if self.n_differ:
            return f"Training changed single layers, {but_mean}"
        if self.undecided:
            return f"{too_few} training changed the exponents"
        return "Training was not found to change the exponents"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the layers are a table of their own."""
        kept = asdict(self)
        del kept["layers"]
        return {"control": "random-weights", **kept, "sentence": self.sentence()}


def compare_with_random(
    spectra: Sequence[LayerSpectrum], fits: Fits, random: Sequence[RandomWeights]
) -> Control:
    """Compare the layers of a trained network with those of random weights, two seeds or more.

    The controls are fitted in the way that the run was.
    """
    inner = [i for i, measured in enumerate(spectra) if measured.layer.kind != "input"]
    layers = [spectra[i].layer for i in inner]
    trained = [fits.layers[i] for i in inner]
    by_name = [
        dict(
            zip(
                (m.layer.name for m in one.spectra),
                fit_layers(one.spectra, fits.options).layers,
                strict=True,
            )
        )
        for one in random
    ]
    n_seeds, n_layers = len(random), len(layers)
    n_groups = len(trained[0].deviations) if trained else 0
    exponents = np.full((n_seeds, n_layers), np.nan)
    deviations = np.full((n_seeds, n_groups, n_layers), np.nan)
    for seed, own in enumerate(by_name):
        for place, layer in enumerate(layers):
            if layer.name in own:
                exponents[seed, place] = own[layer.name].exponent
                deviations[seed, :, place] = own[layer.name].deviations

    value = np.array([fit.exponent for fit in trained]) - exponents.mean(0)
    from_trained = np.array([fit.deviations for fit in trained]).reshape(n_layers, n_groups).T
    images = ErrorSource(from_trained - deviations.mean(0))
    side = np.array([extent(layer.height, layer.width) for layer in layers], dtype=np.float64)
    differences, one_by_one = (
        Differences(value, [images, seeds], fits.options.level)
        for seeds in (seeds_as_source(exponents), pooled_seeds(exponents, side))
    )
    each = one_by_one.each()
    counted = [
        place
        for place, layer in enumerate(layers)
        if np.isfinite(each[place].p)
        and not any(
            "beyond range" in fit.flags
            for fit in (trained[place], *(own[layer.name] for own in by_name))
        )
    ]
    corrected = np.full(n_layers, np.nan)
    corrected[counted] = holm(np.array([each[place].p for place in counted], dtype=np.float64))
    depth = depths_of(spectra, fits.options.depth)[inner]
    slope = differences.slope(depth, counted)
    slopes = [np.nan, np.nan]
    if np.isfinite(slope.value):
        both = [np.array([fit.exponent for fit in trained]), exponents.mean(0)]
        placed = [place for place in counted if np.isfinite(depth[place])]
        slopes = [float(np.polyfit(depth[placed], one[placed], 1)[0]) for one in both]
    frame = pd.DataFrame(
        {
            "layer": [layer.name for layer in layers],
            "kind": [layer.kind for layer in layers],
            "depth": [layer.depth for layer in layers],
            "exponent": [fit.exponent for fit in trained],
            "exponent_low": [fit.low for fit in trained],
            "exponent_high": [fit.high for fit in trained],
            "control_mean": exponents.mean(0),
            "control_sd": exponents.std(0, ddof=1),
            "difference": value,
            "low": [one.low for one in each],
            "high": [one.high for one in each],
            "p": [one.p for one in each],
            "p_corrected": corrected,
            "reason": [
                _reason(layer.name, fit, random, by_name)
                for layer, fit in zip(layers, trained, strict=True)
            ],
            **{f"seed_{one.seed}": row for one, row in zip(random, exponents, strict=True)},
        }
    )
    mean, n_differ = differences.mean(counted), int(np.sum(corrected < SIGNIFICANCE))
    return Control(
        layers=frame,
        seeds=tuple(one.seed for one in random),
        mean=mean,
        slope=slope,
        slope_trained=slopes[0],
        slope_random=slopes[1],
        n_layers=len(counted),
        n_differ=n_differ,
        undecided=_undecided(
            mean, slope, [each[place] for place in counted], n_differ, fits.options.level
        ),
        level=fits.options.level,
        depth=fits.options.depth,
    )


def _undecided(
    mean: Estimate, slope: Estimate, layers: Sequence[Estimate], n_differ: int, level: float
) -> tuple[str, ...]:
    """What would differ if its standard error were known, and does not as it is estimated."""

    def known(one: Estimate) -> float:
        """P of the test with a known error."""
        error = (one.high - one.low) / 2 / stats.t.ppf(0.5 + level / 2, one.dof)
        return float(2 * stats.norm.sf(abs(one.value) / error)) if error > 0 else np.nan

    found = [
        name
        for name, one in (("mean", mean), ("slope", slope))
        if one.p >= SIGNIFICANCE and known(one) < SIGNIFICANCE
    ]
    if layers and not n_differ and len(layers) * min(map(known, layers)) < SIGNIFICANCE:
        found.append("layers")  # by Holm's rule for the smallest p
    return tuple(found)


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


def write_random_weights(folder: Path, random: Sequence[RandomWeights]) -> None:
    """Write ``control/seed-0`` and so on into the folder of a run, each as a run."""
    for one in random:
        own = folder / FOLDER / f"seed-{one.seed}"
        own.mkdir(parents=True)
        store.write_run(own, {**one.info, "seed": one.seed}, one.spectra, one.skipped)


def read_random_weights(folder: Path, n_groups: int) -> list[RandomWeights]:
    """Read what :func:`write_random_weights` wrote; empty for a run without a control.

    Args:
        folder: of the run.
        n_groups: groups of images in the run.

    Raises:
        NatstatsError: a part is damaged or missing.
    """
    found = []
    home = member(folder, FOLDER, FOLDER)
    for entry in home.glob("seed-*"):
        name = f"{FOLDER}/{entry.name}"
        info, spectra, skipped = store.read_run(member(home, entry.name, name), name)
        seed = info.pop("seed", None)
        if entry.name != f"seed-{seed}":
            raise NatstatsError(
                f"run: expected a whole run in {folder}; {name}/run.json, seed: expected that of "
                f"the folder; got {shown(seed)}"
            )
        for place, measured in enumerate(spectra):
            if len(measured.spectrum.count) != n_groups:
                raise NatstatsError(
                    f"run: expected a whole run in {folder}; {name}/spectra.npz, {place:04d}/count:"
                    f" expected {n_groups} groups as in the run; got {len(measured.spectrum.count)}"
                )
        found.append(RandomWeights(seed, info, spectra, skipped))
    if len(found) == 1:
        raise NatstatsError(f"control: expected two seeds or more in {home}; got one")
    return sorted(found, key=lambda one: one.seed)

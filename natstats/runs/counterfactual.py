"""A network measured with shuffled kernels, beside what the account of the original predicts.

The prediction is a mean over all orders, and of first order: every other share stays as it is
(:mod:`natstats.theory.counterfactuals`). The measured network has one order, and all its shares
respond to it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from natstats.brief import Brief
from natstats.errors import NatstatsError
from natstats.files.paths import member
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.law.differences import Estimate
from natstats.numbers import counted, number
from natstats.runs import store
from natstats.spectra.records import LayerSpectrum, SkippedLayer
from natstats.theory.account_law import weights_of_slope
from natstats.theory.counterfactuals import Counterfactuals
from natstats.theory.shares import estimate

__all__ = ["MeasuredCounterfactual", "ShuffledWeights", "read_shuffled", "write_shuffled"]

FOLDER = "counterfactual"


@dataclass(frozen=True, eq=False, repr=False)
class ShuffledWeights(Brief):
    """What was measured of a network with shuffled kernels.

    Attributes:
        name: the counterfactual, ``shuffle-kernels`` or ``shuffle-channels``.
        seed: seed of the random order.
        info: facts about the measurement, as of a run.
        spectra: spectra of the layers, without those of single images.
        skipped: layers that were not measured.
    """

    name: str
    seed: int
    info: dict[str, Any]
    spectra: list[LayerSpectrum]
    skipped: list[SkippedLayer]

    @classmethod
    def of(
        cls,
        name: str,
        seed: int,
        info: Mapping[str, Any],
        spectra: Sequence[LayerSpectrum],
        skipped: Sequence[SkippedLayer],
    ) -> ShuffledWeights:
        """Keep what the comparison needs of a measurement."""
        kept = [
            LayerSpectrum(m.layer, replace(m.spectrum, image_power=m.spectrum.image_power[:0]))
            for m in spectra
            if m.layer.kind != "input"
        ]
        return cls(name, seed, dict(info), kept, list(skipped))


def write_shuffled(folder: Path, shuffled: ShuffledWeights) -> None:
    """Write ``counterfactual/`` into the folder of a run, as a run."""
    own = folder / FOLDER
    own.mkdir()
    info = {**shuffled.info, "counterfactual": shuffled.name, "seed": shuffled.seed}
    store.write_run(own, info, shuffled.spectra, shuffled.skipped)


def read_shuffled(folder: Path, n_groups: int) -> ShuffledWeights | None:
    """Read what :func:`write_shuffled` wrote; None for a run without it.

    Args:
        folder: folder of the run.
        n_groups: groups of images in the run.

    Raises:
        NatstatsError: it is damaged.
    """
    if not os.path.lexists(folder / FOLDER):
        return None
    info, spectra, skipped = store.read_run(member(folder, FOLDER, FOLDER), FOLDER)
    name = info.pop("counterfactual", None)
    seed = info.pop("seed", 0)
    if not isinstance(name, str):
        raise NatstatsError(
            f"run: expected a whole run in {folder}; {FOLDER}/run.json, counterfactual: expected a "
            "name; it is missing"
        )
    for measured in spectra:
        if len(measured.spectrum.count) != n_groups:
            raise NatstatsError(
                f"run: expected a whole run in {folder}; {FOLDER}/spectra.npz: expected {n_groups} "
                f"groups as in the run; got {len(measured.spectrum.count)}"
            )
    return ShuffledWeights(name, seed, info, spectra, skipped)


class MeasuredCounterfactual:
    """The exponents of a shuffled network beside those that were predicted.

    Args:
        shuffled: what was measured.
        predicted: what the account of the network itself predicts.
        options: how to fit.
    """

    def __init__(
        self, shuffled: ShuffledWeights, predicted: Counterfactuals, options: FitOptions
    ) -> None:
        self.shuffled, self._predicted, self._options = shuffled, predicted, options
        fits = fit_layers(shuffled.spectra, options, is_brief=True).layers
        self._fits = {
            measured.layer.name: fit for measured, fit in zip(shuffled.spectra, fits, strict=True)
        }

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per layer: layer, depth, exponent, predicted and measured (when shuffled)."""
        table = self._predicted.exponents
        predicted = table.get(self.shuffled.name)
        exponents = [
            self._fits[name].exponent if name in self._fits else np.nan for name in table.layer
        ]
        return pd.DataFrame(
            {
                "layer": table.layer,
                "depth": table.depth,
                "exponent": table.exponent,
                "predicted": np.nan if predicted is None else predicted,
                "measured": exponents,
            }
        )

    @cached_property
    def slope(self) -> Estimate:
        """Slope over depth of the layers of the shuffled network."""
        known = self.frame[np.isfinite(self.frame.measured)]
        weights = weights_of_slope(known.depth.to_numpy(dtype=np.float64))
        if weights is None:
            return Estimate()
        deviations = np.array([self._fits[name].deviations for name in known.layer])
        value = float(weights @ known.measured)
        return estimate(value, weights @ deviations, self._options.level)

    def sentence(self) -> str:
        """Predicted and measured slope in words, and how far layers are from the prediction."""
        name = self.shuffled.name
        axis = DEPTH_AXES[self._options.depth]
        text = f"With {name.replace('shuffle-', 'shuffled ')}, measured: slope "
        text += f"{self.slope.text()} {axis.per}" if np.isfinite(self.slope.value) else "unknown"
        predicted = self._predicted.slope_of.get(name)
        if predicted is not None:
            text += f", predicted {predicted[0].text()}"
        gap = (self.frame.predicted - self.frame.measured).abs()
        if gap.notna().any():
            text += (
                f"; the exponents are {number(float(gap.median()), 2)} from the prediction in the "
                f"median over {counted(int(gap.notna().sum()), 'layer')}"
            )
        return f"{text}."

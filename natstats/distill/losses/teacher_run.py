"""Spectral targets from a measured run of the teacher, in place of the teacher itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from natstats.distill.method import TapPoint
from natstats.errors import UsageError
from natstats.records import LayerSpectrum
from natstats.run import Run

__all__ = ["Target", "points_of", "targets_of"]


@dataclass(frozen=True, eq=False)
class Target:
    """The spectrum of a layer of the teacher, mean over the images of a run.

    Attributes:
        layer: its name.
        log_power: natural logarithm of the ring power, (1, n_rings), float32.
        channels: of its maps.
    """

    layer: str
    log_power: Tensor
    channels: int


def _target(measured: LayerSpectrum) -> Target:
    spectrum = measured.spectrum
    mean = spectrum.power.sum(axis=0) / spectrum.count.sum()
    if not np.all(mean > 0):
        raise UsageError(
            f"teacher run: expected power in every ring; layer {measured.layer.name} has none"
        )
    log_power = torch.tensor(np.log(mean)[None], dtype=torch.float32)
    return Target(measured.layer.name, log_power, measured.layer.channels)


def _maps_of(run: Run) -> list[LayerSpectrum]:
    return [m for m in run.spectra if m.layer.kind != "input"]


def targets_of(
    path: str | Path, taps: Sequence[TapPoint], edges: str = "sine"
) -> tuple[list[Target], list[str]]:
    """The targets for taps of the teacher, and what is to be said of them.

    A tap's target is the layer of its name (or of another name of the same map); where that was
    not measured, the last layer of the run with maps of its size, an activation if there is one.

    Args:
        path: run directory.
        taps: in the teacher.
        edges: edge treatment of the loss.

    Raises:
        UsageError: there is no run, it was measured with other edges, or none of its layers has
            the size of a tap.
    """
    layers = _maps_of(Run.open(path))
    others = {m.spectrum.edges for m in layers} - {edges}
    if others:
        raise UsageError(
            f"teacher run: expected spectra with edges {edges}; got {', '.join(sorted(others))}"
        )
    by_name = {measured.layer.name: measured for measured in layers}
    targets, notes = [], []
    for tap in taps:
        named = [by_name[name] for name in (tap.name, *tap.aliases) if name in by_name]
        same_size = [
            m for m in layers if (m.spectrum.height, m.spectrum.width) == (tap.height, tap.width)
        ]
        if named and named[0] not in same_size:
            spectrum = named[0].spectrum
            raise UsageError(
                f"teacher run: expected {tap.height} x {tap.width} pixels for layer {tap.name}; "
                f"the run has {spectrum.height} x {spectrum.width} (measure the teacher at the "
                "size of the training images, --size)"
            )
        if not (named or same_size):
            sizes = {f"{m.spectrum.height} x {m.spectrum.width}" for m in layers}
            raise UsageError(
                f"teacher run: expected a layer with maps of {tap.height} x {tap.width} pixels, as "
                f"tap {tap.name} has; got {', '.join(sorted(sizes)) or 'no layers'}"
            )
        activations = [m for m in same_size if m.layer.kind == "act"]
        chosen = named[0] if named else (activations or same_size)[-1]
        if not named:
            kind = chosen.layer.kind
            notes.append(
                f"the target of {tap.name} is layer {chosen.layer.name} of the run ({kind})"
            )
        targets.append(_target(chosen))
    return targets, notes


def points_of(
    path: str | Path, student: Sequence[TapPoint], edges: str = "sine"
) -> tuple[TapPoint, ...]:
    """Taps of a teacher that is known by its run alone.

    For each of the student's, the last layer with maps of that size, an activation if there is one.

    Raises:
        UsageError: there is no run, or no layer of that size.
    """
    places = [TapPoint("", tap.channels, tap.height, tap.width) for tap in student]
    targets = targets_of(path, places, edges)[0]
    return tuple(
        TapPoint(target.layer, target.channels, tap.height, tap.width)
        for target, tap in zip(targets, student, strict=True)
    )

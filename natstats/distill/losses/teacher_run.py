"""Spectral targets from a measured run of the teacher, in place of the teacher itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats.distill.method import TapPoint
from natstats.errors import UsageError
from natstats.runs.run import Run
from natstats.spectra.edge_names import Edges
from natstats.spectra.records import LayerSpectrum

__all__ = ["Target", "points_of", "run_facts", "targets_of"]


@dataclass(frozen=True, eq=False)
class Target:
    """The spectrum of a layer of the teacher, averaged over the images of a run.

    Attributes:
        layer: its name.
        log_power: natural logarithm of the ring power, (1, n_rings), float32.
        channels: channels of its maps.
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


def _size(measured: LayerSpectrum) -> tuple[int, int]:
    return measured.spectrum.height, measured.spectrum.width


def run_facts(run: Run) -> dict[str, Any]:
    """What tells one run from another: model, digests of weights and spectra, normalisation."""
    model = run.info.get("model") or {}
    sha = hashlib.sha256()
    for measured in _maps_of(run):
        facts = f"{measured.layer.name} {measured.spectrum.edges} {_size(measured)}"
        sha.update(facts.encode("utf-8", "surrogatepass"))
        sha.update(measured.spectrum.power.tobytes())
    return {
        "model": model.get("name"),
        "digest": model.get("digest"),
        "normalisation": (run.info.get("images") or {}).get("normalisation"),
        "spectra": sha.hexdigest()[:16],
    }


def targets_of(run: Run, taps: Sequence[TapPoint], edges: Edges = "sine") -> list[Target]:
    """The targets for taps of the teacher.

    Args:
        run: measured run of the teacher.
        taps: in the teacher; a tap's target is the spectrum of the layer of its name, or of an
            alias, another name of the same map.
        edges: edge treatment of the loss.

    Raises:
        UsageError: the run was measured with other edges, has no such layer, maps of another
            size there, or a ring without power.
    """
    layers = _maps_of(run)
    others = {m.spectrum.edges for m in layers} - {edges}
    if others:
        raise UsageError(
            f"teacher run: expected spectra with edges {edges}; got {', '.join(sorted(others))}"
        )
    by_name = {measured.layer.name: measured for measured in layers}
    targets = []
    for tap in taps:
        named = [by_name[name] for name in (tap.name, *tap.aliases) if name in by_name]
        if not named:
            raise UsageError(
                f"teacher run: expected layer {tap.name}; it was not measured (natstats measure "
                "--layers act measures what activations give)"
            )
        if _size(named[0]) != (tap.height, tap.width):
            height, width = _size(named[0])
            raise UsageError(
                f"teacher run: expected {tap.height} x {tap.width} pixels for layer {tap.name}; "
                f"the run has {height} x {width} (measure the teacher at the size of the training "
                "images, --size)"
            )
        targets.append(_target(named[0]))
    return targets


def points_of(
    run: Run, student: Sequence[TapPoint], image_size: tuple[int, int], activation: str = "post"
) -> tuple[TapPoint, ...]:
    """Taps of a teacher that is known only by its measured run.

    For each tap of the student, it is the last activation with maps of that size.

    Args:
        run: measured run of the teacher.
        student: taps in the student.
        image_size: (H, W) of the images that the student sees, pixels.
        activation: which map of a place, see :data:`natstats.distill.method.ACTIVATIONS`; only
            ``post`` is possible, as a run does not say which layers the others are.

    Raises:
        UsageError: the run is of images of another size, has no activation of a tap's size, or
            `activation` is another.
    """
    if activation != "post":
        raise UsageError(
            f"teacher: expected one beside the teacher run for activation={activation}, as a run "
            "does not say which layer that is; got none"
        )
    images = {_size(m) for m in run.spectra if m.layer.kind == "input"}
    if images and image_size not in images:
        height, width = next(iter(images))
        raise UsageError(
            f"teacher run: expected images of {image_size[0]} x {image_size[1]} pixels, as the "
            f"student sees; the run has {height} x {width} (natstats measure --size)"
        )
    activations = [m for m in _maps_of(run) if m.layer.kind == "act"]
    found = []
    for tap in student:
        same_size = [m for m in activations if _size(m) == (tap.height, tap.width)]
        if not same_size:
            sizes = {f"{m.spectrum.height} x {m.spectrum.width}" for m in activations}
            raise UsageError(
                f"teacher run: expected an activation of {tap.height} x {tap.width} pixels, as "
                f"{tap.name} has; got {', '.join(sorted(sizes)) or 'none'} (natstats measure "
                "--layers act)"
            )
        layer = same_size[-1].layer
        found.append(TapPoint(layer.name, layer.channels, tap.height, tap.width))
    return tuple(found)

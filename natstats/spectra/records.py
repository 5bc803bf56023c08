"""The records that one stage hands to the next: plain, immutable, without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.spectra.frequencies import extent, rings

__all__ = ["Layer", "LayerSpectrum", "SkippedLayer", "Spectrum"]


@dataclass(frozen=True)
class Layer:
    """One call of one module in a forward pass, or the input images.

    Attributes:
        name: dotted module name, with ``:1`` for its second call, ``:2`` for its third, ..., and
            such as ``[0]`` where the module returns several tensors.
        call: 0 for the first call.
        kind: ``input``, ``conv``, ``depthwise``, ``pointwise``, ``linear``, ``attention``, ``act``,
            ``norm`` or a class name.
        depth: weight layers on the longest path from the input to here; 0 for the input.
        channels: number of maps.
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        stride: pixels of the input per pixel of the map, along the height.
        order: weight layers executed up to here, this one included; 0 for the input, None when it
            is not known.
        receptive_field: side of the theoretical receptive field along the height, pixels of the
            input; 1 for the input, NaN when it is not known.
        layout: of the output, see :mod:`natstats.activations.layouts`.
        span: share of the image's shorter side that the maps stand for: their pixels along it,
            times the input pixels from one to the next, over the side; NaN when it is not known.
        is_output: whether it is the network's own output, after which no weight layer and no
            nonlinearity follows, see :mod:`natstats.activations.own_output`; None when that is not
            known, as in runs of version 0.6.0 and before.
    """

    name: str
    call: int
    kind: str
    depth: int
    channels: int
    height: int
    width: int
    stride: float
    order: int | None = None
    receptive_field: float = math.nan
    layout: str = "NCHW"
    span: float = math.nan
    is_output: bool | None = None


@dataclass(frozen=True)
class SkippedLayer:
    """A layer that was selected and not measured, and why."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Brief):
    """Ring power of one layer, summed over the images of each group.

    Attributes:
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        edges: edge treatment.
        frequency: of the rings, cycles/pixel, (n_rings,).
        power: sum over the images of a group, (G, n_rings).
        normalized: the same after dividing each image's power by its mean over the frequencies of
            all rings, so that every image weighs the same, (G, n_rings).
        count: images in a group, (G,).
        offset: squared weighted mean of the maps, summed over the images of a group, (G,).
        image_power: spectra of the first images by index, NaN where missing, (n_kept, n_rings).
        n_nonfinite: images left out because a value was not finite.
    """

    height: int
    width: int
    edges: str
    frequency: NDArray[np.float64]
    power: NDArray[np.float64]
    normalized: NDArray[np.float64]
    count: NDArray[np.int64]
    offset: NDArray[np.float64]
    image_power: NDArray[np.float32]
    n_nonfinite: int = 0

    @property
    def n_images(self) -> int:
        """Images that were summed."""
        return int(self.count.sum())

    @property
    def n_rings(self) -> int:
        """Number of rings."""
        return len(self.frequency)

    @property
    def n_members(self) -> NDArray[np.int64]:
        """Frequencies in each ring, (n_rings,)."""
        return rings(self.height, self.width).n_members

    @property
    def mean_power(self) -> NDArray[np.float64]:
        """Mean over all images, (n_rings,); NaN when there are none."""
        n = self.n_images
        return self.power.sum(0) / n if n else np.full(self.n_rings, np.nan)

    @property
    def cycles_per_image(self) -> NDArray[np.float64]:
        """Ring frequencies in cycles along the shorter side of the map, (n_rings,)."""
        return self.frequency * extent(self.height, self.width)

    @property
    def is_constant(self) -> bool:
        """True when the power is zero or no more than rounding of the maps' mean can make it."""
        power, offset = self.power.sum() / max(self.n_rings, 1), self.offset.sum()
        rounding = float(np.finfo(np.float32).eps) ** 2
        return bool(power <= 16 * rounding * offset) if self.n_images else False


@dataclass(frozen=True, repr=False)
class LayerSpectrum(Brief):
    """A layer and what was measured there."""

    layer: Layer
    spectrum: Spectrum

    @property
    def span(self) -> float:
        """Share of the image that the maps stand for; 1 where it is not known."""
        return 1.0 if math.isnan(self.layer.span) else self.layer.span

    @property
    def cycles_per_image(self) -> NDArray[np.float64]:
        """Ring frequencies in cycles along the shorter side of the image, (n_rings,)."""
        return self.spectrum.cycles_per_image / self.span

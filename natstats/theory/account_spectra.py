"""What a pass measures for the account of a network: spectra of values, predicted spectra, steps.

Torch is not needed here, and nothing is fitted: a run keeps these records, and fits them as it fits
its layers (:mod:`natstats.theory.account`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Spectrum

__all__ = ["AccountSpectra", "GaussianPart", "State", "Step"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class State(Brief):
    """The spectrum of the maps at one place, measured or predicted, summed in groups of images.

    Attributes:
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        edges: edge treatment.
        span: share of the image's shorter side that the maps cover; 1 where it is not known.
        power: sum over the images of a group, (G, n_rings); in any unit.
        normalized: the same after dividing each image's power by its mean, (G, n_rings).
        count: images in a group, (G,).
    """

    height: int
    width: int
    edges: str
    span: float
    power: Array
    normalized: Array
    count: NDArray[np.int64]

    def spectrum(self, chosen: NDArray[np.bool_] | None = None) -> Spectrum:
        """As a spectrum that can be fitted, of all groups or of the chosen ones, (G,)."""
        kept = np.ones(len(self.count), dtype=bool) if chosen is None else chosen
        ring = rings(self.height, self.width)
        return Spectrum(
            height=self.height,
            width=self.width,
            edges=self.edges,
            frequency=ring.frequency,
            power=self.power * kept[:, None],
            normalized=self.normalized * kept[:, None],
            count=np.where(kept, self.count, 0),
            offset=np.zeros(len(self.count)),
            image_power=np.zeros((0, ring.n_rings), dtype=np.float32),
        )


@dataclass(frozen=True, eq=False)
class GaussianPart:
    """What an activation function would do to the spectrum if its input were Gaussian.

    It is not a sum over images, but a function of the moments of all of them. For its errors,
    blocks of groups are left out of the moments: group g belongs to block (g / every) mod B.

    Attributes:
        before: ring power of the input by its moments: of all images, then without each block,
            (1 + B, n_rings).
        after: of the predicted output, same shape.
        count: images in each block, (B,). Where it is 0, nothing is left out with the block.
    """

    before: Array
    after: Array
    count: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Step:
    """What is done to the maps between two measured places.

    Attributes:
        name: of the place that it ends at: the layer, or the operation.
        kind: one of :data:`natstats.activations.operations.KINDS`, or ``attention``.
        operation: what it is, in words.
        module: dotted name of the module that runs it.
        layers: names of the layers whose output it makes.
        depth: weight layers on the way to its end.
        before: number of the state that it starts from.
        after: number of the state that it ends at.
        is_trunk: whether it is a part of the trunk.
        predictions: numbers of predicted states by name: ``independent`` (channels without
            correlations), ``strided`` (these, at every s-th pixel), ``linear`` (with correlations),
            ``sum`` (independent summands), ``average`` (pooling by averages), ``shuffled kernels``
            and ``shuffled channels``.
        kernel_exponent: exponent of the output of a convolution for white, independent input, over
            the whole band and by octaves, however the layers are fitted.
        shuffled_exponent: the same when the taps of each kernel are shuffled.
        gaussian: the Gaussian part of an activation function.
    """

    name: str
    kind: str
    operation: str
    module: str
    layers: tuple[str, ...]
    depth: int
    before: int
    after: int
    is_trunk: bool
    predictions: Mapping[str, int]
    kernel_exponent: float = np.nan
    shuffled_exponent: float = np.nan
    gaussian: GaussianPart | None = None


@dataclass(frozen=True, eq=False, repr=False)
class AccountSpectra(Brief):
    """Everything that was measured for the account of one network.

    Attributes:
        states: the spectra; the images as they enter the network have number 0.
        steps: in the order of execution.
        every: costly predictions were made from groups 0, `every`, 2 `every` and so on.
        note: what a reader must know; empty where every operation was followed.
    """

    states: tuple[State, ...]
    steps: tuple[Step, ...]
    every: int = 1
    note: str = ""

    @property
    def sampled(self) -> NDArray[np.bool_]:
        """Groups of images from which costly predictions were made, (G,)."""
        n_groups = len(self.states[0].count) if self.states else 0
        return np.asarray(np.arange(n_groups) % self.every == 0)

    def block_of(self, n_blocks: int) -> NDArray[np.int64]:
        """Block of each group of images, (G,); -1 for groups from which nothing was predicted."""
        number = np.arange(len(self.sampled))
        return np.where(self.sampled, number // self.every % n_blocks, -1)

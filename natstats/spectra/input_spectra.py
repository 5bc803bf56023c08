"""The spectra of the images themselves, as they enter: layer 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from natstats import checks
from natstats.activations.clips import as_columns_of_time, as_frames
from natstats.errors import UsageError
from natstats.networks.preprocessing import LUMA
from natstats.spectra.accumulator import SpectrumAccumulator
from natstats.spectra.edge_names import Edges
from natstats.spectra.records import Layer, LayerSpectrum

__all__ = ["InputSpectra"]


_FAR = 30.0
"""The mean of a map is removed first if it is more than these standard deviations from zero."""


class InputSpectra:
    """Layer 0: the images before they are normalised, in grey and as the mean over channels.

    Of a clip every frame is one of its maps, so that its spectrum is the mean over its frames.
    """

    def __init__(self, edges: Edges, n_groups: int, temporal: bool = False) -> None:
        self._temporal = temporal
        self._frames = False
        self._edges = edges
        self._n_groups = n_groups
        self._accumulators: dict[str, SpectrumAccumulator] = {}
        self._channels: dict[str, int] = {}

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add a batch of images (N, C, H, W), or of clips (N, C, T, H, W), under their numbers.

        Raises:
            UsageError: the spectrum along time is asked for of single images or too short clips,
                or the images differ in size from those before.
        """
        if self._temporal and images.ndim == 4:
            raise UsageError("temporal: expected clips (N, C, T, H, W); got single images")
        self._frames = images.ndim == 5
        variants = {"input": images}
        if images.shape[1] == 3:
            weights = images.new_tensor(LUMA).view(1, 3, *[1] * (images.ndim - 2))
            variants = {
                "input.grey": (images * weights).sum(1, keepdim=True),
                "input.colour": images,
            }
        for name, channels in variants.items():
            maps = as_columns_of_time(channels) if self._temporal else as_frames(channels)
            if name not in self._accumulators:
                self._accumulators[name] = SpectrumAccumulator(
                    maps.shape[2], maps.shape[3], self._edges, self._n_groups, maps.device
                )
                self._channels[name] = channels.shape[1]
            self._accumulators[name].update(_centred(maps), index)

    def merge(self, other: InputSpectra) -> None:
        """Add what another part of the same measurement has summed.

        Raises:
            UsageError: an image is in both, or the images differ in size.
        """
        for name, theirs in other._accumulators.items():
            if name in self._accumulators:
                self._accumulators[name].merge(theirs)
            else:
                self._accumulators[name] = theirs
        self._channels = {**other._channels, **self._channels}
        self._frames = self._frames or other._frames

    def renumber(self, by: int) -> None:
        """Add `by`, a multiple of the number of groups, to the number of every image."""
        for one in self._accumulators.values():
            one.renumber(by)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a copy: tensors and plain values."""
        return {
            "sums": {name: one.state_dict() for name, one in self._accumulators.items()},
            "channels": dict(self._channels),
            "frames": self._frames,
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device | str = "cpu") -> None:
        """Go on where :meth:`state_dict` was taken.

        Raises:
            UsageError: keys are missing or unexpected, or tensors have another shape.
        """
        checks.state_keys("the spectra of images", state, ("sums", "channels", "frames"))
        self._accumulators = {
            name: SpectrumAccumulator.from_state_dict(one, device)
            for name, one in state["sums"].items()
        }
        self._channels = dict(state["channels"])
        self._frames = state["frames"]

    def compute(self) -> list[LayerSpectrum]:
        """Return what was measured so far."""
        return [
            LayerSpectrum(
                Layer(
                    name=name,
                    call=0,
                    kind="input",
                    depth=0,
                    channels=self._channels[name],
                    height=accumulator.height,
                    width=accumulator.width,
                    stride=1.0,
                    order=0,
                    receptive_field=1.0,
                    layout="NCTHW" if self._frames else "NCHW",
                    span=1.0,
                ),
                accumulator.compute(),
            )
            for name, accumulator in self._accumulators.items()
        ]


def _centred(maps: Tensor) -> Tensor:
    """Maps (N, C, H, W), without the mean where float32 would lose small waves beside it.

    The transform removes the mean of a map, but in float32, where beside a large mean the smallest
    waves are lost. So the mean is removed before, in float64: from maps that come in float64, and
    from those images in float32 whose mean is far from zero.
    """
    if maps.dtype == torch.float64:
        return (maps - maps.mean((2, 3), keepdim=True)).float()
    std, mean = torch.std_mean(maps, (2, 3), keepdim=True, correction=0)
    # A map that varies by no more than its own rounding counts as constant, and is left as it is.
    is_far = ((mean.abs() > _FAR * std) & (std > 1e-6 * mean.abs())).any(1, keepdim=True)
    if not bool(is_far.any()):
        return maps
    wide = maps if maps.device.type == "mps" else maps.double()  # which has no float64
    return torch.where(is_far, (wide - wide.mean((2, 3), keepdim=True)).float(), maps)

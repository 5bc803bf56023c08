"""What is summed of one layer while images come: an accumulator for each size of its maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from natstats.images.image_numbers import ImageNumbers
from natstats.spectra.accumulator import SpectrumAccumulator
from natstats.spectra.records import Spectrum

__all__ = ["MOST_SIZES", "LayerSums", "SizeSums"]

MOST_SIZES = 16
"""Most map sizes of one layer that are measured, each apart, so that memory has a bound."""

ADDED_AT_ONCE = 128
"""Images whose rows wait to be added together: the dozen small steps of adding cost the same for
one image as for many. Waiting rows take a few megabytes at most."""


class SizeSums:
    """The sums of a layer's maps of one size.

    Args:
        accumulator: what sums them.
        stride: input pixels per pixel of the map, along the height.
        channels: number of maps of an image.
        layout: of the output, in words.
        images: height and width of the images, pixels; empty where they are not known.
    """

    def __init__(
        self,
        accumulator: SpectrumAccumulator,
        stride: float,
        channels: int,
        layout: str,
        images: tuple[int, ...] = (),
    ) -> None:
        self.accumulator = accumulator
        self.stride, self.channels, self.layout, self.images = stride, channels, layout, images
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._n_waiting = 0

    def add(self, rows: Tensor, index: Tensor) -> None:
        """Add the spectra of some images.

        Args:
            rows: what the accumulator's ``transform`` gave, (N, n_rings + 1).
            index: numbers of the images, (N,).
        """
        self._waiting.append((rows, index))
        self._n_waiting += len(rows)
        if self._n_waiting >= ADDED_AT_ONCE:
            self._add_waiting()

    def _add_waiting(self) -> None:
        if self._waiting:
            rows, index = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting.clear()
            self._n_waiting = 0
            self.accumulator.add(rows, index)

    @property
    def n_images(self) -> int:
        """Images that came, those without a finite spectrum included."""
        self._add_waiting()
        return self.accumulator.n_images

    @property
    def numbers(self) -> ImageNumbers:
        """Which images came."""
        self._add_waiting()
        return self.accumulator.numbers

    def compute(self) -> Spectrum:
        """The spectrum of the images so far."""
        self._add_waiting()
        return self.accumulator.compute()

    def merge(self, other: SizeSums) -> None:
        """Add what `other` holds."""
        self._add_waiting()
        other._add_waiting()
        self.accumulator.merge(other.accumulator)

    def renumber(self, by: int) -> None:
        """Add `by`, a multiple of the number of groups, to the number of every image."""
        self._add_waiting()
        self.accumulator.renumber(by)

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later: tensors and plain values."""
        self._add_waiting()
        return {
            "accumulator": self.accumulator.state_dict(),
            "stride": self.stride,
            "channels": self.channels,
            "layout": self.layout,
            "images": list(self.images),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SizeSums:
        """Inverse of :meth:`state`, on the CPU."""
        accumulator = SpectrumAccumulator.from_state_dict(state["accumulator"])
        own = {name: state[name] for name in ("stride", "channels", "layout")}
        return cls(accumulator, **own, images=tuple(state["images"]))


@dataclass
class LayerSums:
    """What is known of one layer while images come.

    Attributes:
        by_size: sums for each height and width of its maps.
        reasons: number of outputs that were left out, by reason.
    """

    by_size: dict[tuple[int, int], SizeSums] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    def leave_out(self, reason: str) -> None:
        """Count an output that is not measured."""
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    @property
    def end(self) -> int:
        """One more than the largest number of the images that came; 0 where none did."""
        return max((own.numbers.end for own in self.by_size.values()), default=0)

    def merge(self, other: LayerSums) -> None:
        """Add what `other` holds; sums of sizes that only it has are taken over as they are."""
        for size, sums in other.by_size.items():
            if size in self.by_size:
                self.by_size[size].merge(sums)
            else:
                self.by_size[size] = sums
        for reason, n in other.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + n

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later: tensors and plain values."""
        return {
            "sizes": [own.state() for own in self.by_size.values()],
            "reasons": dict(self.reasons),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LayerSums:
        """Inverse of :meth:`state`, on the CPU."""
        sizes = [SizeSums.from_state(own) for own in state["sizes"]]
        by_size = {(one.accumulator.height, one.accumulator.width): one for one in sizes}
        return cls(by_size, dict(state["reasons"]))

    def counts(self) -> dict[tuple[int, int], int]:
        """Images for each size of the maps."""
        return {size: sums.n_images for size, sums in self.by_size.items()}

    def main_size(self) -> tuple[int, int] | None:
        """The size that most images had, the first of equals; None where no image came."""
        counts = self.counts()
        size = max(counts, key=lambda one: counts[one], default=None)
        return size if size is not None and counts[size] else None

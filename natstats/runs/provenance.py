"""What a run says of where it comes from: machine, versions, time, images."""

from __future__ import annotations

import hashlib
import platform
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from natstats._version import __version__
from natstats.errors import NatstatsError, UsageError
from natstats.fits.intervals import FEWEST_GROUPS
from natstats.images.clips import ClipFolders
from natstats.images.sources import Batch, ImageSet, Photographs
from natstats.networks.load import Network
from natstats.networks.preprocessing import Preprocessing
from natstats.runs.run import Run
from natstats.spectra.records import LayerSpectrum

__all__ = ["Reading", "circumstances", "image_facts", "model_facts"]

_BYTES = 20.0
"""Largest value of images from which they are taken to be in 0 to 255 and not normalised."""


def circumstances(device: torch.device, seconds: float, n_images: int) -> dict[str, Any]:
    """When, with what versions, on what device and how fast `n_images` were measured."""
    import torchvision

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "natstats": __version__,
            "torch": str(torch.__version__),
            "torchvision": str(torchvision.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "timing": {"seconds": round(seconds, 3), "images_per_second": round(n_images / seconds, 3)},
        "device": {"type": device.type, "name": name, "threads": torch.get_num_threads()},
    }


class Reading:
    """What becomes known of a set of images only as it is read.

    Attributes:
        source: the set.
        left_out: name and reason of every image that was left out, unreadable or too small.
        small: names of those that could be read and are smaller than what is cut out.
        n_read: images that were measured.
        n_enlarged: images that were smaller than what they were scaled to.
        range: smallest and largest value of images that are taken as they are; None of others.
    """

    def __init__(self, source: ImageSet) -> None:
        self.source = source
        self.left_out: list[str] = []
        self.small: list[str] = []
        self.n_read = 0
        self.n_enlarged = 0
        self.range: tuple[float, float] | None = None
        self._contents = hashlib.sha256()

    def add(self, batch: Batch) -> None:
        """Take note of a batch; batches come in the order of the images' numbers."""
        self.left_out += [
            f"{self.source.label(number)}: {reason}" for number, reason in batch.unreadable
        ]
        self.small += [self.source.label(number) for number in batch.small]
        self.n_read += len(batch.index)
        self.n_enlarged += batch.n_enlarged
        self._contents.update(batch.contents)
        if len(batch.index) and not isinstance(self.source, Photographs):
            low, high = (float(value) for value in batch.images.aminmax())
            before = self.range or (low, high)
            self.range = min(before[0], low), max(before[1], high)

    def contents(self) -> str:
        """SHA-256 over the contents of all images in the order of their numbers, 16 digits.

        It covers neither names nor framing: the same images under the same numbers have the same
        digest, wherever they lie and whatever was cut from them.
        """
        return self._contents.hexdigest()[:16]

    def refuse(self, strict: bool) -> None:
        """Raise where an image was left out that may not be.

        Raises:
            UsageError: all images are too small.
            NatstatsError: none can be read, or one cannot and `strict` is set.
        """
        if not self.left_out:
            return
        n, first = len(self.source), self.left_out[0]
        if strict:
            raise NatstatsError(f"images: expected readable images only; {first}")
        if len(self.small) == n:
            raise UsageError(
                f"crop: expected at most the shorter side of the images; {self._are_smaller(n)}: "
                f"{first}"
            )
        if len(self.left_out) == n:
            raise NatstatsError(
                f"images: expected a readable image; all {n} are unreadable, the first: {first}"
            )

    def _are_smaller(self, n: int) -> str:
        assert isinstance(self.source, Photographs)
        size = self.source.framing.size
        which = f"all {n} are" if len(self.small) == n else f"{len(self.small)} of {n} images are"
        if n == 1:
            which = "it is"
        elif len(self.small) == 1:
            which = f"1 of {n} images is"
        return f"{which} smaller than the crop of {size} x {size} pixels"

    def warnings(self) -> list[str]:
        """What a reader of the results must know."""
        said = list(self.source.notes)
        n = len(self.source)
        if self.small:
            listed = ", ".join(self.small[:3]) + (" and others" if len(self.small) > 3 else "")
            were = "was" if len(self.small) == 1 else "were"
            said.append(f"{self._are_smaller(n)} and {were} left out: {listed}")
        if self.n_enlarged:
            were, they = ("was", "it was") if self.n_enlarged == 1 else ("were", "they were")
            said.append(
                f"{self.n_enlarged} of {n} images {were} smaller than what {they} scaled to; an "
                "enlarged image has little power at its highest frequencies"
            )
        return said

    def few_images_warning(self, run: Run) -> list[str]:
        """What can still be told of fewer images than an interval takes: their own exponents."""
        if not 0 < self.n_read < FEWEST_GROUPS:
            return []
        images = "1 image was" if self.n_read == 1 else f"{self.n_read} images were"
        own = " and ".join(f"{alpha:.2f}" for alpha in run.fits.layers[0].image_exponents)
        by_itself = "by itself it has" if self.n_read == 1 else "by themselves they have"
        return [
            f"{images} measured; an interval needs at least {FEWEST_GROUPS}, and no exponent is "
            "given without an interval"
            + (f" ({by_itself} {own}, {run.spectra[0].layer.name})" if own else "")
        ]

    def range_warnings(self, expected: Preprocessing | None) -> list[str]:
        """A hint where the values of an array do not look like what a network expects.

        Args:
            expected: what the network says of it; None where it says nothing.
        """
        if self.range is None:
            return []
        low, high = self.range
        shown = f"the values of the images are from {low:.4g} to {high:.4g}"
        if low >= 0 and high > _BYTES:
            return [
                f"{shown} and entered as they are; networks for photographs mostly expect them "
                "divided by 255, and normalised where they were trained so"
            ]
        is_normalised = expected is not None and (any(expected.mean) or set(expected.std) != {1.0})
        if low >= 0 and high <= 1 and is_normalised:
            assert expected is not None
            mean, std = (
                " ".join(f"{v:.3g}" for v in part) for part in (expected.mean, expected.std)
            )
            return [
                f"{shown} and entered as they are; the network expects them less the mean {mean} "
                f"and divided by the standard deviation {std}, as is done for photographs"
            ]
        return []


def model_facts(network: Network) -> dict[str, Any]:
    """Which network was measured, and with what weights."""
    return {
        "name": network.name,
        "weights": network.weights,
        "trained": network.trained,
        "digest": network.digest(),
    }


def image_facts(
    reading: Reading,
    spectra: list[LayerSpectrum],
    normalisation: dict[str, list[float]] | None = None,
) -> dict[str, Any]:
    """Which images were measured, and what was done to bring them to size and range."""
    source = reading.source
    framing = source.framing if isinstance(source, Photographs) else None
    is_scaled = framing is not None and framing.resize is not None
    return {
        "source": source.description,
        "n_images": spectra[0].spectrum.n_images,
        "digest": source.digest(),
        "listing": source.listing(),
        "contents": reading.contents(),
        "size": None if framing is None else framing.size,
        "resize": None if framing is None else framing.resize,
        "interpolation": framing.interpolation if framing is not None and is_scaled else None,
        "n_enlarged": reading.n_enlarged,
        "frames": source.frames if isinstance(source, ClipFolders) else None,
        "normalisation": normalisation,
        "n_unreadable": len(reading.left_out),
        "n_too_small": len(reading.small),
        "unreadable": reading.left_out[:1000],
    }

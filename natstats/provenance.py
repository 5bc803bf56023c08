"""What a run says of where it comes from: machine, versions, time, images."""

from __future__ import annotations

import hashlib
import platform
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from natstats._version import __version__
from natstats.clips import ClipFolders
from natstats.images import Batch, ImageSet, Photographs
from natstats.records import LayerSpectrum

__all__ = ["Reading", "circumstances", "image_facts"]


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
        unreadable: name and reason of every image that was left out.
        n_enlarged: images that were smaller than what they were scaled to.
    """

    def __init__(self, source: ImageSet) -> None:
        self.source = source
        self.unreadable: list[str] = []
        self.n_enlarged = 0
        self._contents = hashlib.sha256()

    def add(self, batch: Batch) -> None:
        """Take note of a batch; batches come in the order of the images' numbers."""
        self.unreadable += [
            f"{self.source.label(number)}: {reason}" for number, reason in batch.unreadable
        ]
        self.n_enlarged += batch.n_enlarged
        self._contents.update(batch.contents)

    def contents(self) -> str:
        """SHA-256 over the contents of all images in the order of their numbers, 16 digits.

        It covers neither names nor framing: the same images under the same numbers have the same
        digest, wherever they lie and whatever was cut from them.
        """
        return self._contents.hexdigest()[:16]

    def warnings(self) -> list[str]:
        """What a reader of the results must know."""
        if not self.n_enlarged:
            return []
        n = self.n_enlarged
        return [
            f"{n} of {len(self.source)} images {'was' if n == 1 else 'were'} smaller than what "
            f"{'it was' if n == 1 else 'they were'} scaled to; an enlarged image has little power "
            "at its highest frequencies"
        ]


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
        "contents": reading.contents(),
        "size": None if framing is None else framing.size,
        "resize": None if framing is None else framing.resize,
        "interpolation": framing.interpolation if framing is not None and is_scaled else None,
        "n_enlarged": reading.n_enlarged,
        "frames": source.frames if isinstance(source, ClipFolders) else None,
        "normalisation": normalisation,
        "n_unreadable": len(reading.unreadable),
        "unreadable": reading.unreadable[:1000],
    }

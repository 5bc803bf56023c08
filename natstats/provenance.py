"""What a run says of where it comes from: machine, versions, time, images."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch

from natstats._version import __version__
from natstats.images import ImageFolder, ImageSet
from natstats.records import LayerSpectrum

__all__ = ["circumstances", "image_facts"]


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


def image_facts(
    source: ImageSet, spectra: list[LayerSpectrum], unreadable: list[str]
) -> dict[str, Any]:
    """Which images were measured, and what was done to bring them to size."""
    framing = source.framing if isinstance(source, ImageFolder) else None
    return {
        "source": source.description,
        "n_images": spectra[0].spectrum.n_images,
        "digest": source.digest(),
        "size": None if framing is None else framing.size,
        "resize": None if framing is None else framing.resize,
        "interpolation": None
        if framing is None or framing.resize is None
        else framing.interpolation,
        "n_unreadable": len(unreadable),
        "unreadable": unreadable[:1000],
    }

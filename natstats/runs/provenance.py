"""Facts that a run records of its origin: machine, versions, time, network."""

from __future__ import annotations

import platform
from datetime import datetime, timezone
from importlib import metadata
from typing import Any

import numpy as np
import torch

from natstats._version import __version__
from natstats.networks.load import Network

__all__ = ["circumstances", "device_facts", "model_facts"]


def device_facts(device: torch.device) -> dict[str, Any]:
    """The device that something was computed on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"type": device.type, "name": name, "threads": torch.get_num_threads()}


def circumstances(device: dict[str, Any], seconds: float, n_images: int) -> dict[str, Any]:
    """When, with what versions, on what device and how fast `n_images` were measured.

    Args:
        device: what :func:`device_facts` says of it.
        seconds: how long it took.
        n_images: number of images.
    """
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {
            "natstats": __version__,
            "torch": str(torch.__version__),
            "torchvision": metadata.version("torchvision"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "timing": {
            "seconds": round(seconds, 3),
            "images_per_second": round(n_images / max(seconds, 1e-9), 3),
        },
        "device": device,
    }


def model_facts(network: Network) -> dict[str, Any]:
    """Which network was measured, and with what weights."""
    return {
        "name": network.name,
        "weights": network.weights,
        "trained": network.trained,
        "digest": network.digest(),
    }

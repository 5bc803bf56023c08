"""What every study writes beside its results: where they were made, and with what."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch
import torchvision

import natstats

__all__ = ["circumstances"]


def circumstances() -> dict[str, Any]:
    """Machine class and versions, for the head of a result."""
    return {
        "machine": f"{platform.machine()}, CPU",
        "versions": {
            "natstats": natstats.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }

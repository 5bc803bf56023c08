"""How much memory a training takes at its peak."""

from __future__ import annotations

import resource
import sys

import torch

__all__ = ["PeakMemory"]


class PeakMemory:
    """The peak of memory from now on.

    On a CUDA device it is the memory of its tensors. Elsewhere it is that of the whole process
    since it started, images and libraries included, and thus an upper bound: it compares trainings
    only where each has a process of its own.

    Args:
        device: the device that the training runs on.
        begins: False continues the peak of a device that another object began.

    >>> PeakMemory(torch.device("cpu")).mebibytes()[1]
    'process'
    """

    def __init__(self, device: torch.device, *, begins: bool = True) -> None:
        self.device = device
        if device.type == "cuda" and begins:
            torch.cuda.reset_peak_memory_stats(device)

    def mebibytes(self) -> tuple[float, str]:
        """The peak, MiB, and what it is of: ``device`` or ``process``."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20, "device"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts in KiB, macOS in bytes.
        return peak / (2**20 if sys.platform == "darwin" else 2**10), "process"

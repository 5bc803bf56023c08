"""Power spectra of maps as plain functions, which gradients pass through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.spectra.edge_names import EDGES, Edges
from natstats.spectra.frequencies import check_size, rings
from natstats.spectra.transforms import ring_transform

__all__ = ["checked_maps", "power_spectrum", "ring_frequencies"]


def checked_maps(maps: Any) -> Tensor:
    """Maps (N, C, H, W) that can be transformed.

    Raises:
        UsageError: `maps` is no such tensor, or its maps are too small.
    """
    if not isinstance(maps, Tensor):
        raise UsageError(f"maps: expected a torch.Tensor; got {type(maps).__name__}")
    if maps.ndim != 4:
        raise UsageError(f"maps: expected shape (N, C, H, W); got {tuple(maps.shape)}")
    if not maps.is_floating_point():
        raise UsageError(f"maps: expected a floating dtype; got {maps.dtype}")
    if maps.shape[1] == 0:
        raise UsageError(f"maps: expected at least one channel; got shape {tuple(maps.shape)}")
    check_size("maps", maps.shape[2], maps.shape[3])
    return maps


def power_spectrum(
    maps: Tensor, edges: Edges = "sine", dtype: torch.dtype = torch.float32
) -> Tensor:
    """Ring-averaged power of each image's maps, averaged over channels. Differentiable.

    Power is a density, in squared units of the map per (cycle/pixel)^2: with ``edges="none"`` its
    mean over the whole plane is the variance (see :mod:`natstats.spectra.transforms` for the
    formula).

    Args:
        maps: (N, C, H, W), floating, H and W at least 5; cast to `dtype`.
        edges: ``sine``, ``hann``, ``none`` or ``periodic``, see :mod:`natstats.spectra.edges`.
        dtype: type of the computation, ``torch.float32`` or ``torch.float64``.

    Returns:
        (N, n_rings), of this type, at the frequencies of :func:`ring_frequencies`.

    Raises:
        UsageError: `maps` is not such a tensor, or `edges` or `dtype` is none of these.

    >>> maps = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> power_spectrum(maps).shape
    torch.Size([2, 8])
    """
    maps = checked_maps(maps)
    checks.one_of("edges", edges, EDGES)
    if dtype not in (torch.float32, torch.float64):
        raise UsageError(f"dtype: expected torch.float32 or torch.float64; got {dtype!r}")
    size = maps.shape[2], maps.shape[3]
    return ring_transform(*size, edges, maps.device, dtype=dtype)(maps)[:, :-1]


def ring_frequencies(height: int, width: int) -> Tensor:
    """Frequencies of the rings of an (H, W) map, cycles/pixel, (n_rings,), float64.

    >>> ring_frequencies(5, 5)
    tensor([0.2414, 0.4315], dtype=torch.float64)
    """
    return torch.tensor(rings(height, width).frequency)

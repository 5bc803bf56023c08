"""Patches of an image that are changed, to see where the maps of a network answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats.checks import MINIMUM_SIDE

__all__ = ["PLACES", "is_image", "patched", "spans_of"]

PLACES = ((0.10, 0.64), (0.36, 0.10), (0.64, 0.90), (0.90, 0.36))
"""Centres of the patches, as shares of height and width. Transposing the image moves no patch to
where one was, so a map that is read with rows and columns swapped answers elsewhere."""


def is_image(value: Any) -> bool:
    """Whether an argument of a network is an image or several, large enough to be patched."""
    return (
        isinstance(value, Tensor)
        and value.ndim >= 3
        and min(value.shape[-2:]) >= MINIMUM_SIDE
        and (value.is_floating_point() or value.dtype is torch.uint8)
    )


def _corner(length: int, share: float, side: int) -> int:
    """Where a patch begins: at a multiple of its side, so that patches of a ViT hold it whole."""
    return min(int(share * length) // side * side, length - side)


def _side(image: Tensor) -> int:
    """Side of the patch: about a 24th of the image's shorter side, a power of two."""
    return 1 << max(1, (min(image.shape[-2:]) // 24).bit_length() - 1)


def spans_of(image: Tensor) -> NDArray[np.float64]:
    """Start and end of each patch along height and along width, as shares, (K, 2, 2)."""
    side = _side(image)
    starts = [
        [_corner(n, s, side) for s, n in zip(place, image.shape[-2:], strict=True)]
        for place in PLACES
    ]
    ends = np.stack([np.array(starts), np.array(starts) + side], -1)
    return ends / np.array(image.shape[-2:], dtype=np.float64)[:, None]


def patched(image: Tensor, place: tuple[float, float]) -> Tensor:
    """A copy of an image with a patch of a texture unlike what was there, in the image's range."""
    side = _side(image)
    top, left = (_corner(n, s, side) for s, n in zip(place, image.shape[-2:], strict=True))
    changed = image.clone()
    patch = changed[..., top : top + side, left : left + side]
    low, high = image.min().double().item(), image.max().double().item()
    if not high > low:
        low, high = low - 1, high + 1
    if image.dtype is torch.uint8:
        low, high = max(low, 0), min(high, 255)
    # Light where it was dark: the patch differs in its mean, and from pixel to pixel.
    far, near = (high, low) if patch.double().mean() < (low + high) / 2 else (low, high)
    checked = (torch.arange(side)[:, None] + torch.arange(side)) % 2
    patch.copy_(far + (near - far) * 0.35 * checked.to(torch.float64))
    return changed

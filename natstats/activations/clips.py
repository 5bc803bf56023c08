"""Maps of clips as maps with two axes: every frame by itself, or every pixel along time."""

from __future__ import annotations

from torch import Tensor

__all__ = ["as_columns_of_time", "as_frames"]


def as_frames(maps: Tensor) -> Tensor:
    """Maps (M, C, H, W); of clips (M, C, T, H, W) every frame is a map: (M, C T, H, W).

    >>> import torch
    >>> as_frames(torch.zeros(2, 3, 4, 8, 8)).shape
    torch.Size([2, 12, 8, 8])
    """
    return maps.flatten(1, 2) if maps.ndim == 5 else maps


def as_columns_of_time(maps: Tensor) -> Tensor:
    """Clips (M, C, T, H, W) as one column of T values for each pixel: (M, C H W, T, 1).

    >>> import torch
    >>> as_columns_of_time(torch.zeros(2, 3, 16, 8, 8)).shape
    torch.Size([2, 192, 16, 1])
    """
    return maps.movedim(2, -1).flatten(1, 3)[..., None]

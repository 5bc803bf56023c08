"""Attention windows that the network itself describes: those of Swin transformers and MaxViT."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from natstats.activations.layouts import Layout, Windows

__all__ = ["is_cut", "partition", "shifted_windows"]


def shifted_windows(
    modules: Mapping[str, nn.Module],
    name: str,
    shape: tuple[int, ...],
    grid: tuple[int, ...],
    n_images: int,
) -> Layout | None:
    """The layout of linear layers in the windows of Swin transformers, (M windows, pixels, C).

    In torchvision the attention holds the shift, in timm the block around it. The maps are padded
    to whole windows. A window as long as the map is not shifted. None where there are no such
    windows.

    Args:
        modules: modules of the network by name.
        name: name of the layer's module.
        shape: shape of its output.
        grid: size of the latest maps, pixels.
        n_images: number of images in the batch.
    """
    home = name.rpartition(".")[0]
    parent, block = modules.get(home), modules.get(home.rpartition(".")[0])
    window, shift = (getattr(parent, key, None) for key in ("window_size", "shift_size"))
    shift = getattr(block, "shift_size", None) if shift is None else shift
    if not (isinstance(window, Sequence) and isinstance(shift, Sequence)):
        return None
    if len(window) != len(grid) or len(shift) != len(grid):
        return None
    is_whole = all(side % size == 0 for size, side in zip(window, grid, strict=True))
    if not (is_whole or hasattr(parent, "shift_size")):  # timm rolls before it pads
        return None
    if len(grid) == 3:  # for clips, a window is cut to the map's size
        window = [min(size, side) for size, side in zip(window, grid, strict=True)]
    n_windows = math.prod(-(-side // size) for side, size in zip(grid, window, strict=True))
    if shape[:2] != (n_images * n_windows, math.prod(window)):
        return None
    moved = [
        0 if size >= -(-side // size) * size else by
        for size, side, by in zip(window, grid, shift, strict=True)
    ]
    return Layout("windows", grid, windows=Windows(tuple(window), tuple(moved)))


def partition(modules: Mapping[str, nn.Module], name: str, shape: tuple[int, ...]) -> Layout | None:
    """The layout in windows or grids of torchvision's MaxViT, (M, windows, pixels, C), or None."""
    while name:
        name = name.rpartition(".")[0]
        parent: Any = modules.get(name)
        if hasattr(parent, "departition_op") and hasattr(parent, "grid_size"):
            break
    else:
        return None
    side: int = parent.p
    grid: tuple[int, ...] = tuple(parent.grid_size)
    is_grid = parent.partition_type == "grid"
    n_windows = math.prod(length // side for length in grid)
    expected = (n_windows, side * side)
    if len(shape) != 4 or shape[1:3] != (expected[::-1] if is_grid else expected):
        return None
    cut = Windows((side, side), (0, 0), is_grid=is_grid, apart=True)
    return Layout("windows", grid, windows=cut)


def is_cut(whole: tuple[int, ...], piece: tuple[int, ...], n_pieces: int) -> bool:
    """Whether the pieces hold as many points as the map, or are as many as its padded windows.

    >>> is_cut((14, 14), (7, 7), 4), is_cut((8, 8), (7, 7), 4), is_cut((8, 8), (7, 7), 3)
    (True, True, False)
    """
    if math.prod(whole) == n_pieces * math.prod(piece):
        return True
    if len(whole) != len(piece):
        return False
    along = (-(-length // side) for length, side in zip(whole, piece, strict=True))
    return math.prod(along) == n_pieces

"""The ways in which an output of some shape may be read; which of them is right, data must say."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import nn

from natstats.activations.layout_rules import MOST_PREFIX_TOKENS, channels_are_last
from natstats.activations.layouts import Layout, Windows

__all__ = ["candidates", "nested_tokens", "patch_grids"]

MOST_LEVELS = 3
"""Times that a map of tokens is pooled by 2, for which they are ordered at the start."""

SMALLEST_WINDOW = 2
"""Side of a window, pixels."""


def candidates(
    module: nn.Module, shape: tuple[int, ...], grids: tuple[tuple[int, ...], ...]
) -> list[Layout]:
    """Layouts that fit an output for one image.

    Args:
        module: whose output it is; it may settle where the channels are.
        shape: of the output.
        grids: map sizes that occur in the network, (H, W), or (T, H, W) of clips.

    >>> [str(way) for way in candidates(nn.GELU(), (1, 16, 16, 16), ((16, 16),))]
    ['NCHW', 'NHWC', 'windows', 'windows', 'windows']
    >>> [str(way) for way in candidates(nn.Linear(8, 8), (1, 17, 8), ((4, 4),))]
    ['NLC (1 + 4x4)', 'NLC (4x4 + 1)']
    """
    is_last = channels_are_last(module)
    found: list[Layout] = []
    if len(shape) == 3:
        if is_last is not False:
            found = [*_tokens(shape, grids), *_window_tokens(shape, grids)]
    elif len(shape) in (4, 5):
        names = ("NCHW", "NHWC") if len(shape) == 4 else ("NCTHW", "NTHWC")
        if is_last is not True and min(shape[2:]) >= 2:
            found.append(_with_sets(Layout(names[0], shape[2:]), shape[0]))
        if is_last is not False and min(shape[1:-1]) >= 2:
            found.append(_with_sets(Layout(names[1], shape[1:-1]), shape[0]))
        if len(shape) == 4:
            found += _window_maps(shape, grids, is_last)
    return list(dict.fromkeys(found))


def _with_sets(layout: Layout, n_sets: int) -> Layout:
    return Layout(layout.name, layout.grid, layout.n_prefix, layout.n_suffix, sets=n_sets)


def patch_grids(n_tokens: int, image: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes of maps in the proportions of an image that up to some extra tokens make `n_tokens`.

    >>> patch_grids(10, (64, 64)), patch_grids(7, (64, 96))
    ([(3, 3), (2, 2)], [(2, 3)])
    """
    found = []
    for extra in range(MOST_PREFIX_TOKENS + 1):
        area = max(n_tokens - extra, 0)
        rows = round(math.sqrt(area * image[0] / image[1]))
        if rows >= 2 and area % rows == 0 and area // rows * image[0] == rows * image[1]:
            found.append((rows, area // rows))
    return found


def nested_tokens(grid: tuple[int, ...], n_levels: int) -> tuple[int, ...]:
    """Numbers of the tokens of a map, row by row, where those that are pooled together stand apart.

    Of every 2 x 2 neighbours the first comes with the first of all others, then the second of all,
    and so again for those, `n_levels` deep: pooling is then a maximum over the first axis (Hiera).

    Reference:
        Ryali et al. 2023, Hiera: a hierarchical vision transformer without the bells and whistles.

    >>> nested_tokens((2, 4), 1)
    (0, 2, 1, 3, 4, 6, 5, 7)
    """
    height, width = grid
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    numbers = torch.zeros(height, width, dtype=torch.long)
    for _ in range(n_levels):
        numbers = numbers * 4 + (rows % 2) * 2 + columns % 2
        rows, columns = rows // 2, columns // 2
    coarse = (height // 2**n_levels, width // 2**n_levels)
    numbers = numbers * (coarse[0] * coarse[1]) + rows * coarse[1] + columns
    return tuple(numbers.flatten().tolist())


def _tokens(shape: tuple[int, ...], grids: tuple[tuple[int, ...], ...]) -> Iterator[Layout]:
    for order, tokens in (("NLC", 1), ("LNC", 0)):
        n_tokens, n_sets = shape[tokens], shape[1 - tokens]
        for grid in grids:
            extra = n_tokens - math.prod(grid)
            if 0 <= extra <= MOST_PREFIX_TOKENS and min(grid) >= 2:
                for before in range(extra, -1, -1):
                    yield Layout(order, grid, before, extra - before, sets=n_sets)
            for n_levels in range(1, MOST_LEVELS + 1):
                if extra == 0 and len(grid) == 2 and all(n % 2**n_levels == 0 for n in grid):
                    yield Layout(order, grid, tokens=nested_tokens(grid, n_levels), sets=n_sets)


def _windows_of(
    grids: tuple[tuple[int, ...], ...], n_windows: int, sides: tuple[int, int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, int], bool]]:
    """Maps that windows of these sides cut into so many, shifted or not, in blocks or in grids."""
    if min(sides) < SMALLEST_WINDOW or n_windows < 2:
        return
    for grid in grids:
        along = [-(-length // side) for length, side in zip(grid[-2:], sides, strict=True)]
        if len(grid) != 2 or math.prod(along) != n_windows:
            continue
        is_whole = all(length % side == 0 for length, side in zip(grid, sides, strict=True))
        shifts = {(0, 0), (sides[0] // 2, sides[1] // 2)}
        for shift in sorted(shifts):
            yield grid, shift, False
        if is_whole:
            yield grid, (0, 0), True


def _window_tokens(shape: tuple[int, ...], grids: tuple[tuple[int, ...], ...]) -> Iterator[Layout]:
    """(windows, pixels, C), of square windows."""
    side = math.isqrt(shape[1])
    if side * side == shape[1]:
        for grid, shift, is_grid in _windows_of(grids, shape[0], (side, side)):
            yield Layout("windows", grid, windows=Windows((side, side), shift, is_grid))


def _window_maps(
    shape: tuple[int, ...], grids: tuple[tuple[int, ...], ...], is_last: bool | None
) -> Iterator[Layout]:
    """(windows, h, w, C), (windows, C, h, w) and (1, windows, pixels, C)."""
    for first in (False, True):
        if is_last is (not first) or is_last is None:
            sides = (shape[2], shape[3]) if first else (shape[1], shape[2])
            for grid, shift, is_grid in _windows_of(grids, shape[0], sides):
                cut = Windows(sides, shift, is_grid, channels_first=first)
                yield Layout("windows", grid, windows=cut)
    if is_last is not False and shape[0] == 1:
        for is_grid in (False, True):  # grids stand (pixels, windows), all others the other way
            windows, pixels = (shape[2], shape[1]) if is_grid else (shape[1], shape[2])
            side = math.isqrt(pixels)
            if side * side == pixels:
                for grid, shift, spread in _windows_of(grids, windows, (side, side)):
                    if spread is is_grid:
                        cut = Windows((side, side), shift, is_grid, apart=True)
                        yield Layout("windows", grid, windows=cut)

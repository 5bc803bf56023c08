"""The layouts: where in the output of a module the maps are, one record for each.

To add a layout, add a record to :data:`LAYOUTS`: the options, the rules
(:mod:`natstats.activations.layout_rules`), the probe (:mod:`natstats.activations.probe`) and the
tables read it from there. Its function takes an output and returns the maps with the axes in one
order, (M, C, H, W), or (M, C, T, H, W) for clips. M counts the sets of maps: one for each image, or
several, for example where attention heads or the windows of an image stand along the first axis.
The functions return views, except that of ``windows`` and those of tokens that are listed one by
one. So there is usually one copy only: the one that the transform makes where it needs dense input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LAYOUTS", "Layout", "LayoutKind", "Windows", "dense_layouts", "nested_tokens"]

MOST_PREFIX_TOKENS = 16
"""Most tokens (class, distillation, registers) that may stand before or behind the map."""

MOST_LEVELS = 3
"""Most poolings by 2 for which tokens may be ordered in advance, see :func:`nested_tokens`."""

SMALLEST_WINDOW = 2
"""Shortest side of a window, pixels."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Windows:
    """How a map was cut into windows, so that it can be put together again.

    Attributes:
        size: sides of a window, pixels.
        shift: pixels by which the map was rolled towards its origin before it was cut.
        is_grid: False for windows of neighbouring pixels; True where each "window" holds pixels
            that are evenly spread over the whole map, as in the grid attention of MaxViT.
        apart: True for outputs (M, windows, pixels, C), False for (M windows, pixels, C).
        channels_first: True for outputs (M windows, C, pixels along each axis).
    """

    size: tuple[int, ...]
    shift: tuple[int, ...]
    is_grid: bool = False
    apart: bool = False
    channels_first: bool = False


@dataclass(frozen=True)
class Layout:
    """The layout of one output.

    Attributes:
        name: one of :data:`LAYOUTS`.
        grid: (H, W) of the maps, or (T, H, W) of clips, pixels and frames.
        n_prefix: tokens before the grid, such as class tokens; they are left out.
        n_suffix: tokens behind the grid, such as registers; they are left out.
        tokens: numbers of the tokens that make the grid, row by row; None where they stand
            together, between prefix and suffix.
        windows: how the map was cut, for ``windows``.
        sets: number of sets of maps for each image; 0 where it differs between images (regions).
        image_major: whether the sets of one image stand together along the first axis.
        is_quantized: whether the output must be dequantised.
    """

    name: str
    grid: tuple[int, ...]
    n_prefix: int = 0
    n_suffix: int = 0
    tokens: tuple[int, ...] | None = None
    windows: Windows | None = None
    sets: int = 1
    image_major: bool = True
    is_quantized: bool = False

    @property
    def kind(self) -> LayoutKind:
        """Its record in :data:`LAYOUTS`."""
        return LAYOUTS[self.name]

    @property
    def channels_first(self) -> bool:
        """Whether the channels stand before the axes of the map in the output."""
        return self.kind.channels == 1 or (self.windows is not None and self.windows.channels_first)

    def maps(self, output: Tensor) -> Tensor:
        """The maps in an output: (M, C, H, W), or (M, C, T, H, W) of clips."""
        if self.is_quantized:
            output = output.dequantize()
        return self.kind.maps(output, self)

    def __str__(self) -> str:
        """In words, for tables: ``NLC (1 + 14x14)``, ``regions NCHW``, ``quantized NCHW``."""
        text = self.name
        if self.kind.tokens is not None:
            before = f"{self.n_prefix} + " if self.n_prefix > 0 else ""
            behind = f" + {self.n_suffix}" if self.n_suffix > 0 else ""
            listed = "listed " if self.tokens is not None else ""
            text += f" ({before}{listed}{'x'.join(map(str, self.grid))}{behind})"
        if self.sets != 1:
            text = f"{self.sets} x {text}" if self.sets else f"regions {text}"
        return f"quantized {text}" if self.is_quantized else text


@dataclass(frozen=True, eq=False)
class LayoutKind:
    """A way in which outputs hold maps.

    Attributes:
        name: what options and tables call it.
        axes: the axes of an output, in words.
        found_in: networks that use it, in words.
        maps: takes an output and its layout, and returns the maps with the axes in one order.
        candidates: layouts of this kind that fit the shape of an output for one image, given the
            sizes of maps that occur in the network, (H, W), or (T, H, W) of clips.
        n_axes: number of axes of an output; 0 where it may have several.
        channels: the axis of the channels, 1 or -1; 0 where it differs from layout to layout.
        images: the axis of the images, or of their sets of maps.
        tokens: the axis of the tokens that make the map; None where the map has axes of its own.
        is_declarable: whether users can declare it.
        is_like_windows: whether windows cut from a map could be mistaken for whole maps in this
            layout.
    """

    name: str
    axes: str
    found_in: str
    maps: Callable[[Tensor, Layout], Tensor]
    candidates: Callable[[Shape, tuple[Shape, ...]], Iterator[Layout]]
    n_axes: int = 0
    channels: int = 0
    images: int = 0
    tokens: int | None = None
    is_declarable: bool = True
    is_like_windows: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether the map has axes of its own, beside that of the channels."""
        return self.tokens is None and self.channels != 0

    def grid_of(self, shape: Shape) -> Shape:
        """Size of the maps in an output of this shape, where the map has axes of its own."""
        return shape[2:] if self.channels == 1 else shape[1:-1]


def _as_it_is(output: Tensor, layout: Layout) -> Tensor:
    """Channels before the axes of the map: (M, C, H, W) or (M, C, T, H, W)."""
    return output


def _channels_last(output: Tensor, layout: Layout) -> Tensor:
    """(M, H, W, C) or (M, T, H, W, C)."""
    return output.movedim(-1, 1)


def _tokens(output: Tensor, layout: Layout) -> Tensor:
    """(M, prefix + H W + suffix, C), row by row; of clips T H W, frame by frame."""
    if layout.tokens is not None:
        tokens = output[:, list(layout.tokens)]
    else:
        tokens = output[:, layout.n_prefix : output.shape[1] - layout.n_suffix]
    return tokens.reshape(len(tokens), *layout.grid, tokens.shape[-1]).movedim(-1, 1)


def _tokens_first(output: Tensor, layout: Layout) -> Tensor:
    """(prefix + H W + suffix, M, C)."""
    return _tokens(output.transpose(0, 1), layout)


def _windows(output: Tensor, layout: Layout) -> Tensor:
    """The map put together from its windows, rolled back, and without the padding at its end."""
    cut = layout.windows
    assert cut is not None
    n_axes = len(layout.grid)
    n_along = tuple(-(-side // size) for side, size in zip(layout.grid, cut.size, strict=True))
    if cut.channels_first:
        output = output.movedim(1, -1)
    if cut.apart and cut.is_grid:
        output = output.transpose(1, 2)
    tiles = output.reshape(-1, *n_along, *cut.size, output.shape[-1])
    # (M, windows along each axis, pixels along each axis, C): bring the two of an axis together.
    # In a grid the pixels of a window are spread over the map; its number is the offset between.
    pairs = [place for axis in range(n_axes) for place in (1 + axis, 1 + n_axes + axis)]
    if cut.is_grid and not cut.apart:
        pairs = [place for axis in range(n_axes) for place in (1 + n_axes + axis, 1 + axis)]
    padded = tuple(n * size for n, size in zip(n_along, cut.size, strict=True))
    maps = tiles.permute(0, 2 * n_axes + 1, *pairs).reshape(-1, output.shape[-1], *padded)
    if any(cut.shift):
        maps = maps.roll(cut.shift, tuple(range(2, 2 + n_axes)))
    for axis, side in enumerate(layout.grid):
        maps = maps.narrow(2 + axis, 0, side)
    return maps


def _dense_candidates(name: str) -> Callable[[Shape, tuple[Shape, ...]], Iterator[Layout]]:
    def candidates(shape: Shape, grids: tuple[Shape, ...]) -> Iterator[Layout]:
        kind = LAYOUTS[name]
        if len(shape) == kind.n_axes and min(kind.grid_of(shape)) >= 2:
            yield Layout(name, kind.grid_of(shape), sets=shape[0])

    return candidates


def _token_candidates(name: str) -> Callable[[Shape, tuple[Shape, ...]], Iterator[Layout]]:
    def candidates(shape: Shape, grids: tuple[Shape, ...]) -> Iterator[Layout]:
        kind = LAYOUTS[name]
        if len(shape) != kind.n_axes or kind.tokens is None:
            return
        n_tokens, n_sets = shape[kind.tokens], shape[kind.images]
        for grid in grids:
            extra = n_tokens - math.prod(grid)
            if 0 <= extra <= MOST_PREFIX_TOKENS and min(grid) >= 2:
                for before in range(extra, -1, -1):
                    yield Layout(name, grid, before, extra - before, sets=n_sets)
            for n_levels in range(1, MOST_LEVELS + 1):
                if extra == 0 and len(grid) == 2 and all(n % 2**n_levels == 0 for n in grid):
                    yield Layout(name, grid, tokens=nested_tokens(grid, n_levels), sets=n_sets)

    return candidates


@lru_cache(maxsize=64)
def nested_tokens(grid: Shape, n_levels: int) -> tuple[int, ...]:
    """Numbers of the tokens of a map, row by row, where those that are pooled together stand apart.

    The first tokens of all 2 x 2 neighbourhoods come first, then all second ones, and so on. Each
    of these parts is ordered in the same way again, `n_levels` deep. Pooling is then a maximum over
    the first axis (Hiera).

    Reference:
        Ryali et al. 2023, Hiera: a hierarchical vision transformer without the bells and whistles.

    >>> nested_tokens((2, 4), 1)
    (0, 2, 1, 3, 4, 6, 5, 7)
    """
    height, width = grid
    n_rows, n_columns = height >> n_levels, width >> n_levels

    def number(row: int, column: int) -> int:
        inside = 0
        for _ in range(n_levels):
            inside = inside * 4 + (row % 2) * 2 + column % 2
            row, column = row // 2, column // 2
        return inside * n_rows * n_columns + row * n_columns + column

    return tuple(number(row, column) for row in range(height) for column in range(width))


def _windows_of(
    grids: tuple[tuple[int, ...], ...], n_windows: int, sides: tuple[int, int]
) -> Iterator[tuple[tuple[int, ...], tuple[int, int], bool]]:
    """Size, shift and `is_grid` of each map that windows of these sides cut into `n_windows`."""
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


def _window_candidates(shape: Shape, grids: tuple[Shape, ...]) -> Iterator[Layout]:
    """(windows, pixels, C), (windows, h, w, C), (windows, C, h, w) and (1, windows, pixels, C)."""
    if len(shape) == 3:
        side = math.isqrt(shape[1])
        if side * side == shape[1]:
            for grid, shift, is_grid in _windows_of(grids, shape[0], (side, side)):
                yield Layout("windows", grid, windows=Windows((side, side), shift, is_grid))
    if len(shape) != 4:
        return
    for first in (False, True):
        sides = (shape[2], shape[3]) if first else (shape[1], shape[2])
        for grid, shift, is_grid in _windows_of(grids, shape[0], sides):
            cut = Windows(sides, shift, is_grid, channels_first=first)
            yield Layout("windows", grid, windows=cut)
    if shape[0] == 1:
        for is_grid in (False, True):  # grids are (pixels, windows), others (windows, pixels)
            windows, pixels = (shape[2], shape[1]) if is_grid else (shape[1], shape[2])
            side = math.isqrt(pixels)
            if side * side == pixels:
                for grid, shift, spread in _windows_of(grids, windows, (side, side)):
                    if spread is is_grid:
                        cut = Windows((side, side), shift, is_grid, apart=True)
                        yield Layout("windows", grid, windows=cut)


LAYOUTS = {
    one.name: one
    for one in (
        LayoutKind(
            name="NCHW",
            axes="(N, C, H, W)",
            found_in="convolutional networks",
            maps=_as_it_is,
            candidates=_dense_candidates("NCHW"),
            n_axes=4,
            channels=1,
        ),
        LayoutKind(
            name="NHWC",
            axes="(N, H, W, C)",
            found_in="Swin transformers, ConvNeXt",
            maps=_channels_last,
            candidates=_dense_candidates("NHWC"),
            n_axes=4,
            channels=-1,
            is_like_windows=True,
        ),
        LayoutKind(
            name="NLC",
            axes="(N, prefix + H W + suffix, C)",
            found_in="vision transformers",
            maps=_tokens,
            candidates=_token_candidates("NLC"),
            n_axes=3,
            channels=-1,
            tokens=1,
            is_like_windows=True,
        ),
        LayoutKind(
            name="LNC",
            axes="(prefix + H W + suffix, N, C)",
            found_in="attention with the tokens first",
            maps=_tokens_first,
            candidates=_token_candidates("LNC"),
            n_axes=3,
            channels=-1,
            images=1,
            tokens=0,
            is_like_windows=True,
        ),
        LayoutKind(
            name="NCTHW",
            axes="(N, C, T, H, W)",
            found_in="networks of clips",
            maps=_as_it_is,
            candidates=_dense_candidates("NCTHW"),
            n_axes=5,
            channels=1,
        ),
        LayoutKind(
            name="NTHWC",
            axes="(N, T, H, W, C)",
            found_in="transformers of clips",
            maps=_channels_last,
            candidates=_dense_candidates("NTHWC"),
            n_axes=5,
            channels=-1,
        ),
        LayoutKind(
            name="windows",
            axes="(N windows, pixels, C) and others",
            found_in="attention in windows",
            maps=_windows,
            candidates=_window_candidates,
            is_declarable=False,
        ),
    )
}
"""The layouts by name."""


def dense_layouts(n_axes: int) -> tuple[str, str]:
    """The layouts of outputs of four or five axes: with channels first, and with channels last.

    >>> dense_layouts(4)
    ('NCHW', 'NHWC')
    """
    dense = [kind for kind in LAYOUTS.values() if kind.is_dense and kind.n_axes == n_axes]
    first, last = (next(k.name for k in dense if k.channels == axis) for axis in (1, -1))
    return first, last

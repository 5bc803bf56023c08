"""Layouts: where in the output of a module the maps are. One small function for each.

Every function takes an output and returns its maps with the axes in one order, (M, C, H, W), or
(M, C, T, H, W) for clips, M being the sets of maps: one for each image, or several, as where
attention heads or the windows of an image stand along the first axis. All but ``windows`` return
views, but for tokens that are listed one by one, so that the only copy is the one that the
transform makes where it needs its input dense.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError

__all__ = [
    "LAYOUTS",
    "Layout",
    "Windows",
    "as_frames",
    "as_time_axis",
    "parse_layouts",
]


@dataclass(frozen=True)
class Windows:
    """How a map was cut into windows, so that it can be put together again.

    Attributes:
        size: of a window along each axis, pixels.
        shift: pixels by which the map was rolled towards its origin before that.
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
        name: one of LAYOUTS.
        grid: (H, W) of the maps, or (T, H, W) of clips, pixels and frames.
        n_prefix: tokens before the grid, such as class tokens; they are left out.
        n_suffix: tokens behind the grid, such as registers; they are left out.
        tokens: numbers of the tokens that are the grid, row by row, where they do not stand
            together; None where they do.
        windows: for ``windows``.
        sets: sets of maps for each image; 0 where it differs between images (regions).
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

    def maps(self, output: Tensor) -> Tensor:
        """The maps in an output: (M, C, H, W), or (M, C, T, H, W) of clips."""
        if self.is_quantized:
            output = output.dequantize()
        return LAYOUTS[self.name](output, self)

    def __str__(self) -> str:
        """In words, for tables: ``NLC (1 + 14x14)``, ``regions NCHW``, ``quantized NCHW``."""
        text = self.name
        if self.name in ("NLC", "LNC"):
            before = f"{self.n_prefix} + " if self.n_prefix > 0 else ""
            behind = f" + {self.n_suffix}" if self.n_suffix > 0 else ""
            listed = "listed " if self.tokens is not None else ""
            text += f" ({before}{listed}{'x'.join(map(str, self.grid))}{behind})"
        if self.sets != 1:
            text = f"{self.sets} x {text}" if self.sets else f"regions {text}"
        return f"quantized {text}" if self.is_quantized else text


def _nchw(output: Tensor, layout: Layout) -> Tensor:
    """Channels before the axes of the map: (M, C, H, W) or (M, C, T, H, W), as it is."""
    return output


def _nhwc(output: Tensor, layout: Layout) -> Tensor:
    """Channels last: (M, H, W, C) or (M, T, H, W, C)."""
    return output.movedim(-1, 1)


def _nlc(output: Tensor, layout: Layout) -> Tensor:
    """Tokens: (M, prefix + H W + suffix, C), row by row; of clips T H W, frame by frame."""
    if layout.tokens is not None:
        tokens = output[:, list(layout.tokens)]
    else:
        tokens = output[:, layout.n_prefix : output.shape[1] - layout.n_suffix]
    return tokens.reshape(len(tokens), *layout.grid, tokens.shape[-1]).movedim(-1, 1)


def _lnc(output: Tensor, layout: Layout) -> Tensor:
    """Tokens first: (prefix + H W + suffix, M, C)."""
    return _nlc(output.transpose(0, 1), layout)


def _windows(output: Tensor, layout: Layout) -> Tensor:
    """Windows of a map, put together again, rolled back, and without what filled the last ones."""
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
    # Where pixels are spread over the map, a window is the place between two of them.
    pairs = [place for axis in range(n_axes) for place in (1 + axis, 1 + n_axes + axis)]
    if cut.is_grid and not cut.apart:
        pairs = [place for axis in range(n_axes) for place in (1 + n_axes + axis, 1 + axis)]
    padded = tuple(n * size for n, size in zip(n_along, cut.size, strict=True))
    maps = tiles.permute(0, 2 * n_axes + 1, *pairs).reshape(-1, output.shape[-1], *padded)
    if any(cut.shift):
        maps = torch.roll(maps, cut.shift, tuple(range(2, 2 + n_axes)))
    for axis, side in enumerate(layout.grid):
        maps = maps.narrow(2 + axis, 0, side)
    return maps


LAYOUTS: Mapping[str, Callable[[Tensor, Layout], Tensor]] = {
    "NCHW": _nchw,
    "NHWC": _nhwc,
    "NLC": _nlc,
    "LNC": _lnc,
    "NCTHW": _nchw,
    "NTHWC": _nhwc,
    "windows": _windows,
}
"""Function of each layout; what these letters stand for is in the functions' first lines."""

DECLARABLE = ("NCHW", "NHWC", "NLC", "LNC", "NCTHW", "NTHWC")

UNKNOWN = -1
"""Prefix tokens of a declared layout that says nothing of them."""

MOST_LISTED = 1 << 20
"""Tokens that can be listed one by one."""


def as_frames(maps: Tensor) -> Tensor:
    """Maps (M, C, H, W); of clips (M, C, T, H, W) every frame is a map: (M, C T, H, W).

    >>> as_frames(torch.zeros(2, 3, 4, 8, 8)).shape
    torch.Size([2, 12, 8, 8])
    """
    return maps.flatten(1, 2) if maps.ndim == 5 else maps


def as_time_axis(maps: Tensor) -> Tensor:
    """Clips (M, C, T, H, W) as one column of T values for each pixel: (M, C H W, T, 1).

    >>> as_time_axis(torch.zeros(2, 3, 16, 8, 8)).shape
    torch.Size([2, 192, 16, 1])
    """
    return maps.movedim(2, -1).flatten(1, 3)[..., None]


_TOKENS = re.compile(r"(?P<letters>[A-Z]+)(\+(?P<before>\d+)(-(?P<behind>\d+))?|:(?P<listed>.*))?")


def parse_layouts(declared: Mapping[str, str]) -> dict[str, Layout]:
    """Layouts that a user declares for modules: name or pattern, and the layout.

    Tokens may say where the map is: ``NLC+1`` has one token before it, ``NLC+0-2`` none before and
    two behind, ``NLC:0-29,36-65`` the tokens of these numbers, row by row. The grid is found from
    the shape.

    Raises:
        UsageError: no such layout.

    >>> found = parse_layouts({"encoder.*": "NLC+1-4", "head": "NLC:0-3,8-11"})
    >>> found["encoder.*"].n_prefix, found["encoder.*"].n_suffix, found["head"].tokens
    (1, 4, (0, 1, 2, 3, 8, 9, 10, 11))
    """
    found = {}
    for name, text in declared.items():
        parts = _TOKENS.fullmatch(str(text))
        letters = parts["letters"] if parts else re.split(r"[+:]", str(text))[0]
        checks.one_of(f"layout of {name}", letters, DECLARABLE)
        if parts is None or (letters not in ("NLC", "LNC") and letters != text):
            raise UsageError(
                f"layout of {name}: expected a number of tokens after NLC+ or LNC+ (NLC+0-2 has "
                f"none before and two behind), or their numbers (NLC:0-29,36-65); got {text!r}"
            )
        if parts["listed"] is not None:
            found[name] = Layout(letters, (), tokens=_listed(name, parts["listed"]))
        elif parts["before"] is not None:
            before, behind = int(parts["before"]), int(parts["behind"] or 0)
            found[name] = Layout(letters, (), n_prefix=before, n_suffix=behind)
        else:
            found[name] = Layout(letters, (), n_prefix=UNKNOWN)
    return found


def _listed(name: str, text: str) -> tuple[int, ...]:
    """Numbers of tokens, written ``0-29,36-65``; a range may run backwards."""
    numbers: list[int] = []
    for piece in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,7})(?:-(\d{1,7}))?\s*", piece)
        if ends is None:
            raise UsageError(
                f"layout of {name}: expected numbers of tokens such as 0-29,36-65; got {text!r}"
            )
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if abs(last - first) >= MOST_LISTED:
            raise UsageError(
                f"layout of {name}: expected at most {MOST_LISTED} tokens; got {text!r}"
            )
        numbers += range(first, last + 1) if last >= first else range(first, last - 1, -1)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"layout of {name}: expected every token once; got {text!r}")
    return tuple(numbers)

"""The sizes of maps that the layers of a network have shown, and what follows for other outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from natstats.activations.layouts import MOST_PREFIX_TOKENS

__all__ = ["MapSizes"]

Size = tuple[int, ...]


class MapSizes:
    """The sizes of maps in one network, the latest last.

    Attributes:
        image: shape of the first argument that is an image or several; None where there is none.
        window_areas: numbers of pixels in the windows that were seen.

    >>> sizes = MapSizes()
    >>> sizes.image = (1, 3, 64, 64)
    >>> sizes.show((4, 4), is_last=False)
    >>> sizes.grid_of(17)
    ((4, 4), 1)
    """

    def __init__(self) -> None:
        self.image: Size | None = None
        self.window_areas: set[int] = set()
        # For each size, whether channels came last (True), first (False) or both.
        self._shown: dict[Size, frozenset[bool]] = {}

    def show(self, grid: Size, is_last: bool) -> None:
        """Note that a layer has shown maps of this size, with the channels last or not."""
        self._shown[grid] = self._shown.pop(grid, frozenset()) | {is_last}

    def __contains__(self, grid: object) -> bool:
        return grid in self._shown

    def __reversed__(self) -> Iterator[Size]:
        return reversed(self._shown)

    def __iter__(self) -> Iterator[Size]:
        return iter(self._shown)

    def latest(self) -> Size | None:
        """The size that was shown last; None before the first."""
        return next(reversed(self._shown), None)

    def sides_of_channels(self, grid: Size) -> frozenset[bool]:
        """Whether channels came last with maps of this size, first, or both."""
        return self._shown[grid]

    def could_be_maps(self, grid: tuple[int, ...]) -> bool:
        """Whether a size that no layer has shown has the image's shape, and is not of attention.

        Attention weights are square matrices with a row and a column for every token.
        """
        height, width = grid[-2:]
        areas = {math.prod(known) for known in self._shown} | self.window_areas
        if any(0 <= height - area <= MOST_PREFIX_TOKENS for area in areas if area > 16):
            return False
        if self.image is None:
            return True
        image = self.image[-2:]
        strides = image[0] / max(height, 1), image[1] / max(width, 1)
        return max(strides) <= 1.5 * min(strides)

    def grid_of(
        self, n_tokens: int, prefixes: Sequence[int] | None = None
    ) -> tuple[Size, int] | None:
        """Map size and number of prefix tokens that make `n_tokens`; None where there is none.

        Args:
            n_tokens: number of tokens.
            prefixes: numbers of prefix tokens that are allowed; by default all up to
                MOST_PREFIX_TOKENS.
        """
        allowed = sorted(range(MOST_PREFIX_TOKENS + 1) if prefixes is None else prefixes)
        known = [grid for grid in reversed(self._shown) if min(grid[-2:]) >= 2]
        for n_prefix in allowed:
            for grid in known:
                if math.prod(grid) == n_tokens - n_prefix:
                    return grid, n_prefix
        for n_prefix in allowed if self.image is not None else ():
            patches = self._patches(n_tokens - n_prefix)
            if patches is not None and (not known or any(_is_related(g, patches) for g in known)):
                return patches, n_prefix
        return None

    def _patches(self, area: int) -> Size | None:
        """Rows and columns of `area` square patches that tile the image exactly, or None."""
        assert self.image is not None
        height, width = self.image[-2:]
        rows = round(math.sqrt(max(area, 0) * height / width))
        if rows < 2 or area % rows or height % rows:
            return None
        columns = area // rows
        fits = columns >= 2 and width % columns == 0 and height * columns == width * rows
        return (rows, columns) if fits else None


def _is_related(grid: Size, other: Size) -> bool:
    """Whether, along each side, one of the two lengths is a multiple of the other."""
    return all(a % b == 0 or b % a == 0 for a, b in zip(grid[-2:], other, strict=True))

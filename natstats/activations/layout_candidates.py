"""The layouts that fit the shape of an output; the probe finds out which of them is right."""

from __future__ import annotations

import math

from torch import nn

from natstats.activations.channel_axis import channels_are_last
from natstats.activations.layouts import LAYOUTS, MOST_PREFIX_TOKENS, Layout

__all__ = ["candidates", "patch_grids"]


def candidates(
    module: nn.Module, shape: tuple[int, ...], grids: tuple[tuple[int, ...], ...]
) -> list[Layout]:
    """Layouts that fit an output for one image.

    Args:
        module: whose output it is; it may settle where the channels are.
        shape: shape of the output.
        grids: map sizes that occur in the network, (H, W), or (T, H, W) of clips.

    >>> [str(way) for way in candidates(nn.GELU(), (1, 16, 16, 16), ((16, 16),))]
    ['NCHW', 'NHWC', 'windows', 'windows', 'windows']
    >>> [str(way) for way in candidates(nn.Linear(8, 8), (1, 17, 8), ((4, 4),))]
    ['NLC (1 + 4x4)', 'NLC (4x4 + 1)']
    """
    is_last = channels_are_last(module)
    found = [layout for kind in LAYOUTS.values() for layout in kind.candidates(shape, grids)]
    allowed = [one for one in found if is_last is None or one.channels_first is not is_last]
    return list(dict.fromkeys(allowed))


def patch_grids(n_tokens: int, image: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes of maps in the proportions of an image that make `n_tokens` with a few extra tokens.

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

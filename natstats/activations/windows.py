"""The windows of operations such as convolution over the rows of maps: how long, how far apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

__all__ = ["Window", "window_of"]

_TAPS = {
    "upsample_nearest2d": 0,
    "_upsample_nearest_exact2d": 0,
    "upsample_bilinear2d": 1,
    "upsample_bicubic2d": 3,
}


class Window(NamedTuple):
    """Regular windows along the height, in rows of the input of the operation.

    Attributes:
        n_out: number of windows.
        step: rows from one window to the next.
        first: centre of the first window.
        span: rows from the first to the last of a window.
    """

    n_out: int
    step: float
    first: float
    span: float


def window_of(name: str, given: Mapping[str, Any], made: Tensor) -> Window | None:
    """The window of an operation on maps; None when there is no rule for it.

    Args:
        name: name of the operation, without overload.
        given: its arguments by name.
        made: its result.

    >>> import torch
    >>> maps = torch.zeros(1, 1, 8, 8)
    >>> given = {"self": maps, "kernel_size": [3], "stride": [2], "padding": [1]}
    >>> window_of("avg_pool2d", given, torch.zeros(1, 1, 4, 4))
    Window(n_out=4, step=2, first=0.0, span=2)
    """

    def along(key: str, otherwise: int = 1) -> int:
        value = given.get(key) or [otherwise]
        # One number stands for all dimensions.
        return int(value if isinstance(value, int) else value[-2 if len(value) > 1 else 0])

    maps: Any = given.get("self", given.get("input"))
    n_in, n_out = maps.shape[-2], made.shape[-2]
    if name == "convolution":
        kernel = given["weight"].shape[-2] if given["weight"].ndim > 3 else math.nan
        stride, dilation = along("stride"), along("dilation")
        pad, reach = along("padding", 0), (kernel - 1) * dilation
        if not given["transposed"]:
            return Window(n_out, stride, reach / 2 - pad, reach)
        # With zeros put between the input rows, only every stride-th row in a window is input.
        common = math.gcd(stride, dilation)
        span = (kernel - 1) // (stride // common) * (dilation // common)
        return Window(n_out, 1 / stride, (pad - reach / 2) / stride, span)
    if name.startswith(("max_pool", "avg_pool")):
        kernel = along("kernel_size")
        reach = (kernel - 1) * along("dilation")
        return Window(n_out, along("stride", kernel), reach / 2 - along("padding", 0), reach)
    if "adaptive" in name and n_in % n_out == 0:
        ratio = n_in // n_out
        return Window(n_out, ratio, (ratio - 1) / 2, ratio - 1)
    if name == "pixel_shuffle":
        factor = given["upscale_factor"]
        return Window(n_out, 1 / factor, (1 / factor - 1) / 2, 0)
    if name in _TAPS:
        factor = given.get("scales_h") or (given.get("scale_factors") or [None, None])[-2]
        step = 1 / factor if factor else n_in / n_out
        first = (step - 1) / 2
        if given.get("align_corners"):
            step, first = (n_in - 1) / max(n_out - 1, 1), 0.0
        falls_between = any((first + step * place) % 1 for place in range(n_out))
        return Window(n_out, step, first, _TAPS[name] if falls_between else 0)
    return None

"""Averages over windows, and borders, as matrices and lists of positions along one axis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from natstats.theory.state_parts import NoFormError

__all__ = ["adaptive_weights", "padded_positions", "pooling_weights"]


def pooling_weights(
    side: int,
    kernel: int,
    stride: int,
    padding: int,
    ceil_mode: bool,
    count_include_pad: bool,
    *,
    is_sum: bool = False,
) -> Tensor:
    """Weights of an average over windows along an axis, (n', n); arguments as torch has them.

    Args:
        side: n, pixels.
        kernel: pixels of a window.
        stride: pixels from one window to the next.
        padding: zeros at either end.
        ceil_mode: whether a last window may reach beyond the end.
        count_include_pad: whether zeros of the padding count.
        is_sum: give sums in place of averages, for a divisor of the caller's own.

    >>> pooling_weights(4, 2, 2, 0, False, True)
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000]], dtype=torch.float64)
    """
    units = torch.eye(side, dtype=torch.float64)[:, None]
    weights = functional.avg_pool1d(units, kernel, stride, padding, ceil_mode, count_include_pad)
    weights = weights[:, 0].mT.contiguous()
    return (weights > 0).double() if is_sum else weights


def adaptive_weights(side: int, n_out: int) -> Tensor:
    """Weights of adaptive average pooling along an axis, (n', n)."""
    units = torch.eye(side, dtype=torch.float64)[:, None]
    return functional.adaptive_avg_pool1d(units, n_out)[:, 0].mT.contiguous()


def padded_positions(side: int, before: int, after: int, mode: str) -> list[int]:
    """Number of the pixel at each place of an axis with a border, -1 for a zero.

    Args:
        side: pixels of the axis.
        before: pixels that are added before it, or if negative cut off.
        after: the same after it.
        mode: ``constant``, ``reflect``, ``replicate`` or ``circular``.

    Raises:
        NoFormError: another mode.

    >>> padded_positions(3, 1, 2, "reflect"), padded_positions(3, 1, -1, "constant")
    ([1, 0, 1, 2, 1, 0], [-1, 0, 1])
    """
    places = range(-before, side + after)
    if mode == "circular":
        return [place % side for place in places]
    if mode == "replicate":
        return [min(max(place, 0), side - 1) for place in places]
    if mode == "reflect":
        period = 2 * (side - 1) or 1
        return [min(place % period, period - place % period) for place in places]
    if mode != "constant":
        raise NoFormError(f"borders of the kind {mode!r} are not known")
    return [place if 0 <= place < side else -1 for place in places]

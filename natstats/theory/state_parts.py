"""Small records and names for the states of the recursion over random weights."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from torch import Tensor

__all__ = ["ChannelFactors", "NoFormError", "Window", "new_root"]

_numbers = itertools.count()


def new_root() -> frozenset[int]:
    """A name for a value whose channels, given its input, are independent of all values before."""
    return frozenset([next(_numbers)])


class NoFormError(Exception):
    """An operation has no closed form; the text says why."""


class ChannelFactors(NamedTuple):
    """Means over channels of the factor g of each channel, of its shift b, and of their products.

    Attributes:
        factor: mean of g.
        square: mean of g^2.
        cross: mean of g b.
        shift: mean of b.
        shift_square: mean of b^2.
    """

    factor: float
    square: float
    cross: float = 0.0
    shift: float = 0.0
    shift_square: float = 0.0

    @classmethod
    def of(cls, factor: Tensor, shift: Tensor) -> ChannelFactors:
        """The means of one number for each channel, (C,)."""
        g, b = factor.double(), shift.double()
        return cls(*(float(x.mean()) for x in (g, g * g, g * b, b, b * b)))

    @property
    def is_uniform(self) -> bool:
        """Whether all channels have the same factor and the same shift."""
        spread = (self.square - self.factor**2, self.shift_square - self.shift**2)
        scale = max(self.square, self.shift_square, 1e-300)
        return max(spread) <= 1e-12 * scale


class Window(NamedTuple):
    """Kernel, stride, padding and dilation along an axis of `side` pixels."""

    side: int
    kernel: int
    stride: int
    padding: int
    dilation: int = 1

    @property
    def n_out(self) -> int:
        """Number of positions of the output."""
        reach = self.dilation * (self.kernel - 1) + 1
        return (self.side + 2 * self.padding - reach) // self.stride + 1

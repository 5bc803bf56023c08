"""The state of a value at all pairs of positions: exact, with borders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats.spectra.frequencies import rings
from natstats.theory.covariances import power_of_matrix
from natstats.theory.random_states import State
from natstats.theory.state_parts import Window, new_root

__all__ = ["LARGEST_EXACT", "ExactState", "is_exact_size", "taken"]

LARGEST_EXACT = 48
"""Longest side of maps, pixels, whose covariance is kept at all pairs of positions."""


def is_exact_size(height: int, width: int) -> bool:
    """Whether maps are small enough to keep all pairs.

    >>> is_exact_size(48, 48), is_exact_size(56, 56)
    (True, False)
    """
    return max(height, width) <= LARGEST_EXACT


class ExactState(State):
    """Second moments at all pairs, (N, HW, HW), and the mean at every position, (N, HW)."""

    form = "exact"

    @classmethod
    def of_maps(cls, maps: Tensor, *, with_cross: bool = False) -> ExactState:
        """The state of given values.

        Args:
            maps: (N, C, H, W).
            with_cross: follow the covariance between each image and the next, too.
        """
        _, channels, height, width = maps.shape
        flat = maps.double().flatten(2)
        second = flat.mT @ flat / channels
        cross = flat.mT @ flat.roll(-1, 0) / channels if with_cross else None
        return cls(height, width, second, flat.mean(1), cross, False, new_root())

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Products at all pairs of positions, (..., N, HW, HW)."""
        return left[..., :, None] * right[..., None, :]

    def diagonal(self) -> Tensor:
        """Second moment at every position, (N, HW)."""
        return self.second.diagonal(dim1=-2, dim2=-1)

    def position_means(self, pairs: Tensor) -> Tensor:
        """Mean over the right position, (N, HW)."""
        return pairs.mean(-1)

    def _swapped(self, cross: Tensor) -> Tensor:
        return cross.mT

    def _spread(self, pairs: Tensor) -> Tensor:
        return pairs.view(-1, self.height, self.width, self.height, self.width)

    def convolved(
        self, rows: Window, columns: Window, gain: float, bias: float, *, is_gaussian: bool
    ) -> ExactState:
        """After a convolution: K(x, x') is the sum of Q(x + b, x' + b) over the taps b."""
        height, width = rows.n_out, columns.n_out
        offsets = [
            [taken(window, offset) for offset in range(window.kernel)] for window in (rows, columns)
        ]

        def change(pairs: Tensor, right: object) -> Tensor:
            given = self._spread(pairs)
            total = given.new_zeros(len(given), height, width, height, width)
            for target_rows, source_rows in offsets[0]:
                for target_columns, source_columns in offsets[1]:
                    to = (slice(None), target_rows, target_columns, target_rows, target_columns)
                    of = (slice(None), source_rows, source_columns, source_rows, source_columns)
                    total[to] += given[of]
            return total.mul_(gain).add_(bias).view(len(given), height * width, -1)

        second, cross = self._with_pairs(change)
        mean = second.new_zeros(len(second), height * width)
        return ExactState(height, width, second, mean, cross, is_gaussian, new_root())

    def averaged(self, rows: Tensor, columns: Tensor, step: tuple[Window, Window]) -> ExactState:
        """After an average: the weights act on both positions."""
        rows, columns = rows.to(self.second), columns.to(self.second)
        height, width = len(rows), len(columns)

        def change(pairs: Tensor, right: object) -> Tensor:
            given = self._spread(pairs)
            given = torch.einsum("ah,nhwij->nawij", rows, given)
            given = torch.einsum("bw,nawij->nabij", columns, given)
            given = torch.einsum("ci,nabij->nabcj", rows, given)
            given = torch.einsum("dj,nabcj->nabcd", columns, given)
            return given.reshape(len(given), height * width, -1)

        second, cross = self._with_pairs(change)
        maps = self.mean.view(-1, self.height, self.width)
        return replace(
            self,
            height=height,
            width=width,
            second=second,
            cross=cross,
            mean=(rows @ maps @ columns.mT).flatten(1),
            origin=None,
        )

    def padded(self, rows: Sequence[int], columns: Sequence[int]) -> ExactState:
        """The state of maps made of rows and columns of these numbers, -1 for zeros."""
        height, width = len(rows), len(columns)
        down = torch.tensor(rows, device=self.second.device)
        across = torch.tensor(columns, device=self.second.device)
        there = ((down >= 0)[:, None] & (across >= 0)).flatten().double()
        place = (down.clamp(min=0)[:, None] * self.width + across.clamp(min=0)).flatten()

        def change(pairs: Tensor, right: object) -> Tensor:
            return pairs[:, place][:, :, place] * (there[:, None] * there)

        second, cross = self._with_pairs(change)
        return replace(
            self,
            height=height,
            width=width,
            second=second,
            cross=cross,
            mean=self.mean[:, place] * there,
            origin=None,
        )

    def ring_power(self, edges: str) -> np.ndarray[Any, Any]:
        """Expected power in every ring, the quadratic form of the covariance."""
        plane = power_of_matrix(self.second, self.height, self.width, edges).cpu().numpy()
        return rings(self.height, self.width).mean(plane)


def taken(window: Window, offset: int) -> tuple[slice, slice]:
    """Outputs whose tap at this offset lies inside the map, and the inputs under that tap."""
    first = offset * window.dilation - window.padding  # under output 0
    start = max(0, -(first // window.stride))
    stop = min(window.n_out, (window.side - 1 - first) // window.stride + 1)
    stop = max(start, stop)
    begin = first + start * window.stride
    end = begin + (stop - start - 1) * window.stride + 1 if stop > start else begin
    return slice(start, stop), slice(begin, end, window.stride)

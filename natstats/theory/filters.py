"""Predicted spectra during a pass: weights on the power of each channel, then rings.

If the channels are independent, the power after a convolution is sum_i G_i(f) P_i(f), with P_i the
power of channel i, which is measured anyway. The power after average pooling has the same form. A
stride folds the plane. In the end the power is averaged over rings, so that each image gives a row,
as in a measured spectrum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats.spectra.edges import axis_taper
from natstats.spectra.frequencies import rings
from natstats.spectra.precision import full_precision
from natstats.spectra.transforms import RingTransform, ring_transform

__all__ = ["Filter", "MapPower", "in_pieces", "padded_size", "rows_of_squares", "tapered_maps"]

_PIECE_BYTES = {"cpu": 1 << 21, "cuda": 1 << 26}

Array = NDArray[np.float64]


def _interleaved(half: Tensor) -> Tensor:
    """Weights of a half plane (..., H, W // 2 + 1), repeated for real and imaginary parts."""
    return half.flatten(-2).repeat_interleave(2, -1)


@lru_cache(maxsize=128)
def _folded_rings(
    height: int, width: int, stride: tuple[int, int], edges: str, device: torch.device
) -> Tensor:
    """From squares of a half plane to rings of every s-th pixel, (2 H (W // 2 + 1), n_rings).

    The power of every s-th pixel is the mean over the frequencies that alias onto each other. What
    aliases to DC is the mean of these pixels, which is removed, see :func:`_of_mean`.
    """
    low = height // stride[0], width // stride[1]
    ring = rings(*low)
    rows, columns = np.arange(height) % low[0], np.arange(width // 2 + 1) % low[1]
    index = ring.index[np.ix_(rows, columns)]
    members = np.full(index.shape, 2.0)
    members[:, 0] = 1.0
    if width % 2 == 0:
        members[:, -1] = 1.0
    inside = np.flatnonzero(index >= 0)
    matrix = np.zeros((index.size, ring.n_rings), dtype=np.float32)
    own = index.ravel()[inside]
    matrix[inside, own] = members.ravel()[inside] / ring.n_members[own]
    at_dc = np.outer(rows == 0, columns == 0).ravel()
    at_dc[0] = False  # which holds the mean of the map itself
    matrix[at_dc] -= np.outer(members.ravel()[at_dc], _of_mean(low, edges))
    with torch.inference_mode(False):
        matrix = np.repeat(matrix / np.prod(stride), 2, axis=0)
        return torch.from_numpy(matrix).to(device, torch.float32)


def _of_mean(size: tuple[int, int], edges: str) -> Array:
    """Power that rings lose when the mean of a map is removed, per power at DC, (n_rings,).

    With W the transform of the taper and R that of its square, over their values at DC, the power
    changes by |F - F(0) W|^2 - |F|^2, whose expectation is P(0) (|W|^2 - 2 Re R* W) where the power
    is flat over the frequencies that the taper mixes.
    """
    ring = rings(*size)
    if edges == "periodic":
        return np.zeros(ring.n_rings)
    window = np.outer(*(axis_taper(side, edges) for side in size))
    constant, square = (np.fft.fft2(one) / one.sum() for one in (window, window**2))
    return ring.mean(2 * (square.conj() * constant).real - np.abs(constant) ** 2)


@dataclass(frozen=True, eq=False)
class Filter:
    """A predicted spectrum that is a weighted sum of the power of the channels of a value.

    Attributes:
        state: number of the state that it is summed in.
        weight: of channel and frequency, (C, H, W // 2 + 1); (C, 1, 1) where all frequencies, and
            (1, H, W // 2 + 1) where all channels are alike.
        stride: every s-th pixel is kept, along each axis; (1, 1) for all.
        coherent: weight of what the correlations of channels add, which is the power of their sum
            less the sum of their powers, (H, W // 2 + 1); None for nothing.
    """

    state: int
    weight: Tensor
    stride: tuple[int, int] = (1, 1)
    coherent: Tensor | None = None


class _Prepared:
    """A filter on a grid of frequencies, with its tensors where the maps are."""

    def __init__(
        self, own: Filter, size: tuple[int, int], edges: str, device: torch.device
    ) -> None:
        self.state, self.stride = own.state, own.stride
        weight = own.weight.to(device, torch.float32)
        self.by_channel: Tensor | None = None
        self.by_both: Tensor | None = None
        self.by_frequency: Tensor | None = None
        if weight.shape[1:] == (1, 1):
            self.by_channel = weight[:, 0, 0]
        elif len(weight) == 1:
            self.by_frequency = _interleaved(weight[0])
        else:
            self.by_both = _interleaved(weight)
        self.coherent = None
        if own.coherent is not None:
            self.coherent = _interleaved(own.coherent.to(device, torch.float32))
        self.folded = (
            None if own.stride == (1, 1) else _folded_rings(*size, own.stride, edges, device)
        )

    def power(self, squares: Tensor, total: Tensor, sums: Tensor | None) -> Tensor:
        """Weighted squares, summed over channels, (N, P)."""
        if self.by_channel is not None:
            power = torch.einsum("ncp,c->np", squares, self.by_channel)
        elif self.by_both is not None:
            power = (squares * self.by_both).sum(1)
        else:
            assert self.by_frequency is not None
            power = total * self.by_frequency
        if self.coherent is not None:
            assert sums is not None
            power = power + (sums - total) * self.coherent
        return power


def tapered_maps(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps less their mean, tapered, from their transform without its DC, which is the mean.

    Args:
        plane: (N, C, H, W // 2 + 1), see :meth:`RingTransform.plane`; it is left as it is.
        size: (H, W).
    """
    mean = plane[..., 0, 0].clone()
    plane[..., 0, 0] = 0.0
    maps: Tensor = torch.fft.irfft2(plane, s=size)
    plane[..., 0, 0] = mean
    return maps


def rows_of_squares(transform: RingTransform, power: Tensor, folded: Tensor | None) -> Tensor:
    """Ring power of squares summed over channels, (N, P) -> (N, n_rings).

    Where they are not folded the squared mean follows as a last column, (N, n_rings + 1).
    """
    if folded is None:
        return transform.mean_rings(power)
    with full_precision(power.device):
        return power @ folded


class MapPower:
    """The spectrum of one value, and what is predicted from the power of its channels.

    Args:
        size: (H, W) of the maps, pixels.
        edges: edge treatment.
        state: number of the state of the value.
        filters: what is predicted from it.
        device: where the maps are.
    """

    def __init__(
        self,
        size: tuple[int, int],
        edges: str,
        state: int,
        filters: Sequence[Filter],
        device: torch.device,
    ) -> None:
        self.size, self.state = size, state
        self.transform = ring_transform(*size, edges, device, planes=True)
        # Without a prediction the fastest transform of this size will do.
        self._plain = ring_transform(*size, edges, device) if not filters else None
        self._filters: list[_Prepared] = []
        self._padded: dict[tuple[int, int], list[_Prepared]] = {}
        for own in filters:
            grid = padded_size(size, own.stride)
            prepared = _Prepared(own, grid, edges, device)
            if grid == size:
                self._filters.append(prepared)
            else:
                self._padded.setdefault(grid, []).append(prepared)
        self._needs_sums = any(own.coherent is not None for own in filters)

    def rows(self, maps: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Ring power and squared mean of each image, and its ring power in predicted states.

        Args:
            maps: (N, C, H, W).

        Returns:
            (N, n_rings + 1) as :class:`natstats.spectra.transforms.RingTransform` gives them but
            summed over channels, and (N, n_rings) by number of the state.
        """
        if self._plain is not None:
            return self._plain(maps) * maps.shape[1], {}
        found: dict[int, list[Tensor]] = {}
        for piece in in_pieces(maps, 4):
            for state, power in self._piece(piece):
                found.setdefault(state, []).append(power)
        folded = {own.state: own.folded for own in self._prepared()}
        rows = {
            state: rows_of_squares(self.transform, torch.cat(power), folded.get(state))
            for state, power in found.items()
        }
        own = rows.pop(self.state)
        return own, {state: one[:, : -1 if folded[state] is None else None] for state, one in
                     rows.items()}  # fmt: skip

    def _prepared(self) -> Iterator[_Prepared]:
        yield from self._filters
        for filters in self._padded.values():
            yield from filters

    def _piece(self, maps: Tensor) -> list[tuple[int, Tensor]]:
        """Weighted squares of a few images by state, (n, P)."""
        transform = self.transform
        with full_precision(maps.device):
            plane = transform.plane(maps)
            found: list[tuple[int, Tensor]] = []
            for grid, filters in self._padded.items():
                # A tapered map ends in zeros, so that more can be added.
                tapered = tapered_maps(plane, self.size)
                wide = torch.view_as_real(torch.fft.rfft2(tapered, s=grid)).flatten(2)
                found += self._filtered(wide, filters)
            raw = torch.view_as_real(plane).flatten(2)
            return [*found, *self._filtered(raw, self._filters, self.state)]

    def _filtered(
        self, raw: Tensor, filters: Sequence[_Prepared], state: int | None = None
    ) -> list[tuple[int, Tensor]]:
        sums = raw.sum(1).square_() if self._needs_sums else None
        squares = raw.square_()
        total = squares.sum(1)
        found = [] if state is None else [(state, total)]
        found += [(own.state, own.power(squares, total, sums)) for own in filters]
        return found


def padded_size(size: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    """The smallest size from this one up that the stride divides.

    >>> padded_size((55, 56), (2, 2))
    (56, 56)
    """
    height, width = (-(-side // by) * by for side, by in zip(size, stride, strict=True))
    return height, width


def in_pieces(maps: Tensor, n_copies: int = 1) -> Sequence[Tensor]:
    """Maps cut into pieces of whole images that stay in cache."""
    budget = _PIECE_BYTES.get(maps.device.type, _PIECE_BYTES["cuda"])
    bytes_of_image = 4 * n_copies * max(1, maps[0].numel()) if len(maps) else 1
    return torch.split(maps, max(1, budget // bytes_of_image))

"""A convolution without borders: the kernels on a torus, applied to the tapered maps themselves.

Its power is that of the convolution's output, with all correlations between channels. Only what the
padding does at the borders of the maps is missing.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from natstats.spectra.edges import axis_taper
from natstats.spectra.precision import full_precision
from natstats.spectra.transforms import ring_transform
from natstats.theory.filters import in_pieces, padded_size, tapered_maps

__all__ = ["CircularConvolution"]


class CircularConvolution:
    """Ring power of maps after a convolution on the torus.

    Args:
        size: (H, W) of the maps, pixels.
        edges: edge treatment of the maps, before the convolution.
        weight: of the convolution, (O, I / groups, kh, kw).
        stride: pixels from one output to the next, along each axis.
        dilation: pixels between taps, along each axis.
        groups: of the convolution.
        device: where the maps are.
    """

    def __init__(
        self,
        size: tuple[int, int],
        edges: str,
        weight: Tensor,
        stride: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
        device: torch.device,
    ) -> None:
        self._size, self._grid = size, padded_size(size, stride)
        self._transform = ring_transform(*size, edges, device, planes=True)
        self._weight = weight.detach().to(device, torch.float32)
        self._stride, self._dilation, self._groups = stride, dilation, groups
        self.size = self._grid[0] // stride[0], self._grid[1] // stride[1]
        self._rings = ring_transform(*self.size, "none", device)
        self._taper: Tensor | None = None
        if stride != (1, 1) and edges != "periodic":
            tapers = [torch.from_numpy(axis_taper(side, edges)) for side in self.size]
            self._taper = torch.outer(*tapers).to(device, torch.float32)

    def rows(self, maps: Tensor) -> Tensor:
        """Ring power of each image, summed over channels, (N, C, H, W) -> (N, n_rings)."""
        return torch.cat([self._piece(piece) for piece in in_pieces(maps, 8)])

    def _piece(self, maps: Tensor) -> Tensor:
        with full_precision(maps.device, convolutions=True):
            tapered = tapered_maps(self._transform.plane(maps), self._size)
            # A tapered map ends in zeros, so that more can be added.
            more = [whole - side for whole, side in zip(self._grid, self._size, strict=True)]
            tapered = functional.pad(tapered, (0, more[1], 0, more[0]))
            reach = [
                (side - 1) * by
                for side, by in zip(self._weight.shape[2:], self._dilation, strict=True)
            ]
            wrapped = _wrapped(_wrapped(tapered, 2, reach[0]), 3, reach[1])
            made = functional.conv2d(
                wrapped,
                self._weight,
                stride=self._stride,
                dilation=self._dilation,
                groups=self._groups,
            )
            if self._taper is not None:
                # Where a stride leaves pixels out, the mean of the others need not be zero.
                mean = made.sum((2, 3), keepdim=True) / self._taper.sum()
                made = made - mean * self._taper
        # The plane is normalised already: the division by the number of pixels is undone.
        return self._rings(made)[:, :-1] * (made.shape[1] * self._grid[0] * self._grid[1])


def _wrapped(maps: Tensor, axis: int, n: int) -> Tensor:
    """Maps with `n` more pixels along an axis, from the other end: half of them at either end.

    Kernels may reach farther than the maps are long.
    """
    length = maps.shape[axis]
    index = torch.arange(-(n // 2), length + n - n // 2, device=maps.device) % length
    return maps.index_select(axis, index) if n else maps

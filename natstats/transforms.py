"""Ring power of batches of maps, fast: the numerical core of natstats.

Power is a density: P(k) = |sum_x w(x) (u(x) - m) exp(-2 pi i k x)|^2 / sum_x w(x)^2, with w the
taper and m the w-weighted mean of the map, so that without a taper the mean of P over all
frequencies of the plane is the variance of the map. P is averaged over channels, then over rings.

Two ways lead to the same numbers (a test holds them together):

* Products with a real orthonormal Fourier matrix along each axis. For given |ky|, |kx| the four
  products of sines and cosines span the same space as the four complex exponentials, and a ring is
  closed under the signs of ky and kx, so the ring sums of their squares equal those of |FFT|^2.
  The taper is folded into the matrices. Best for small maps.
* A real FFT, in pieces that stay in cache, for large maps and for the periodic component.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats import checks
from natstats.edges import EDGES, axis_taper, boundary_laplacian
from natstats.radial import rings

__all__ = ["RingTransform", "full_precision", "ring_transform"]

LARGEST_KRON = 64
"""Pixels of a map up to which one product with kron(R_y, R_x) is the fastest way."""

LARGEST_MATRIX_SIDE = 64
"""Longest side of a map up to which two matrix products are faster than an FFT."""

PIECE_BYTES = 1 << 19
"""Size of the pieces that a large batch is cut into, so that intermediate results stay in cache."""


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Within this context, products on `device` are plain float32: no autocast, no TF32.

    A spectrum spans many decades, and the bits that reduced precision drops are the low ones.
    """
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        if precision != "highest":
            torch.set_float32_matmul_precision(precision)


def _fourier_matrix(n: int, edges: str) -> NDArray[np.float64]:
    """Real orthonormal Fourier matrix of an axis times its normalised taper, (n, n).

    Rows: the constant, then cosine and sine of 1, 2, ... cycles, and for even n the alternating
    row. The row of index r has frequency (r + 1) // 2.
    """
    cycles = (np.arange(n) + 1) // 2
    phase = 2 * np.pi * np.outer(cycles, np.arange(n)) / n
    matrix = np.sqrt(2.0 / n) * np.where(
        (np.arange(n) % 2 == 1)[:, None], np.cos(phase), np.sin(phase)
    )
    matrix[0] = 1 / np.sqrt(n)
    if n % 2 == 0:
        matrix[-1] = np.where(np.arange(n) % 2 == 0, 1.0, -1.0) / np.sqrt(n)
    taper = axis_taper(n, edges)
    return matrix * (taper * np.sqrt(n / np.sum(taper**2)))


class RingTransform:
    """The ring power of maps of one size, with everything that can be prepared once.

    Args:
        height: H, pixels, at least 5.
        width: W, pixels, at least 5.
        edges: edge treatment, see :mod:`natstats.edges`.
        device: where the maps will be.

    Raises:
        UsageError: a side below 5 pixels, or an unknown edge treatment.
    """

    def __init__(self, height: int, width: int, edges: str, device: torch.device) -> None:
        self.rings = rings(height, width)
        self.edges = checks.one_of("edges", edges, EDGES)
        self.shape = (height, width)
        self.device = device
        self.by_matrix = edges != "periodic" and max(height, width) <= LARGEST_MATRIX_SIDE
        # float64 on the way in, float32 for the maps: constants carry no rounding of their own.
        if self.by_matrix:
            self._prepare_matrix()
        else:
            self._prepare_fft()

    def _tensor(self, array: NDArray[np.floating] | NDArray[np.complexfloating]) -> Tensor:
        dtype = torch.complex64 if np.iscomplexobj(array) else torch.float32
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)

    def _ring_matrix(self, index: NDArray[np.int64], members: NDArray[np.float64]) -> Tensor:
        """Weights that average power at (P,) frequencies over rings, (P, n_rings)."""
        matrix = np.zeros((index.size, self.rings.n_rings))
        inside = index.ravel() >= 0
        matrix[np.flatnonzero(inside), index.ravel()[inside]] = members.ravel()[inside]
        return self._tensor(matrix / self.rings.n_members)

    def _prepare_matrix(self) -> None:
        height, width = self.shape
        left, right = _fourier_matrix(height, self.edges), _fourier_matrix(width, self.edges)
        # What a constant map of weighted mean 1 turns into, in units of its own DC coefficient.
        constant = np.outer(left.sum(1) / left[0].sum(), right.sum(1) / right[0].sum())
        rows, columns = (np.arange(height) + 1) // 2, (np.arange(width) + 1) // 2
        index = self.rings.index[np.ix_(rows, columns)]
        self._ring = self._ring_matrix(index, np.ones(index.shape))
        if height * width <= LARGEST_KRON:
            whole = np.kron(left, right)
            # The mean is removed in the matrix itself: one product does it all.
            whole -= np.outer(constant.ravel(), whole[0]) * (np.arange(len(whole)) > 0)[:, None]
            self._whole: Tensor | None = self._tensor(whole.T)
        else:
            self._whole = None
            self._left, self._right = self._tensor(left), self._tensor(right.T)
        constant[0, 0] = 0.0  # leaves DC itself in place, where no ring looks but `offset` does
        self._constant = self._tensor(constant.ravel())
        self._offset_scale = 1.0 / (left[0].sum() * right[0].sum()) ** 2

    def _prepare_fft(self) -> None:
        height, width = self.shape
        half = width // 2 + 1
        tapers = [axis_taper(n, self.edges) for n in self.shape]
        window = np.outer(*tapers) / np.sqrt(np.outer(*tapers).__pow__(2).sum())
        constant = np.fft.rfft2(window)
        members = np.full((height, half), 2.0)
        members[:, 0] = 1.0
        if width % 2 == 0:
            members[:, -1] = 1.0
        # Real and imaginary part stand side by side, each with its share of the ring.
        index = np.repeat(self.rings.index[:, :half].reshape(-1, 1), 2, axis=1)
        self._ring = self._ring_matrix(index, np.repeat(members.reshape(-1, 1), 2, axis=1))
        self._offset_scale = 1.0 / constant[0, 0].real ** 2
        constant /= constant[0, 0]
        constant[0, 0] = 0.0
        self._constant = self._tensor(constant.view(np.float64).ravel())
        self._window = self._tensor(window)
        if self.edges == "periodic":
            scale = np.sqrt(height * width)
            self._laplacian = self._tensor(
                1 / (scale * boundary_laplacian(height, width)[:, :half])
            )
            self._rows = self._tensor(1 - np.exp(2j * np.pi * np.fft.fftfreq(height)))
            self._columns = self._tensor(1 - np.exp(2j * np.pi * np.fft.rfftfreq(width)))

    def coefficients(self, maps: Tensor) -> Tensor:
        """Real Fourier coefficients of float32 `maps` (M, H, W): (M, P), DC first, differentiable.

        Their squares, weighted by the ring matrix, are ring power; the weighted mean is removed
        from all but DC.
        """
        if self.by_matrix:
            if self._whole is not None:
                return maps.reshape(len(maps), -1) @ self._whole
            half = maps.reshape(-1, self.shape[1]) @ self._right
            raw = torch.matmul(self._left, half.view_as(maps)).view(len(maps), -1)
        else:
            transform = torch.fft.rfft2(maps * self._window)
            if self.edges == "periodic":
                transform = transform - self._smooth(maps)
            raw = torch.view_as_real(transform).view(len(maps), -1)
        if self.edges in ("none", "periodic"):
            return raw
        return raw - raw[:, :1] * self._constant

    def _smooth(self, maps: Tensor) -> Tensor:
        """Transform of the smooth component of Moisan (2011), (M, H, W // 2 + 1)."""
        rows = torch.fft.rfft(maps[:, -1, :] - maps[:, 0, :])
        columns = torch.fft.fft(maps[:, :, -1] - maps[:, :, 0])
        jumps = rows[:, None, :] * self._rows[:, None] + columns[:, :, None] * self._columns
        return jumps * self._laplacian

    def __call__(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Ring power and squared weighted mean of a batch of maps, averaged over channels.

        Args:
            maps: (N, C, H, W), any floating dtype; cast to float32.

        Returns:
            Ring power (N, n_rings) and squared mean (N,), float32.
        """
        n_images, n_channels = maps.shape[:2]
        with full_precision(maps.device):
            if torch.is_grad_enabled() and maps.requires_grad:
                flat = maps.float().reshape(-1, *self.shape)
                squares = self.coefficients(flat).square().view(n_images, n_channels, -1).mean(1)
            else:
                squares = self._mean_squares(maps.detach())
            return squares @ self._ring, squares[:, 0] * self._offset_scale

    def _mean_squares(self, maps: Tensor) -> Tensor:
        """Mean over channels of the squared coefficients, (N, P), piece by piece."""
        n_images, n_channels = maps.shape[:2]
        per_piece = max(1, PIECE_BYTES // (4 * self.shape[0] * self.shape[1]))
        squares = []
        if maps.device.type != "cpu" or per_piece >= n_channels:
            step = n_images if maps.device.type != "cpu" else per_piece // n_channels
            for piece in maps.split(step):
                flat = self.coefficients(piece.float().reshape(-1, *self.shape))
                squares.append(flat.square_().view(len(piece), n_channels, -1).mean(1))
        else:
            for image in maps:
                total = sum(
                    self.coefficients(piece.float()).square_().sum(0)
                    for piece in image.split(per_piece)
                )
                squares.append((total / n_channels)[None])
        return torch.cat(squares)


@lru_cache(maxsize=64)
def ring_transform(height: int, width: int, edges: str, device: torch.device) -> RingTransform:
    """Return the prepared transform of (H, W) maps on `device`, made once."""
    with torch.inference_mode(False), torch.no_grad():
        return RingTransform(height, width, edges, device)

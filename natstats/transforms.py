"""Ring power of batches of maps, fast: the numerical core of natstats.

Power is a density: P(k) = |sum_x w(x) (u(x) - m) exp(-2 pi i k x)|^2 / sum_x w(x)^2, with w the
taper and m the w-weighted mean of the map, so that without a taper the mean of P over all
frequencies of the plane is the variance of the map. P is averaged over channels, then over rings.

The mean is removed after the transform: F - F(0) W / W(0), with W the transform of w, is a step of
rank one on a piece that is still in cache, where removing it before would be another pass.

Two ways lead to the same numbers (a test holds them together):

* A real FFT, in pieces of about the size of the cache, every step in place.
* For the smallest maps one product with the real orthonormal Fourier matrix of the whole map,
  taper and removal of the mean included. For given |ky|, |kx| the four products of sines and
  cosines span the same space as the four complex exponentials, and a ring is closed under the
  signs of ky and kx, so the ring sums of their squares equal those of |FFT|^2.

Products with one matrix per axis were measured too: on the CPUs at hand they were no faster than
the FFT in pieces at any size from 14 to 112.
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

LARGEST_PRODUCT = 64
"""Pixels of a map up to which one matrix product is faster than an FFT."""

PIECE_BYTES = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Size of the pieces that a large batch is cut into: a CPU's cache, or what a GPU likes to have."""


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
    rows, pixels = np.arange(n)[:, None], np.arange(n)
    phase = 2 * np.pi * ((rows + 1) // 2) * pixels / n
    matrix = np.sqrt(2.0 / n) * np.where(rows % 2 == 1, np.cos(phase), np.sin(phase))
    matrix[0] = 1 / np.sqrt(n)
    if n % 2 == 0:
        matrix[-1] = np.cos(np.pi * pixels) / np.sqrt(n)
    taper = axis_taper(n, edges)
    return np.asarray(matrix * (taper * np.sqrt(n / np.sum(taper**2))))


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
        self.by_product = edges != "periodic" and height * width <= LARGEST_PRODUCT
        # Prepared in float64, used in float32: constants carry no rounding of their own.
        if self.by_product:
            self._prepare_product()
        else:
            self._prepare_fft()

    def _tensor(self, array: NDArray[np.floating] | NDArray[np.complexfloating]) -> Tensor:
        dtype = torch.complex64 if np.iscomplexobj(array) else torch.float32
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)

    def _ring_matrix(self, index: NDArray[np.int64], members: NDArray[np.floating]) -> Tensor:
        """Weights that average power at (P,) frequencies over rings, (P, n_rings)."""
        matrix = np.zeros((index.size, self.rings.n_rings))
        inside = np.flatnonzero(index >= 0)
        matrix[inside, index.ravel()[inside]] = members.ravel()[inside]
        return self._tensor(matrix / self.rings.n_members)

    def _prepare_product(self) -> None:
        height, width = self.shape
        left, right = _fourier_matrix(height, self.edges), _fourier_matrix(width, self.edges)
        matrix = np.kron(left, right)
        # What a constant map of weighted mean 1 turns into, in units of its own DC coefficient;
        # DC itself stays, where no ring looks but the offset does.
        constant = matrix.sum(1) / matrix[0].sum()
        constant[0] = 0.0
        self._matrix = self._tensor((matrix - np.outer(constant, matrix[0])).T)
        rows, columns = (np.arange(height) + 1) // 2, (np.arange(width) + 1) // 2
        index = self.rings.index[np.ix_(rows, columns)]
        self._ring = self._ring_matrix(index, np.ones(index.shape))
        self._offset_scale = 1.0 / matrix[0].sum() ** 2

    def _prepare_fft(self) -> None:
        height, width = self.shape
        half = width // 2 + 1
        window = np.outer(*(axis_taper(n, self.edges) for n in self.shape))
        window /= np.sqrt(np.sum(window**2))
        constant = np.fft.rfft2(window)
        members = np.full((height, half), 2.0)
        members[:, 0] = 1.0
        if width % 2 == 0:
            members[:, -1] = 1.0
        # Real and imaginary part stand side by side, each with its share of the ring.
        index = np.repeat(self.rings.index[:, :half].ravel(), 2)
        self._ring = self._ring_matrix(index, np.repeat(members.ravel(), 2))
        self._offset_scale = 1.0 / constant[0, 0].real ** 2
        constant /= constant[0, 0]
        constant[0, 0] = 0.0
        self._constant = self._tensor(constant.view(np.float64).ravel())
        self._window = self._tensor(window)
        if self.edges == "periodic":
            scale = np.sqrt(height * width)
            inverse = 1 / (scale * boundary_laplacian(height, width)[:, :half])
            self._inverse_laplacian = self._tensor(inverse)
            self._rows = self._tensor(1 - np.exp(2j * np.pi * np.fft.fftfreq(height)))
            self._columns = self._tensor(1 - np.exp(2j * np.pi * np.fft.rfftfreq(width)))

    def _coefficients(self, maps: Tensor) -> Tensor:
        """Real Fourier coefficients of float32 `maps` (M, H, W): (M, P), DC first.

        The sums of their squares over a ring, weighted by the ring matrix, are its power. The
        weighted mean is removed from all but DC.
        """
        if self.by_product:
            return maps.reshape(len(maps), -1) @ self._matrix
        transform = torch.fft.rfft2(maps * self._window)
        if self.edges == "periodic":
            transform = transform - self._smooth(maps)
        raw = torch.view_as_real(transform).view(len(maps), -1)
        if self.edges in ("none", "periodic"):  # the constant sits at DC alone
            return raw
        if raw.requires_grad:
            return torch.addr(raw, raw[:, 0], self._constant, alpha=-1)
        return raw.addr_(raw[:, 0].clone(), self._constant, alpha=-1)

    def _smooth(self, maps: Tensor) -> Tensor:
        """Transform of the smooth component of Moisan (2011), (M, H, W // 2 + 1)."""
        rows = torch.fft.rfft(maps[:, -1, :] - maps[:, 0, :])
        columns = torch.fft.fft(maps[:, :, -1] - maps[:, :, 0])
        jumps = rows[:, None, :] * self._rows[:, None] + columns[:, :, None] * self._columns
        smooth: Tensor = jumps * self._inverse_laplacian
        return smooth

    def __call__(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Ring power and squared weighted mean of a batch of maps, averaged over channels.

        Args:
            maps: (N, C, H, W), any floating dtype; cast to float32.

        Returns:
            Ring power (N, n_rings) and squared mean (N,), float32.
        """
        with full_precision(maps.device):
            if torch.is_grad_enabled() and maps.requires_grad:
                coefficients = self._coefficients(maps.float().reshape(-1, *self.shape))
                squares = coefficients.square().view(*maps.shape[:2], -1).mean(1)
            else:
                squares = self._mean_squares(maps.detach())
            return squares @ self._ring, squares[:, 0] * self._offset_scale

    def _mean_squares(self, maps: Tensor) -> Tensor:
        """Mean over channels of the squared coefficients, (N, P), piece by piece, in place."""
        n_images, n_channels = maps.shape[:2]
        budget = PIECE_BYTES.get(maps.device.type, PIECE_BYTES["cuda"])
        maps_per_piece = max(1, budget // (4 * self.shape[0] * self.shape[1]))
        squares = torch.empty(n_images, len(self._ring), device=maps.device)
        if maps_per_piece >= n_channels:
            step = maps_per_piece // n_channels
            for piece, target in zip(
                torch.split(maps, step), torch.split(squares, step), strict=True
            ):
                flat = self._coefficients(piece.float().reshape(-1, *self.shape))
                torch.mean(flat.square_().view(*piece.shape[:2], -1), dim=1, out=target)
            return squares
        for image, target in zip(maps, squares, strict=True):
            target.zero_()
            for piece in torch.split(image, maps_per_piece):
                target += self._coefficients(piece.float()).square_().sum(0)
        return squares.div_(n_channels)


@lru_cache(maxsize=64)
def ring_transform(height: int, width: int, edges: str, device: torch.device) -> RingTransform:
    """Return the prepared transform of (H, W) maps on `device`, made once.

    Its tensors are ordinary ones, also when inference mode is on, so that it serves both.
    """
    with torch.inference_mode(False), torch.no_grad():
        return RingTransform(height, width, edges, device)

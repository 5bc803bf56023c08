"""Ring power of batches of maps, fast: the numerical core of natstats.

Power is a density: P(k) = |sum_x w(x) (u(x) - m) exp(-2 pi i k x)|^2 / sum_x w(x)^2, with w the
taper and m the w-weighted mean of the map, so that without a taper the mean of P over all
frequencies of the plane is the variance of the map. P is averaged over channels, then over rings.

The mean is removed after the transform: F - F(0) W / W(0), with W the transform of w, is a step of
rank one on a piece that is still in cache. To remove it before would take another pass over it.

Three ways lead to the same numbers (tests compare them), each the fastest at its sizes:

* small maps: one product with the real orthonormal Fourier matrix of the whole map;
* medium maps: a product with the real Fourier matrix of each axis;
* large maps, and the periodic component: a real FFT.

The taper is folded into the matrices. For given |ky|, |kx| the four products of sines and cosines
span the same space as the four complex exponentials, and a ring is closed under the signs of ky and
kx, so the ring sums of their squares equal those of |FFT|^2. Large batches are cut into pieces that
stay in cache, and every step on a piece is done in place.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats import checks
from natstats.spectra.edges import EDGES, axis_taper, boundary_laplacian
from natstats.spectra.frequencies import rings
from natstats.spectra.precision import full_precision

__all__ = ["RingTransform", "ring_transform"]

LARGEST_WHOLE = 100
"""Pixels of a map up to which one product with the matrix of the whole map is fastest."""

LARGEST_AXIS = 24
"""Longest side up to which two products with the matrices of the axes are faster than an FFT."""

LARGEST_RING_MATRIX = 68_000_000
"""Most entries of the matrix of frequencies by rings: that of 512 x 512 maps. It grows with the
third power of the side; larger maps add the power of every frequency to the sum of its ring."""

PIECE_BYTES = {"cpu": 1 << 21, "cuda": 1 << 26}
"""Size of the pieces that a large batch is cut into: a CPU's cache, or what keeps a GPU busy."""


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
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        device: where the maps will be.
        planes: keep to the FFT at all sizes, for :meth:`plane`.
        dtype: type of the computation, float32 or float64.

    Raises:
        UsageError: a side below 5 pixels, or an unknown edge treatment.
    """

    def __init__(
        self, height: int, width: int, edges: str, device: torch.device, planes: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.rings = rings(height, width)
        self.edges = checks.one_of("edges", edges, EDGES)
        self.shape = (height, width)
        self.device, self.dtype = device, dtype
        self._ring: Tensor | None = None  # none where rings are summed frequency by frequency
        # Prepared in float64, used in `dtype`: constants carry no rounding of their own.
        if planes or edges == "periodic" or max(height, width) > LARGEST_AXIS:
            self._coefficients, self._adjoint = self._by_fft, self._back_from_fft
            self._prepare_fft()
        else:
            whole = height * width <= LARGEST_WHOLE
            if whole:
                self._coefficients, self._adjoint = self._by_whole_matrix, self._back_from_whole
            else:
                self._coefficients, self._adjoint = self._by_axis_matrices, self._back_from_axes
            self._prepare_matrices(whole)

    def _tensor(self, array: NDArray[np.floating] | NDArray[np.complexfloating]) -> Tensor:
        dtype = self.dtype.to_complex() if np.iscomplexobj(array) else self.dtype
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, dtype)

    def _ring_matrix(
        self, index: NDArray[np.int64], members: NDArray[np.floating], dc_of_one: float
    ) -> Tensor:
        """Weights that average power at (P,) frequencies over rings, (P, n_rings + 1).

        The last column turns the power at DC into the squared mean of the map, where `dc_of_one`
        is the power at DC of a map of ones.
        """
        kind = "float64" if self.dtype == torch.float64 else "float32"
        matrix = np.zeros((index.size, self.rings.n_rings + 1), kind)
        inside = np.flatnonzero(index >= 0)
        ring = index.ravel()[inside]
        matrix[inside, ring] = members.ravel()[inside] / self.rings.n_members[ring]
        matrix[0, -1] = 1.0 / dc_of_one
        return self._tensor(matrix)

    def _prepare_sums(
        self, index: NDArray[np.int64], members: NDArray[np.floating], dc_of_one: float
    ) -> None:
        """The same weights without the matrix: ring and weight of each frequency, (P / 2,)."""
        n_rings = self.rings.n_rings
        place = np.where(index < 0, n_rings + 1, index).ravel()
        weight = members.ravel() / np.append(self.rings.n_members, [1, 1])[place]
        place[0], weight[0] = n_rings, 1.0 / dc_of_one
        self._place = torch.from_numpy(place).to(self.device)
        self._weight = self._tensor(weight)

    def _prepare_matrices(self, whole: bool) -> None:
        height, width = self.shape
        rows, columns = _fourier_matrix(height, self.edges), _fourier_matrix(width, self.edges)
        # What a constant map turns into, in units of its own DC coefficient. DC itself stays: no
        # ring holds it, but the offset is read from it.
        constant = np.outer(columns.sum(1) / columns[0].sum(), rows.sum(1) / rows[0].sum())
        constant[0, 0] = 0.0
        dc_of_one = float(rows[0].sum() * columns[0].sum()) ** 2
        # Coefficients are in the order (kx, ky), as the products leave them.
        places = (np.arange(height) + 1) // 2, (np.arange(width) + 1) // 2
        index = self.rings.index[np.ix_(*places)].T
        self._ring = self._ring_matrix(index, np.ones(index.shape), dc_of_one)
        if whole:
            matrix = np.einsum("py,qx->qpyx", rows, columns).reshape(width * height, -1)
            matrix -= np.outer(constant.ravel(), matrix[0])
            self._matrix = self._tensor(matrix.T)
        else:
            self._rows, self._columns = self._tensor(rows.T), self._tensor(columns)
            self._constant = self._tensor(constant[:, None, :])
            self._first = self._tensor(np.eye(1, height))

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
        index = self.rings.index[:, :half]
        dc_of_one = float(constant[0, 0].real) ** 2
        if 2 * index.size * (self.rings.n_rings + 1) > LARGEST_RING_MATRIX:
            self._prepare_sums(index, members, dc_of_one)
        else:
            # Real and imaginary part stand side by side, each with its share of the ring.
            both = np.repeat(index.ravel(), 2), np.repeat(members.ravel(), 2)
            self._ring = self._ring_matrix(both[0], both[1], dc_of_one)
        constant /= constant[0, 0]
        constant[0, 0] = 0.0
        self._constant = self._tensor(np.ascontiguousarray(constant).view(np.float64).ravel())
        self._window = self._tensor(window)
        self._once = self._tensor(1 / members[0])
        if self.edges == "periodic":
            inverse = 1 / (np.sqrt(height * width) * boundary_laplacian(height, width)[:, :half])
            self._inverse_laplacian = self._tensor(inverse)
            self._row_jumps = self._tensor(1 - np.exp(2j * np.pi * np.fft.fftfreq(height)))
            self._column_jumps = self._tensor(1 - np.exp(2j * np.pi * np.fft.rfftfreq(width)))

    def _by_whole_matrix(self, maps: Tensor) -> Tensor:
        """Real Fourier coefficients of maps, (N, C, 1, P), DC first.

        The weighted mean is removed from all coefficients but DC, as in the other two ways.

        Args:
            maps: (N, C, H, W).
        """
        coefficients = maps.reshape(-1, len(self._matrix)) @ self._matrix
        return coefficients.view(*maps.shape[:2], 1, -1)

    def _back_from_whole(self, coefficients: Tensor) -> Tensor:
        """The adjoint of :meth:`_by_whole_matrix`, for its gradient; the other ways have theirs."""
        maps = coefficients.flatten(0, 2) @ self._matrix.T
        return maps.view(*coefficients.shape[:2], *self.shape)

    def _by_axis_matrices(self, maps: Tensor) -> Tensor:
        """Coefficients as the products leave them: (N, C, W, H) on memory of (W, N, C, H)."""
        height, width = self.shape
        half = self._columns @ maps.reshape(-1, width).T  # (W, N C H)
        whole = (half.view(-1, height) @ self._rows).view(width, -1, height)  # (W, N C, H)
        whole = _less(whole, whole[:1, :, :1], self._constant)
        return whole.view(width, *maps.shape[:2], height).permute(1, 2, 0, 3)

    def _back_from_axes(self, coefficients: Tensor) -> Tensor:
        height, width = self.shape
        whole = coefficients.permute(2, 0, 1, 3).reshape(width, -1, height)
        mean = (whole * self._constant).sum((0, 2))
        # Out of place: a second derivative may need what was there.
        whole = torch.cat([whole[:1] - mean[:, None] * self._first, whole[1:]])
        half = (whole.view(-1, height) @ self._rows.T).view(width, -1)
        return (self._columns.T @ half).T.reshape(*coefficients.shape[:2], height, width)

    def _by_fft(self, maps: Tensor) -> Tensor:
        """Coefficients (N, C, 1, 2 H (W // 2 + 1)), real and imaginary part side by side."""
        transform = torch.fft.rfft2(maps * self._window)
        if self.edges == "periodic":
            transform = transform - self._smooth(maps)
        raw = torch.view_as_real(transform).flatten(2)
        if self.edges not in ("none", "periodic"):  # there a constant sits at DC alone
            raw = _less(raw, raw[..., :1], self._constant)
        return raw.unsqueeze(2)

    def _back_from_fft(self, coefficients: Tensor) -> Tensor:
        height, width = self.shape
        raw = coefficients.squeeze(2)
        if self.edges != "none":
            mean = (raw * self._constant).sum(-1, keepdim=True)
            raw = torch.cat([raw[..., :1] - mean, raw[..., 1:]], dim=-1)
        plane = torch.view_as_complex(raw.reshape(*raw.shape[:2], height, width // 2 + 1, 2))
        # The inverse counts every column inside the half plane twice, the sum over it once.
        maps: Tensor = torch.fft.irfft2(plane * self._once, s=self.shape, norm="forward")
        return maps * self._window

    def _squares(self, coefficients: Tensor) -> Tensor:
        """Squares summed over channels, (N, P); in place where no gradient needs what was there."""
        squares = coefficients.square() if coefficients.requires_grad else coefficients.square_()
        return squares.sum(1).flatten(1)

    def _smooth(self, maps: Tensor) -> Tensor:
        """Transform of the smooth component of Moisan (2011), (N, C, H, W // 2 + 1)."""
        rows = torch.fft.rfft(maps[..., -1, :] - maps[..., 0, :])
        columns = torch.fft.fft(maps[..., -1] - maps[..., 0])
        jumps = rows[..., None, :] * self._row_jumps[:, None]
        jumps = jumps + columns[..., None] * self._column_jumps
        smooth: Tensor = jumps * self._inverse_laplacian
        return smooth

    def __call__(self, maps: Tensor) -> Tensor:
        """Ring power and squared weighted mean of a batch of maps, averaged over channels.

        Args:
            maps: (N, C, H, W), any floating dtype; cast to that of the transform.

        Returns:
            (N, n_rings + 1), in that dtype: the ring power, then the squared mean.
        """
        if len(maps) == 0:
            return maps.new_zeros(0, self.rings.n_rings + 1, dtype=self.dtype)
        with full_precision(maps.device):
            if not (torch.is_grad_enabled() and maps.requires_grad):
                if self._ring is None:  # images so large that each goes by itself
                    rows = [self._mean_rings(self._in_pieces(one[None])) for one in maps.detach()]
                    return torch.cat(rows) / maps.shape[1]
                squares = self._in_pieces(maps.detach())
            elif self.edges == "periodic":
                squares = self._squares(self._coefficients(maps.to(self.dtype)))
            else:
                squares = _SummedPower.apply(maps.to(self.dtype), self)
            return self._mean_rings(squares) / maps.shape[1]

    def _mean_rings(self, squares: Tensor) -> Tensor:
        """Mean over rings and squared mean of the map, (N, P) -> (N, n_rings + 1)."""
        if self._ring is not None:
            return squares @ self._ring
        # In float64 where there is one: thousands of summands, in an order that may vary.
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        power = squares.view(len(squares), -1, 2).sum(2) * self._weight
        sums = torch.zeros(len(squares), self.rings.n_rings + 2, dtype=dtype, device=self.device)
        return sums.index_add(1, self._place, power.to(dtype))[:, :-1].to(self.dtype)

    def plane(self, maps: Tensor) -> Tensor:
        """The transform of each map, whose squared modulus is its power.

        The mean is removed from all frequencies but DC, where it stays.

        Args:
            maps: (N, C, H, W), any floating dtype; cast to that of the transform.

        Returns:
            (N, C, H, W // 2 + 1), complex, the half plane of a real FFT.
        """
        with full_precision(maps.device):
            raw = self._by_fft(maps.to(self.dtype))
        shape = *maps.shape[:2], self.shape[0], self.shape[1] // 2 + 1, 2
        return torch.view_as_complex(raw.reshape(shape))

    def mean_rings(self, squares: Tensor) -> Tensor:
        """Mean over rings, and squared mean, from squared parts of a plane.

        Args:
            squares: (N, 2 H (W // 2 + 1)).

        Returns:
            (N, n_rings + 1).
        """
        with full_precision(squares.device):
            return self._mean_rings(squares)

    def _power(self, maps: Tensor) -> Tensor:
        """Squares summed over channels of maps that need no gradient, (N, P)."""
        return self._squares(self._coefficients(maps.to(self.dtype)))

    def _in_pieces(self, maps: Tensor) -> Tensor:
        """Sums over channels of the squared coefficients, (N, P), in pieces that stay in cache."""
        n_channels = maps.shape[1]
        budget = PIECE_BYTES.get(maps.device.type, PIECE_BYTES["cuda"])
        maps_per_piece = max(1, budget // (4 * self.shape[0] * self.shape[1]))
        if maps_per_piece >= len(maps) * n_channels:
            return self._power(maps)
        if maps_per_piece >= n_channels:
            pieces = torch.split(maps, maps_per_piece // n_channels)
            return torch.cat([self._power(piece) for piece in pieces])
        n_squares = 2 * len(self._place) if self._ring is None else len(self._ring)
        squares = torch.zeros(len(maps), n_squares, dtype=self.dtype, device=maps.device)
        for image, target in zip(maps, squares, strict=True):
            for piece in torch.split(image[None], maps_per_piece, dim=1):
                target += self._power(piece)[0]
        return squares


def _less(raw: Tensor, factor: Tensor, constant: Tensor) -> Tensor:
    """Return raw - factor * constant, in place where no gradient needs what was there."""
    if raw.requires_grad:
        return raw - factor * constant
    # The factor is a part of raw, and is cloned before raw changes under it.
    return raw.addcmul_(factor.clone(), constant, value=-1)


class _SummedPower(torch.autograd.Function):
    """Squares of the coefficients, summed over channels: (N, C, H, W) -> (N, P).

    The gradient in the maps is the adjoint transform of twice the weighted coefficients, which is
    less work, and less to keep, than following each step back.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, transform: RingTransform) -> Tensor:
        coefficients = transform._coefficients(maps)
        ctx.save_for_backward(maps, coefficients)
        ctx.transform = transform
        return coefficients.square().sum(1).flatten(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        maps, coefficients = ctx.saved_tensors
        transform: RingTransform = ctx.transform
        with full_precision(maps.device):
            if torch.is_grad_enabled():  # a second derivative is asked for
                coefficients = transform._coefficients(maps)
            shape = (len(maps), 1, *coefficients.shape[2:])
            weighted = coefficients * (2 * gradients[0]).view(shape)
            return transform._adjoint(weighted), None


@lru_cache(maxsize=64)
def ring_transform(
    height: int, width: int, edges: str, device: torch.device, planes: bool = False,
    dtype: torch.dtype = torch.float32,
) -> RingTransform:  # fmt: skip
    """Return the prepared transform of (H, W) maps on `device`, made once.

    Its tensors are ordinary ones even if they are made in inference mode, so that it can be used
    inside and outside of that.
    """
    with torch.inference_mode(False), torch.no_grad():
        return RingTransform(height, width, edges, device, planes, dtype)

"""From the covariance of a field to the power that its maps are expected to have.

What natstats measures at a frequency k is a quadratic form in the values of a map: with w the
taper, W its transform and m = sum(w u) / sum(w) the mean that is removed,

    P(k) = |F(k) - m W(k)|^2 / sum(w^2) = |sum_x a_k(x) u(x)|^2,    E P(k) = a_k K a_k^H,

K the covariance of the values at all pairs of positions. In a stationary field K depends on the lag
alone, as C(x' - x), and the form becomes a few transforms:

    E|F|^2 = transform of (C times the autocorrelation of w),
    E|F - m W|^2 = E|F|^2 - 2 Re(W* E[F m]) + |W|^2 E[m^2].

:mod:`natstats.spectra.expected` has the same for isotropic fields, which filtered ones are not. For
the periodic component of Moisan (2011) the jumps at the border take the place of the mean.

A constant in the covariance is a constant in the field, which every treatment of the edges removes:
second moments serve as well as covariances. The numbers are torch tensors in float64, so that all
of this also runs on a GPU.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.spectra.edges import EDGES, axis_taper, boundary_laplacian

__all__ = [
    "about_the_mean", "lag_covariance", "mean_lag_covariance", "overlap", "power_of_lags",
    "power_of_matrix",
]  # fmt: skip


_PIECE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Numbers of padded maps that are transformed at once: what fits a CPU's cache, or suits a GPU."""


def _checked(argument: str, value: Any, shape: str) -> Tensor:
    """A real tensor of at least two axes."""
    if not isinstance(value, Tensor) or value.is_complex() or value.ndim < 2:
        came = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UsageError(f"{argument}: expected a real torch.Tensor of shape {shape}; got {came}")
    if 0 in value.shape[-2:]:
        raise UsageError(f"{argument}: expected shape {shape}; got {tuple(value.shape)}")
    return value


def lag_covariance(maps: Tensor, edges: str = "none") -> Tensor:
    """Mean product of the values of maps at every lag: the second moment, without bias.

    The mean is not removed, see :func:`about_the_mean`. Each lag is divided by the number of pairs
    of pixels that are so far apart, so that the expectation is the covariance of a stationary field
    whatever its size.

    Args:
        maps: (..., H, W), real.
        edges: with a taper, ``sine`` or ``hann``, a pair of pixels is weighted with the product of
            their weights: where a field differs from place to place, this is its covariance as a
            measurement with that taper sees it.

    Returns:
        (..., 2H, 2W), float64: lags in FFT order, index h for lag h and -h for lag -h. No pixels
        are H or W apart: at these lags it is zero.

    Raises:
        UsageError: `maps` is no such tensor, or `edges` is unknown.

    >>> maps = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> lag_covariance(maps)[0]  # lags 0, 1, none, -1 along a row
    tensor([7.5000, 7.0000, 0.0000, 7.0000], dtype=torch.float64)
    >>> lag_covariance(maps)[1]  # one row down; 1 * 4 on one diagonal, 2 * 3 on the other
    tensor([5.5000, 4.0000, 0.0000, 6.0000], dtype=torch.float64)
    """
    maps = _checked("maps", maps, "(..., H, W)")
    checks.one_of("edges", edges, EDGES)
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, height, width)
    lags = maps.new_empty(len(flat), 2 * height, 2 * width, dtype=torch.float64)
    window = _window(height, width, edges, maps.device)
    for some in _pieces(flat):
        power = _squares(_padded(flat[some].double() * window))
        lags[some] = _per_pair(power, height, width, edges)
    return lags.view(*maps.shape[:-2], 2 * height, 2 * width)


def mean_lag_covariance(maps: Tensor, edges: str = "none") -> Tensor:
    """The mean of :func:`lag_covariance` over images, at half its cost and little memory.

    Args:
        maps: (N, C, H, W), real.
        edges: edge treatment, as there.

    Returns:
        (C, 2H, 2W), float64.

    Raises:
        UsageError: `maps` is no such tensor, or holds no image, or `edges` is unknown.

    >>> maps = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(mean_lag_covariance(maps), lag_covariance(maps).mean(0))
    True
    """
    maps = _checked("maps", maps, "(N, C, H, W)")
    if maps.ndim != 4 or 0 in maps.shape:
        raise UsageError(f"maps: expected shape (N, C, H, W); got {tuple(maps.shape)}")
    checks.one_of("edges", edges, EDGES)
    height, width = maps.shape[-2:]
    window = _window(height, width, edges, maps.device)
    size = (maps.shape[1], 2 * height, width + 1)
    power = torch.zeros(size, dtype=torch.float64, device=maps.device)
    for image in maps:
        for some in _pieces(image):
            power[some] += _squares(_padded(image[some].double() * window))
    return _per_pair(power / len(maps), height, width, edges)


def about_the_mean(
    moments: Tensor, mean_maps: Tensor, edges: str = "none"
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of channels from sums that one pass over the images can keep.

    Args:
        moments: :func:`lag_covariance` of the maps of every channel, mean over images,
            (..., 2H, 2W).
        mean_maps: the maps themselves, mean over images, (..., H, W).
        edges: the same as for `moments`.

    Returns:
        The mean over positions, weighted with the square of the taper, (...), and what
        :func:`lag_covariance` would have given for maps less this mean, (..., 2H, 2W).

    Raises:
        UsageError: no such tensors, or `edges` is unknown.

    >>> maps = 5 + torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> mean, lags = about_the_mean(lag_covariance(maps).mean(0), maps.mean(0))
    >>> torch.allclose(lags, lag_covariance(maps - mean[:, None, None]).mean(0), atol=1e-4)
    True
    """
    mean_maps = _checked("mean_maps", mean_maps, "(..., H, W)").double()
    moments = _checked("moments", moments, "(..., 2H, 2W)").double()
    checks.one_of("edges", edges, EDGES)
    height, width = mean_maps.shape[-2:]
    if moments.shape != (*mean_maps.shape[:-2], 2 * height, 2 * width):
        raise UsageError(
            f"moments: expected twice the sides of mean_maps {tuple(mean_maps.shape)}; "
            f"got {tuple(moments.shape)}"
        )
    window = _window(height, width, edges, mean_maps.device)
    mean = (mean_maps * window**2).sum((-2, -1)) / (window**2).sum()
    # The mean over the first pixel of all pairs at a lag, and that over the second.
    both = 2 * (_padded(mean_maps * window) * _padded(window).conj()).real
    level = mean[..., None, None]
    covariance = moments - level * _per_pair(both, height, width, edges) + level**2
    weights = overlap(height, width, edges, mean_maps.device)
    return mean, torch.where(weights > 0, covariance, 0.0)


def _window(height: int, width: int, edges: str, device: torch.device) -> Tensor:
    """Weights of the taper, (H, W)."""
    return _taper(height, edges, device)[:, None] * _taper(width, edges, device)


def _pieces(maps: Tensor) -> list[slice]:
    """Parts of the first axis that fit into cache when padded."""
    piece = _PIECE["cuda" if maps.is_cuda else "cpu"]
    step = max(1, piece // (4 * maps.shape[-2] * maps.shape[-1]))
    return [slice(first, first + step) for first in range(0, len(maps), step)]


def _squares(transform: Tensor) -> Tensor:
    return transform.real.square().addcmul_(transform.imag, transform.imag)


def _padded(maps: Tensor) -> Tensor:
    """Transform of maps on twice their sides, where nothing wraps around."""
    height, width = maps.shape[-2:]
    transform: Tensor = torch.fft.rfft2(maps, s=(2 * height, 2 * width))
    return transform


def _per_pair(power: Tensor, height: int, width: int, edges: str) -> Tensor:
    """Mean products at each lag, from the transform of their sums, (..., 2H, 2W)."""
    lags: Tensor = torch.fft.irfft2(power, s=(2 * height, 2 * width))
    weights = overlap(height, width, edges, power.device)
    return torch.where(weights > 0, lags / weights.where(weights > 0, 1.0), 0.0)


def _pairs(n: int, device: torch.device) -> Tensor:
    """Pairs of an axis of n pixels at each lag, (2n,), in FFT order; 1 at lag n, which has none."""
    lag = torch.arange(-n, n, device=device).roll(n).abs()
    return (n - lag).clamp(min=1).double()


def _taper(n: int, edges: str, device: torch.device) -> Tensor:
    return torch.from_numpy(axis_taper(n, edges)).to(device)


def overlap(height: int, width: int, edges: str, device: torch.device) -> Tensor:
    """Autocorrelation of the taper at lags in FFT order, (2H, 2W); zero at lags H and W."""
    axes = []
    for n in (height, width):
        # By sums, not a transform: values at far lags are small, and estimates are divided by them.
        taper = axis_taper(n, edges)
        lags = np.correlate(taper, taper, mode="full")
        axes.append(torch.from_numpy(np.concatenate([lags[n - 1 :], [0.0], lags[: n - 1]])))
    return torch.outer(*axes).to(device)


def _folded(lags: Tensor, axis: int) -> Tensor:
    """Sum of lags that are equal modulo n along an axis of 2n."""
    first, second = lags.chunk(2, dim=axis)
    return first + second


def power_of_lags(covariance: Tensor, edges: str = "sine") -> Tensor:
    """Expected power of maps cut from a stationary field of this covariance.

    Args:
        covariance: (..., 2H, 2W), real; lags in FFT order as :func:`lag_covariance` gives them.
            C(-h) = C(h) for the two-dimensional lag h; no other symmetry is needed. The entries of
            lags H and W are ignored.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.

    Returns:
        (..., H, W), float64, in FFT order: the power of an H x W map as
        :mod:`natstats.spectra.transforms` defines it, at every frequency; without a taper and for
        white noise it is the variance at every frequency but 0.

    Raises:
        UsageError: `covariance` is no such tensor, or `edges` is unknown.

    >>> white = torch.zeros(16, 16)
    >>> white[0, 0] = 2.0
    >>> power_of_lags(white, "none")[0, :4].numpy().round(6) + 0.0
    array([0., 2., 2., 2.])
    """
    covariance = _checked("covariance", covariance, "(..., 2H, 2W)").double().clone()
    checks.one_of("edges", edges, EDGES)
    if covariance.shape[-2] % 2 or covariance.shape[-1] % 2:
        raise UsageError(
            f"covariance: expected lags (..., 2H, 2W), two even sides; "
            f"got shape {tuple(covariance.shape)}"
        )
    height, width = (n // 2 for n in covariance.shape[-2:])
    covariance[..., height, :] = 0.0
    covariance[..., width] = 0.0
    return _periodic(covariance) if edges == "periodic" else _tapered(covariance, edges)


def _tapered(covariance: Tensor, edges: str) -> Tensor:
    """E|F - m W|^2 / sum w^2, (..., H, W)."""
    size = covariance.shape[-2:]
    height, width = (n // 2 for n in size)
    weighted = covariance * overlap(height, width, edges, covariance.device)
    power: Tensor = torch.fft.fft2(_folded(_folded(weighted, -2), -1)).real
    window = _window(height, width, edges, covariance.device)
    total = window.sum()
    product = torch.fft.rfft2(covariance) * torch.fft.rfft2(window, s=size)
    smoothed = torch.fft.irfft2(product, s=size)[..., :height, :width] * window
    mean_cross = torch.fft.fft2(smoothed) / total  # E[F m]
    mean_square = smoothed.sum((-2, -1), keepdim=True) / total**2  # E[m^2]
    constant = torch.fft.fft2(window)
    power = power - 2 * (constant.conj() * mean_cross).real
    power = power + constant.abs().square() * mean_square
    power /= (window**2).sum()
    return power


def _jump_phase(n: int, device: torch.device) -> Tensor:
    """1 - exp(ip) at every frequency p of an axis, (n,)."""
    phase = 2j * torch.pi * torch.fft.fftfreq(n, dtype=torch.float64, device=device)
    return 1 - torch.exp(phase)


def _laplacian(height: int, width: int, device: torch.device) -> Tensor:
    return torch.from_numpy(boundary_laplacian(height, width)).to(device)


def _periodic(covariance: Tensor) -> Tensor:
    """E|F - S|^2 / (H W), S the transform of the smooth component, (..., H, W).

    With a(j) = u(H-1, j) - u(0, j) and b(i) = u(i, W-1) - u(i, 0) the jumps across the border,
    S (2 cos p + 2 cos q - 4) = a^(q) (1 - exp(ip)) + b^(p) (1 - exp(iq)).
    """
    height, width = (n // 2 for n in covariance.shape[-2:])
    device = covariance.device
    fft, ifft = torch.fft.fft, torch.fft.ifft
    # Lag L is at index L, and -L at -L. Covariances are multiplied by the number of pairs at a lag.
    pairs_h, pairs_w = _pairs(height, device)[:, None], _pairs(width, device)
    down, up = torch.arange(height, device=device), -torch.arange(height, device=device)
    right, left = torch.arange(width, device=device), -torch.arange(width, device=device)
    power: Tensor = torch.fft.fft2(_folded(_folded(covariance * pairs_h * pairs_w, -2), -1)).real

    # E[conj(u^) a^] and E[conj(u^) b^]: one axis is a sum over lags, the other over positions.
    jumps = covariance[..., down.flip(0), :] - covariance[..., up, :]
    cross_a = height * ifft(fft(_folded(jumps * pairs_w, -1), dim=-1), dim=-2)
    jumps = covariance[..., right.flip(0)] - covariance[..., left]
    cross_b = width * ifft(fft(_folded(jumps * pairs_h, -2), dim=-2), dim=-1)

    far_h, far_w = height - 1, width - 1
    square_a = 2 * covariance[..., 0, :] - covariance[..., far_h, :] - covariance[..., -far_h, :]
    square_b = 2 * covariance[..., 0] - covariance[..., far_w] - covariance[..., -far_w]
    square_a = fft(_folded(square_a * pairs_w, -1)).real[..., None, :]
    square_b = fft(_folded(square_b * pairs_h[:, 0], -1)).real[..., None]

    # E[a(j) b(i)]: from (H-1, j) and (0, j) to (i, W-1) and (i, 0).
    rows = covariance[..., up.flip(0), :] - covariance[..., down, :]
    corners = rows[..., right.flip(0)] - rows[..., left]
    cross_ab = height * ifft(fft(corners, dim=-1), dim=-2)  # E[a^ conj(b^)]

    laplacian = _laplacian(height, width, device)
    row_phase, column_phase = _jump_phase(height, device)[:, None], _jump_phase(width, device)
    smooth_cross = (cross_a * row_phase + cross_b * column_phase) / laplacian
    smooth_square = (
        square_a * row_phase.abs().square()
        + square_b * column_phase.abs().square()
        + 2 * (cross_ab * row_phase * column_phase.conj()).real
    ) / laplacian**2
    power = power - 2 * smooth_cross.real + smooth_square
    power /= height * width
    return power


def _coefficients(maps: Tensor, edges: str) -> Tensor:
    """The coefficients whose squares are the power of maps (..., H, W): sum_x a_k(x) u(x)."""
    height, width = maps.shape[-2:]
    window = _window(height, width, edges, maps.device)
    coefficients: Tensor
    if edges != "periodic":
        mean = (maps * window).sum((-2, -1), keepdim=True) / window.sum()
        coefficients = torch.fft.fft2((maps - mean) * window)
        coefficients /= (window**2).sum().sqrt()
        return coefficients
    row_jumps = torch.fft.fft(maps[..., -1, :] - maps[..., 0, :])[..., None, :]
    column_jumps = torch.fft.fft(maps[..., -1] - maps[..., 0])[..., None]
    smooth: Tensor = row_jumps * _jump_phase(height, maps.device)[:, None]
    smooth = smooth + column_jumps * _jump_phase(width, maps.device)
    smooth /= _laplacian(height, width, maps.device)
    coefficients = torch.fft.fft2(maps) - smooth
    coefficients /= (height * width) ** 0.5
    return coefficients


@lru_cache(maxsize=2)
def _rows(height: int, width: int, edges: str, device: torch.device) -> Tensor:
    """conj(a_k(x)), (HW, H, W), the first axis x."""
    with torch.inference_mode(False):
        units = torch.eye(height * width, dtype=torch.float64, device=device)
        rows = _coefficients(units.view(-1, height, width), edges)
        return rows.conj().resolve_conj()


def power_of_matrix(covariance: Tensor, height: int, width: int, edges: str = "sine") -> Tensor:
    """Expected power a_k K a_k^H of maps whose values have this covariance, stationary or not.

    Args:
        covariance: K, (..., HW, HW), real and symmetric, of the values in row order.
        height: H, pixels.
        width: W, pixels.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.

    Returns:
        (..., H, W), float64, in FFT order, as :func:`power_of_lags`. It takes 32 (HW)^2 bytes of
        memory beside the matrix.

    Raises:
        UsageError: `covariance` is no such tensor, or `edges` is unknown.

    >>> power_of_matrix(torch.eye(64), 8, 8, "none")[0, :4].numpy().round(6) + 0.0
    array([0., 1., 1., 1.])
    """
    covariance = _checked("covariance", covariance, "(..., HW, HW)").double()
    checks.one_of("edges", edges, EDGES)
    checks.positive_int("height", height)
    checks.positive_int("width", width)
    n = height * width
    if covariance.shape[-2:] != (n, n):
        raise UsageError(
            f"covariance: expected shape (..., {n}, {n}) for maps of {height} x {width}; "
            f"got {tuple(covariance.shape)}"
        )
    rows = _rows(height, width, edges, covariance.device)
    power = [
        (_coefficients(one.view(n, height, width), edges) * rows).sum(0).real
        for one in covariance.reshape(-1, n, n)
    ]
    stacked = torch.stack(power) if power else covariance.new_zeros(0, height, width)
    return stacked.view(*covariance.shape[:-2], height, width)

"""Expected ring power of a finite crop of an ideal 1 / f^alpha field.

What a crop of a power-law field shows is not a power law: the taper smears it, the removed mean
takes power away, a ring holds a range of radii. All of this is linear in the covariance of the
field, so the expectation is known exactly, and a fit compares the measurement with it in place of a
straight line. This is the idea of the debiased Whittle likelihood (Sykulski, Olhede, Guillaumin,
Lilly and Early 2019, Biometrika 106; in two dimensions Guillaumin et al., arXiv 1907.02447).

With C the covariance of the field (inverse transform of f^-alpha, wavelengths up to OUTER_SCALE
times the crop), w the taper, W its transform and m = sum(w u) / sum(w) the removed mean:

    E|F|^2 = transform of (C times the autocorrelation of w),
    E|F - m W|^2 = E|F|^2 - 2 Re(W* E[F m]) + |W|^2 E[m^2].

For the periodic component of Moisan (2011) the jumps at the border take the place of the mean.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
from numpy.polynomial import chebyshev
from numpy.typing import ArrayLike, NDArray

from natstats import checks
from natstats.errors import UsageError
from natstats.spectra.edge_names import Edges
from natstats.spectra.edges import EDGES, axis_taper, boundary_laplacian
from natstats.spectra.expected_large import large_ring_power
from natstats.spectra.frequencies import rings

__all__ = [
    "EXPONENT_RANGE",
    "LARGEST_WHOLE_LATTICE",
    "ExpectedSpectrum",
    "expected_power",
    "expected_spectrum",
    "independent_modes",
]

EXPONENT_RANGE = (-3.0, 6.0)
"""Exponents between which the expectation is tabulated; a fit beyond ends at the limit."""

N_NODES = 41
"""Chebyshev nodes of the table; its error in log T is below 2e-3 for square maps to 224 pixels."""

N_NODES_LARGE = 61
"""Nodes for maps above LARGEST_WHOLE_LATTICE, where leakage takes over more suddenly."""

OUTER_SCALE = 12
"""Longest wavelength of the ideal field, in units of the longer side of the crop."""

LARGEST_WHOLE_LATTICE = 512
"""Longest side, pixels, of maps whose lattice is summed as it is; that of a series always is."""

KEPT = Path(__file__).with_name("expected_tables.npz")
"""Tables of usual map sizes."""

_TORUS = 4
"""Side of the torus whose lattice carries the short waves, in units of the longer side."""

_FINE = 7
"""Long waves have wave numbers up to this on their lattice, which is three times as fine."""

Array = NDArray[np.float64]


def _density(n: int, cell: float, alpha: float, is_series: bool) -> Array:
    """f^-alpha on the lattice of wave numbers 0 .. n, (n + 1, n + 1) or (n + 1, 1), zero at DC."""
    cycles = np.arange(n + 1) * cell
    radius = np.hypot(cycles[:, None], cycles[:1] if is_series else cycles)
    radius[0, 0] = 1.0
    density = radius**-alpha
    density[0, 0] = 0.0
    return np.asarray(density)


def _covariance(height: int, width: int, alpha: float, outer_scale: int = OUTER_SCALE) -> Array:
    """Covariance of the field at lags 0..H-1, 0..W-1, less that at lag 0; it is even in each lag.

    A constant in the covariance is a constant in the field, which every edge treatment removes.
    Short waves live on a torus _TORUS times the longer side of the crop. Around DC its lattice is
    too coarse, and is made three times finer, again and again up to `outer_scale` = _TORUS * 3^n:
    what a torus of that size would give, at the cost of a small one. The density is even on both
    axes, so its inverse transform is a cosine transform of a quarter. A series has one axis only.
    """
    is_series = width == 1
    half = _TORUS * max(height, width) // 2
    coarse = (_FINE - 1) // 3  # the wave numbers that the finer lattice takes over
    cell = 1 / (2 * half)
    density = _density(half, cell, alpha, is_series)
    axes, area = ((0,), cell) if is_series else ((0, 1), cell**2)
    if outer_scale > _TORUS:
        density[: coarse + 1, : coarse + 1] = 0.0
    lags = scipy.fft.dctn(density, type=1, axes=axes)[:height, :width] * area
    scale = _TORUS
    while scale < outer_scale:
        scale, cell = 3 * scale, cell / 3
        density = _density(_FINE, cell, alpha, is_series)
        if scale < outer_scale:
            density[: coarse + 1, : coarse + 1] = 0.0
        # Every wave number but 0 stands for itself and its negative.
        times = np.where(np.arange(_FINE + 1) > 0, 2.0, 1.0)
        rows, columns = (
            np.cos(2 * np.pi * cell * np.outer(np.arange(n), np.arange(n_waves)))
            for n, n_waves in zip((height, width), density.shape, strict=True)
        )
        weight = np.outer(times, times[: density.shape[1]]) * cell ** len(axes)
        lags = lags + rows @ (density * weight) @ columns.T
    return np.asarray(lags - lags[0, 0])


def _fold(lags: Array, axis: int) -> Array:
    """Sum an even function of the lag, given at 0..n-1, over lags equal modulo n along `axis`."""
    folded = np.moveaxis(lags.copy(), axis, 0)
    folded[1:] += np.moveaxis(lags, axis, 0)[:0:-1]
    return np.moveaxis(folded, 0, axis)


def _fold_both(lags: Array) -> Array:
    return _fold(_fold(lags, 0), 1)


def _overlap(taper: Array) -> Array:
    """Autocorrelation of a taper at lags 0..n-1, (n,)."""
    return np.correlate(taper, taper, mode="full")[len(taper) - 1 :]


def _smoothed(covariance: Array, window: Array) -> Array:
    """Convolution of the covariance with the window, at the pixels of the window, (H, W)."""
    height, width = window.shape
    rows, columns = (np.abs(np.arange(-n, n)) % n for n in (height, width))
    # Lag -n is in the circulant, but no two pixels are that far apart.
    circulant = np.roll(covariance[np.ix_(rows, columns)], (-height, -width), axis=(0, 1))
    size = circulant.shape
    product = scipy.fft.rfft2(window, s=size) * scipy.fft.rfft2(circulant)
    return np.asarray(scipy.fft.irfft2(product, s=size)[:height, :width])


def _tapered(covariance: Array, edges: str) -> Array:
    """E|F - m W|^2 / sum w^2 at every frequency, (H, W)."""
    rows, columns = (axis_taper(n, edges) for n in covariance.shape)
    overlap = np.outer(_overlap(rows), _overlap(columns))
    power = scipy.fft.fft2(_fold_both(covariance * overlap)).real
    window = np.outer(rows, columns)
    weighted = window * _smoothed(covariance, window)
    mean_cross = scipy.fft.fft2(weighted) / window.sum()  # E[F m]
    mean_square = weighted.sum() / window.sum() ** 2  # E[m^2]
    constant = scipy.fft.fft2(window)
    power = power - 2 * (constant.conj() * mean_cross).real + np.abs(constant) ** 2 * mean_square
    return np.asarray(power / (window**2).sum())


def _periodic(covariance: Array) -> Array:
    """E|F - S|^2 / (H W) at every frequency, S the transform of the smooth component, (H, W).

    With a(j) = u(H-1, j) - u(0, j) and b(i) = u(i, W-1) - u(i, 0) the jumps across the border,
    S (2 cos p + 2 cos q - 4) = a^(q) (1 - exp(ip)) + b^(p) (1 - exp(iq)).
    """
    height, width = covariance.shape
    pairs_h, pairs_w = height - np.arange(height), width - np.arange(width)
    power = scipy.fft.fft2(_fold_both(covariance * np.outer(pairs_h, pairs_w))).real
    row_phase = 1 - np.exp(2j * np.pi * np.fft.fftfreq(height))[:, None]
    column_phase = 1 - np.exp(2j * np.pi * np.fft.fftfreq(width))[None, :]

    # E[conj(u^) a^] and E[conj(u^) b^]: one axis is a sum over lags, the other over positions.
    down, right = covariance[::-1] - covariance, covariance[:, ::-1] - covariance
    over_lags = scipy.fft.fft(_fold(down * pairs_w, 1), axis=1)
    cross_a = height * scipy.fft.ifft(over_lags, axis=0)
    over_lags = scipy.fft.fft(_fold(right * pairs_h[:, None], 0), axis=0)
    cross_b = width * scipy.fft.ifft(over_lags, axis=1)

    square_a = scipy.fft.fft(_fold(2 * (covariance[0] - covariance[-1]) * pairs_w, 0)).real
    square_b = scipy.fft.fft(_fold(2 * (covariance[:, 0] - covariance[:, -1]) * pairs_h, 0)).real
    corners = down[:, ::-1] - down
    cross_ab = height * scipy.fft.ifft(scipy.fft.fft(corners, axis=1), axis=0)  # E[a^ conj(b^)]

    laplacian = boundary_laplacian(height, width)
    smooth_cross = (cross_a * row_phase + cross_b * column_phase) / laplacian
    smooth_square = (
        square_a[None, :] * np.abs(row_phase) ** 2
        + square_b[:, None] * np.abs(column_phase) ** 2
        + 2 * (cross_ab * row_phase * column_phase.conj()).real
    ) / laplacian**2
    return np.asarray((power - 2 * smooth_cross.real + smooth_square) / (height * width))


def expected_power(
    alpha: float,
    height: int,
    width: int,
    edges: Edges = "sine",
    *,
    outer_scale: int = OUTER_SCALE,
) -> Array:
    """Expected ring power T_b(alpha) of an (H, W) crop of a field with power f^-alpha.

    Args:
        alpha: exponent of the field.
        height: H, pixels, at least 5.
        width: W, pixels, at least 5.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        outer_scale: longest wavelength of the field, in units of the longer side: 4, 12, 36, ...

    Returns:
        (n_rings,), in units of the field's density; for alpha = 0 without a taper it is 1.

    Raises:
        UsageError: an argument is out of range.

    >>> bool(np.allclose(expected_power(0.0, 16, 16, "none"), 1.0, atol=2e-3))
    True
    """
    checks.one_of("edges", edges, EDGES)
    if outer_scale not in (scales := [_TORUS * 3**n for n in range(12)]):
        raise UsageError(
            f"outer_scale: expected one of {scales[0]}, {scales[1]}, {scales[2]}, "
            f"...; got {outer_scale!r}"
        )
    if width > 1 and max(height, width) > LARGEST_WHOLE_LATTICE:
        power = large_ring_power(float(alpha), height, width, edges, (_TORUS, _FINE, outer_scale))
    else:
        ring = rings(height, width)
        covariance = _covariance(height, width, float(alpha), outer_scale)
        of_map = _periodic(covariance) if edges == "periodic" else _tapered(covariance, edges)
        power = ring.mean(of_map)
    # On maps of several hundred pixels the steepest fields span more decades than a double.
    return np.asarray(np.maximum(power, np.finfo(np.float64).eps * power.max()))


def _alike(square: Array) -> list[tuple[int, float]]:
    """Steps along an axis to frequencies that correlate, with rho there; `square` is w^2."""
    n = len(square)
    rho = np.abs(scipy.fft.fft(square)) ** 2
    rho /= rho[0]
    return [
        (int(k) if k <= n // 2 else int(k) - n, float(rho[k])) for k in np.flatnonzero(rho > 1e-20)
    ]


@lru_cache(maxsize=256)
def independent_modes(height: int, width: int, edges: str = "sine") -> Array:
    """Degrees of freedom of the ring power of a Gaussian field, (n_rings,).

    A ring of n frequencies holds n real degrees of freedom when they are independent. A taper makes
    neighbours alike: Cov(P_k, P_l) / E[P]^2 = rho(k - l) + rho(k + l) with
    rho = |W2|^2 / |W2(0)|^2 and W2 the transform of w^2, so that the variance of the ring mean is
    2 E[P]^2 / m with m = n^2 / sum_kl rho(k - l).

    Args:
        height: H, pixels, at least 5.
        width: W, pixels, at least 5.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.

    Raises:
        UsageError: an argument is out of range.

    >>> independent_modes(14, 14, "none")[:3], independent_modes(14, 14)[:3].round(1)
    (array([ 8., 12., 16.]), array([ 5.1,  8.7, 12.2]))
    """
    checks.one_of("edges", edges, EDGES)
    ring = rings(height, width)
    # w^2 is a sum of a few cosines, so that only near neighbours are alike.
    near = [_alike(axis_taper(n, edges) ** 2) for n in (height, width)]
    pairs = np.zeros(ring.n_rings)
    for (down, one), (across, other) in itertools.product(*near):
        if (down, across) < (0, 0):
            continue  # counted with its opposite
        same = ring.index == np.roll(ring.index, (-down, -across), axis=(0, 1))
        same &= ring.index >= 0
        twice = 1 if (down, across) == (0, 0) else 2
        counts = np.bincount(ring.index[same], minlength=ring.n_rings)
        pairs += twice * one * other * counts
    modes = ring.n_members**2 / pairs
    modes.setflags(write=False)
    return np.asarray(modes)


@dataclass(frozen=True, eq=False)
class ExpectedSpectrum:
    """log T_b(alpha) of one map size as a smooth function of alpha.

    Attributes:
        frequency: of the rings, cycles/pixel, (n_rings,).
        coefficients: Chebyshev series in alpha of log T_b over EXPONENT_RANGE, (n_nodes, n_rings).
    """

    frequency: Array
    coefficients: Array

    def log_power(self, alpha: ArrayLike) -> Array:
        """Log of the expected ring power, (..., n_rings) for alpha of shape (...)."""
        return self._evaluate(self.coefficients, alpha)

    def log_power_slope(self, alpha: ArrayLike) -> Array:
        """Derivative of :meth:`log_power` in alpha, same shape."""
        return self._evaluate(self._slope_coefficients, alpha)

    @cached_property
    def _slope_coefficients(self) -> Array:
        low, high = EXPONENT_RANGE
        return np.asarray(chebyshev.chebder(self.coefficients) * (2.0 / (high - low)), np.float64)

    @staticmethod
    def _evaluate(coefficients: NDArray[np.floating[Any]], alpha: ArrayLike) -> Array:
        low, high = EXPONENT_RANGE
        unit = (2 * np.clip(np.asarray(alpha, dtype=np.float64), low, high) - low - high) / (
            high - low
        )
        return np.moveaxis(np.asarray(chebyshev.chebval(unit, coefficients), np.float64), 0, -1)


@lru_cache(maxsize=128)
def expected_spectrum(height: int, width: int, edges: Edges = "sine") -> ExpectedSpectrum:
    """Return the expected spectrum of (H, W) maps, tabulated once and kept.

    Raises:
        UsageError: a map size below 5 pixels or an unknown edge treatment.

    >>> table = expected_spectrum(16, 16)
    >>> exact = np.log(expected_power(2.3, 16, 16))
    >>> bool(np.abs(table.log_power(2.3) - exact).max() < 1e-5)
    True
    """
    kept = _kept_coefficients(height, width, edges)
    coefficients = _tabulated(height, width, edges) if kept is None else kept
    coefficients.setflags(write=False)
    return ExpectedSpectrum(rings(height, width).frequency, coefficients)


def _kept_coefficients(height: int, width: int, edges: str) -> Array | None:
    """The table of a usual map size that comes with natstats; None for other sizes.

    To make the largest takes a second. analyses/expected_tables.py writes them: what
    :func:`_tabulated` gives, to the last bit.
    """
    name = f"{edges}_{height}x{width}"
    with KEPT.open("rb") as file, np.load(file) as tables:
        return np.asarray(tables[name]) if name in tables else None


def _tabulated(height: int, width: int, edges: Edges) -> Array:
    """The Chebyshev series of log T_b, (n_nodes, n_rings)."""
    low, high = EXPONENT_RANGE
    is_large = width > 1 and max(height, width) > LARGEST_WHOLE_LATTICE
    nodes = chebyshev.chebpts1(N_NODES_LARGE if is_large else N_NODES)
    alphas = 0.5 * (low + high + (high - low) * nodes)
    powers = [expected_power(alpha, height, width, edges) for alpha in alphas]
    return np.asarray(chebyshev.chebfit(nodes, np.log(powers), len(nodes) - 1), np.float64)

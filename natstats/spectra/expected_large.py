"""Expected power of large maps in little memory: the density as a sum of products.

The lattice of :mod:`natstats.spectra.expected` has sixteen wave numbers for every pixel of a square
map. But f^-alpha is smooth away from zero: along each axis a spline through some 150 *nodes*
describes all of it, so that the density is B D B' with D its values at pairs of nodes. The steps
from the density to power act on one axis at a time. They are done once, on the columns of B,
whatever alpha is: power at all frequencies is then a product of three small matrices. The waves
around DC, on their finer lattices, are such products already.

With f the taper's transform of a wave and e the part of it that the removed mean takes away, both
products over the axes, and d = f - e along one axis,

    |f_y f_x - e_y e_x|^2 = d_y^2 f_x^2 + 2 d_y e_y f_x d_x + e_y^2 d_x^2,

three products without a difference of large numbers. The periodic component has six, of three
factors along each axis: P, the transform of what pairs of pixels see; u, that of the jumps at the
border times their phase; and the mean square of the jump.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from natstats.spectra.edges import axis_taper
from natstats.spectra.frequencies import rings

__all__ = ["large_ring_power"]

_SINGLE = 24
"""Wave numbers of the coarse lattice below this on both axes are taken one by one."""

_UNIFORM = 56
"""Up to here every wave number of the lattice is a node; above, nodes are a fixed factor apart."""

_RATIO = 1.06
"""That factor; the spline is off by less than 1e-4 of the density up to alpha 5."""

_BLOCK = 1 << 21
"""Most frequencies whose power is held at a time."""

Array = NDArray[np.float64]


class _Waves(NamedTuple):
    """A block of waves: at pairs of wave numbers, less those that a finer lattice takes over.

    Attributes:
        radius: of every pair, cycles/pixel, (N, N'); infinite where the pair is left out.
        rows: factors of the rows, one for every product, each (K, N).
        columns: likewise of the columns, each (K', N').
    """

    radius: Array
    rows: tuple[Array, ...]
    columns: tuple[Array, ...]


def _radius(numbers: Array, cell: float, taken: int) -> Array:
    """Radius of pairs of wave numbers; infinite where both are below `taken`, in another block."""
    radius = cell * np.hypot(numbers[:, None], numbers)
    left_out = numbers < taken
    radius[np.ix_(left_out, left_out)] = np.inf
    return np.asarray(radius)


def _nodes(half: int) -> NDArray[np.int64]:
    """Wave numbers 0 .. half between which the density is a spline."""
    n_steps = max(int(np.ceil(np.log(half / _UNIFORM) / np.log(_RATIO))), 1)
    above = np.unique(np.geomspace(_UNIFORM, half, n_steps + 1).round().astype(np.int64))
    return np.concatenate([np.arange(_UNIFORM), above])


def _splines(nodes: NDArray[np.int64], n: int, cell: float) -> Iterator[tuple[slice, Array]]:
    """What each node adds to the covariance at lags 0 .. n - 1, (n, N), a few nodes at a time."""
    from scipy.interpolate import CubicSpline

    lattice = np.arange(nodes[-1] + 1)
    for first in range(0, len(nodes), 16):
        chosen = slice(first, min(first + 16, len(nodes)))
        density = CubicSpline(nodes, np.eye(len(nodes))[:, chosen])(lattice)
        yield chosen, scipy.fft.dct(density, type=1, axis=0)[:n] * cell


def _folded(lags: Array) -> Array:
    """Transform of an even function of the lag, given at 0 .. n - 1, (n, N) -> (n // 2 + 1, N)."""
    folded = lags.copy()
    folded[1:] += lags[:0:-1]
    return np.asarray(scipy.fft.rfft(folded, axis=0).real)


def _centred(values: Array) -> Array:
    """Transform about the middle of the axis of what is even about it, (n, N) -> real."""
    n = len(values)
    phase = np.exp(1j * np.pi * (n - 1) * np.arange(n // 2 + 1) / n)[:, None]
    return np.asarray((scipy.fft.rfft(values, axis=0) * phase).real)


def _tapered_waves(n: int, edges: str, waves: Array, times: Array) -> tuple[Array, ...]:
    """f^2, f d, d^2, d e and e^2 of single waves of both signs, each (K, N)."""
    taper = axis_taper(n, edges)
    place = np.arange(n)[:, None] - (n - 1) / 2
    turned = np.exp(2j * np.pi * place * waves)
    phase = np.exp(1j * np.pi * (n - 1) * np.fft.fftfreq(n))[:, None]
    response = (scipy.fft.fft(taper[:, None] * turned, axis=0) * phase).real
    half = n // 2 + 1
    forward, back = response[:half], response[-np.arange(half)]
    mean = (taper @ turned.real) / taper.sum()
    taken = _centred(taper[:, None]) * mean  # the same for both signs
    products = np.zeros((5, half, len(waves)))
    for f in (forward, back):
        d = f - taken
        for total, one in zip(products, (f * f, f * d, d * d, d * taken, taken**2), strict=True):
            total += one * times
    return tuple(products)


def _tapered_splines(
    n: int, edges: str, nodes: NDArray[np.int64], cell: float
) -> tuple[Array, ...]:
    """The same products for the columns of a spline."""
    from scipy import signal

    taper = axis_taper(n, edges)
    overlap = signal.correlate(taper, taper, mode="full")[n - 1 :]
    constant = _centred(taper[:, None])
    products = np.empty((5, n // 2 + 1, len(nodes)))
    for chosen, lags in _splines(nodes, n, cell):
        even = np.concatenate([lags[:0:-1], lags])
        seen = signal.fftconvolve(even, taper[:, None], mode="valid", axes=0)
        seen *= taper[:, None] / taper.sum()
        ff = _folded(lags * overlap[:, None])
        fe = _centred(seen) * constant
        ee = constant**2 * (seen.sum(axis=0) / taper.sum())
        products[:, :, chosen] = ff, ff - fe, ff - 2 * fe + ee, fe - ee, ee
    return tuple(products)


def _periodic_lags(lags: Array) -> tuple[Array, Array, Array]:
    """P and u at the frequencies (K, N), and the mean square of the jump (N,), of covariances."""
    n = len(lags)
    frequency = np.arange(n // 2 + 1) / n
    pairs = _folded(lags * (n - np.arange(n))[:, None])
    jumps = scipy.fft.rfft(lags[::-1] - lags, axis=0)
    turned = jumps.conj() * (1 - np.exp(2j * np.pi * frequency))[:, None]
    return pairs, np.asarray(turned.real), 2 * (lags[0] - lags[-1])


def _periodic(lags: Iterator[tuple[slice, Array]], n: int, n_waves: int) -> tuple[Array, ...]:
    """P, u and the mean square of the jump of all waves, (K, N) each; the last has equal rows."""
    products = np.empty((3, n // 2 + 1, n_waves))
    for chosen, some in lags:
        for total, one in zip(products, _periodic_lags(some), strict=True):
            total[:, chosen] = one
    return tuple(products)


def _single_lags(n: int, waves: Array, times: Array) -> Iterator[tuple[slice, Array]]:
    yield slice(None), 2 * times * np.cos(2 * np.pi * np.arange(n)[:, None] * waves)


@lru_cache(maxsize=4)
def _axis(
    n: int, longer: int, edges: str, torus: int, fine: int, outer_scale: int
) -> list[tuple[Array, float, int, tuple[Array, ...]]]:
    """The blocks of waves along an axis: wave numbers, cell, how many are left out, products."""
    half = torus * longer // 2
    cell = 1 / (2 * half)
    coarse = (fine - 1) // 3  # the wave numbers that the finer lattice takes over
    is_periodic = edges == "periodic"
    singles = []
    scale, own = torus, cell
    numbers = np.arange(_SINGLE, dtype=np.float64)
    while True:
        taken = coarse + 1 if scale < outer_scale else 1
        times = np.where(numbers > 0, 1.0, 0.5) * own
        if is_periodic:
            lags = _single_lags(n, numbers * own, times)
            products = _periodic(lags, n, len(numbers))
        else:
            products = _tapered_waves(n, edges, numbers * own, times)
        singles.append((numbers, own, taken, products))
        if scale >= outer_scale:
            break
        scale, own = 3 * scale, own / 3
        numbers = np.arange(fine + 1, dtype=np.float64)
    nodes = _nodes(half)
    if is_periodic:
        products = _periodic(_splines(nodes, n, cell), n, len(nodes))
    else:
        products = _tapered_splines(n, edges, nodes, cell)
    return [*singles, (nodes.astype(np.float64), cell, _SINGLE, products)]


def _blocks(height: int, width: int, edges: str, lattice: tuple[int, int, int]) -> list[_Waves]:
    longer = max(height, width)
    blocks = []
    for (numbers, cell, taken, rows), (*_, columns) in zip(
        *(_axis(n, longer, edges, *lattice) for n in (height, width)), strict=True
    ):
        radius = _radius(numbers, cell, taken)
        if edges == "periodic":
            (p, u, jump), (q, v, jump_across) = rows, columns
            blocks.append(_Waves(radius, (p, u, p, jump, p, u), (q, q, v, q, jump_across, v)))
        else:
            (_, _, dd, de, ee), (ff, fd, across, _, _) = rows, columns
            blocks.append(_Waves(radius, (dd, 2 * de, ee), (ff, fd, across)))
    return blocks


def large_ring_power(
    alpha: float, height: int, width: int, edges: str, lattice: tuple[int, int, int]
) -> Array:
    """Expected ring power of (H, W) maps, (n_rings,); see :mod:`natstats.spectra.expected`.

    Args:
        alpha: exponent of the field.
        height: H, pixels.
        width: W, pixels.
        edges: edge treatment.
        lattice: side of the torus in units of the longer side, wave numbers of the finer lattices,
            longest wavelength in units of the longer side.
    """
    blocks = _blocks(height, width, edges, lattice)
    left: list[list[Array]] = [[] for _ in blocks[0].rows]
    right: list[list[Array]] = [[] for _ in blocks[0].rows]
    for block in blocks:
        density = np.where(np.isfinite(block.radius) & (block.radius > 0), block.radius, 1.0)
        density = density**-alpha
        density[~np.isfinite(block.radius)] = 0.0
        for place, (rows, columns) in enumerate(zip(block.rows, block.columns, strict=True)):
            left[place].append(rows @ density)
            right[place].append(columns)
    lefts = [np.concatenate(parts, axis=1) for parts in left]
    rights = [np.concatenate(parts, axis=1).T for parts in right]
    if edges != "periodic":
        lefts, rights = [np.concatenate(lefts, axis=1)], [np.concatenate(rights)]

    ring = rings(height, width)
    n_rows, n_columns = height // 2 + 1, width // 2 + 1
    times = [_times(n) for n in (height, width)]
    sums = np.zeros(ring.n_rings)
    step = max(1, _BLOCK // n_columns)
    for first in range(0, n_rows, step):
        some = slice(first, min(first + step, n_rows))
        products = [a[some] @ b for a, b in zip(lefts, rights, strict=True)]
        power = products[0]
        if edges == "periodic":
            power = _less_smooth(products, height, width, some)
        index = ring.index[some, :n_columns]
        inside = index >= 0
        weighted = (power * times[0][some, None] * times[1])[inside]
        sums += np.bincount(index[inside], weighted, minlength=ring.n_rings)
    tapers = [axis_taper(n, edges) for n in (height, width)]
    total = np.prod([float(np.sum(taper**2)) for taper in tapers])
    return np.asarray(sums / ring.n_members / total)


def _times(n: int) -> Array:
    """How many frequencies of an axis of n pixels have each size, (n // 2 + 1,)."""
    times = np.full(n // 2 + 1, 2.0)
    times[0] = 1.0
    if n % 2 == 0:
        times[-1] = 1.0
    return times


def _less_smooth(products: list[Array], height: int, width: int, some: slice) -> Array:
    """Power of the periodic component from the products of :func:`_blocks`, rows `some`."""
    power, cross_a, cross_b, square_a, square_b, both = products
    row, column = (2 - 2 * np.cos(2 * np.pi * np.arange(n // 2 + 1) / n) for n in (height, width))
    laplacian = -(row[some, None] + column)
    if some.start == 0:
        laplacian[0, 0] = 1.0
    return np.asarray(
        power
        - 2 * (cross_a + cross_b) / laplacian
        + (square_a * row[some, None] + square_b * column + 2 * both) / laplacian**2
    )

"""The state of a value at lags alone: for maps too large for all pairs.

Every image is taken for a stationary field whose amplitude changes from place to place,

    E[u(x) u(x')] = A(x) A(x') C(x' - x),

as photographs are: dark and bright places, flat and busy ones. The amplitude is kept at every
position, also at borders, and the rest as a function of the lag. A rectifier acts on the
correlation C(h) / C(0) and leaves the amplitude. Without an amplitude, a field that is only
brighter in some places would count as one of low correlation, and rectifiers would seem to do much
more than they do. For the images

    C(h) = sum_x w(x) w(x + h) u(x) u(x + h) / sum_x w(x) w(x + h) A(x) A(x + h),

w the taper, so that their expected spectrum is the measured one. A convolution with independent
weights keeps the numerator, and replaces A^2 by its mean over the window. Where the maps have
become small enough the state turns into one of all pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats.spectra.edges import axis_taper
from natstats.spectra.frequencies import rings
from natstats.theory.activation_functions import Activation, second_moment
from natstats.theory.covariances import overlap, power_of_lags
from natstats.theory.exact_states import ExactState, is_exact_size, taken
from natstats.theory.random_states import State
from natstats.theory.state_parts import Window, new_root

__all__ = ["StationaryState", "state_of_maps"]

_LEAST_OVERLAP = 1e-3
"""Share of the pairs at lag 0 below which a lag counts as having no pairs."""

_N_AMPLITUDES = 65
"""Amplitudes at which the second moment after a function is computed; others are interpolated."""


def _taper(n: int, edges: str) -> Tensor:
    return torch.from_numpy(axis_taper(n, edges))


def _window(height: int, width: int, edges: str) -> Tensor:
    return _taper(height, edges)[:, None] * _taper(width, edges)


def _autocorrelation(maps: Tensor, other: Tensor | None = None) -> Tensor:
    """Sum over x of u(x) v(x + h) at lags in FFT order, (..., 2H, 2W)."""
    size = (2 * maps.shape[-2], 2 * maps.shape[-1])
    one = torch.fft.rfft2(maps, s=size)
    two = one if other is None else torch.fft.rfft2(other, s=size)
    found: Tensor = torch.fft.irfft2(one.conj() * two, s=size)
    return found


def _weighted(amplitude: Tensor, edges: str, other: Tensor | None = None) -> Tensor:
    """Sum of w w' A A' at every lag as a share of that of w w', (N, 2H, 2W)."""
    height, width = amplitude.shape[-2:]
    window = _window(height, width, edges).to(amplitude)
    given = None if other is None else other * window
    found = _autocorrelation(amplitude * window, given)
    floor = _LEAST_OVERLAP * window.square().sum()
    return found.clamp(min=floor) / _autocorrelation(window).clamp(min=floor)


def _unit(amplitude: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitudes with a mean square of 1, and their mean square before, (N, 1, 1)."""
    square = amplitude.square().mean((-2, -1), keepdim=True)
    return amplitude / square.clamp(min=1e-300).sqrt(), square


class StationaryState(State):
    """Second moments at lags in FFT order, (N, 2H, 2W), and one mean for each image, (N, 1).

    Both are for places where the amplitude is 1, its root mean square over the map.
    """

    form = "stationary"
    amplitude: Tensor

    @classmethod
    def of_maps(
        cls, maps: Tensor, edges: str = "sine", *, with_cross: bool = False
    ) -> StationaryState:
        """The state of given values.

        Args:
            maps: (N, C, H, W).
            edges: edge treatment, whose taper weights the pairs at each lag.
            with_cross: follow the covariance between each image and the next, too.
        """
        maps = maps.double()
        height, width = maps.shape[-2:]
        square = maps.square().mean(1)
        amplitude, _ = _unit(square.clamp(min=0.0).sqrt())
        window = _window(height, width, edges).to(maps)
        floor = _LEAST_OVERLAP * window.square().sum()

        def lags(other: Tensor, its: Tensor) -> Tensor:
            found = _autocorrelation(maps * window, other * window).mean(1)
            pairs = _autocorrelation(amplitude * window, its * window)
            # Lags with hardly any pairs are filled up with the mean over all pairs.
            far = found.sum((-2, -1), keepdim=True) / pairs.sum((-2, -1), keepdim=True)
            lacking = (floor - pairs).clamp(min=0.0)
            return (found + lacking * far) / (pairs + lacking)

        second = lags(maps, amplitude)
        cross = lags(maps.roll(-1, 0), amplitude.roll(-1, 0)) if with_cross else None
        mean = (maps.mean((1, 2, 3)) / amplitude.mean((1, 2)).clamp(min=1e-300))[:, None]
        return cls(
            height, width, second, mean, cross, False, new_root(), amplitude=amplitude, edges=edges
        )  # fmt: skip

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Products of numbers that are the same at every lag, (..., N, 1, 1)."""
        return (left * right)[..., None]

    def diagonal(self) -> Tensor:
        """Second moment at lag 0, (N, 1)."""
        return self.second[:, 0, :1]

    def position_means(self, pairs: Tensor) -> Tensor:
        """Mean over all pairs of positions, (N, 1)."""
        times = overlap(self.height, self.width, "none", pairs.device).to(pairs)
        return ((pairs * times).sum((-2, -1)) / times.sum())[:, None]

    def _swapped(self, cross: Tensor) -> Tensor:
        return cross  # the mean over all lags has no direction

    def _at(self, rows: Tensor, columns: Tensor, amplitude: Tensor) -> StationaryState:
        """At new lags, weighted sums of these by (2H', 2H) and (2W', 2W), with new amplitudes."""
        rows, columns = rows.to(self.second), columns.to(self.second)
        amplitude, square = _unit(amplitude)

        root = square[:, 0].sqrt()

        def change(pairs: Tensor, right: Callable[[Tensor], Tensor]) -> Tensor:
            return rows @ pairs @ columns.mT * self.outer(root, right(root))

        second, cross = self._with_pairs(change)
        return replace(
            self,
            height=amplitude.shape[-2],
            width=amplitude.shape[-1],
            second=second,
            cross=cross,
            mean=self.mean * root,
            origin=None,
            amplitude=amplitude,
        )

    def convolved(
        self, rows: Window, columns: Window, gain: float, bias: float, *, is_gaussian: bool
    ) -> State:
        """After a convolution: the correlation stays, amplitudes are those of windows."""
        taps = rows.kernel * columns.kernel
        dense = rows._replace(stride=1), columns._replace(stride=1)
        counts = _box_sum(torch.ones_like(self.amplitude[:1]), *dense)
        inside = (_box_sum(self.amplitude.square(), *dense) / counts.clamp(min=1.0)).sqrt()
        state: StationaryState = self
        if taps > 1:
            state = self._smoothed(inside)
        amplitude = (inside * (counts / taps).sqrt())[:, :: rows.stride, :: columns.stride]
        n_rows, n_columns = rows.n_out, columns.n_out
        state = state._at(
            _lag_map(self.height, n_rows, rows.stride, [1.0]),
            _lag_map(self.width, n_columns, columns.stride, [1.0]),
            amplitude[:, :n_rows, :n_columns],
        )
        second, cross = state._with_pairs(lambda pairs, right: gain * taps * pairs + bias)
        return replace(
            state,
            second=second,
            cross=cross,
            mean=torch.zeros_like(self.mean),
            is_gaussian=is_gaussian,
            roots=new_root(),
        ).settled()

    def _smoothed(self, inside: Tensor) -> StationaryState:
        """Moments for the amplitudes of windows around each place, not for those of this state.

        What stays is the sum over pairs at each lag, with the weights by which the moments were
        taken from the images: those of the taper of the measurement.
        """
        same = self.amplitude.shape[-2:] == inside.shape[-2:]

        def ratio(of: Tensor, to: Tensor | None, its: Tensor, other: Tensor | None) -> Tensor:
            before, after = (_weighted(x, self.edges, y) for x, y in ((of, to), (its, other)))
            if not same:
                return torch.ones_like(before)
            return before / after

        found = self.second * ratio(self.amplitude, None, inside, None)
        cross = None
        if self.cross is not None:
            cross = self.cross * ratio(
                self.amplitude, self.amplitude.roll(-1, 0), inside, inside.roll(-1, 0)
            )
        return replace(self, second=found, cross=cross)

    def averaged(self, rows: Tensor, columns: Tensor, step: tuple[Window, Window]) -> State:
        """After an average: the mean over all pairs of lags within two windows."""
        maps = []
        for side, weights, window in (
            (self.height, rows, step[0]), (self.width, columns, step[1])
        ):  # fmt: skip
            box = np.full(window.kernel, 1 / window.kernel)
            maps.append(_lag_map(side, len(weights), window.stride, np.convolve(box, box)))
        amplitude = rows.to(self.amplitude) @ self.amplitude @ columns.to(self.amplitude).mT
        return self._at(maps[0], maps[1], amplitude).settled()

    def padded(self, rows: Sequence[int], columns: Sequence[int]) -> State:
        """The state of maps made of rows and columns of these numbers, -1 for zeros."""
        down, across = torch.tensor(rows), torch.tensor(columns)
        there = ((down >= 0)[:, None] & (across >= 0)).to(self.amplitude)
        amplitude = self.amplitude[:, down.clamp(min=0)][:, :, across.clamp(min=0)] * there
        return self._at(
            _lag_map(self.height, len(rows), 1, [1.0]),
            _lag_map(self.width, len(columns), 1, [1.0]),
            amplitude,
        ).settled()

    def _reshaped(self, behind: State, function: Activation, deviation: Tensor) -> State:
        # The second moment after the function, for some amplitudes, then interpolated for all.
        amplitude, n = self.amplitude, len(self.amplitude)
        top = amplitude.flatten(1).amax(1).cpu().numpy()
        at = np.linspace(0.0, 1.0, _N_AMPLITUDES) * top[:, None]
        mean, spread = (x.cpu().numpy() for x in (self.mean, deviation))
        square = second_moment(function, mean * at, spread * at)
        own = np.stack(
            [np.interp(amplitude[i].cpu().numpy().ravel(), at[i], square[i]) for i in range(n)]
        )
        scale = behind.diagonal().clamp(min=1e-300)
        shape = torch.from_numpy(own).to(amplitude).view_as(amplitude)
        return behind.rescaled((shape / scale[..., None]).clamp(min=0.0).sqrt())  # type: ignore[attr-defined, no-any-return]

    def rescaled(self, amplitude: Tensor) -> StationaryState:
        """The same with these amplitudes, of any mean square."""
        amplitude, square = _unit(amplitude)
        root = square[:, 0].sqrt()
        second, cross = self._with_pairs(lambda pairs, right: pairs * self.outer(root, right(root)))
        return replace(self, second=second, cross=cross, mean=self.mean * root, amplitude=amplitude)

    def _mixed(self, parts: Sequence[tuple[State, float]]) -> Tensor:
        weights = [weight * state.diagonal()[..., None] for state, weight in parts]
        squares = [
            weight * state.amplitude.square()  # type: ignore[union-attr]
            for weight, (state, _) in zip(weights, parts, strict=True)
        ]
        total = torch.stack(weights).sum(0).clamp(min=1e-300)
        return (torch.stack(squares).sum(0) / total).sqrt()

    def settled(self) -> State:
        """The same, at all pairs where the maps are small enough."""
        return self.at_all_pairs() if is_exact_size(self.height, self.width) else self

    def at_all_pairs(self) -> ExactState:
        """The state at all pairs of positions that these lags and amplitudes imply."""
        rows, columns = (
            torch.arange(n, device=self.second.device) for n in (self.height, self.width)
        )
        # From x to x' the lag is x' - x.
        down = (rows - rows[:, None])[:, None, :, None]
        across = (columns - columns[:, None])[None, :, None, :]
        n = self.height * self.width
        flat = self.amplitude.flatten(1)

        def spread(pairs: Tensor, right: Callable[[Tensor], Tensor]) -> Tensor:
            level = self.diagonal().sqrt()
            most = self.outer(level, right(level))
            held = torch.minimum(torch.maximum(pairs, -most), most)
            values = held[:, down, across].reshape(len(pairs), n, n)
            return values * (flat[:, :, None] * right(flat)[:, None, :])

        second, cross = self._with_pairs(spread)
        return ExactState(
            self.height, self.width, second, self.mean * flat, cross, self.is_gaussian, self.roots
        )

    def ring_power(self, edges: str) -> np.ndarray[Any, Any]:
        """Expected power in every ring, with the amplitude as a part of the taper."""
        ring = rings(self.height, self.width)
        if edges == "periodic":
            lags = self.second * _weighted(self.amplitude, "none")
            return ring.mean(power_of_lags(lags, edges).cpu().numpy())
        window = _window(self.height, self.width, edges).to(self.amplitude)
        weighted = window * self.amplitude
        size = (2 * self.height, 2 * self.width)
        pairs = self.second * _autocorrelation(weighted)
        pairs[..., self.height, :], pairs[..., self.width] = 0.0, 0.0
        for axis in (-2, -1):
            first, second = pairs.chunk(2, dim=axis)
            pairs = first + second
        power = torch.fft.fft2(pairs).real
        product = torch.fft.rfft2(self.second) * torch.fft.rfft2(weighted, s=size)
        smoothed = torch.fft.irfft2(product, s=size)[..., : self.height, : self.width] * weighted
        total = window.sum()
        cross = torch.fft.fft2(smoothed) / total  # E[F m]
        square = smoothed.sum((-2, -1), keepdim=True) / total**2  # E[m^2]
        constant = torch.fft.fft2(window)
        power = power - 2 * (constant.conj() * cross).real + constant.abs().square() * square
        return ring.mean((power / window.square().sum()).cpu().numpy())


def _box_sum(maps: Tensor, rows: Window, columns: Window) -> Tensor:
    """Sums over the taps of windows, zeros outside, (N, H, W) -> (N, H', W')."""
    for axis, window in ((1, rows), (2, columns)):
        shape = list(maps.shape)
        shape[axis] = window.n_out
        total = maps.new_zeros(shape)
        for offset in range(window.kernel):
            to, of = taken(window, offset)
            index = (slice(None),) * axis
            total[(*index, to)] += maps[(*index, of)]
        maps = total
    return maps


def _lag_map(side: int, n_out: int, stride: int, weights: Sequence[float] | np.ndarray) -> Tensor:
    """Lag h of the output as a sum over lags stride h + d of the input, d around 0, (2n', 2n).

    Lags that the input does not have are taken as its longest.
    """
    lag = torch.arange(-n_out, n_out).roll(n_out)
    found = torch.zeros(2 * n_out, 2 * side, dtype=torch.float64)
    reach = len(weights) // 2
    for place, weight in enumerate(weights):
        source = (stride * lag + place - reach).clamp(1 - side, side - 1)
        found[torch.arange(2 * n_out), source] += weight
    found[n_out] = 0.0
    return found


def state_of_maps(maps: Tensor, edges: str = "sine", *, with_cross: bool = False) -> State:
    """The state of given values, exact where the maps are small enough.

    Args:
        maps: (N, C, H, W).
        edges: edge treatment, whose taper weights the lags of large maps.
        with_cross: follow the covariance between each image and the next, too.

    >>> state_of_maps(torch.ones(1, 3, 8, 8)).form, state_of_maps(torch.ones(1, 3, 64, 64)).form
    ('exact', 'stationary')
    """
    if is_exact_size(*maps.shape[-2:]):
        return ExactState.of_maps(maps, with_cross=with_cross)
    return StationaryState.of_maps(maps, edges, with_cross=with_cross)

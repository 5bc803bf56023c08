"""The state of a value at lags alone: for maps too large for all pairs, borders ignored.

Every image is taken for a stationary field: its second moment is a function of the lag, and its
mean a number. The lags are those of the image under the taper, so that what the images themselves
are expected to show is what they show:

    C(h) = sum_x w(x) w(x + h) u(x) u(x + h) / sum_x w(x) w(x + h).

A convolution with independent weights leaves such a field's correlation as it is. Where the maps
have become small enough the state turns into one of all pairs, and borders count from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from natstats.spectra.edges import axis_taper
from natstats.spectra.frequencies import rings
from natstats.theory.covariances import power_of_lags
from natstats.theory.exact_states import ExactState, is_exact_size
from natstats.theory.random_states import State, Window, new_root

__all__ = ["StationaryState", "state_of_maps", "taper_overlap"]

_LEAST_OVERLAP = 1e-3
"""Share of the pairs at lag 0 below which a lag counts as having no pairs."""


def _taper(n: int, edges: str) -> Tensor:
    return torch.from_numpy(axis_taper(n, edges))


def taper_overlap(height: int, width: int, edges: str) -> Tensor:
    """Autocorrelation of the taper at lags in FFT order, (2H, 2W); 1 at lag 0.

    >>> taper_overlap(2, 2, "none")[0]
    tensor([1.0000, 0.5000, 0.0000, 0.5000], dtype=torch.float64)
    """
    axes = []
    for n in (height, width):
        power = torch.fft.rfft(_taper(n, edges), n=2 * n).abs().square()
        overlap = torch.fft.irfft(power, n=2 * n)
        overlap[n] = 0.0
        axes.append(overlap / overlap[0])
    return axes[0][:, None] * axes[1]


def _lag_moments(maps: Tensor, other: Tensor, edges: str) -> Tensor:
    """Second moment at lags under the taper, averaged over channels, (N, 2H, 2W)."""
    height, width = maps.shape[-2:]
    size = (2 * height, 2 * width)
    rows, columns = (_taper(n, edges) for n in (height, width))
    window = (rows[:, None] * columns).to(maps)
    # The mean goes first and comes back: sums of pairs that are few lose nothing to it.
    level = [((x * window).sum((-2, -1), keepdim=True) / window.sum()) for x in (maps, other)]
    one, two = (
        torch.fft.rfft2((x - m) * window, s=size)
        for x, m in zip((maps, other), level, strict=True)
    )
    lags = torch.fft.irfft2((one.conj() * two).mean(1), s=size)
    overlap = taper_overlap(height, width, edges).to(maps) * window.square().sum()
    floor = _LEAST_OVERLAP * float(overlap[0, 0])
    return lags / overlap.clamp(min=floor) + (level[0] * level[1]).mean(1)


class StationaryState(State):
    """Second moments at lags in FFT order, (N, 2H, 2W), and one mean for each image, (N, 1)."""

    form = "stationary"

    @classmethod
    def of_maps(
        cls, maps: Tensor, edges: str = "sine", *, with_cross: bool = False
    ) -> StationaryState:
        """The state of given values.

        Args:
            maps: (N, C, H, W).
            edges: edge treatment, whose taper the lags are taken under.
            with_cross: follow the covariance between each image and the next, too.
        """
        maps = maps.double()
        height, width = maps.shape[-2:]
        second = _lag_moments(maps, maps, edges)
        cross = _lag_moments(maps, maps.roll(-1, 0), edges) if with_cross else None
        mean = maps.mean((1, 2, 3))[:, None]
        return cls(height, width, second, mean, cross, False, new_root())

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        return (left * right)[..., None]

    def diagonal(self) -> Tensor:
        return self.second[:, 0, :1]

    def position_means(self, pairs: Tensor) -> Tensor:
        overlap = taper_overlap(self.height, self.width, "none").to(pairs)
        return ((pairs * overlap).sum((-2, -1)) / overlap.sum())[:, None]

    def _swapped(self, cross: Tensor) -> Tensor:
        return cross  # the mean over all lags has no direction

    def _through(self, height: int, width: int, rows: Tensor, columns: Tensor) -> StationaryState:
        """At other lags, each a sum of these: (2H', 2H) and (2W', 2W)."""
        rows, columns = rows.to(self.second), columns.to(self.second)
        second, cross = self._with_pairs(lambda pairs, right: rows @ pairs @ columns.mT)
        return replace(
            self, height=height, width=width, second=second, cross=cross, origin=None
        )

    def convolved(
        self, rows: Window, columns: Window, gain: float, bias: float, *, is_gaussian: bool
    ) -> State:
        height, width = rows.n_out, columns.n_out
        state = self._through(
            height,
            width,
            _lag_map(self.height, height, rows.stride, [1.0]),
            _lag_map(self.width, width, columns.stride, [1.0]),
        )
        taps = rows.kernel * columns.kernel
        second, cross = state._with_pairs(lambda pairs, right: gain * taps * pairs + bias)
        return StationaryState(
            height,
            width,
            second,
            torch.zeros_like(self.mean),
            cross,
            is_gaussian,
            new_root(),
        ).settled()

    def averaged(self, rows: Tensor, columns: Tensor, step: tuple[Window, Window]) -> State:
        height, width = len(rows), len(columns)
        maps = []
        for side, n_out, window in (
            (self.height, height, step[0]), (self.width, width, step[1])
        ):  # fmt: skip
            box = np.full(window.kernel, 1 / window.kernel)
            maps.append(_lag_map(side, n_out, window.stride, np.convolve(box, box)))
        return self._through(height, width, *maps).settled()

    def padded(self, rows: Sequence[int], columns: Sequence[int]) -> State:
        height, width = len(rows), len(columns)
        return self._through(
            height,
            width,
            _lag_map(self.height, height, 1, [1.0]),
            _lag_map(self.width, width, 1, [1.0]),
        ).settled()

    def settled(self) -> State:
        """The same, at all pairs where the maps are small enough."""
        return self.at_all_pairs() if is_exact_size(self.height, self.width) else self

    def at_all_pairs(self) -> ExactState:
        """The same as if it were known at all pairs of positions."""
        rows, columns = (
            torch.arange(n, device=self.second.device) for n in (self.height, self.width)
        )
        # From x to x' the lag is x' - x.
        down = (rows - rows[:, None])[:, None, :, None]
        across = (columns - columns[:, None])[None, :, None, :]
        n = self.height * self.width

        def spread(pairs: Tensor, right: object) -> Tensor:
            return pairs[:, down, across].reshape(len(pairs), n, n)

        second, cross = self._with_pairs(spread)
        mean = self.mean.expand(-1, n).contiguous()
        return ExactState(
            self.height, self.width, second, mean, cross, self.is_gaussian, self.roots
        )

    def ring_power(self, edges: str) -> np.ndarray:
        plane = power_of_lags(self.second, edges).cpu().numpy()
        return rings(self.height, self.width).mean(plane)


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
        edges: edge treatment, whose taper the lags of large maps are taken under.
        with_cross: follow the covariance between each image and the next, too.

    >>> state_of_maps(torch.ones(1, 3, 8, 8)).form, state_of_maps(torch.ones(1, 3, 64, 64)).form
    ('exact', 'stationary')
    """
    if is_exact_size(*maps.shape[-2:]):
        return ExactState.of_maps(maps, with_cross=with_cross)
    return StationaryState.of_maps(maps, edges, with_cross=with_cross)

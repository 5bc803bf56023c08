"""Moments of the input of an activation function, summed during a pass, for its Gaussian part.

Of each channel the mean, and the mean product of values at every lag, are taken over all images;
every pixel is weighted with the taper, so that the spectrum of these moments is the measured one.
From them follows what the function would do to a Gaussian field with the same moments, and so to
its spectrum (:mod:`natstats.theory.rectifiers`).

Its errors are found by leaving out blocks of groups of images. When a block is left out, a function
of sums changes, to first order, by its derivative in the sums; so the costly part is done once.
With a_k the Hermite coefficients of the function for mean m and variance v, and r the correlation
at a lag, the covariance of the output is sum_k a_k^2 r^k (k from 1), and

    its derivative in the covariance at that lag   sum_k k a_k^2 r^(k-1) / v,
    in the mean                                     2 sum_k a_k a_(k+1) sqrt(k+1) r^k / sqrt(v),
    in the variance              sum_k a_k a_(k+2) sqrt((k+1) (k+2)) r^k / v,

the last two by integration by parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats import checks
from natstats.spectra.edges import axis_taper
from natstats.spectra.frequencies import rings
from natstats.theory.account_spectra import GaussianPart
from natstats.theory.activation_functions import hermite_coefficients, second_moment
from natstats.theory.activation_kinds import Activation
from natstats.theory.covariances import overlap, power_of_lags
from natstats.theory.filters import in_pieces
from natstats.theory.rectifiers import N_TERMS, variance_of_terms

__all__ = ["MomentSums"]

N_TERMS_OF_ERRORS = 12
"""Powers in the derivatives of the covariance, which are used for errors only."""

_CHANNEL_BYTES = 1 << 21
"""Size of one array of lags of some channels: a CPU's cache."""


_SUMS = ("power", "total", "maps", "count")


class MomentSums:
    """Sums the moments of the maps that an activation function takes.

    Args:
        size: (H, W) of the maps, pixels.
        edges: edge treatment.
        channels: number of maps.
        function: the activation function.
        n_blocks: blocks of images that can be left out.
        device: where the sums live.
    """

    def __init__(
        self,
        size: tuple[int, int],
        edges: str,
        channels: int,
        function: Activation,
        n_blocks: int,
        device: torch.device,
    ) -> None:
        self.size, self.edges, self.function = size, edges, function
        height, width = size
        self.power = torch.zeros(n_blocks, channels, 2 * height, width + 1, device=device)
        self.total = torch.zeros(n_blocks, channels, dtype=torch.float64, device=device)
        self.maps = torch.zeros(channels, height, width, dtype=torch.float64, device=device)
        self.count = torch.zeros(n_blocks, dtype=torch.int64, device=device)
        tapers = [torch.from_numpy(axis_taper(side, edges)) for side in size]
        self._taper = torch.outer(*tapers).to(device, torch.float32)
        self._centre: Tensor | None = None

    @staticmethod
    def bytes_of(size: tuple[int, int], channels: int, n_blocks: int) -> int:
        """Memory that the sums take, bytes."""
        return 8 * n_blocks * channels * size[0] * (size[1] + 1)

    def prepared(self, maps: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What a batch adds, for :meth:`add`: taken before the function may write into the maps.

        Args:
            maps: (N, C, H, W).

        Returns:
            For a few images at a time, the maps less the centre, tapered, and their squared
            transforms when padded with zeros to twice the size.
        """
        maps = maps.float()
        if self._centre is None:
            # Products of values far from zero would lose digits.
            self._centre = maps.mean((0, 2, 3), keepdim=True).nan_to_num(0.0, 0.0, 0.0)
        size = [2 * side for side in self.size]
        pieces = []
        for piece in in_pieces(maps, 4):
            own = (piece - self._centre) * self._taper
            raw = torch.view_as_real(torch.fft.rfft2(own, s=size)).square_()
            pieces.append((own, raw[..., 0] + raw[..., 1]))
        return pieces

    def add(self, prepared: list[tuple[Tensor, Tensor]], block: Tensor) -> None:
        """Add a batch.

        Args:
            prepared: what :meth:`prepared` gave.
            block: block of each image, (N,); -1 for an image that is left out.
        """
        first = 0
        for maps, power in prepared:
            own = block[first : first + len(maps)]
            first += len(maps)
            inside = own >= 0
            mean = (maps * self._taper).sum((2, 3)).double() / self._taper.square().sum()
            self.power.index_add_(0, own[inside], power[inside])
            self.total.index_add_(0, own[inside], mean[inside])
            self.maps += maps[inside].sum(0)
        self.count += torch.bincount(block[block >= 0], minlength=len(self.count))

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a copy: tensors and plain values."""
        return {
            **{name: getattr(self, name).clone() for name in _SUMS},
            "centre": None if self._centre is None else self._centre.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            UsageError: keys are missing or unexpected, or it is of other maps.
        """
        own = {name: getattr(self, name) for name in _SUMS}
        shapes = {name: tuple(mine.shape) for name, mine in own.items()}
        checks.state_keys("moments", state, (*_SUMS, "centre"), shapes, ("after",))
        centre = state["centre"]
        if centre is not None:
            checks.shaped("state: centre of moments", centre, (1, len(self.maps), 1, 1))
        for name, mine in own.items():
            mine.copy_(state[name])
        self._centre = None if centre is None else centre.clone().to(self.power.device)

    def result(self) -> GaussianPart | None:
        """Spectra before and after, of all images and without each block.

        None with fewer than two blocks that have images.
        """
        filled = self.count > 0
        count = self.count[filled]
        if len(count) < 2 or self._centre is None:
            return None
        height, width = self.size
        step = max(1, _CHANNEL_BYTES // (8 * 2 * height * (width + 1)))
        device = self.power.device
        tapers = [torch.from_numpy(axis_taper(side, self.edges)) for side in self.size]
        window = torch.outer(*tapers).to(device)
        pairs = overlap(height, width, self.edges, device)[:, : width + 1]
        pairs = torch.where(pairs > 0, pairs, torch.inf)  # no pixels are so far apart
        whole: list[Tensor] = []
        for first in range(0, self.total.shape[1], step):
            own = slice(first, first + step)
            one = _Channels(
                self.size,
                pairs,
                _both_means(self.maps[own] / count.sum(), window) / pairs,
                self.power[filled, own],
                self.total[filled, own],
                count,
                self._centre[0, own, 0, 0].double(),
            )
            lags = torch.stack(one.before_and_after(self.function))
            whole = [lags if not whole else whole[0] + lags]
        ring = rings(height, width)
        power = power_of_lags(_mirrored(whole[0]), self.edges).cpu().numpy()
        # Where a block has no images, nothing is left out.
        place = torch.cumsum(filled, 0) * filled
        kept = np.concatenate([[0], place.cpu().numpy()])
        before, after = ring.mean(power)[:, kept]
        return GaussianPart(before, after, self.count.cpu().numpy())


@dataclass(frozen=True, eq=False)
class _Channels:
    """The moments of some channels. Lags are those of a half plane, (2H, W + 1), in FFT order.

    Attributes:
        size: (H, W) of the maps.
        pairs: products of the taper with itself, summed at every lag, (2H, W + 1).
        means: mean map at one end of a lag plus at the other, mean over its pairs, (C, 2H, W + 1).
        power: squared transforms summed over the images of each block, (B, C, 2H, W + 1).
        total: means of the maps, less the centre, summed over the images of each block, (B, C).
        count: images in each block, (B,).
        centre: what was subtracted from the values, (C,).
    """

    size: tuple[int, int]
    pairs: Tensor
    means: Tensor
    power: Tensor
    total: Tensor
    count: Tensor
    centre: Tensor

    def before_and_after(self, function: Activation) -> tuple[Tensor, Tensor]:
        """Covariance summed over channels: of all images, then without each block.

        Returns:
            Twice (1 + B, 2H, W + 1).
        """
        n_images = int(self.count.sum())
        moments = self._moments(self.power.sum(0))
        mean = self.total.sum(0) / n_images
        covariance = self._about(moments / n_images, mean)
        series = _Series(function, mean + self.centre, covariance)
        in_lag, in_mean, in_variance = series.derivatives()
        before, after = [covariance.sum(0)], [series.value().sum(0)]
        # The change by a block is computed with fewer digits, which is much faster.
        whole, means = (moments / n_images).float(), self.means.float()
        for power, total, count in zip(self.power, self.total, self.count.tolist(), strict=True):
            rest = n_images - count
            own_mean = (self.total.sum(0) - total) / rest
            shift = (own_mean - mean)[:, None, None].float()
            change = (whole * count - self._moments(power, torch.float32)) / rest
            # The mean of a block is taken to differ by the same amount at every place.
            change -= shift * (means + 2 * own_mean[:, None, None].float())
            change += (own_mean**2 - mean**2)[:, None, None].float()
            before.append(before[0] + change.sum(0))
            moved = in_mean * shift + in_variance * change[:, :1, :1]
            moved += change.mul_(in_lag)
            after.append(after[0] + moved.sum(0))
        return torch.stack(before), torch.stack(after)

    def _about(self, moments: Tensor, mean: Tensor) -> Tensor:
        """Mean products of values less the mean, where the mean map is not constant."""
        level = mean[:, None, None]
        return moments - level * self.means + level**2

    def _moments(self, power: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Products summed at each lag, over its pairs, from squared transforms, (C, 2H, W + 1)."""
        height, width = self.size
        lags: Tensor = torch.fft.irfft2(power, s=(2 * height, 2 * width))
        return lags[..., : width + 1].to(dtype) / self.pairs.to(dtype)


class _Series:
    """The covariance of the output of an activation function, as a series in the correlation.

    Args:
        function: the activation function.
        mean: of its input, (C,).
        covariance: of its input, (C, ...), the variance first.
    """

    def __init__(self, function: Activation, mean: Tensor, covariance: Tensor) -> None:
        self._variance = covariance[:, 0, 0].clamp(min=0.0)
        host = mean.cpu().numpy(), self._variance.sqrt().cpu().numpy()
        found = hermite_coefficients(function, *host, n_terms=N_TERMS + 2)
        self._terms = torch.from_numpy(found).to(mean.device)
        shares = variance_of_terms(found[: N_TERMS + 1], second_moment(function, *host))
        self._shares = torch.from_numpy(shares).to(mean.device)
        safe = torch.where(self._variance > 0, self._variance, torch.inf)
        self._scale = 1 / safe
        # An estimate at a lag of few pairs may be larger than the variance.
        self._correlation = (covariance * self._scale[:, None, None]).clamp(-1.0, 1.0)

    def value(self) -> Tensor:
        """The covariance of the output, (C, ...)."""
        zero = torch.zeros_like(self._shares[:1])
        return _polynomial(torch.cat([zero, self._shares]), self._correlation)

    def derivatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """In the covariance at the lag, the mean and the variance, each (C, ...)."""
        terms = self._terms[: N_TERMS_OF_ERRORS + 3]
        k = torch.arange(1.0, N_TERMS_OF_ERRORS + 1, device=terms.device)[:, None]
        zero = torch.zeros_like(terms[:1])
        here, one_on, two_on = terms[1:-2], terms[2:-1], terms[3:]
        in_lag = k * here**2 * self._scale
        in_mean = torch.cat([zero, 2 * here * one_on * (k + 1).sqrt() * self._scale.sqrt()])
        in_variance = torch.cat([zero, here * two_on * ((k + 1) * (k + 2)).sqrt() * self._scale])
        # They are used for errors only.
        correlation = self._correlation.float()
        lag, mean, variance = (
            _polynomial(one.float(), correlation) for one in (in_lag, in_mean, in_variance)
        )
        return lag, mean, variance


def _polynomial(terms: Tensor, x: Tensor) -> Tensor:
    """Sum of terms (K, C) times the powers 0 .. K - 1 of x (C, ...), by Horner's rule."""
    found = terms[-1, :, None, None].expand_as(x).clone()
    for term in terms[:-1].flip(0):
        found.mul_(x).add_(term[:, None, None])
    return found


def _mirrored(half: Tensor) -> Tensor:
    """All lags from those of a half plane, (..., 2H, W + 1) -> (..., 2H, 2W): C(-h) = C(h)."""
    back = half[..., 1:-1].flip(-1, -2).roll(1, -2)
    return torch.cat([half, back], -1)


def _both_means(maps: Tensor, window: Tensor) -> Tensor:
    """Sum over all pairs of a lag of the mean map (tapered) at one end and at the other."""
    size = [2 * side for side in window.shape]
    product = torch.fft.rfft2(maps, s=size) * torch.fft.rfft2(window, s=size).conj()
    lags: Tensor = torch.fft.irfft2(2 * product.real, s=size)
    return lags[..., : window.shape[1] + 1]

"""Control terms, which compare maps in other ways, to show what the power spectrum does itself.

A map is its amplitudes and its phases. ``amplitude`` compares all amplitudes where the ring
spectrum compares their mean over directions; ``phase`` compares the phases alone; ``coherence``
both, ring by ring; ``spatial`` is the plain squared distance of the maps, which by Parseval's
theorem is that of amplitudes and phases together. The last three need channel against channel, so
a 1 x 1 convolution takes the student's channels to the teacher's. All are matched in scale: each
is free of the gain of the maps and lies in [0, 2] or, for ``amplitude``, is in squared natural
logarithms as the ring spectrum is. All but ``spatial`` give every octave the same weight under the
same sine taper, as the ring spectrum does; ``spatial`` weights frequencies by their power.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats.distill.losses.connectors import connected
from natstats.distill.losses.maps import PairedLoss, channel_connectors, pooled
from natstats.distill.losses.ring_comparison import DEAD, FLOOR
from natstats.distill.method import DistillationLoss, TapPoint
from natstats.errors import UsageError

__all__ = [
    "CONTROLS",
    "AmplitudeDistance",
    "Coherence",
    "PhaseDistance",
    "SpatialDistance",
    "common_plane",
    "radius",
    "sine",
    "smaller_side",
]

_TINY = 1e-30
"""Keeps quotients and logarithms finite where the teacher's map, too, is constant."""


def common_plane(maps: Tensor, side: int, taper: Tensor | None = None) -> Tensor:
    """Fourier coefficients at the frequencies below `side` / 2 cycles/image on both axes.

    Args:
        maps: (N, C, H, W), float32 or float64.
        side: 2 K; frequencies -K < ky < K and 0 <= kx < K are kept.
        taper: (H, W). The mean of the maps, weighted by the taper, is subtracted and the rest
            multiplied by the taper, so that nothing of the mean leaks into the lowest frequencies.

    Returns:
        (N, C, 2 K - 1, K), complex, orthonormal; DC is 0.

    >>> common_plane(torch.randn(1, 2, 16, 16), 8).shape
    torch.Size([1, 2, 7, 4])
    """
    if taper is None:
        tapered = maps - maps.mean(dim=(2, 3), keepdim=True)
    else:
        taper = taper.to(maps.dtype)
        tapered = (maps - (maps * taper).sum((2, 3), keepdim=True) / taper.sum()) * taper
    plane = torch.fft.rfft2(tapered, norm="ortho")
    half = side // 2
    rows = torch.cat([plane[..., :half, :half], plane[..., 1 - half :, :half]], dim=2)
    mask = torch.ones(rows.shape[2:], dtype=maps.dtype, device=maps.device)
    mask[0, 0] = 0.0
    return rows * mask


def sine(height: int, width: int) -> Tensor:
    """The sine taper of a map, (H, W).

    >>> sine(2, 2)
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    axes = [torch.sin(torch.pi * (torch.arange(n) + 0.5) / n) for n in (height, width)]
    return axes[0][:, None] * axes[1][None, :]


def smaller_side(student: TapPoint, teacher: TapPoint) -> int:
    """The shortest side of two maps, which limits the frequencies that both have.

    Raises:
        UsageError: it is below 4 pixels.

    >>> smaller_side(TapPoint("s", 4, 8, 6), TapPoint("t", 4, 16, 16))
    6
    """
    side = min(student.height, student.width, teacher.height, teacher.width)
    if side < 4:
        raise UsageError(
            f"taps: expected maps of at least 4 x 4 pixels; got {student.name} and {teacher.name} "
            f"with {side}"
        )
    return side


def radius(half: int) -> NDArray[np.float64]:
    """Frequency of every coefficient of :func:`common_plane`, cycles/image, (2 K - 1, K).

    >>> radius(2).tolist()[0]
    [0.0, 1.0]
    """
    rows = np.concatenate([np.arange(half), np.arange(1 - half, 0)])
    return np.asarray(np.hypot(rows[:, None], np.arange(half)[None]))


def _counts(half: int) -> NDArray[np.float64]:
    """How often each coefficient of the half plane occurs in the full plane; DC does not count."""
    counts = np.full((2 * half - 1, half), 2.0)
    counts[:, 0] = 1.0
    counts[0, 0] = 0.0
    return counts


class _Control(PairedLoss):
    """Mean over the pairs of taps of a distance between Fourier coefficients.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.
    """

    has_connectors = True

    def __init__(self, student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> None:
        super().__init__(len(student))
        pairs = list(zip(student, teacher, strict=True))
        self.sides = [smaller_side(*pair) for pair in pairs]
        if self.has_connectors:
            self.connectors = channel_connectors(student, teacher)
        for index, (mine, theirs) in enumerate(pairs):
            for name, point in (("student", mine), ("teacher", theirs)):
                taper = sine(point.height, point.width)
                self.register_buffer(f"_{name}_taper_{index}", taper, persistent=False)
            weights = torch.tensor(self.weights(self.sides[index] // 2), dtype=torch.float32)
            self.register_buffer(f"_weights_{index}", weights, persistent=False)

    def weights(self, half: int) -> NDArray[np.float64]:
        """Weights of the coefficients (2 K - 1, K), of sum 1: every octave counts the same.

        The coefficients at a frequency f are in proportion to f, so each counts as 1 / f^2 where a
        ring counts as 1 / f.
        """
        weights = _counts(half) / np.maximum(radius(half), 1.0) ** 2
        return np.asarray(weights / weights.sum())

    def distance(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        """Distance of each image, (N,), from complex coefficients (N, C, 2 K - 1, K).

        Args:
            student: coefficients of the student's maps, after its connector.
            teacher: coefficients of the teacher's maps.
            weights: what :meth:`weights` gave.
        """
        raise NotImplementedError

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps."""
        if self.has_connectors:
            student = connected(self.connectors[index], student)
        planes = [
            common_plane(maps, self.sides[index], getattr(self, f"_{name}_taper_{index}"))
            for name, maps in (("student", student), ("teacher", teacher))
        ]
        weights = getattr(self, f"_weights_{index}").to(planes[0].real.dtype)
        return self.distance(planes[0], planes[1], weights).mean()


class AmplitudeDistance(_Control):
    """Squared distance of the logarithms of the two-dimensional power spectra.

    The power is averaged over channels, as for the rings. For an image and d(k) the difference of
    the logarithms at the frequency k of the plane: sum_k w(k) (d(k) - m)^2, w proportional to
    1 / |k|^2 with sum 1, m the mean of d under w.

    >>> from natstats.distill import Outputs
    >>> taps = [TapPoint("layer", 4, 16, 16)]
    >>> outputs = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
    >>> loss = AmplitudeDistance(taps, taps)(outputs, outputs, torch.zeros(2))
    >>> bool(0 <= loss.detach() < 2)
    True
    """

    has_connectors = False

    def distance(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        """Distance of each image, (N,)."""
        counted = weights > 0
        powers = [_power(plane).mean(1) for plane in (student, teacher)]
        means = [
            (power.detach() * counted).sum((1, 2), keepdim=True) / counted.sum() for power in powers
        ]
        # The student's floor has a share of the teacher's mean too: see log_power.
        floors = FLOOR * means[0] + DEAD * means[1] + _TINY, FLOOR * means[1] + _TINY
        difference = (powers[0] + floors[0]).log() - (powers[1] + floors[1]).log()
        level = (difference * weights).sum((1, 2), keepdim=True)
        return ((difference - level).square() * weights).sum((1, 2))


def _cross(student: Tensor, teacher: Tensor) -> Tensor:
    """Real part of the cross spectrum."""
    product: Tensor = torch.view_as_real(student) * torch.view_as_real(teacher)
    return product.sum(-1)


def _power(plane: Tensor) -> Tensor:
    return torch.view_as_real(plane).square().sum(-1)


def _floor(power: Tensor, dims: tuple[int, ...]) -> Tensor:
    """What is added to the power of both networks before a quotient, for each image.

    It bounds the gradient of a student with next to no power compared with the teacher.
    """
    return DEAD * power.mean(dims, keepdim=True) + _TINY


class PhaseDistance(_Control):
    """One minus the mean cosine of the differences of phase: amplitudes do not enter.

    The mean is over channels, and over the frequencies k of the plane with 1 / |k|^2.

    >>> from natstats.distill import Outputs
    >>> taps = [TapPoint("layer", 4, 16, 16)]
    >>> outputs = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
    >>> loss = PhaseDistance(taps, taps)(outputs, outputs, torch.zeros(2))
    >>> bool(0 <= loss.detach() < 2)
    True
    """

    def distance(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        """Distance of each image, (N,)."""
        floor = _floor(_power(teacher), (1, 2, 3))
        size = (_power(student) + floor).sqrt() * (_power(teacher) + floor).sqrt()
        cosine = (_cross(student, teacher) / size).mean(1)
        return 1 - (cosine * weights).sum((1, 2))


class Coherence(_Control):
    """One minus the correlation of the coefficients in a ring, mean over octaves.

    For a ring, Re sum F_S conj(F_T) / sqrt(sum |F_S|^2 sum |F_T|^2), summed over the channels and
    the frequencies of the ring: the Fourier ring correlation of microscopy.

    Reference:
        W. O. Saxton and W. Baumeister, "The correlation averaging of a regularly arranged
        bacterial cell envelope protein", Journal of Microscopy 127 (1982), 127-138.

    >>> from natstats.distill import Outputs
    >>> taps = [TapPoint("layer", 4, 16, 16)]
    >>> outputs = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
    >>> loss = Coherence(taps, taps)(outputs, outputs, torch.zeros(2))
    >>> bool(0 <= loss.detach() < 2)
    True
    """

    def weights(self, half: int) -> NDArray[np.float64]:
        """How often each coefficient counts in each ring, ((2 K - 1) K, K - 1)."""
        ring = np.floor(radius(half) + 0.5)
        inside = ring[..., None] == np.arange(1, half)
        return np.asarray(inside * _counts(half)[..., None]).reshape(-1, half - 1)

    def distance(self, student: Tensor, teacher: Tensor, weights: Tensor) -> Tensor:
        """Distance of each image, (N,)."""

        def over_rings(values: Tensor) -> Tensor:
            return values.sum(1).flatten(1) @ weights

        mine, theirs = over_rings(_power(student)), over_rings(_power(teacher))
        floor = _floor(theirs, (1,))
        size = (mine + floor).sqrt() * (theirs + floor).sqrt()
        correlation = over_rings(_cross(student, teacher)) / size
        octaves = 1 / torch.arange(1, weights.shape[1] + 1).to(weights)
        return 1 - correlation @ (octaves / octaves.sum())


class SpatialDistance(PairedLoss):
    """Squared distance of the maps, scaled to unit power in each image first.

    Half the squared distance of two vectors of length 1, which is 1 minus their correlation, over
    channels and pixels, without the maps' means. The larger map is averaged down to the smaller.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.

    >>> from natstats.distill import Outputs
    >>> taps = [TapPoint("layer", 4, 16, 16)]
    >>> outputs = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
    >>> loss = SpatialDistance(taps, taps)(outputs, outputs, torch.zeros(2))
    >>> bool(0 <= loss.detach() < 2)
    True
    """

    def __init__(self, student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> None:
        super().__init__(len(student))
        self.connectors = channel_connectors(student, teacher)

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps."""
        mine, theirs = (
            (maps - maps.mean(dim=(2, 3), keepdim=True)).flatten(1)
            for maps in pooled(connected(self.connectors[index], student), teacher)
        )
        floor = DEAD * theirs.square().sum(1, keepdim=True) + _TINY
        units = [
            maps / (maps.square().sum(1, keepdim=True) + floor).sqrt() for maps in (mine, theirs)
        ]
        return (units[0] - units[1]).square().sum(1).mean() / 2


CONTROLS: Mapping[str, Callable[[Sequence[TapPoint], Sequence[TapPoint]], DistillationLoss]] = (
    MappingProxyType(
        {
            "amplitude": AmplitudeDistance,
            "phase": PhaseDistance,
            "coherence": Coherence,
            "spatial": SpatialDistance,
        }
    )
)
"""The terms by name."""

"""Power spectra channel by channel, where the term *spectrum* compares their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from natstats.distill.losses.ring_comparison import FLOOR, RingComparison
from natstats.distill.method import DistillationLoss, Outputs, TapPoint, float_maps
from natstats.errors import UsageError
from natstats.spectra import power_spectrum
from natstats.transforms import full_precision

__all__ = ["ChannelSpectra", "channel_log_power"]

_TINY = 1e-30


def channel_log_power(maps: Tensor, edges: str = "sine") -> Tensor:
    """Natural logarithm of the ring power of every channel, (N, C, n_rings).

    The floor is relative to the mean power of all channels of the image: a channel that is silent
    there says so, and no more.

    Args:
        maps: (N, C, H, W), float32.
        edges: edge treatment, see :mod:`natstats.edges`.

    >>> channel_log_power(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 3, 8])
    """
    n_images, n_channels, height, width = maps.shape
    power = power_spectrum(maps.reshape(-1, 1, height, width), edges)
    power = power.view(n_images, n_channels, -1)
    floor = FLOOR * power.detach().mean(dim=(1, 2), keepdim=True) + _TINY
    return (power + floor).log()


class ChannelSpectra(DistillationLoss):
    """Squared distance of the log ring spectra of matched channels.

    A 1 x 1 convolution takes the student's channels to the teacher's. For an image and d the
    difference of the log ring power of student and teacher, (C, n): the mean over channels and
    octaves of (d - m)^2, m the mean of d over both; so the overall gain of the maps is free, and
    how the power is shared among channels and frequencies is not. Mean over images and pairs.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.

    Example:
        >>> points = [TapPoint("layer", 4, 16, 16)]
        >>> loss = ChannelSpectra(points, points)
        >>> maps = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
        >>> bool(loss(maps, maps, torch.zeros(2)) > 0)  # the connector is random
        True
    """

    reduction = "mean over channels, octaves, images and pairs"

    def __init__(self, student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> None:
        super().__init__()
        pairs = list(zip(student, teacher, strict=True))
        self.connectors = nn.ModuleList(
            nn.Conv2d(mine.channels, theirs.channels, 1, bias=False) for mine, theirs in pairs
        )
        self.comparisons = nn.ModuleList(
            RingComparison((mine.height, mine.width), (theirs.height, theirs.width))
            for mine, theirs in pairs
        )

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32."""
        if not len(student.maps) == len(teacher.maps) == len(self.connectors):
            raise UsageError(
                f"maps: expected {len(self.connectors)} of student and teacher; got "
                f"{len(student.maps)} and {len(teacher.maps)}"
            )
        with full_precision(student.maps[0].device):
            pairs = zip(float_maps(student), float_maps(teacher), strict=True)
            return torch.stack([self._of_pair(n, *pair) for n, pair in enumerate(pairs)]).mean()

    def _of_pair(self, place: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps."""
        comparison = cast("RingComparison", self.comparisons[place])
        mine = channel_log_power(self.connectors[place](student))
        with torch.no_grad():
            theirs = channel_log_power(teacher.detach())
        difference = comparison.common(mine, "student") - comparison.common(theirs, "teacher")
        weighted = difference @ comparison.weights
        centred = difference - weighted.mean(dim=1)[:, None, None]
        return (centred.square() @ comparison.weights).mean()

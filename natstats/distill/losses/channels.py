"""Power spectra compared channel by channel; the term *spectrum* compares their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from natstats.distill.losses.connectors import connected
from natstats.distill.losses.maps import PairedLoss, channel_connectors
from natstats.distill.losses.ring_comparison import RingComparison, log_power, ring_comparisons
from natstats.distill.method import TapPoint
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.edge_names import Edges

__all__ = ["ChannelSpectra", "channel_log_power"]


def channel_log_power(
    maps: Tensor, edges: Edges = "sine", reference: Tensor | None = None
) -> Tensor:
    """Natural logarithm of the ring power of every channel, (N, C, n_rings).

    The floor is relative to the mean power of all channels of the image, so that a channel that is
    silent in it is at the floor and not infinitely low.

    Args:
        maps: (N, C, H, W), float32 or float64.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        reference: logarithms that they will be compared with, see :func:`log_power`.

    >>> channel_log_power(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 3, 8])
    """
    n_images, n_channels, height, width = maps.shape
    power = power_spectrum(maps.reshape(-1, 1, height, width), edges, maps.dtype)
    other = None if reference is None else reference.exp()
    return log_power(power.view(n_images, n_channels, -1), other)


class ChannelSpectra(PairedLoss):
    """Squared distance of the log ring spectra of matched channels.

    A 1 x 1 convolution takes the student's channels to the teacher's. For an image and d the
    difference of the log ring power of student and teacher, (C, n): the mean over channels and
    octaves of (d - m)^2, m the mean of d over both. The overall gain of the maps does not matter;
    how the power is shared among channels and frequencies does. Mean over images and pairs.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.
        weighting: of the frequencies, in place of octaves, see
            :func:`natstats.distill.losses.ring_comparison.frequency_weights`.

    Example:
        >>> points = [TapPoint("layer", 4, 16, 16)]
        >>> loss = ChannelSpectra(points, points)
        >>> from natstats.distill.method import Outputs
        >>> maps = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
        >>> bool(loss(maps, maps, torch.zeros(2)) > 0)  # the connector is random
        True
    """

    reduction = "mean over channels, octaves, images and pairs"

    def __init__(
        self,
        student: Sequence[TapPoint],
        teacher: Sequence[TapPoint],
        weighting: str = "octave",
    ) -> None:
        super().__init__(len(student))
        self.connectors = channel_connectors(student, teacher)
        self.comparisons = ring_comparisons(student, teacher, weighting=weighting)

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps."""
        comparison = cast("RingComparison", self.comparisons[index])
        with torch.no_grad():
            theirs = channel_log_power(teacher)
        mine = channel_log_power(connected(self.connectors[index], student), reference=theirs)
        difference = comparison.common(mine, "student") - comparison.common(theirs, "teacher")
        weights = comparison.weights.to(difference.dtype)
        centred = difference - (difference @ weights).mean(dim=1)[:, None, None]
        return (centred.square() @ weights).mean()

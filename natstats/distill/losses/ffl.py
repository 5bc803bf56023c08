"""Focal frequency loss: the Fourier coefficients that are furthest off count the most."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from natstats.checks import finite
from natstats.distill.losses.connectors import connected
from natstats.distill.losses.maps import (
    PairedLoss,
    channel_connectors,
    paired_taps,
    pooled,
    refuse_other_shape,
)
from natstats.distill.method import Method, Plan, Setting, TapPoint, Term, at_least_float32

__all__ = ["METHOD", "FocalFrequency", "focal_loss"]


def focal_loss(student: Tensor, teacher: Tensor, alpha: float = 1.0) -> Tensor:
    """Mean of w |d|^2, d the difference of the Fourier coefficients of two maps.

    w = (|d| / max |d|)^alpha, with the maximum over the plane of an image and a channel; no
    gradient flows through w. The transform is orthonormal, and the mean is over the whole plane,
    channels and images.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W).
        alpha: how much more the large differences count; 0 for all alike, which is the mean
            squared difference of the maps.

    Reference:
        L. Jiang, B. Dai, W. Wu and C. C. Loy, "Focal Frequency Loss for Image Reconstruction and
        Synthesis", ICCV 2021, arXiv 2012.12821, and its public code. It was made for images;
        using it on maps is ours.

    >>> import torch
    >>> maps = torch.randn(2, 3, 8, 8)
    >>> float(focal_loss(maps, maps))
    0.0
    """
    width = student.shape[-1]
    plane = torch.fft.rfft2(at_least_float32(student) - at_least_float32(teacher), norm="ortho")
    squared = torch.view_as_real(plane).square().sum(-1)
    with torch.no_grad():
        largest = squared.amax((2, 3), keepdim=True)
        # Where the maps are equal, 0 / 0 would give NaN; other NaN are let through.
        share = squared / torch.where(largest == 0, 1.0, largest)
        weights = share.pow(alpha / 2)
        # The columns between the first and that of half the width occur twice in the whole plane.
        weights[..., 1 : (width + 1) // 2] *= 2
    return (weights * squared).sum((2, 3)).mean() / (student.shape[-2] * width)


class FocalFrequency(PairedLoss):
    """:func:`focal_loss` of the student's maps after a 1 x 1 convolution, averaged over pairs.

    The larger map is average-pooled to the size of the smaller.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.
        alpha: see :func:`focal_loss`.

    >>> import torch
    >>> from natstats.distill.method import Outputs
    >>> points = [TapPoint("layer", 4, 8, 8)]
    >>> maps = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 8, 8),))
    >>> bool(FocalFrequency(points, points)(maps, maps, torch.zeros(2)) > 0)  # random connector
    True
    """

    reduction = "weighted squared difference, mean over the plane, channels, images and pairs"
    method = "ffl"

    def __init__(
        self, student: Sequence[TapPoint], teacher: Sequence[TapPoint], alpha: float = 1.0
    ) -> None:
        super().__init__(len(student))
        self.connectors = channel_connectors(student, teacher)
        self.alpha = finite("alpha", alpha, least=0)

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps."""
        mine, theirs = pooled(connected(self.connectors[index], student), teacher)
        refuse_other_shape("ffl", index, mine, theirs)
        return focal_loss(mine, theirs, self.alpha)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    for name in ("weight", "alpha"):
        finite(f"ffl.{name}", arguments[name], least=0)
    paired_taps("ffl", setting)
    loss = FocalFrequency(setting.student, setting.teacher, arguments["alpha"])
    note = "ffl: the weight is that for images, as no published one for distillation is known"
    return Plan((Term("ffl", loss, arguments["weight"]),), notes=(note,))


METHOD = Method(
    name="ffl",
    title="Focal frequency loss",
    paper="Jiang et al. 2021, arXiv 2012.12821",
    reduction=FocalFrequency.reduction,
    defaults={"weight": 1.0, "alpha": 1.0},
    plan=_plan,
    place="groups",
    activation="post",
    connectors="1 x 1 convolution",
)

"""FreeKD: the wavelet detail of the maps, compared under masks made from the teacher's maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from natstats.checks import finite, positive_int
from natstats.distill.losses.connectors import connected
from natstats.distill.losses.maps import (
    PairedLoss,
    channel_connectors,
    paired_taps,
    pooled,
    refuse_other_shape,
)
from natstats.distill.method import Method, Plan, Setting, TapPoint, Term

__all__ = ["METHOD", "DetailDistance", "detail_loss", "haar_details"]


def haar_details(maps: Tensor, n_levels: int = 3) -> list[Tensor]:
    """The detail of maps by the orthonormal Haar wavelet, from fine to coarse.

    At each level, with the pixels a, b above c, d of a block of two by two: (a + b - c - d) / 2,
    (a - b + c - d) / 2 and (a - b - c + d) / 2; the next level takes (a + b + c + d) / 2. A side
    with an odd number of pixels is padded with zeros.

    Args:
        maps: (N, C, H, W).
        n_levels: number of levels.

    Returns:
        For each level, (N, C, 3, ceil(H / 2), ceil(W / 2)), of the H and W of the level before.

    >>> import torch
    >>> [tuple(level.shape) for level in haar_details(torch.zeros(1, 2, 8, 6))]
    [(1, 2, 3, 4, 3), (1, 2, 3, 2, 2), (1, 2, 3, 1, 1)]
    """
    found = []
    for _ in range(n_levels):
        height, width = maps.shape[2:]
        if height % 2 or width % 2:
            maps = functional.pad(maps, (0, width % 2, 0, height % 2))
        a, b, c, d = (maps[..., y::2, x::2] for y in (0, 1) for x in (0, 1))
        found.append(torch.stack([a + b - c - d, a - b + c - d, a - b - c + d], dim=2) / 2)
        maps = (a + b + c + d) / 2
    return found


def detail_loss(student: Tensor, teacher: Tensor, tokens: Tensor) -> Tensor:
    """Absolute difference of the detail of two maps, under masks, summed over levels.

    For a level, with D of the student and the teacher, (C, 3, h, w), and a token p, (C,): the mask
    is m(x) = sigmoid(sum over channels and the three bands of p_c D_T(c, x)), and the loss the
    mean of m |D_S - D_T| over tokens, channels, bands, pixels and images.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W).
        tokens: (levels, T, C).

    Reference:
        Y. Zhang, T. Huang, J. Liu, T. Jiang, K. Cheng and S. Zhang, "FreeKD: Knowledge
        Distillation via Semantic Frequency Prompt", CVPR 2024, and its public code, whose masks
        are by level, and not by the direction of a band.

    >>> import torch
    >>> maps = torch.randn(2, 4, 8, 8)
    >>> float(detail_loss(maps, maps, torch.zeros(3, 2, 4)))
    0.0
    """
    losses = []
    levels = [haar_details(maps, len(tokens)) for maps in (student, teacher)]
    for mine, theirs, token in zip(*levels, tokens, strict=True):
        with torch.no_grad():
            answer = torch.einsum("tc,nchw->nthw", token.to(theirs.dtype), theirs.sum(2))
            # The mask does not depend on the channel: the mean over tokens can be taken first.
            mask = answer.sigmoid().mean(1)[:, None, None]
        losses.append((mask * (mine - theirs).abs()).mean())
    return torch.stack(losses).sum()


class DetailDistance(PairedLoss):
    """:func:`detail_loss` of the student's maps after a 1 x 1 convolution, averaged over pairs.

    The tokens keep the values that the authors' program starts with, normal with a deviation of
    0.01, so that a mask is close to one half. (The authors train theirs beforehand inside a
    detector, which is another task.) Every new loss draws them from torch's generator.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.
        n_tokens: tokens of each level.
        n_levels: levels of the transform.

    >>> import torch
    >>> from natstats.distill.method import Outputs
    >>> points = [TapPoint("layer", 4, 8, 8)]
    >>> maps = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 8, 8),))
    >>> bool(DetailDistance(points, points)(maps, maps, torch.zeros(2)) > 0)  # random connector
    True
    """

    reduction = "masked absolute difference, mean over everything, sum over levels, mean over pairs"
    method = "freekd"

    def __init__(
        self,
        student: Sequence[TapPoint],
        teacher: Sequence[TapPoint],
        n_tokens: int = 6,
        n_levels: int = 3,
    ) -> None:
        super().__init__(len(student))
        self.connectors = channel_connectors(student, teacher)
        shape = positive_int("n_levels", n_levels), positive_int("n_tokens", n_tokens)
        for index, point in enumerate(teacher):
            self.register_buffer(f"tokens_{index}", 0.01 * torch.randn(*shape, point.channels))

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps."""
        mine, theirs = pooled(connected(self.connectors[index], student), teacher)
        refuse_other_shape("freekd", index, mine, theirs)
        return detail_loss(mine, theirs, self.get_buffer(f"tokens_{index}"))


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    finite("freekd.weight", arguments["weight"], least=0)
    paired_taps("freekd", setting)
    loss = DetailDistance(setting.student, setting.teacher)
    note = "freekd: tokens as they are drawn, not trained; the authors train them in a detector"
    return Plan((Term("freekd", loss, arguments["weight"]),), notes=(note,))


METHOD = Method(
    name="freekd",
    title="Wavelet detail under masks",
    paper="Zhang et al. 2024, CVPR",
    reduction=DetailDistance.reduction,
    # The authors have the squared distance of the maps beside it, with weight 5.
    defaults={"weight": 1.0},
    plan=_plan,
    place="groups",
    activation="post",
    connectors="1 x 1 convolution",
)

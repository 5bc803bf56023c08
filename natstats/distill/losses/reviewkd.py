"""ReviewKD: each map of the teacher against the student's map fused with its deeper ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from natstats.checks import finite
from natstats.distill.losses.choices import rising_weight
from natstats.distill.losses.connectors import AttentionFusion, connected, like
from natstats.distill.losses.maps import paired_maps, paired_taps, refuse_other_shape
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Setting,
    TapPoint,
    Term,
)
from natstats.errors import UsageError
from natstats.spectra.precision import full_precision

__all__ = ["METHOD", "KnowledgeReview", "pyramid_loss"]

LARGEST_MIDDLE = 512
"""Most channels of the mixtures, as the authors' program has it."""


def pyramid_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two maps, as they are and averaged to 4, 2 and 1 pixels a side.

    The mean squared difference at full size and at each of these sizes that is below it, with
    weights 1, 1/2, 1/4, 1/8 from fine to coarse, divided by the sum of those used: the authors'
    hierarchical context loss.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W).

    Reference:
        P. Chen, S. Liu, H. Zhao and J. Jia, "Distilling Knowledge via Knowledge Review", CVPR
        2021, arXiv 2104.09044, and its public code.

    >>> import torch
    >>> float(pyramid_loss(torch.ones(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)))
    1.0
    """
    difference = student - teacher
    total = difference.square().mean()
    weight, weights = 1.0, 1.0
    for side in (4, 2, 1):
        if side >= difference.shape[2]:
            continue
        weight /= 2
        weights += weight
        averaged = functional.adaptive_avg_pool2d(difference, side)
        total = total + weight * averaged.square().mean()
    return total / weights


class KnowledgeReview(DistillationLoss):
    """:func:`pyramid_loss`, summed over maps that were fused from deep to shallow.

    After the given maps, which are from before the activation, comes one more pair: the mean over
    pixels of the deepest map after its activation, which is what the classifier of a ResNet is
    given. The student's maps go through their activation first, the teacher's do not, as in the
    authors' program. See :class:`natstats.distill.losses.connectors.AttentionFusion`.

    Args:
        student: taps in the student, from shallow to deep.
        teacher: taps in the teacher.

    Raises:
        UsageError: no pair, or taps without a partner.

    >>> import torch
    >>> points = [TapPoint("a", 4, 8, 8), TapPoint("b", 6, 4, 4)]
    >>> outputs = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 8, 8), torch.randn(2, 6, 4, 4)))
    >>> bool(KnowledgeReview(points, points)(outputs, outputs, torch.zeros(2)) > 0)
    True
    """

    reduction = "squared difference, mean over everything, mean over a pyramid, sum over maps"

    def __init__(self, student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> None:
        super().__init__()
        if not student or len(student) != len(teacher):
            raise UsageError(
                "reviewkd: expected one pair of taps or more; got "
                f"{len(student)} in the student and {len(teacher)} in the teacher"
            )
        middle = min(LARGEST_MIDDLE, student[-1].channels)
        pairs = [*zip(student, teacher, strict=True), (student[-1], teacher[-1])]
        self.fusions = nn.ModuleList(
            AttentionFusion(mine.channels, middle, theirs.channels, index == len(student))
            for index, (mine, theirs) in enumerate(pairs)
        )
        self.activations = nn.ModuleList(_activation(tap) for tap in student)
        self.last_activation = _activation(teacher[-1])

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: a batch of one image, which has no batch statistics, numbers of maps that
                differ, or maps of other shapes than those of the taps.
        """
        n_pairs = len(self.activations)
        maps = paired_maps("reviewkd", student, teacher, n_pairs)
        if self.training and len(maps[0][0]) < 2:
            raise UsageError("reviewkd: expected two images or more in a batch; got 1")
        mine = [connected(act, one) for act, (one, _) in zip(self.activations, maps, strict=True)]
        theirs = [other for _, other in maps]
        with torch.no_grad():
            last = connected(self.last_activation, theirs[-1])
            theirs.append(last.mean((2, 3), keepdim=True))
        mine.append(mine[-1].mean((2, 3), keepdim=True))
        losses, residue = [], None
        for index in reversed(range(n_pairs + 1)):
            size = tuple(theirs[index].shape[2:])
            fused, residue = connected(self.fusions[index], mine[index], residue, size)
            refuse_other_shape("reviewkd", index, fused, theirs[index])
            with full_precision(fused.device):
                losses.append(pyramid_loss(fused, theirs[index]))
        return sum(losses[1:], losses[0])


def _activation(tap: TapPoint) -> nn.Module:
    return nn.Identity() if tap.activation is None else like(tap.activation)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    finite("reviewkd.ce_weight", arguments["ce_weight"], least=0)
    paired_taps("reviewkd", setting)
    loss = KnowledgeReview(setting.student, setting.teacher)
    factor, rise = rising_weight("reviewkd", arguments["weight"], arguments["warmup"])
    notes = [
        "reviewkd: the authors have a weight of 0.6 for ResNet-20 from ResNet-56 and of 5 for wide "
        f"ResNets; {rise}"
    ]
    notes += [
        f"reviewkd: no activation is known at {tap.name}: its map is taken as it is"
        for tap in (*setting.student, setting.teacher[-1])
        if tap.activation is None
    ]
    return Plan(
        (Term("reviewkd", loss, factor),), ce_weight=arguments["ce_weight"], notes=tuple(notes)
    )


METHOD = Method(
    name="reviewkd",
    title="Knowledge review",
    paper="Chen et al. 2021, arXiv 2104.09044",
    reduction=KnowledgeReview.reduction,
    # The code warms up over 20 of 240 epochs.
    defaults={"weight": 1.0, "ce_weight": 1.0, "warmup": 20.0 / 240.0},
    plan=_plan,
    place="groups",
    activation="pre",
    connectors="1 x 1 and 3 x 3 convolutions with batch norm, and attention between maps",
)

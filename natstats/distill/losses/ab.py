"""Activation boundaries: which neurons are on, before how strongly they answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from natstats.checks import finite, one_of
from natstats.distill.losses.connectors import connected, projection
from natstats.distill.losses.kd import SoftTargets
from natstats.distill.losses.maps import (
    halving_weights,
    paired_maps,
    paired_taps,
    refuse_other_shape,
    refuse_other_size,
    refuse_rectified,
)
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Stage, Term

__all__ = ["METHOD", "ActivationBoundaries", "boundary_loss"]


def boundary_loss(student: Tensor, teacher: Tensor, margin: float = 1.0) -> Tensor:
    """How far the student's values are on the wrong side of the teacher's boundaries.

    With s of the student before its ReLU, (s - margin)^2 where the teacher is above 0 and
    s <= margin, (s + margin)^2 where it is not and s > -margin, else 0. Summed over channels and
    pixels, averaged over images. Only the sign of the teacher's values counts, so its map may be
    from after the ReLU.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W).
        margin: the distance from the boundary that is asked for.

    Reference:
        B. Heo, M. Lee, S. Yun and J. Y. Choi, "Knowledge Transfer via Distillation of Activation
        Boundaries Formed by Hidden Neurons", 2019, arXiv 1811.03233; as in its public code, as
        its text was not open to us.

    >>> import torch
    >>> one = torch.tensor([[[[2.0, 0.5, 0.5, -2.0]]]])
    >>> float(boundary_loss(one, torch.tensor([[[[1.0, 1.0, -1.0, -1.0]]]])))
    2.5
    """
    one = torch.ones((), dtype=teacher.dtype, device=teacher.device)
    # NaN, which is neither above 0 nor not above it, stays NaN.
    side = torch.where(teacher > 0, one, torch.where(teacher <= 0, -one, teacher))
    return functional.relu(margin - side * student).square().sum((1, 2, 3)).mean()


class ActivationBoundaries(DistillationLoss):
    """:func:`boundary_loss`, summed over pairs: 1 for the deepest, half for each before it.

    Args:
        connectors: for each pair, makes (N, C_T, H, W) of the student's map.
        margin: see :func:`boundary_loss`.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (2.0 * torch.tensor([[[[1.0, -1.0]]]] * 2),))
    >>> float(ActivationBoundaries([nn.Identity()])(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    def __init__(self, connectors: Sequence[nn.Module], margin: float = 1.0) -> None:
        super().__init__()
        self.reduction = (
            "sum over channels and pixels, mean over images, pairs halved from the last"
        )
        self.connectors = nn.ModuleList(connectors)
        self.margin = margin
        self._looked = False

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: a map of the student has no negative value in the first batch; numbers or
                shapes of maps differ.
        """
        maps = paired_maps("ab", student, teacher, len(self.connectors))
        if not self._looked:
            for index, (ours, _) in enumerate(maps):
                refuse_rectified("ab", "student", index, ours)
            self._looked = True
        losses = []
        weights = halving_weights(len(maps))
        for index, (connector, (ours, theirs)) in enumerate(
            zip(self.connectors, maps, strict=True)
        ):
            mapped = connected(connector, ours)
            refuse_other_shape("ab", index, mapped, theirs)
            losses.append(weights[index] * boundary_loss(mapped, theirs, self.margin))
        return sum(losses[1:], losses[0])


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    form = one_of("ab.form", arguments["form"], ("paper", "crd"))
    for name in ("weight", "kd_weight", "ce_weight"):
        finite(f"ab.{name}", arguments[name], least=0)
    for name in ("margin", "temperature", "epochs", "learning_rate"):
        finite(f"ab.{name}", arguments[name], above=0)
    pairs = paired_taps("ab", setting)
    refuse_other_size("ab", pairs)
    connectors = [
        nn.Identity()
        if student.channels == teacher.channels
        else projection(student.channels, teacher.channels)
        for student, teacher in pairs
    ]
    before = Stage(
        "ab.boundary",
        (
            Term(
                "ab.boundary",
                ActivationBoundaries(connectors, arguments["margin"]),
                arguments["weight"],
            ),
        ),
        arguments["epochs"],
        learning_rate=arguments["learning_rate"],
        schedule="same" if form == "paper" else "constant",
    )
    if form == "crd":
        return Plan(before=(before,), notes=("ab: form=crd, boundaries, then cross-entropy alone",))
    soft = SoftTargets(arguments["temperature"], t_squared=False)
    note = "ab: form=paper, boundaries, then soft targets without T²"
    return Plan(
        (Term("ab.kd", soft, arguments["kd_weight"]),),
        (before,),
        arguments["ce_weight"],
        notes=(note,),
    )


METHOD = Method(
    name="ab",
    title="Activation boundaries",
    paper="Heo, Lee, Yun and Choi 2019, arXiv 1811.03233",
    reduction="boundaries: sum over channels and pixels, mean over images, sum over pairs with "
    "weights 1, 1/2, 1/4 from deep to shallow; soft targets: sum over classes, mean over images, "
    "no T²",
    # The code divides by 1000 and multiplies by 3; the length of the first stage is ours.
    defaults={
        "weight": 0.003,
        "margin": 1.0,
        "kd_weight": 1.0,
        "ce_weight": 0.0,
        "temperature": 3.0,
        "epochs": 0.25,
        "learning_rate": 1.0,
        "form": "paper",
    },
    plan=_plan,
    place="groups",
    activation="pre",
    needs_signed=True,
    connectors="1 x 1 convolution and batch norm, where the channels differ",
    stages=("ab.boundary", "main"),
)

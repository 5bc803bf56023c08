"""Overhaul of feature distillation: the teacher's maps, except where both networks are off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from natstats.checks import finite, one_of, positive_int
from natstats.distill.losses.connectors import connected, projection
from natstats.distill.losses.maps import (
    halving_weights,
    paired_maps,
    paired_taps,
    refuse_other_shape,
    refuse_other_size,
    refuse_rectified,
)
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Setting,
    TapPoint,
    Term,
)

__all__ = ["METHOD", "FeatureOverhaul", "negative_mean", "partial_distance"]

MARGINS = ("bn", "code", "measured")


def negative_mean(mean: Tensor, deviation: Tensor, fallback: bool = False) -> Tensor:
    """Mean of the negative part of normal distributions, E[t | t < 0].

    mu - sigma * phi(mu / sigma) / Phi(-mu / sigma), in a form that stays exact where the mean lies
    far above 0. Where there is no spread, min(mu, 0).

    Args:
        mean: mu, (C,), as the bias of a batch norm.
        deviation: sigma, (C,), not negative, as the size of its weight.
        fallback: True gives -3 sigma where Phi(-mu / sigma) <= 0.001, as the authors' program
            does; the exact value is much nearer to 0 there.

    Reference:
        B. Heo et al., "A Comprehensive Overhaul of Feature Distillation", 2019, arXiv 1904.01866,
        by its public code and notes of its readers; its text was not open to us.

    >>> import torch
    >>> negative_mean(torch.tensor([0.0, -2.0]), torch.tensor([1.0, 0.0]))
    tensor([-0.7979, -2.0000])
    """
    mu, sigma = mean.double(), deviation.double()
    spread = sigma > 0
    ratio = mu / torch.where(spread, sigma, 1.0)
    # erfcx stays accurate where the density and Phi both underflow.
    exact = mu - sigma * math.sqrt(2.0 / math.pi) / torch.special.erfcx(ratio / math.sqrt(2.0))
    # Far out the difference cancels, and the first term of its series is accurate enough.
    exact = torch.where(ratio > 1e4, -sigma / ratio, exact)
    if fallback:
        exact = torch.where(torch.special.ndtr(-ratio) <= 0.001, -3.0 * sigma, exact)
    return torch.where(spread, exact, mu).clamp(max=0.0).to(mean.dtype)


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Squared distance from the teacher's values, except where both are off as they should be.

    With t' = max(t, margin) per channel, 0 where s <= t' <= 0, else (s - t')^2. Summed over
    channels and pixels, averaged over images.

    Args:
        student: (N, C, H, W), before the ReLU.
        teacher: (N, C, H, W), before the ReLU.
        margin: (C,), not positive.

    Reference:
        B. Heo et al., "A Comprehensive Overhaul of Feature Distillation", 2019, arXiv 1904.01866,
        by its public code and notes of its readers; its text was not open to us.

    >>> import torch
    >>> one = torch.tensor([[[[-3.0, 0.0, 3.0]]]])
    >>> float(partial_distance(one, torch.tensor([[[[-2.0, -2.0, 1.0]]]]), torch.tensor([-1.0])))
    5.0
    """
    target = torch.maximum(teacher, margin[:, None, None].to(teacher.dtype))
    left_alone = (student <= target) & (target <= 0)
    squared = (student - target).square()
    return torch.where(left_alone, 0.0, squared).sum((1, 2, 3)).mean()


class FeatureOverhaul(DistillationLoss):
    """:func:`partial_distance`, summed over pairs: 1 for the deepest, half for each before it.

    A margin that is not given is measured: the mean of the teacher's negative values in each
    channel, over the training batches seen so far, and fixed after `measured_batches`. What was
    measured is in the state of the module, so that a resumed training has it.

    Args:
        connectors: for each pair, makes (N, C_T, H, W) of the student's map.
        margins: for each pair, (C_T,), or the number C_T for a margin that is measured.
        measured_batches: batches after which a measured margin is fixed.

    Raises:
        UsageError: `measured_batches` is not a positive whole number.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.randn(2, 3, 4, 4),))
    >>> loss = FeatureOverhaul([nn.Identity()], [torch.full((3,), -9.0)])
    >>> float(loss(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    n_batches: Tensor

    def __init__(
        self,
        connectors: Sequence[nn.Module],
        margins: Sequence[Tensor | int],
        measured_batches: int = 50,
    ) -> None:
        super().__init__()
        self.reduction = (
            "sum over channels and pixels, mean over images, pairs halved from the last"
        )
        self.connectors = nn.ModuleList(connectors)
        self.measured_batches = positive_int("measured_batches", measured_batches)
        self.measured = tuple(isinstance(margin, int) for margin in margins)
        for index, margin in enumerate(margins):
            if isinstance(margin, int):
                self.register_buffer(f"negative_sum_{index}", torch.zeros(margin))
                self.register_buffer(f"negative_count_{index}", torch.zeros(margin))
            else:
                self.register_buffer(f"margin_{index}", margin.detach().clone())
        self.register_buffer("n_batches", torch.zeros((), dtype=torch.long))
        self._looked = False
        # The count as a plain number, so that no step waits for the device to read it.
        self._seen: int | None = None
        add_hook: Any = self.register_load_state_dict_post_hook
        add_hook(_forget_count)

    def margin(self, index: int) -> Tensor:
        """The margin of a pair, (C_T,); 0 for a channel in which nothing negative was seen."""
        if not self.measured[index]:
            return self.get_buffer(f"margin_{index}")
        count = self.get_buffer(f"negative_count_{index}")
        return self.get_buffer(f"negative_sum_{index}") / count.clamp(min=1.0)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: a map of the student or the teacher has no negative value in the first
                batch; numbers or shapes of maps differ.
        """
        maps = paired_maps("ofd", student, teacher, len(self.connectors))
        if not self._looked:
            for index, (ours, theirs) in enumerate(maps):
                refuse_rectified("ofd", "student", index, ours)
                refuse_rectified("ofd", "teacher", index, theirs)
            self._looked = True
        mapped = []
        for index, (connector, (ours, theirs)) in enumerate(
            zip(self.connectors, maps, strict=True)
        ):
            mapped.append(connected(connector, ours))
            refuse_other_shape("ofd", index, mapped[index], theirs)
        if self.training and any(self.measured):
            self._measure([theirs for _, theirs in maps])
        losses = [
            weight * partial_distance(mapped[index], theirs, self.margin(index))
            for index, (weight, (_, theirs)) in enumerate(
                zip(halving_weights(len(maps)), maps, strict=True)
            )
        ]
        return sum(losses[1:], losses[0])

    def _measure(self, maps: list[Tensor]) -> None:
        if self._seen is None:
            self._seen = int(self.n_batches)
        if self._seen >= self.measured_batches:
            return
        self._seen += 1
        self.n_batches += 1
        for index, theirs in enumerate(maps):
            if self.measured[index]:
                total = self.get_buffer(f"negative_sum_{index}")
                total += theirs.clamp(max=0.0).sum((0, 2, 3)).to(total.dtype)
                self.get_buffer(f"negative_count_{index}").add_((theirs < 0).sum((0, 2, 3)))


def _forget_count(module: nn.Module, _: object) -> None:
    assert isinstance(module, FeatureOverhaul)
    module._seen = None


def _margin(tap: TapPoint, kind: str) -> Tensor | int:
    """The margin from the batch norm of a tap, or the number C_T where it must be measured."""
    parameters = [getattr(tap.batch_norm, name, None) for name in ("bias", "weight")]
    known = [
        part.detach().cpu()
        for part in parameters
        if isinstance(part, Tensor) and part.shape == (tap.channels,)
    ]
    if kind == "measured" or len(known) != 2:
        return tap.channels
    return negative_mean(known[0].float(), known[1].float().abs(), fallback=kind == "code")


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    kind = one_of("ofd.margin", arguments["margin"], MARGINS)
    statistics = one_of("ofd.teacher_bn", arguments["teacher_bn"], ("batch", "running"))
    finite("ofd.weight", arguments["weight"], least=0)
    pairs = paired_taps("ofd", setting)
    refuse_other_size("ofd", pairs)
    connectors = [projection(student.channels, teacher.channels) for student, teacher in pairs]
    margins = [_margin(teacher, kind) for _, teacher in pairs]
    notes = [f"ofd: margin={kind}, the teacher's batch norm by its {statistics} statistics"]
    notes += [
        f"ofd: no batch norm with weights is known at {teacher.name}: its margin is measured"
        for (_, teacher), margin in zip(pairs, margins, strict=True)
        if isinstance(margin, int) and kind != "measured"
    ]
    loss = FeatureOverhaul(connectors, margins)
    return Plan((Term("ofd", loss, arguments["weight"]),), notes=tuple(notes))


METHOD = Method(
    name="ofd",
    title="Overhaul of feature distillation",
    paper="Heo et al. 2019, arXiv 1904.01866",
    reduction="sum over channels and pixels, mean over images, sum over pairs with weights 1, 1/2, "
    "1/4 from deep to shallow",
    # The weight is that for CIFAR; the authors use 1e-4 on ImageNet, and less for unlike pairs.
    defaults={"weight": 0.001, "margin": "bn", "teacher_bn": "batch"},
    plan=_plan,
    place="groups",
    activation="pre",
    needs_signed=True,
    teacher_bn="batch",
    connectors="1 x 1 convolution and batch norm",
)

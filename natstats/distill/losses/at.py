"""Attention transfer: where a network looks, as the energy of its maps at every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from natstats.checks import one_of
from natstats.distill.losses.choices import variant_weight
from natstats.distill.losses.maps import paired_maps, paired_taps, pooled
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Setting,
    TapPoint,
    Term,
)
from natstats.numbers import short

__all__ = ["METHOD", "AttentionTransfer", "attention_loss", "attention_map"]

WEIGHTS = {"code": "weight", "paper": "paper_weight"}

SCALES = ("map", "fixed")
"""Whether the weight of form ``paper`` follows the size of the map."""

REFERENCE = 1000.0 / (128 * 0.1)
"""Map size, in pixels, that the default `paper_weight` of 0.1 is for: 78.125. There the weight of
1000 in the authors' code, divided by the elements of its mean over a batch of 128, is 0.1."""


def attention_map(maps: Tensor, eps: float = 1e-12) -> Tensor:
    """The mean square over channels at every pixel, divided by its norm in every image.

    Args:
        maps: (N, C, H, W).
        eps: smallest norm that is divided by, so that a map of zeros stays zero.

    Returns:
        (N, H * W), not negative, of norm 1.

    >>> import torch
    >>> attention_map(torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]]))
    tensor([[1., 0.]])
    """
    return functional.normalize(maps.square().mean(1).flatten(1), dim=1, eps=eps)


def attention_loss(student: Tensor, teacher: Tensor, form: str = "code") -> Tensor:
    """Distance between the attention maps of a pair.

    With form ``code`` the squared difference, averaged over images and pixels, as the authors'
    program has it; with ``paper`` half the norm of the difference, not squared, averaged over
    images. The larger of the two maps is average-pooled to the size of the smaller.

    Args:
        student: (N, C, H, W).
        teacher: (N, C', H', W').
        form: ``code`` or ``paper``.

    Raises:
        UsageError: an unknown form.

    Reference:
        S. Zagoruyko and N. Komodakis, "Paying More Attention to Attention", 2017,
        arXiv 1612.03928: ``code`` is its public code, ``paper`` what its readers report of the
        text, which was not open to us.

    >>> import torch
    >>> maps = torch.rand(2, 3, 4, 4)
    >>> float(attention_loss(maps, 5.0 * maps) < 1e-12)
    1.0
    """
    one_of("form", form, WEIGHTS)
    one, other = pooled(student, teacher)
    difference = attention_map(one) - attention_map(other)
    if form == "code":
        return difference.square().mean()
    norms: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return norms.mean() / 2


class AttentionTransfer(DistillationLoss):
    """:func:`attention_loss`, summed over all pairs of maps.

    Args:
        form: ``code`` or ``paper``.
        pair_weights: a factor for each pair; None for 1.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.randn(2, 3, 4, 4),) * 3)
    >>> float(AttentionTransfer()(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    def __init__(self, form: str = "code", pair_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.pair_weights = None if pair_weights is None else tuple(pair_weights)
        self.form = one_of("form", form, WEIGHTS)
        self.reduction = {
            "code": "squared difference, mean over images and pixels, sum over pairs",
            "paper": "half the norm of the difference, mean over images, sum over pairs",
        }[form]

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: the numbers of maps, or of images, differ.
        """
        weights = self.pair_weights
        maps = paired_maps("at", student, teacher, None if weights is None else len(weights))
        losses = [attention_loss(ours, theirs, self.form) for ours, theirs in maps]
        if weights is not None:
            losses = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
        return sum(losses[1:], losses[0])


def _by_size(pairs: Sequence[tuple[TapPoint, TapPoint]]) -> tuple[float, ...]:
    """:data:`REFERENCE` / (H W) of every pair, with H and W the size that it is compared at."""
    return tuple(
        REFERENCE / (min(mine.height, theirs.height) * min(mine.width, theirs.width))
        for mine, theirs in pairs
    )


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    form = arguments["form"]
    name, weight = variant_weight("at", "form", WEIGHTS, arguments, METHOD.defaults)
    pairs = paired_taps("at", setting)
    scale = one_of("at.paper_scale", arguments["paper_scale"], SCALES)
    by_size = _by_size(pairs) if form == "paper" and scale == "map" else None
    reduced = {
        "code": "squared difference, mean over images and pixels",
        "paper": "half the norm of the difference, mean over images",
    }[form]
    times = f"times at.{name}"
    if by_size is not None:
        listed = ", ".join(short(weight * factor, 3) for factor in by_size)
        times += f" * {REFERENCE:g} / (H W), which is {listed}"
    return Plan(
        (Term("at", AttentionTransfer(form, by_size), weight),),
        notes=(f"at: form={form}, {reduced}, sum over pairs, {times}",),
    )


METHOD = Method(
    name="at",
    title="Attention transfer",
    paper="Zagoruyko and Komodakis 2017, arXiv 1612.03928",
    reduction="squared difference, mean over images and pixels, sum over pairs; form=paper: half "
    "the norm of the difference, mean over images, sum over pairs by 1 / (H W)",
    # 1000 belongs to the mean of the code. Divided by the elements of that mean, 128 H W in a batch
    # of 128, it is 0.1 for maps of 78 pixels, and 0.12, 0.03, 0.008 at 8, 16 and 32 pixels a side.
    defaults={"weight": 1000.0, "form": "code", "paper_weight": 0.1, "paper_scale": "map"},
    plan=_plan,
    place="groups",
    activation="block",
)

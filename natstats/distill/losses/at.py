"""Attention transfer: where a network looks, as the energy of its maps over the image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from natstats.checks import one_of
from natstats.distill.losses.choices import variant_weight
from natstats.distill.losses.maps import paired_maps, paired_taps, pooled
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Term

__all__ = ["METHOD", "AttentionTransfer", "attention_loss", "attention_map"]

WEIGHTS = {"code": "weight", "paper": "paper_weight"}


def attention_map(maps: Tensor, eps: float = 1e-12) -> Tensor:
    """The mean square over channels at every pixel, divided by its own norm in every image.

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

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.randn(2, 3, 4, 4),) * 3)
    >>> float(AttentionTransfer()(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    def __init__(self, form: str = "code") -> None:
        super().__init__()
        self.form = one_of("form", form, WEIGHTS)
        self.reduction = {
            "code": "squared difference, mean over images and pixels, sum over pairs",
            "paper": "half the norm of the difference, mean over images, sum over pairs",
        }[form]

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: unlike numbers of maps, or of images.
        """
        first, *others = (
            attention_loss(ours, theirs, self.form)
            for ours, theirs in paired_maps("at", student, teacher)
        )
        return sum(others, first)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    form = arguments["form"]
    name, weight = variant_weight("at", "form", WEIGHTS, arguments, METHOD.defaults)
    paired_taps("at", setting)
    reduced = {
        "code": "squared difference, mean over images and pixels",
        "paper": "half the norm of the difference, mean over images",
    }[form]
    return Plan(
        (Term("at", AttentionTransfer(form), weight),),
        notes=(f"at: form={form}, {reduced}, sum over pairs, times at.{name}",),
    )


METHOD = Method(
    name="at",
    title="Attention transfer",
    paper="Zagoruyko and Komodakis 2017, arXiv 1612.03928",
    reduction="squared difference, mean over images and pixels, sum over pairs; form=paper: half "
    "the norm of the difference, mean over images, sum over pairs",
    # 1000 belongs to the mean of the code; divided by the elements of that mean, about 0.1.
    defaults={"weight": 1000.0, "form": "code", "paper_weight": 0.1},
    plan=_plan,
    place="groups",
    activation="block",
)

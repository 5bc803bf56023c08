"""Jacobian matching: how the class score responds to every pixel of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from natstats.checks import finite, one_of
from natstats.distill.losses.kd import SoftTargets
from natstats.distill.losses.logits import refuse_other_labels
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Setting,
    Term,
    at_least_float32,
)
from natstats.errors import UsageError

__all__ = ["METHOD", "JacobianMatching", "input_gradient", "jacobian_loss"]


def input_gradient(outputs: Outputs, classes: Tensor, create_graph: bool = False) -> Tensor:
    """The gradient of one logit of every image with respect to the images.

    Where batch norm uses the statistics of the batch, the logit of an image depends on the other
    images too, and the gradient is that of the sum of all these logits.

    Args:
        outputs: with `images` that need a gradient, and `logits` computed from them.
        classes: (N,), the logit to take of each image.
        create_graph: True lets gradients flow on through the result.

    Returns:
        (N, 3, H, W).

    Raises:
        UsageError: there are no images, or the logits do not come from them in this graph.

    >>> import torch
    >>> images = torch.randn(2, 3, 4, 4, requires_grad=True)
    >>> logits = torch.stack([images.sum((1, 2, 3)), 2.0 * images.sum((1, 2, 3))], dim=1)
    >>> float(input_gradient(Outputs(logits, images=images), torch.tensor([0, 1]))[1, 0, 0, 0])
    2.0
    """
    images, logits = outputs.images, outputs.logits
    if images is None or not images.requires_grad or not logits.requires_grad:
        raise UsageError(
            "jacobian: expected images that need a gradient and logits that were computed from "
            f"them; got {_state(images)} and logits {_state(logits)}"
        )
    selected = logits.gather(1, classes[:, None]).sum()
    # The graph is kept: other terms, and their gradients, are taken from the same pass.
    (gradient,) = torch.autograd.grad(
        selected, images, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    if gradient is None:
        raise UsageError(
            "jacobian: expected logits that were computed from the given images; "
            "got logits that do not depend on them"
        )
    return gradient


def jacobian_loss(student: Tensor, teacher: Tensor, eps: float = 1e-6) -> Tensor:
    """Squared distance of two gradients, each divided by its norm in every image.

    Summed over channels and pixels, averaged over images; between 0 and 4.

    Args:
        student: (N, 3, H, W).
        teacher: (N, 3, H, W).
        eps: added to the norms in quadrature, so that a gradient of zeros stays zero.

    Raises:
        UsageError: the shapes differ.

    Reference:
        S. Srinivas and F. Fleuret, "Knowledge Transfer with Jacobian Matching", 2018,
        arXiv 1803.00443; its text was not open to us, and this is our reading.

    >>> import torch
    >>> gradient = torch.randn(2, 3, 4, 4)
    >>> round(float(jacobian_loss(gradient, -5.0 * gradient)), 4)
    4.0
    """
    if student.shape != teacher.shape:
        raise UsageError(
            "jacobian: expected images of one size for student and teacher; got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    difference = _direction(student, eps) - _direction(teacher, eps)
    return difference.square().sum(1).mean()


def _direction(gradient: Tensor, eps: float) -> Tensor:
    flat = at_least_float32(gradient.flatten(1))
    # Smooth at zero, where the norm itself has no derivative.
    norm: Tensor = (flat.square().sum(1, keepdim=True) + eps**2).sqrt()
    return flat / norm


def _state(tensor: Tensor | None) -> str:
    if tensor is None:
        return "no images"
    return "with a gradient" if tensor.requires_grad else "without a gradient"


class JacobianMatching(DistillationLoss):
    """:func:`jacobian_loss` of student and teacher, from their outputs on images with a gradient.

    Unlike for other losses the teacher's outputs carry a graph here, from its logits to its
    images: its pass must not run under ``no_grad``, and its parameters need no gradient. None
    reaches them: the teacher's gradient is taken with respect to the images only, and detached.
    The student's gradient is differentiated again, so its pass must not be compiled and its layers
    need second derivatives.

    In float16 the gradients of the images can fall below the smallest number; bfloat16 has the
    range for them.

    Args:
        scalar: ``labels`` for the logit of the true class, ``teacher`` for that of the class the
            teacher is surest of.

    >>> import torch
    >>> images = torch.randn(2, 3, 4, 4, requires_grad=True)
    >>> logits = torch.nn.Linear(48, 10)(images.flatten(1))
    >>> outputs = Outputs(logits, images=images)
    >>> JacobianMatching()(outputs, outputs, torch.tensor([0, 1])).item()
    0.0
    """

    compares_scores = True

    def __init__(self, scalar: str = "labels") -> None:
        super().__init__()
        self.reduction = "sum over channels and pixels, mean over images"
        self.scalar = one_of("scalar", scalar, ("labels", "teacher"))
        self.needs_labels = self.scalar == "labels"

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: images without a gradient, logits that were not computed from them, or
                a label that is none of the classes.
        """
        if self.scalar == "labels":
            refuse_other_labels("jacobian", labels, student.logits)
            classes = labels.long()
        else:
            classes = teacher.logits.detach().argmax(1)
        theirs = input_gradient(teacher, classes).detach()
        return jacobian_loss(input_gradient(student, classes, create_graph=True), theirs)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    scalar = one_of("jacobian.scalar", arguments["scalar"], ("labels", "teacher"))
    for name in ("weight", "kd_weight", "ce_weight"):
        finite(f"jacobian.{name}", arguments[name], least=0)
    terms = [Term("jacobian", JacobianMatching(scalar), arguments["weight"])]
    notes = [f"jacobian: scalar={scalar}; its weight is ours, as no published one is known"]
    if arguments["kd_weight"]:
        finite("jacobian.temperature", arguments["temperature"], above=0)
        soft = SoftTargets(arguments["temperature"])
        terms.append(Term("jacobian.kd", soft, arguments["kd_weight"]))
    else:
        notes.append(
            "jacobian: kd_weight=0, gradients without soft targets; the method has them beside "
            f"cross-entropy, which keeps its weight of {arguments['ce_weight']:g}"
        )
    return Plan(tuple(terms), ce_weight=arguments["ce_weight"], notes=tuple(notes))


METHOD = Method(
    name="jacobian",
    title="Jacobian matching",
    paper="Srinivas and Fleuret 2018, arXiv 1803.00443",
    reduction="gradients: sum over channels and pixels, mean over images; soft targets: sum over "
    "classes, mean over images, times T²",
    # No verified weight of the gradients exists; the soft targets have those of kd.
    defaults={
        "weight": 1.0,
        "kd_weight": 0.9,
        "ce_weight": 0.1,
        "temperature": 4.0,
        "scalar": "labels",
    },
    plan=_plan,
    uses_images=True,
    teacher_passes=3.0,
)

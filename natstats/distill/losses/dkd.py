"""Decoupled distillation: soft targets for the true class and for the others, weighted apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from natstats.checks import finite
from natstats.distill.losses.choices import rising_weight
from natstats.distill.losses.logits import (
    STANDARDISED,
    paired_logits,
    refuse_other_labels,
    standardised,
)
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Term
from natstats.errors import UsageError

__all__ = ["METHOD", "DecoupledTargets", "decoupled_loss"]


def decoupled_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    standardise: bool = False,
) -> Tensor:
    """The divergence of soft targets in two parts, each with a weight of its own.

    With p the softened probabilities and t the true class: alpha KL(b_T || b_S) + beta
    KL(q_T || q_S), with b = (p_t, 1 - p_t), true class or not, and q the probabilities
    of the others, divided by their sum. Summed over classes, averaged over images, times T². In
    the divergence of :func:`natstats.distill.losses.kd.soft_target_loss` the second part has the
    weight 1 - p_t of the teacher, which is next to nothing where the teacher is sure.

    Args:
        student: logits (N, K), K at least 2.
        teacher: logits (N, K); no gradient flows into them.
        labels: (N,), whole numbers: the true class.
        alpha: weight of the true class against the others.
        beta: weight of the divergence among the others.
        temperature: T.
        standardise: True brings the logits of every image to mean 0 and deviation 1 first.

    Raises:
        UsageError: the shapes differ, there is a single class, or a label is none of the classes.

    Reference:
        B. Zhao, Q. Cui, R. Song, Y. Qiu and J. Liang, "Decoupled Knowledge Distillation", CVPR
        2022, arXiv 2203.08679, and its public code.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> float(decoupled_loss(logits, logits + 3.0, torch.tensor([0])).abs() < 1e-5)
    1.0
    """
    ours, theirs = paired_logits("dkd", student, teacher)
    refuse_other_labels("dkd", labels, ours)
    if ours.shape[1] < 2:
        raise UsageError(f"dkd: expected two classes or more; got {ours.shape[1]}")
    if standardise:
        ours, theirs = standardised(ours), standardised(theirs)
    classes = labels.long()
    true_student, others_student = _parts(ours / temperature, classes)
    true_teacher, others_teacher = _parts(theirs / temperature, classes)
    value = alpha * _divergence(true_student, true_teacher)
    return (value + beta * _divergence(others_student, others_teacher)) * temperature**2


def _parts(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of b, (N, 2), and of q, (N, K - 1)."""
    n_images, n_classes = logits.shape
    is_true = functional.one_hot(labels, n_classes).bool()
    others = logits[~is_true].view(n_images, n_classes - 1)
    pair = torch.stack([logits[is_true], others.logsumexp(1)], dim=1)
    return functional.log_softmax(pair, dim=1), functional.log_softmax(others, dim=1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean")


class DecoupledTargets(DistillationLoss):
    """:func:`decoupled_loss` as a module.

    >>> import torch
    >>> outputs = Outputs(torch.randn(2, 10))
    >>> round(float(DecoupledTargets()(outputs, outputs, torch.tensor([3, 7]))), 5)
    0.0
    """

    needs_labels = True
    compares_scores = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 8.0,
        temperature: float = 4.0,
        standardise: bool = False,
    ) -> None:
        super().__init__()
        self.alpha = finite("alpha", alpha, least=0)
        self.beta = finite("beta", beta, least=0)
        self.temperature = finite("temperature", temperature, above=0)
        self.standardise = standardise
        self.reduction = (
            f"T = {temperature:g}: {alpha:g} of the true class and {beta:g} of the others, sum "
            "over classes, mean over images, times T²"
        )

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: the shapes of the logits differ, or a label is none of the classes.
        """
        logits = student.logits, teacher.logits
        return decoupled_loss(
            *logits, labels, self.alpha, self.beta, self.temperature, self.standardise
        )


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    for name in ("alpha", "beta", "ce_weight"):
        finite(f"dkd.{name}", arguments[name], least=0)
    finite("dkd.temperature", arguments["temperature"], above=0)
    loss = DecoupledTargets(
        *(arguments[name] for name in ("alpha", "beta", "temperature", "standardise"))
    )
    factor, rise = rising_weight("dkd", arguments["weight"], arguments["warmup"])
    notes = [
        f"dkd: alpha {loss.alpha:g}, beta {loss.beta:g} (the authors have beta 2 for ResNet-20 "
        f"from ResNet-56 and 6 for wide ResNets); {rise}"
    ]
    if arguments["standardise"]:
        notes.append(f"dkd: {STANDARDISED}, dkd.weight 9 and dkd.temperature 2")
    return Plan((Term("dkd", loss, factor),), ce_weight=arguments["ce_weight"], notes=tuple(notes))


METHOD = Method(
    name="dkd",
    title="Decoupled soft targets",
    paper="Zhao et al. 2022, arXiv 2203.08679",
    reduction="alpha of the true class and beta of the others, sum over classes, mean over images, "
    "times T²",
    # The code warms up over 20 of 240 epochs.
    defaults={
        "weight": 1.0,
        "alpha": 1.0,
        "beta": 8.0,
        "temperature": 4.0,
        "ce_weight": 1.0,
        "warmup": 20.0 / 240.0,
        "standardise": False,
    },
    plan=_plan,
)

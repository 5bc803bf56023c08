"""DIST: correlations of class probabilities, over the classes of an image and over images."""

from __future__ import annotations

import torch
from torch import Tensor

from natstats.checks import finite
from natstats.distill.losses.logits import paired_logits
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Term

__all__ = ["METHOD", "RelationMatching", "correlation_loss"]

_EPS = 1e-8
"""Added to the product of the norms, as the authors' program does."""

_LEAST = 0.01
"""Share of the teacher's norm that the student's is taken to have at least. Where the student's
values hardly differ, their correlation means little and its gradient would have no bound."""


def correlation_loss(
    student: Tensor,
    teacher: Tensor,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 4.0,
) -> Tensor:
    """One minus the correlation of the class probabilities, over classes and over images.

    With p = softmax(z / T), (N, K), of student and teacher, and r Pearson's correlation: T² (beta
    (1 - mean over images of r over classes) + gamma (1 - mean over classes of r over images)). A
    correlation asks for the order and the relative distances, and not for equal values.

    Args:
        student: logits (N, K).
        teacher: logits (N, K); no gradient flows into them.
        beta: weight of the relations between classes.
        gamma: weight of the relations between images.
        temperature: T.

    Raises:
        UsageError: the shapes differ.

    Reference:
        T. Huang, S. You, F. Wang, C. Qian and C. Xu, "Knowledge Distillation from A Stronger
        Teacher", NeurIPS 2022, arXiv 2205.10536, and its public code, which has the factor T².

    >>> import torch
    >>> logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    >>> float(correlation_loss(logits, logits).abs() < 1e-4)
    1.0
    """
    ours, theirs = paired_logits("dist", student, teacher)
    p, q = (ours / temperature).softmax(1), (theirs / temperature).softmax(1)
    between_classes = 1 - _correlations(p, q).mean()
    between_images = 1 - _correlations(p.T, q.T).mean()
    return temperature**2 * (beta * between_classes + gamma * between_images)


def _correlations(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation of the rows of `one`, the student, and `other`; 0 without variance."""
    one, other = (rows - rows.mean(dim=1, keepdim=True) for rows in (one, other))
    theirs = torch.linalg.vector_norm(other, dim=1)
    ours = torch.maximum(torch.linalg.vector_norm(one, dim=1), _LEAST * theirs)
    correlations: Tensor = (one * other).sum(1) / (ours * theirs + _EPS)
    return correlations


class RelationMatching(DistillationLoss):
    """:func:`correlation_loss` as a module.

    >>> import torch
    >>> outputs = Outputs(torch.randn(6, 10))
    >>> round(float(RelationMatching()(outputs, outputs, torch.zeros(6))), 3)
    0.0
    """

    compares_scores = True

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 4.0) -> None:
        super().__init__()
        self.beta = finite("beta", beta, least=0)
        self.gamma = finite("gamma", gamma, least=0)
        self.temperature = finite("temperature", temperature, above=0)
        self.reduction = (
            f"T = {temperature:g}: {beta:g} of the correlations over classes, mean over images, "
            f"and {gamma:g} of those over images, mean over classes, times T²"
        )

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: the shapes of the logits differ.
        """
        settings = self.beta, self.gamma, self.temperature
        return correlation_loss(student.logits, teacher.logits, *settings)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    for name in ("weight", "beta", "gamma", "ce_weight"):
        finite(f"dist.{name}", arguments[name], least=0)
    finite("dist.temperature", arguments["temperature"], above=0)
    loss = RelationMatching(*(arguments[name] for name in ("beta", "gamma", "temperature")))
    note = (
        "dist: the authors' weights and temperature for CIFAR-100; on ImageNet they have "
        "dist.temperature 1"
    )
    return Plan(
        (Term("dist", loss, arguments["weight"]),),
        ce_weight=arguments["ce_weight"],
        notes=(note,),
    )


METHOD = Method(
    name="dist",
    title="Relations of classes and images",
    paper="Huang et al. 2022, arXiv 2205.10536",
    reduction="1 - correlation over classes, mean over images, and 1 - correlation over images, "
    "mean over classes, times T²",
    defaults={"weight": 2.0, "beta": 1.0, "gamma": 1.0, "temperature": 4.0, "ce_weight": 1.0},
    plan=_plan,
)

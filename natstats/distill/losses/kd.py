"""Knowledge distillation by softened class scores."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Term

__all__ = ["METHOD", "SoftTargets", "soft_target_loss"]


def soft_target_loss(
    student: Tensor, teacher: Tensor, temperature: float = 4.0, t_squared: bool = True
) -> Tensor:
    """Divergence of the student's softened class probabilities from the teacher's.

    KL(softmax(z_T / T) || softmax(z_S / T)), summed over classes and averaged over images, times
    T^2, which keeps the size of the gradient the same for all T.

    Args:
        student: logits (N, K).
        teacher: logits (N, K).
        temperature: T.
        t_squared: False leaves the factor T^2 out, as FitNets and AB do.

    Reference:
        G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531, section 2.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> float(soft_target_loss(logits, logits + 3.0).abs() < 1e-6)
    1.0
    """
    log_student = functional.log_softmax(student.float() / temperature, dim=1)
    log_teacher = functional.log_softmax(teacher.float() / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    return divergence * temperature**2 if t_squared else divergence


class SoftTargets(DistillationLoss):
    """:func:`soft_target_loss` as a module."""

    def __init__(self, temperature: float = 4.0, t_squared: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        self.t_squared = t_squared

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32."""
        return soft_target_loss(student.logits, teacher.logits, self.temperature, self.t_squared)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    loss = SoftTargets(arguments["temperature"], arguments["t_squared"])
    return Plan((Term("kd", loss, arguments["weight"]),), ce_weight=arguments["ce_weight"])


METHOD = Method(
    name="kd",
    title="Soft targets",
    paper="Hinton, Vinyals and Dean 2015, arXiv 1503.02531",
    reduction="sum over classes, mean over images, times T^2",
    defaults={"weight": 0.9, "ce_weight": 0.1, "temperature": 4.0, "t_squared": True},
    plan=_plan,
)

"""Knowledge distillation by softened class scores.

The defaults are those in use on CIFAR (T = 4, weights 0.9 and 0.1); on ImageNet T = 1 and weights
of 0.5 and 0.5 are usual. What others call alpha is the weight of this term in some programs and
that of the cross-entropy in others, so here each of the two weights has its own name.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from natstats.checks import finite
from natstats.distill.losses.logits import STANDARDISED, paired_logits, standardised
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Term

__all__ = ["METHOD", "SoftTargets", "soft_target_loss"]


def soft_target_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 4.0,
    t_squared: bool = True,
    standardise: bool = False,
) -> Tensor:
    """Divergence of the student's softened class probabilities from the teacher's.

    KL(softmax(z_T / T) || softmax(z_S / T)), summed over classes and averaged over images, times
    T², which keeps the size of the gradient the same for all T.

    Args:
        student: logits (N, K).
        teacher: logits (N, K); no gradient flows into them.
        temperature: T.
        t_squared: False leaves the factor T² out, as FitNets and AB do.
        standardise: True brings the logits of every image to mean 0 and deviation 1 first, see
            :func:`natstats.distill.losses.logits.standardised`.

    Raises:
        UsageError: the shapes differ.

    Reference:
        G. Hinton, O. Vinyals and J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
        arXiv 1503.02531, section 2.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> float(soft_target_loss(logits, logits + 3.0).abs() < 1e-6)
    1.0
    """
    ours, theirs = paired_logits("soft_target_loss", student, teacher)
    if standardise:
        ours, theirs = standardised(ours), standardised(theirs)
    log_student = functional.log_softmax(ours / temperature, dim=1)
    log_teacher = functional.log_softmax(theirs / temperature, dim=1)
    divergence = functional.kl_div(log_student, log_teacher, log_target=True, reduction="batchmean")
    return divergence * temperature**2 if t_squared else divergence


class SoftTargets(DistillationLoss):
    """:func:`soft_target_loss` as a module.

    >>> import torch
    >>> outputs = Outputs(torch.randn(2, 10))
    >>> round(float(SoftTargets()(outputs, outputs, torch.tensor([3, 7]))), 6)
    0.0
    """

    compares_scores = True

    def __init__(
        self, temperature: float = 4.0, t_squared: bool = True, standardise: bool = False
    ) -> None:
        super().__init__()
        self.temperature = finite("temperature", temperature, above=0)
        self.t_squared = t_squared
        self.standardise = standardise
        factor = "times T²" if t_squared else "no T²"
        self.reduction = f"T = {temperature:g}: sum over classes, mean over images, {factor}"

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32."""
        return soft_target_loss(
            student.logits, teacher.logits, self.temperature, self.t_squared, self.standardise
        )


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    finite("kd.temperature", arguments["temperature"], above=0)
    finite("kd.weight", arguments["weight"], least=0)
    finite("kd.ce_weight", arguments["ce_weight"], least=0)
    loss = SoftTargets(*(arguments[name] for name in ("temperature", "t_squared", "standardise")))
    notes: tuple[str, ...] = ()
    if arguments["standardise"]:
        notes = (f"kd: {STANDARDISED}, kd.weight 9, kd.temperature 2 and kd.ce_weight 0.1",)
    return Plan(
        (Term("kd", loss, arguments["weight"]),), ce_weight=arguments["ce_weight"], notes=notes
    )


METHOD = Method(
    name="kd",
    title="Soft targets",
    paper="Hinton, Vinyals and Dean 2015, arXiv 1503.02531",
    reduction="sum over classes, mean over images, times T²",
    defaults={
        "weight": 0.9,
        "ce_weight": 0.1,
        "temperature": 4.0,
        "t_squared": True,
        "standardise": False,
    },
    plan=_plan,
)

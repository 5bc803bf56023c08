"""FitNets: first a hint from a middle layer of the teacher, then its softened class scores."""

from __future__ import annotations

from torch import Tensor, nn

from natstats.checks import finite, one_of
from natstats.distill.losses.choices import variant_weight
from natstats.distill.losses.connectors import connected, hint_regressor, resizing_regressor
from natstats.distill.losses.kd import SoftTargets
from natstats.distill.losses.maps import paired_maps, paired_taps, refuse_other_shape
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Ramp,
    Setting,
    Stage,
    TapPoint,
    Term,
)
from natstats.errors import UsageError

__all__ = ["METHOD", "HintLoss", "hint_loss"]

WEIGHTS = {"paper": "weight", "crd": "crd_weight"}


def hint_loss(student: Tensor, teacher: Tensor, form: str = "paper") -> Tensor:
    """Squared distance of the student's map, after its regressor, from the teacher's.

    With form ``paper`` half the squared difference, summed over channels and averaged over images
    and pixels; with ``crd`` the squared difference averaged over everything, which is C / 2 times
    smaller.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, H, W).
        form: ``paper`` or ``crd``.

    Raises:
        UsageError: an unknown form.

    Reference:
        A. Romero et al., "FitNets: Hints for Thin Deep Nets", 2014, arXiv 1412.6550; the
        reduction is that of its public code.

    >>> import torch
    >>> float(hint_loss(torch.ones(2, 6, 4, 4), torch.zeros(2, 6, 4, 4)))
    3.0
    """
    one_of("form", form, WEIGHTS)
    squared = (student - teacher).square()
    return squared.mean() if form == "crd" else squared.sum(1).mean() / 2


class HintLoss(DistillationLoss):
    """:func:`hint_loss` of one pair of maps, with the student's regressor.

    Args:
        regressor: makes (N, C_T, H_T, W_T) of the student's map.
        form: see :func:`hint_loss`.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.randn(2, 3, 4, 4),))
    >>> float(HintLoss(nn.Identity())(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    def __init__(self, regressor: nn.Module, form: str = "paper") -> None:
        super().__init__()
        self.regressor = regressor
        self.form = one_of("form", form, WEIGHTS)
        self.reduction = {
            "paper": "half the squared difference, sum over channels, mean over the rest",
            "crd": "squared difference, mean over everything",
        }[form]

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: not one map each, or the regressor's output has another shape.
        """
        ((guided, hint),) = paired_maps("fitnets", student, teacher, n_pairs=1)
        regressed = connected(self.regressor, guided)
        refuse_other_shape("fitnets", 0, regressed, hint)
        return hint_loss(regressed, hint, self.form)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    _, weight = variant_weight("fitnets", "schedule", WEIGHTS, arguments, METHOD.defaults)
    ((student, teacher),) = paired_taps("fitnets", setting, n_pairs=1)
    if arguments["schedule"] == "crd":
        return _plan_of_one_stage(student, teacher, weight)
    for name in ("end_weight", "ce_weight", "hint_weight", "ramp_begin"):
        finite(f"fitnets.{name}", arguments[name], least=0)
    for name in ("temperature", "epochs", "learning_rate"):
        finite(f"fitnets.{name}", arguments[name], above=0)
    begin, finish = arguments["ramp_begin"], arguments["ramp_finish"]
    if not begin < finish < float("inf"):
        raise UsageError(
            f"fitnets.ramp_finish: expected a number above fitnets.ramp_begin, {begin:g}; "
            f"got {finish:g}"
        )
    if student.height < teacher.height or student.width < teacher.width:
        raise UsageError(
            "fitnets: expected a student's map at least as large as the teacher's, as its "
            f"regressor does not pad; got {student.name} with {student.height} x {student.width} "
            f"and {teacher.name} with {teacher.height} x {teacher.width} pixels "
            "(schedule=crd takes half the size too)"
        )
    regressor = hint_regressor(_shape(student), _shape(teacher), teacher.activation)
    hint = Stage(
        "fitnets.hint",
        (Term("fitnets.hint", HintLoss(regressor), arguments["hint_weight"]),),
        arguments["epochs"],
        trains="lower",
        learning_rate=arguments["learning_rate"],
    )
    soft = SoftTargets(arguments["temperature"], t_squared=False)
    ramp = Ramp(weight, arguments["end_weight"], begin, finish)
    notes = [
        "fitnets: schedule=paper, a stage of hints (half the squared difference, summed over "
        "channels, mean over the rest), then soft targets without T²"
    ]
    if teacher.activation is None:
        notes.append(f"fitnets: no activation is known at {teacher.name}: the regressor has none")
    return Plan(
        (Term("fitnets.kd", soft, ramp),), (hint,), arguments["ce_weight"], notes=tuple(notes)
    )


def _plan_of_one_stage(student: TapPoint, teacher: TapPoint, weight: float) -> Plan:
    try:
        regressor = resizing_regressor(_shape(student), _shape(teacher))
    except UsageError:
        raise UsageError(
            "fitnets: expected a student's map of half the size of the teacher's, or at least as "
            f"large; got {student.name} with {student.height} x {student.width} and "
            f"{teacher.name} with {teacher.height} x {teacher.width} pixels"
        ) from None
    note = (
        "fitnets: schedule=crd, one stage with the squared difference, mean over everything, times "
        "fitnets.crd_weight; not the paper's"
    )
    return Plan((Term("fitnets", HintLoss(regressor, "crd"), weight),), notes=(note,))


def _shape(tap: TapPoint) -> tuple[int, int, int]:
    return tap.channels, tap.height, tap.width


METHOD = Method(
    name="fitnets",
    title="FitNets",
    paper="Romero et al. 2014, arXiv 1412.6550",
    reduction="hint: 1/2 squared difference, sum over channels, mean over images and pixels; soft "
    "targets: sum over classes, mean over images, no T²; schedule=crd: mean over everything",
    # The stage of the public code has 288 epochs; its ramp runs from 5 to 400, and so never ends.
    # Length and learning rate of the stage of hints are ours.
    defaults={
        "weight": 4.0,
        "end_weight": 1.0,
        "ramp_begin": 5.0 / 288.0,
        "ramp_finish": 400.0 / 288.0,
        "ce_weight": 1.0,
        "temperature": 3.0,
        "hint_weight": 1.0,
        "epochs": 0.25,
        "learning_rate": 0.1,
        "schedule": "paper",
        "crd_weight": 100.0,
    },
    plan=_plan,
    place="middle",
    activation="post",
    connectors="a convolution without padding and the teacher's activation (schedule=crd: with "
    "batch norm and ReLU)",
    stages=("fitnets.hint", "main"),
)

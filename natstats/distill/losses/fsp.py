"""FSP: how the maps of a network flow from the start of a section to its end."""

from __future__ import annotations

import torch
from torch import Tensor

from natstats.checks import finite, one_of
from natstats.distill.losses.maps import paired_maps, paired_taps, pooled
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Stage, Term
from natstats.errors import UsageError

__all__ = ["METHOD", "FlowMatching", "flow_loss", "flow_matrix"]


def flow_matrix(first: Tensor, last: Tensor, pool: str = "max") -> Tensor:
    """The product of two maps of one network, averaged over pixels.

    G_ij = 1 / (H W) * sum over pixels of first_i * last_j. The larger map is pooled to the size of
    the smaller. In float32, also under autocast.

    Args:
        first: (N, m, H, W).
        last: (N, n, H', W').
        pool: ``max`` or ``average``.

    Returns:
        (N, m, n).

    >>> import torch
    >>> flow_matrix(torch.ones(1, 2, 4, 4), 3.0 * torch.ones(1, 1, 4, 4))
    tensor([[[3.],
             [3.]]])
    """
    one, other = pooled(first, last, pool)
    with torch.autocast(one.device.type, enabled=False):
        product = one.flatten(2) @ other.flatten(2).transpose(1, 2)
    return product / one[0, 0].numel()


def flow_loss(student: Tensor, teacher: Tensor, form: str = "paper") -> Tensor:
    """Squared distance of two flow matrices.

    With form ``paper`` the squared Frobenius norm, averaged over images; with ``crd`` the squared
    difference averaged over everything, which is m n times smaller.

    Args:
        student: (N, m, n).
        teacher: (N, m, n).
        form: ``paper`` or ``crd``.

    Raises:
        UsageError: an unknown form, or the shapes differ.

    Reference:
        J. Yim, D. Joo, J. Bae and J. Kim, "A Gift from Knowledge Distillation", CVPR 2017,
        which was read in a translation.

    >>> import torch
    >>> float(flow_loss(torch.ones(5, 2, 3), torch.zeros(5, 2, 3)))
    6.0
    """
    one_of("form", form, ("paper", "crd"))
    if student.shape != teacher.shape:
        raise UsageError(
            "fsp: expected equal numbers of channels in student and teacher; got flow matrices "
            f"of {_sides(student)} channels of the student and {_sides(teacher)} of the teacher"
        )
    squared = (student - teacher).square()
    return squared.mean() if form == "crd" else squared.sum((1, 2)).mean()


class FlowMatching(DistillationLoss):
    """:func:`flow_loss`, summed over sections.

    The maps come as first and last of every section: (first_0, last_0, first_1, last_1, ...).

    Args:
        form: ``paper``, with max pooling where sizes differ, or ``crd``, with average pooling.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)))
    >>> float(FlowMatching()(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    def __init__(self, form: str = "paper") -> None:
        super().__init__()
        self.form = one_of("form", form, ("paper", "crd"))
        self.reduction = {
            "paper": "squared Frobenius norm, mean over images, sum over sections",
            "crd": "squared difference, mean over everything, sum over sections",
        }[form]

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: an odd number of maps, or numbers of maps or channels that differ.
        """
        maps = paired_maps("fsp", student, teacher)
        _refuse_odd(len(maps))
        pool = "max" if self.form == "paper" else "average"
        losses = []
        for (first, first_teacher), (last, last_teacher) in zip(maps[::2], maps[1::2], strict=True):
            ours = flow_matrix(first, last, pool)
            theirs = flow_matrix(first_teacher, last_teacher, pool)
            losses.append(flow_loss(ours, theirs, self.form))
        return sum(losses[1:], losses[0])


def _refuse_odd(n_maps: int) -> None:
    if n_maps % 2:
        raise UsageError(f"fsp: expected first and last map of every section; got {n_maps} maps")


def _sides(matrix: Tensor) -> str:
    return " x ".join(str(side) for side in matrix.shape[1:])


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    form = one_of("fsp.form", arguments["form"], ("paper", "crd"))
    schedule = one_of("fsp.schedule", arguments["schedule"], ("same", "constant"))
    finite("fsp.weight", arguments["weight"], least=0)
    for name in ("epochs", "learning_rate"):
        finite(f"fsp.{name}", arguments[name], above=0)
    pairs = paired_taps("fsp", setting)
    _refuse_odd(len(pairs))
    unequal = [
        f"{student.name} ({student.channels}) and {teacher.name} ({teacher.channels})"
        for student, teacher in pairs
        if student.channels != teacher.channels
    ]
    if unequal:
        raise UsageError(
            "fsp: expected equal numbers of channels in student and teacher, as the method has no "
            f"connector; got {', '.join(dict.fromkeys(unequal))}"
        )
    matrices = Stage(
        "fsp.matrices",
        (Term("fsp", FlowMatching(form), arguments["weight"]),),
        arguments["epochs"],
        learning_rate=arguments["learning_rate"],
        schedule=schedule,
    )
    reduced = {
        "paper": "squared Frobenius norm, maxima where sizes differ",
        "crd": "squared difference, mean over everything, averages where sizes differ",
    }[form]
    note = f"fsp: form={form}, {reduced}; then cross-entropy alone"
    return Plan(before=(matrices,), notes=(note,))


METHOD = Method(
    name="fsp",
    title="Flow of solution procedure",
    paper="Yim, Joo, Bae and Kim 2017, CVPR",
    reduction="sum over the matrix and over sections, mean over images; form=crd: mean over the "
    "matrix and over images",
    # The learning rate is the paper's, 0.001 where the main stage has 0.1; the length is ours (the
    # paper has 21 of 64 thousand iterations). The code called crd has a factor of 1, constant.
    defaults={
        "weight": 1.0,
        "form": "paper",
        "epochs": 0.25,
        "learning_rate": 0.01,
        "schedule": "same",
    },
    plan=_plan,
    place="sections",
    activation="post",
    teacher_passes=0.0,
    stages=("fsp.matrices", "main"),
)

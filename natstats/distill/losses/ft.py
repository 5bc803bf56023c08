"""Factor transfer: the student matches factors that an autoencoder finds in the teacher's map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from natstats.checks import finite, one_of
from natstats.distill.losses.at import attention_map
from natstats.distill.losses.choices import variant_weight
from natstats.distill.losses.connectors import Paraphraser, connected, translator
from natstats.distill.losses.maps import paired_maps, paired_taps, pooled, refuse_other_shape
from natstats.distill.method import DistillationLoss, Method, Outputs, Plan, Setting, Stage, Term

__all__ = ["METHOD", "FactorTransfer", "Reconstruction", "factor_loss", "reconstruction_loss"]

WEIGHTS = {"paper": "weight", "crd": "crd_weight"}
RECONSTRUCTIONS = ("code", "paper")


def factor_loss(student: Tensor, teacher: Tensor, form: str = "paper") -> Tensor:
    """Distance of two factors, each divided by its norm in every image.

    With form ``paper`` the norm runs over channels and pixels, and the absolute difference is
    averaged over everything. With ``crd``, the variant of a much used benchmark, the factors are
    first squared and averaged over channels, which compares where factors are and not which.

    Args:
        student: (N, m, H, W).
        teacher: (N, m, H, W).
        form: ``paper`` or ``crd``.

    Raises:
        UsageError: an unknown form.

    Reference:
        J. Kim, S. Park and N. Kwak, "Paraphrasing Complex Network: Network Compression via Factor
        Transfer", 2018, arXiv 1802.04977, with p = 1; as in its public code, as its text was not
        open to us.

    >>> import torch
    >>> factor = torch.randn(2, 3, 4, 4)
    >>> round(float(factor_loss(factor, 7.0 * factor)), 6)
    0.0
    """
    if one_of("form", form, WEIGHTS) == "crd":
        return (attention_map(student) - attention_map(teacher)).abs().mean()
    ours = functional.normalize(student.flatten(1), dim=1)
    theirs = functional.normalize(teacher.flatten(1), dim=1)
    return (ours - theirs).abs().mean()


def reconstruction_loss(rebuilt: Tensor, maps: Tensor, form: str = "code") -> Tensor:
    """Distance of a map from what the paraphraser makes of it, averaged over everything.

    Args:
        rebuilt: (N, C, H, W).
        maps: (N, C, H, W).
        form: ``code`` for the absolute difference, as the authors' program has it, ``paper`` for
            the squared one, which is what we know of the paper.

    Raises:
        UsageError: an unknown form.

    >>> import torch
    >>> float(reconstruction_loss(torch.zeros(2, 3, 4, 4), 3.0 * torch.ones(2, 3, 4, 4)))
    3.0
    """
    difference = rebuilt - maps
    return (
        difference.abs().mean()
        if one_of("form", form, RECONSTRUCTIONS) == "code"
        else difference.square().mean()
    )


class Reconstruction(DistillationLoss):
    """:func:`reconstruction_loss` of the teacher's map; trains the paraphraser, which it owns.

    The student's outputs and the labels are ignored.

    Args:
        paraphraser: with an ``encoder`` of its own.
        form: see :func:`reconstruction_loss`.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.rand(2, 4, 8, 8),))
    >>> loss = Reconstruction(Paraphraser(4))(outputs, outputs, torch.tensor([0, 1]))
    >>> loss.requires_grad
    True
    """

    def __init__(self, paraphraser: Paraphraser, form: str = "code") -> None:
        super().__init__()
        self.paraphraser = paraphraser
        self.form = one_of("form", form, RECONSTRUCTIONS)
        of = {"code": "absolute", "paper": "squared"}[form]
        self.reduction = f"{of} difference, mean over everything"

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: not one map of the teacher.
        """
        ((_, maps),) = paired_maps("ft", teacher, teacher, n_pairs=1)
        rebuilt = connected(self.paraphraser, maps)
        refuse_other_shape("ft", 0, rebuilt, maps)
        return reconstruction_loss(rebuilt, maps, self.form)


class FactorTransfer(DistillationLoss):
    """:func:`factor_loss` of the student's translator and the teacher's paraphraser.

    Only the translator is trained. The paraphraser belongs to :class:`Reconstruction`: it is not
    among the parameters or the state of this module and works without gradients, so it must be
    moved and saved separately. The larger factor is average-pooled to the size of the smaller.

    Args:
        paraphraser: trained beforehand.
        translator: makes (N, m, H, W) of the student's map.
        form: see :func:`factor_loss`.

    >>> import torch
    >>> from natstats.distill.losses.connectors import translator
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.rand(2, 4, 8, 8),))
    >>> loss = FactorTransfer(Paraphraser(4), translator(4, 2))
    >>> bool(loss(outputs, outputs, torch.tensor([0, 1])) > 0)
    True
    """

    def __init__(
        self, paraphraser: Paraphraser, translator: nn.Module, form: str = "paper"
    ) -> None:
        super().__init__()
        self.translator = translator
        self.form = one_of("form", form, WEIGHTS)
        self.reduction = {
            "paper": "absolute difference, mean over everything",
            "crd": "absolute difference, mean over images and pixels",
        }[form]
        # In a tuple, so that it is not registered as a part of this module.
        self._paraphraser = (paraphraser,)

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: not one map each, or factors with different numbers of channels.
        """
        ((ours, theirs),) = paired_maps("ft", student, teacher, n_pairs=1)
        with torch.no_grad():
            target = connected(self._paraphraser[0].encoder, theirs)
        factor, target = pooled(connected(self.translator, ours), target)
        refuse_other_shape("ft", 0, factor, target)
        return factor_loss(factor, target, self.form)


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    form = arguments["form"]
    name, weight = variant_weight("ft", "form", WEIGHTS, arguments, METHOD.defaults)
    reconstruction = one_of("ft.reconstruction", arguments["reconstruction"], RECONSTRUCTIONS)
    for positive in ("rate", "epochs", "learning_rate"):
        finite(f"ft.{positive}", arguments[positive], above=0)
    ((student, teacher),) = paired_taps("ft", setting, n_pairs=1)
    paraphraser = Paraphraser(teacher.channels, arguments["rate"])
    before = Stage(
        "ft.paraphraser",
        (Term("ft.reconstruction", Reconstruction(paraphraser, reconstruction), 1.0),),
        arguments["epochs"],
        trains="losses",
        learning_rate=arguments["learning_rate"],
    )
    transfer = FactorTransfer(paraphraser, translator(student.channels, paraphraser.factors), form)
    reduced = {"code": "absolute", "paper": "squared"}[reconstruction]
    notes = (
        f"ft: form={form}, {transfer.reduction}, times ft.{name}",
        f"ft: reconstruction={reconstruction}, {reduced} difference, mean over everything",
    )
    return Plan((Term("ft.factors", transfer, weight),), (before,), notes=notes)


METHOD = Method(
    name="ft",
    title="Factor transfer",
    paper="Kim, Park and Kwak 2018, arXiv 1802.04977",
    reduction="factors: absolute difference, mean over channels, pixels and images (form=crd: over "
    "pixels and images); reconstruction: mean over everything",
    # The length of the first stage is ours; the code has a handful of 164 epochs.
    defaults={
        "weight": 500.0,
        "rate": 0.5,
        "form": "paper",
        "crd_weight": 200.0,
        "reconstruction": "code",
        "epochs": 0.1,
        "learning_rate": 1.0,
    },
    plan=_plan,
    place="last",
    activation="post",
    connectors="a translator of three 3 x 3 convolutions; the paraphraser of the teacher",
    stages=("ft.paraphraser", "main"),
)

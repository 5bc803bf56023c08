"""SpectralKD: the Fourier coefficients of the maps, frequency by frequency."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from natstats.checks import finite
from natstats.distill.losses.kd import SoftTargets
from natstats.distill.losses.maps import paired_maps, paired_taps, pooled
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Setting,
    Term,
    at_least_float32,
)
from natstats.spectra.precision import full_precision

__all__ = ["METHOD", "CoefficientDistance", "coefficient_loss"]


def coefficient_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of the Fourier coefficients of two maps, with phases.

    The channels of the wider map are averaged to the number of the other's, neighbours with
    neighbours. Then the squared difference of the real and of the imaginary parts of the
    orthonormal half plane, averaged over all of them.

    Args:
        student: (N, C, H, W).
        teacher: (N, C', H', W'). The larger map is average-pooled to the size of the smaller,
            which is ours: the authors' maps have one size.

    Reference:
        H. Tian, B. Xu, S. Li and G. Pan, "SpectralKD: A Unified Framework for Interpreting and
        Distilling Vision Transformers via Spectral Analysis", 2024, arXiv 2412.19055, and its
        public code.

    >>> import torch
    >>> maps = torch.randn(2, 6, 8, 8)
    >>> float(coefficient_loss(maps[:, ::2], maps[:, ::2].repeat_interleave(2, dim=1)) < 1e-12)
    1.0
    """
    one, other = pooled(at_least_float32(student), at_least_float32(teacher))
    n_channels = min(one.shape[1], other.shape[1])
    # By linearity the transform of the difference is the difference of the transforms.
    difference = _averaged(one, n_channels) - _averaged(other, n_channels)
    with full_precision(difference.device):
        plane = torch.fft.rfft2(difference, norm="ortho")
    return torch.view_as_real(plane).square().mean()


def _averaged(maps: Tensor, n_channels: int) -> Tensor:
    """Maps with neighbouring channels averaged, (N, n_channels, H, W)."""
    if maps.shape[1] == n_channels:
        return maps
    by_pixel = functional.adaptive_avg_pool1d(maps.flatten(2).transpose(1, 2), n_channels)
    return by_pixel.transpose(1, 2).reshape(len(maps), n_channels, *maps.shape[2:])


class CoefficientDistance(DistillationLoss):
    """:func:`coefficient_loss`, averaged over pairs of maps.

    >>> import torch
    >>> outputs = Outputs(torch.zeros(2, 10), (torch.randn(2, 3, 4, 4),) * 2)
    >>> float(CoefficientDistance()(outputs, outputs, torch.tensor([0, 1])))
    0.0
    """

    reduction = "squared difference, mean over everything, mean over pairs"

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32.

        Raises:
            UsageError: the numbers of maps, or of images, differ.
        """
        maps = paired_maps("spectralkd", student, teacher)
        return torch.stack([coefficient_loss(*pair) for pair in maps]).mean()


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    for name in ("weight", "kd_weight", "ce_weight"):
        finite(f"spectralkd.{name}", arguments[name], least=0)
    paired_taps("spectralkd", setting)
    terms = [Term("spectralkd", CoefficientDistance(), arguments["weight"])]
    notes = ["spectralkd: the authors have a weight of 0.2 for DeiT and of 0.05 for Swin"]
    if arguments["kd_weight"]:
        finite("spectralkd.temperature", arguments["temperature"], above=0)
        soft = SoftTargets(arguments["temperature"])
        terms.append(Term("spectralkd.kd", soft, arguments["kd_weight"]))
    else:
        notes.append("spectralkd: kd_weight=0, coefficients without soft targets")
    return Plan(tuple(terms), ce_weight=arguments["ce_weight"], notes=tuple(notes))


METHOD = Method(
    name="spectralkd",
    title="Fourier coefficients of averaged channels",
    paper="Tian, Xu, Li and Pan 2024, arXiv 2412.19055",
    reduction="coefficients: squared difference, mean over everything and over pairs; soft "
    "targets: sum over classes, mean over images, times T²",
    defaults={
        "weight": 0.2,
        "kd_weight": 0.9,
        "ce_weight": 0.1,
        "temperature": 1.0,
    },
    plan=_plan,
    place="groups",
    activation="block",
)

"""The losses against the authors' programs: the same formula, on the same numbers.

    python analyses/distill_oracles.py

writes analyses/results/distill_oracles.json, from which figures/distillation.py makes a table. The
numbers of the others are what the named programs gave, at the named commits, in float64 on the
tensors of `wave`. None of their code is here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from natstats.distill.losses import (
    ab,
    at,
    dist,
    dkd,
    ffl,
    fitnets,
    freekd,
    fsp,
    ft,
    kd,
    ofd,
    reviewkd,
    spectralkd,
)
from natstats.distill.method import Outputs, TapPoint

RESULT = Path(__file__).parent / "results" / "distill_oracles.json"
REP = "HobbitLong/RepDistiller b84f547"
MDISTILLER = "megvii-research/mdistiller a08d46f"
STANDARDISED = "sunshangquan/logit-standardization-KD f6e5aa5"
SOTA = "hunto/image_classification_sota 6f7a70a"
OFD = "clovaai/overhaul-distillation 76344a8"
FFL = "EndlessSora/focal-frequency-loss 352f69d"
FREEKD = "Gumpest/FreeKD e0874f5, fbcotter/pytorch_wavelets 9a0c507"
LABELS = torch.tensor([0, 5, 2, 3])


def wave(*shape: int, seed: int) -> Tensor:
    """2 sin(0.37 k^2 + 0.7391 k (seed + 1)), k = 1, 2, ..., in float64.

    >>> wave(2, seed=0).round(decimals=4).tolist()
    [1.7906, 0.3275]
    """
    k = torch.arange(1, 1 + math.prod(shape), dtype=torch.float64)
    return (2 * torch.sin(k * k * 0.37 + k * (seed + 1) * 0.7391)).reshape(shape)


@dataclass(frozen=True)
class Case:
    """One number of another program.

    Attributes:
        method: of natstats.
        variant: arguments that are not the defaults, in words.
        program: repository and commit.
        function: what was run there, and how it differs in its factors.
        value: what it gave.
        ours: gives the same of natstats.
    """

    method: str
    variant: str
    program: str
    function: str
    value: float
    ours: Callable[[], Tensor]

    @property
    def difference(self) -> float:
        """Of natstats from the other program, relative."""
        return abs(float(self.ours().detach()) / self.value - 1)


def _logits() -> tuple[Tensor, Tensor]:
    return wave(4, 6, seed=0), wave(4, 6, seed=1)


def _pair(*shape: int, seeds: tuple[int, int]) -> tuple[Tensor, Tensor]:
    return wave(*shape, seed=seeds[0]), wave(*shape, seed=seeds[1])


def _outputs(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> tuple[Outputs, Outputs]:
    return Outputs(torch.zeros(2, 3), student), Outputs(torch.zeros(2, 3), teacher)


def _flow() -> Tensor:
    student = wave(2, 3, 8, 8, seed=46), wave(2, 4, 4, 4, seed=47)
    teacher = wave(2, 3, 8, 8, seed=48), wave(2, 4, 4, 4, seed=49)
    return fsp.FlowMatching("crd")(*_outputs(student, teacher), LABELS)


def _attention() -> Tensor:
    student = wave(2, 3, 8, 8, seed=40), wave(2, 4, 4, 4, seed=41)
    teacher = wave(2, 5, 8, 8, seed=42), wave(2, 6, 8, 8, seed=43)
    return at.AttentionTransfer()(*_outputs(student, teacher), LABELS)


def _boundaries() -> Tensor:
    student = wave(2, 3, 8, 8, seed=52), wave(2, 4, 4, 4, seed=53)
    teacher = wave(2, 3, 8, 8, seed=54), wave(2, 4, 4, 4, seed=55)
    loss = ab.ActivationBoundaries([nn.Identity()] * 2)
    return 0.003 * loss(*_outputs(student, teacher), LABELS)


def _overhaul() -> Tensor:
    student, teacher = _pair(2, 3, 8, 8, seeds=(52, 54))
    return ofd.partial_distance(student, teacher, -wave(3, seed=56).abs())


def _margin() -> Tensor:
    """The four margins of the authors, in one number."""
    margins = ofd.negative_mean(3 * wave(4, seed=58), wave(4, seed=57).abs(), fallback=True)
    return (margins * torch.arange(1, 5)).sum()


def _spectralkd() -> Tensor:
    student = wave(2, 3, 8, 8, seed=2), wave(2, 4, 4, 4, seed=3)
    teacher = wave(2, 6, 8, 8, seed=4), wave(2, 7, 4, 4, seed=5)
    return spectralkd.CoefficientDistance()(*_outputs(student, teacher), LABELS)


def _freekd(shape: tuple[int, int, int, int], n_tokens: int) -> Tensor:
    tokens = wave(4, n_tokens, shape[1], seed=8)[1:] / 4
    return freekd.detail_loss(*_pair(*shape, seeds=(9, 10)), tokens)


def _reviewkd() -> Tensor:
    def points(*shapes: tuple[int, int, int]) -> list[TapPoint]:
        return [TapPoint("layer", *shape, None, nn.ReLU()) for shape in shapes]

    mine, theirs = points((3, 8, 8), (4, 4, 4)), points((5, 16, 16), (6, 4, 4))
    loss = reviewkd.KnowledgeReview(mine, theirs).double()
    kernels = [parameter for parameter in loss.parameters() if parameter.ndim == 4]
    with torch.no_grad():
        for number, kernel in enumerate(kernels, 1):
            kernel.copy_(wave(*kernel.shape, seed=20 + number) / 4)
        for name, parameter in loss.named_parameters():
            if name.endswith("attention.bias"):
                parameter.zero_()
    student = wave(2, 3, 8, 8, seed=30), wave(2, 4, 4, 4, seed=31)
    teacher = wave(2, 5, 16, 16, seed=32), wave(2, 6, 4, 4, seed=33)
    return loss(*_outputs(student, teacher), LABELS)


CASES = (
    Case("kd", "", REP, "DistillKL", 1.8283813626046523, lambda: kd.soft_target_loss(*_logits())),
    Case("kd", "standardise=true, T = 2", STANDARDISED, "kd_loss", 0.8447644489631445,
         lambda: kd.soft_target_loss(*_logits(), 2.0, standardise=True)),
    Case("dkd", "", MDISTILLER, "dkd_loss", 14.90559429010935,
         lambda: dkd.decoupled_loss(*_logits(), LABELS)),
    Case("dkd", "alpha 0.5, beta 2, T = 1", MDISTILLER, "dkd_loss", 2.8386848548708667,
         lambda: dkd.decoupled_loss(*_logits(), LABELS, 0.5, 2.0, 1.0)),
    Case("dkd", "standardise=true, T = 2", STANDARDISED, "dkd_loss", 6.8442488390780145,
         lambda: dkd.decoupled_loss(*_logits(), LABELS, temperature=2.0, standardise=True)),
    Case("dist", "", SOTA, "DIST", 29.733045287309253, lambda: dist.correlation_loss(*_logits())),
    Case("dist", "beta 0.5, gamma 2, T = 1", SOTA, "DIST", 2.1152119663790194,
         lambda: dist.correlation_loss(*_logits(), 0.5, 2.0, 1.0)),
    Case("fitnets", "schedule=crd", REP, "HintLoss", 4.212826666600301,
         lambda: fitnets.hint_loss(*_pair(2, 3, 8, 8, seeds=(44, 45)), "crd")),
    Case("at", "", REP, "Attention", 0.017163658031930748, _attention),
    Case("fsp", "form=crd", REP, "FSP", 0.09533566798584654, _flow),
    Case("ft", "", "Jangho-Kim/Factor-Transfer-pytorch 19cce26", "FT, L1Loss", 0.08332305148953012,
         lambda: ft.factor_loss(*_pair(2, 3, 8, 8, seeds=(50, 51)))),
    Case("ft", "form=crd", REP, "FactorTransfer", 0.05240785977457186,
         lambda: ft.factor_loss(*_pair(2, 3, 8, 8, seeds=(50, 51)), "crd")),
    Case("ab", "", REP, "ABLoss, which has the weight 0.003 in it", 1.3970338564198337,
         _boundaries),
    Case("ofd", "one pair", OFD, "distillation_loss, divided by the images", 765.6259931705362,
         _overhaul),
    # In float32 there: sum of 1, 2, 3, 4 times the four margins.
    Case("ofd", "margin=code", OFD, "get_margin_from_BN, in float32",
         -1.0931484699249268 - 2 * 0.3918069005012512 - 3 * 0.08094625174999237
         - 4 * 5.754857063293457, _margin),
    Case("reviewkd", "", MDISTILLER, "ReviewKD.forward_train, kernels of `ABF` set to waves",
         5.202390282045324, _reviewkd),
    Case("reviewkd", "pyramid of 8 x 8", MDISTILLER, "hcl_loss", 2.4506166662431466,
         lambda: reviewkd.pyramid_loss(*_pair(2, 3, 8, 8, seeds=(11, 14)))),
    Case("reviewkd", "pyramid of 4 x 4", MDISTILLER, "hcl_loss", 2.459029293977084,
         lambda: reviewkd.pyramid_loss(*_pair(2, 4, 4, 4, seeds=(12, 15)))),
    Case("reviewkd", "pyramid of 1 x 1", MDISTILLER, "hcl_loss", 3.4427161498739145,
         lambda: reviewkd.pyramid_loss(*_pair(2, 4, 1, 1, seeds=(13, 16)))),
    Case("spectralkd", "", "thy960112/SpectralKD 968be0e",
         "fft_loss, without its cast to float32", 1.280636252821052, _spectralkd),
    Case("freekd", "", FREEKD, "FreeKDLoss, its tokens set to a wave", 2.3423352718305868,
         lambda: _freekd((2, 3, 16, 8), 6)),
    Case("freekd", "10 x 6 pixels, 2 tokens", FREEKD, "FreeKDLoss, its tokens set to a wave",
         1.7570132429932552, lambda: _freekd((2, 3, 10, 6), 2)),
    Case("ffl", "7 x 6 pixels", FFL, "FocalFrequencyLoss", 2.8454075794906726,
         lambda: ffl.focal_loss(*_pair(2, 3, 7, 6, seeds=(6, 7)))),
    Case("ffl", "7 x 6 pixels, alpha 2", FFL, "FocalFrequencyLoss", 2.1627765916965744,
         lambda: ffl.focal_loss(*_pair(2, 3, 7, 6, seeds=(6, 7)), 2.0)),
    Case("ffl", "", FFL, "FocalFrequencyLoss", 2.8222385143390114,
         lambda: ffl.focal_loss(*_pair(2, 3, 8, 8, seeds=(6, 7)))),
)  # fmt: skip

WITHOUT = {
    "ce": "the cross-entropy of PyTorch",
    "jacobian": "no program of the authors is known; finite differences",
    "spectral": "ours; formulas written out in numpy",
}
"""Methods that no program was run for, and what they are held to instead."""


def table() -> dict[str, object]:
    """All cases with their differences, and what the other methods are held to."""
    rows = [
        {
            "method": case.method,
            "variant": case.variant,
            "program": case.program,
            "function": case.function,
            "value": case.value,
            # In steps of decades, so that the file does not change with the machine.
            "difference_below": float(
                f"1e{max(math.ceil(math.log10(case.difference + 1e-12)), -9)}"
            ),
        }
        for case in CASES
    ]
    return {"command": "python analyses/distill_oracles.py", "cases": rows, "without": WITHOUT}


def main() -> None:
    """Write the table."""
    RESULT.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""The losses of others against what the authors' programs gave.

The numbers are what the named programs gave in float64 on the tensors of `wave`, at these commits:

* megvii-research/mdistiller a08d46f: `dkd_loss`; `hcl_loss` and `ReviewKD.forward_train`, with the
  convolutions of `ABF` set to `wave(...) / 4` in order, the bias of its attention to 0;
* sunshangquan/logit-standardization-KD f6e5aa5: `kd_loss`, `dkd_loss` with logit_stand=True;
* hunto/image_classification_sota 6f7a70a: `DIST`;
* thy960112/SpectralKD 968be0e: `fft_loss`, without its cast to float32;
* EndlessSora/focal-frequency-loss 352f69d: `FocalFrequencyLoss`;
* Gumpest/FreeKD e0874f5: `FreeKDLoss` with fbcotter/pytorch_wavelets 9a0c507, its mask tokens set
  to `wave(4, T, C) / 4`, of which it uses the last three.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from natstats.distill.losses import dist, dkd, ffl, freekd, kd, reviewkd, spectralkd
from natstats.distill.method import Outputs, TapPoint


def wave(*shape, seed):
    """2 sin(0.37 k^2 + 0.7391 k (seed + 1)), k = 1, 2, ..."""
    k = torch.arange(1, 1 + math.prod(shape), dtype=torch.float64)
    return (2 * torch.sin(k * k * 0.37 + k * (seed + 1) * 0.7391)).reshape(shape)


LOGITS = wave(4, 6, seed=0), wave(4, 6, seed=1)
LABELS = torch.tensor([0, 5, 2, 3])


def close(value, expected):
    assert float(value.detach()) == pytest.approx(expected, rel=1e-9)


def test_kd():
    close(kd.soft_target_loss(*LOGITS), 1.8283813626046523)
    close(kd.soft_target_loss(*LOGITS, 2.0, standardise=True), 0.8447644489631445)


def test_dkd():
    close(dkd.decoupled_loss(*LOGITS, LABELS), 14.90559429010935)
    close(dkd.decoupled_loss(*LOGITS, LABELS, 0.5, 2.0, 1.0), 2.8386848548708667)
    value = dkd.decoupled_loss(*LOGITS, LABELS, temperature=2.0, standardise=True)
    close(value, 6.8442488390780145)


def test_dist():
    close(dist.correlation_loss(*LOGITS), 29.733045287309253)
    close(dist.correlation_loss(*LOGITS, 0.5, 2.0, 1.0), 2.1152119663790194)


def test_spectralkd():
    student = wave(2, 3, 8, 8, seed=2), wave(2, 4, 4, 4, seed=3)
    teacher = wave(2, 6, 8, 8, seed=4), wave(2, 7, 4, 4, seed=5)
    outputs = Outputs(torch.zeros(2, 3), student), Outputs(torch.zeros(2, 3), teacher)
    close(spectralkd.CoefficientDistance()(*outputs, torch.zeros(2)), 1.280636252821052)


@pytest.mark.parametrize(
    ("shape", "alpha", "expected"),
    [
        ((2, 3, 7, 6), 1.0, 2.8454075794906726),
        ((2, 3, 7, 6), 2.0, 2.1627765916965744),
        ((2, 3, 8, 8), 1.0, 2.8222385143390114),
    ],
)
def test_ffl(shape, alpha, expected):
    close(ffl.focal_loss(wave(*shape, seed=6), wave(*shape, seed=7), alpha), expected)


@pytest.mark.parametrize(
    ("shape", "n_tokens", "expected"),
    [((2, 3, 16, 8), 6, 2.3423352718305868), ((2, 3, 10, 6), 2, 1.7570132429932552)],
)
def test_freekd(shape, n_tokens, expected):
    tokens = wave(4, n_tokens, shape[1], seed=8)[1:] / 4
    close(freekd.detail_loss(wave(*shape, seed=9), wave(*shape, seed=10), tokens), expected)


@pytest.mark.parametrize(
    ("shape", "seeds", "expected"),
    [
        ((2, 3, 8, 8), (11, 14), 2.4506166662431466),
        ((2, 4, 4, 4), (12, 15), 2.459029293977084),
        ((2, 4, 1, 1), (13, 16), 3.4427161498739145),
    ],
)
def test_the_pyramid_of_reviewkd(shape, seeds, expected):
    one, other = (wave(*shape, seed=seed) for seed in seeds)
    close(reviewkd.pyramid_loss(one, other), expected)


def test_reviewkd():
    def points(*shapes):
        return [TapPoint("layer", *shape, None, nn.ReLU()) for shape in shapes]

    loss = reviewkd.KnowledgeReview(
        points((3, 8, 8), (4, 4, 4)), points((5, 16, 16), (6, 4, 4))
    ).double()
    kernels = [p for name, p in loss.named_parameters() if p.ndim == 4]
    with torch.no_grad():
        for number, kernel in enumerate(kernels, 1):
            kernel.copy_(wave(*kernel.shape, seed=20 + number) / 4)
        for fusion in loss.fusions:
            if fusion.attention is not None:
                fusion.attention.bias.zero_()
    student = wave(2, 3, 8, 8, seed=30), wave(2, 4, 4, 4, seed=31)
    teacher = wave(2, 5, 16, 16, seed=32), wave(2, 6, 4, 4, seed=33)
    outputs = Outputs(torch.zeros(2, 3), student), Outputs(torch.zeros(2, 3), teacher)
    close(loss(*outputs, torch.zeros(2)), 5.202390282045324)

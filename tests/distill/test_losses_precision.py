"""Losses in float64, and of maps without power: gradients that are right, values with a bound."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from natstats.distill.losses import ab, at, ffl, fitnets, fsp, ft, kd, ofd, spectralkd
from natstats.distill.losses.channels import ChannelSpectra
from natstats.distill.losses.connectors import Paraphraser, connected, projection, translator
from natstats.distill.losses.controls import CONTROLS
from natstats.distill.losses.likeness import Likeness
from natstats.distill.losses.ring_comparison import DEAD, FLOOR
from natstats.distill.losses.spectral import ExponentDistance, RelativeDistance, SpectrumDistance
from natstats.distill.method import Outputs, TapPoint

N, SIDE = 2, 8
LABELS = torch.tensor([1, 0])
MINE, THEIRS = [TapPoint("s", 3, SIDE, SIDE)], [TapPoint("t", 4, SIDE, SIDE)]
SPECTRAL = {
    "kept": lambda: SpectrumDistance(MINE, THEIRS, level="kept"),
    "free": lambda: SpectrumDistance(MINE, THEIRS, level="free"),
    "exponent": lambda: ExponentDistance(MINE, THEIRS),
    "channels": lambda: ChannelSpectra(MINE, THEIRS),
    **{name: lambda make=make: make(MINE, THEIRS) for name, make in CONTROLS.items()},
    "relative": lambda: RelativeDistance(MINE, THEIRS),
    "likeness": lambda: Likeness(MINE, THEIRS),
}
MARGIN = torch.full((4,), -0.5)
OTHERS = {
    "at": at.AttentionTransfer,
    "at-paper": lambda: at.AttentionTransfer("paper"),
    "fsp": lambda: fsp.FlowMatching("crd"),
    "fitnets": lambda: fitnets.HintLoss(nn.Conv2d(3, 4, 1)),
    "ft": lambda: ft.FactorTransfer(Paraphraser(4), translator(3, 2)),
    "ab": lambda: ab.ActivationBoundaries([projection(3, 4)]),
    "ofd": lambda: ofd.FeatureOverhaul([projection(3, 4)], [MARGIN]),
}


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def out(*maps, logits=None):
    return Outputs(torch.zeros(N, 3) if logits is None else logits, maps)


def made(make):
    torch.manual_seed(0)
    return make()


def of_maps(loss, theirs, n_maps=1):
    return lambda maps: loss(out(*[maps] * n_maps), out(*[theirs] * n_maps), LABELS)


@pytest.mark.parametrize("name", [*SPECTRAL, *OTHERS])
@pytest.mark.parametrize("connector", [torch.float32, torch.float64])
def test_the_gradient_in_float64_is_that_of_finite_differences(name, connector):
    loss = made({**SPECTRAL, **OTHERS}[name]).to(connector)
    if name == "ft":
        loss._paraphraser[0].to(connector)
    n_maps = 2 if name == "fsp" else 1
    theirs = noise(N, 3 if name == "fsp" else 4, SIDE, SIDE, seed=1)
    mine = noise(N, 3, SIDE, SIDE).requires_grad_()
    distance = of_maps(loss, theirs, n_maps)
    assert distance(mine).dtype == torch.float64
    assert torch.autograd.gradcheck(distance, mine, fast_mode=True)


@pytest.mark.parametrize("t_squared", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_in_float64(temperature, t_squared):
    theirs = 5 * noise(3, 6, seed=1)
    mine = (5 * noise(3, 6)).requires_grad_()

    def loss(logits):
        return kd.soft_target_loss(logits, theirs, temperature, t_squared)

    assert loss(mine).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, mine)
    assert kd.soft_target_loss(mine, theirs.half()).dtype == torch.float64
    assert kd.soft_target_loss(mine.half(), theirs.half()).dtype == torch.float32


@pytest.mark.parametrize("name", [*SPECTRAL, *OTHERS])
def test_float64_is_float32_more_exactly(name):
    n_maps = 2 if name == "fsp" else 1
    theirs = noise(N, 3 if name == "fsp" else 4, SIDE, SIDE, seed=1)
    mine = noise(N, 3, SIDE, SIDE)
    values = []
    for dtype in (torch.float32, torch.float64):
        loss = made({**SPECTRAL, **OTHERS}[name])
        values.append(float(of_maps(loss, theirs.to(dtype), n_maps)(mine.to(dtype)).detach()))
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_batch_norms_of_a_connector_count_in_any_type():
    connector, maps = made(lambda: projection(3, 4)), noise(N, 3, SIDE, SIDE)
    single = made(lambda: projection(3, 4))
    connected(single, maps.float())
    connected(connector, maps)
    torch.testing.assert_close(connector.state_dict(), single.state_dict())
    assert all(
        value.dtype in (torch.float32, torch.long) for value in connector.state_dict().values()
    )
    connected(connector, maps).sum().backward()
    assert connector[1].bias.grad.dtype == torch.float32


BOUNDS = {
    "kept": 1.01 * math.log(FLOOR) ** 2,
    **dict.fromkeys(("free", "channels", "amplitude"), 200.0),
    "exponent": 50.0,
    **dict.fromkeys(("phase", "coherence", "spatial"), 2.0),
    "relative": 1e3,
    "likeness": 4.0,
}
"""The largest distance of any map."""


@pytest.mark.parametrize("level", [0.0, 3.0])
@pytest.mark.parametrize("gain", [0.0, 1e-30, 1e-12, 1e-7, 1e-5, 1e-3])
@pytest.mark.parametrize("name", list(SPECTRAL))
def test_a_student_without_power_is_at_a_limited_distance(name, gain, level):
    """Its gradient is limited, too, by what the teacher's power is."""
    loss = made(SPECTRAL[name])
    theirs = noise(N, 4, SIDE, SIDE, seed=1, dtype=torch.float32)
    mine = level * (gain > 0) + gain * noise(N, 3, SIDE, SIDE, dtype=torch.float32)
    mine.requires_grad_()
    value = of_maps(loss, theirs)(mine)
    value.backward()
    assert 0 <= float(value.detach()) <= BOUNDS[name]
    assert float(mine.grad.norm()) <= 3e2 / DEAD**0.5


@pytest.mark.parametrize("name", list(SPECTRAL))
def test_a_teacher_without_power_is_at_a_limited_distance(name):
    loss = made(SPECTRAL[name])
    mine = noise(N, 3, SIDE, SIDE, dtype=torch.float32).requires_grad_()
    value = of_maps(loss, torch.zeros(N, 4, SIDE, SIDE))(mine)
    value.backward()
    assert 0 <= float(value.detach()) <= BOUNDS[name]
    assert float(mine.grad.norm()) < 100
    both = of_maps(loss, torch.zeros(N, 4, SIDE, SIDE))(torch.zeros(N, 3, SIDE, SIDE))
    assert float(both.detach()) <= 1.0
    if name in ("kept", "free", "exponent", "amplitude", "channels"):
        assert float(both.detach()) == 0


@pytest.mark.parametrize("name", ["phase", "coherence", "spatial"])
def test_a_silent_student_is_told_where_to_go(name):
    """Where the sign of a map counts, there is a way out of zero; power is even, and has none."""
    loss = made(SPECTRAL[name])
    theirs = noise(N, 4, SIDE, SIDE, seed=1)
    mine = torch.zeros(N, 3, SIDE, SIDE, dtype=torch.float64, requires_grad=True)
    value = of_maps(loss, theirs)(mine)
    (gradient,) = torch.autograd.grad(value, mine)
    assert float(gradient.norm()) > 0
    step = -1e-3 * gradient / gradient.norm()
    assert float(of_maps(loss, theirs)(step).detach()) < float(value.detach()) - 0.05


@pytest.mark.parametrize("name", list(SPECTRAL))
def test_a_dead_channel_leaves_a_limited_distance(name):
    loss = made(SPECTRAL[name])
    theirs = noise(N, 4, SIDE, SIDE, seed=1, dtype=torch.float32)
    mine = noise(N, 3, SIDE, SIDE, dtype=torch.float32)
    theirs[:, 1] = 2.0
    mine[:, 2] = -1.0
    mine.requires_grad_()
    value = of_maps(loss, theirs)(mine)
    value.backward()
    assert 0 <= float(value.detach()) <= BOUNDS[name]
    assert float(mine.grad.norm()) < 100


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("name", list(SPECTRAL))
def test_the_scale_of_both_networks_does_not_count(name, scale):
    """No constant of the losses is in units of the maps."""
    theirs, mine = noise(N, 4, SIDE, SIDE, seed=1), noise(N, 3, SIDE, SIDE)
    value = of_maps(made(SPECTRAL[name]), theirs)(mine)
    scaled = of_maps(made(SPECTRAL[name]), scale * theirs)(scale * mine)
    torch.testing.assert_close(scaled, value, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gain", [1e-2, 1e2])
@pytest.mark.parametrize("name", [name for name in SPECTRAL if name != "kept"])
def test_the_gain_of_the_student_is_free_over_four_decades(name, gain):
    theirs, mine = noise(N, 4, SIDE, SIDE, seed=1), noise(N, 3, SIDE, SIDE)
    loss = made(SPECTRAL[name])
    value = of_maps(loss, theirs)(mine)
    torch.testing.assert_close(of_maps(loss, theirs)(gain * mine), value, rtol=1e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
@pytest.mark.parametrize("loss", [ffl.focal_loss, spectralkd.coefficient_loss])
def test_losses_on_coefficients_take_half_types(loss, dtype):
    maps = [torch.randn(2, 3, 8, 8).to(dtype) for _ in range(2)]
    assert torch.equal(loss(*maps), loss(*(one.float() for one in maps)))

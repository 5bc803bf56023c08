"""The collector in somebody else's loop: hooks, calls, sizes, states, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from tests.spectra.small_networks import IMAGES


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_a_second_call_is_a_layer_of_its_own(model):
    with natstats.Collector(model) as collector, torch.no_grad():
        model(IMAGES)
    measured = {m.layer.name: m for m in collector.compute()}
    assert list(measured) == ["stem", "shared", "shared:1"]
    assert [m.layer.depth for m in measured.values()] == [1, 2, 3]
    assert [m.layer.call for m in measured.values()] == [0, 0, 1]
    assert [(s.name, s.reason) for s in collector.skipped] == [("unused", "never called")]


def test_an_output_is_measured_before_an_in_place_activation(model):
    with natstats.Collector(model) as collector, torch.no_grad():
        model(IMAGES)
        stem = model.stem(IMAGES)
        first = model.shared(stem.relu())
        second = model.shared(first.relu())
    for measured, maps in zip(collector.compute(), (stem, first, second), strict=True):
        expected = natstats.power_spectrum(maps).double().mean(0)
        np.testing.assert_allclose(measured.spectrum.mean_power, expected, rtol=1e-5)


def test_hooks_come_off_also_after_an_exception(model):
    before = n_hooks(model)
    with pytest.raises(RuntimeError, match="channels"), natstats.Collector(model):
        assert n_hooks(model) > before
        model(torch.zeros(1, 5, 32, 32))
    assert n_hooks(model) == before


@pytest.mark.parametrize("amp", [False, True])
def test_training_goes_on_as_if_nobody_watched(model, amp):
    """Gradients, batch-norm buffers, mode and random state are those of an unwatched step.

    Also under autocast, which would hand on weights that the traced pass had cast without gradient.
    """

    def step(watch: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
        torch.manual_seed(3)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
        net.append(nn.LazyLinear(2))
        net(IMAGES)
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            if watch:
                with natstats.Collector(net) as collector:
                    net(IMAGES).float().square().sum().backward()
                collector.compute()
            else:
                net(IMAGES).float().square().sum().backward()
        assert all(module.training for module in net.modules())
        return [p.grad for p in net.parameters()] + list(net.buffers()), torch.rand(3)

    (watched, after), (alone, after_alone) = step(True), step(False)
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))
    assert torch.equal(after, after_alone)


def test_a_layer_that_cannot_be_measured_is_listed_with_why():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Flatten()
    )
    with natstats.Collector(net, ["conv", "3"]) as collector, torch.no_grad():
        net(IMAGES)
    assert [m.layer.name for m in collector.compute()] == ["0"]
    assert {s.name: s.reason for s in collector.skipped} == {
        "2": "maps of 1 x 1 pixels; at least 5 x 5",
        "3": "the output (N x 4) has no axes of maps",
    }


def test_map_sizes_are_apart_and_the_most_frequent_is_the_layer(model):
    with natstats.Collector(model, "stem") as collector, torch.no_grad():
        model(IMAGES[:4])
        model(IMAGES[:, :, :20, :20])
        model(IMAGES[:4])
    (found,) = collector.compute()
    assert (found.layer.height, found.spectrum.n_images) == (20, 12)
    (other,) = collector.skipped
    assert other.name == "stem@32x32"
    assert "measured at 20 x 20 pixels (12 images), 8 images had this one" in other.reason
    alone = natstats.Collector(model, "stem")
    with alone, torch.no_grad():
        alone.number_images(torch.arange(4, 16))
        model(IMAGES[:, :, :20, :20])
    np.testing.assert_array_equal(found.spectrum.power, alone.compute()[0].spectrum.power)


def test_sizes_beyond_constant_memory_are_left_out_and_said(model, monkeypatch):
    monkeypatch.setattr("natstats.spectra.collector.MOST_SIZES", 2)
    with natstats.Collector(model, "stem") as collector, torch.no_grad():
        for side in (20, 24, 24, 28, 32):
            model(IMAGES[:, :, :side, :side])
    assert collector.compute()[0].layer.height == 24
    reasons = [s.reason for s in collector.skipped if s.name == "stem"]
    assert reasons == ["in 2 batches: more than 2 map sizes; later ones are not measured"]


def test_a_non_finite_layer_does_not_spoil_the_others(model):
    images = IMAGES.clone()
    images[4] = torch.nan
    with natstats.Collector(model) as collector, torch.no_grad():
        model(images)
    for measured in collector.compute():
        assert measured.spectrum.n_nonfinite == 1
        assert np.isfinite(measured.spectrum.power).all()


def test_the_model_may_move_once_it_is_measured(model):
    with natstats.Collector(model) as collector, torch.no_grad():
        model(IMAGES)
    model.half()
    assert len(collector.compute()) == 3


def test_a_state_is_a_copy(model):
    with natstats.Collector(model, "stem") as collector, torch.no_grad():
        model(IMAGES)
    state = collector.state_dict()
    before = {key: dict(state[key]) for key in ("kinds", "never_called")}
    state["kinds"].clear()
    state["never_called"]["stem"] = "conv"
    after = collector.state_dict()
    assert {key: after[key] for key in before} == before


class Failing(nn.Module):
    """Runs a convolution and a module without tensors, then fails when told to."""

    def __init__(self):
        super().__init__()
        self.conv, self.odd, self.fails = nn.Conv2d(1, 2, 3), nn.Identity(), False

    def forward(self, x):
        y = self.conv(x)
        self.odd("no tensor")
        if self.fails:
            self.odd("again")
            raise ValueError("broken off")
        return y


def test_of_a_pass_that_fails_nothing_is_told():
    model = Failing().eval()
    with natstats.Collector(model, ["conv", "odd"], probe=False) as collector:
        model(torch.rand(3, 1, 16, 16))
        model.fails = True
        with pytest.raises(ValueError, match="broken off"):
            model(torch.rand(3, 1, 20, 20))
    (found,) = collector.compute()
    assert (found.layer.height, found.spectrum.n_images) == (14, 3)
    told = [(one.name, one.reason) for one in collector.skipped]
    assert told == [("odd", "the output is a str, no tensor")]


def test_a_state_is_loaded_and_computed_before_any_image_comes(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).eval()
    images = torch.rand(8, 1, 12, 12)
    with natstats.Collector(model, n_groups=4) as whole:
        model(images)
    with natstats.Collector(model, n_groups=4) as first:
        model(images[:4])
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = natstats.Collector(model, n_groups=4)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for one, other in zip(first.compute(), second.compute(), strict=True):
        assert one.layer == other.layer
        assert np.array_equal(one.spectrum.power, other.spectrum.power)
    with second:
        model(images[4:])
    for one, other in zip(whole.compute(), second.compute(), strict=True):
        assert one.layer == other.layer
        assert np.allclose(one.spectrum.power, other.spectrum.power, rtol=1e-6)

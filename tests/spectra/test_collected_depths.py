"""Which layers are collected, at what depth, and for which share of the image they stand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.models
from torch import nn

import natstats
from natstats.activations.selection import select_modules
from natstats.activations.trace import trace_calls
from tests.spectra.small_networks import IMAGES


def test_a_layer_called_only_later_gets_its_depth_then(model):
    class Deeper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.times = nn.Conv2d(3, 3, 3, padding=1), 1

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.times):
                x = self.conv(x)
            return x

    net = Deeper()
    with natstats.Collector(net) as first, torch.no_grad():
        net(IMAGES)
    net.times = 2
    with first, torch.no_grad():
        net(IMAGES)
    layers = [m.layer for m in first.compute()]
    assert [(layer.name, layer.depth) for layer in layers] == [("conv", 1), ("conv:1", 2)]
    assert [m.spectrum.n_images for m in first.compute()] == [24, 12]
    assert first.skipped == []


def test_a_layer_that_no_traced_pass_calls_gets_no_false_depth():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.second(x) if len(x) > 5 else x  # never for the one image of a trace

    net = Sometimes()
    with natstats.Collector(net) as collector, torch.no_grad():
        net(IMAGES)
    assert [m.layer.name for m in collector.compute()] == ["first"]
    assert [(s.name, s.reason.split(",")[0]) for s in collector.skipped] == [
        ("second", "called in no traced pass")
    ]


# Hand-counted from the drawings in the papers: (layer, weight layers on the longest path to it).
DEPTHS = {
    "resnet18": {"conv1": 1, "layer2.0.downsample.0": 6, "layer2.0.conv2": 7, "fc": 18},
    "densenet121": {"features.denseblock1.denselayer6.conv2": 13, "classifier": 121},
    "mobilenet_v2": {"features.1.conv.1": 3, "features.18.0": 52},
    "squeezenet1_1": {"features.3.squeeze": 2, "features.3.expand1x1": 3, "classifier.1": 18},
    "inception_v3": {
        "Mixed_5b.branch1x1.conv": 6,
        "Mixed_5b.branch3x3dbl_3.conv": 8,
        "Mixed_6a.branch3x3.conv": 15,
        "Mixed_7a.branch7x7x3_4.conv": 41,
        "Mixed_7c.branch3x3dbl_3a.conv": 47,
        "fc": 48,
    },
    "vit_b_16": {
        "conv_proj": 1,
        "encoder.layers.encoder_layer_0.self_attention": 3,
        "encoder.layers.encoder_layer_0.mlp.0": 4,
        "encoder.layers.encoder_layer_11.mlp.3": 49,
        "heads.head": 50,
    },
    "swin_t": {
        "features.1.0.attn.qkv": 2,
        "features.1.0.attn.proj": 3,
        "features.1.1.mlp.3": 9,
        "features.2.reduction": 10,
        "features.7.1.mlp.3": 52,
        "head": 53,
    },
}


SIDES = {"inception_v3": 96, "vit_b_16": 224}
INITIALISED = {"inception_v3": {"init_weights": False}}


@pytest.mark.slow
@pytest.mark.parametrize("name", DEPTHS)
def test_depth_is_the_longest_path_of_weight_layers(name):
    side = SIDES.get(name, 64)
    net = torchvision.models.get_model(name, weights=None, **INITIALISED.get(name, {}))
    trace = trace_calls(net, (torch.zeros(1, 3, side, side),))
    assert trace.followed
    for layer, depth in DEPTHS[name].items():
        assert trace.by_name[layer].depth == depth, layer


def test_depth_follows_slices_concatenations_and_in_place_sums():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(2, 2, 1) for _ in range(3))
            self.end = nn.Conv2d(4, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            buffer = torch.zeros_like(x).repeat(1, 2, 1, 1)
            buffer[:, :2] = self.b(self.a(x))
            buffer[:, 2:] += self.c(x)
            return self.end(buffer)

    trace = trace_calls(Odd(), (torch.zeros(1, 2, 6, 6),))
    depths = {call.name: call.depth for call in trace.calls}
    assert depths == {"a": 1, "b": 2, "c": 1, "end": 3}


@pytest.mark.parametrize(
    ("name", "layers", "expected"),
    [
        ("resnet18", "block", [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]),
        ("mobilenet_v2", "block", [f"features.{i}" for i in range(1, 18)]),
        ("resnet18", "layer1.*.conv2,conv1", ["conv1", "layer1.0.conv2", "layer1.1.conv2"]),
    ],
)
def test_selections(name, layers, expected):
    assert select_modules(torchvision.models.get_model(name, weights=None), layers) == expected


@pytest.mark.slow
def test_a_stage_is_the_last_block_of_each_resolution():
    net = torchvision.models.get_model("resnet18", weights=None)
    trace = trace_calls(net, (torch.zeros(1, 3, 224, 224),))
    collector = natstats.Collector(net, "stage", trace=trace)
    assert collector._names == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]


def test_nothing_matched_is_said(model):
    with pytest.raises(natstats.UsageError, match="layers: .*nothing matched 'conv9'"):
        natstats.Collector(model, "conv9")


# What share of the image the maps stand for


def spans(net: nn.Module, height: int = 64, width: int = 64) -> dict[str, float]:
    run = natstats.measure(net.eval(), torch.rand(3, 3, height, width), layers="conv", probe=False)
    return {m.layer.name: m.layer.span for m in run.spectra}


def plain(*steps: tuple[int, int, int]) -> nn.Sequential:
    return nn.Sequential(*(nn.Conv2d(3, 3, k, s, p) for k, s, p in steps))


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (plain((3, 1, 1), (3, 2, 1), (3, 2, 1)), [1, 1, 1]),
        (plain((3, 1, 0), (3, 1, 0)), [62 / 64, 60 / 64]),
        (plain((3, 2, 0), (3, 2, 0)), [31 * 2 / 64, 15 * 4 / 64]),
        (plain((25, 1, 0)), [40 / 64]),
        (plain((3, 1, 4)), [70 / 64]),  # padding beyond what the window takes
    ],
)
def test_maps_without_padding_stand_for_a_part_of_the_image(net, expected):
    found = spans(net)
    assert (found.pop("input.grey"), found.pop("input.colour")) == (1, 1)
    assert list(found.values()) == pytest.approx(expected)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (48, 64), (49, 64), (64, 49)])
def test_the_share_is_that_of_the_shorter_side(height, width):
    assert spans(plain((9, 1, 0)), height, width)["0"] == pytest.approx(
        (min(height, width) - 8) / min(height, width)
    )
    assert spans(plain((3, 2, 1)), height, width)["0"] == pytest.approx(1, abs=0.03)


def test_a_share_that_cannot_be_followed_is_not_known():
    unlike = nn.Sequential(nn.Conv2d(3, 3, 3, (1, 2), 1))
    assert np.isnan(spans(unlike)["0"])
    (measured,) = [m for m in measured_of(unlike) if m.layer.name == "0"]
    assert measured.span == 1
    np.testing.assert_allclose(measured.cycles_per_image, measured.spectrum.cycles_per_image)


def measured_of(net: nn.Module) -> list[natstats.spectra.records.LayerSpectrum]:
    return natstats.measure(net.eval(), torch.rand(3, 3, 64, 64), layers="conv").spectra


def test_waves_of_the_image_are_told_from_waves_of_the_map():
    (measured,) = [m for m in measured_of(plain((25, 1, 0))) if m.layer.name == "0"]
    assert measured.cycles_per_image == pytest.approx(64 * measured.spectrum.frequency)

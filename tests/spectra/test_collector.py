"""Hooks, layer calls, depth, and the collector in somebody else's loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision.models
from torch import nn

import natstats
from natstats.activations.selection import select_modules
from natstats.activations.trace import trace_calls

IMAGES = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """Calls one convolution twice, and has one that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.unused = nn.Conv2d(6, 6, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        return self.shared(self.relu(self.shared(x)))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Twice().eval()


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


def test_batches_go_on_where_the_last_ended(model):
    with natstats.Collector(model, n_groups=5) as whole, torch.no_grad():
        model(IMAGES)
    with natstats.Collector(model, n_groups=5) as parts, torch.no_grad():
        for batch in IMAGES.split(5):
            model(batch)
    for a, b in zip(whole.compute(), parts.compute(), strict=True):
        assert a.layer == b.layer
        np.testing.assert_allclose(a.spectrum.power, b.spectrum.power, rtol=1e-5)
        np.testing.assert_array_equal(a.spectrum.count, b.spectrum.count)


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


def test_no_images_no_result(model):
    with pytest.raises(natstats.NatstatsError, match="expected a forward pass"):
        natstats.Collector(model).compute()


def test_a_pass_that_fails_is_not_counted(model):
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fail = model, False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.inner(x)
            if self.fail:
                raise MemoryError
            return out

    net = Fails()
    with natstats.Collector(net) as collector, torch.no_grad():
        net(IMAGES)
        net.fail = True
        with pytest.raises(MemoryError):
            net(IMAGES)
        net.fail = False
        net(IMAGES[:5])
    assert {m.spectrum.n_images for m in collector.compute()} == {17}


def test_images_may_come_as_a_keyword(model):
    with natstats.Collector(model, "stem") as collector, torch.no_grad():
        model(x=IMAGES)
    assert collector.compute()[0].spectrum.n_images == 12


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


def test_the_model_may_move_once_it_is_measured(model):
    with natstats.Collector(model) as collector, torch.no_grad():
        model(IMAGES)
    model.half()
    assert len(collector.compute()) == 3


def test_numbers_decide_the_group(model):
    with natstats.Collector(model, "stem", n_groups=4) as collector, torch.no_grad():
        collector.number_images(torch.full((12,), 7))
        model(IMAGES)
    assert collector.compute()[0].spectrum.count.tolist() == [0, 0, 0, 12]


def test_images_without_numbers_go_on_behind_the_highest_number(model):
    with natstats.Collector(model, "stem", n_groups=16) as collector, torch.no_grad():
        for numbers in (torch.arange(8, 12), torch.arange(0, 4), None):
            if numbers is not None:
                collector.number_images(numbers)
            model(IMAGES[:4])
    count = collector.compute()[0].spectrum.count
    assert np.flatnonzero(count).tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]


def test_a_state_is_a_copy(model):
    with natstats.Collector(model, "stem") as collector, torch.no_grad():
        model(IMAGES)
    state = collector.state_dict()
    before = {key: dict(state[key]) for key in ("kinds", "never_called")}
    state["kinds"].clear()
    state["never_called"]["stem"] = "conv"
    after = collector.state_dict()
    assert {key: after[key] for key in before} == before


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


def test_collectors_do_not_count_each_others_traced_pass(model):
    model.eval()
    outer, inner = natstats.Collector(model), natstats.Collector(model)
    with torch.no_grad(), outer:
        model(IMAGES[:4])
        with inner:
            model(IMAGES[4:])
    assert {m.spectrum.n_images for m in outer.compute()} == {len(IMAGES)}
    assert {m.spectrum.n_images for m in inner.compute()} == {len(IMAGES) - 4}
    both = natstats.Collector(model), natstats.Collector(model)
    with torch.no_grad(), both[0], both[1]:
        model(IMAGES)
    assert {m.spectrum.n_images for c in both for m in c.compute()} == {len(IMAGES)}


class TakesAnything(nn.Module):
    """Finds its images in whatever it is given."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, *values, **named):
        found = [*values, *named.values()][-1]
        found = found["image"] if isinstance(found, dict) else found
        for images in found if isinstance(found, list) else [found]:
            self.conv(images)


@pytest.mark.parametrize(
    "call",
    [
        lambda net: net(torch.tensor(0.5), IMAGES),
        lambda net: net(torch.zeros(1), IMAGES),
        lambda net: net({"image": IMAGES}),
        lambda net: net(scale=2.0, image=IMAGES),
        lambda net: net([IMAGES, IMAGES[..., ::2]]),  # batches, not images
    ],
)
def test_images_are_counted_in_any_argument(call):
    net = TakesAnything().eval()
    with natstats.Collector(net) as collector, torch.no_grad():
        call(net)
    found = collector.compute()[0]
    expected = natstats.power_spectrum(net.conv(IMAGES)).detach().double().mean(0)
    assert (found.spectrum.n_images, found.layer.layout) == (len(IMAGES), "NCHW")
    np.testing.assert_allclose(found.spectrum.mean_power, expected, rtol=1e-5)


def test_an_empty_batch_is_nothing(model):
    with natstats.Collector(model) as collector, torch.no_grad():
        model(IMAGES[:0])
        model(IMAGES)
        model(IMAGES[:0])
    assert {m.spectrum.n_images for m in collector.compute()} == {len(IMAGES)}


def test_what_is_no_image_or_no_network_is_named(model):
    with (
        pytest.raises(natstats.UsageError, match="list of images; got str"),
        natstats.Collector(model),
    ):
        model("x")
    with pytest.raises(natstats.UsageError, match="got a single Conv2d"):
        natstats.Collector(nn.Conv2d(3, 4, 3))


def test_the_stride_is_that_of_the_images_in_any_argument():
    class FromDict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 2, 2)

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.conv(inputs["image"])

    net = FromDict()
    with natstats.Collector(net) as collector, torch.no_grad():
        net({"time": torch.zeros(12), "image": IMAGES})
    assert collector.compute()[0].layer.stride == 2


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


def test_numbers_of_images_are_checked_at_once():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    with natstats.Collector(model, probe=False) as collector:
        collector.number_images(torch.tensor([0.5, 1.5]))
        with pytest.raises(natstats.UsageError, match="^index: expected a tensor of 2 whole"):
            model(torch.rand(2, 1, 16, 16))


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

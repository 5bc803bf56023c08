"""Layouts: every function gives the maps that were put in, and the rules find them in real ones."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

import natstats
from natstats.activations.clips import as_columns_of_time, as_frames
from natstats.activations.declared_layouts import parse_layouts
from natstats.activations.hooks import parts_of
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import Layout, Windows
from natstats.activations.trace import trace_calls

MAPS = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)
CLIPS = torch.arange(2 * 3 * 5 * 4 * 6, dtype=torch.float32).view(2, 3, 5, 4, 6)


def tokens(maps, n_prefix):
    flat = maps.flatten(2).transpose(1, 2)
    return torch.cat([torch.full((len(maps), n_prefix, maps.shape[1]), -1.0), flat], 1)


OUTPUTS = {
    "NCHW": (MAPS, Layout("NCHW", (4, 6)), MAPS),
    "NHWC": (MAPS.permute(0, 2, 3, 1).contiguous(), Layout("NHWC", (4, 6)), MAPS),
    "NLC": (tokens(MAPS, 2), Layout("NLC", (4, 6), n_prefix=2), MAPS),
    "NLC of clips": (tokens(CLIPS, 1), Layout("NLC", (5, 4, 6), n_prefix=1), CLIPS),
    "LNC": (tokens(MAPS, 1).transpose(0, 1), Layout("LNC", (4, 6), n_prefix=1), MAPS),
    "NCTHW": (CLIPS, Layout("NCTHW", (5, 4, 6)), CLIPS),
    "NTHWC": (CLIPS.permute(0, 2, 3, 4, 1).contiguous(), Layout("NTHWC", (5, 4, 6)), CLIPS),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_every_layout_gives_back_the_maps(case):
    output, layout, expected = OUTPUTS[case]
    assert torch.equal(layout.maps(output), expected)


@pytest.mark.parametrize("case", OUTPUTS)
def test_no_layout_but_windows_copies(case):
    output, layout, _ = OUTPUTS[case]
    maps = layout.maps(output)
    assert maps.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()


def test_frames_and_columns_of_time_of_clips():
    assert torch.equal(as_frames(CLIPS)[:, 5:10], CLIPS[:, 1])
    assert as_frames(CLIPS).untyped_storage().data_ptr() == CLIPS.untyped_storage().data_ptr()
    columns = as_columns_of_time(CLIPS)
    assert columns.shape == (2, 3 * 24, 5, 1)
    assert torch.equal(columns[1, 24 + 7, :, 0], CLIPS[1, 1, :, 1, 1])


@pytest.mark.parametrize("shift", [(0, 0), (2, 1)])
def test_windows_of_a_map_are_put_together_again(shift):
    maps = torch.rand(2, 3, 7, 10)  # 7 and 10 are filled up to 8 and 12
    padded = functional.pad(maps, (0, 2, 0, 1))
    rolled = torch.roll(padded, (-shift[0], -shift[1]), (2, 3))
    tiles = rolled.unfold(2, 4, 4).unfold(3, 4, 4)  # (2, 3, 2, 3, 4, 4)
    windows = tiles.permute(0, 2, 3, 4, 5, 1).reshape(2 * 6, 16, 3)
    layout = Layout("windows", (7, 10), windows=Windows((4, 4), shift))
    assert torch.equal(layout.maps(windows), maps)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # torch will drop it
def test_quantized_outputs_are_dequantized():
    output = torch.quantize_per_tensor(MAPS / 100, 0.01, 0, torch.quint8)
    layout = Layout("NCHW", (4, 6), is_quantized=True)
    assert torch.equal(layout.maps(output), output.dequantize())
    assert str(layout) == "quantized NCHW"


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        (MAPS, [""]),
        ((MAPS, None, 3), [""]),
        ({"out": MAPS, "aux": MAPS}, ["[out]", "[aux]"]),
        ([MAPS, {"a": (MAPS, MAPS)}], ["[0]", "[1][a][0]", "[1][a][1]"]),
        (torchvision.models.GoogLeNetOutputs(MAPS, None, MAPS), ["[0]", "[2]"]),
        ("nothing", []),
    ],
)
def test_parts_of_an_output_have_names(output, parts):
    assert [part for part, _ in parts_of(output)] == parts


# What the rules say of an output after maps of 14 x 14, images of 224 x 224.
RULES = [
    (nn.Linear(1, 1), (2, 197, 8), "NLC (1 + 14x14)"),
    (nn.Linear(1, 1), (2, 196, 8), "NLC (14x14)"),
    (nn.LayerNorm(8), (2, 198, 8), "NLC (2 + 14x14)"),
    (nn.ReLU(), (2, 201, 8), "NLC (5 + 14x14)"),
    (nn.MultiheadAttention(8, 1), (197, 2, 8), "LNC (1 + 14x14)"),
    (nn.MultiheadAttention(8, 1, batch_first=True), (2, 197, 8), "NLC (1 + 14x14)"),
    (nn.Linear(1, 1), (2, 100, 8), None),  # not 10 x 10: 224 is no multiple of 10
    (nn.Linear(1, 1), (8, 49, 8), None),  # windows along the first axis
    (nn.Linear(1, 1), (2, 14, 14, 8), "NHWC"),
    (nn.GELU(), (2, 14, 14, 8), "NHWC"),
    (nn.GELU(), (2, 8, 14, 14), "NCHW"),
    (nn.GELU(), (2, 14, 14, 14), "NCHW"),  # either; the latest was 14 x 14 with channels first
    (nn.GELU(), (2, 8, 28, 28), "NCHW"),
    (nn.Softmax(-1), (2, 8, 197, 197), None),  # attention weights
    (nn.Conv2d(1, 1, 1), (2, 8, 5, 9), "NCHW"),
    (nn.MaxPool2d(2), (2, 8, 7, 7), "NCHW"),
    (nn.Conv1d(1, 1, 1), (2, 8, 196), None),
    (nn.ReLU(), (2, 8, 16, 14, 14), "NCTHW"),
    (nn.Linear(1, 1), (2, 16, 14, 14, 8), "NTHWC"),
    (nn.Linear(1, 1), (2, 1000), None),
    (nn.Linear(1, 1), (3, 14, 14, 8), None),  # three sets of maps for two images
]


@pytest.mark.parametrize(("module", "shape", "expected"), RULES)
def test_the_rules(module, shape, expected):
    rules = LayoutRules(nn.Sequential(nn.Conv2d(3, 8, 16, 16)))
    rules.start([torch.zeros(2, 3, 224, 224)], 2)
    assert str(rules.find("0", torch.zeros(2, 8, 14, 14))) == "NCHW"
    found = rules.find("x", torch.zeros(shape), module)
    assert (str(found) if isinstance(found, Layout) else None) == expected


def test_a_declared_layout_overrules_and_a_wrong_one_is_refused():
    rules = LayoutRules(nn.Sequential(nn.Identity()), {"0": "NHWC"})
    rules.start([torch.zeros(2, 3, 64, 64)], 2)
    assert rules.find("0", torch.zeros(2, 8, 8, 5)).grid == (8, 8)
    assert "fits no known layout" in rules.find("0", torch.zeros(2, 8, 8))
    with pytest.raises(natstats.UsageError, match="layout of 0: expected one of .*NHWC"):
        natstats.Collector(nn.Sequential(nn.Conv2d(3, 3, 1)), layouts={"0": "NHCW"})
    with pytest.raises(natstats.UsageError, match="expected a number of tokens after NLC"):
        parse_layouts({"0": "NLC+one"})


def swin(version):
    block = {
        1: torchvision.models.swin_transformer.SwinTransformerBlock,
        2: torchvision.models.swin_transformer.SwinTransformerBlockV2,
    }[version]
    net = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [3, 3], block=block)
    return net.eval()


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_products_in_shifted_windows_are_those_of_the_whole_map(version):
    """Swin never calls qkv and proj: what is seen of them equals the same product of the map."""
    net, images = swin(version), torch.rand(2, 3, 40, 28)  # 10 x 7 maps in windows of 3 x 3
    block = net.features[1][1]  # the shifted one
    wanted = {}
    inputs = []
    block.attn.register_forward_hook(lambda m, i, o: inputs.append((i[0], o)))
    trace = trace_calls(net, (images[:1],))
    assert trace.functional >= {"features.1.1.attn.qkv", "features.1.1.attn.proj"}

    def sink(name, call, output):
        layout = trace.rules.find(name, output, call=call)
        if name in ("features.1.1.attn.qkv", "features.1.1.attn.proj"):
            wanted[name.rpartition(".")[2]] = layout.maps(output)

    inputs.clear()
    from natstats.activations.hooks import ActivationHooks

    names = [name for name, _ in net.named_modules() if name]
    hooks = ActivationHooks(net, names, sink, functional=trace.functional)
    trace.rules.start([images], 2)
    with torch.no_grad(), hooks:
        net(images)
    entered, left = inputs[0]
    bias = block.attn.qkv.bias.clone()
    if version == 2:  # it takes the bias of the keys away
        bias[len(bias) // 3 : 2 * len(bias) // 3] = 0
    qkv = functional.linear(entered, block.attn.qkv.weight, bias)
    assert wanted["qkv"].shape == (2, 24, 10, 7)
    torch.testing.assert_close(wanted["qkv"], qkv.permute(0, 3, 1, 2))
    torch.testing.assert_close(wanted["proj"], left.permute(0, 3, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["window_attention", "grid_attention"])
def test_maxvit_windows_and_grids_are_put_together_again(kind):
    net = torchvision.models.MaxVit((64, 64), 8, 4, [8], [1], 8, 0.0).eval()
    layer = f"blocks.0.layers.0.layers.{kind}"
    partition = net.get_submodule(layer)
    trace = trace_calls(net, (torch.rand(1, 3, 64, 64),))
    seen = {}
    partition.register_forward_hook(lambda m, i, o: seen.update(entered=i[0]))
    name = f"{layer}.attn_layer.1.to_qkv"

    def keep(module, inputs, output):
        if "maps" not in seen:
            seen["maps"] = trace.rules.find(name, output).maps(output)

    net.get_submodule(name).register_forward_hook(keep)
    images = torch.rand(2, 3, 64, 64)
    trace.rules.start([images], 2)
    with torch.no_grad():
        net(images)
    norm, attention = partition.attn_layer[0], partition.attn_layer[1]
    expected = attention.to_qkv(norm(seen["entered"].permute(0, 2, 3, 1)))
    torch.testing.assert_close(seen["maps"], expected.permute(0, 3, 1, 2))


class Heads(nn.Module):
    """Two sets of maps for each image, by image or by frame along the first axis."""

    def __init__(self, by_image):
        super().__init__()
        self.conv, self.by_image = nn.Conv2d(1, 4, 3, bias=False), by_image

    def forward(self, images):
        both = [images, 2 * images]
        stacked = torch.stack(both, 1).flatten(0, 1) if self.by_image else torch.cat(both)
        return self.conv(stacked)


@pytest.mark.parametrize("by_image", [True, False])
def test_sets_of_maps_go_to_their_image_in_either_order(by_image):
    torch.manual_seed(0)
    net, images = Heads(by_image).eval(), torch.rand(6, 1, 16, 16)
    with natstats.Collector(net, n_groups=6) as collector, torch.no_grad():
        net(images)
    power = natstats.power_spectrum(net.conv(images).detach())
    found = collector.compute()[0]
    assert found.layer.layout == "2 x NCHW"
    # Of maps twice as large the power is fourfold: the mean of 1 and 4.
    torch.testing.assert_close(torch.tensor(found.spectrum.power).float(), 2.5 * power)


class Detector(nn.Module):
    """Finds image i in i + 1 crops, but none in the first of a batch of more than one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 2, 1)
        self.pool = torchvision.ops.MultiScaleRoIAlign(["0"], 8, 2)
        self.head = nn.Conv2d(2, 2, 1, bias=False)

    def forward(self, images):
        batch = torch.stack(images)
        maps = self.stem(batch)
        boxes = [
            torch.tensor([[0.0, 0.0, 16.0, 16.0]]).repeat(n if len(images) > 1 else 1, 1)
            for n in range(len(images))
        ]
        return self.head(self.pool({"0": maps}, boxes, [(16, 16)] * len(images)))


def test_regions_are_averaged_over_images_that_have_some():
    net, images = Detector().eval(), list(torch.rand(3, 3, 16, 16))
    with natstats.Collector(net, n_groups=3) as collector, torch.no_grad():
        net(images)
    stem, head = collector.compute()
    assert (stem.spectrum.count.tolist(), head.spectrum.count.tolist()) == ([1] * 3, [0, 1, 1])
    assert head.layer.layout == "regions NCHW"
    # The regions of an image are alike, so their mean is one of them.
    one = natstats.power_spectrum(
        net.head(
            net.pool(
                {"0": net.stem(images[2][None])},
                [torch.tensor([[0.0, 0.0, 16.0, 16.0]])],
                [(16, 16)],
            )
        ).detach()
    )
    torch.testing.assert_close(torch.tensor(head.spectrum.power[2]).float(), one[0])


def test_layers_that_hold_no_image_are_listed_as_such():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bias = nn.Conv2d(1, 4, 1), nn.Linear(2, 4)

        def forward(self, images):
            places = torch.ones(1, images.shape[2], images.shape[3], 2)
            return self.conv(images) + self.bias(places).permute(0, 3, 1, 2)

    net = Biased().eval()
    with natstats.Collector(net) as collector, torch.no_grad():
        net(torch.rand(4, 1, 8, 8))
    assert [m.layer.name for m in collector.compute()] == ["conv"]
    assert [(s.name, s.reason) for s in collector.skipped] == [
        ("bias", "its output does not depend on the images")
    ]


def test_a_temporal_spectrum_is_that_of_each_pixel_along_time():
    net = nn.Sequential(nn.Conv3d(1, 1, 1, bias=False)).eval()
    net[0].weight.data.fill_(1.0)
    frames = torch.arange(16.0)
    wave = torch.cos(2 * math.pi * 3 * frames / 16)  # ring 3 of 8
    clips = wave.view(1, 1, 16, 1, 1) * torch.rand(2, 1, 1, 6, 6) + torch.rand(2, 1, 1, 6, 6)
    with natstats.Collector(net, temporal=True, edges="none") as collector, torch.no_grad():
        net(clips)
    spectrum = collector.compute()[0].spectrum
    assert (spectrum.height, spectrum.width, spectrum.n_rings) == (16, 1, 8)
    power = spectrum.mean_power
    assert power[2] > 0
    assert power[[0, 1, 3, 4, 5, 6, 7]].max() < 1e-9 * power[2]
    assert spectrum.cycles_per_image[2] == pytest.approx(3)


@pytest.mark.slow
def test_a_time_series_of_known_exponent_is_recovered():
    """Series of 1 / f^alpha noise, made on a longer circle and cut."""
    generator = torch.Generator().manual_seed(0)
    n, length = 64, 4096
    frequency = torch.fft.rfftfreq(length)
    noise = torch.fft.rfft(torch.randn(n, 100, length, generator=generator))
    for alpha in (0.0, 1.0, 2.0):
        gain = frequency.clamp(min=1 / length) ** (-alpha / 2)
        series = torch.fft.irfft(noise * gain)[..., :32].float()
        accumulator = natstats.SpectrumAccumulator(32, 1)
        accumulator.update(series[..., None])
        fit = natstats.fit_spectrum(accumulator.compute())
        assert abs(fit.exponent - alpha) < 0.06


class SequenceFirst(nn.Module):
    """A transformer with the tokens along the first axis."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.mlp = nn.Linear(8, 8)

    def forward(self, images):
        return self.mlp(self.patches(images).flatten(2).permute(2, 0, 1))


@pytest.mark.parametrize("n_images", [2, 16, 36])
def test_as_many_images_as_tokens_do_not_turn_the_axes_round(n_images):
    net = SequenceFirst().eval()
    images = torch.rand(n_images, 3, 48, 48)
    with natstats.Collector(net, "mlp") as collector, torch.no_grad():
        maps = net(images).permute(1, 2, 0).reshape(n_images, 8, 6, 6)
    (found,) = collector.compute()
    assert (found.layer.layout, found.spectrum.n_images) == ("LNC (6x6)", n_images)
    expected = natstats.power_spectrum(maps).double().mean(0).numpy()
    assert found.spectrum.mean_power == pytest.approx(expected, rel=1e-5)


class Cube(nn.Module):
    """Channels as many as rows and columns: last in the middle, first before and after it."""

    def __init__(self, n_channels):
        super().__init__()
        self.stem = nn.Conv2d(3, n_channels, 4, 4)
        self.before = nn.GELU()
        self.mlp = nn.Linear(n_channels, n_channels)
        self.after = nn.GELU()

    def forward(self, images):
        maps = self.before(self.stem(images))
        return self.after(self.mlp(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_a_cube_that_may_be_either_layout_is_refused():
    """Without the probe, that is; with it, the answers tell."""
    images = torch.rand(2, 3, 48, 48)

    def collected(**settings):
        collector = natstats.Collector(Cube(12).eval(), "*", **settings)
        with collector, torch.no_grad():
            collector._model(images)
        layouts = {m.layer.name: m.layer.layout for m in collector.compute()}
        return layouts, {s.name: s.reason for s in collector.skipped}

    sure = {"stem": "NCHW", "mlp": "NHWC"}
    reason = "N x 12 x 12 x 12 is NCHW or NHWC; --layout can say which"
    assert collected(probe=False) == (sure, dict.fromkeys(("before", "after"), reason))
    said = {"after": "NCHW", "before": "NCHW"}
    assert collected(probe=False, layouts=said) == (sure | said, {})
    assert collected() == (sure | said, {})


class TimmAttention(nn.Module):
    """As in timm: the windows are known to the attention, their shift to the block."""

    window_size = (6, 6)

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)


class TimmBlock(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.shift_size = (shift, shift)
        self.norm = nn.LayerNorm(8)
        self.attn = TimmAttention()
        self.weights = nn.Softmax(-1)

    def forward(self, maps):
        maps = self.norm(maps).roll((-self.shift_size[0], -self.shift_size[1]), (1, 2))
        n, height, width, c = maps.shape
        windows = maps.view(n, height // 6, 6, width // 6, 6, c).transpose(2, 3)
        out = self.attn.qkv(windows.reshape(-1, 36, c))
        return self.weights(out @ out.mT)


@pytest.mark.parametrize("shift", [0, 3])
def test_windows_whose_block_holds_the_shift_are_rejoined(shift):
    net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Module(), TimmBlock(shift)).eval()
    stem, block = net[0], net[2]
    net.forward = lambda images: block(stem(images).permute(0, 2, 3, 1))
    images = torch.rand(2, 3, 48, 48)
    with natstats.Collector(net, "*") as collector, torch.no_grad():
        net(images)
        maps = block.attn.qkv(block.norm(stem(images).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    found = {m.layer.name: m for m in collector.compute()}
    assert found["2.attn.qkv"].layer.layout == "windows"
    expected = natstats.power_spectrum(maps).double().mean(0).numpy()
    assert found["2.attn.qkv"].spectrum.mean_power == pytest.approx(expected, rel=1e-4)
    assert "2.weights" not in found  # attention weights within a window are no maps


def test_pieces_of_maps_are_refused_and_said_to_be_such():
    rules = LayoutRules(nn.Sequential(nn.Conv2d(3, 8, 16, 16)))
    rules.start([torch.zeros(2, 3, 224, 224)], 2)
    rules.find("0", torch.zeros(2, 8, 14, 14))
    reason = "4 pieces of 7x7 of a map of 14x14, whose places are not known"
    assert rules.find("x", torch.zeros(8, 49, 8), nn.Linear(1, 1)) == reason
    assert rules.find("y", torch.zeros(8, 7, 7, 8), nn.Linear(1, 1)) == reason


def test_channels_are_not_taken_for_tokens_of_a_finer_map():
    """The token-mixing layers of an MLP-mixer: 1024 channels are no 32 x 32 tokens."""
    rules = LayoutRules(nn.Sequential(nn.Conv2d(3, 8, 16, 16)))
    rules.start([torch.zeros(2, 3, 224, 224)], 2)
    rules.find("0", torch.zeros(2, 8, 14, 14))
    assert isinstance(rules.find("x", torch.zeros(2, 1024, 512), nn.Linear(1, 1)), str)


def test_a_declared_layout_must_be_of_a_module():
    with pytest.raises(natstats.UsageError, match="got 'nothere'.*named like 0"):
        natstats.Collector(nn.Sequential(nn.Conv2d(3, 8, 3)), layouts={"nothere": "NHWC"})

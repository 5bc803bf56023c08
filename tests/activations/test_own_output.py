"""The network's own output: what is returned as it is, however it is written, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import Tensor, nn

from natstats.activations.own_output import is_named_classifier
from natstats.activations.trace import trace_calls


class Net(nn.Module):
    """A trunk, a last convolution, and what is done with its maps.

    `end` is called with the network, its input, the trunk's maps and the last maps.
    """

    def __init__(self, end, channels=3, name="last"):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.name = name
        self.add_module(name, nn.Conv2d(8, channels, 3, padding=1))
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.norm = nn.BatchNorm2d(channels)
        self.again = nn.Conv2d(channels, 3, 3, padding=1)
        self.end = end

    def forward(self, x: Tensor):
        inner = self.trunk(x)
        return self.end(self, x, inner, getattr(self, self.name)(inner))


def outputs(model, x=None):
    """Names of the calls that are the network's own output."""
    torch.manual_seed(0)
    x = torch.rand(1, 3, 16, 16) if x is None else x
    trace = trace_calls(model.eval(), (x,))
    assert trace.followed
    return [call.name for call in trace.calls if call.is_output]


@dataclass
class Answer:
    """As some libraries return: no container that torch knows."""

    maps: Tensor
    rest: object = None


class Holder:
    """Not even a dataclass."""

    def __init__(self, maps):
        self.maps = maps


def into_parts(net, x, inner, last):
    whole = torch.zeros(1, 6, 16, 16)
    whole[:, :3] = last
    whole[:, 3:] += 2 * last
    return whole


TRANSPARENT = {
    "as it is": lambda net, x, inner, last: last,
    "residual": lambda net, x, inner, last: x - last,
    "residual in place": lambda net, x, inner, last: last.add_(x),
    "views": lambda net, x, inner, last: last.permute(0, 2, 3, 1).flatten(1, 2)[:, 3:],
    "copy": lambda net, x, inner, last: last.clone().double().contiguous(),
    "half": lambda net, x, inner, last: last.half(),
    "scaled": lambda net, x, inner, last: (last * 0.5 - 1) / 255 * net.weight + net.weight,
    "cat": lambda net, x, inner, last: torch.cat([last, x], 1),
    "stack": lambda net, x, inner, last: torch.stack([last, last]),
    "mean": lambda net, x, inner, last: last.mean((2, 3)),
    "sum": lambda net, x, inner, last: last.sum(1),
    "average pooling": lambda net, x, inner, last: F.avg_pool2d(last, 2),
    "global pooling": lambda net, x, inner, last: F.adaptive_avg_pool2d(last, 1).flatten(1),
    "bilinear": lambda net, x, inner, last: F.interpolate(last, scale_factor=2, mode="bilinear"),
    "bicubic": lambda net, x, inner, last: F.interpolate(last, size=37, mode="bicubic"),
    "antialiased": lambda net, x, inner, last: F.interpolate(
        last, scale_factor=0.5, mode="bilinear", antialias=True
    ),
    "nearest": lambda net, x, inner, last: F.interpolate(last, scale_factor=2),
    "zero padding": lambda net, x, inner, last: F.pad(last, (1, 2, 3, 4)),
    "circular padding": lambda net, x, inner, last: F.pad(last, (1, 1, 1, 1), mode="circular"),
    "reflection": lambda net, x, inner, last: F.pad(last, (1, 1, 1, 1), mode="reflect"),
    "chosen channels": lambda net, x, inner, last: last[:, [2, 0]],
    "parts of a buffer": into_parts,
    "dropout": lambda net, x, inner, last: F.dropout(F.dropout2d(last, 0.5, False), 0.5, False),
    "batch norm": lambda net, x, inner, last: net.norm(last),
    "layer norm": lambda net, x, inner, last: F.layer_norm(last, last.shape[1:]),
    "group norm": lambda net, x, inner, last: F.group_norm(last, 1),
    "instance norm": lambda net, x, inner, last: F.instance_norm(last),
    "softmax": lambda net, x, inner, last: last.softmax(1),
    "log softmax": lambda net, x, inner, last: F.log_softmax(last, 1),
    "answer": lambda net, x, inner, last: last.softmax(1).argmax(1),
    "fixed mask": lambda net, x, inner, last: last.masked_fill(torch.ones(16, 16) > 0, 0.5),
    "dict": lambda net, x, inner, last: {"out": [last], "n": 3, "none": None},
    "dataclass": lambda net, x, inner, last: Answer(last),
    "dataclass inside": lambda net, x, inner, last: (None, {"a": Answer(last)}),
    "object": lambda net, x, inner, last: Holder([last]),
}

TAKEN = {
    "relu": lambda net, x, inner, last: F.relu(last),
    "relu in place": lambda net, x, inner, last: last.relu_(),
    "relu of a part": lambda net, x, inner, last: torch.cat([last[:, :1].relu(), last], 1),
    "gelu": lambda net, x, inner, last: F.gelu(last),
    "prelu": lambda net, x, inner, last: F.prelu(last, torch.rand(3)),
    "sigmoid": lambda net, x, inner, last: last.sigmoid(),
    "tanh": lambda net, x, inner, last: torch.tanh(last),
    "clamp": lambda net, x, inner, last: last.clamp(0, 1),
    "square": lambda net, x, inner, last: last * last,
    "gate": lambda net, x, inner, last: x * last,
    "ratio": lambda net, x, inner, last: x / last,
    "inverse": lambda net, x, inner, last: 1 / last,
    "max pooling": lambda net, x, inner, last: F.max_pool2d(last, 2),
    "largest": lambda net, x, inner, last: last.amax((2, 3)),
    "sorted": lambda net, x, inner, last: last.flatten(1).topk(5).values,
    "own mask": lambda net, x, inner, last: last.masked_fill(last < 0, 0.0),
    "where": lambda net, x, inner, last: torch.where(last > 0, last, x),
    "written over": lambda net, x, inner, last: last.index_put((last < 0,), torch.tensor(0.0)),
    "convolution": lambda net, x, inner, last: net.again(last),
    "convolution of a residual": lambda net, x, inner, last: net.again(x - last),
    "attention": lambda net, x, inner, last: last.flatten(2).softmax(1) @ x.flatten(2).mT,
    "norm as a number": lambda net, x, inner, last: last / last.norm(),
    "not returned": lambda net, x, inner, last: x + 1,
    "both returned and used": lambda net, x, inner, last: [last, net.again(F.relu(last))],
    "an average that is used": lambda net, x, inner, last: [last, inner * last.mean().exp()],
}


@pytest.mark.parametrize("end", TRANSPARENT.values(), ids=TRANSPARENT)
def test_what_reaches_the_return_as_it_is_is_the_output(end):
    found = outputs(Net(end))
    assert "last" in found
    assert not {"trunk", "trunk.0", "trunk.1"} & {*found}


@pytest.mark.parametrize("end", TAKEN.values(), ids=TAKEN)
def test_what_is_taken_on_the_way_out_is_not(end):
    assert "last" not in outputs(Net(end))


def test_memory_that_is_used_again_is_new_data():
    """A list of indices is a new tensor, often at the address of one of the trunk's."""
    for seed in range(60):
        torch.manual_seed(seed)
        others = [torch.zeros(3) for _ in range(seed % 7)]
        assert "last" in outputs(Net(TRANSPARENT["chosen channels"])), len(others)


def test_a_check_whose_result_is_not_returned_takes_nothing():
    def end(net, x, inner, last):
        assert last.isfinite().all()
        net.statistics = last.abs().max()
        return last

    assert outputs(Net(end)) == ["last"]


def test_a_mode_of_inference_changes_nothing():
    with torch.inference_mode():
        for name in ("dropout", "bilinear", "softmax", "views", "batch norm"):
            assert "last" in outputs(Net(TRANSPARENT[name])), name
        for name in ("relu", "gate", "convolution"):
            assert "last" not in outputs(Net(TAKEN[name])), name


# Any call may be it


def conv(*sizes):
    return nn.Conv2d(*sizes, 3, padding=1)


def test_an_activation_behind_which_nothing_follows():
    decoder = nn.Sequential(conv(3, 8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 2, 2), nn.Sigmoid())
    assert outputs(decoder) == ["3"]


def test_blocks_and_norms():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), nn.Sequential(conv(8, 8), nn.BatchNorm2d(8)))
    assert outputs(model) == ["2.0", "2.1", "2"]


class WrittenNorm2d(nn.Module):
    """A layer norm over channels as many write it."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return (x - mean) / (variance + 1e-6).sqrt() * self.weight[:, None, None]


@pytest.mark.parametrize("norm", [WrittenNorm2d(8), nn.RMSNorm([8, 16, 16]), nn.GroupNorm(2, 8)])
def test_a_module_that_normalises_is_a_norm_however_it_is_written(norm):
    assert outputs(nn.Sequential(conv(3, 8), norm)) == ["0", "1"]
    assert outputs(nn.Sequential(conv(3, 8), norm, nn.ReLU())) == ["2"]


def test_a_residual_stream_is_not_the_output_before_its_end():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = conv(3, 8)
            self.blocks = nn.ModuleList(
                nn.Sequential(nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 8)) for _ in range(3)
            )

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x)
            return x

    assert outputs(Stream()) == ["blocks.2.3", "blocks.2"]


def test_a_pyramid_has_its_last_level():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 8)

        def forward(self, x):
            a = self.a(x)
            return {"a": a, "b": self.b(F.max_pool2d(a, 2))}

    assert outputs(Pyramid()) == ["b"]


@pytest.mark.parametrize("is_residual", [False, True])
def test_a_denoiser(is_residual):
    class DnCNN(nn.Module):
        def __init__(self):
            super().__init__()
            layers = [conv(3, 8), nn.ReLU(True)]
            for _ in range(15):
                layers += [conv(8, 8), nn.BatchNorm2d(8), nn.ReLU(True)]
            self.dncnn = nn.Sequential(*layers, conv(8, 3))

        def forward(self, x):
            noise = self.dncnn(x)
            return x - noise if is_residual else noise

    assert outputs(DnCNN()) == ["dncnn.47", "dncnn"]


def test_a_network_for_larger_images():
    model = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 12), nn.PixelShuffle(2))
    assert outputs(model) == ["2", "3"]


def test_a_u_net():
    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.low, self.merge = conv(3, 8), conv(8, 8), conv(16, 8)
            self.up = nn.ConvTranspose2d(8, 8, 2, 2)
            self.outc = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            fine = F.relu(self.down(x))
            coarse = F.relu(self.low(F.max_pool2d(fine, 2)))
            return self.outc(F.relu(self.merge(torch.cat([fine, self.up(coarse)], 1))))

    assert outputs(UNet()) == ["outc"]


# Classifiers


def activation_and_pooling(net, x, inner, last):
    return F.adaptive_avg_pool2d(F.relu(last), 1).flatten(1).softmax(1)


@pytest.mark.parametrize("pool", [lambda x: x.mean((2, 3)), lambda x: x.amax((2, 3))])
@pytest.mark.parametrize("name", ["classifier", "head", "fc", "last_linear", "aux_classifier"])
def test_a_classifier_may_end_with_an_activation_and_pooling(name, pool):
    assert outputs(Net(lambda net, x, inner, last: pool(F.relu(last)), name=name)) == [name]
    assert not outputs(Net(lambda net, x, inner, last: pool(F.relu(last)), name="conv_head"))
    # An activation alone makes no scores.
    assert not outputs(Net(lambda net, x, inner, last: F.relu(last), name=name))
    # Nor is it the last where another weight layer follows, or a gate.
    assert not outputs(Net(lambda net, x, inner, last: pool(net.again(F.relu(last)).relu())))
    assert not outputs(Net(lambda net, x, inner, last: pool(x * last.relu()), name=name))


@pytest.mark.parametrize(
    ("n_classes", "expected"), [(3, ["last"]), (4, []), (0, []), (True, []), ("3", [])]
)
def test_its_maps_are_as_many_as_the_network_has_classes(n_classes, expected):
    model = Net(activation_and_pooling)
    model.num_classes = n_classes
    assert outputs(model) == expected
    # The network may stand inside another one, all of which is the output.
    assert outputs(nn.Sequential(model)) == [*(f"0.{name}" for name in expected), "0"]


def test_the_end_of_a_network_without_its_head_stays_an_activation():
    trunk = [conv(3, 8), nn.ReLU(), conv(8, 8), nn.BatchNorm2d(8), nn.ReLU()]
    model = nn.Sequential(*trunk, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert not {"0", "1", "2", "3", "4"} & {*outputs(model)}
    # With its head, the convolution and its activation are those of a classifier.
    head = nn.Sequential(conv(8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    named = nn.Sequential()
    named.add_module("features", nn.Sequential(*trunk))
    named.add_module("classifier", head)
    found = outputs(named)
    assert {"classifier.0", "classifier.1"} <= {*found}
    assert not [name for name in found if name.startswith("features")]


def test_words_are_whole_parts_of_a_name():
    for name in ("classifier.1", "net.module.head.0", "roi.cls_score", "x.Classifier"):
        assert is_named_classifier(nn.Identity(), name, 7), name
    for name in ("headless.0", "conv_head", "mlp.fc1", "pre_logits.fc2", "overhead", ""):
        assert not is_named_classifier(nn.Identity(), name, 7), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("squeezenet1_1", ["classifier.1", "classifier.2"]),
        ("resnet18", []),
        ("mobilenet_v2", []),
        ("densenet121", []),
        ("convnext_tiny", []),
        ("swin_t", []),
        ("segmentation.fcn_resnet50", ["classifier.4", "classifier"]),
        ("segmentation.deeplabv3_mobilenet_v3_large", ["classifier.4", "classifier"]),
    ],
)
def test_known_networks(name, expected):
    home, _, network = name.rpartition(".")
    source = getattr(torchvision.models, home) if home else torchvision.models
    options = {"weights_backbone": None} if home else {}
    model = getattr(source, network)(weights=None, **options)
    torch.manual_seed(0)
    trace = trace_calls(model.eval(), (torch.rand(1, 3, 64, 64),))
    calls = [c for c in trace.calls if c.is_output and c.shape and min(c.shape[2:] or [1]) > 1]
    assert [call.name for call in calls] == expected


def test_what_cannot_be_followed_is_not_known():
    class Detour(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(3, 3)

        def forward(self, x):
            return torch.from_numpy(self.conv(x).numpy() + 1)

    calls = trace_calls(Detour().eval(), (torch.rand(1, 3, 16, 16),)).calls
    assert [call.is_output for call in calls] == [None]


def test_a_pass_that_is_not_followed_knows_nothing(monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("natstats.activations.trace._DepthMode.__torch_dispatch__", fail)
    trace = trace_calls(nn.Sequential(conv(3, 3)), (torch.rand(1, 3, 16, 16),))
    assert not trace.followed
    assert [call.is_output for call in trace.calls] == [None]

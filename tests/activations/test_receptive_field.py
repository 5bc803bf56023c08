"""Receptive fields: computed by hand, and found by poisoning one input row at a time."""

from __future__ import annotations

import math

import pytest
import torch
import torchvision.models
from torch import nn
from torch.nn import functional as F

from natstats.activations.trace import trace_calls

SIDE = 96


def fields(net: nn.Module, size: int = SIDE, channels: int = 2) -> dict[str, float]:
    trace = trace_calls(net, (torch.zeros(1, channels, size, size),))
    assert trace.followed
    return {call.name: call.receptive_field for call in trace.calls}


def conv(kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(2, 2, kernel, stride, padding, dilation)


class Sum(nn.Module):
    """Two branches, added."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


class Do(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


# By hand, with r the field and j the distance of rows in input pixels:
#   VGG-16: 13 convolutions of 3 add 2 j each, two or three at j = 1, 2, 4, 8, 16; each pool adds j.
#     1 + 2*2 + 1 + 2*2*2 + 2 + 3*2*4 + 4 + 3*2*8 + 8 + 3*2*16 = 196.
#   ResNet-18: 1 + 6 (conv1) + 2*2 (pool) = 11, j = 4; layer1 4 of 2*4: 43; layer2 2*4 and, at 8,
#     3 of 16: 99; layer3 2*8 and, at 16, 3 of 32: 211; layer4 2*16 and, at 32, 3 of 64: 435.
#   ResNet-50, the stride of a block on its 3x3 (torchvision): 11, then one 3x3 per block: 3 of 8:
#     35; 8 + 3 of 16: 91; 16 + 5 of 32: 267; 32 + 2 of 64: 427. On the first 1x1 it would be 483.
#   AlexNet: 11, j = 4; pool + 8 = 19, j = 8; 5x5 + 32 = 51; pool + 16 = 67, j = 16; 3 of 32: 163.
#   MobileNetV2: 3, j = 2; one depthwise 3x3 per block, strided in the 2nd, 4th, 7th and 14th:
#     + 4 + 4 + 8 + 8 + 2*16 + 16 + 6*32 + 32 + 3*64 = 491.
KNOWN = {
    "vgg16": {"features.0": 3, "features.28": 196},
    "resnet18": {"conv1": 7, "layer1.1": 43, "layer2.0.downsample.0": 43, "layer4.1.conv2": 435},
    "resnet50": {"layer1.2.conv2": 35, "layer3.0.conv2": 107, "layer4.2.conv3": 427, "fc": 427},
    "alexnet": {"features.0": 11, "features.3": 51, "features.10": 163, "classifier.1": 224},
    "mobilenet_v2": {"features.1.conv.0.0": 7, "features.18.0": 491},
    "vit_b_32": {"conv_proj": 32, "encoder.layers.encoder_layer_0.mlp.0": 224},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("inference", [False, True])
def test_the_fields_of_known_networks(name, inference):
    net = torchvision.models.get_model(name, weights=None).eval()
    with torch.inference_mode(inference):
        found = fields(net, 224, 3)
    assert {layer: found[layer] for layer in KNOWN[name]} == KNOWN[name]


# Name: network, and the field of its output by hand.
SMALL = {
    "dilation": (nn.Sequential(conv(3, 1, 2, 2), conv(3, 2, 4, 4), conv(3)), 1 + 4 + 8 + 4),
    "two branches": (Sum(conv(1, 2), nn.Sequential(conv(3, 1, 1), conv(3, 2, 1))), 5),
    "depthwise": (
        nn.Sequential(*(nn.Conv2d(2, 2, 3, 2, 1, groups=2) for _ in range(4))),
        1 + 2 + 4 + 8 + 16,
    ),
    "pools": (nn.Sequential(nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True), conv(3)), 13),
    "pool with dilation": (nn.MaxPool2d(3, 2, dilation=3), 7),
    "adaptive pool": (nn.Sequential(conv(3, 2, 1), nn.AdaptiveAvgPool2d(12)), 3 + 3 * 2),
    # An output of the transposed one sees two rows at most, which lie 2 apart.
    "transposed": (nn.Sequential(conv(3, 2, 1), nn.ConvTranspose2d(2, 2, 4, 2, 1)), 3 + 2),
    "transposed, no overlap": (nn.Sequential(conv(3, 2), nn.ConvTranspose2d(2, 2, 2, 2)), 3),
    "transposed, dilated": (
        nn.Sequential(conv(3, 2, 1), nn.ConvTranspose2d(2, 2, 5, 3, 1, dilation=2)),
        3 + 2 * 2,
    ),
    "nearest": (nn.Sequential(conv(3, 2, 1), nn.Upsample(scale_factor=2), conv(3)), 3 + 2),
    "linear interpolation": (
        nn.Sequential(conv(3, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear"), conv(3)),
        3 + 2 + 2,
    ),
    "shuffled pixels": (nn.Sequential(nn.Conv2d(2, 8, 3, 2, 1), nn.PixelShuffle(2), conv(3)), 5),
    "padded beforehand": (nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(3, 2), conv(3)), 7),
    "slices": (nn.Sequential(Sum(Do(lambda x: x[..., ::2, ::2]), conv(3, 2, 1)), conv(3)), 7),
    "channels last": (
        nn.Sequential(conv(3, 2), Do(lambda x: x.permute(0, 2, 3, 1)), nn.LayerNorm(2),
                      nn.Linear(2, 2), nn.GELU(), Do(lambda x: x.permute(0, 3, 1, 2)), conv(3)),
        7,
    ),
    "channels shuffled": (nn.Sequential(conv(3, 2), nn.ChannelShuffle(2), conv(3)), 7),
}  # fmt: skip


@pytest.mark.parametrize("name", SMALL)
def test_the_fields_of_small_networks(name):
    net, side = SMALL[name]
    assert fields(nn.Sequential(net))["0"] == side


@pytest.mark.parametrize("name", SMALL)
def test_so_many_rows_make_an_output_not_a_number(name):
    """A row of NaN in the input reaches every output that can depend on it, and no other."""
    net, side = SMALL[name]
    net = net.double().eval()
    reached = []
    with torch.no_grad():
        for row in range(SIDE):
            images = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.double)
            images[:, :, row] = math.nan
            reached.append(net(images).isnan().any(1).any(-1)[0])
    net.float()
    rows_of_output = torch.stack(reached, dim=1)
    inside = rows_of_output[~(rows_of_output[:, 0] | rows_of_output[:, -1])]
    extents = [int(row.nonzero().max() - row.nonzero().min()) + 1 for row in inside if any(row)]
    assert max(extents) == side


def squeeze(x: torch.Tensor) -> torch.Tensor:
    return x * x.mean((2, 3), keepdim=True).sigmoid()


def attend(x: torch.Tensor) -> torch.Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    mixed = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
    return mixed.transpose(1, 2).reshape(x.shape)


def attend_fused(x: torch.Tensor) -> torch.Tensor:
    tokens = x.flatten(2).transpose(1, 2)[:, None]
    return F.scaled_dot_product_attention(tokens, tokens, tokens)[:, 0].transpose(1, 2).view_as(x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mixing",
    [Do(squeeze), Do(attend), Do(attend_fused), nn.GroupNorm(1, 2), nn.InstanceNorm2d(2),
     nn.AdaptiveMaxPool2d(1)],
    ids=["squeeze", "attention", "fused attention", "group norm", "instance norm", "global pool"],
)  # fmt: skip
def test_what_mixes_all_rows_sees_the_whole_image(mixing):
    found = fields(nn.Sequential(conv(3, 2, 1), mixing, nn.ReLU()))
    assert list(found.values()) == [3, SIDE, SIDE]


def test_a_field_above_the_image_stays_through_a_global_mean():
    net = nn.Sequential(conv(3, 2, 1), conv(3, 2, 1), conv(3, 2, 1), nn.AdaptiveAvgPool2d(1))
    assert list(fields(net, 12).values()) == [3, 7, 15, 15]


def windows(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    parts = x.reshape(n, c, 2, h // 2, w).permute(0, 2, 3, 4, 1).reshape(2 * n, -1, c)
    mixed = F.scaled_dot_product_attention(parts[:, None], parts[:, None], parts[:, None])[:, 0]
    return mixed.reshape(n, 2, h // 2, w, c).permute(0, 4, 1, 2, 3).reshape(x.shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    "lost",
    [
        Do(windows),
        Do(lambda x: conv(3, padding=1)(x.roll(5, 2))),
        Do(lambda x: conv(3, padding=1)(x.transpose(2, 3))),
        Do(lambda x: x + x.flip(2)[:, :, :3].mean((2, 3), keepdim=True)),
        Do(lambda x: torch.fft.fft2(x).abs()),
        Do(lambda x: F.conv2d(x, x.mean((2, 3)).diag_embed().reshape(2, 2, 1, 1))),
        nn.AdaptiveAvgPool2d(5),
    ],
    ids=["windows", "roll", "transpose", "some rows", "fft", "weights from data", "uneven pool"],
)
def test_what_cannot_be_followed_is_not_known_there_and_after(lost):
    net = nn.Sequential(conv(3, padding=1), nn.Sequential(lost), conv(3))
    found = fields(net)
    assert found["0"] == 3
    assert math.isnan(found["1"])
    assert math.isnan(found["2"])


def test_a_buffer_written_in_parts_has_the_largest_field():
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large, self.end = conv(3, padding=1), conv(7, padding=3), conv(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            buffer = torch.zeros_like(x)
            buffer[:, :1] = self.small(x)[:, :1]
            buffer[:, 1:] += self.large(x)[:, 1:]
            return self.end(buffer)

    assert list(fields(Parts()).values()) == [3, 7, 7]


def test_order_counts_calls_of_weight_layers():
    net = Sum(nn.Sequential(conv(1), nn.ReLU(), conv(1)), conv(1))
    calls = trace_calls(net, (torch.zeros(1, 2, 8, 8),)).calls
    found = {call.name: (call.depth, call.order) for call in calls}
    assert found["left.2"] == (2, 2)
    assert found["left.1"] == (1, 1)
    assert found["right"] == (1, 3)


# The distance of rows


def pitches(net: nn.Module, size: int = SIDE) -> list[float]:
    trace = trace_calls(net, (torch.zeros(1, 2, size, size),))
    return [call.pitch for call in trace.calls]


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (nn.Sequential(conv(3), conv(3, 2), conv(3, 2, 1)), [1, 2, 4]),
        (nn.Sequential(conv(3, 2), nn.MaxPool2d(3, 2), nn.ReLU()), [2, 4, 4]),
        (nn.Sequential(conv(2, 2), nn.ConvTranspose2d(2, 2, 2, 2)), [2, 1]),
        (nn.Sequential(conv(2, 2), nn.Upsample(scale_factor=2)), [2, 1]),
        (nn.Sequential(conv(4, 4), nn.BatchNorm2d(2), nn.GroupNorm(1, 2)), [4, 4, 4]),
        (nn.Sequential(Sum(conv(3, 2, 1), conv(1, 2))), [2, 2, 2]),
        (nn.Sequential(conv(3, padding=4, dilation=4), nn.AvgPool2d(2)), [1, 2]),
    ],
)
def test_the_distance_of_rows_by_hand(net, expected):
    assert pitches(net) == expected


def test_rows_among_the_channels_have_no_distance():
    """Of the rows that pixel unshuffling has split, a map has every second one."""
    (pitch,) = pitches(nn.Sequential(nn.PixelUnshuffle(2)))
    assert math.isnan(pitch)


def test_tokens_have_the_distance_of_their_patches():
    patches = nn.Sequential(conv(8, 8), Do(lambda x: x.flatten(2).transpose(1, 2)))
    assert pitches(patches) == [8, 8]

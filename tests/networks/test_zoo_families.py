"""Every network that goes by a name: published sizes, shapes, gradients, nothing shared."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from natstats.activations.trace import trace_calls
from natstats.errors import UsageError
from natstats.networks.zoo import (
    MobileNetV1,
    PyramidBasicBlock,
    PyramidBottleneck,
    PyramidNet,
    WideBlock,
    WideResNet,
    cifar_resnet,
    mobilenet_v1,
    named_network,
    pyramidnet,
    wide_resnet,
)

# Small members of every family: the large ones have the same parts.
SMALL = {
    "cifar_resnet": lambda **k: cifar_resnet(8, **k),
    "cifar_resnet_b": lambda **k: cifar_resnet(14, shortcut="conv", **k),
    "cifar_resnet8x4": named_network("cifar_resnet8x4").build,
    "wrn_10_1": named_network("wrn_10_1").build,
    "wrn_16_2": named_network("wrn_16_2").build,
    "wrn_10_2 dropout": lambda **k: wide_resnet(10, 2, dropout=0.3, **k),
    "pyramidnet": lambda **k: pyramidnet(14, 20, **k),
    "pyramidnet bottleneck": lambda **k: pyramidnet(11, 10, bottleneck=True, **k),
    "mobilenet_v1": lambda **k: mobilenet_v1(width=0.25, **k),
}


@pytest.fixture(params=SMALL)
def small(request):
    torch.manual_seed(0)
    return SMALL[request.param](num_classes=7)


def n_parameters(net):
    return sum(weight.numel() for weight in net.parameters())


def built(name, **arguments):
    with torch.device("meta"):
        return named_network(name).build(**arguments)


# Million parameters as printed, with the digits that are; "cut" where the source does not round.
# Overhaul: Heo et al., "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, the table of
# pairs on CIFAR-100. WRN: Zagoruyko and Komodakis 2016. ResNet: He et al. 2016, table 6. MobileNet:
# Howard et al. 2017, table 6.
PUBLISHED = [
    ("wrn_16_2", {"num_classes": 100}, 0.70, 2),  # Overhaul (c)
    ("wrn_16_4", {"num_classes": 100}, 2.77, 2),  # Overhaul (a)
    ("wrn_28_4", {"num_classes": 100}, 5.87, 2),  # Overhaul (a)
    ("wrn_28_2", {"num_classes": 100}, 1.47, "cut"),  # Overhaul (b): 1 479 220
    ("pyramidnet_110_84", {"num_classes": 100}, 3.91, 2),  # Overhaul (f)
    ("pyramidnet_200_240", {"num_classes": 100}, 26.84, 2),  # Overhaul (e)
    ("cifar_resnet56", {"num_classes": 100, "shortcut": "conv"}, 0.86, 2),  # Overhaul (d)
    ("wrn_40_2", {"num_classes": 100}, 2.26, 2),  # as listed for the pairs of Tian et al. 2020
    ("wrn_40_1", {"num_classes": 100}, 0.57, 2),
    ("cifar_resnet20", {"num_classes": 100, "shortcut": "conv"}, 0.28, 2),
    ("cifar_resnet110", {"num_classes": 100, "shortcut": "conv"}, 1.74, 2),
    ("cifar_resnet8x4", {"num_classes": 100}, 1.23, 2),
    ("cifar_resnet32x4", {"num_classes": 100}, 7.43, 2),
    ("wrn_40_1", {}, 0.6, 1),  # WRN
    ("wrn_40_4", {}, 8.9, 1),
    ("wrn_28_10", {}, 36.5, 1),
    ("cifar_resnet20", {}, 0.27, 2),  # ResNet
    ("cifar_resnet32", {}, 0.46, 2),
    ("cifar_resnet44", {}, 0.66, 2),
    ("cifar_resnet56", {}, 0.85, 2),
    ("cifar_resnet110", {}, 1.7, 1),
    ("mobilenet_v1", {}, 4.2, 1),  # MobileNet
    ("mobilenet_v1", {"width": 0.75}, 2.6, 1),
    ("mobilenet_v1", {"width": 0.5}, 1.3, 1),
    ("mobilenet_v1", {"width": 0.25}, 0.5, 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "millions", "digits"), PUBLISHED)
def test_parameter_counts_are_the_published_ones(name, arguments, millions, digits):
    count = n_parameters(built(name, **arguments)) / 1e6
    assert (int(100 * count) / 100 if digits == "cut" else round(count, digits)) == millions


@pytest.mark.parametrize(("depth", "k"), [(10, 1), (16, 2), (22, 3), (28, 10), (40, 1)])
def test_counts_of_wide_networks_follow_from_the_layers(depth, k):
    n = (depth - 4) // 6
    count = 27 * 16  # the first convolution
    before = 16
    for width in (16 * k, 32 * k, 64 * k):
        count += 9 * before * width + 9 * width**2 * (2 * n - 1)
        count += 2 * before + 2 * width * (2 * n - 1)  # a batch normalisation before each
        count += before * width if before != width else 0
        before = width
    count += 2 * before + 100 * before + 100
    assert n_parameters(built(f"wrn_{depth}_{k}", num_classes=100)) == count


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "alpha", "bottleneck"), [(110, 84, False), (200, 240, True)])
def test_counts_of_pyramids_follow_from_the_layers(depth, alpha, bottleneck):
    n_blocks = (depth - 2) // (3 if bottleneck else 2)
    count, before, width = 27 * 16 + 2 * 16, 16, 16.0
    for _ in range(n_blocks):
        width += alpha / n_blocks
        w = round(width)
        if bottleneck:
            after = 4 * w
            count += before * w + 9 * w * w + w * after + 2 * (before + w + w + after)
        else:
            after = w
            count += 9 * (before * w + w * w) + 2 * (before + w + w)
        before = after
    assert round(width) == 16 + alpha
    count += 2 * before + 100 * before + 100
    with torch.device("meta"):
        net = pyramidnet(depth, alpha, bottleneck, num_classes=100)
    assert n_parameters(net) == count


def test_the_count_of_mobilenet_is_that_of_the_paper():
    widths = [32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024]
    count = 27 * 32 + 2 * 32 + 1024 * 1000 + 1000
    for before, after in pairwise(widths):
        count += 9 * before + 2 * before + before * after + 2 * after
    assert n_parameters(built("mobilenet_v1")) == count


# The linear layer counts in the names, but for WRN, where the 1 x 1 convolutions on shortcuts do.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_convolutions"),
    [
        ("cifar_resnet44", 43),
        ("cifar_resnet8x4", 7 + 3),
        ("wrn_16_2", 16),
        ("wrn_28_10", 28),
        ("wrn_40_1", 39),
        ("pyramidnet_110_84", 109),
        ("pyramidnet_200_240", 199),
        ("mobilenet_v1", 27),
    ],
)
def test_depth_in_the_name_counts_the_weighted_layers(name, n_convolutions):
    net = built(name)
    assert sum(isinstance(module, nn.Conv2d) for module in net.modules()) == n_convolutions
    assert [n for n, module in net.named_modules() if isinstance(module, nn.Linear)] == ["fc"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("cifar_resnet20", (16, 32, 64)),
        ("cifar_resnet32x4", (64, 128, 256)),
        ("wrn_16_4", (64, 128, 256)),
        ("pyramidnet_110_84", (44, 72, 100)),
        ("pyramidnet_200_240", (384, 704, 1024)),
    ],
)
def test_stages_halve_the_map(name, channels):
    net = built(name)
    x = (
        net.bn1(net.conv1(torch.zeros(1, 3, 32, 32, device="meta")))
        if "wrn" not in name
        else (net.conv1(torch.zeros(1, 3, 32, 32, device="meta")))
    )
    shapes = [x.shape]
    for stage in (net.stage1, net.stage2, net.stage3):
        x = stage(x)
        shapes.append(x.shape)
    assert shapes[0][2:] == (32, 32)
    assert shapes[1:] == [(1, c, side, side) for c, side in zip(channels, (32, 16, 8), strict=True)]


@pytest.mark.slow
def test_mobilenet_has_the_maps_of_the_paper():
    calls = trace_calls(mobilenet_v1(width=0.25).eval(), (torch.zeros(1, 3, 224, 224),)).calls
    sides = [call.shape[-1] for call in calls if call.name.endswith(("conv1", "pointwise"))]
    assert sides == [112, 112, 56, 56, 28, 28, *[14] * 6, 7, 7]


@pytest.mark.parametrize("side", [32, 47, 64])
def test_output_has_one_finite_score_per_class(small, side):
    with torch.no_grad():
        scores = small.eval()(torch.rand(2, 3, side, side))
    assert scores.shape == (2, 7)
    assert torch.isfinite(scores).all()


def test_evaluation_is_the_same_twice_and_image_by_image(small):
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        small(images)  # running statistics of its own
        small.eval()
        scores = small(images)
        alone = torch.cat([small(image[None]) for image in images])
        assert torch.equal(scores, small(images))
    torch.testing.assert_close(scores, alone, rtol=1e-4, atol=1e-5)


def test_dropout_works_in_training_only():
    net = SMALL["wrn_10_2 dropout"](num_classes=7)
    images = torch.rand(4, 3, 16, 16)
    assert not torch.equal(net(images), net(images))
    net.eval()
    assert torch.equal(net(images), net(images))
    assert not any(isinstance(m, nn.Dropout) for m in wide_resnet(10, 1).modules())


@pytest.mark.slow
def test_gradients_reach_every_parameter(small):
    functional.cross_entropy(small(torch.rand(8, 3, 32, 32)), torch.arange(8) % 7).backward()
    without = [
        name
        for name, weight in small.named_parameters()
        if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    assert without == []


def test_every_module_works_once_and_nothing_is_overwritten(small):
    calls, kept, named = Counter(), {}, list(small.named_modules())

    def keep(name):
        def hook(module, inputs, output):
            calls[name] += 1
            kept[name] = (output, output.clone())

        return hook

    for name, module in named:
        module.register_forward_hook(keep(name))
    with torch.no_grad():
        small.eval()(torch.rand(1, 3, 32, 32))
    assert calls == dict.fromkeys((name for name, _ in named), 1)
    assert [name for name, (output, copy) in kept.items() if not torch.equal(output, copy)] == []
    assert len({id(module) for _, module in named}) == len(named)


def drawn(block):
    """The block in eval mode, with statistics and factors that do something."""
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)
    return block.eval().double()


def normalised(x, bn):
    shape = (1, -1, 1, 1)
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return (x - bn.running_mean.view(shape)) * scale.view(shape) + bn.bias.view(shape)


@pytest.mark.parametrize(("n_in", "n_out", "stride"), [(4, 4, 1), (4, 6, 1), (4, 6, 2)])
def test_a_wide_block_is_what_the_paper_draws(n_in, n_out, stride):
    block, x = drawn(WideBlock(n_in, n_out, stride)), torch.randn(2, n_in, 9, 9).double()
    active = normalised(x, block.bn1).clamp(min=0)
    inner = functional.conv2d(active, block.conv1.weight, stride=stride, padding=1)
    inner = normalised(inner, block.bn2).clamp(min=0)
    expected = functional.conv2d(inner, block.conv2.weight, padding=1)
    if n_in == n_out:
        expected = expected + x
    else:  # the shortcut starts behind the first ReLU
        pixels = active[:, :, ::stride, ::stride]
        expected = expected + torch.einsum(
            "oi,nihw->nohw", block.shortcut.weight[:, :, 0, 0], pixels
        )
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", [PyramidBasicBlock, PyramidBottleneck])
def test_a_pyramid_block_is_what_the_paper_draws(kind, stride):
    block, x = drawn(kind(4, 6, stride)), torch.randn(2, 4, 8, 8).double()
    if kind is PyramidBasicBlock:
        y = functional.conv2d(normalised(x, block.bn1), block.conv1.weight, None, stride, 1)
        y = functional.conv2d(normalised(y, block.bn2).clamp(min=0), block.conv2.weight, None, 1, 1)
        y = normalised(y, block.bn3)
    else:
        y = functional.conv2d(normalised(x, block.bn1), block.conv1.weight)
        y = normalised(y, block.bn2).clamp(min=0)
        y = normalised(functional.conv2d(y, block.conv2.weight, None, stride, 1), block.bn3)
        y = normalised(functional.conv2d(y.clamp(min=0), block.conv3.weight), block.bn4)
    kept = x if stride == 1 else x.reshape(2, 4, 4, 2, 4, 2).mean(dim=(3, 5))
    expected = y.clone()
    expected[:, :4] += kept  # the other channels of the shortcut are zero
    torch.testing.assert_close(block(x), expected)


def test_initial_weights_have_the_variance_of_he():
    weight = wide_resnet(10, 4).stage3[0].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: wide_resnet(18, 2), r"depth: expected 6 n \+ 4 with n .*\(10, 16, ...\); got 18"),
        (lambda: wide_resnet(4, 2), r"depth: .*got 4$"),
        (lambda: wide_resnet(16.0, 2), r"depth: .*got 16.0"),
        (lambda: wide_resnet(16, 0), "widen: expected a whole number of at least 1; got 0"),
        (lambda: wide_resnet(16, 1.5), "widen: .*got 1.5"),
        (lambda: wide_resnet(16, 2, 0), "num_classes: .*at least 1; got 0"),
        (lambda: wide_resnet(16, 2, dropout=1.0), "dropout: .*from 0 to below 1; got 1.0"),
        (lambda: wide_resnet(16, 2, dropout="much"), "dropout: .*got 'much'"),
        (lambda: WideResNet(0, 2), "blocks_per_stage: .*got 0"),
        (lambda: WideBlock(16, 16, stride=2), "stride: expected 1 where .* stays 16; got 2"),
        (lambda: pyramidnet(111, 84), r"depth: expected 6 n \+ 2 .*got 111"),
        (lambda: pyramidnet(14, 84, bottleneck=True), r"depth: expected 9 n \+ 2 .*got 14"),
        (lambda: pyramidnet(14, 0), "alpha: expected a number above 0; got 0"),
        (lambda: pyramidnet(14, float("nan")), "alpha: .*got nan"),
        (lambda: pyramidnet(14, "84"), "alpha: .*got '84'"),
        (lambda: PyramidNet(1, 12, num_classes=-1), "num_classes: .*got -1"),
        (lambda: PyramidBasicBlock(16, 12), "width: expected no fewer .* 16; got 12"),
        (lambda: mobilenet_v1(width=0), "width: expected a number above 0; got 0"),
        (lambda: MobileNetV1(width=True), "width: .*got True"),
        (lambda: mobilenet_v1(num_classes=2.5), "num_classes: .*got 2.5"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(make, words):
    with pytest.raises(UsageError, match=words):
        make()

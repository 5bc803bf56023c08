"""The residual networks for small images: published sizes, one name for every activation."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from natstats.errors import UsageError
from natstats.networks.zoo import BasicBlock, CifarResNet, PadShortcut, cifar_resnet, cifar_resnet20


def parameter_count(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "millions", "digits"), [(20, 0.27, 2), (32, 0.46, 2), (56, 0.85, 2), (110, 1.7, 1)]
)
def test_parameter_counts_are_the_published_ones(depth: int, millions: float, digits: int) -> None:
    assert round(parameter_count(cifar_resnet(depth)) / 1e6, digits) == millions


def test_count_follows_from_the_layers() -> None:
    # Convolutions 9 * in * out, two numbers per normalised channel, and the linear layer.
    convolutions = 9 * (3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64)
    normalisations = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    assert parameter_count(cifar_resnet20()) == convolutions + normalisations + 64 * 10 + 10


@pytest.mark.parametrize("depth", [8, 20, 110])
def test_depth_counts_the_weighted_layers(depth: int) -> None:
    weighted = [m for m in cifar_resnet(depth).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth


@pytest.mark.parametrize("side", [32, 47, 64])
def test_output_has_one_score_per_class(side: int) -> None:
    net = cifar_resnet20(num_classes=24).eval()
    with torch.no_grad():
        scores = net(torch.rand(2, 3, side, side))
    assert scores.shape == (2, 24)
    assert torch.isfinite(scores).all()


def test_stages_halve_the_map() -> None:
    net = cifar_resnet20().eval()
    shapes: dict[str, torch.Size] = {}

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        shapes[name] = output.shape

    for name in ("relu1", "stage1", "stage2", "stage3"):
        net.get_submodule(name).register_forward_hook(partial(note, name))
    with torch.no_grad():
        net(torch.rand(1, 3, 32, 32))
    assert shapes == {
        "relu1": (1, 16, 32, 32),
        "stage1": (1, 16, 32, 32),
        "stage2": (1, 32, 16, 16),
        "stage3": (1, 64, 8, 8),
    }


def test_every_relu_is_called_once() -> None:
    net = cifar_resnet20().eval()
    names = [name for name, module in net.named_modules() if isinstance(module, nn.ReLU)]
    calls: Counter[str] = Counter()

    def count(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[name] += 1

    for name in names:
        net.get_submodule(name).register_forward_hook(partial(count, name))
    with torch.no_grad():
        net(torch.rand(1, 3, 32, 32))
    assert len(names) == 19  # one per convolution
    assert calls == dict.fromkeys(names, 1)


def test_nothing_overwrites_a_recorded_output() -> None:
    net = cifar_resnet20().eval()
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept[name] = (output, output.clone())

    for name, module in net.named_modules():
        module.register_forward_hook(partial(keep, name))
    with torch.no_grad():
        net(torch.rand(1, 3, 16, 16))
    changed = [name for name, (output, copy) in kept.items() if not torch.equal(output, copy)]
    assert changed == []


def test_shortcut_keeps_every_second_pixel_and_appends_zeros() -> None:
    x = torch.arange(2 * 3 * 5 * 4, dtype=torch.float32).reshape(2, 3, 5, 4)
    out = PadShortcut(extra_channels=2, stride=2)(x)
    assert out.shape == (2, 5, 3, 2)
    assert torch.equal(out[:, :3], x[:, :, ::2, ::2])
    assert not out[:, 3:].any()
    assert parameter_count(PadShortcut(2, 2)) == 0


def test_gradients_reach_every_weight() -> None:
    net = cifar_resnet(8)
    net(torch.rand(4, 3, 16, 16)).square().sum().backward()
    assert all(w.grad is not None and w.grad.abs().sum() > 0 for w in net.parameters())


@pytest.mark.parametrize("depth", [-4, 0, 2, 7, 18, 21, 20.0, "20"])
def test_bad_depth_is_named(depth: object) -> None:
    with pytest.raises(UsageError, match=r"^depth: expected 6 n \+ 2 .*; got ") as caught:
        cifar_resnet(depth)  # type: ignore[arg-type]
    assert str(caught.value).endswith(repr(depth))


def test_other_bad_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="num_classes: expected .* at least 1; got 0"):
        cifar_resnet20(num_classes=0)
    with pytest.raises(UsageError, match="blocks_per_stage: expected .* at least 1; got 0"):
        CifarResNet(blocks_per_stage=0)
    with pytest.raises(UsageError, match=r"out_channels: .* in_channels \(32\); got 16"):
        BasicBlock(32, 16)
    with pytest.raises(UsageError, match="shortcut: expected one of pad, conv, pad-both; got 'B'"):
        cifar_resnet20(shortcut="B")

"""Residual networks for small images.

A network of this family has ``6 n + 2`` weighted layers: one 3 x 3 convolution, three stages of
``n`` blocks with two 3 x 3 convolutions each, and one linear layer. The second and the third stage
start by halving the map. The first convolution and the stages have 16, 16, 32 and 64 channels; in
the wider networks whose names end in ``x4``, 32, 64, 128 and 256.

Where a block changes the shape, its shortcut is one of three:

- ``pad`` (option A of He et al.) has no parameters: it keeps every second pixel and appends
  channels of zeros. This is the network of the paper.
- ``pad-both`` is the same with half of the zeros in front and half behind, as in the code for
  PyTorch whose weights are most in use. The weights of one do not work in the other.
- ``conv`` (option B) is a 1 x 1 convolution with batch normalisation. RepDistiller and Overhaul
  use this one, so most accuracies in the literature on distillation are of it.

No module is used twice and no activation works in place, so a forward hook on any module sees
exactly one output per pass, and nothing changes that output afterwards.

References:
    K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", IEEE
    Conference on Computer Vision and Pattern Recognition (CVPR), 2016, section 4.2.

    Y. Tian, D. Krishnan and P. Isola, "Contrastive Representation Distillation", International
    Conference on Learning Representations (ICLR), 2020: the networks of four times the width.
"""

from __future__ import annotations

from torch import Tensor, nn

from natstats import checks
from natstats.errors import UsageError
from natstats.networks.zoo.parts import (
    PadShortcut,
    blocks_of,
    conv3x3,
    conv_shortcut,
    draw_weights,
)

__all__ = [
    "SHORTCUTS",
    "BasicBlock",
    "CifarResNet",
    "cifar_resnet",
    "cifar_resnet20",
    "cifar_resnet_x4",
]

SHORTCUTS = ("pad", "conv", "pad-both")
"""Kinds of shortcut where a block changes the shape: options A and B of He et al., and A with the
zeros on both sides."""

CHANNELS = (16, 16, 32, 64)
CHANNELS_X4 = (32, 64, 128, 256)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to a shortcut.

    ``relu1`` follows the first convolution and ``relu2`` the sum: two modules, so that each
    activation has its own name.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least ``in_channels``.
        stride: Stride of the first convolution and of the shortcut.
        shortcut: One of :data:`SHORTCUTS`; it matters only where the shape changes.

    Raises:
        UsageError: ``out_channels`` is smaller than ``in_channels``, or an unknown shortcut.

    Example:
        >>> import torch
        >>> BasicBlock(16, 32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, shortcut: str = "pad"
    ) -> None:
        super().__init__()
        checks.one_of("shortcut", shortcut, SHORTCUTS)
        if out_channels < in_channels:
            raise UsageError(
                f"out_channels: expected at least in_channels ({in_channels}); got {out_channels}"
            )
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        extra = out_channels - in_channels
        if stride != 1 or extra:
            self.shortcut = (
                conv_shortcut(in_channels, out_channels, stride)
                if shortcut == "conv"
                else PadShortcut(extra, stride, extra // 2 if shortcut == "pad-both" else 0)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Maps of shape ``(N, in_channels, H, W)``.

        Returns:
            Maps of shape ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.
        """
        residual = self.relu1(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        out: Tensor = self.relu2(residual + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """A residual network for small images; build it with :func:`cifar_resnet`.

    Args:
        blocks_per_stage: The ``n`` of ``6 n + 2`` layers, at least 1.
        num_classes: Outputs of the linear layer, at least 1.
        shortcut: One of :data:`SHORTCUTS`.
        channels: Channels of the first convolution and of the three stages, never decreasing.
        stem_stride: Stride of the first convolution: 2 makes images of 64 pixels cost what those
            of 32 do.

    Raises:
        UsageError: A number is smaller than 1, or the shortcut is unknown.

    Example:
        >>> import torch
        >>> net = CifarResNet(blocks_per_stage=1, num_classes=10).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        blocks_per_stage: int,
        num_classes: int = 10,
        shortcut: str = "pad",
        channels: tuple[int, int, int, int] = CHANNELS,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        checks.positive_int("blocks_per_stage", blocks_per_stage)
        checks.positive_int("num_classes", num_classes)
        checks.positive_int("stem_stride", stem_stride)
        stem, narrow, middle, wide = channels
        self.conv1 = conv3x3(3, stem, stem_stride)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu1 = nn.ReLU()
        self.stage1 = _stage(stem, narrow, blocks_per_stage, 1, shortcut)
        self.stage2 = _stage(narrow, middle, blocks_per_stage, 2, shortcut)
        self.stage3 = _stage(middle, wide, blocks_per_stage, 2, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(wide, num_classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images.

        Args:
            x: Normalised images of shape ``(N, 3, H, W)``; any size of map will do.

        Returns:
            Class scores (logits) of shape ``(N, num_classes)``.
        """
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def _stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, shortcut: str
) -> nn.Sequential:
    """Chain ``blocks`` blocks, of which only the first changes the shape."""
    first = BasicBlock(in_channels, out_channels, stride, shortcut)
    rest = (BasicBlock(out_channels, out_channels) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def cifar_resnet(
    depth: int, num_classes: int = 10, shortcut: str = "pad", stem_stride: int = 1
) -> CifarResNet:
    """Build the residual network for small images with ``depth`` weighted layers.

    The published depths are 20, 32, 44, 56 and 110, with 0.27, 0.46, 0.66, 0.85 and 1.7 million
    parameters.

    Args:
        depth: Number of weighted layers: ``6 n + 2`` with ``n`` at least 1.
        num_classes: Number of classes, at least 1.
        shortcut: ``pad`` or ``pad-both`` (option A) or ``conv`` (option B), where a block changes
            the shape.
        stem_stride: Stride of the first convolution.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> sum(weight.numel() for weight in cifar_resnet(56).parameters())
        853018
        >>> sum(weight.numel() for weight in cifar_resnet(56, 100, shortcut="conv").parameters())
        861620
        >>> cifar_resnet(18)
        Traceback (most recent call last):
        natstats.errors.UsageError: depth: expected 6 n + 2 with n at least 1 (8, 14, ...); got 18
    """
    return CifarResNet(blocks_of(depth, 6, 2), num_classes, shortcut, stem_stride=stem_stride)


def cifar_resnet_x4(depth: int, num_classes: int = 10, shortcut: str = "conv") -> CifarResNet:
    """Build the network of four times the width, as Tian et al. use it for distillation.

    The first convolution has twice the channels of the narrow network, the stages four times, so
    that the first stage changes the number of channels, too. The published depths are 8 and 32,
    with 1.23 and 7.43 million parameters at 100 classes.

    Args:
        depth: Number of weighted layers: ``6 n + 2`` with ``n`` at least 1.
        num_classes: Number of classes, at least 1.
        shortcut: ``pad`` or ``pad-both`` (option A) or ``conv`` (option B), where a block changes
            the shape.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> sum(weight.numel() for weight in cifar_resnet_x4(8, num_classes=100).parameters())
        1233540
    """
    return CifarResNet(blocks_of(depth, 6, 2), num_classes, shortcut, CHANNELS_X4)


def cifar_resnet20(
    num_classes: int = 10, shortcut: str = "pad", stem_stride: int = 1
) -> CifarResNet:
    """Build the network of 20 layers, 0.27 million parameters.

    Args:
        num_classes: Number of classes, at least 1.
        shortcut: ``pad`` or ``pad-both`` (option A) or ``conv`` (option B), where a block changes
            the shape.
        stem_stride: Stride of the first convolution.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> net = cifar_resnet20(num_classes=10)
        >>> sum(weight.numel() for weight in net.parameters())
        269722
    """
    return cifar_resnet(20, num_classes, shortcut, stem_stride)

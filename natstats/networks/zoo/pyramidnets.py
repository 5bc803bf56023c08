"""Pyramidal residual networks for small images, whose width grows from block to block.

One 3 x 3 convolution with 16 channels and batch normalisation, three stages of ``n`` blocks, the
second and the third halving the map in their first block, then batch normalisation, ReLU, the mean
over the map and a linear layer. In place of doubling at each stage, the width grows by the same
amount in every block (the additive form): block ``i`` of ``3 n`` has ``16 + alpha i / (3 n)``
channels, rounded, and four times as many after the last convolution of a bottleneck.

A block starts with a batch normalisation without ReLU and ends with one. Its shortcut has no
parameters: means over 2 x 2 pixels where the map is halved, and channels of zeros appended.

The depth is ``6 n + 2`` with two 3 x 3 convolutions in a block, and ``9 n + 2`` with bottlenecks.

Reference:
    D. Han, J. Kim and J. Kim, "Deep Pyramidal Residual Networks", IEEE Conference on Computer
    Vision and Pattern Recognition (CVPR), 2017, arXiv 1610.02915.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import Tensor, nn

from natstats import checks
from natstats.errors import UsageError
from natstats.networks.zoo.parts import PadShortcut, blocks_of, conv3x3, draw_weights

__all__ = [
    "PyramidBasicBlock",
    "PyramidBottleneck",
    "PyramidNet",
    "pyramidnet",
    "pyramidnet_110_84",
    "pyramidnet_200_240",
]

FIRST_CHANNELS = 16


class PyramidBasicBlock(nn.Module):
    """Two 3 x 3 convolutions between three batch normalisations, one ReLU, and a shortcut.

    Args:
        in_channels: Channels of the input.
        width: Channels of both convolutions and of the output, at least `in_channels`.
        stride: Of the first convolution, 1 or 2.

    Example:
        >>> import torch
        >>> PyramidBasicBlock(16, 18, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 18, 4, 4])
    """

    EXPANSION = 1

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn3 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Maps of shape ``(N, in_channels, H, W)``.

        Returns:
            Maps of shape ``(N, width, ceil(H / stride), ceil(W / stride))``.
        """
        residual = self.relu1(self.bn2(self.conv1(self.bn1(x))))
        residual = self.bn3(self.conv2(residual))
        out: Tensor = residual + self.shortcut(x)
        return out


class PyramidBottleneck(nn.Module):
    """A 1 x 1, a 3 x 3 and a 1 x 1 convolution between four batch normalisations, and a shortcut.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first two convolutions; the output has four times as many, which
            must be at least `in_channels`.
        stride: Of the 3 x 3 convolution, 1 or 2.

    Example:
        >>> import torch
        >>> PyramidBottleneck(16, 20, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 80, 4, 4])
    """

    EXPANSION = 4

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = self.EXPANSION * width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn4 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Maps of shape ``(N, in_channels, H, W)``.

        Returns:
            Maps of shape ``(N, 4 width, ceil(H / stride), ceil(W / stride))``.
        """
        residual = self.relu1(self.bn2(self.conv1(self.bn1(x))))
        residual = self.relu2(self.bn3(self.conv2(residual)))
        residual = self.bn4(self.conv3(residual))
        out: Tensor = residual + self.shortcut(x)
        return out


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Means over 2 x 2 pixels, then channels of zeros; each only where it is needed."""
    if out_channels < in_channels:
        raise UsageError(
            f"width: expected no fewer channels than come in, {in_channels}; got {out_channels}"
        )
    parts: list[nn.Module] = []
    if stride != 1:
        # Odd maps are halved upwards, as the convolutions do.
        parts.append(nn.AvgPool2d(stride, stride, ceil_mode=True))
    if out_channels != in_channels:
        parts.append(PadShortcut(out_channels - in_channels, stride=1))
    return nn.Sequential(*parts) if parts else nn.Identity()


class PyramidNet(nn.Module):
    """A pyramidal residual network; build it with :func:`pyramidnet`.

    Args:
        blocks_per_stage: ``n``, at least 1.
        alpha: By how much the width grows from the first convolution to the last block, above 0.
        bottleneck: Blocks of three convolutions instead of two.
        num_classes: Outputs of the linear layer, at least 1.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> import torch
        >>> net = PyramidNet(blocks_per_stage=1, alpha=12, bottleneck=True).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        blocks_per_stage: int,
        alpha: float,
        bottleneck: bool = False,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        checks.positive_int("blocks_per_stage", blocks_per_stage)
        checks.positive_int("num_classes", num_classes)
        if isinstance(alpha, bool | str) or not (alpha > 0 and math.isfinite(alpha)):
            raise UsageError(f"alpha: expected a number above 0; got {alpha!r}")
        block = PyramidBottleneck if bottleneck else PyramidBasicBlock
        n_blocks = 3 * blocks_per_stage
        widths = [round(FIRST_CHANNELS + alpha * i / n_blocks) for i in range(1, n_blocks + 1)]
        channels = [FIRST_CHANNELS, *(block.EXPANSION * width for width in widths)]
        self.conv1 = conv3x3(3, FIRST_CHANNELS)
        self.bn1 = nn.BatchNorm2d(FIRST_CHANNELS)

        def stage(number: int) -> Iterator[nn.Module]:
            first = number * blocks_per_stage
            for i in range(first, first + blocks_per_stage):
                yield block(channels[i], widths[i], stride=2 if i == first and number else 1)

        self.stage1, self.stage2, self.stage3 = (nn.Sequential(*stage(i)) for i in range(3))
        self.bn_final = nn.BatchNorm2d(channels[-1])
        self.relu_final = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels[-1], num_classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images.

        Args:
            x: Normalised images of shape ``(N, 3, H, W)``; any size of map will do.

        Returns:
            Class scores (logits) of shape ``(N, num_classes)``.
        """
        x = self.bn1(self.conv1(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        x = self.relu_final(self.bn_final(x))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def pyramidnet(
    depth: int, alpha: float, bottleneck: bool = False, num_classes: int = 10
) -> PyramidNet:
    """Build the additive PyramidNet with ``depth`` weighted layers.

    Args:
        depth: ``6 n + 2``, or ``9 n + 2`` with bottlenecks, with ``n`` at least 1.
        alpha: By how much the width grows, above 0.
        bottleneck: Blocks of three convolutions instead of two.
        num_classes: Number of classes, at least 1.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> net = pyramidnet(20, 48)
        >>> [stage[-1].conv2.out_channels for stage in (net.stage1, net.stage2, net.stage3)]
        [32, 48, 64]
    """
    per_block = 9 if bottleneck else 6
    return PyramidNet(blocks_of(depth, per_block, 2), alpha, bottleneck, num_classes)


def pyramidnet_110_84(num_classes: int = 10) -> PyramidNet:
    """Build the network of 110 layers with alpha 84, 3.91 million parameters at 100 classes.

    Args:
        num_classes: Number of classes, at least 1.

    Raises:
        UsageError: The number of classes is out of range.

    Example:
        >>> sum(weight.numel() for weight in pyramidnet_110_84(num_classes=100).parameters())
        3913536
    """
    return pyramidnet(110, 84, num_classes=num_classes)


def pyramidnet_200_240(num_classes: int = 10) -> PyramidNet:
    """Build the network of 200 layers with bottlenecks and alpha 240, 26.8 million parameters.

    Args:
        num_classes: Number of classes, at least 1.

    Raises:
        UsageError: The number of classes is out of range.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     net = pyramidnet_200_240(num_classes=100)
        >>> sum(weight.numel() for weight in net.parameters())
        26844952
    """
    return pyramidnet(200, 240, bottleneck=True, num_classes=num_classes)

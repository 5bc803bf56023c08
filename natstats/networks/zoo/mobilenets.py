"""The first MobileNet: depthwise separable convolutions.

A 3 x 3 convolution with stride 2, then thirteen blocks, each a depthwise 3 x 3 convolution (every
channel on its own) and a pointwise 1 x 1 convolution across channels, with batch normalisation and
ReLU after every one, the mean over the map, and a linear layer. The map is halved five times.

Reference:
    A. G. Howard, M. Zhu, B. Chen, D. Kalenichenko, W. Wang, T. Weyand, M. Andreetto and H. Adam,
    "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017,
    arXiv 1704.04861, table 1.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from natstats import checks
from natstats.errors import UsageError
from natstats.networks.zoo.parts import conv3x3, draw_weights

__all__ = ["MobileNetV1", "SeparableBlock", "mobilenet_v1"]

FIRST_CHANNELS = 32

BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1), (512, 1), (512, 1),
    (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Channels and stride of each block, table 1 of the paper. Its last block is said there to have
stride 2, but keeps 7 x 7 pixels, so the stride is 1."""

LEAST_CHANNELS = 8


class SeparableBlock(nn.Module):
    """A depthwise and a pointwise convolution, each with batch normalisation and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the depthwise convolution.

    Example:
        >>> import torch
        >>> SeparableBlock(16, 32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Maps of shape ``(N, in_channels, H, W)``.

        Returns:
            Maps of shape ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.
        """
        x = self.relu1(self.bn1(self.depthwise(x)))
        out: Tensor = self.relu2(self.bn2(self.pointwise(x)))
        return out


class MobileNetV1(nn.Module):
    """The first MobileNet; build it with :func:`mobilenet_v1`.

    Args:
        num_classes: Outputs of the linear layer, at least 1.
        width: Factor on every number of channels, above 0.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> import torch
        >>> net = MobileNetV1(num_classes=10, width=0.25).eval()
        >>> net(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(self, num_classes: int = 1000, width: float = 1.0) -> None:
        super().__init__()
        checks.positive_int("num_classes", num_classes)
        if isinstance(width, bool | str) or not (width > 0 and math.isfinite(width)):
            raise UsageError(f"width: expected a number above 0; got {width!r}")

        def wide(channels: int) -> int:
            return max(int(channels * width), LEAST_CHANNELS)

        n_in = wide(FIRST_CHANNELS)
        self.conv1 = conv3x3(3, n_in, stride=2)
        self.bn1 = nn.BatchNorm2d(n_in)
        self.relu1 = nn.ReLU()
        blocks = []
        for channels, stride in BLOCKS:
            blocks.append(SeparableBlock(n_in, wide(channels), stride))
            n_in = wide(channels)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(n_in, num_classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images.

        Args:
            x: Normalised images of shape ``(N, 3, H, W)``; the paper has 224 x 224.

        Returns:
            Class scores (logits) of shape ``(N, num_classes)``.
        """
        x = self.blocks(self.relu1(self.bn1(self.conv1(x))))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def mobilenet_v1(num_classes: int = 1000, width: float = 1.0) -> MobileNetV1:
    """Build the first MobileNet, 4.2 million parameters at 1000 classes.

    Args:
        num_classes: Number of classes, at least 1.
        width: The width multiplier, above 0; the paper has 1, 0.75, 0.5 and 0.25. No layer gets
            fewer than 8 channels.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> sum(weight.numel() for weight in mobilenet_v1().parameters())
        4231976
    """
    return MobileNetV1(num_classes, width)

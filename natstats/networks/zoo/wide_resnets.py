"""Wide residual networks for small images, WRN-d-k.

A network has one 3 x 3 convolution with 16 channels and three stages of ``n`` blocks with
``16 k``, ``32 k`` and ``64 k`` channels; the second and the third start by halving the map. A block
normalises and rectifies before each of its two 3 x 3 convolutions (pre-activation), so what a stage
returns is a plain sum; the last batch normalisation and ReLU follow the third stage. The depth in
the name is ``d = 6 n + 4``: the first convolution, those of the blocks, and the three 1 x 1
convolutions on the shortcuts (two where ``k`` is 1), the linear layer not counted.

Where a block changes the number of channels, its first batch normalisation and ReLU serve the
shortcut as well as the residual branch; elsewhere the shortcut is what came in.

Reference:
    S. Zagoruyko and N. Komodakis, "Wide Residual Networks", British Machine Vision Conference
    (BMVC), 2016, arXiv 1605.07146.
"""

from __future__ import annotations

from torch import Tensor, nn

from natstats import checks
from natstats.errors import UsageError
from natstats.networks.zoo.parts import blocks_of, conv3x3, draw_weights

__all__ = ["WideBlock", "WideResNet", "wide_resnet"]


class WideBlock(nn.Module):
    """Two pre-activated 3 x 3 convolutions, added to a shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Of the first convolution and the shortcut; above 1 only where channels change.
        dropout: Probability of dropping a value between the convolutions.

    Raises:
        UsageError: A stride that the shortcut could not follow.

    Example:
        >>> import torch
        >>> WideBlock(16, 32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if stride != 1 and in_channels == out_channels:
            raise UsageError(
                f"stride: expected 1 where the number of channels stays {in_channels}; got {stride}"
            )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.dropout: nn.Module = nn.Dropout(dropout) if dropout else nn.Identity()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.changes_channels = in_channels != out_channels
        self.shortcut: nn.Module = nn.Identity()
        if self.changes_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Maps of shape ``(N, in_channels, H, W)``.

        Returns:
            Maps of shape ``(N, out_channels, ceil(H / stride), ceil(W / stride))``.
        """
        active = self.relu1(self.bn1(x))
        residual = self.relu2(self.bn2(self.conv1(active)))
        residual = self.conv2(self.dropout(residual))
        out: Tensor = residual + self.shortcut(active if self.changes_channels else x)
        return out


class WideResNet(nn.Module):
    """A wide residual network; build it with :func:`wide_resnet`.

    Args:
        blocks_per_stage: The ``n`` of ``d = 6 n + 4``, at least 1.
        widen: The ``k``: how many times the width of the plain network, at least 1.
        num_classes: Outputs of the linear layer, at least 1.
        dropout: Probability of dropping a value inside each block, from 0 to below 1.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> import torch
        >>> net = WideResNet(blocks_per_stage=1, widen=2, num_classes=10).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, blocks_per_stage: int, widen: int, num_classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        checks.positive_int("blocks_per_stage", blocks_per_stage)
        checks.positive_int("widen", widen)
        checks.positive_int("num_classes", num_classes)
        if isinstance(dropout, bool | str) or not 0.0 <= dropout < 1.0:
            raise UsageError(f"dropout: expected a probability from 0 to below 1; got {dropout!r}")
        narrow, middle, wide = 16 * widen, 32 * widen, 64 * widen
        self.conv1 = conv3x3(3, 16)
        self.stage1 = _stage(16, narrow, blocks_per_stage, 1, dropout)
        self.stage2 = _stage(narrow, middle, blocks_per_stage, 2, dropout)
        self.stage3 = _stage(middle, wide, blocks_per_stage, 2, dropout)
        self.bn1 = nn.BatchNorm2d(wide)
        self.relu1 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(wide, num_classes)
        draw_weights(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Classify a batch of images.

        Args:
            x: Normalised images of shape ``(N, 3, H, W)``; any size of map will do.

        Returns:
            Class scores (logits) of shape ``(N, num_classes)``.
        """
        x = self.stage3(self.stage2(self.stage1(self.conv1(x))))
        x = self.relu1(self.bn1(x))
        scores: Tensor = self.fc(self.pool(x).flatten(1))
        return scores


def _stage(
    in_channels: int, out_channels: int, blocks: int, stride: int, dropout: float
) -> nn.Sequential:
    """Chain ``blocks`` blocks, of which only the first changes the shape."""
    first = WideBlock(in_channels, out_channels, stride, dropout)
    rest = (WideBlock(out_channels, out_channels, 1, dropout) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def wide_resnet(depth: int, widen: int, num_classes: int = 10, dropout: float = 0.0) -> WideResNet:
    """Build WRN-``depth``-``widen``; by name, WRN-16-2 is ``wrn_16_2``.

    Args:
        depth: ``6 n + 4`` with ``n`` at least 1.
        widen: ``k``, at least 1.
        num_classes: Number of classes, at least 1.
        dropout: Probability of dropping a value inside each block; the paper takes 0 or 0.3.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        UsageError: One of the arguments is out of range.

    Example:
        >>> sum(weight.numel() for weight in wide_resnet(16, 2, num_classes=100).parameters())
        703284
        >>> wide_resnet(18, 2)
        Traceback (most recent call last):
        natstats.errors.UsageError: depth: expected 6 n + 4 with n at least 1 (10, 16, ...); got 18
    """
    return WideResNet(blocks_of(depth, 6, 4), widen, num_classes, dropout)

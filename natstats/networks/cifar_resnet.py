"""The residual networks that He et al. (2016) trained on CIFAR-10.

A network of this family has ``6 n + 2`` weighted layers: one 3 x 3 convolution, three stages of
``n`` blocks with two 3 x 3 convolutions each, and one linear layer. The stages have 16, 32 and 64
channels; the second and the third start by halving the map. Where a block changes the shape, its
shortcut has no parameters (option A of the paper): it keeps every second pixel and appends
channels of zeros.

No module is used twice and no activation works in place, so a forward hook on any module sees
exactly one output per pass, and nothing changes that output afterwards.

Reference:
    K. He, X. Zhang, S. Ren and J. Sun, "Deep Residual Learning for Image Recognition", IEEE
    Conference on Computer Vision and Pattern Recognition (CVPR), 2016, section 4.2.
"""

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["BasicBlock", "CifarResNet", "PadShortcut", "cifar_resnet", "cifar_resnet20"]

STAGE_CHANNELS = (16, 32, 64)


class PadShortcut(nn.Module):
    """Shortcut without parameters: subsample the map and append channels of zeros.

    Args:
        extra_channels: How many channels of zeros to append, 0 or more.
        stride: Keep every ``stride``-th row and column.

    Example:
        >>> import torch
        >>> PadShortcut(extra_channels=16, stride=2)(torch.ones(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, extra_channels: int, stride: int) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad.

        Args:
            x: Maps of shape ``(N, C, H, W)``.

        Returns:
            Maps of shape ``(N, C + extra_channels, ceil(H / stride), ceil(W / stride))``.
        """
        kept = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(kept, (0, 0, 0, 0, 0, self.extra_channels))

    def extra_repr(self) -> str:
        """Show the two settings when the module is printed."""
        return f"extra_channels={self.extra_channels}, stride={self.stride}"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch normalisation, added to a shortcut.

    ``relu1`` follows the first convolution and ``relu2`` the sum: two modules, so that each
    activation has its own name.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least ``in_channels``.
        stride: Stride of the first convolution and of the shortcut.

    Raises:
        ValueError: If ``out_channels`` is smaller than ``in_channels``.

    Example:
        >>> import torch
        >>> BasicBlock(16, 32, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(
                f"out_channels must be at least in_channels ({in_channels}), got {out_channels}"
            )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or out_channels != in_channels:
            self.shortcut = PadShortcut(out_channels - in_channels, stride)
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

    Raises:
        ValueError: If one of the arguments is smaller than 1.

    Example:
        >>> import torch
        >>> net = CifarResNet(blocks_per_stage=1, num_classes=10).eval()
        >>> net(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(self, blocks_per_stage: int, num_classes: int = 10) -> None:
        super().__init__()
        if blocks_per_stage < 1:
            raise ValueError(f"blocks_per_stage must be at least 1, got {blocks_per_stage}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        narrow, middle, wide = STAGE_CHANNELS
        self.conv1 = nn.Conv2d(3, narrow, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.relu1 = nn.ReLU()
        self.stage1 = _stage(narrow, narrow, blocks_per_stage, stride=1)
        self.stage2 = _stage(narrow, middle, blocks_per_stage, stride=2)
        self.stage3 = _stage(middle, wide, blocks_per_stage, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(wide, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

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


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    """Chain ``blocks`` blocks, of which only the first changes the shape."""
    first = BasicBlock(in_channels, out_channels, stride)
    rest = (BasicBlock(out_channels, out_channels) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def cifar_resnet(depth: int, num_classes: int = 10) -> CifarResNet:
    """Build the CIFAR residual network with ``depth`` weighted layers.

    The published depths are 20, 32, 44, 56 and 110, with 0.27, 0.46, 0.66, 0.85 and 1.7 million
    parameters.

    Args:
        depth: Number of weighted layers: ``6 n + 2`` with ``n`` at least 1.
        num_classes: Number of classes, at least 1.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        ValueError: If ``depth`` is not of that form or ``num_classes`` is smaller than 1.

    Example:
        >>> sum(weight.numel() for weight in cifar_resnet(56).parameters())
        853018
        >>> cifar_resnet(18)
        Traceback (most recent call last):
        ...
        ValueError: depth must be 6 n + 2 with n at least 1 (8, 14, 20, 26, 32, ...), got 18
    """
    if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6 != 0:
        raise ValueError(
            f"depth must be 6 n + 2 with n at least 1 (8, 14, 20, 26, 32, ...), got {depth!r}"
        )
    return CifarResNet((depth - 2) // 6, num_classes)


def cifar_resnet20(num_classes: int = 10) -> CifarResNet:
    """Build the 20-layer CIFAR residual network, 0.27 million parameters.

    Args:
        num_classes: Number of classes, at least 1.

    Returns:
        The network with freshly initialised weights, in training mode. It maps images of shape
        ``(N, 3, H, W)`` to scores of shape ``(N, num_classes)``.

    Raises:
        ValueError: If ``num_classes`` is smaller than 1.

    Example:
        >>> net = cifar_resnet20(num_classes=10)
        >>> sum(weight.numel() for weight in net.parameters())
        269722
    """
    return cifar_resnet(20, num_classes)

"""What several families of networks are made of: shortcuts, initial weights, checked arguments."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from natstats import checks
from natstats.errors import UsageError

__all__ = ["PadShortcut", "blocks_of", "conv3x3", "conv_shortcut", "draw_weights"]


class PadShortcut(nn.Module):
    """Shortcut without parameters: subsample the map and add channels of zeros.

    Args:
        extra_channels: How many channels of zeros to add, 0 or more.
        stride: Keep every ``stride``-th row and column.
        in_front: How many of them come before the others; the rest comes behind.

    Example:
        >>> import torch
        >>> PadShortcut(extra_channels=16, stride=2)(torch.ones(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, extra_channels: int, stride: int, in_front: int = 0) -> None:
        super().__init__()
        self.extra_channels = extra_channels
        self.stride = stride
        self.in_front = in_front

    def forward(self, x: Tensor) -> Tensor:
        """Subsample and pad.

        Args:
            x: Maps of shape ``(N, C, H, W)``.

        Returns:
            Maps of shape ``(N, C + extra_channels, ceil(H / stride), ceil(W / stride))``.
        """
        kept = x[:, :, :: self.stride, :: self.stride]
        behind = self.extra_channels - self.in_front
        return functional.pad(kept, (0, 0, 0, 0, self.in_front, behind))

    def extra_repr(self) -> str:
        """Show the settings when the module is printed."""
        front = f", in_front={self.in_front}" if self.in_front else ""
        return f"extra_channels={self.extra_channels}, stride={self.stride}{front}"


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3 x 3 convolution without bias that keeps the map, or halves it with stride 2.

    >>> conv3x3(3, 16).weight.shape
    torch.Size([16, 3, 3, 3])
    """
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Shortcut with parameters: a 1 x 1 convolution without bias, batch-normalised.

    >>> [name for name, _ in conv_shortcut(16, 32, 2).named_children()]
    ['conv', 'bn']
    """
    conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels)))


def draw_weights(model: nn.Module) -> None:
    """Draw the convolutions of a new network as He et al. (2015) do; the rest stays torch's.

    Normal with variance 2 / (k^2 C_out), which keeps the size of gradients through ReLUs.

    >>> conv = nn.Conv2d(8, 8, 3)
    >>> draw_weights(conv)
    >>> bool(0.1 < conv.weight.std() < 0.25)
    True
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def blocks_of(depth: Any, per_block: int, rest: int) -> int:
    """How many blocks each of three stages has in a network of `depth` weight layers.

    Args:
        depth: ``per_block n + rest`` with ``n`` at least 1.
        per_block: weight layers that one more block in every stage adds.
        rest: weight layers outside of the blocks.

    Raises:
        UsageError: `depth` is not of that form.

    >>> blocks_of(20, 6, 2)
    3
    >>> blocks_of(18, 6, 2)
    Traceback (most recent call last):
    natstats.errors.UsageError: depth: expected 6 n + 2 with n at least 1 (8, 14, ...); got 18
    """
    try:
        n, left = divmod(checks.positive_int("depth", depth) - rest, per_block)
    except UsageError:
        n, left = 0, 0
    if n < 1 or left:
        few = ", ".join(str(per_block * n + rest) for n in (1, 2))
        raise UsageError(
            f"depth: expected {per_block} n + {rest} with n at least 1 ({few}, ...); got {depth!r}"
        )
    return n

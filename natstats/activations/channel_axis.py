"""Which axis of a module's output holds the channels, as far as the type of the module says so."""

from __future__ import annotations

from torch import nn

from natstats.activations.selection import is_like_a_convolution, module_kind

__all__ = ["channels_are_last"]

_CHANNELS_LAST = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_CHANNELS_FIRST = ("pooling", "batchnorm", "instancenorm", "upsampling", "padding", "pixelshuffle")


def channels_are_last(module: nn.Module) -> bool | None:
    """Whether a module has the channels on the last axis of its output; None when it may be either.

    >>> [channels_are_last(m) for m in (nn.Conv2d(1, 1, 1), nn.Linear(1, 1), nn.ReLU())]
    [False, True, None]
    """
    kind = module_kind(module)
    # Subclasses of LayerNorm that permute to channels first are common.
    if type(module) is nn.LayerNorm or isinstance(module, _CHANNELS_LAST) or kind == "linear":
        return True
    conv = isinstance(module, nn.modules.conv._ConvNd) or is_like_a_convolution(module)
    if conv or kind in ("conv", "depthwise", "pointwise") or isinstance(module, nn.GroupNorm):
        return False
    home = type(module).__module__.rpartition(".")[2]
    return False if home in _CHANNELS_FIRST else None

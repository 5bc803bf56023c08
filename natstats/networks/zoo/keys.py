"""Renaming the keys of checkpoints that other code made for the same networks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from natstats.networks.zoo.cifar_resnets import CifarResNet
from natstats.networks.zoo.mobilenets import MobileNetV1
from natstats.networks.zoo.pyramidnets import PyramidNet
from natstats.networks.zoo.wide_resnets import WideResNet
from natstats.numbers import counted

__all__ = ["with_our_keys"]

_START = r"(?:^|(?<=\.))"


def _rule(pattern: str, ours: str) -> tuple[re.Pattern[str], str]:
    return re.compile(_START + pattern), ours


_LAYERS = _rule(r"layer([123])\.(?=\d)", r"stage\1.")

_RULES: dict[type[nn.Module], tuple[tuple[re.Pattern[str], str], ...]] = {
    # RepDistiller, mdistiller, Overhaul.
    CifarResNet: (
        _LAYERS,
        _rule(r"downsample\.0\.", "shortcut.conv."),
        _rule(r"downsample\.1\.", "shortcut.bn."),
    ),
    WideResNet: (
        _rule(r"block([123])\.layer\.(?=\d)", r"stage\1."),
        _rule(r"convShortcut\.", "shortcut."),
    ),
    # PyramidNet-PyTorch, Overhaul.
    PyramidNet: (_LAYERS,),
    # Overhaul, mdistiller: one sequence, the first convolution in front of the blocks.
    MobileNetV1: (
        _rule(r"model\.0\.0\.", "conv1."),
        _rule(r"model\.0\.1\.", "bn1."),
        *(
            _rule(rf"model\.{block + 1}\.{place}\.", f"blocks.{block}.{part}.")
            for block in range(13)
            for place, part in ((0, "depthwise"), (1, "bn1"), (3, "pointwise"), (4, "bn2"))
        ),
    ),
}


def with_our_keys(
    model: nn.Module, state: Mapping[str, Any]
) -> tuple[Mapping[str, Any], tuple[str, ...]]:
    """Bring the keys of a state dict from the common public code to those of our networks.

    Keys that are ours already stay, as does every state dict for another network.

    Args:
        model: the network that is to take the weights.
        state: weights by key; names of wrappers may stand in front.

    Returns:
        The state dict, and a note where keys were renamed.

    >>> from natstats.networks.zoo.wide_resnets import wide_resnet
    >>> state = {"module.block2.layer.0.convShortcut.weight": None, "fc.bias": None}
    >>> list(with_our_keys(wide_resnet(10, 1), state)[0])
    ['module.stage2.0.shortcut.weight', 'fc.bias']
    """
    rules = _RULES.get(type(model), ())
    renamed = {}
    for key, value in state.items():
        ours = key
        for pattern, replacement in rules:
            ours = pattern.sub(replacement, ours)
        renamed[ours] = value
    if renamed.keys() == state.keys() or len(renamed) < len(state):
        return state, ()
    n_other = sum(key not in renamed for key in state)
    return renamed, (
        f"{counted(n_other, 'key of the checkpoint was', 'keys of the checkpoint were')} "
        "brought from other code's to ours",
    )

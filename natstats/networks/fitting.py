"""Fitting a builder to a checkpoint: classes, size of images, keys; or what the file looks like."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from natstats.networks.builders import Builder, Classifier, recognised
from natstats.networks.matching import mismatch
from natstats.networks.state_keys import Located, shape_of

__all__ = ["SIDES", "converted", "looks_like", "side_of", "with_classes", "with_side"]

SIDES = ("image_size", "img_size", "input_size", "spatial_size")
"""Arguments of constructors that say at what size images enter: a side, or height and width."""

_PREFIXES = range(9)
"""How many tokens that are no patches, such as a class token, a table of positions may have."""


def with_classes(
    builder: Builder, model: nn.Module, state: Mapping[str, Any], classifier: Classifier, seed: int
) -> tuple[Builder, nn.Module]:
    """Builder and network with the number of classes of a state dict, where that is an argument."""
    n_classes = classifier.n_classes(state)
    own = model.state_dict()
    if n_classes in (None, classifier.n_classes(own)) or not builder.takes_classes():
        return builder, model
    other = builder.with_arguments(num_classes=n_classes)
    fitting = other.build(seed)
    # If this does not help, what was counted were not classes.
    if len(mismatch(state, fitting.state_dict()).shapes) >= len(mismatch(state, own).shapes):
        return builder, model
    return other, fitting


def side_of(arguments: Mapping[str, Any]) -> int | None:
    """The side at which images enter as the arguments of a constructor say; None if they do not.

    >>> side_of({"image_size": 384}), side_of({"img_size": [96, 96]}), side_of({"depth": 3})
    (384, 96, None)
    """
    for name in SIDES:
        value = arguments.get(name)
        if isinstance(value, tuple | list) and len(value) in (2, 3):
            value = value[-1] if value[-1] == value[-2] else None
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def with_side(
    builder: Builder, model: nn.Module, state: Mapping[str, Any], seed: int
) -> tuple[Builder, nn.Module]:
    """Builder and network for the size of images that a state dict's table of positions has."""
    own = model.state_dict()
    wrong = mismatch(state, own).shapes
    if any(one in builder.arguments for one in SIDES):
        return builder, model
    for key in wrong:
        for side in _sides(shape_of(state[key]), shape_of(own[key]), _own_side(model)):
            for name in SIDES[:2]:
                other = builder.with_arguments(**{name: side})
                shapes = other.shapes()
                left = [k for k in wrong if shapes.get(k) != shape_of(state[k])]
                if shapes and key not in left and len(left) < len(wrong):
                    return other, other.build(seed)
    return builder, model


def _own_side(model: nn.Module) -> int:
    embedding = getattr(model, "patch_embed", None)
    for holder, name in ((model, "image_size"), (embedding, "img_size")):
        side = side_of({"image_size": getattr(holder, name, None)})
        if side is not None:
            return side
    return 224


def _sides(theirs: Any, ours: Any, side: int) -> Iterator[int]:
    """Sides of images for which our table (1, tokens, C) would have as many tokens as theirs."""
    if not (
        isinstance(theirs, tuple) and isinstance(ours, tuple) and len(theirs) == len(ours) == 3
    ):
        return
    if theirs[0] != ours[0] or theirs[2] != ours[2]:
        return
    for prefix in _PREFIXES:
        new, old = (math.isqrt(max(n - prefix, 0)) for n in (theirs[1], ours[1]))
        is_square = new**2 + prefix == theirs[1] and old**2 + prefix == ours[1]
        if is_square and old and new and side * new % old == 0:
            yield side * new // old


def converted(builder: Builder, model: nn.Module, found: Located) -> Located:
    """The weights with keys of other code converted by the network's library, where that helps."""
    own = model.state_dict()
    before = mismatch(found.state, own)
    if builder.convert is None or not before:
        return found
    try:
        state = dict(builder.convert(dict(found.state), model))
    except Exception:  # of code that expects another file than this one
        return found
    after = mismatch(state, own)
    sizes = [sum(map(len, (one.missing, one.unknown, one.shapes))) for one in (before, after)]
    if sizes[1] >= sizes[0] or not {*after.missing} <= {*before.missing}:
        return found
    note = "the keys of the checkpoint were brought to the network's by its library"
    return replace(found, state=state, notes=(*found.notes, note))


def looks_like(builder: Builder, state: Mapping[str, Any]) -> str:
    """A hint at which network a state dict is of; empty where that cannot be told."""
    if builder.fixed.get("quantize") and not any("scale" in key for key in state):
        return (
            "the file has weights that are not quantised, which "
            f"{builder.name.removeprefix('quantized_')} takes"
        )
    if any(key.endswith("shortcut.conv.weight") for key in state) and (
        builder.arguments.get("shortcut") != "conv" and "shortcut" in builder.accepted()
    ):
        return "the file has convolutions on the shortcuts, so try --model-arg shortcut=conv"
    names = [name for name in recognised(state, builder.name) if name != builder.name]
    if not names and not builder.name.startswith("timm:"):
        names = _transformers(state)
    return f"this looks like {' or '.join(names[:3])}" if names else ""


_WIDTHS = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge"}


def _transformers(state: Mapping[str, Any]) -> list[str]:
    """Names of timm's vision transformers with keys like these."""
    for key, value in state.items():
        shape = shape_of(value)
        if re.search(r"(^|\.)patch_embed\.proj\.weight$", key) and shape and len(shape) == 4:
            start = key.removesuffix("patch_embed.proj.weight")
            if f"{start}pos_embed" in state and f"{start}blocks.0.attn.qkv.weight" in state:
                size = _WIDTHS.get(shape[0], "*")
                return [f"timm:vit_{size}_patch{shape[-1]}_*, which `natstats models --timm` lists"]
    return []

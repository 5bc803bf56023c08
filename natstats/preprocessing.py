"""What a network expects of a photograph, and where it says so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from natstats.framing import Framing, reframed

__all__ = ["NORMALISED", "Preprocessing", "configured", "of_published", "recorded"]

NORMALISED = "photographs are normalised as for ImageNet, for want of a word on it"
"""The note on a network that does not say what it expects; arrays are taken as they are."""

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of a photograph.

    Attributes:
        framing: scaling and cutting.
        mean: subtracted from each channel in [0, 1].
        std: that each channel is divided by then.
    """

    framing: Framing = field(default_factory=lambda: Framing(224, 256))
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def normalize(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) or clips in [0, 1] as the network expects them."""
        shape = (1, -1, *[1] * (images.ndim - 2))
        mean = images.new_tensor(self.mean).view(shape)
        return (images - mean) / images.new_tensor(self.std).view(shape)

    def at_size(self, size: int) -> Preprocessing:
        """The same with images of another side, scaled beforehand in the same proportion.

        Raises:
            UsageError: `size` is too small.

        >>> Preprocessing().at_size(112).framing
        Framing(size=112, resize=128, interpolation='bilinear')
        """
        framing = reframed(self.framing, size, None)
        assert framing is not None
        return replace(self, framing=framing)


def recorded(metadata: Mapping[str, str]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std that a file of weights says it was trained with, three numbers each.

    >>> recorded({"mean": "0.5,0.4,0.3", "std": "0.25, 0.25, 0.25"})
    ((0.5, 0.4, 0.3), (0.25, 0.25, 0.25))
    >>> recorded({"mean": "grey"}) is None
    True
    """
    try:
        mean, std = (
            tuple(float(part) for part in metadata[key].split(",")) for key in ("mean", "std")
        )
    except (KeyError, ValueError):
        return None
    fits = len(mean) == len(std) == 3 and min(std) > 0 and all(map(math.isfinite, (*mean, *std)))
    return (mean, std) if fits else None


def of_published(entry: Any) -> Preprocessing:
    """What an entry of torchvision's published weights was trained with."""
    preset = entry.transforms()
    crop, resize = (getattr(preset, key, None) for key in ("crop_size", "resize_size"))
    sides = [side[0] for side in (crop, resize) if isinstance(side, list)]
    fallback = Preprocessing()
    framing = (
        Framing(min(sides), max(sides), preset.interpolation.value) if sides else fallback.framing
    )
    plain = {  # what the presets of these do in code, and detectors in the model
        "OpticalFlow": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "ObjectDetection": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }.get(type(preset).__name__, (fallback.mean, fallback.std))
    mean, std = (
        tuple(getattr(preset, key, plain[place])) for place, key in enumerate(("mean", "std"))
    )
    return Preprocessing(framing, mean, std)


def configured(model: nn.Module) -> Preprocessing | None:
    """What a network says in its ``pretrained_cfg``, as timm's do; None where it says nothing.

    >>> model = nn.Conv2d(3, 8, 3)
    >>> model.pretrained_cfg = {"input_size": (3, 160, 160), "crop_pct": 0.8, "mean": (0.5,) * 3}
    >>> configured(model).framing
    Framing(size=160, resize=200, interpolation='bilinear')
    """
    config: Any = None
    for name in ("pretrained_cfg", "default_cfg"):
        config = config or getattr(model, name, None)
    if not isinstance(config, Mapping):
        return None
    plain = Preprocessing()
    try:
        shape = config.get("input_size") or (3, plain.framing.size, plain.framing.size)
        size = min(int(side) for side in tuple(shape)[-2:])
        resize = max(size, int(size / float(config.get("crop_pct") or 1)))
        interpolation = config.get("interpolation")
        framing = Framing(
            size, resize, interpolation if interpolation in _INTERPOLATIONS else "bilinear"
        )
        mean, std = (
            tuple(float(part) for part in config.get(key) or other)
            for key, other in (("mean", plain.mean), ("std", plain.std))
        )
    except (TypeError, ValueError):  # what only looks like such a description
        return None
    return Preprocessing(framing, mean, std)

"""What a network expects of a photograph, and where it says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from natstats.images.framing import Framing, reframed

__all__ = [
    "GREY",
    "LUMA",
    "NORMALISED",
    "Preprocessing",
    "configured",
    "is_known",
    "of_published",
    "recorded",
    "spoken",
    "takes_grey",
]

NORMALISED = "no normalisation of photographs is recorded; ImageNet's is used"
"""The note on a network that does not say what it expects; arrays are taken as they are."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), applied to the pixel values as stored."""

GREY = "the network takes one channel: photographs enter in grey, 0.299 R + 0.587 G + 0.114 B, "
"""How the note on a network with one channel begins."""

_INTERPOLATIONS = ("bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of a photograph.

    Attributes:
        framing: how photographs are scaled and cut.
        mean: subtracted from each channel in [0, 1]; a single number for a network that takes one
            channel, which is given photographs in grey.
        std: divides each channel after that.
    """

    framing: Framing = field(default_factory=lambda: Framing(224, 256))
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def normalize(self, images: Tensor) -> Tensor:
        """Bring the pixels of images (N, C, H, W) or clips in [0, 1] to what the network expects.

        >>> import torch
        >>> grey = Preprocessing(mean=(0.0,), std=(1.0,))
        >>> grey.normalize(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 1, 8, 8])
        """
        if len(self.mean) == 1 and images.shape[1] == 3:
            weights = images.new_tensor(LUMA).view(1, 3, *[1] * (images.ndim - 2))
            images = (images * weights).sum(1, keepdim=True)
        shape = (1, -1, *[1] * (images.ndim - 2))
        mean = images.new_tensor(self.mean).view(shape)
        return (images - mean) / images.new_tensor(self.std).view(shape)

    def in_grey(self) -> Preprocessing:
        """The same for a network with one channel: mean and std of the channels, weighted as grey.

        >>> round(Preprocessing().in_grey().mean[0], 3)
        0.459
        """
        mean, std = (
            (sum(w * v for w, v in zip(LUMA, values, strict=True)),) if len(values) == 3 else values
            for values in (self.mean, self.std)
        )
        return replace(self, mean=mean, std=std)

    def notes(self, is_known: bool) -> tuple[str, ...]:
        """Note on how photographs enter a network that takes grey; empty for one that takes RGB.

        Args:
            is_known: whether their normalisation is known.
        """
        if len(self.mean) != 1:
            return ()
        how = "normalised by the mean and std of the channels, weighted alike"
        return (GREY + (how if is_known else "in [0, 1], as no normalisation is recorded"),)

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
    """Mean and std that a file of weights says it was trained with, a number for each channel.

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
    fits = (
        len(mean) == len(std)
        and len(mean) in (1, 3)
        and min(std) > 0
        and all(map(math.isfinite, (*mean, *std)))
    )
    return (mean, std) if fits else None


def spoken(notes: Sequence[str], is_photographs: bool, is_normalised: bool) -> list[str]:
    """Those of a network's notes that apply to what was measured.

    Args:
        notes: the network's notes.
        is_photographs: whether photographs were measured, or an array that is taken as it is.
        is_normalised: whether the pixels of photographs were normalised.

    >>> spoken(["be careful", NORMALISED], is_photographs=False, is_normalised=True)
    ['be careful']
    """
    found = []
    for note in notes:
        if note == NORMALISED and not (is_photographs and is_normalised):
            continue
        if note.startswith(GREY) and not is_photographs:
            continue
        plain = note.startswith(GREY) and not is_normalised
        found.append(f"{GREY}in [0, 1], as was asked for" if plain else note)
    return found


def of_published(entry: Any) -> Preprocessing:
    """The preprocessing with which an entry of torchvision's published weights was trained."""
    preset = entry.transforms()
    crop, resize = (getattr(preset, key, None) for key in ("crop_size", "resize_size"))
    sides = [side[0] for side in (crop, resize) if isinstance(side, list)]
    fallback = Preprocessing()
    framing = (
        Framing(min(sides), max(sides), preset.interpolation.value) if sides else fallback.framing
    )
    plain = {  # what is written in the code of these presets, or in the detector
        "OpticalFlow": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "ObjectDetection": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }.get(type(preset).__name__, (fallback.mean, fallback.std))
    mean, std = (
        tuple(getattr(preset, key, plain[place])) for place, key in enumerate(("mean", "std"))
    )
    return Preprocessing(framing, mean, std)


def takes_grey(model: nn.Module) -> bool:
    """Whether a network takes images of one channel, as its convolutions say.

    That is so where the first takes one channel and no other takes three.

    >>> takes_grey(nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)))
    True
    """
    taken = [
        part.in_channels for part in model.modules() if isinstance(part, nn.modules.conv._ConvNd)
    ]
    return bool(taken) and taken[0] == 1 and 3 not in taken


def _config(model: nn.Module) -> Mapping[str, Any] | None:
    config: Any = None
    for name in ("pretrained_cfg", "default_cfg"):
        config = config or getattr(model, name, None)
    return config if isinstance(config, Mapping) else None


def is_known(model: nn.Module) -> bool:
    """Whether a network says what photographs are to be normalised with."""
    return bool((_config(model) or {}).get("mean"))


def configured(model: nn.Module) -> Preprocessing | None:
    """What a network says in its ``pretrained_cfg``, as timm's do; None where it says nothing.

    A network that takes one channel shows that by its convolutions, and is given grey in [0, 1].

    >>> model = nn.Conv2d(3, 8, 3)
    >>> model.pretrained_cfg = {"input_size": (3, 160, 160), "crop_pct": 0.8, "mean": (0.5,) * 3}
    >>> configured(model).framing
    Framing(size=160, resize=200, interpolation='bilinear')
    """
    config = _config(model)
    is_grey = takes_grey(model)
    if config is None:
        return Preprocessing(mean=(0.0,), std=(1.0,)) if is_grey else None
    plain = Preprocessing(mean=(0.0,), std=(1.0,)) if is_grey else Preprocessing()
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
    found = Preprocessing(framing, mean, std)
    return found.in_grey() if is_grey else found

"""In what form a network takes its images: as a batch, as a list, as clips or as pairs."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.images.clips import CLIP_FRAMES
from natstats.networks.load_options import INPUT_FORMS

__all__ = ["INPUT_FORMS", "SHIFT", "arguments", "channels_hint", "stills_note"]

SHIFT = 4
"""Pixels on both axes by which the second frame of a pair made of a single image is moved."""


def stills_note(form: str, images: Tensor) -> list[str]:
    """Note for a reader where a network that takes several frames was given single images.

    >>> stills_note("images", torch.zeros(1, 3, 8, 8))
    []
    """
    if images.ndim != 4:
        return []
    return {
        "clips": [f"the network takes clips; every image was shown {CLIP_FRAMES} times as one"],
        "pairs": [
            "the network takes pairs of frames; the second is the image moved by "
            f"{SHIFT} pixels on both axes"
        ],
    }.get(form, [])


def channels_hint(reason: str) -> str:
    """What to do where a forward pass failed because a network does not take three channels.

    >>> channels_hint("expected input[1, 3, 8, 8] to have 4 channels, but got 3 channels instead")
    '; photographs have three channels: give an array (N, 4, H, W), a .npy or .pt file'
    """
    found = re.search(r"to have (\d+) channels, but got 3 channels", reason)
    if found is None:
        return ""
    grey = (
        ", or for grey photographs a natstats.Network whose preprocessing has a mean of one number"
    )
    return (
        f"; photographs have three channels: give an array (N, {found[1]}, H, W), a .npy or .pt "
        f"file{grey if found[1] == '1' else ''}"
    )


def arguments(form: str, images: Tensor) -> tuple[Any, ...]:
    """Arguments of the forward pass of a network that takes `form`.

    Where a network takes several frames and a single image is given, a clip shows the image
    CLIP_FRAMES times, and a pair shows it before and after a move by SHIFT pixels.

    Args:
        form: one of :data:`INPUT_FORMS`.
        images: (N, C, H, W), or clips (N, C, T, H, W) for a network that takes clips or pairs; of
            a clip, a pair is its first two frames.

    Raises:
        UsageError: no such form, or `images` of another shape.

    >>> [tuple(part.shape) for part in arguments("pairs", torch.zeros(2, 3, 8, 8))]
    [(2, 3, 8, 8), (2, 3, 8, 8)]
    >>> arguments("clips", torch.zeros(2, 3, 8, 8))[0].shape
    torch.Size([2, 3, 16, 8, 8])
    """
    checks.one_of("takes", form, INPUT_FORMS)
    takes_clips = form in ("clips", "pairs")
    if images.ndim != 4 and not (takes_clips and images.ndim == 5):
        raise UsageError(
            f"images: expected (N, C, H, W){' or (N, C, T, H, W)' * takes_clips} for a network "
            f"that takes {form}; got {tuple(images.shape)}"
        )
    if form == "images":
        return (images,)
    if form == "list":
        return (list(images),)
    if form == "clips":
        if images.ndim == 5:
            return (images,)
        return (images[:, :, None].expand(-1, -1, CLIP_FRAMES, -1, -1).contiguous(),)
    if images.ndim == 4:
        edge = torch.nn.functional.pad(images, (SHIFT, 0, SHIFT, 0), mode="replicate")
        return images, edge[..., : images.shape[2], : images.shape[3]].contiguous()
    if images.shape[2] < 2:
        raise UsageError(f"images: expected two frames or more; got {images.shape[2]}")
    return images[:, :, 0].contiguous(), images[:, :, 1].contiguous()

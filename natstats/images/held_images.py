"""Single images in memory: which are photographs, and which are numbers already."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from natstats.errors import NatstatsError
from natstats.text import printable

__all__ = ["EXPECTED", "KEYS", "as_numbers", "as_photograph", "content_of", "image_in", "of_floats"]

KEYS = ("image", "pixel_values")
"""Keys under which a dict may hold an image."""


EXPECTED = (
    "PIL images, arrays or tensors of 8 bits (H, W, 3), (H, W) or (3, H, W), or floats (C, H, W)"
)
"""What single images can be, for errors."""


def image_in(item: Any) -> Any:
    """The image in an item of a data set: the item itself, the first of a tuple, or that of a dict.

    Raises:
        NatstatsError: there is none.

    >>> image_in((np.zeros((8, 8, 3), np.uint8), 4)).shape, image_in({"image": 1, "label": 2})
    ((8, 8, 3), 1)
    """
    if isinstance(item, dict) or (hasattr(item, "keys") and hasattr(item, "__getitem__")):
        for key in KEYS:
            if key in item:
                return item[key]
        keys = ", ".join(printable(str(key)) for key in item)[:80] or "no key"
        raise NatstatsError(f"a dict with {' or '.join(KEYS)} is expected; this one has {keys}")
    if isinstance(item, list | tuple):
        if not item:
            raise NatstatsError("an image and a label are expected; this tuple is empty")
        return item[0]
    return item


def as_photograph(image: Any) -> Image.Image | None:
    """An image of 8 bits as a PIL image; None for floats, which are no photograph.

    The channels of an array are its last axis, unless only the first has 1 or 3 of them; those of a
    tensor are its first axis, unless only the last has.

    Raises:
        NatstatsError: it is no image.

    >>> as_photograph(torch.zeros(3, 8, 6, dtype=torch.uint8)).size
    (6, 8)
    >>> as_photograph(np.zeros((3, 8, 6), np.float32)) is None
    True
    """
    if isinstance(image, Image.Image):
        return image.copy()
    if isinstance(image, Tensor):
        channels_first, values = True, image.detach().cpu()
        if values.is_floating_point():
            return None
        array = values.numpy()
    elif isinstance(image, np.ndarray):
        channels_first, array = False, image
    else:
        raise NatstatsError(f"expected {EXPECTED}; got a {type(image).__name__}")
    if array.dtype.kind == "f":
        return None
    shape = array.shape
    if array.dtype != np.uint8 or len(shape) not in (2, 3):
        raise NatstatsError(f"expected {EXPECTED}; got {array.dtype} of shape {shape}")
    if len(shape) == 3:
        first, last = shape[0] in (1, 3), shape[-1] in (1, 3)
        if not (first or last):
            raise NatstatsError(f"expected {EXPECTED}; got {array.dtype} of shape {shape}")
        if first and (channels_first or not last):
            array = np.moveaxis(array, 0, -1)
        array = array[..., 0] if array.shape[-1] == 1 else array
    return Image.fromarray(np.ascontiguousarray(array))


def as_numbers(image: Any) -> np.ndarray[Any, Any]:
    """An image that is taken as it is, as floats (C, H, W).

    Raises:
        NatstatsError: it is no such array, or its channels seem to be last.

    >>> as_numbers(torch.zeros(3, 8, 6)).shape
    (3, 8, 6)
    """
    if isinstance(image, Tensor):
        values = image.detach().cpu()
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    elif isinstance(image, np.ndarray):
        array = image
    else:
        kind = printable(type(image).__name__)
        raise NatstatsError(f"expected floats (C, H, W) as in the others; got a {kind}")
    if array.dtype.kind != "f" or array.ndim != 3:
        raise NatstatsError(f"expected floats (C, H, W); got {array.dtype} of shape {array.shape}")
    if array.shape[-1] in (1, 3) and array.shape[0] not in (1, 3):
        raise NatstatsError(
            f"expected floats with the channels first, (C, H, W); got shape {array.shape}"
        )
    return array


def of_floats(array: np.ndarray[Any, Any]) -> Image.Image:
    """A photograph made of floats in [0, 1], rounded to 8 bits.

    Raises:
        NatstatsError: values are outside of [0, 1], or the channels are neither 1 nor 3.
    """
    if not (array.min() >= 0 and array.max() <= 1) or len(array) not in (1, 3):
        raise NatstatsError(
            "expected floats from 0 to 1 in 1 or 3 channels where images are brought to one size; "
            f"got {array.min():.4g} to {array.max():.4g} in {len(array)}"
        )
    pixels = (array * 255).round().astype(np.uint8)
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))


def content_of(image: np.ndarray[Any, Any]) -> bytes:
    """SHA-256 of an array, 32 bytes."""
    sha = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
    sha.update(np.ascontiguousarray(image).tobytes())
    return sha.digest()

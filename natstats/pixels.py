"""From the bytes of an image file to 8-bit RGB, whatever the file holds."""

from __future__ import annotations

import hashlib
import warnings
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from natstats.errors import NatstatsError

__all__ = ["fingerprint", "read_rgb", "to_rgb"]

_WHITE_16_BIT = 65535
_PIECE = 1 << 20


def fingerprint(source: BinaryIO | Image.Image) -> bytes:
    """SHA-256, 32 bytes, of all bytes of a file (left at its beginning) or of an image's pixels.

    >>> import io
    >>> fingerprint(io.BytesIO(b"")).hex()[:8]
    'e3b0c442'
    """
    sha = hashlib.sha256()
    if isinstance(source, Image.Image):
        sha.update(f"{source.mode} {source.size}".encode())
        sha.update(source.tobytes())
        return sha.digest()
    while piece := source.read(_PIECE):
        sha.update(piece)
    source.seek(0)
    return sha.digest()


def read_rgb(source: BinaryIO | Image.Image) -> Image.Image:
    """Decode an image, turn it as its EXIF record says, and make it RGB by :func:`to_rgb`.

    Of an animation or a file of several pages, the first frame. Whatever the decoder raises is
    passed on: what that can be depends on the format.
    """
    with warnings.catch_warnings():
        # What Pillow warns of (size, odd metadata) is no matter for the pixels that it gives.
        warnings.simplefilter("ignore")
        if isinstance(source, Image.Image):
            return to_rgb(source)
        with Image.open(source) as image:
            return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB.

    Grey of 16 bits is divided by 257, as white is 65535 there; whole numbers of 32 bits are read
    as if they had 16. Floating values are taken to be in [0, 1]. What is transparent is laid over
    white, as most viewers show it: the colours under it are arbitrary. CMYK becomes RGB by
    Pillow's formula, without a colour profile.

    Raises:
        NatstatsError: the values have no known white.

    >>> to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    white = 1.0 if image.mode == "F" else float(_WHITE_16_BIT)
    if not (values.min() >= 0 and values.max() <= white):  # also when there is a NaN
        raise NatstatsError(
            f"values from {values.min():g} to {values.max():g} have no known white: expected "
            f"0 to {white:g}"
        )
    return Image.fromarray((values / white * 255).round().astype(np.uint8))

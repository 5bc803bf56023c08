"""From the bytes of an image file to 8-bit RGB, whatever the file holds."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from natstats.errors import NatstatsError
from natstats.images.formats import opened

__all__ = ["fingerprint", "read_rgb", "to_rgb"]

_WHITE_16_BIT = 65535
_WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes of Pillow with more than 8 bits, which Pillow does not scale to 8 bits."""

# Tags of TIFF 6.0, and two of their values.
_BITS, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 258, 262, 284, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
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

    Raises:
        NatstatsError: it is of no format that is read, or of a kind that Pillow decodes wrongly.
    """
    if isinstance(source, Image.Image):
        return to_rgb(source)
    with opened(source) as image:
        white, is_inverted = _of_tiff(image) if image.format == "TIFF" else (None, False)
        if image.format == "PNG":
            _mend_transparency(image)
        turned = ImageOps.exif_transpose(image)
        if turned.mode in _WIDE:
            turned = _eight_bits(turned, white, is_inverted)
        return to_rgb(turned)


def _of_tiff(image: Image.Image) -> tuple[float | None, bool]:
    """The white of wide grey values where the mode does not tell it, and whether 0 is white.

    Raises:
        NatstatsError: Pillow decodes such a file wrongly.
    """
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    bits, kinds = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    if tags.get(_PLANAR) == 2 and len(bits) > 1 and max(bits) > 8:
        raise NatstatsError(
            f"a TIFF of {max(bits)} bits a channel with its channels apart (planar), which is not "
            "decoded rightly; it can be read when it is saved with its channels interleaved"
        )
    if _SIGNED in kinds and max(bits) == 8:
        raise NatstatsError("a TIFF of signed bytes, which have no known white")
    white = float((1 << bits[0]) - 1) if image.mode.startswith("I;16") else None
    # Narrower values are inverted by Pillow itself.
    return white, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode in _WIDE


def _mend_transparency(image: Image.Image) -> None:
    """Scale the transparent grey of a PNG as Pillow scales its pixels.

    Raises:
        NatstatsError: the transparent colour has more bits than Pillow keeps of the pixels.
    """
    transparent, tiles = image.info.get("transparency"), getattr(image, "tile", [])
    raw = str(tiles[0][3]) if tiles else ""
    if transparent is None:
        return
    if image.mode == "RGB" and "16" in raw:
        raise NatstatsError("a PNG of 16 bits a channel with a transparent colour is not read")
    if image.mode == "1":
        image.info["transparency"] = 255 * bool(transparent)
    elif raw in ("L;2", "L;4"):
        image.info["transparency"] = transparent * 255 // (2 ** int(raw[2:]) - 1)


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
    if image.mode in _WIDE:
        image = _eight_bits(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(
    image: Image.Image, white: float | None = None, is_inverted: bool = False
) -> Image.Image:
    """Grey of 8 bits from wider values; a grey that stands for what is transparent becomes white.

    Raises:
        NatstatsError: the values have no known white.
    """
    values = np.asarray(image, dtype=np.float64)
    if white is None:
        white = 1.0 if image.mode == "F" else float(_WHITE_16_BIT)
    if not (values.min() >= 0 and values.max() <= white):  # also when there is a NaN
        raise NatstatsError(
            f"values from {values.min():g} to {values.max():g} have no known white: expected "
            f"0 to {white:g}"
        )
    shown: NDArray[np.float64] = white - values if is_inverted else values
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        shown = np.where(values == transparent, white, shown)
    return Image.fromarray((shown / white * 255).round().astype(np.uint8))

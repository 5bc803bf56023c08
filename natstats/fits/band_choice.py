"""The band of frequencies that is fitted, as it is asked for: in units of each map or of the image.

A pair of numbers is in cycles/pixel of every layer's own maps. The coarser the maps of a layer, the
more pixels of the image each of theirs stands for, so that one pair means different waves in
different layers. An :class:`ImageBand` is in cycles/image: the same waves in all layers that hold
them, see :mod:`natstats.fits.held_bands`.

Nothing here imports numpy, so that the command line can read a band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from natstats import checks
from natstats.checks import NYQUIST
from natstats.errors import UsageError
from natstats.numbers import short

__all__ = ["LONGEST", "FittedBand", "ImageBand", "as_band", "band_text"]

LONGEST = 1.0
"""The longest wave that an image holds, cycles/image."""

SPELLINGS = "LOW:HIGH in cycles/pixel, such as 0.02:0.4, or LOW:HIGH/image in cycles/image, such "\
    "as 2:12/image"  # fmt: skip


@dataclass(frozen=True)
class ImageBand:
    """A band of waves that are counted along the shorter side of the image.

    Attributes:
        low: lowest frequency, cycles/image. No wave is longer than the image, so anything from 0
            to 1 is 1.
        high: highest frequency, cycles/image.

    Raises:
        UsageError: these are not two rising numbers, or the upper one is not above 1.

    >>> str(ImageBand(0, 12))
    '1:12/image'
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        try:
            low, high = float(self.low), float(self.high)
            good = 0 <= low < high < math.inf and high > LONGEST
        except (TypeError, ValueError, OverflowError):
            good = False
        if not good:
            raise UsageError(
                "band: expected two rising numbers of cycles/image, the first at least 0 and the "
                f"second above {LONGEST:g}; got {self.low!r} and {self.high!r}"
            )
        object.__setattr__(self, "low", max(low, LONGEST))
        object.__setattr__(self, "high", high)

    def __str__(self) -> str:
        """As :func:`as_band` reads it, to the last digit."""
        low, high = (repr(value).removesuffix(".0") for value in (self.low, self.high))
        return f"{low}:{high}/image"


FittedBand = tuple[float, float] | ImageBand
"""Cycles/pixel of every map, or cycles/image."""


def as_band(value: Any) -> FittedBand:
    """A band from a pair in cycles/pixel, an :class:`ImageBand`, or the spelling of either.

    Raises:
        UsageError: it is none of these, or its numbers are out of order or out of range.

    >>> as_band((0, 0.25)), as_band("0.02:0.4"), as_band("2:12/image")
    ((0.0, 0.25), (0.02, 0.4), ImageBand(low=2.0, high=12.0))
    >>> as_band("2:12/img")
    Traceback (most recent call last):
    natstats.errors.UsageError: band: expected LOW:HIGH in cycles/pixel, such as 0.02:0.4, or \
LOW:HIGH/image in cycles/image, such as 2:12/image; got '2:12/img'
    """
    if isinstance(value, ImageBand):
        return value
    if not isinstance(value, str):
        return _of_pixels(value)
    numbers, slash, unit = value.partition("/")
    try:
        low, high = (float(part) for part in numbers.split(":"))
    except ValueError:
        unit = "none"
    if unit.strip() not in ("pixel", "image") and (slash or unit):
        raise UsageError(f"band: expected {SPELLINGS}; got {value!r}")
    return ImageBand(low, high) if unit.strip() == "image" else _of_pixels((low, high))


def _of_pixels(value: Any) -> tuple[float, float]:
    """A pair in cycles/pixel; for what looks like cycles/image the error says how to write it."""
    try:
        return checks.pair_in_order("band", value, 0.0, NYQUIST)
    except UsageError as error:
        try:
            meant = ImageBand(*value)
        except (UsageError, TypeError):
            raise error from None
        raise UsageError(f"{error} (in cycles/image it is written {meant})") from None


def band_text(band: FittedBand, unit: str = "pixel") -> str:
    """A band in words.

    Args:
        band: the band.
        unit: what frequencies of maps are counted in: cycles per ``pixel``, or per ``frame`` of a
            clip, whose whole is then the clip.

    >>> band_text((0.0, 0.5)), band_text(ImageBand(2, 12)), band_text(ImageBand(2, 5), "frame")
    ('0 to 0.5 cycles per pixel of the map', '2 to 12 cycles per image', '2 to 5 cycles per clip')
    """
    is_clip = unit == "frame"
    if isinstance(band, ImageBand):
        whole = "clip" if is_clip else "image"
        return f"{short(band.low)} to {short(band.high)} cycles per {whole}"
    one = "frame" if is_clip else "pixel of the map"
    return f"{short(band[0])} to {short(band[1])} cycles per {one}"

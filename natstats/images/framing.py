"""How a photograph is brought to the size at which it enters a network: scaled, then cut.

A scaled photograph is pixel for pixel what torchvision's ``Resize`` and ``CenterCrop`` give, yet
computed here: the size must be known before scaling, to refuse a long strip that would fill the
memory; an image that is too small is refused and not padded; and the cut of an image that is not
scaled is rounded down where a margin is odd, while ``CenterCrop`` rounds to the even number.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from natstats import checks
from natstats.errors import NatstatsError, UsageError

__all__ = [
    "LARGEST_SCALED", "SMALLEST_PHOTOGRAPH", "Framing", "TooSmallError", "common_side", "reframed",
]  # fmt: skip

SMALLEST_PHOTOGRAPH = 32
"""Shorter side, pixels, below which an image does not decide the size of all the others."""

LARGEST_SCALED = 1 << 27
"""Pixels of a scaled photograph above which it is refused: a strip 1 pixel high would need more
memory than there is before its centre is cut out."""

_SMALLEST = 5

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class TooSmallError(NatstatsError):
    """The image is smaller than what is cut out of it, and may not be scaled."""


@dataclass(frozen=True)
class Framing:
    """How a photograph is brought to a fixed size: shorter side scaled, centre cut out.

    Attributes:
        size: side of the square that is cut out, pixels.
        resize: shorter side before that, pixels; None leaves the pixels as they are.
        interpolation: ``bilinear``, ``bicubic`` or ``lanczos``, all with antialiasing.

    Raises:
        UsageError: a side is out of range, or the interpolation unknown.

    >>> Framing(224, 256)(Image.new("RGB", (800, 600))).size
    (224, 224)
    """

    size: int
    resize: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        checks.positive_int("size", self.size, _SMALLEST)
        checks.one_of("interpolation", self.interpolation, _RESAMPLING)
        if self.resize is not None and self.resize < self.size:
            raise UsageError(f"resize: expected at least the size {self.size}; got {self.resize}")

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the framed image.

        Raises:
            TooSmallError: the image is smaller than the frame and may not be scaled.
            NatstatsError: it is so long and narrow that scaling it takes too much memory.
        """
        if self.resize is not None:
            # Down to the pixel, torchvision's Resize and CenterCrop: what published weights expect.
            shorter = min(image.size)
            width, height = (
                max(self.resize, int(self.resize * side / shorter)) for side in image.size
            )
            if width * height > LARGEST_SCALED:
                raise NatstatsError(
                    f"{image.size[0]} x {image.size[1]} pixels would be scaled to "
                    f"{width} x {height}, which is too many"
                )
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        width, height = image.size
        if min(width, height) < self.size:
            raise TooSmallError(
                f"{width} x {height} pixels are fewer than {self.size} x {self.size}"
            )
        if self.resize is None:
            left, top = (width - self.size) // 2, (height - self.size) // 2
        else:
            left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, top, left + self.size, top + self.size))

    def enlarges(self, image: Image.Image) -> bool:
        """True when the image is smaller than what it is scaled to.

        >>> Framing(224, 256).enlarges(Image.new("RGB", (800, 200)))
        True
        """
        return self.resize is not None and self.resize > min(image.size)


def common_side(sides: Sequence[int], largest: int) -> tuple[int, int | None]:
    """Side of the square to cut out of images of these shorter sides, unscaled.

    It is the largest that fits them, at most `largest`. Some images do not count, as they would
    shrink it for all: icons of less than :data:`SMALLEST_PHOTOGRAPH` pixels among larger images,
    and images below half of the median where they are few: at most one in ten, or a single one
    among three or more.

    Returns:
        The side, and the place of the smallest image where that one is below half of the median and
        still decides, as such images are not few; else None.

    >>> common_side([600, 400, 480, 33], 512), common_side([600, 33], 512)
    ((400, None), (33, 1))
    """
    counted = [side for side in sides if side >= SMALLEST_PHOTOGRAPH] or list(sides)
    half = statistics.median(min(side, largest) for side in counted) / 2
    kept = [side for side in counted if side >= half]
    n_below = len(counted) - len(kept)
    if len(counted) >= 3 and n_below <= max(1, len(counted) // 10):
        return min(largest, *kept), None
    smallest = min(counted)
    return min(largest, smallest), sides.index(smallest) if smallest < half else None


def reframed(framing: Framing | None, size: int | None, crop: int | None) -> Framing | None:
    """The framing that `size` and `crop` ask for in place of the usual one.

    Neither leaves it as it is. `size` alone is the side of the square that enters, with the
    proportions of the usual scaling and cut; `crop` alone cuts that square out of the unscaled
    photograph; both scale the shorter side to `size` and cut `crop`.

    Args:
        framing: the usual one; None for photographs that are not scaled.
        size: pixels.
        crop: pixels.

    Raises:
        UsageError: a side is below 5 pixels, or `crop` above `size`.

    >>> reframed(Framing(224, 256), 112, None)
    Framing(size=112, resize=128, interpolation='bilinear')
    >>> reframed(Framing(224, 256), None, 300)
    Framing(size=300, resize=None, interpolation='bilinear')
    >>> reframed(None, 256, 224)
    Framing(size=224, resize=256, interpolation='bicubic')
    """
    for name, side in (("size", size), ("crop", crop)):
        if side is not None:
            checks.positive_int(name, side, _SMALLEST)
    if size is not None and crop is not None and crop > size:
        raise UsageError(f"crop: expected at most the size {size}; got {crop}")
    interpolation = "bicubic" if framing is None else framing.interpolation
    if crop is not None:
        return Framing(crop, size, interpolation)
    if size is None:
        return framing
    if framing is None or framing.resize is None:
        return Framing(size, size, interpolation)
    return Framing(size, round(size * framing.resize / framing.size), interpolation)

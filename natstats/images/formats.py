"""The image formats that are opened, and no others.

Pillow chooses a reader by the first bytes of a file, whatever the file is called, and some of its
readers start other programs: a PostScript file named ``photo.jpg`` would be run by Ghostscript. So
every image is opened here, with a list of formats whose readers decode pixels and do nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from natstats.errors import NatstatsError

__all__ = ["FORMATS", "has_image_name", "is_companion", "is_other_picture", "opened"]

FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "MPO", "PCX", "PNG", "PPM", "PSD", "QOI",
    "SGI", "SUN", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Pillow's names of the formats that are read. Left out are those that start another program (EPS
and so PostScript), hand the file to the system or to whatever was registered (WMF, EMF, BUFR, GRIB,
HDF5), are containers of others (FPX, MIC, ICNS, ICO), or hold no photographs."""

_COMPANIONS = (
    ".cfg", ".cls", ".css", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".jsonl", ".log",
    ".md", ".py", ".rst", ".sh", ".toml", ".tsv", ".txt", ".xml", ".xmp", ".yaml", ".yml",
)  # fmt: skip
"""Endings of files that are often beside images: texts, tables, labels."""

_OTHER_PICTURES = (
    ".arw", ".avif", ".avifs", ".cr2", ".cr3", ".dng", ".emf", ".eps", ".exr", ".fits", ".hdr",
    ".heic", ".heif", ".hif", ".ico", ".jxl", ".jxr", ".nef", ".nrw", ".orf", ".pdf", ".pef", ".ps",
    ".raf", ".raw", ".rw2", ".sr2", ".svg", ".wmf",
)  # fmt: skip
"""Endings of pictures that are not read, or not with every version of Pillow."""


@functools.cache
def _available() -> tuple[str, ...]:
    """The formats of :data:`FORMATS` that the installed Pillow knows."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[Image.Image]:
    """Open an image file of one of :data:`FORMATS`; its pixels are not decoded yet.

    Raises:
        NatstatsError: it is of no such format.
    """
    with warnings.catch_warnings():
        # Pillow's warnings (size, odd metadata) do not concern the pixels that it gives.
        warnings.simplefilter("ignore")
        try:
            image = Image.open(file, formats=_available())
        except UnidentifiedImageError:
            raise NatstatsError("cannot identify an image of a format that is read") from None
        with image:
            yield image


def has_image_name(name: str) -> bool:
    """True for the name of an image of one of :data:`FORMATS`.

    >>> has_image_name("a/photo.JPEG"), has_image_name("notes.txt"), has_image_name("a.eps")
    (True, False, False)
    """
    suffix = os.path.splitext(name)[1].lower()
    return _format_of(suffix) in _available()


def _format_of(suffix: str) -> str | None:
    _available()  # registers all
    return Image.EXTENSION.get(suffix)


def is_companion(name: str) -> bool:
    """True for a file that is often beside images and needs no note.

    >>> is_companion("labels.csv"), is_companion("photo.heic"), is_companion("photo")
    (True, False, False)
    """
    return os.path.splitext(name)[1].lower() in _COMPANIONS


def is_other_picture(name: str) -> bool:
    """True for the name of a picture of a format that is not read.

    >>> is_other_picture("a.HEIC"), is_other_picture("a.cls")
    (True, False)
    """
    suffix = os.path.splitext(name)[1].lower()
    return suffix in _OTHER_PICTURES and not has_image_name(name)

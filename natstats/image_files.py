"""Photographs in files: a folder with the folders below it, a pattern, or a list of paths."""

from __future__ import annotations

import glob
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from natstats.errors import NatstatsError, UsageError
from natstats.framing import Framing
from natstats.image_sets import Photographs, reason_of
from natstats.text import printable

__all__ = [
    "ImageFiles",
    "ImageFolder",
    "has_image_name",
    "image_paths",
    "listed_paths",
    "matching_paths",
]


class ImageFiles(Photographs):
    """Photographs that are a file each.

    Args:
        paths: of the files, in a fixed order.
        base: folder that the labels are relative to.
        framing: how each photograph is brought to size; by default the largest square of at most
            512 pixels that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: of the sample and of the numbering.
        description: where they come from, for people.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        base: Path,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "files",
    ) -> None:
        self._all = list(paths)
        self.base = base
        super().__init__(len(self._all), framing, limit, seed, description)

    @property
    def paths(self) -> list[Path]:
        """Of the images, in the order of their numbers."""
        return [self._all[place] for place in self.places]

    def open(self, number: int) -> BinaryIO:
        """The file of an image."""
        path = self._all[self.places[number]]
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # to open a pipe would be to wait for ever
            raise NatstatsError(
                "the folder cannot be listed" if stat.S_ISDIR(mode) else "not a regular file"
            )
        return path.open("rb")

    def n_bytes(self, number: int) -> int:
        """Size of the file; 0 where it cannot be told."""
        try:
            return self._all[self.places[number]].stat().st_size
        except OSError:
            return 0

    def label(self, number: int) -> str:
        """Path of an image, below the base where it is."""
        path = self._all[self.places[number]]
        if path.is_relative_to(self.base):
            path = path.relative_to(self.base)
        return printable(path.as_posix())


class ImageFolder(ImageFiles):
    """The photographs in a folder and the folders below it.

    Args:
        folder: where to look.
        framing: how each photograph is brought to size, see :class:`ImageFiles`.
        limit: at most this many, a random sample.
        seed: of the sample and of the numbering.

    Raises:
        UsageError: the folder is not there or holds no image.
    """

    def __init__(
        self,
        folder: Path,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        paths = image_paths(folder)
        super().__init__(paths, folder, framing, limit, seed, printable(folder))


def has_image_name(name: str) -> bool:
    """True for the name of an image format that Pillow reads.

    >>> has_image_name("a/photo.JPEG"), has_image_name("notes.txt")
    (True, False)
    """
    suffix = os.path.splitext(name)[1].lower()
    return Image.registered_extensions().get(suffix) in Image.OPEN


def image_paths(folder: Path) -> list[Path]:
    """Every file below `folder` with the name of an image format that Pillow reads, sorted.

    Links to folders are followed, but not round in a circle. Names that begin with a dot are
    passed over. A link that leads nowhere and a folder that cannot be listed are in the result:
    they will turn out to be unreadable, and be counted.

    Raises:
        UsageError: the folder is not there, or holds no image.
    """
    if not folder.is_dir():
        raise UsageError(f"images: expected a folder of images; got {printable(folder)!r}")
    paths = sorted(_found_below(folder))
    if not paths:
        raise UsageError(
            f"images: expected at least one image; got none below {printable(folder)!r}"
        )
    return paths


def _found_below(folder: Path) -> Iterator[Path]:
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        place, above = waiting.pop()
        try:
            identity = (place.stat().st_dev, place.stat().st_ino)
            entries = list(place.iterdir())
        except OSError:
            yield place
            continue
        if identity in above:
            continue
        for path in entries:
            if path.name.startswith("."):
                continue
            if os.path.isdir(path):
                waiting.append((path, above | {identity}))
            elif has_image_name(path.name):
                yield path


def matching_paths(pattern: str) -> tuple[list[Path], Path]:
    """The images that a pattern such as ``photos/*.jpg`` or ``photos/**/*.png`` matches, sorted.

    Returns:
        Their paths, and the folder that the pattern starts from. Folders that match are left out.

    Raises:
        UsageError: no image matches.
    """
    paths = sorted(
        Path(name)
        for name in glob.glob(pattern, recursive=True)
        if has_image_name(name) and not os.path.isdir(name)
    )
    if not paths:
        raise UsageError(
            f"images: expected at least one image; nothing matches {printable(pattern)!r}"
        )
    parts = Path(pattern).parts[:-1]
    fixed = itertools.takewhile(lambda part: not glob.has_magic(part), parts)
    base = Path(*fixed)
    return paths, base


def listed_paths(file: Path) -> list[Path]:
    """The paths in a text file, one a line, relative to its folder, sorted.

    Empty lines and lines that begin with ``#`` are passed over. That a file is not there is found
    out when it is read.

    Raises:
        UsageError: the list cannot be read, or is empty.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UsageError(
            f"images: expected a list of paths; {printable(file)}: {reason_of(error)}"
        ) from None
    lines = [line.strip() for line in text.split("\n")]  # other separators may be in names
    if "\0" in text:
        raise UsageError(f"images: expected a list of paths; {printable(file)} is not text")
    paths = [
        file.parent / os.path.expanduser(line)
        for line in lines
        if line and not line.startswith("#")
    ]
    if not paths:
        raise UsageError(f"images: expected at least one path in {printable(file)}; got none")
    return sorted(paths)

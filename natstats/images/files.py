"""Photographs in files: a folder with the folders below it, a pattern, or a list of paths."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular, read_regular
from natstats.images.contents import Identity, identify
from natstats.images.folder_walk import Found, images_below, images_matching
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs, reason_of
from natstats.text import printable

__all__ = ["ImageFiles", "ImageFolder", "image_paths", "listed_paths", "matching"]


class ImageFiles(Photographs):
    """Photographs in one file each.

    Args:
        paths: paths of the files, in a fixed order.
        base: folder that the labels are relative to.
        framing: how each photograph is brought to size; by default the largest square of at most
            512 pixels that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.
        notes: what a reader of the results must know of how they were found.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        base: Path,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "files",
        notes: Sequence[str] = (),
    ) -> None:
        self._all = list(paths)
        self.base = base
        super().__init__(len(self._all), framing, limit, seed, description, notes)

    @property
    def paths(self) -> list[Path]:
        """Paths of the images, in the order of their numbers."""
        return [self._all[place] for place in self.places]

    def open(self, number: int) -> BinaryIO:
        """The file of an image."""
        path = self._all[self.places[number]]
        if os.path.isdir(path):  # it is in the list because it could not be looked into
            raise NatstatsError("the folder cannot be listed")
        return open_regular(path)

    def identities(self, number: int) -> tuple[Identity, ...]:
        """The identity of the file, in a tuple of one; empty where it is not there."""
        return identify(self._all[self.places[number]])

    def n_bytes(self, number: int) -> int:
        """Size of the file; 0 where it cannot be told."""
        try:
            return self._all[self.places[number]].stat().st_size
        except OSError:
            return 0

    def label(self, number: int) -> str:
        """Path of an image, relative to the base where it is below that."""
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
        seed: seed of the sample and of the numbering.

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
        found = images_below(folder)
        super().__init__(
            found.paths, folder, framing, limit, seed, printable(folder), found.notes()
        )


def image_paths(folder: Path) -> list[Path]:
    """Every image below `folder`, sorted, see :func:`natstats.images.folder_walk.images_below`.

    Raises:
        UsageError: the folder is not there, or holds no image.
    """
    return images_below(folder).paths


def matching(pattern: str) -> tuple[Found, Path]:
    """The images that a pattern such as ``photos/*.jpg`` or ``photos/**/*.png`` matches.

    Returns:
        What was found, and the folder that the pattern starts from. Folders that match are left
        out.

    Raises:
        UsageError: no image matches.
    """
    parts = Path(pattern).parts[:-1]
    base = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return images_matching(pattern, base), base


def listed_paths(file: Path) -> list[Path]:
    """The paths in a text file, one a line, relative to its folder, sorted.

    Empty lines and lines that begin with ``#`` are skipped. Whether a file is there shows only when
    it is read.

    Raises:
        UsageError: the list cannot be read, or is empty.
    """
    try:
        text = read_regular(file).decode("utf-8-sig", "surrogateescape")
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

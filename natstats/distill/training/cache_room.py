"""Room for a teacher's outputs on the disk: how much a training may take, and how much there is."""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from natstats.distill.training.augmentation import changes_images
from natstats.distill.training.program import Program
from natstats.distill.training.recipes import Recipe
from natstats.numbers import counted, short

__all__ = ["CHECKSUM", "FROM_CACHE", "GIB", "Needed", "Room", "in_words", "most_bytes"]

GIB = 2**30
"""Bytes of a GiB."""

CHECKSUM = 4
"""Bytes of the checksum of an image's outputs of one kind."""

_VALUE = 4
"""Bytes of a value at most: maps of half precision take two."""

FROM_CACHE = "the teacher's outputs were read from a cache"
"""How the note of a run begins that read them there."""

_SPARE = GIB
"""Bytes that stay free on the disk, for the state of the training and for others."""


def in_words(n_bytes: float) -> str:
    """A number of bytes for people.

    >>> in_words(3 * 2**29), in_words(2**20)
    ('1.5 GiB', '1 MiB')
    """
    is_small = n_bytes < GIB / 10
    return f"{short(n_bytes / (2**20 if is_small else GIB), 2)} {'MiB' if is_small else 'GiB'}"


def most_bytes(n_images: int, values: Iterable[int]) -> int:
    """What the outputs for all images take at most.

    Args:
        n_images: how many images.
        values: numbers for each image, by kind of output.

    >>> most_bytes(10, [100, 4096])
    167920
    """
    return n_images * sum(_VALUE * n + CHECKSUM for n in values)


@dataclass(frozen=True)
class Room:
    """The room for a cache.

    Attributes:
        folder: folder of the cache, with the outputs of all teachers and data sets.
        limit: how large it may get, GiB; None for as large as the disk allows. Trainings that fill
            it at the same time may each go beyond it by one epoch.
    """

    folder: Path
    limit: float | None = None

    @property
    def taken(self) -> int:
        """Bytes of the files in the folder."""
        total = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(OSError):  # removed meanwhile
                total += path.lstat().st_size
        return total

    @property
    def free(self) -> int:
        """Bytes that are free on the disk of the folder, or of the nearest one above it."""
        places = (self.folder, *self.folder.absolute().parents)
        return shutil.disk_usage(next(place for place in places if place.exists())).free

    def hindrance(self, n_bytes: int) -> str:
        """Why a number of bytes more cannot be kept, in words; empty where they can."""
        needed = f"they may take {in_words(n_bytes)}"
        if self.limit is not None:
            taken = self.taken
            if taken + n_bytes > self.limit * GIB:
                limit = in_words(self.limit * GIB)
                return f"{needed}, and {self.folder} has {in_words(taken)} of at most {limit}"
        free = self.free
        if n_bytes + _SPARE > free:
            return (
                f"{needed}, and the disk of {self.folder} has {in_words(free)} free, of which "
                f"{in_words(_SPARE)} is left alone"
            )
        return ""


@dataclass(frozen=True)
class Needed:
    """What the outputs of a teacher take at most.

    Attributes:
        epochs: bytes of the outputs for each set of changed images.
    """

    epochs: tuple[int, ...]

    @classmethod
    def by(cls, program: Program, recipe: Recipe, n_images: int, n_classes: int) -> Needed:
        """What a training keeps if nothing is there yet.

        Args:
            program: its stages and taps.
            recipe: without open fields.
            n_images: training images.
            n_classes: K.
        """
        points = [theirs for pairs in program.taps.values() for _, theirs in pairs]
        values_of = {p.name: p.channels * p.height * p.width for p in points}
        file_of = {p.name: p.map_name for p in points}
        per_stage: list[tuple[int, set[str]]] = []
        for stage in program.stages:
            if any(bound.needs_teacher for bound in stage.terms):
                names = {name for bound in stage.terms for name in bound.teacher}
                per_stage.append((min(stage.epochs, recipe.draws or stage.epochs), names))
        if not changes_images(recipe) and per_stage:
            per_stage = [(1, {name for _, names in per_stage for name in names})]
        epochs: list[int] = []
        for n_epochs, names in per_stage:
            maps = {file_of[name]: values_of[name] for name in names}
            epochs += [most_bytes(n_images, [n_classes, *maps.values()])] * n_epochs
        return cls(tuple(epochs))

    def text(self, room: Room) -> str:
        """A line for people, with the room that there is.

        >>> Needed((2**30,) * 30).text(Room(Path("."), limit=12)).split("; ")[0]
        'Teacher cache: up to 30 GiB in ., for 30 sets of changed images'
        """
        total = sum(self.epochs)
        sets = counted(len(self.epochs), "set of changed images", "sets of changed images")
        parts = [
            f"Teacher cache: up to {in_words(total)} in {room.folder}, for {sets}",
            f"{in_words(room.free)} are free",
        ]
        if room.limit is not None:
            parts.append(f"it may have {in_words(room.limit * GIB)} in all")
        allowed = math.inf if room.limit is None else room.limit * GIB
        if total > min(room.free - _SPARE, allowed):
            parts.append("where there is no room left, the teacher runs in the steps")
        return "; ".join(parts)

"""Checking that every other pass over a set reads the same images as the first one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from natstats.errors import NatstatsError
from natstats.images.sources import Batch, ImageSet
from natstats.images.stream_numbers import Seen
from natstats.runs.reading import Reading

__all__ = ["SameImages"]

_ONCE = "(without controls and shuffled copies they are read once)"


@dataclass(frozen=True, eq=False)
class SameImages:
    """The images that a first pass has read, known by their contents.

    Attributes:
        source: the set.
        seen: its images, and the lengths of shards that were read to their end.
    """

    source: ImageSet
    seen: Seen

    @classmethod
    def of(cls, source: ImageSet, reading: Reading) -> SameImages:
        """The images that were read."""
        return cls(source, reading.seen())

    def check(self, batch: Batch) -> None:
        """Check the images of another pass, before they are measured.

        Raises:
            NatstatsError: one has other contents, or was not there, or a shard has another length.
        """
        left_out = [number for number, _ in batch.unreadable]
        numbers = sorted([*batch.index.tolist(), *left_out])
        for place, number in enumerate(numbers):
            content = batch.contents[32 * place : 32 * place + 32]
            before = self.seen.content(number)
            if before != content:
                label = batch.labels.get(number) or self.source.label(number)
                self._refuse(f"{label} is another" if before else f"{label} was not there")
        for one in batch.ended:
            before_it = self.seen.lengths.get(one.shard, one.n_images)
            if before_it != one.n_images:
                shard = self.source.label(min(numbers)) if numbers else f"shard {one.shard}"
                self._refuse(f"a shard had {before_it} images, and has {one.n_images} ({shard})")

    def check_all(self, reading: Reading) -> None:
        """Check all images of another pass, when they have been read.

        Raises:
            NatstatsError: they are not the same.
        """
        now = reading.seen()
        if not (
            np.array_equal(now.numbers, self.seen.numbers)
            and np.array_equal(now.contents, self.seen.contents)
        ):
            self._refuse("some are others, or missing")

    def _refuse(self, what: str) -> None:
        raise NatstatsError(
            "images: expected the same images each time they are read; in a second pass over "
            f"{self.source.description} {what} {_ONCE}"
        )

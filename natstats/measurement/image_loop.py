"""The loop over the images of a pass: batches, progress, states that are kept, and stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from natstats.errors import NatstatsError
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import Batch, ImageSet, batches
from natstats.measurement.keeping import KeptPass
from natstats.measurement.options import MeasureOptions
from natstats.measurement.pass_sums import PassSums
from natstats.measurement.stopping import Stops

__all__ = ["ImageLoop", "NoRoomError", "Progress", "Work", "earlier_sums", "share_of"]

Progress = Callable[[int, int], None]
"""Called after each batch with the images done and the images in all."""


class Work(Protocol):
    """What is done with the images of a loop.

    Attributes:
        sums: what was measured so far.
    """

    sums: PassSums

    def measure(self, batch: Batch) -> None:
        """Add a batch to the sums; one that raises has added nothing."""

    def finish(self) -> None:
        """All images have come."""

    def state(self) -> dict[str, Any]:
        """Everything that is kept."""
        raise NotImplementedError


class NoRoomError(NatstatsError):
    """A batch that does not fit into memory."""


def share_of(progress: Progress | None, number: int, n_parts: int) -> Progress | None:
    """The progress of one part of the work, such as one pass over the images, within all parts.

    >>> share_of(lambda done, total: print(done, "of", total), 1, 3)(5, 10)
    15 of 30
    """
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, n_parts * total)


def earlier_sums(kept: KeptPass | None, source: ImageSet) -> tuple[PassSums, dict[str, Any]] | None:
    """What an earlier sitting has measured of a set, and its state; None where there was none.

    Args:
        kept: where it was kept.
        source: the set.

    Raises:
        UsageError: the images that were measured have changed.
    """
    state = None if kept is None else kept.earlier()
    if kept is None or state is None:
        return None
    sums = PassSums.from_state(state)
    if not sums.reading.is_of(source):
        if kept.keeper.overwrite:
            kept.keeper.forget()
            return None
        raise kept.keeper.refusal("of other images, which had other contents under these names")
    return sums, state


@dataclass(frozen=True, eq=False)
class ImageLoop:
    """The images of a set, one batch after the other.

    Attributes:
        source: the set.
        options: the size of batches, and the number of workers.
        device: where the batches go.
        strict: whether an unreadable image is an error.
        progress: called after each batch.
        kept: where the state is saved; None where it is not.
        numbers: which images; all of the set by default.
    """

    source: ImageSet
    options: MeasureOptions
    device: torch.device
    strict: bool
    progress: Progress | None = None
    kept: KeptPass | None = None
    numbers: ImageNumbers | None = None

    def run(self, work: Work) -> None:
        """Measure all images that have not come yet.

        Raises:
            NatstatsError: an image cannot be read and `strict` is set, or none can be read; or
                the model fails.
            Interrupted: a signal came.
        """
        sums = work.sums
        wanted = ImageNumbers([(0, len(self.source))]) if self.numbers is None else self.numbers
        reading, n_images = sums.reading, len(wanted)
        left = wanted - reading.numbers
        done = n_images - len(left)
        started, before = time.perf_counter(), sums.seconds
        most = sums.smallest or self.options.batch_size

        def state() -> dict[str, Any]:
            sums.seconds = before + time.perf_counter() - started
            return work.state()

        with Stops() as stops:
            try:
                for batch in self._batches(left):
                    most = self._measured(batch, work, most)
                    reading.add(batch, self.source)
                    if self.strict:
                        reading.refuse(self.strict)
                    done += len(batch.index) + len(batch.unreadable)
                    if self.progress is not None:
                        self.progress(done, n_images)
                    if stops.signal and done < n_images:
                        break
                    if self.kept is not None and done < n_images:
                        self.kept.tick(state)
                else:
                    reading.refuse(self.strict)
                    work.finish()
            except Exception:
                if self.kept is not None and reading.n_read:
                    self.kept.save(state())
                raise
            sums.seconds = before + time.perf_counter() - started
            if self.kept is not None and reading.n_read:
                is_saved = self.kept.save(state())
                stops.raise_as(self._stopped(done, n_images, is_saved))
            stops.raise_as("interrupted; nothing was written")

    def _stopped(self, done: int, n_images: int, is_saved: bool) -> str:
        assert self.kept is not None
        out = self.kept.keeper.out
        if not is_saved:
            return f"interrupted after {done} of {n_images} images, whose sums could not be saved"
        return (
            f"interrupted after {done} of {n_images} images; {out} keeps what was measured, and "
            f"the same command, with --out {out}, goes on from there"
        )

    def _batches(self, left: ImageNumbers) -> Iterator[Batch]:
        return batches(
            self.source, self.options.batch_size, self.options.workers or 0, self.device, left
        )

    def _measured(self, batch: Batch, work: Work, most: int) -> int:
        """Measure a batch, in parts where it does not fit; how many images fit is returned."""
        first = 0
        while first < len(batch.index):
            part = slice(first, first + most)
            try:
                work.measure(replace(batch, images=batch.images[part], index=batch.index[part]))
            except NoRoomError:
                if most == 1 or len(batch.index) == 1:
                    raise
                most = max(1, min(most, len(batch.index)) // 2)
                work.sums.smallest = most
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            first += most
        return most

"""The loop over the images of a pass: batches, progress, states that are kept, and stopping."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import torch

from natstats.errors import NatstatsError
from natstats.images.batching import parted
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import Batch, ImageSet, batches
from natstats.images.stream_numbers import StreamPart
from natstats.images.streams import ChangedImagesError
from natstats.measurement.keeping import KeptPass
from natstats.measurement.options import MeasureOptions
from natstats.measurement.rounds import Rounds
from natstats.measurement.same_images import SameImages
from natstats.measurement.shares import OwnShare
from natstats.measurement.stopping import Stops
from natstats.measurement.until import Until
from natstats.measurement.work import Work
from natstats.numbers import counted
from natstats.processes.group import says_lost
from natstats.processes.joining import Processes
from natstats.runs.reading import Reading

__all__ = ["ImageLoop", "NoRoomError", "Progress", "share_of"]

Progress = Callable[[int, int], None]
"""Called after each batch with the images done and those in all, 0 where that is not known."""


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
        share: which images, and how many there are in all.
        together: processes that share the images, each about as many.
        until: tells when enough images have come; None for all.
        expected: images that these must be the same as; None where they are read the first time.
    """

    source: ImageSet
    options: MeasureOptions
    device: torch.device
    strict: bool
    progress: Progress | None
    kept: KeptPass | None
    share: OwnShare
    together: Processes
    until: Until | None = None
    expected: SameImages | None = None

    def run(self, work: Work, finish: Callable[[], None]) -> None:
        """Measure all of these images.

        Args:
            work: what is done with them.
            finish: called when all have come.

        Raises:
            NatstatsError: an image cannot be read and `strict` is set, or none can be read; or
                the model fails.
            Interrupted: a signal came.
        """
        sums, reading = work.sums, work.sums.reading
        # In rounds with other processes, how many images are to come is known only at the end.
        done, n_images = 0, None if self._has_rounds else self.share.n_left
        started, before = time.perf_counter(), sums.seconds
        most = sums.smallest or self.options.batch_size

        def state() -> dict[str, Any]:
            sums.seconds = before + time.perf_counter() - started
            return work.state()

        with Stops() as stops, contextlib.closing(self._batches(stops, work)) as found:
            try:
                # An earlier sitting may have ended between a batch and the look after it.
                is_over = self._is_enough(work)
                for batch in () if is_over else found:
                    most = self._measured(batch, work, most)
                    done += len(batch.index) + len(batch.unreadable)
                    if self.progress is not None:
                        self.progress(self._place(done), self.share.total)
                    if stops.signal and done != n_images:
                        break
                    is_over = self._is_enough(work)
                    if is_over:
                        break
                    if self.kept is not None and 0 < done != n_images:
                        self.kept.tick(state)
                else:
                    # If a signal came while a stream was waited for, it may have more images.
                    is_over = is_over or not stops.signal or n_images is not None
                if is_over:
                    reading.refuse(self.strict)
                    finish()
            except ChangedImagesError:
                raise
            except Exception as error:
                kept = self.kept
                if stops.signal and self.together.world > 1 and says_lost(error):
                    # All were interrupted, and the others did not wait for this one.
                    stops.raise_as(self._stopped(self._place(done), self._is_saved(state)))
                if kept is None or not reading.n_read:
                    raise
                last = state()
                if not kept.is_worth(sums.seconds) or not kept.save(last):
                    raise
                if not isinstance(error, NatstatsError):
                    raise
                sentence, *lines = error.args
                words = f"{self._kept_images(self._place(done))}, goes on from there"
                raise type(error)(f"{sentence}; {words}", *lines) from error
            sums.seconds = before + time.perf_counter() - started
            if self.kept is not None and (self.kept.is_first or stops.signal):
                is_saved = self._is_saved(state)
                stops.raise_as(self._stopped(self._place(done), is_saved))
            stops.raise_as(self._stopped(self._place(done), False))

    @property
    def _has_rounds(self) -> bool:
        """Whether several processes look at the intervals together."""
        return self.until is not None and self.together.world > 1

    def _is_enough(self, work: Work) -> bool:
        n_read = work.sums.reading.n_read
        if self.until is None or self._has_rounds or n_read < self.until.next:
            return False
        is_reached = self.until.is_reached(n_read, work.spectra())
        work.sums.look = self.until.look
        return is_reached

    def _place(self, done: int) -> int:
        """Images that all processes have done by now, estimated from this one."""
        place = self.share.n_done + done * self.together.world
        return min(place, self.share.total) if self.share.total else place

    def _is_saved(self, state: Callable[[], dict[str, Any]]) -> bool:
        return self.kept is not None and self.kept.save(state())

    def _stopped(self, done: int, is_saved: bool) -> str:
        if self.kept is None:
            return "interrupted; nothing was written"
        if not is_saved:
            return f"interrupted after {self._so_far(done)}, whose sums could not be saved"
        return f"interrupted; {self._kept_images(done)}, goes on from there"

    def _kept_images(self, done: int) -> str:
        assert self.kept is not None
        out = self.kept.keeper.out
        return (
            f"{out} keeps what was measured of {self._so_far(done)}, and the same "
            f"command, with --out {out}"
        )

    def _so_far(self, done: int) -> str:
        total = self.share.total
        return f"{done} of {total} images" if total else counted(done, "image")

    def _batches(self, stops: Stops, work: Work) -> Generator[Batch, None, None]:
        options = self.options

        def opened(images: ImageNumbers | StreamPart) -> Generator[Batch, None, None]:
            return batches(
                self.source,
                options.batch_size,
                options.workers or 0,
                self.device,
                images,
                lambda: bool(stops.signal),
            )

        if not self._has_rounds:
            return opened(self.share.images)
        assert self.until is not None
        rounds = Rounds(self.until, self.share, self.together, options.batch_size, work)
        return rounds.batches(opened)

    def _measured(self, batch: Batch, work: Work, most: int) -> int:
        """Measure a batch, in parts where it does not fit; return how many images fit."""
        reading = work.sums.reading
        if self.expected is not None:
            self.expected.check(batch)
        if self.strict and batch.unreadable:  # before it counts as read
            alone = Reading(reading.facts)
            alone.add(batch, self.source)
            alone.refuse(self.strict)
        left: Batch | None = batch
        while left is not None:
            part, rest = parted(left, most)
            try:
                if len(part.index):
                    work.measure(part)
            except NoRoomError:
                if len(part.index) == 1:
                    raise
                work.sums.smallest = most = len(part.index) // 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
            else:
                reading.add(part, self.source)
                left = rest
        return most

"""Rounds of several processes: all measure some images, look at the intervals, and go on or stop.

All processes look at the same time, at the sums of all, and so stop at the same place. Where images
can be counted, each round is what a single process would measure before its next look, divided
among the processes: so they look after the same images, and stop at the same one. Of a stream every
process reads shards of its own, and a look comes when all together have enough images for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from natstats.files.state_files import state_from_bytes, state_in_bytes
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import Batch
from natstats.images.stream_numbers import StreamPart
from natstats.measurement.pass_sums import PassSums
from natstats.measurement.shares import OwnShare
from natstats.measurement.until import Look, Until
from natstats.measurement.work import Work
from natstats.processes.joining import Processes

__all__ = ["Rounds"]

Opened = Callable[[ImageNumbers | StreamPart], Generator[Batch, None, None]]
"""Gives the batches of some images."""


@dataclass(eq=False)
class Rounds:
    """The images of one of several processes that look at the intervals together.

    Attributes:
        until: tells when enough images have come, and when to look.
        share: the images that are left, of this process and of all.
        together: the processes.
        batch_size: images of a batch.
        work: what is done with them.
    """

    until: Until
    share: OwnShare
    together: Processes
    batch_size: int
    work: Work
    _n_images: int = field(default=0, init=False)

    def batches(self, opened: Opened) -> Generator[Batch, None, None]:
        """Batches of this process, each measured before the next is asked for, until it is enough.

        Args:
            opened: gives the batches of some images.
        """
        self._meet(False)
        if isinstance(self.share.images, StreamPart):
            yield from self._of_stream(opened(self.share.images))
            return
        left = self.share.left
        assert left is not None
        while len(left):
            # Whole batches, as a single process stops only after a batch.
            n_batches = -(-self._n_missing // self.batch_size)
            now = left.first(n_batches * self.batch_size)
            left = left - now
            yield from opened(now.share(self.together.rank, self.together.world))
            self._meet(False)
            if self._n_missing == 0 and self._is_enough():
                return

    def _of_stream(self, found: Generator[Batch, None, None]) -> Generator[Batch, None, None]:
        is_over, n_open = False, self.together.world
        with contextlib.closing(found):
            while n_open:
                wanted, n_came = -(-self._n_missing // n_open), 0
                while not is_over and n_came < wanted:
                    batch = next(found, None)
                    is_over = batch is None
                    if batch is not None:
                        n_came += len(batch.index)
                        yield batch
                n_open = self._meet(is_over)
                if self._n_missing == 0 and self._is_enough():
                    return

    @property
    def _n_missing(self) -> int:
        """Images that all processes together still need before the next look."""
        return max(self.until.next - self._n_images, 0)

    def _meet(self, is_over: bool) -> int:
        """Add up the images of all processes, and return how many of these have more."""
        own = [self.work.sums.reading.n_read, int(not is_over)]
        found = self.together.gather_values(own)
        self._n_images, n_open = self.together.share(
            [sum(one) for one in zip(*found, strict=True)] if self.together.is_first else None
        )
        return int(n_open)

    def _is_enough(self) -> bool:
        """Look at the intervals of the sums of all; every process comes to the same answer."""
        first = self.together.is_first
        content = state_in_bytes(self.work.state())
        states = self.together.gather(content if not first else b"")
        look = None
        if first:
            # Copies by way of bytes, so that nothing is added to the sums that go on.
            kept = map(state_from_bytes, [content, *states[1:]])
            sums, *others = map(PassSums.from_state, kept)
            for other in others:
                sums.merge(other)
            self.until.is_reached(self._n_images, sums.spectra())
            look = self.until.look
        self.until.take_up(Look(*self.together.share(look)))
        self.work.sums.look = self.until.look
        return self.until.is_enough(self._n_images)

"""A pass over images that is shared: with earlier sittings, and with other processes.

What earlier sittings have measured is taken up by the first process. The images that are left are
divided, each process goes through its own, and in the end the first one adds up the sums of all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch

from natstats.errors import NatstatsError, UsageError
from natstats.files.state_files import state_from_bytes, state_in_bytes
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import Batch, ImageSet, batches
from natstats.images.stream_numbers import StreamPart
from natstats.images.streams import ChangedImagesError
from natstats.measurement.image_loop import ImageLoop, Progress
from natstats.measurement.keeping import KeptPass
from natstats.measurement.options import MeasureOptions
from natstats.measurement.pass_sums import PassSums, as_tensors
from natstats.measurement.same_images import SameImages
from natstats.measurement.shares import own_share
from natstats.measurement.until import Look, Until
from natstats.measurement.work import Work as LoopWork
from natstats.processes.joining import Processes
from natstats.theory.account_states import added_states

__all__ = ["SharedPass", "Work"]

_ALONE = Processes(0, 1, torch.device("cpu"))


class Work(LoopWork, Protocol):
    """What is done with the images of a pass."""

    def begin(self, example: Batch, account: dict[str, Any] | None) -> None:
        """Begin with an example and go on from the sums; if not called, the first batch begins.

        Args:
            example: the image that a network is traced with.
            account: the state of its account; None where there is none.
        """

    def finish(self, others: list[PassSums], accounts: list[dict[str, Any]]) -> None:
        """All images have come, here and in other processes.

        Args:
            others: what these have measured.
            accounts: the states of their accounts.
        """


@dataclass(frozen=True, eq=False)
class SharedPass:
    """A pass over the images of a set.

    Attributes:
        source: the set.
        options: how to measure; the number of workers is settled.
        strict: whether an unreadable image is an error.
        progress: called after each batch.
        kept: where its state is saved; None where it is not.
        numbers: which images; None for all of the set.
        expected: images that these must be the same as; None where they are read the first time.
        together: the processes that share it.
        until: tells when enough images have come; None for all.
        is_part: whether it is a part, to be put together with others later.

    Raises:
        UsageError: `until` is given for a share.
    """

    source: ImageSet
    options: MeasureOptions
    strict: bool
    progress: Progress | None
    kept: KeptPass | None = None
    numbers: ImageNumbers | StreamPart | None = None
    together: Processes = _ALONE
    until: Until | None = None
    expected: SameImages | None = None
    is_part: bool = False

    def __post_init__(self) -> None:
        if self.until is not None and self.numbers is not None:
            raise UsageError("until: expected for all images; got a share of them")

    def run(
        self,
        device: torch.device,
        new: PassSums,
        open_work: Callable[[PassSums], AbstractContextManager[Work]],
    ) -> PassSums:
        """What was measured of all images, now and in earlier sittings, in every process.

        Args:
            device: where the batches go.
            new: empty sums.
            open_work: opens the work that is done with the images.

        Raises:
            UsageError: what is kept is of other images.
            ChangedImagesError: a stream gave other images before.
            NatstatsError: no image can be read, or the model fails.
            Interrupted: a signal came.
        """
        kept = self.kept
        try:
            return self._run(device, new, open_work)
        except ChangedImagesError as error:
            if kept is None or not kept.path.exists():
                raise
            if not kept.keeper.overwrite or self.together.world > 1:
                raise kept.keeper.refusal(f"of other images ({error})") from error
            kept.keeper.forget()
        return self._run(device, new.renewed(), open_work)

    def _run(
        self,
        device: torch.device,
        new: PassSums,
        open_work: Callable[[PassSums], AbstractContextManager[Work]],
    ) -> PassSums:
        together = self.together
        sums, account = (self._earlier() if together.is_first else None) or (new, None)
        if sums is not new:  # facts that may change between sittings are those of now
            before = sums.facts
            sums.facts = replace(new.facts, found=before.found, example=before.example)
        share = own_share(self.source, self.numbers, sums, together)
        if not share.is_over and not self._was_enough(sums):
            sums.is_whole = False  # of a run that is continued
            with open_work(sums) as work:
                if share.n_done or together.world > 1 or self.numbers is not None:
                    example = self._example(sums, device)
                    if example is not None:
                        work.begin(example, account)
                loop = ImageLoop(
                    self.source,
                    self.options,
                    device,
                    self.strict,
                    self.progress if together.is_first else None,
                    self.kept,
                    share,
                    together,
                    self.until,
                    self.expected,
                )
                loop.run(work, partial(self._together, work))
        sums = self._spread(sums)
        if self.expected is not None:
            self.expected.check_all(sums.reading)
        return sums

    def _was_enough(self, sums: PassSums) -> bool:
        """Whether earlier sittings have measured enough images; told to all processes."""
        if self.until is None:
            return False
        look, n_images = self.together.share([sums.look, sums.reading.n_read])
        self.until.take_up(None if look is None else Look(*look))
        return self.until.is_enough(n_images)

    def _earlier(self) -> tuple[PassSums, dict[str, Any] | None] | None:
        """What earlier sittings have measured; None where there were none."""
        kept = self.kept
        states = [] if kept is None else kept.earlier()
        if kept is None or not states:
            return None
        found = [(PassSums.from_state(one), as_tensors(one["account_sums"])) for one in states]
        # The largest first: it already has those that were added to it and not yet removed.
        found.sort(key=lambda one: len(one[0].reading.numbers), reverse=True)
        sums, account = found[0]
        for more, more_account in found[1:]:
            if not len(more.reading.numbers - sums.reading.numbers):
                continue
            sums.merge(more)
            if account is not None and more_account is not None:
                account = added_states(account, more_account)
        if not sums.reading.is_of(self.source):
            if kept.keeper.overwrite:
                kept.keeper.forget()
                return None
            raise kept.keeper.refusal("of other images, which had other contents under these names")
        if len(states) > 1:
            kept.save(sums.state(account))
            kept.forget_others()
        return sums, account

    def _example(self, sums: PassSums, device: torch.device) -> Batch | None:
        """The image that all sittings and processes trace a network with: the first readable."""
        if sums.facts.model is None:
            return None
        wanted = None
        if len(sums.reading.numbers):
            wanted = ImageNumbers.of([sums.facts.example])
        with contextlib.closing(batches(self.source, 1, 0, device, wanted)) as found:
            for batch in found:
                if len(batch.index):
                    sums.facts = replace(sums.facts, example=int(batch.index[0]))
                    return batch
        return None

    def _together(self, work: Work) -> None:
        """Add up the sums of all processes in the first."""
        together = self.together
        if together.world == 1:
            work.finish([], [])
            return
        content = b"" if together.is_first else state_in_bytes(work.state())
        states = [state_from_bytes(one) for one in together.gather(content)[1:]]
        if together.is_first:
            accounts = [one["account_sums"] for one in states if one["account_sums"] is not None]
            work.finish([PassSums.from_state(one) for one in states], as_tensors(accounts))
            work.sums.reading.refuse(self.strict)

    def _spread(self, sums: PassSums) -> PassSums:
        """The sums of the first process, given to all processes."""
        if self.together.world == 1:
            return sums
        content = self.together.spread(
            state_in_bytes(sums.state()) if self.together.is_first else b""
        )
        if self.together.is_first:
            return sums
        if self.kept is not None:
            self.kept.forget()
        try:
            return PassSums.from_state(state_from_bytes(content))
        except ValueError as error:
            raise NatstatsError(f"processes: expected the sums of the first; {error}") from error

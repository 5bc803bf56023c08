"""Which images of a pass are wanted, were measured before, and are left for each process."""

from __future__ import annotations

from dataclasses import dataclass, replace

from natstats.errors import UsageError
from natstats.files.state_files import state_from_bytes, state_in_bytes
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import ImageSet
from natstats.images.stream_numbers import Seen, StreamPart
from natstats.images.streams import ImageStream
from natstats.measurement.pass_sums import PassSums
from natstats.numbers import counted
from natstats.processes.joining import Processes

__all__ = ["OwnShare", "own_share", "wanted_images"]


@dataclass(frozen=True, eq=False)
class OwnShare:
    """The images that one of several processes goes through.

    Attributes:
        images: which.
        n_done: images that were measured in earlier sittings.
        total: images of all sittings and processes; 0 where that is not known.
        is_over: whether nothing is left to do for any process.
        left: images of all processes that are left; None where they cannot be counted.
    """

    images: ImageNumbers | StreamPart
    n_done: int
    total: int
    is_over: bool
    left: ImageNumbers | None = None

    @property
    def n_left(self) -> int | None:
        """Images of this process; None where that is not known."""
        return len(self.images) if isinstance(self.images, ImageNumbers) else None


def wanted_images(source: ImageSet, number: int, n_shares: int) -> ImageNumbers | StreamPart:
    """One of some shares of the images of a set, numbered from 0.

    Raises:
        UsageError: there are fewer images than shares.

    >>> import torch
    >>> from natstats.images.sources import ImageArray
    >>> wanted_images(ImageArray(torch.rand(10, 1, 8, 8)), 1, 3)
    ImageNumbers([(3, 6)])
    """
    if isinstance(source, ImageStream):
        return source.part().share(number, n_shares)
    n_images = len(source)
    own = ImageNumbers([(0, n_images)]).share(number, n_shares)
    if not len(own):
        raise UsageError(
            f"shard: expected no more shards than the {counted(n_images, 'image')}; got {n_shares}"
        )
    return own


def own_share(
    source: ImageSet,
    wanted: ImageNumbers | StreamPart | None,
    sums: PassSums,
    together: Processes,
) -> OwnShare:
    """What is left for this process.

    Args:
        source: the set.
        wanted: images of all processes; None for all of the set.
        sums: what earlier sittings have measured, as the first process knows it.
        together: the processes.
    """
    if isinstance(source, ImageStream):
        return _of_stream(source, wanted, sums, together)
    every = ImageNumbers([(0, len(source))]) if wanted is None else wanted
    assert isinstance(every, ImageNumbers)
    done = ImageNumbers(together.share(sums.reading.numbers.intervals))
    left = every - done
    own = left.share(together.rank, together.world)
    return OwnShare(own, len(every & done), len(every), not len(left), left)


def _of_stream(
    source: ImageStream,
    wanted: ImageNumbers | StreamPart | None,
    sums: PassSums,
    together: Processes,
) -> OwnShare:
    part = wanted if isinstance(wanted, StreamPart) else replace(source.part(), only=wanted)
    n_done, is_whole = together.share([len(sums.reading.numbers), sums.is_whole])
    left = replace(part, seen=sums.reading.seen()).left(source.numbers) if n_done else part
    if n_done and together.world > 1:
        # The others know nothing of what was measured before.
        pieces = [[one.shard, one.modulus, one.residue] for one in left.pieces]
        content = state_in_bytes({"pieces": pieces, "seen": left.seen.state()})
        state = state_from_bytes(together.spread(content))
        left = part.of_pieces(state["pieces"], Seen.from_state(state["seen"]))
    total = 0 if source.limit is None else source.limit
    if isinstance(wanted, StreamPart):
        total = 0
    elif wanted is not None:
        total = len(wanted)
    own = left.share(together.rank, together.world)
    # All images may have been read, but not yet been added up.
    return OwnShare(own, n_done, total, not left.pieces and is_whole)

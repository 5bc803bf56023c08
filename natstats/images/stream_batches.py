"""Batches of a stream: read by a thread, and decoded here or in other processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial

from torch.utils.data import Dataset

from natstats.images.framing import Framing
from natstats.images.image_sets import Sample
from natstats.images.read_ahead import ahead
from natstats.images.stream_numbers import Ended, StreamPart
from natstats.images.streams import ImageStream, RawImage, decoded

__all__ = ["Decoder", "raw_batches"]

_MOST_AHEAD = 1 << 26
"""Bytes that may be read ahead, before they are asked for."""

_OVERHEAD = 1000


class Decoder(Dataset[Sample | Ended]):
    """Decodes images that were read, in any process.

    Args:
        framing: how each is brought to size.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing

    def __getitem__(self, read: RawImage | Ended) -> Sample | Ended:
        """The image, or why it cannot be decoded; an end of a shard as it is."""
        return read if isinstance(read, Ended) else decoded(read, self._framing)


def raw_batches(
    stream: ImageStream,
    batch_size: int,
    part: StreamPart,
    stopped: Callable[[], bool] | None = None,
) -> Generator[list[RawImage | Ended], None, None]:
    """Lists of images in the order in which they are read, with the ends of shards.

    The end of a shard comes in the list of its last image, so that whoever has the images also
    knows that the shard is done.

    Args:
        stream: the stream.
        batch_size: images in a list; the last has those that are left.
        part: what is read of the stream.
        stopped: asked while an image is waited for; where it returns True, the lists end.
    """
    found: list[RawImage | Ended] = []
    n_images = 0
    read = ahead(partial(stream.items, part), _size, _MOST_AHEAD, stopped)
    with contextlib.closing(read) as items:
        for item in items:
            if not isinstance(item, Ended):
                if n_images == batch_size:
                    yield found
                    found, n_images = [], 0
                n_images += 1
            found.append(item)
    if found:
        yield found


def _size(item: RawImage | Ended) -> int:
    data = None if isinstance(item, Ended) else item.data
    return _OVERHEAD + len(data or b"")

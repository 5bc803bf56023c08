"""Photographs that come as a stream: of unknown number, and more than memory or disk may hold.

Shards are read one after the other, in an order that the seed decides, each from its beginning to
its end, without seeking, and only what is being read is kept. One thread reads, however
many processes decode, so that the images come in the same order with any number of them.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.images.formats import opened
from natstats.images.framing import Framing, TooSmallError
from natstats.images.image_sets import Photographs, Sample, as_tensor, reason_of
from natstats.images.pixels import read_rgb
from natstats.images.read_ahead import Abort
from natstats.images.stream_numbers import Ended, Piece, StreamNumbers, StreamPart
from natstats.images.stream_shards import StreamShard
from natstats.images.tar_streams import StreamItem
from natstats.text import printable

__all__ = ["ChangedImagesError", "ImageStream", "RawImage", "decoded"]

_LARGEST_SIDE = 512

_FEWEST_SHARDS, _FEWEST_IMAGES = 64, 16
"""A limited sample comes from at least so many shards; from more if each gives so many images."""


class ChangedImagesError(NatstatsError):
    """An image is not what it was when the stream was read before."""


@dataclass(frozen=True)
class RawImage:
    """An image of a stream, not decoded yet.

    Attributes:
        number: of the image.
        label: what to call it.
        data: bytes of its file; None where it cannot be had.
        reason: why not.
    """

    number: int
    label: str
    data: bytes | None
    reason: str = ""


class ImageStream(Photographs):
    """Photographs that come as a stream.

    Args:
        shards: what is read one after the other, in a fixed order.
        framing: how each photograph is brought to size; by default a square as large as the first
            one allows, at most 512 pixels, unscaled.
        limit: at most this many, in nearly equal numbers from the beginning of every shard, or of
            some shards where there are many.
        seed: seed of the order of the shards.
        description: where they come from, for people.

    Raises:
        UsageError: there is no shard, or no image by which to choose the size.
        NatstatsError: the first shard cannot be read.
    """

    def __init__(
        self,
        shards: Sequence[StreamShard],
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "stream",
    ) -> None:
        if not shards:
            raise UsageError(f"images: expected at least one shard; got none in {description}")
        checks.positive_int("seed", seed, 0)
        order = np.random.default_rng(seed).permutation(len(shards)).tolist()
        n_used = len(shards)
        if limit is not None:
            n_used = min(n_used, limit, max(_FEWEST_SHARDS, limit // _FEWEST_IMAGES))
        self.shards = tuple(shards[place] for place in order[:n_used])
        self.numbers = StreamNumbers(n_used)
        self.limit = limit
        self.description = description
        self._found: tuple[str, ...] = (
            () if limit is None else (_limit_note(limit, n_used, len(shards)),)
        )
        self._of_size = ()
        self.is_whole = False
        if framing is None:
            side, self._of_size = self._side_of_first()
            framing = Framing(side)
        self.framing = framing

    @property
    def n_images(self) -> int | None:
        """Always None: it is known only when all shards have been read to their end."""
        return None

    def __len__(self) -> int:
        """Never known.

        Raises:
            UsageError: always.
        """
        self._refuse()

    def __getitem__(self, number: int) -> Sample:
        """Nothing is sought in a stream, see :meth:`items`.

        Raises:
            UsageError: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            "images: expected images that can be counted and chosen beforehand; "
            f"{printable(self.description)} is a stream"
        )

    def whole(self) -> Photographs:
        """Not possible for a stream.

        Raises:
            UsageError: always.
        """
        self._refuse()

    def chosen(self, numbers: Sequence[int]) -> Photographs:
        """Not possible for a stream.

        Raises:
            UsageError: always.
        """
        self._refuse()

    def contents(self) -> list[bytes]:
        """Not possible for a stream.

        Raises:
            UsageError: always.
        """
        self._refuse()

    def native_size(self, largest: int = _LARGEST_SIDE) -> int:
        """Not possible for a stream.

        Raises:
            UsageError: always.
        """
        self._refuse()

    def label(self, number: int) -> str:
        """Name of the shard of an image, and its place there; an image that is read has a name."""
        shard, position = (int(one[0]) for one in self.numbers.places(np.array([number])))
        return f"{self.shards[shard].name}[{position}]"

    def listing(self) -> str:
        """SHA-256 of the framing, the limit, and the addresses in their order, 16 digits."""
        sha = hashlib.sha256(f"{self.framing}\n{self.limit}\n".encode())
        for shard in self.shards:
            sha.update(f"{shard.address}\n".encode("utf-8", "surrogateescape"))
        return sha.hexdigest()[:16]

    def digest(self) -> str:
        """The same as :meth:`listing`: what the shards hold is known only after reading them."""
        return self.listing()

    def framed(self, framing: Framing) -> ImageStream:
        """The same images brought to another size."""
        again = copy.copy(self)
        again.framing, again._of_size = framing, ()
        return again

    def part(self) -> StreamPart:
        """All of the stream."""
        return StreamPart.whole(len(self.shards))

    def items(
        self, part: StreamPart, abort: Abort | None = None
    ) -> Generator[RawImage | Ended, None, None]:
        """Images of the stream, with a mark at the end of each shard that is done.

        Args:
            part: which images.
            abort: stops the reading, also while it waits.

        Raises:
            ChangedImagesError: an image that was seen before is another now.
            NatstatsError: a shard cannot be read.
        """
        ends = part.ends(self.numbers)
        for piece in part.pieces:
            if ends is None or piece.shard in ends:
                end = self._quota(piece.shard) if ends is None else ends[piece.shard]
                yield from self._of_piece(piece, part, end, abort or Abort())

    def _quota(self, shard: int) -> int | None:
        """Images that are taken of a shard; None for all."""
        if self.limit is None:
            return None
        each, more = divmod(self.limit, len(self.shards))
        return each + (shard < more)

    def _of_piece(
        self, piece: Piece, part: StreamPart, end: int | None, abort: Abort
    ) -> Iterator[RawImage | Ended]:
        shard, others = self.shards[piece.shard], []
        position = 0
        with contextlib.closing(shard.items(abort)) as found:
            for item in found:
                if abort.is_set:
                    return
                if item.is_other:
                    others.append(item.name)
                    continue
                if item.is_last:  # it is numbered behind the images that were seen before
                    position = max(position, part.behind_seen(piece, self.numbers))
                if piece.has(position):
                    image = self._image(piece.shard, position, item, part)
                    if image is not None:
                        yield image
                position += 1
                if position == end:
                    break
        if part.only is None and not abort.is_set:
            yield Ended(piece.shard, position, tuple(others))

    def _image(
        self, shard: int, position: int, item: StreamItem, part: StreamPart
    ) -> RawImage | None:
        """An image that is wanted; None for one that is not, or that was seen before.

        Raises:
            ChangedImagesError: an image that was seen before is another now.
        """
        number = self.numbers.number(shard, position)
        before = part.seen.content(number)
        label = printable(f"{self.shards[shard].name}/{item.name}")
        if before is not None:
            if before != _content(item.data):
                raise ChangedImagesError(
                    f"images: expected a stream that gives the same images each time; {label} was "
                    "another before"
                )
            return None
        if part.only is not None and not part.only.has(number):
            return None
        return RawImage(number, label, item.data, item.reason)

    def _side_of_first(self) -> tuple[int, tuple[str, ...]]:
        """The side of the square to cut out, by the first image that can be read, and a note."""
        reason = ""
        with contextlib.closing(self.items(self.part())) as found:
            for item in found:
                if isinstance(item, Ended):
                    continue
                size = _size(item)
                if not isinstance(size, str):
                    side = min(*size, _LARGEST_SIDE)
                    return side, (
                        f"all images are cut to {side} x {side} pixels because the first one, "
                        f"{item.label}, has {size[0]} x {size[1]}; the sizes of the others are not "
                        "known beforehand (--crop takes another)",
                    )
                reason = reason or f", the first: {item.label}: {size}"
        raise UsageError(
            f"images: expected readable images; got none in {printable(self.description)!r}{reason}"
        )


def decoded(raw: RawImage, framing: Framing) -> Sample:
    """Decode an image, and bring it to size; or say why that cannot be done."""
    content = _content(raw.data)
    if raw.data is None:
        return Sample(raw.number, None, raw.reason, content, label=raw.label)
    try:
        image = read_rgb(io.BytesIO(raw.data))
        framed = framing(image)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        is_small = isinstance(error, TooSmallError)
        reason = reason_of(error)
        return Sample(raw.number, None, reason, content, is_small=is_small, label=raw.label)
    return Sample(raw.number, as_tensor(framed), "", content, framing.enlarges(image))


def _content(data: bytes | None) -> bytes:
    return bytes(32) if data is None else hashlib.sha256(data).digest()


def _size(raw: RawImage) -> tuple[int, int] | str:
    """Width and height of an image, from its header; or why they cannot be told."""
    if raw.data is None:
        return raw.reason
    try:
        with opened(io.BytesIO(raw.data)) as image:
            size: tuple[int, int] = image.size
    except Exception as error:  # as in decoded
        return reason_of(error)
    return size


def _limit_note(limit: int, n_used: int, n_shards: int) -> str:
    """The note that the first images of shards are no random sample."""
    which = f"each of {n_used} of {n_shards} shards" if n_used < n_shards else "every shard"
    return (
        f"at most {limit} images are taken, the first ones of {which}: no random sample of single "
        "images, and those that lie together in a shard may be alike"
    )

"""Numbers of the images of a stream, from shard and position, and how shards are dealt out.

How many images a shard holds is known only when it has been read to its end, so images cannot be
numbered one after the other. Instead every shard has a range of numbers of its own, so what a
number stands for depends neither on what was read before nor on which process reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from natstats.images.image_numbers import ImageNumbers

__all__ = ["STRIDE", "Ended", "Piece", "Seen", "StreamNumbers", "StreamPart", "dealt"]

STRIDE = 4_428_881_171
"""Distance from the first number of one shard to that of the next; no shard has so many images.

The group of an image is its number modulo the number of groups. For 30 usual numbers of groups, 128
first, successive shards begin at groups that are far apart, as with the golden ratio. So groups
fill evenly even from shards with few images. (Of 3,000 numbers tried at random this is the best in
the worst of these cases.)
"""

FIRST = 1024
"""How many low numbers are shared out among the first images of all shards: the spectra of the
images with these numbers are kept one by one (:data:`natstats.spectra.accumulator.KEPT_IMAGES`)."""

_FEW = 8
"""With so many whole shards in each share, those left over are not split to make shares equal."""


@dataclass(frozen=True)
class StreamNumbers:
    """The numbers of the images of a stream.

    Attributes:
        n_shards: shards of the stream.

    >>> numbers = StreamNumbers(2)
    >>> numbers.number(0, 3), numbers.number(1, 0), numbers.number(0, 512) == STRIDE + 512
    (6, 1, True)
    """

    n_shards: int

    @property
    def n_low(self) -> int:
        """How many images of each shard, the first ones, have low numbers."""
        return max(1, FIRST // self.n_shards)

    def number(self, shard: int, position: int) -> int:
        """Number of an image.

        Args:
            shard: place of the shard, from 0.
            position: place of the image among those of the shard, from 0.
        """
        # The first image of every shard, then the second of every one, and so on.
        low = shard + position * self.n_shards
        if position < self.n_low and low < FIRST:
            return low
        return (shard + 1) * STRIDE + position

    def places(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Shards and positions that numbers stand for.

        >>> [place.tolist() for place in StreamNumbers(2).places(np.array([3, 512, STRIDE + 512]))]
        [[1, 0, 0], [1, 256, 512]]
        """
        is_low = numbers < FIRST
        shards = np.where(is_low, numbers % self.n_shards, numbers // STRIDE - 1)
        positions = np.where(is_low, numbers // self.n_shards, numbers % STRIDE)
        return shards, positions


@dataclass(frozen=True)
class Piece:
    """A shard, or an even share of its images.

    Attributes:
        shard: place of the shard.
        modulus: one image in so many belongs to it; 1 for all.
        residue: position of the first of them.
    """

    shard: int
    modulus: int = 1
    residue: int = 0

    def has(self, position: int) -> bool:
        """Whether an image is in the piece."""
        return position % self.modulus == self.residue

    def n_below(self, end: int) -> int:
        """Images of the piece before a position.

        >>> Piece(0, 3, 1).n_below(5)
        2
        """
        return max(0, -(-(end - self.residue) // self.modulus))

    def of(self, positions: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """The given positions that are in the piece; none for None."""
        if positions is None:
            return np.zeros(0, np.int64)
        own: NDArray[np.int64] = positions[positions % self.modulus == self.residue]
        return own

    def share(self, number: int, n_shares: int) -> Piece:
        """Share `number` of `n_shares` of the piece.

        >>> Piece(0, 2, 1).share(1, 3)
        Piece(shard=0, modulus=6, residue=3)
        """
        return Piece(self.shard, self.modulus * n_shares, self.residue + self.modulus * number)


def dealt(pieces: Sequence[Piece], number: int, n_shares: int) -> tuple[Piece, ...]:
    """Share `number` of `n_shares` of pieces: whole ones, and a share of those that are left over.

    Where every share has eight whole pieces or more, those that are left over stay whole, too: a
    piece that is split must be read by all that have a share in it.

    >>> dealt([Piece(0), Piece(1), Piece(2)], 1, 2)
    (Piece(shard=1, modulus=1, residue=0), Piece(shard=2, modulus=2, residue=1))
    """
    n_whole = len(pieces) // n_shares * n_shares
    if n_whole >= _FEW * n_shares:
        n_whole = len(pieces)
    whole, rest = pieces[:n_whole], pieces[n_whole:]
    own = [*whole[number::n_shares]]
    if rest:
        place = number % len(rest)
        n_readers = len(range(place, n_shares, len(rest)))
        own.append(rest[place].share(number // len(rest), n_readers))
    return tuple(own)


class Ended(NamedTuple):
    """The end of a shard.

    Attributes:
        shard: its place.
        n_images: how many it has, with those that cannot be read.
        others: names of pictures of formats that are not read.
    """

    shard: int
    n_images: int
    others: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Seen:
    """Images of a stream that were measured before.

    Attributes:
        numbers: of the images, sorted, (N,).
        contents: SHA-256 of each, (N, 32).
        lengths: images of the shards that were read to their end.
    """

    numbers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    contents: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 32), np.uint8))
    lengths: Mapping[int, int] = field(default_factory=dict)

    def content(self, number: int) -> bytes | None:
        """SHA-256 of an image when it was read before; None where it was not."""
        place = int(np.searchsorted(self.numbers, number))
        if place == len(self.numbers) or self.numbers[place] != number:
            return None
        return bytes(self.contents[place])

    def of(self, shards: Sequence[int], numbers: StreamNumbers) -> Seen:
        """The images of some shards alone."""
        own, _ = numbers.places(self.numbers)
        chosen = np.isin(own, np.array(shards, np.int64))
        return replace(self, numbers=self.numbers[chosen], contents=self.contents[chosen])

    def state(self) -> dict[str, Any]:
        """This object as arrays and plain values, for a state file."""
        lengths = [[shard, n] for shard, n in self.lengths.items()]
        return {"numbers": self.numbers, "contents": self.contents, "lengths": lengths}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Seen:
        """Inverse of :meth:`state`."""
        return cls(state["numbers"], state["contents"], dict(state["lengths"]))


@dataclass(frozen=True, eq=False)
class StreamPart:
    """What is to be read of a stream.

    Attributes:
        pieces: shards, or shares of them, in the order in which they are read.
        only: images that are wanted; None for all of the pieces.
        seen: images that are passed over, as they were measured before.
    """

    pieces: tuple[Piece, ...]
    only: ImageNumbers | None = None
    seen: Seen = field(default_factory=Seen)

    @classmethod
    def whole(cls, n_shards: int, only: ImageNumbers | None = None) -> StreamPart:
        """All of a stream, or these images of it."""
        return cls(tuple(map(Piece, range(n_shards))), only)

    def share(self, number: int, n_shares: int) -> StreamPart:
        """Share `number` of `n_shares` of this part."""
        return replace(self, pieces=dealt(self.pieces, number, n_shares))

    def ends(self, numbers: StreamNumbers) -> dict[int, int] | None:
        """By shard, position of the last wanted image + 1; None where all images are wanted."""
        if self.only is None:
            return None
        wanted = _by_shard(np.fromiter(self.only, np.int64), numbers)
        return {shard: int(positions.max()) + 1 for shard, positions in wanted.items()}

    def left(self, numbers: StreamNumbers) -> StreamPart:
        """The same without the pieces whose wanted images were all seen."""
        seen = _by_shard(self.seen.numbers, numbers)
        wanted = None
        if self.only is not None:
            wanted = _by_shard(np.fromiter(self.only, np.int64), numbers)
        kept = []
        for piece in self.pieces:
            own = piece.of(seen.get(piece.shard))
            if wanted is not None:
                is_left = bool(len(np.setdiff1d(piece.of(wanted.get(piece.shard)), own)))
            else:
                length = self.seen.lengths.get(piece.shard)
                is_left = length is None or len(own) < piece.n_below(length)
            if is_left:
                kept.append(piece)
        known = self.seen.of([piece.shard for piece in kept], numbers)
        return replace(self, pieces=tuple(kept), seen=known)

    def behind_seen(self, piece: Piece, numbers: StreamNumbers) -> int:
        """The first position of a piece behind all of its images that were seen."""
        own = piece.of(_by_shard(self.seen.numbers, numbers).get(piece.shard))
        return int(own.max()) + piece.modulus if len(own) else 0

    def of_pieces(self, pieces: Iterable[Sequence[int]], seen: Seen) -> StreamPart:
        """The same with other pieces, given as plain values."""
        return replace(self, pieces=tuple(Piece(*one) for one in pieces), seen=seen)


def _by_shard(every: NDArray[np.int64], numbers: StreamNumbers) -> dict[int, NDArray[np.int64]]:
    """Positions of images, by their shards."""
    shards, positions = numbers.places(every)
    order = np.argsort(shards, kind="stable")
    found, starts = np.unique(shards[order], return_index=True)
    parts = np.split(positions[order], starts[1:])
    return dict(zip(found.tolist(), parts, strict=True)) if len(found) else {}

"""What all sources of images have in common: fixed numbers and samples.

Every source gives its images fixed numbers: a seeded shuffle of the sorted list decides once, so
which group of resampling an image belongs to depends neither on the batch size nor on the number
of workers, and the first n images are a random sample of all.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.images import contents
from natstats.images.contents import Identity
from natstats.images.formats import opened
from natstats.images.framing import SMALLEST_PHOTOGRAPH, Framing, TooSmallError, common_side
from natstats.images.pixels import fingerprint, read_rgb
from natstats.images.stream_numbers import Ended
from natstats.text import printable

__all__ = [
    "SMALLEST_PHOTOGRAPH",
    "Batch",
    "ImageSet",
    "Photographs",
    "Sample",
    "as_tensor",
    "none_readable",
    "photographs_digest",
    "reason_of",
]

_UNREAD = bytes(32)
"""Stands for the content of an image whose file could not be opened."""

AT_ONCE = 4096
"""Files whose digests are written to the cache together."""


@dataclass(frozen=True)
class Sample:
    """One image of a set, or why it could not be read.

    Attributes:
        number: number of the image in the set.
        image: (C, H, W), or (C, T, H, W) for a clip; None when it could not be read.
        reason: why it could not be read.
        content: SHA-256 of what was read, 32 bytes.
        is_enlarged: whether it was smaller than what it was scaled to.
        is_small: whether it could be read, but is smaller than what is cut out.
        seen: SHA-256 of each file that was read, to be kept (:mod:`natstats.images.contents`).
        label: what to call it, where the set cannot tell from the number.
    """

    number: int
    image: Tensor | None
    reason: str = ""
    content: bytes = _UNREAD
    is_enlarged: bool = False
    is_small: bool = False
    seen: tuple[tuple[Identity, bytes], ...] = ()
    label: str = ""


@dataclass
class Batch:
    """Some images of a set, and those that could not be read.

    Attributes:
        images: (N, C, H, W) or (N, C, T, H, W); photographs are RGB in [0, 1], not linearised,
            float32; arrays are float32, or float64 where that would round their values.
        index: (N,), the images' numbers.
        unreadable: number and reason of each image that was left out.
        n_enlarged: images that were smaller than what they were scaled to.
        contents: 32 bytes for every image, also for those that were left out.
        small: numbers of those that were left out because they are smaller than what is cut out.
        seen: SHA-256 of the files that were read.
        labels: what to call those that were left out, where the set cannot tell from the number.
        ended: of a stream, the shards that were read to their end.
    """

    images: Tensor
    index: Tensor
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    n_enlarged: int = 0
    contents: bytes = b""
    small: tuple[int, ...] = ()
    seen: tuple[tuple[Identity, bytes], ...] = ()
    labels: Mapping[int, str] = field(default_factory=dict)
    ended: tuple[Ended, ...] = ()


class ImageSet(Dataset[Sample]):
    """A finite, numbered set of images of one size."""

    description: str
    """Where the images come from, for people."""

    notes: tuple[str, ...] = ()
    """What a reader of the results must know of how the images were found."""

    @property
    def n_images(self) -> int | None:
        """Number of images; None where it is not known beforehand."""
        return len(self)

    def __len__(self) -> int:
        """Number of images."""
        raise NotImplementedError

    def __getitem__(self, number: int) -> Sample:
        """The image of this number, or why it cannot be read."""
        raise NotImplementedError

    def label(self, number: int) -> str:
        """What to call an image when speaking of it."""
        raise NotImplementedError

    def digest(self) -> str:
        """Hexadecimal digits that tell this set of images from others, by their contents, too."""
        raise NotImplementedError

    def listing(self) -> str:
        """The digest without contents where these are in files, as it was before 0.5.0."""
        return self.digest()


def ordered(n: int, limit: int | None, seed: int) -> list[int]:
    """Places of the first `limit` of n images in the seeded order."""
    checks.positive_int("seed", seed, 0)
    order = np.random.default_rng(seed).permutation(n)[: n if limit is None else limit]
    return [int(place) for place in order]


def reason_of(error: Exception) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the label has already
    if isinstance(error, FileNotFoundError):
        # fsspec raises this, with the address and nothing else, whatever a server refused.
        cause = error.__cause__
        return reason_of(cause) if isinstance(cause, Exception) else "there is none"
    return printable(" ".join(str(error).split())) or type(error).__name__


def none_readable(n: int, first: str) -> NatstatsError:
    """The error of a set of which no image can be read.

    Args:
        n: how many it has.
        first: name of the first, and what is wrong with it.

    >>> print(none_readable(2, "a.png: truncated"))
    images: expected a readable image; all 2 are unreadable, the first: a.png: truncated
    """
    return NatstatsError(
        f"images: expected a readable image; all {n} are unreadable, the first: {first}"
    )


class Photographs(ImageSet):
    """Photographs that are framed as they are read.

    A subclass defines :meth:`open`, :meth:`label`, :meth:`n_bytes` and, for files,
    :meth:`identities`; it calls the constructor when these can be used.

    Args:
        n: how many there are.
        framing: how each is brought to size; by default the largest square of at most 512 pixels
            that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.
        notes: what a reader of the results must know of how they were found.
    """

    def __init__(
        self,
        n: int,
        framing: Framing | None,
        limit: int | None,
        seed: int,
        description: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.places = ordered(n, limit, seed)
        self.description = description
        self._found = tuple(notes)
        self._of_size: tuple[str, ...] = ()
        self.is_whole = False
        if framing is None:
            side, self._of_size = self._usual_side(512)
            framing = Framing(side)
        self.framing = framing

    @property
    def notes(self) -> tuple[str, ...]:  # type: ignore[override]
        """What a reader of the results must know of how the images were found and cut."""
        return (*self._found, *self._of_size)

    def framed(self, framing: Framing) -> Photographs:
        """The same images brought to another size."""
        again = copy.copy(self)
        again.framing = framing
        again._of_size = ()
        return again

    def whole(self) -> Photographs:
        """The same images uncut, each of its own size; they cannot be put into batches."""
        again = copy.copy(self)
        again.is_whole = True
        return again

    def chosen(self, numbers: Sequence[int]) -> Photographs:
        """The images of these numbers, renumbered in their order."""
        again = copy.copy(self)
        again.places = [self.places[number] for number in numbers]
        return again

    def open(self, number: int) -> BinaryIO | Image.Image:
        """The file of an image, or the image where there is no file."""
        raise NotImplementedError

    def n_bytes(self, number: int) -> int:
        """Size of the file; 0 where there is none."""
        raise NotImplementedError

    def identities(self, number: int) -> tuple[Identity, ...]:
        """The identity of the file, in a tuple of one; empty where there is no file."""
        return ()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        """Number and image, uint8 (3, H, W), or the reason why it could not be read."""
        content, before = _UNREAD, self.identities(number)
        seen: tuple[tuple[Identity, bytes], ...] = ()
        try:
            with self.open(number) as source:
                content = fingerprint(source)
                seen = self._seen(number, before, content)
                image = read_rgb(source)
            framed = image if self.is_whole else self.framing(image)
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            is_small = isinstance(error, TooSmallError)
            return Sample(number, None, reason_of(error), content, is_small=is_small, seen=seen)
        enlarged = self.framing.enlarges(image)
        return Sample(number, as_tensor(framed), "", content, enlarged, seen=seen)

    def _seen(
        self, number: int, before: tuple[Identity, ...], content: bytes
    ) -> tuple[tuple[Identity, bytes], ...]:
        """The digest of a file by its identity; empty where the file changed while it was read."""
        return tuple((one, content) for one in before) if self.identities(number) == before else ()

    def digest(self) -> str:
        """SHA-256 of the framing and the files' names, sizes and contents, 16 digits.

        A file that was read before, here or when it was measured, is not read again as long as it
        is unchanged (:mod:`natstats.images.contents`).
        """
        return photographs_digest(self.listing(), self.contents())

    def listing(self) -> str:
        """SHA-256 of the framing and the files' names and sizes (not contents), 16 digits."""
        listing = "\n".join(
            f"{self.label(number)} {self.n_bytes(number)}" for number in range(len(self))
        )
        return hashlib.sha256(f"{self.framing}\n{listing}".encode()).hexdigest()[:16]

    def contents(self) -> list[bytes]:
        """SHA-256 of every image's file, or of its pixels where there is none, 32 bytes each.

        Zeros stand for a file that cannot be opened. For some of the images only, call this on the
        set of these (:meth:`chosen`).
        """
        identities = [self.identities(number) for number in range(len(self))]
        kept = contents.known(one for own in identities for one in own)
        found = [kept.get(own[0]) if own else None for own in identities]
        missing = [number for number, content in enumerate(found) if content is None]
        in_files = all(identities[number] for number in missing)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1) if in_files else 1) as pool:
            for start in range(0, len(missing), AT_ONCE):
                part, read_at = missing[start : start + AT_ONCE], contents.now()
                seen: dict[Identity, bytes] = {}
                for number, (content, own) in zip(part, pool.map(self._read, part), strict=True):
                    found[number] = content
                    seen.update(own)
                contents.keep(seen, read_at)
        return [_UNREAD if content is None else content for content in found]

    def _read(self, number: int) -> tuple[bytes, tuple[tuple[Identity, bytes], ...]]:
        before = self.identities(number)
        try:
            with self.open(number) as source:
                content = fingerprint(source)
        except Exception:  # as in __getitem__, which will say why
            return _UNREAD, ()
        return content, self._seen(number, before, content)

    def native_size(self, largest: int = 512) -> int:
        """Side of the square to cut out of the photographs unscaled, at most `largest` pixels.

        It fits all of them, but for a few that are far smaller, see
        :func:`natstats.images.framing.common_side`. Only the headers of files are read; files
        without a readable one are skipped.

        Raises:
            UsageError: no photograph could be opened.
        """
        return self._usual_side(largest)[0]

    def _usual_side(self, largest: int) -> tuple[int, tuple[str, ...]]:
        """The native size, and a note where one image decides it though others are far larger."""
        found = [self.original_size(number) for number in range(len(self))]
        sizes = {number: one for number, one in enumerate(found) if not isinstance(one, str)}
        if not sizes:
            raise UsageError(
                f"images: expected readable images; got none in {printable(self.description)!r}, "
                f"the first: {self.label(0)}: {found[0]}"
            )
        numbers, sides = list(sizes), [min(size) for size in sizes.values()]
        side, place = common_side(sides, largest)
        if place is None:
            return side, ()
        width, height = sizes[numbers[place]]
        note = (
            f"all images are cut to {side} x {side} pixels because {self.label(numbers[place])} "
            f"has only {width} x {height}; half of them have {int(np.median(sides))} or more on "
            "their shorter side"
        )
        return side, (note,)

    def original_size(self, number: int) -> tuple[int, int] | str:
        """Width and height, of a file from its header; or why they cannot be told."""
        try:
            with self.open(number) as source:
                if isinstance(source, Image.Image):
                    return source.size
                with opened(source) as image:
                    return image.size
        except Exception as error:  # as in __getitem__, which will say so
            return reason_of(error)


def photographs_digest(listing: str, contents: Iterable[bytes]) -> str:
    """The digest of photographs, from their listing and the digests of their contents."""
    sha = hashlib.sha256(listing.encode())
    for content in contents:
        sha.update(content)
    return sha.hexdigest()[:16]


def as_tensor(image: Image.Image) -> Tensor:
    """The pixels of an RGB image, uint8 (3, H, W)."""
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous()

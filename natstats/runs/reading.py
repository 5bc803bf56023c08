"""What becomes known of a set of images only as it is read; its parts can be added up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.errors import NatstatsError, UsageError
from natstats.fits.intervals import FEWEST_GROUPS
from natstats.images.clips import ClipFolders
from natstats.images.folder_walk import left_out_note
from natstats.images.image_numbers import ImageNumbers
from natstats.images.image_sets import none_readable, photographs_digest
from natstats.images.sources import Batch, ImageSet, Photographs
from natstats.images.stream_numbers import Ended, Seen
from natstats.images.streams import ImageStream
from natstats.numbers import short
from natstats.runs.run import Run
from natstats.text import printable

__all__ = ["Reading", "SourceFacts"]

_BYTES = 20.0
"""Images with values above this are taken to be in 0 to 255 and not normalised."""


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a set of images before it is read.

    Attributes:
        description: where the images come from, for people.
        n_images: how many there are; None where that is not known beforehand.
        listing: digest of their names, sizes and framing.
        digest: digest that covers their contents, too; empty for files, which are not read for it.
        notes: what a reader of the results must know of how they were found.
        is_photographs: they are framed and normalised.
        size: side of the square that enters, pixels; None where they are taken as they are.
        resize: side to which photographs are scaled, pixels; None where they are not.
        interpolation: how they are scaled; None where they are not.
        frames: frames of a clip; None for single images.
        n_shards: number of shards of a stream; None for all other sets.
    """

    description: str
    n_images: int | None
    listing: str
    digest: str
    notes: tuple[str, ...]
    is_photographs: bool
    size: int | None = None
    resize: int | None = None
    interpolation: str | None = None
    frames: int | None = None
    n_shards: int | None = None

    @classmethod
    def of(cls, source: ImageSet) -> SourceFacts:
        """The facts of a set."""
        if not isinstance(source, Photographs):
            digest = source.digest()
            n_images = source.n_images
            return cls(source.description, n_images, digest, digest, tuple(source.notes), False)
        framing = source.framing
        return cls(
            source.description,
            source.n_images,
            source.listing(),
            "",
            tuple(source.notes),
            True,
            framing.size,
            framing.resize,
            None if framing.resize is None else framing.interpolation,
            source.frames if isinstance(source, ClipFolders) else None,
            len(source.shards) if isinstance(source, ImageStream) else None,
        )


class Reading:
    """What has been found out about the images of a set; those of its parts can be merged.

    Args:
        facts: of the set.

    Attributes:
        facts: of the set.
        n_read: images that were measured.
        n_enlarged: images that were smaller than what they were scaled to.
        range: smallest and largest value of images that are taken as they are; else None.
    """

    def __init__(self, facts: SourceFacts) -> None:
        self.facts = facts
        self.n_read = 0
        self.n_enlarged = 0
        self.range: tuple[float, float] | None = None
        self._left_out: dict[int, str] = {}
        self._small: dict[int, str] = {}
        self._numbers: list[NDArray[np.int64]] = []
        self._contents: list[NDArray[np.uint8]] = []
        self._ended: dict[int, Ended] = {}

    def add(self, batch: Batch, source: ImageSet) -> None:
        """Take note of a batch of the set."""
        for number, reason in batch.unreadable:
            self._left_out[number] = f"{_label(number, batch, source)}: {reason}"
        self._small |= {number: _label(number, batch, source) for number in batch.small}
        self._ended |= {one.shard: one for one in batch.ended}
        self.n_read += len(batch.index)
        self.n_enlarged += batch.n_enlarged
        left_out = [number for number, _ in batch.unreadable]
        numbers = np.sort(np.concatenate([batch.index.cpu().numpy(), np.array(left_out, np.int64)]))
        self._numbers.append(numbers.astype(np.int64))
        self._contents.append(np.frombuffer(batch.contents, np.uint8).reshape(-1, 32))
        if len(batch.index) and not isinstance(source, Photographs):
            low, high = (float(value) for value in batch.images.aminmax())
            self._widen((low, high))

    def _widen(self, values: tuple[float, float]) -> None:
        before = self.range or values
        self.range = min(before[0], values[0]), max(before[1], values[1])

    @property
    def numbers(self) -> ImageNumbers:
        """Numbers of the images that were read, also of those that were left out."""
        return ImageNumbers.of(self._all()[0])

    def _all(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Numbers of the images that were read, in order, and digests of their contents."""
        numbers = np.concatenate([np.zeros(0, np.int64), *self._numbers])
        contents = np.concatenate([np.zeros((0, 32), np.uint8), *self._contents])
        order = np.argsort(numbers, kind="stable")
        self._numbers, self._contents = [numbers[order]], [contents[order]]
        return self._numbers[0], self._contents[0]

    @property
    def n_images(self) -> int | None:
        """How many images the set has; None of a stream that was not read to the end."""
        if self.facts.n_shards is None:
            return self.facts.n_images
        is_known = len(self._ended) == self.facts.n_shards
        return sum(one.n_images for one in self._ended.values()) if is_known else None

    def seen(self) -> Seen:
        """What is known of the images of a stream."""
        numbers, contents = self._all()
        return Seen(numbers, contents, {one.shard: one.n_images for one in self._ended.values()})

    @property
    def left_out(self) -> list[str]:
        """Name and reason of every image that was left out, unreadable or too small."""
        return [self._left_out[number] for number in sorted(self._left_out)]

    @property
    def small(self) -> list[str]:
        """Names of the images that could be read, but are smaller than what is cut out."""
        return [self._small[number] for number in sorted(self._small)]

    def contents(self) -> str:
        """SHA-256 over the contents of all images in the order of their numbers, 16 digits.

        It covers neither names nor framing: the same images under the same numbers have the same
        digest, wherever they lie and whatever was cut from them.
        """
        return hashlib.sha256(self._all()[1].tobytes()).hexdigest()[:16]

    def digest(self) -> str:
        """Digest of the images that were read: names, sizes, framing and contents."""
        if self.facts.digest:
            return self.facts.digest
        return photographs_digest(self.facts.listing, map(bytes, self._all()[1]))

    def is_of(self, source: ImageSet) -> bool:
        """Whether the images that were read still have the same contents.

        True for a stream, whose images are checked as they are read.

        Args:
            source: the set, whose listing is the same.
        """
        numbers, contents = self._all()
        if isinstance(source, ImageStream):
            return True
        if not isinstance(source, Photographs):
            return self.facts.digest == source.digest()
        now = source.chosen([int(number) for number in numbers]).contents()
        return b"".join(now) == contents.tobytes()

    def shared_with(self, other: Reading) -> int:
        """Number of different images of the other with the same contents as one of these."""
        own, theirs = ({*map(bytes, one._all()[1])} for one in (self, other))
        return len((own & theirs) - {bytes(32)})

    def merge(self, other: Reading) -> None:
        """Add what was found out about other images of the same set."""
        self.n_read += other.n_read
        self.n_enlarged += other.n_enlarged
        self._left_out |= other._left_out
        self._small |= other._small
        self._numbers += other._numbers
        self._contents += other._contents
        self._ended |= other._ended
        if other.range is not None:
            self._widen(other.range)

    def renumber(self, by: int) -> None:
        """Add `by` to the number of every image."""
        self._numbers = [numbers + by for numbers in self._numbers]
        self._ended = {}
        self._left_out = {number + by: text for number, text in self._left_out.items()}
        self._small = {number + by: text for number, text in self._small.items()}

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later: arrays and plain values."""
        numbers, contents = self._all()
        return {
            "facts": asdict(self.facts),
            "n_read": self.n_read,
            "n_enlarged": self.n_enlarged,
            "range": self.range,
            "left_out": list(self._left_out.items()),
            "small": list(self._small.items()),
            "numbers": numbers,
            "contents": contents,
            "ended": list(self._ended.values()),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Reading:
        """Inverse of :meth:`state`."""
        facts = dict(state["facts"])
        again = cls(SourceFacts(**{**facts, "notes": tuple(facts["notes"])}))
        again.n_read, again.n_enlarged = state["n_read"], state["n_enlarged"]
        again.range = None if state["range"] is None else tuple(state["range"])
        again._left_out = dict(state["left_out"])
        again._small = dict(state["small"])
        again._numbers, again._contents = [state["numbers"]], [state["contents"]]
        for shard, n_images, others in state.get("ended", []):  # version 0.10.0 had no streams
            again._ended[int(shard)] = Ended(int(shard), int(n_images), tuple(map(str, others)))
        return again

    def refuse(self, strict: bool) -> None:
        """Raise an error where images were left out that must not be.

        Raises:
            UsageError: all images are too small.
            NatstatsError: there is none, none can be read, or one cannot and `strict` is set.
        """
        if self.n_images == 0:
            where = printable(self.facts.description)
            raise NatstatsError(f"images: expected at least one image; got none in {where!r}")
        if not self._left_out:
            return
        n, first = self.n_images, self.left_out[0]
        if strict:
            raise NatstatsError(f"images: expected readable images only; {first}")
        if n is None:  # the rest of a stream may hold others
            return
        if len(self._small) == n:
            raise UsageError(
                f"crop: expected at most the shorter side of the images; {self._are_smaller(n)}: "
                f"{first}"
            )
        if len(self._left_out) == n:
            raise none_readable(n, first)

    def _are_smaller(self, n: int) -> str:
        size, n_small = self.facts.size, len(self._small)
        which = f"all {n} are" if n_small == n else f"{n_small} of {n} images are"
        if n == 1:
            which = "it is"
        elif n_small == 1:
            which = f"1 of {n} images is"
        return f"{which} smaller than the crop of {size} x {size} pixels"

    def warnings(self) -> list[str]:
        """What a reader of the results must know."""
        said = list(self.facts.notes)
        n = self.facts.n_images
        n, small = len(self.numbers) if n is None else n, self.small
        said += self._stream_warnings()
        if small:
            listed = ", ".join(small[:3]) + (" and others" if len(small) > 3 else "")
            were = "was" if len(small) == 1 else "were"
            said.append(f"{self._are_smaller(n)} and {were} left out: {listed}")
        if self.n_enlarged:
            were, they = ("was", "it was") if self.n_enlarged == 1 else ("were", "they were")
            said.append(
                f"{self.n_enlarged} of {n} images {were} smaller than what {they} scaled to; an "
                "enlarged image has little power at its highest frequencies"
            )
        return said

    def _stream_warnings(self) -> list[str]:
        """What a reader must know of a stream that was read, or was not read to the end."""
        n_shards, ended = self.facts.n_shards, self._ended
        if n_shards is None:
            return []
        others = [name for one in ended.values() for name in one.others]
        said = [left_out_note(others)] if others else []
        if self.n_images is None and len(self.numbers):
            said.append(
                f"{len(ended)} of {n_shards} shards were read to their end: the images are no "
                "random sample of single images, and those that lie together in a shard may be "
                "alike; how many there are in all is not known"
            )
        return said

    def few_images_warning(self, run: Run) -> list[str]:
        """What can still be told of fewer images than an interval takes: their own exponents."""
        if not 0 < self.n_read < FEWEST_GROUPS:
            return []
        images = "1 image was" if self.n_read == 1 else f"{self.n_read} images were"
        own = " and ".join(f"{alpha:.2f}" for alpha in run.fits.layers[0].image_exponents)
        by_itself = "by itself it has" if self.n_read == 1 else "by themselves they have"
        return [
            f"{images} measured; an interval needs at least {FEWEST_GROUPS}, and no exponent is "
            "given without an interval"
            + (f" ({by_itself} {own}, {run.spectra[0].layer.name})" if own else "")
        ]

    def range_warnings(self, expected: Mapping[str, list[float]] | None) -> list[str]:
        """A hint where the values of an array do not look like what a network expects.

        Args:
            expected: mean and std that the network expects; None where that is not known.
        """
        if self.range is None:
            return []
        low, high = self.range
        shown = f"the values of the images are from {short(low)} to {short(high)}"
        if low >= 0 and high > _BYTES:
            return [
                f"{shown} and entered as they are; networks for photographs mostly expect them "
                "divided by 255, and normalised where they were trained so"
            ]
        is_normalised = expected is not None and (
            any(expected["mean"]) or {*expected["std"]} != {1.0}
        )
        if low >= 0 and high <= 1 and is_normalised:
            assert expected is not None
            mean, std = (" ".join(short(v) for v in expected[part]) for part in ("mean", "std"))
            return [
                f"{shown} and entered as they are; the network expects them less the mean {mean} "
                f"and divided by the standard deviation {std}, as is done for photographs"
            ]
        return []

    def image_facts(
        self, n_images: int, normalisation: Mapping[str, list[float]] | None = None
    ) -> dict[str, Any]:
        """Which images were measured, and what was done to bring them to size and range.

        Args:
            n_images: images that were summed.
            normalisation: mean and standard deviation to which photographs were brought.
        """
        facts = self.facts
        return {
            "source": facts.description,
            "n_images": n_images,
            "n_in_set": self.n_images,
            "digest": self.digest(),
            "listing": facts.listing,
            "contents": self.contents(),
            "size": facts.size,
            "resize": facts.resize,
            "interpolation": facts.interpolation,
            "n_enlarged": self.n_enlarged,
            "frames": facts.frames,
            "normalisation": normalisation,
            "n_unreadable": len(self._left_out),
            "n_too_small": len(self._small),
            "unreadable": self.left_out[:1000],
        }


def _label(number: int, batch: Batch, source: ImageSet) -> str:
    """What to call an image that was left out."""
    return batch.labels.get(number) or source.label(number)

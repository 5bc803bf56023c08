"""Images with a class each: held in memory if they fit, otherwise read when needed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from natstats.errors import NatstatsError
from natstats.images.image_sets import ImageSet, Photographs, Sample
from natstats.images.workers import from_workers

__all__ = ["MEMORY_LIMIT", "LabelledImages", "load_labelled"]

MEMORY_LIMIT = 1 << 30
"""Bytes of decoded images up to which a set is held in memory."""

_MANY = 4096


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """A fixed set of images with a class each.

    Attributes:
        photographs: where the images are read from.
        labels: (n,), int64, places in the list of classes.
        is_whole: True for images of any size, to be cut at random and scaled afterwards; False
            for images that are framed as they are read.
        held: the images if they are in memory, uint8: (n, 3, size, size), or n tensors (3, H, W)
            if they are whole; None where they are read when they are needed.
        contents: SHA-256 of what was read for each image, 32 bytes; None where not all were read.
        unreadable: name and reason of every image that was left out.
        n_enlarged: images that were smaller than what they were scaled to, as far as known.
        flips: False where a mirror image is no image of its class, as with digits.
    """

    photographs: Photographs
    labels: Tensor
    is_whole: bool = False
    held: Tensor | list[Tensor] | None = None
    contents: tuple[bytes, ...] | None = None
    unreadable: tuple[str, ...] = ()
    n_enlarged: int = 0
    flips: bool = True

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    @property
    def size(self) -> int:
        """Side of the framed images, pixels."""
        return self.photographs.framing.size

    @property
    def names(self) -> list[str]:
        """Names of the images: ``val/CLASS/FILE``, or ``[PLACE]`` in a data set in one file."""
        return [self.photographs.label(number) for number in range(len(self))]

    def read(self, index: Sequence[int]) -> Tensor | list[Tensor]:
        """Images by their places, in the form in which they are held or would be.

        Raises:
            NatstatsError: one cannot be read; the sentence names it.
        """
        if isinstance(self.held, Tensor):
            return self.held[torch.as_tensor(index)]
        if self.held is not None:
            return [self.held[place] for place in index]
        reader = self.photographs.whole() if self.is_whole else self.photographs
        found = []
        for place in index:
            sample = reader[place]
            if sample.image is None:
                label = self.photographs.label(place)
                raise NatstatsError(_unreadable([f"{label}: {sample.reason}"]))
            found.append(sample.image)
        return found if self.is_whole else torch.stack(found)

    def digest(self) -> str:
        """16 digits for names, sizes and contents of files, framing and labels."""
        return self._with_labels(self.photographs.digest())

    def listing(self) -> str:
        """The same without contents: what a digest was before 0.5.0."""
        return self._with_labels(self.photographs.listing())

    def _with_labels(self, digest: str) -> str:
        sha = hashlib.sha256(digest.encode())
        sha.update(self.labels.numpy().tobytes())
        return sha.hexdigest()[:16]

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of every channel over all pixels, values in [0, 1].

        For sets not in memory it is taken over 4096 images, evenly spread.
        """
        n = len(self)
        places = range(n)
        if self.held is None and n > _MANY:
            places = np.linspace(0, n - 1, _MANY).astype(int).tolist()
        total, squares, count = np.zeros(3), np.zeros(3), 0
        for start in range(0, len(places), 64):
            for image in self.read(places[start : start + 64]):
                values = image.flatten(1).double() / 255
                total += values.sum(1).numpy()
                squares += values.square().sum(1).numpy()
                count += values.shape[1]
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        # A channel without any variation is left as it is.
        return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def load_labelled(
    photographs: Photographs,
    labels: NDArray[np.int64],
    *,
    is_whole: bool = False,
    strict: bool = True,
    memory_limit: int = MEMORY_LIMIT,
    workers: int = 0,
) -> LabelledImages:
    """Read a set of labelled images into memory if it fits there.

    A set that does not fit is not read beforehand, unless unreadable images are to be left out:
    then all are read once to find them.

    Args:
        photographs: the images.
        labels: (n,), their classes.
        is_whole: keep the images uncut, for random resized crops, instead of framing them.
        strict: fail on an unreadable image instead of skipping it.
        memory_limit: bytes of decoded images.
        workers: processes that read.

    Raises:
        NatstatsError: an image cannot be read; the sentence names it.
    """
    fits = _fits(photographs, is_whole, memory_limit)
    if not fits and strict:
        return LabelledImages(photographs, torch.from_numpy(labels), is_whole)
    good: list[int] = []
    held: list[Tensor] = []
    contents: list[bytes] = []
    failures: list[str] = []
    n_enlarged = 0
    for sample in _samples(photographs.whole() if is_whole else photographs, workers):
        if sample.image is None:
            failures.append(f"{photographs.label(sample.number)}: {sample.reason}")
            continue
        good.append(sample.number)
        contents.append(sample.content)
        n_enlarged += sample.is_enlarged
        if fits:
            # Copied: a tensor from a worker is shared memory, with a file descriptor of its own.
            held.append(sample.image.clone() if workers else sample.image)
    if failures and strict:
        raise NatstatsError(_unreadable(failures))
    return LabelledImages(
        photographs.chosen(good),
        torch.from_numpy(labels[good]),
        is_whole,
        (held if is_whole or not held else torch.stack(held)) if fits else None,
        tuple(contents),
        tuple(failures),
        n_enlarged,
    )


def _samples(images: ImageSet, workers: int) -> Iterator[Sample]:
    loader = DataLoader(
        images,
        batch_size=64,
        num_workers=workers,
        collate_fn=list,
        generator=torch.Generator(),  # else the loader draws from torch's own
    )
    return (sample for batch in from_workers(loader) for sample in batch)


def _unreadable(failures: list[str]) -> str:
    more = f" ({len(failures)} images in all)" if len(failures) > 1 else ""
    return f"data: expected readable images; cannot read {failures[0]}{more}"


def _fits(photographs: Photographs, is_whole: bool, limit: int) -> bool:
    if not is_whole:
        return 3 * photographs.framing.size**2 * len(photographs) <= limit
    n_bytes = 0
    for number in range(len(photographs)):
        size = photographs.original_size(number)
        if isinstance(size, str):
            continue  # it cannot be read, which is reported when it is tried
        n_bytes += 3 * size[0] * size[1]
        if n_bytes > limit:
            return False
    return True

"""Images that a program holds: lists of images, and data sets and loaders of torch.

What looks like a photograph is one: PIL images and whole numbers of 8 bits become RGB and are
framed like files. Floats are numbers already, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    default_collate,
    default_convert,
)

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.images.arrays import ImageArray, held_values
from natstats.images.files import ImageFiles
from natstats.images.framing import Framing
from natstats.images.held_images import (
    EXPECTED,
    KEYS,
    as_numbers,
    as_photograph,
    content_of,
    image_in,
    of_floats,
)
from natstats.images.image_sets import ImageSet, Photographs, Sample, ordered, reason_of
from natstats.images.pixels import fingerprint
from natstats.text import printable

__all__ = ["DatasetArrays", "HeldImages", "images_of_list", "images_of_torch", "is_held"]

RANDOM = (
    "the data set gives another image each time that it is asked for one, as random transforms do: "
    "what was measured cannot be resumed, nor be compared image by image"
)
"""Note on a data set whose images differ each time."""

PROBED = 32
"""How many images tell a data set from others; all of them would have to be read once more."""


def is_held(source: Any) -> bool:
    """Whether a value is a list of images, or a data set or loader of torch."""
    return isinstance(source, list | tuple | Dataset | DataLoader)


def _named(value: object) -> str:
    return printable(type(value).__name__)[:80]


class HeldImages(Photographs):
    """Photographs that a program holds, in a list or in a data set of torch.

    Args:
        items: each an image, a tuple with one, or a dict with one.
        framing: how each is brought to size; by default the largest square of at most 512 pixels
            that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.
        notes: what a reader of the results must know of them.
        n_probed: number of images by which this set is told from others before it is measured; None
            for all.
        is_random: whether they differ each time that they are asked for.
    """

    def __init__(
        self,
        items: Any,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "list",
        notes: Sequence[str] = (),
        n_probed: int | None = None,
        is_random: bool = False,
    ) -> None:
        self.items = items
        self._n_probed = n_probed
        self._is_random = is_random
        notes = [*notes, *([RANDOM] if is_random else [])]
        super().__init__(len(items), framing, limit, seed, description, notes)

    def open(self, number: int) -> Image.Image:
        """The image."""
        image = image_in(self.items[self.places[number]])
        found = as_photograph(image)
        return of_floats(as_numbers(image)) if found is None else found

    def n_bytes(self, number: int) -> int:
        """Always 0: there is no file."""
        return 0

    def label(self, number: int) -> str:
        """Place of an image in the list."""
        return f"[{self.places[number]}]"

    def listing(self) -> str:
        """SHA-256 of the framing, the places and the contents of the probed images, 16 digits."""
        sha = hashlib.sha256(f"{self.framing} {len(self.items)} {self.places}".encode())
        for number in _some(len(self), self._n_probed):
            sha.update(self._read(number)[0])
        if self._is_random:
            sha.update(os.urandom(16))
        return sha.hexdigest()[:16]


class DatasetArrays(ImageSet):
    """Floats (C, H, W) of a data set of torch, taken as they are and read when they are needed.

    Args:
        items: each an image, a tuple with one, or a dict with one.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.
        is_random: whether they differ each time that they are asked for.

    Raises:
        UsageError: the first image is below 5 x 5 pixels.
    """

    def __init__(
        self,
        items: Any,
        limit: int | None = None,
        seed: int = 0,
        description: str = "data set",
        is_random: bool = False,
    ) -> None:
        self.items = items
        self.places = ordered(len(items), limit, seed)
        self.description = description
        self.shape = as_numbers(image_in(items[0])).shape
        checks.spatial_shape("images", self.shape[-2], self.shape[-1], checks.MINIMUM_SIDE)
        self._is_random = is_random
        self.notes = (RANDOM,) if is_random else ()

    def _numbers(self, number: int) -> np.ndarray[Any, Any]:
        return as_numbers(image_in(self.items[self.places[number]]))

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        """Number and image, float32, or float64 where that would round the values."""
        try:
            image = self._numbers(number)
            if image.shape != self.shape:
                raise NatstatsError(f"expected shape {self.shape}; got {image.shape}")
        except Exception as error:  # a data set raises whatever its transforms do
            return Sample(number, None, reason_of(error))
        return Sample(number, torch.from_numpy(held_values(image)), content=content_of(image))

    def label(self, number: int) -> str:
        """Place of an image in the data set."""
        return f"[{self.places[number]}]"

    def digest(self) -> str:
        """SHA-256 of the order and of some images, 16 digits; another each time for random images.

        To include all images, all would have to be read once more. What a run keeps as ``contents``
        covers all images that it read.
        """
        sha = hashlib.sha256(f"{self.shape} {len(self.items)} {self.places}".encode())
        for number in _some(len(self), PROBED):
            sha.update(self[number].content)
        if self._is_random:
            sha.update(os.urandom(16))
        return sha.hexdigest()[:16]


def _some(n: int, most: int | None) -> list[int]:
    """At most `most` of n numbers, evenly spaced; all where it is None.

    >>> _some(4, None), _some(9, 3)
    ([0, 1, 2, 3], [0, 4, 8])
    """
    if most is None or n <= most:
        return list(range(n))
    return [round(place) for place in np.linspace(0, n - 1, most)]


def images_of_list(
    items: Sequence[Any], framing: Framing | None = None, limit: int | None = None, seed: int = 0
) -> ImageSet:
    """The images of a list: paths, PIL images, arrays or tensors.

    Photographs (PIL images and 8 bits) may be of different sizes, as files may. Floats (C, H, W) of
    one size are taken as they are; those of different sizes must be in [0, 1], and become
    photographs of 8 bits.

    Raises:
        UsageError: the list is empty, or holds something else; the first such item is named.

    >>> images_of_list([np.zeros((8, 9, 3), np.uint8)] * 4)[0].image.shape
    torch.Size([3, 8, 8])
    >>> images_of_list([])
    Traceback (most recent call last):
    natstats.errors.UsageError: images: expected at least one image; got an empty list
    """
    if not len(items):
        raise UsageError("images: expected at least one image; got an empty list")
    if all(isinstance(one, str | Path) for one in items):
        paths = sorted({Path(os.path.expanduser(one)) for one in items})
        missing = next((path for path in paths if not path.is_file()), None)
        if missing is not None:
            raise UsageError(
                f"images: expected paths of images in the list; {printable(missing)} is no file"
            )
        base = Path(os.path.commonpath([path.absolute().parent for path in paths]))
        absolute = [path.absolute() for path in paths]
        return ImageFiles(absolute, base, framing, limit, seed, f"list of {len(paths)} paths")
    floats = [_floats_of(item, place) for place, item in enumerate(items)]
    description = f"list of {len(items)} images"
    arrays = [one for one in floats if one is not None]
    if len(arrays) == len(items) and len({one.shape for one in arrays}) == 1:
        return ImageArray(np.stack(arrays), limit, seed, description)
    if arrays:
        for place, one in enumerate(floats):
            _check_photograph(one, place)
    notes = ["floats were rounded to 8 bits, as photographs have"] if arrays else []
    return HeldImages(items, framing, limit, seed, description, notes)


def _floats_of(item: Any, place: int) -> np.ndarray[Any, Any] | None:
    """The floats of an item of a list; None for a photograph.

    Raises:
        UsageError: it is no image.
    """
    try:
        image = image_in(item)
        is_float = not isinstance(image, Image.Image) and as_photograph(image) is None
        return as_numbers(image) if is_float else None
    except NatstatsError as error:
        said = str(error).removeprefix(f"expected {EXPECTED}; ")
        raise UsageError(f"images: expected {EXPECTED}; item {place} of the list: {said}") from None


def _check_photograph(floats: np.ndarray[Any, Any] | None, place: int) -> None:
    """Raise where floats that must be brought to a size cannot be a photograph."""
    if floats is not None:
        try:
            of_floats(floats)
        except NatstatsError as error:
            raise UsageError(f"images: {error}; item {place} of the list") from None


def images_of_torch(
    source: Dataset[Any] | DataLoader[Any],
    framing: Framing | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """The images of a data set or a loader of torch, with labels or without.

    Of a loader the data set is measured, each image that its sampler visits once: batches, order
    and the number of processes are natstats' own. A collate
    function is applied to one image at a time.

    Raises:
        UsageError: it has no length or no images, its sampler draws by chance, or its first item
            holds no image.
    """
    kind = _named(source)
    items: Any = _items_of(source) if isinstance(source, DataLoader) else source
    if isinstance(items, IterableDataset) or not hasattr(items, "__len__"):
        raise UsageError(
            f"images: expected a data set with a length, whose images have numbers; got the {kind} "
            "of one without (a list of its images will do, or a stream of shards)"
        )
    if not len(items):
        raise UsageError(f"images: expected at least one image; the {kind} is empty")
    description = f"{kind} of {len(items)} images"
    try:
        is_float = as_photograph(image_in(items[0])) is None
        is_random = _content_at(items, 0, is_float) != _content_at(items, 0, is_float)
        if is_float:
            return DatasetArrays(items, limit, seed, description, is_random)
    except UsageError:
        raise
    except Exception as error:  # a data set raises whatever its transforms do
        raise UsageError(
            f"images: expected {EXPECTED}, alone, first in a tuple or as {' or '.join(KEYS)} of a "
            f"dict; item 0 of the {kind}: {reason_of(error)}"
        ) from error
    return HeldImages(
        items, framing, limit, seed, description, n_probed=PROBED, is_random=is_random
    )


def _content_at(items: Any, place: int, is_float: bool) -> bytes:
    image = image_in(items[place])
    photograph = None if is_float else as_photograph(image)
    return content_of(as_numbers(image)) if photograph is None else fingerprint(photograph)


class _Collated:
    """Items of a data set, each passed through the collate function of a loader."""

    def __init__(self, items: Any, collate: Callable[[list[Any]], Any]) -> None:
        self._items, self._collate = items, collate

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: int) -> Any:
        batch = image_in(self._collate([self._items[place]]))
        return batch[0]


def _items_of(loader: DataLoader[Any]) -> Any:
    """The items that a loader goes over, in the order of its data set."""
    items: Any = loader.dataset
    if isinstance(items, IterableDataset):
        return items
    sampler: Any = loader.sampler
    batches: Any = loader.batch_sampler
    if batches is not None and type(batches) is not BatchSampler:
        sampler = batches
    elif batches is not None:
        sampler = batches.sampler
    if isinstance(sampler, SubsetRandomSampler):
        items = Subset(items, sorted({int(place) for place in sampler.indices}))
    elif not (
        isinstance(sampler, SequentialSampler)
        or (isinstance(sampler, RandomSampler) and not sampler.replacement)
    ):
        raise UsageError(
            "images: expected a DataLoader that goes over its data set once, in order, shuffled or "
            f"over a subset; got one with a {_named(sampler)} (give its dataset in its place)"
        )
    if loader.collate_fn not in (default_collate, default_convert):
        return _Collated(items, loader.collate_fn)
    return items

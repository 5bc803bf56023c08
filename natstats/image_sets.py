"""What all sources of images have in common: fixed numbers, samples, batches.

Every source gives its images fixed numbers: a seeded shuffle of the sorted list decides once, so
which group of resampling an image belongs to depends neither on the batch size nor on the number
of workers, and the first n images are a random sample of all.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from natstats import checks
from natstats.errors import UsageError
from natstats.framing import Framing
from natstats.pixels import fingerprint, read_rgb
from natstats.text import printable
from natstats.workers import from_workers

__all__ = [
    "SMALLEST_PHOTOGRAPH",
    "Batch",
    "ImageArray",
    "ImageSet",
    "Photographs",
    "Sample",
    "batches",
    "reason_of",
]

SMALLEST_PHOTOGRAPH = 32
"""Shorter side, pixels, below which an image does not decide the size of all the others."""

_UNREAD = bytes(32)
"""Stands for the content of an image whose file could not be opened."""


@dataclass(frozen=True)
class Sample:
    """One image of a set, or why it could not be read.

    Attributes:
        number: in the set.
        image: (C, H, W), or (C, T, H, W) for a clip; None when it could not be read.
        reason: why it could not be read.
        content: SHA-256 of what was read, 32 bytes.
        is_enlarged: it was smaller than what it was scaled to.
    """

    number: int
    image: Tensor | None
    reason: str = ""
    content: bytes = _UNREAD
    is_enlarged: bool = False


@dataclass
class Batch:
    """Some images of a set, and those that could not be read.

    Attributes:
        images: (N, C, H, W) or (N, C, T, H, W), float32; photographs are RGB in [0, 1], not
            linearised.
        index: (N,), the images' numbers.
        unreadable: number and reason of each image that was left out.
        n_enlarged: images that were smaller than what they were scaled to.
        contents: 32 bytes for every image, also for those that were left out.
    """

    images: Tensor
    index: Tensor
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    n_enlarged: int = 0
    contents: bytes = b""


class ImageSet(Dataset[Sample]):
    """A finite, numbered set of images of one size."""

    description: str
    """Where the images come from, for people."""

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
        """Hexadecimal digits that tell this set of images from others, without reading files."""
        raise NotImplementedError


def ordered(n: int, limit: int | None, seed: int) -> list[int]:
    """Places of the first `limit` of n images in the seeded order."""
    checks.positive_int("seed", seed, 0)
    order = np.random.default_rng(seed).permutation(n)[: n if limit is None else limit]
    return [int(place) for place in order]


def reason_of(error: Exception) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the label has already
    return printable(" ".join(str(error).split())) or type(error).__name__


class Photographs(ImageSet):
    """Photographs that are framed as they are read.

    A class below says what there is: :meth:`open`, :meth:`label` and :meth:`n_bytes`, and calls
    the constructor when these can be used.

    Args:
        n: how many there are.
        framing: how each is brought to size; by default the largest square of at most 512 pixels
            that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: of the sample and of the numbering.
        description: where they come from, for people.
    """

    def __init__(
        self, n: int, framing: Framing | None, limit: int | None, seed: int, description: str
    ) -> None:
        self.places = ordered(n, limit, seed)
        self.description = description
        self.framing = framing or Framing(self.native_size())

    def framed(self, framing: Framing) -> Photographs:
        """The same images brought to another size."""
        again = copy.copy(self)
        again.framing = framing
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

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        """Number and image, uint8 (3, H, W), or the reason why it could not be read."""
        content = _UNREAD
        try:
            with self.open(number) as source:
                content = fingerprint(source)
                image = read_rgb(source)
            framed = self.framing(image)
        except Exception as error:  # decoders raise whatever a damaged file leads them to
            return Sample(number, None, reason_of(error), content)
        return Sample(
            number, _as_tensor(framed), content=content, is_enlarged=self.framing.enlarges(image)
        )

    def digest(self) -> str:
        """SHA-256 of the framing and the files' names and sizes (not contents), 16 digits."""
        listing = "\n".join(
            f"{self.label(number)} {self.n_bytes(number)}" for number in range(len(self))
        )
        return hashlib.sha256(f"{self.framing}\n{listing}".encode()).hexdigest()[:16]

    def native_size(self, largest: int = 512) -> int:
        """Side of the square that fits every photograph unscaled, at most `largest` pixels.

        Only the headers of files are read. Files without a readable one, and icons of less than
        :data:`SMALLEST_PHOTOGRAPH` pixels among larger images, are passed over.

        Raises:
            UsageError: no photograph could be opened.
        """
        found = map(self._shorter_side, range(len(self)))
        sides = [side for side in found if side is not None]
        if not sides:
            raise UsageError(
                f"images: expected readable images; got none in {printable(self.description)!r}"
            )
        photographs = [side for side in sides if side >= SMALLEST_PHOTOGRAPH]
        return min(largest, *(photographs or sides))

    def _shorter_side(self, number: int) -> int | None:
        try:
            with self.open(number) as source:
                if isinstance(source, Image.Image):
                    return min(source.size)
                with Image.open(source) as image:
                    return min(image.size)
        except Exception:  # as in __getitem__, which will say why
            return None


def _as_tensor(image: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
    return pixels.permute(2, 0, 1).contiguous()


def _is_real(dtype: np.dtype[Any]) -> bool:
    return np.issubdtype(dtype, np.number) and not np.issubdtype(dtype, np.complexfloating)


class ImageArray(ImageSet):
    """Images or clips that are in memory already, taken as they are.

    Args:
        images: (N, C, H, W) or clips (N, C, T, H, W), numbers.
        limit: at most this many, a random sample.
        seed: of the sample and of the numbering.
        description: where they come from.

    Raises:
        UsageError: neither four nor five axes, no images, or maps below 5 x 5 pixels.
    """

    def __init__(
        self,
        images: np.ndarray[Any, Any] | Tensor,
        limit: int | None = None,
        seed: int = 0,
        description: str = "array",
    ) -> None:
        array = _as_array(images) if isinstance(images, Tensor) else np.asarray(images)
        if array.ndim not in (4, 5) or not _is_real(array.dtype) or 0 in array.shape[:-2]:
            raise UsageError(
                "images: expected real numbers of shape (N, C, H, W), or (N, C, T, H, W) for "
                f"clips; got {array.dtype} of shape {array.shape}"
            )
        checks.spatial_shape("images", array.shape[-2], array.shape[-1], 5)
        self.images = array
        self.places = ordered(len(array), limit, seed)
        self.description = description

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        """Number and image; the pixel type is the array's."""
        image = np.array(self.images[self.places[number]])
        sha = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
        sha.update(image.tobytes())
        # Torch has the byte order of the machine only.
        native = image.astype(image.dtype.newbyteorder("="), copy=False)
        return Sample(number, torch.from_numpy(native), content=sha.digest())

    def label(self, number: int) -> str:
        """Place of an image in the array."""
        return f"[{self.places[number]}]"

    def digest(self) -> str:
        """SHA-256 of the array's bytes and the order, 16 digits."""
        sha = hashlib.sha256(repr((self.images.shape, self.images.dtype, self.places)).encode())
        for image in self.images:
            sha.update(np.ascontiguousarray(image).tobytes())
        return sha.hexdigest()[:16]


def _as_array(images: Tensor) -> np.ndarray[Any, Any]:
    try:
        plain = images.detach().cpu()
        if plain.dtype == torch.bfloat16:  # numpy has no such type
            plain = plain.float()
        array: np.ndarray[Any, Any] = plain.numpy()
    except (TypeError, RuntimeError) as error:
        raise UsageError(f"images: expected a dense tensor of numbers; {error}") from None
    return array


def _collate(samples: list[Sample]) -> Batch:
    good = [(one.number, one.image) for one in samples if one.image is not None]
    return Batch(
        torch.stack([image for _, image in good]) if good else torch.zeros(0),
        torch.tensor([number for number, _ in good]),
        [(one.number, one.reason) for one in samples if one.image is None],
        sum(one.is_enlarged for one in samples),
        b"".join(one.content for one in samples),
    )


def batches(
    images: ImageSet, batch_size: int, workers: int = 0, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """Yield all images of a set in batches on `device`, in the order of their numbers.

    Photographs become float32 in [0, 1] (uint8 divided by 255); arrays become float32 unscaled.

    Raises:
        UsageError: `batch_size` or `workers` is out of range.
    """
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("workers", workers, 0)
    device = torch.device(device)
    loader = DataLoader(
        images,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    scale = 255.0 if isinstance(images, Photographs) else 1.0
    for batch in from_workers(loader):
        batch.images = batch.images.to(device, non_blocking=True).float()
        if scale != 1.0:
            batch.images = batch.images / scale
        yield batch

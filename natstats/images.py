"""Sources of images, as numbered images in [0, 1].

Every source gives its images fixed numbers: a seeded shuffle of the sorted list decides once, so
which group of resampling an image belongs to depends neither on the batch size nor on the number
of workers, and the first n images are a random sample of all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from natstats import checks
from natstats.errors import NatstatsError, UsageError

__all__ = [
    "Batch",
    "Framing",
    "ImageArray",
    "ImageFolder",
    "ImageSet",
    "batches",
    "image_paths",
    "native_size",
    "open_images",
]

SMALLEST_PHOTOGRAPH = 32
"""Shorter side, pixels, below which an image does not decide the size of all the others."""

_RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Framing:
    """How a photograph is brought to a fixed size: shorter side scaled, centre cut out.

    Attributes:
        size: side of the square that is cut out, pixels.
        resize: shorter side before that, pixels; None leaves the pixels as they are.
        interpolation: ``bilinear``, ``bicubic`` or ``lanczos``, all with antialiasing.
    """

    size: int
    resize: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        checks.positive_int("size", self.size, 5)
        checks.one_of("interpolation", self.interpolation, _RESAMPLING)
        if self.resize is not None and self.resize < self.size:
            raise UsageError(f"resize: expected at least the size {self.size}; got {self.resize}")

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the framed image.

        Raises:
            NatstatsError: the image is smaller than the frame and may not be scaled.
        """
        if self.resize is not None:
            scale = self.resize / min(image.size)
            width, height = (max(self.resize, round(side * scale)) for side in image.size)
            image = image.resize((width, height), _RESAMPLING[self.interpolation])
        width, height = image.size
        if min(width, height) < self.size:
            raise NatstatsError(
                f"{width} x {height} pixels are fewer than {self.size} x {self.size}"
            )
        left, top = (width - self.size) // 2, (height - self.size) // 2
        return image.crop((left, top, left + self.size, top + self.size))


@dataclass
class Batch:
    """Some images of a set, and those that could not be read.

    Attributes:
        images: (N, C, H, W), float32; photographs are RGB in [0, 1], not linearised.
        index: (N,), the images' numbers.
        unreadable: number and reason of each image that was left out.
    """

    images: Tensor
    index: Tensor
    unreadable: list[tuple[int, str]] = field(default_factory=list)


class ImageSet(Dataset[tuple[int, Tensor | str]]):
    """A finite, numbered set of images of one size."""

    description: str
    """Where the images come from, for people."""

    def __len__(self) -> int:
        """Number of images."""
        raise NotImplementedError

    def __getitem__(self, number: int) -> tuple[int, Tensor | str]:
        """Number and image (C, H, W); in place of an unreadable image, the reason."""
        raise NotImplementedError

    def label(self, number: int) -> str:
        """What to call an image when speaking of it."""
        raise NotImplementedError

    def digest(self) -> str:
        """Hexadecimal digits that tell this set of images from others."""
        raise NotImplementedError


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; Pillow alone would clip 16-bit grey at 255."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.asarray(image, dtype=np.float64) / 257  # 65535 -> 255
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")


def _order(n: int, limit: int | None, seed: int) -> list[int]:
    checks.positive_int("seed", seed, 0)
    order = np.random.default_rng(seed).permutation(n)[: n if limit is None else limit]
    return [int(place) for place in order]


class ImageFolder(ImageSet):
    """The photographs in a folder and the folders below it.

    Args:
        folder: where to look.
        framing: how each photograph is brought to size.
        limit: at most this many, a random sample.
        seed: of the sample and of the numbering.

    Raises:
        UsageError: the folder is not there or holds no image.
    """

    def __init__(
        self, folder: Path, framing: Framing, limit: int | None = None, seed: int = 0
    ) -> None:
        paths = image_paths(folder)
        self.folder = folder
        self.framing = framing
        self.paths = [paths[place] for place in _order(len(paths), limit, seed)]
        self.description = str(folder)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def __getitem__(self, number: int) -> tuple[int, Tensor | str]:
        """Number and image (3, H, W) in [0, 1], or the reason why it could not be read."""
        try:
            with Image.open(self.paths[number]) as image:
                framed = self.framing(_to_rgb(ImageOps.exif_transpose(image)))
        except (OSError, ValueError, SyntaxError, NatstatsError, Image.DecompressionBombError) as e:
            # Pillow raises SyntaxError for a broken PNG.
            return number, " ".join(str(e).split()) or type(e).__name__
        pixels = torch.from_numpy(np.array(framed, dtype=np.uint8))
        return number, pixels.permute(2, 0, 1).contiguous()

    def label(self, number: int) -> str:
        """Path of an image below the folder."""
        return self.paths[number].relative_to(self.folder).as_posix()

    def digest(self) -> str:
        """SHA-256 of the framing and the files' names and sizes (not contents), 16 digits."""
        listing = "\n".join(
            f"{self.label(number)} {path.stat().st_size}" for number, path in enumerate(self.paths)
        )
        return hashlib.sha256(f"{self.framing}\n{listing}".encode()).hexdigest()[:16]


def _is_real(dtype: np.dtype[Any]) -> bool:
    return np.issubdtype(dtype, np.number) and not np.issubdtype(dtype, np.complexfloating)


class ImageArray(ImageSet):
    """Images that are in memory already, taken as they are.

    Args:
        images: (N, C, H, W), numbers.
        limit: at most this many, a random sample.
        seed: of the sample and of the numbering.
        description: where they come from.

    Raises:
        UsageError: not four axes, no images, or maps below 5 x 5 pixels.
    """

    def __init__(
        self,
        images: np.ndarray[Any, Any] | Tensor,
        limit: int | None = None,
        seed: int = 0,
        description: str = "array",
    ) -> None:
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
        if array.ndim != 4 or not _is_real(array.dtype) or len(array) == 0:
            raise UsageError(
                f"images: expected real numbers of shape (N, C, H, W); got {array.dtype} of shape "
                f"{array.shape}"
            )
        checks.spatial_shape("images", array.shape[2], array.shape[3], 5)
        self.images = array
        self.places = _order(len(array), limit, seed)
        self.description = description

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[int, Tensor | str]:
        """Number and image (C, H, W); the pixel type is the array's."""
        return number, torch.from_numpy(np.array(self.images[self.places[number]]))

    def label(self, number: int) -> str:
        """Place of an image in the array."""
        return f"[{self.places[number]}]"

    def digest(self) -> str:
        """SHA-256 of the array's bytes and the order, 16 digits."""
        sha = hashlib.sha256(repr((self.images.shape, self.images.dtype, self.places)).encode())
        for image in self.images:
            sha.update(np.ascontiguousarray(image).tobytes())
        return sha.hexdigest()[:16]


def image_paths(folder: Path) -> list[Path]:
    """Every file below `folder` with the name of an image format that Pillow reads, sorted.

    Raises:
        UsageError: the folder is not there, or holds no image.
    """
    if not folder.is_dir():
        raise UsageError(f"images: expected a folder of images or a .npy file; got {str(folder)!r}")
    known = Image.registered_extensions()
    paths = sorted(
        path
        for path in folder.rglob("*")
        if known.get(path.suffix.lower()) in Image.OPEN
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise UsageError(f"images: expected at least one image; got none below {str(folder)!r}")
    return paths


def native_size(folder: Path, largest: int = 512) -> int:
    """Side of the square that fits every photograph in `folder` unscaled, at most `largest`.

    Only the headers of the files are read. Files without a readable one, and icons of less than
    :data:`SMALLEST_PHOTOGRAPH` pixels among larger images, are passed over.

    Raises:
        UsageError: no photograph could be opened.
    """
    sides = [side for side in map(_shorter_side, image_paths(folder)) if side is not None]
    if not sides:
        raise UsageError(f"images: expected readable images; got none below {str(folder)!r}")
    photographs = [side for side in sides if side >= SMALLEST_PHOTOGRAPH]
    return min(largest, *(photographs or sides))


def _shorter_side(path: Path) -> int | None:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def open_images(
    source: str | Path | np.ndarray[Any, Any] | Tensor | ImageSet,
    framing: Framing | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageSet:
    """Make an image set of a folder, a ``.npy`` file, an array or a tensor.

    Args:
        source: an array or a file (N, C, H, W) is taken as it is; photographs are framed.
        framing: for photographs; by default the largest square of at most 512 pixels that fits
            all of them, unscaled.
        limit: at most this many images, a random sample.
        seed: of the sample and of the numbering.

    Raises:
        UsageError: there is no such source, or nothing in it.

    >>> len(open_images(np.zeros((10, 3, 8, 8)), limit=4))
    4
    """
    if limit is not None:
        checks.positive_int("limit", limit)
    if isinstance(source, ImageSet):
        return source
    if isinstance(source, np.ndarray | Tensor):
        return ImageArray(source, limit, seed)
    if not isinstance(source, str | Path):
        raise UsageError(
            f"images: expected a folder, a .npy file, an array or a tensor; got {source!r:.80}"
        )
    path = Path(source).expanduser()
    if path.suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UsageError(f"images: expected a readable .npy file; {path}: {error}") from None
        return ImageArray(array, limit, seed, str(path))
    return ImageFolder(path, framing or Framing(native_size(path)), limit, seed)


def _collate(samples: list[tuple[int, Tensor | str]]) -> Batch:
    good = [(number, image) for number, image in samples if isinstance(image, Tensor)]
    unreadable = [(number, image) for number, image in samples if isinstance(image, str)]
    images = torch.stack([image for _, image in good]) if good else torch.zeros(0)
    return Batch(images, torch.tensor([number for number, _ in good]), unreadable)


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
    scale = 255.0 if isinstance(images, ImageFolder) else 1.0
    for batch in loader:
        pixels = batch.images.to(device, non_blocking=True).float()
        yield Batch(pixels / scale if scale != 1.0 else pixels, batch.index, batch.unreadable)

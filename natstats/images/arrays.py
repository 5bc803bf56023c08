"""Images that are numbers already: arrays and tensors, in memory or in a file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.files.paths import open_regular
from natstats.files.torch_files import is_spread, load_plain
from natstats.images.image_sets import ImageSet, Sample, ordered, reason_of
from natstats.text import printable

__all__ = ["ImageArray", "held_values", "read_npy", "read_tensor"]


def _is_real(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iuf"


def _held(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Type in which the values go on: float32 where it holds them exactly, else float64."""
    return np.dtype(np.float32 if np.can_cast(dtype, np.float32, "safe") else np.float64)


def held_values(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy of an image as float32, or as float64 where that would round its values."""
    return np.array(image, _held(image.dtype))


class ImageArray(ImageSet):
    """Images or clips that are in memory already, taken as they are.

    Args:
        images: (N, C, H, W) or clips (N, C, T, H, W), numbers.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from.

    Raises:
        UsageError: neither four nor five axes, no real numbers, no images, or maps below 5 x 5
            pixels.
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
                f"clips; got {printable(str(array.dtype))[:80]} of shape {array.shape}"
            )
        checks.spatial_shape("images", array.shape[-2], array.shape[-1], 5)
        self.images = array
        self.places = ordered(len(array), limit, seed)
        self.description = description

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)

    def __getitem__(self, number: int) -> Sample:
        """Number and image, float32, or float64 where that would round the values."""
        image = np.array(self.images[self.places[number]])
        sha = hashlib.sha256(f"{image.shape} {image.dtype}".encode())
        sha.update(image.tobytes())
        return Sample(number, torch.from_numpy(held_values(image)), content=sha.digest())

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


def read_npy(path: Path) -> np.ndarray[Any, Any]:
    """The array in a ``.npy`` file, memory-mapped; no code in the file is run.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        with open_regular(path) as file:
            if not os.fstat(file.fileno()).st_size:
                raise ValueError("the file is empty")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged header raises nearly anything
        raise UsageError(
            f"images: expected a readable .npy file; {printable(path)}: {reason_of(error)}"
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise UsageError(
            f"images: expected a .npy file with one array; {printable(path)} is an archive of "
            "several (.npz)"
        )
    return array


def read_tensor(path: Path) -> Tensor:
    """The one tensor of images in a file, bare or in a dict; no code in the file is run.

    Raises:
        UsageError: it cannot be read, or holds none or several.
    """
    try:
        content = load_plain(path)
    except Exception as error:  # a damaged file raises nearly anything
        reason = reason_of(error).split(". ")[0][:160]
        raise UsageError(
            f"images: expected a {path.suffix} file with one tensor and nothing that must be "
            f"unpickled; {printable(path)}: {reason}"
        ) from None
    values = list(content.values()) if isinstance(content, dict) else [content]
    found = [value for value in values if isinstance(value, Tensor) and value.ndim in (4, 5)]
    if len(found) != 1:
        raise UsageError(
            f"images: expected one tensor (N, C, H, W) or (N, C, T, H, W) in {printable(path)}; "
            f"got {len(found)}"
        )
    if is_spread(found[0]):
        raise UsageError(
            f"images: expected a tensor no larger than its file; {printable(path)} has one of "
            f"shape {tuple(found[0].shape)} for fewer numbers"
        )
    return found[0]

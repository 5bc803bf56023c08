"""Sources of images: from what a user names to a set of numbered images."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from natstats import checks
from natstats.errors import UsageError
from natstats.images.arrays import ImageArray, read_npy, read_tensor
from natstats.images.batching import batches
from natstats.images.clips import CLIP_FRAMES, ClipFolders
from natstats.images.datasets import names, open_dataset
from natstats.images.files import (
    ImageFiles,
    ImageFolder,
    image_paths,
    listed_paths,
    matching,
)
from natstats.images.formats import has_image_name
from natstats.images.framing import Framing, reframed
from natstats.images.hugging_face import (
    SAVED,
    STREAMED,
    images_of_dataset,
    is_dataset,
    open_hugging_face,
)
from natstats.images.image_sets import Batch, ImageSet, Photographs, Sample
from natstats.images.in_memory import images_of_list, images_of_torch, is_held
from natstats.images.shards import Shards, shard_paths
from natstats.images.stream_shards import COMMAND, COMPRESSED, command_shards, is_address, shards_at
from natstats.images.streams import ImageStream
from natstats.text import printable

__all__ = [
    "SOURCES",
    "Batch",
    "Framing",
    "ImageArray",
    "ImageFiles",
    "ImageFolder",
    "ImageSet",
    "Images",
    "Photographs",
    "Sample",
    "batches",
    "image_paths",
    "open_images",
    "reframed",
    "source_name",
]

Images: TypeAlias = (
    str | Path | np.ndarray[Any, Any] | Tensor | ImageSet | Sequence[Any] | Dataset[Any]
    | DataLoader[Any]
)  # fmt: skip
"""What images may be given as, see :func:`open_images`."""

SOURCES = (
    "a folder, a pattern such as 'photos/*.jpg', a .txt list, .tar shards, a .npy or .pt file, "
    "an image, NAME:ROOT of a data set, clips:ROOT, hf:PATH, or a stream of .tar shards or "
    "rows (pipe:COMMAND, s3://BUCKET/SHARD.tar and the like, SHARD.tar.gz, hf-stream:NAME)"
)
"""What can be given as images, for errors."""

_NAMED = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(.+)", re.DOTALL)
_SPLIT = re.compile(r"[A-Za-z0-9_+-]+")
_FILES = (".npy", ".pt", ".pth", ".txt", ".tar")
_COMPRESSED = {".tar.xz": "xz -dc", ".txz": "xz -dc", ".tar.zst": "zstd -dc"}
"""Endings of archives that are not opened, with the command that makes a stream of them."""


def open_images(
    source: Images,
    framing: Framing | None = None,
    limit: int | None = None,
    seed: int = 0,
    frames: int | None = None,
) -> ImageSet:
    """Make an image set of what a user names.

    Args:
        source: photographs, which are framed:

            * an image, or a folder, with the folders below it, of images in the formats of
              :data:`natstats.images.formats.FORMATS`;
            * a pattern such as ``photos/**/*.jpg``;
            * a ``.txt`` file with a path a line, relative to its folder;
            * ``.tar`` files: one, ``shards/*.tar`` or ``shards/{00000..00012}.tar``;
            * ``NAME:ROOT`` or ``NAME:ROOT:SPLIT`` with the name of a data set, see
              :mod:`natstats.images.datasets`;
            * ``clips:ROOT``, folders of frames;
            * ``hf:PATH`` or ``hf:PATH:SPLIT``, a data set that Hugging Face's library has saved to
              disk, or parquet files (a folder, a file or a pattern), which are a stream; or a
              ``datasets.Dataset`` itself, see :mod:`natstats.images.hugging_face`;
            * a stream, see :mod:`natstats.images.streams`: ``pipe:COMMAND`` that prints a tar file,
              an address such as ``s3://bucket/{000..012}.tar``, ``.tar.gz`` or ``.tar.bz2`` files,
              or ``hf-stream:NAME`` or ``hf-stream:NAME:SPLIT``.

            Or images that a program holds: a list of them, or a ``Dataset`` or ``DataLoader`` of
            torch, see :mod:`natstats.images.in_memory`. PIL images and 8 bits, (H, W, 3), (H, W) or
            (3, H, W), are photographs, of any sizes; floats (C, H, W) are taken as they are. Items
            may be (image, label) or dicts with ``image`` or ``pixel_values``. A list may also hold
            paths.

            Or images that are taken as they are: a ``.npy`` file, a ``.pt`` or ``.pth`` file with
            one tensor, an array or a tensor, (N, C, H, W), or (N, C, T, H, W) for clips.
        framing: for photographs; by default the largest square of at most 512 pixels that fits
            all of them, unscaled.
        limit: at most this many images, a random sample; of a stream the first of every shard.
        seed: seed of the sample and of the numbering.
        frames: number of frames of a clip, for ``clips:ROOT``; 16 by default.

    Raises:
        UsageError: there is no such source, or nothing in it.
        NatstatsError: a stream cannot be read.

    >>> len(open_images(np.zeros((10, 3, 8, 8)), limit=4))
    4
    """
    if limit is not None:
        checks.positive_int("limit", limit)
    if isinstance(source, ImageSet | np.ndarray | Tensor):
        _refuse_frames(frames)
        return source if isinstance(source, ImageSet) else ImageArray(source, limit, seed)
    if is_dataset(source):
        _refuse_frames(frames)
        return images_of_dataset(source, framing, limit, seed)
    if is_held(source):
        _refuse_frames(frames)
        held = images_of_list if isinstance(source, list | tuple) else images_of_torch
        return held(source, framing, limit, seed)  # type: ignore[arg-type]
    if not isinstance(source, str | Path):
        raise UsageError(
            f"images: expected {SOURCES}, a list of images, a Dataset or DataLoader of torch, an "
            f"array or a tensor; got {printable(repr(source))[:80]}"
        )
    text = str(source)
    if not text.strip() or "\0" in text:  # "" would be the current folder
        raise UsageError(f"images: expected {SOURCES}; got {printable(repr(text))[:80]}")
    if isinstance(source, str) and (text.startswith(f"{COMMAND}:") or is_address(text)):
        _refuse_frames(frames)
        is_command = text.startswith(f"{COMMAND}:")
        shards = command_shards(text.partition(":")[2]) if is_command else shards_at(text)
        return ImageStream(shards, framing, limit, seed, printable(text))
    name, rest, split = _parsed(text)
    if name == "clips":
        if split is not None:
            raise UsageError(f"images: expected no split of clips; got {split!r}")
        n_frames = CLIP_FRAMES if frames is None else frames
        return ClipFolders(Path(os.path.expanduser(rest)), n_frames, framing, limit, seed)
    _refuse_frames(frames)
    if name in (SAVED, STREAMED):
        return open_hugging_face(name, rest, split, framing, limit, seed)
    if name is not None:
        return open_dataset(name, rest, split, framing, limit, seed)
    return _open_path(Path(os.path.expanduser(source)), framing, limit, seed)


def _refuse_frames(frames: int | None) -> None:
    if frames is not None:
        raise UsageError(f"frames: expected only beside clips:ROOT; got {frames}")


def _open_path(path: Path, framing: Framing | None, limit: int | None, seed: int) -> ImageSet:
    text = printable(path)
    if os.path.isdir(path):
        return ImageFolder(path, framing, limit, seed)
    if path.suffix == ".npy":
        return ImageArray(read_npy(path), limit, seed, text)
    if path.suffix in (".pt", ".pth"):
        return ImageArray(read_tensor(path), limit, seed, text)
    if path.suffix == ".txt":
        paths = listed_paths(path)
        return ImageFiles(paths, path.parent, framing, limit, seed, text)
    if path.name.endswith(COMPRESSED):
        return ImageStream(shards_at(str(path)), framing, limit, seed, text)
    if path.name.endswith((*_COMPRESSED, ".zip")):
        command = _COMPRESSED.get("".join(path.suffixes[-2:]))
        how = f" ('{COMMAND}:{command} FILE' makes a stream of it)" if command else ""
        raise UsageError(
            "images: expected a .tar, in which images can be found, or one compressed by gzip or "
            f"bzip2; got {text!r}{how}"
        )
    if path.suffix == ".tar":
        return Shards(shard_paths(str(path)), framing, limit, seed, text)
    is_there = os.path.lexists(path)
    if is_there and has_image_name(path.name):
        return ImageFiles([path], path.parent, framing, limit, seed, text)
    if not is_there and glob.has_magic(str(path)):
        found, base = matching(str(path))
        return ImageFiles(found.paths, base, framing, limit, seed, text, found.notes())
    why = "whose ending is not that of an image" if is_there else "which does not exist"
    raise UsageError(f"images: expected {SOURCES}; got {text[:200]!r}, {why}")


def _parsed(source: str) -> tuple[str | None, str, str | None]:
    """Name, root and split of a source; no name where it is a path."""
    named = _NAMED.fullmatch(source)
    if named is None or os.path.exists(source):
        return None, source, None
    name, root = named.groups()
    head, _, tail = root.rpartition(":")
    if head and _SPLIT.fullmatch(tail) and not os.path.exists(os.path.expanduser(root)):
        return name, head, tail
    return name, root, None


def source_name(source: str | Path) -> str:
    """A short name for what `source` stands for, fit for a folder.

    >>> [source_name(s) for s in ("~/photos", "a/f.npy", "cifar10:~/d:train", "s/{0..9}.tar")]
    ['photos', 'f', 'cifar10-train', 's']
    """
    text = str(source)
    if text.startswith(f"{COMMAND}:"):
        return COMMAND
    if is_address(text):
        text = text.partition("::")[0].partition("://")[2].partition("?")[0] or "stream"
    name, rest, split = _parsed(text)
    if name in names() and name != "imagefolder":
        return name if split is None else f"{name}-{split}"
    if name in (SAVED, STREAMED) and split is not None:
        rest = f"{rest}-{split}"
    path = Path(os.path.expanduser(rest))
    plain = [part for part in path.parts if not glob.has_magic(part) and "{" not in part]
    last = plain[-1] if plain else ""
    if last in ("", ".", "..", path.anchor):
        last = path.resolve().name
    for suffix in (*COMPRESSED, *_FILES):
        last = last.removesuffix(suffix)
    if has_image_name(last) and os.path.isfile(path):
        last = os.path.splitext(last)[0]
    return printable(last) or "images"

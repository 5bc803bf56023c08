"""Files that torch wrote, and that others may have made: plain data is read, and no code is run.

What they hold is bounded by their length: torch compresses nothing, so a file whose parts are
compressed, or a tensor with more elements than its file, was made to fill the memory.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from natstats.files.paths import open_regular

__all__ = ["is_spread", "load_plain", "refuse_packed"]

_SLACK = 1 << 20
"""Bytes that unpacked parts may have beyond the length of their file."""


def refuse_packed(file: BinaryIO) -> None:
    """Raise where unpacked parts of a file are longer than the file.

    Raises:
        ValueError: they are.
    """
    place = file.tell()
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                n_bytes = sum(entry.file_size for entry in archive.infolist())
            if n_bytes > os.fstat(file.fileno()).st_size + _SLACK:
                raise ValueError(
                    f"it is packed, and would have {n_bytes} bytes; torch packs nothing"
                )
    except zipfile.BadZipFile as error:
        raise ValueError(f"it is a damaged archive: {error}") from None
    finally:
        file.seek(place)


def load_plain(path: str | Path, device: Any = "cpu") -> Any:
    """The plain data and tensors in a file.

    Args:
        path: path of the file.
        device: where tensors go.

    Raises:
        OSError: it cannot be opened, or is no file.
        Exception: it is damaged, packed, or needs code to be run; torch raises nearly anything.
    """
    import torch

    with open_regular(path) as file:
        refuse_packed(file)
        return torch.load(file, map_location=device, weights_only=True)


def is_spread(value: Any) -> bool:
    """Whether a large tensor has more elements than its storage has numbers.

    >>> import torch
    >>> is_spread(torch.zeros(1).expand(10**6)), is_spread(torch.zeros(4)[::2])
    (True, False)
    """
    if not hasattr(value, "untyped_storage"):
        return False
    try:
        n_bytes = 0 if value.is_meta else value.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):  # a sparse tensor has no storage
        n_bytes = 0
    return bool(value.numel() * value.element_size() > max(n_bytes, _SLACK))

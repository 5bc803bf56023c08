"""Files of a teacher's outputs: one value or map for every image, each with its checksum.

A file holds the rows of all images one after the other, and then a checksum for each row. Its name
tells what it holds, the shape and the type. Rows are read by memory mapping, a batch at a time, and
compared with their checksums, which costs far less than a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats.distill.training.cache_room import CHECKSUM
from natstats.errors import NatstatsError
from natstats.files.whole_files import whole_file
from natstats.text import printable

__all__ = ["KeptOutputs", "OutputWriter"]

_STORED: Mapping[torch.dtype, tuple[str, Any]] = {
    torch.float32: ("float32", np.float32),
    torch.float64: ("float64", np.float64),
    torch.float16: ("float16", np.float16),
    # numpy has no bfloat16: its bits are stored as whole numbers.
    torch.bfloat16: ("bfloat16", np.int16),
}
_DTYPES = {name: dtype for dtype, (name, _) in _STORED.items()}


@dataclass(frozen=True, eq=False)
class KeptOutputs:
    """The outputs of one kind for all images, in a file.

    Attributes:
        path: the file.
        values: (n, ...), by the place of an image in the set.
        sums: (n,), a checksum of each row.
        dtype: type of the outputs.
    """

    path: Path
    values: NDArray[Any]
    sums: NDArray[np.uint64]
    dtype: torch.dtype

    @classmethod
    def find(cls, folder: Path, stem: str, n_images: int) -> KeptOutputs | None:
        """The outputs in a folder; None where there is no whole file of them.

        Args:
            folder: of an epoch.
            stem: name of the outputs.
            n_images: n.
        """
        for path in sorted(folder.glob(f"{quote(stem, safe='')}~*.bin")):
            own, _, told = path.stem.rpartition("~")
            shape_text, _, kind = told.partition(" ")
            try:
                shape = tuple(int(side) for side in shape_text.split("x"))
                dtype = _DTYPES[kind]
            except (ValueError, KeyError):
                continue
            if own != quote(stem, safe="") or shape[0] != n_images:
                continue
            kind_of_value = np.dtype(_STORED[dtype][1])
            n_bytes = int(np.prod(shape)) * kind_of_value.itemsize
            try:
                if path.stat().st_size != n_bytes + CHECKSUM * n_images:
                    continue
                values = np.memmap(path, kind_of_value, "r", shape=shape)
                with path.open("rb") as file:
                    file.seek(n_bytes)
                    sums = np.frombuffer(file.read(CHECKSUM * n_images), "<u8")
            except OSError:  # removed meanwhile
                continue
            if len(sums) == n_images:
                return cls(path, values, sums, dtype)
        return None

    def batch(self, places: Tensor, device: torch.device) -> Tensor:
        """The outputs for some images, on `device`.

        Raises:
            NatstatsError: a row is not the one that was written.
        """
        chosen = places.numpy()
        rows = self.values[chosen]
        is_other = checksums(rows) != self.sums[chosen]
        if is_other.any():
            raise NatstatsError(
                f"teacher_cache: expected the teacher's outputs as they were written; "
                f"{printable(self.path)} has others for image {chosen[is_other][0]} (remove the "
                "file, and give the same command again)"
            )
        return torch.from_numpy(rows).view(self.dtype).to(device, non_blocking=True)


class OutputWriter:
    """Writes the outputs of one kind, batch by batch.

    Args:
        file: open for writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sums = file, bytearray()

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, stem: str, rows: Tensor, n_images: int) -> Iterator[OutputWriter]:
        """A writer of a new file, which is there when all is written.

        Args:
            folder: of an epoch.
            stem: name of the outputs.
            rows: those of a batch, (B, ...), which tell shape and type.
            n_images: n.
        """
        shape = "x".join(map(str, (n_images, *rows.shape[1:])))
        name = f"{quote(stem, safe='')}~{shape} {_STORED[rows.dtype][0]}.bin"
        with whole_file(folder / name) as file:
            writer = cls(file)
            yield writer
            file.write(writer._sums)

    def add(self, rows: Tensor) -> None:
        """Write the outputs of a batch, (B, ...)."""
        whole = rows.detach().cpu().contiguous()
        plain = (whole.view(torch.int16) if whole.dtype == torch.bfloat16 else whole).numpy()
        self._file.write(plain.tobytes())
        self._sums += checksums(plain).astype("<u8").tobytes()


def checksums(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """A checksum of every row, (B, ...): the sum of its bits, as whole numbers, modulo 2**64.

    Any change of one number shows, and so does nearly any change of several.

    >>> checksums(np.array([[1.0], [2.0]])) == checksums(np.array([[1.0], [2.5]]))
    array([ True, False])
    """
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    n_bytes = flat.shape[1] * flat.itemsize
    width = next(width for width in (8, 4, 2) if n_bytes % width == 0)
    found: NDArray[np.uint64] = flat.view(f"u{width}").sum(axis=1, dtype=np.uint64)
    return found

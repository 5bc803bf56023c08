"""Files of a teacher's outputs: one value or map for every image, each with its checksum.

A file holds the rows of all images one after the other, and then a checksum for each row. Its name
tells what it holds, the shape and the type. A checksum is over the row, its place and where its
file belongs, so that rows or files that were exchanged are told, too.
"""

from __future__ import annotations

import hashlib
import zlib
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

_LONGEST_STEM = 100
"""Letters of the name of outputs in that of their file; of a longer one the digest stands there."""


@dataclass(frozen=True, eq=False)
class KeptOutputs:
    """The outputs of one kind for all images, in a file.

    Attributes:
        path: the file.
        shape: (n, ...), by the place of an image in the set.
        dtype: type of the outputs.
        sums: (n,), the checksums.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    sums: NDArray[np.uint32]

    @classmethod
    def find(cls, folder: Path, name: str, n_images: int) -> KeptOutputs | None:
        """The outputs in a folder; None where there is no whole file of them.

        Args:
            folder: of an epoch.
            name: of the outputs.
            n_images: n.
        """
        stem = _stem(name)
        for path in sorted(folder.glob(f"{stem}~*.bin")):
            own, _, told = path.stem.rpartition("~")
            shape_text, _, kind = told.partition(" ")
            try:
                shape = tuple(int(side) for side in shape_text.split("x"))
                dtype = _DTYPES[kind]
            except (ValueError, KeyError):
                continue
            if own != stem or shape[0] != n_images:
                continue
            n_bytes = int(np.prod(shape)) * _kind(dtype).itemsize
            try:
                if path.stat().st_size != n_bytes + CHECKSUM * n_images:
                    continue
                with path.open("rb") as file:
                    file.seek(n_bytes)
                    sums = np.frombuffer(file.read(CHECKSUM * n_images), "<u4")
            except OSError:  # removed meanwhile
                continue
            if len(sums) == n_images:
                return cls(path, shape, dtype, sums)
        return None

    def batch(self, places: Tensor, device: torch.device) -> Tensor:
        """The outputs for some images, on `device`.

        Raises:
            NatstatsError: a row is not the one that was written, or the file is gone.
        """
        chosen = places.tolist()
        rows = np.empty((len(chosen), *self.shape[1:]), _kind(self.dtype))
        n_bytes, salt = rows[0].nbytes, _salt(self.path)
        try:
            # Not mapped into memory: a file that is cut meanwhile would end the process.
            with self.path.open("rb", buffering=0) as file:
                for row, place in zip(rows, chosen, strict=True):
                    file.seek(place * n_bytes)
                    n_read = file.readinto(row.reshape(-1).view(np.uint8).data)
                    if n_read < n_bytes or _checksum(row, place, salt) != self.sums[place]:
                        raise NatstatsError(
                            "teacher_cache: expected the teacher's outputs as they were written; "
                            f"{printable(self.path)} has others for image {place} (remove the "
                            "file, and give the same command again)"
                        )
        except OSError as error:
            raise NatstatsError(
                f"teacher_cache: expected the teacher's outputs in {printable(self.path)}; "
                f"{error.strerror or error} (give the same command again)"
            ) from error
        return torch.from_numpy(rows).view(self.dtype).to(device, non_blocking=True)


class OutputWriter:
    """Writes the outputs of one kind, batch by batch.

    Args:
        file: open for writing.
        path: where it will be.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._salt = file, _salt(path)
        self._sums: list[int] = []

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, name: str, rows: Tensor, n_images: int) -> Iterator[OutputWriter]:
        """A writer of a new file, which is there when all is written.

        Args:
            folder: of an epoch.
            name: of the outputs.
            rows: those of a batch, (B, ...), which tell shape and type.
            n_images: n.
        """
        shape = "x".join(map(str, (n_images, *rows.shape[1:])))
        path = folder / f"{_stem(name)}~{shape} {_STORED[rows.dtype][0]}.bin"
        with whole_file(path) as file:
            writer = cls(file, path)
            yield writer
            file.write(np.array(writer._sums, "<u4").tobytes())

    def add(self, rows: Tensor) -> None:
        """Write the outputs of a batch, (B, ...), which follow those before."""
        whole = rows.detach().cpu().contiguous()
        plain = (whole.view(torch.int16) if whole.dtype == torch.bfloat16 else whole).numpy()
        self._file.write(plain.tobytes())
        for row in plain:
            self._sums.append(_checksum(row, len(self._sums), self._salt))


def _kind(dtype: torch.dtype) -> np.dtype[Any]:
    kind: np.dtype[Any] = np.dtype(_STORED[dtype][1])
    return kind


def _stem(name: str) -> str:
    """A name as that of a file begins: any letters, none of which ends it."""
    stem = quote(name, safe="", errors="surrogatepass")
    if len(stem) <= _LONGEST_STEM:
        return stem
    return f"{stem[:40]}-{hashlib.sha256(stem.encode()).hexdigest()[:32]}"


def _salt(path: Path) -> int:
    """What the checksums of a file begin with: its name, epoch, teacher and images."""
    return zlib.crc32("/".join(path.parts[-3:]).encode())


def _checksum(row: NDArray[Any], place: int, salt: int) -> int:
    return zlib.crc32(row.data, zlib.crc32(place.to_bytes(8, "little"), salt))

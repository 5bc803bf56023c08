"""Reading ``.npz`` files that others may have made: a small one can unpack to any size."""

from __future__ import annotations

import math
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from natstats.errors import NatstatsError

__all__ = ["Arrays"]

MOST_BYTES = 4 * 2**30
"""Most bytes of arrays that are read from one file: packed zeros take almost no room in it."""


class Arrays:
    """The arrays of a file, each read only when its header says what is expected.

    Args:
        file: what :func:`numpy.savez` wrote.
        name: name of the file, for errors.

    Raises:
        NatstatsError: it is no such file.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._left = MOST_BYTES
        try:
            self._archive = zipfile.ZipFile(file)
        except Exception as error:  # as below
            raise NatstatsError(f"{name}: expected arrays of numpy; {error}") from error

    def __contains__(self, key: str) -> bool:
        return f"{key}.npy" in self._archive.namelist()

    def error(self, key: str, expected: str, got: object) -> NatstatsError:
        """What to raise where an array is not as expected."""
        return NatstatsError(f"{self.name}, {key}: expected {expected}; got {got}")

    def read(
        self, key: str, dtype: np.dtype[Any], shape: tuple[int, ...], *, least: bool = False
    ) -> NDArray[Any]:
        """An array of this type and shape.

        Args:
            key: its name.
            dtype: its type.
            shape: its shape, -1 for any number.
            least: the shape is an upper bound.

        Raises:
            NatstatsError: it is missing, damaged, or of another type or shape; the error names it.
        """
        try:
            entry = self._archive.getinfo(f"{key}.npy")
        except KeyError:
            raise NatstatsError(f"{self.name}, {key}: expected an array; it is missing") from None
        try:
            with self._archive.open(entry) as member:
                version = np.lib.format.read_magic(member)
                if version not in ((1, 0), (2, 0)):
                    raise ValueError(f"it has the version {version}")
                header = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                found, is_fortran, kind = header(member)
                is_shape = len(found) == len(shape) and all(
                    one == side or side == -1 or (least and one < side)
                    for one, side in zip(found, shape, strict=False)
                )
                if not is_shape or kind.newbyteorder("=") != dtype:
                    sides = "(n,)" if least else str(shape).replace("-1", "n")
                    raise self.error(key, f"shape {sides} of {dtype}", f"{found} of {kind}")
                n_bytes = math.prod(found) * kind.itemsize
                self._left -= n_bytes
                if self._left < 0:
                    raise self.error(key, f"at most {MOST_BYTES >> 30} GiB of arrays", "more")
                if entry.file_size != member.tell() + n_bytes:
                    raise ValueError("its length is not that of its shape")
                content = member.read()
                array = np.frombuffer(content, kind)
                array = array.reshape(found, order="F" if is_fortran else "C")
                return array.astype(dtype, order="C")
        except NatstatsError:
            raise
        # A packed file fails in many ways, each with an error of its own.
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise NatstatsError(
                f"{self.name}, {key}: expected an array that can be read; {reason}"
            ) from error

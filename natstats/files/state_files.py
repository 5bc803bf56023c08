"""Files that hold a state: nested plain values with arrays in them, as one safetensors file.

The arrays are stored as they are. The values around them are stored as JSON in one more array, with
names in place of the arrays. Nothing in such a file is ever run, and reading takes no more memory
than twice its length.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from natstats.errors import NatstatsError
from natstats.files.paths import open_regular
from natstats.files.whole_files import whole_file
from natstats.text import printable

__all__ = ["read_state", "state_from_bytes", "state_in_bytes", "write_state"]

_ARRAY, _RECORD, _DIGEST = "natstats.array", "natstats.state", "natstats.digest"

_N_LENGTH = 8
"""Bytes at the beginning of a safetensors file with the length of its head, which is JSON."""

_LONGEST_HEAD = 10**8
"""Bytes of a head that safetensors reads at most."""


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state, whole or not at all.

    Args:
        path: of the file; one that is there is replaced.
        state: plain values, lists and dicts with names as keys, and numpy arrays.

    Raises:
        OSError: it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_state(Path(folder) / "s", {"n": 3, "layers": [{"sums": np.ones(2)}]})
    ...     read_state(Path(folder) / "s")
    {'n': 3, 'layers': [{'sums': array([1., 1.])}]}
    """
    content = state_in_bytes(state)
    with whole_file(path) as file:
        file.write(content)


def read_state(path: Path) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        NatstatsError: it is damaged, or something else.
    """
    try:
        with open_regular(path) as file:  # a pipe or a device would never end
            _refuse_other_length(file)
            return state_from_bytes(file.read())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NatstatsError(
            f"state: expected a whole file that natstats wrote; {printable(path)}: {reason}"
        ) from error


def _refuse_other_length(file: BinaryIO) -> None:
    """Raise where a file is longer or shorter than its head says, before it is read as a whole.

    A file with a terabyte of holes takes no room on a disk, and would take all of the memory.

    Raises:
        ValueError: it is, or it has no such head.
    """
    n_bytes = os.fstat(file.fileno()).st_size
    n_head = int.from_bytes(file.read(_N_LENGTH), "little")
    if not 0 < n_head <= min(n_bytes, _LONGEST_HEAD):
        raise ValueError("it is no state of natstats (no head)")
    try:
        head = json.loads(file.read(n_head))
        ends = [own["data_offsets"][1] for name, own in head.items() if name != "__metadata__"]
        told = _N_LENGTH + n_head + max(ends, default=0)
    except (AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no state of natstats ({error})") from error
    if told != n_bytes:
        raise ValueError(f"its head tells of {told} bytes, and it has {n_bytes}")
    file.seek(0)


def state_in_bytes(state: dict[str, Any]) -> bytes:
    """The bytes of a file with a state."""
    from safetensors.numpy import save

    arrays: dict[str, Any] = {}
    record = json.dumps(_without_arrays(state, arrays))
    arrays[_RECORD] = np.frombuffer(record.encode(), np.uint8)
    arrays[_DIGEST] = np.frombuffer(_digest(arrays), np.uint8)
    content: bytes = save(arrays)
    return content


def _digest(arrays: Mapping[str, Any]) -> bytes:
    """SHA-256 over all arrays, by which damage to the file is noticed."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha.update(f"{name} {array.dtype} {array.shape} ".encode())
        sha.update(array.tobytes())
    return sha.digest()


def state_from_bytes(content: bytes) -> dict[str, Any]:
    """Inverse of :func:`state_in_bytes`.

    Raises:
        ValueError: it is damaged, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        if arrays.pop(_DIGEST).tobytes() != _digest(arrays):
            raise ValueError("its contents are not what was written")
        record = json.loads(arrays[_RECORD].tobytes())
        state = _with_arrays(record, arrays)
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no state of natstats ({error})") from error
    if not isinstance(state, dict):
        raise ValueError("it is no state of natstats")
    return state


def _without_arrays(value: Any, arrays: dict[str, Any]) -> Any:
    """The value with names in place of its arrays, which are put into `arrays`."""
    if isinstance(value, np.ndarray):
        name = f"{len(arrays):06d}"
        arrays[name] = np.ascontiguousarray(value)
        return {_ARRAY: name}
    if isinstance(value, dict):
        return {key: _without_arrays(own, arrays) for key, own in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(own, arrays) for own in value]
    return value


def _with_arrays(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {key: _with_arrays(own, arrays) for key, own in value.items()}
    if isinstance(value, list):
        return [_with_arrays(own, arrays) for own in value]
    return value

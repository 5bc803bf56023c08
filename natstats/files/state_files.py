"""Files that hold a state: nested plain values with arrays in them, as one safetensors file.

The arrays lie in the file as they are; what is around them stands in its header as JSON, with the
name of an array in its place. Nothing in such a file is ever run, and reading takes no more memory
than the file is long.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from natstats.errors import NatstatsError
from natstats.files.paths import open_regular
from natstats.files.whole_files import whole_file
from natstats.text import printable

__all__ = ["read_state", "write_state"]

_ARRAY, _RECORD = "natstats.array", "natstats.state"


def write_state(path: Path, state: dict[str, Any]) -> int:
    """Write a state, whole or not at all, and return its size in bytes.

    Args:
        path: of the file; one that is there is replaced.
        state: plain values, lists and dicts with names as keys, and numpy arrays.

    Raises:
        OSError: it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_state(Path(folder) / "s", {"n": 3, "layers": [{"sums": np.ones(2)}]})
    ...     read_state(Path(folder) / "s")
    {'n': 3, 'layers': [{'sums': array([1., 1.])}]}
    """
    from safetensors.numpy import save

    arrays: dict[str, Any] = {}
    record = json.dumps(_without_arrays(state, arrays))
    content = save(arrays, {_RECORD: record})
    with whole_file(path) as file:
        file.write(content)
    return len(content)


def read_state(path: Path) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        NatstatsError: it is damaged, or something else.
    """
    from safetensors import safe_open

    try:
        with open_regular(path):  # a pipe or a device would never end
            pass
        with safe_open(os.fspath(path), "np") as file:
            record = (file.metadata() or {}).get(_RECORD)
            if record is None:
                raise ValueError("it is no state of natstats")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = _with_arrays(json.loads(record), arrays)
        if not isinstance(state, dict):
            raise ValueError("it is no state of natstats")
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors has errors of its own
        reason = " ".join(str(error).split())[:200]
        raise NatstatsError(
            f"state: expected a whole file that natstats wrote; {printable(path)}: {reason}"
        ) from error
    return state


def _without_arrays(value: Any, arrays: dict[str, Any]) -> Any:
    """The same with names in place of the arrays, which are put into `arrays`."""
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

"""Writing JSON that every reader accepts, and reading JSON that others may have made."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from natstats.files.paths import open_regular

__all__ = ["read_json", "to_json"]

_LARGEST = 64 * 2**20
"""Most bytes of a file that is read; reading takes up to 24 times as much memory. The largest file
that natstats writes has a few million."""


def to_json(value: Any) -> str:
    """JSON text of plain values that every reader accepts.

    NaN and infinities become null, and halves of surrogate pairs in texts become escapes.

    >>> to_json({"a": float("nan"), "b": (1, 2.5)}).split()
    ['{', '"a":', 'null,', '"b":', '[', '1,', '2.5', ']', '}']
    """

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {_whole(str(key)): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        if isinstance(item, str):
            return _whole(item)
        if isinstance(item, np.generic):
            return plain(item.item())
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"


def _whole(text: str) -> str:
    """A text with escapes in place of halves of surrogate pairs, which some readers refuse."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def read_json(path: Path, *, finite: bool = False) -> Any:
    """What a JSON file holds.

    Args:
        path: path of the file.
        finite: whether NaN and infinities, which JSON does not have, are refused.

    Raises:
        OSError: it cannot be opened, or is no file.
        ValueError: it is not JSON, is nested too deeply, or is far too large.
    """

    def refused(word: str) -> Any:
        raise ValueError(f"a finite number was expected in place of {word}")

    with open_regular(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"expected at most {_LARGEST >> 20} MiB of JSON; it is larger")
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=refused if finite else None)
        # Half of a surrogate pair can be an escape in JSON, but cannot be written anywhere else.
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("expected JSON; it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("expected text; a string holds half of a surrogate pair") from None
    except ValueError as error:
        raise ValueError(f"expected JSON; {error}") from None
    return found

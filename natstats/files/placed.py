"""Which files and folders this process has put in place, so that an interruption can name them.

A place is noted before something is renamed to it, and looked at when the answer is needed. So the
answer is true whenever an interruption comes, and code that writes files need not care.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["forget", "identity", "in_place", "note"]


@dataclass(frozen=True)
class _Note:
    shown: Path
    place: Path
    identity: tuple[int, int]


_notes: list[_Note] = []


def identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of a file or folder, which a rename does not change; None for none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def note(source: Path, place: Path, shown: Path) -> None:
    """Note that `source` is about to be renamed to `place`.

    Args:
        source: an existing file or folder.
        place: where it goes.
        shown: what to call it once it is there.
    """
    own = identity(source)
    if own is not None:
        _notes.append(_Note(shown, Path(os.path.abspath(place)), own))


def in_place() -> list[Path]:
    """The noted paths that are in place now, each once, without those below another."""
    there = list(dict.fromkeys(one.shown for one in _notes if identity(one.place) == one.identity))
    return [path for path in there if not any(other in path.parents for other in there)]


def forget() -> None:
    """Forget all notes."""
    _notes.clear()

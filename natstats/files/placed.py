"""What this process has put in place, so that an interruption can say what is there.

The place is noted before it is taken, and looked at when it is asked for: so the answer is true
whenever the interruption came, and needs no care of those who write.
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
    """What tells a file or folder from every other, and stays when it is renamed; None for none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def note(source: Path, place: Path, shown: Path) -> None:
    """Note that `source` is about to be renamed to `place`.

    Args:
        source: a file or folder that is there.
        place: where it goes.
        shown: what to call it once it is there.
    """
    own = identity(source)
    if own is not None:
        _notes.append(_Note(shown, Path(os.path.abspath(place)), own))


def in_place() -> list[Path]:
    """What was noted and is in its place now, each once; what lies below another is left out."""
    there = list(dict.fromkeys(one.shown for one in _notes if identity(one.place) == one.identity))
    return [path for path in there if not any(other in path.parents for other in there)]


def forget() -> None:
    """Begin anew."""
    _notes.clear()

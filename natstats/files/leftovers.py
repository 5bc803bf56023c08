"""What a process that was killed has left under a hidden name: brought back, or cleared away."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from pathlib import Path

from natstats.files import locks
from natstats.files.ownership import KINDS, NEW, is_unfinished_series, read_record
from natstats.text import printable

__all__ = ["OLD", "clear", "hidden_name", "partial_prefix", "restore"]

OLD = "natstats-old"
"""Part of the name of a hidden folder that holds what was there before."""

_log = logging.getLogger("natstats")


def hidden_name(name: str) -> str:
    """A name short enough to be part of a longer one, which file systems limit to 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 180 else hashlib.sha256(encoded).hexdigest()[:16]


def partial_prefix(name: str) -> str:
    """Beginning of the name of the hidden folder that is to become one called `name`."""
    return f".{hidden_name(name)}.{NEW}." if name else f".{NEW}."


def clear(parent: Path, prefix: str) -> None:
    """Remove files and folders with a prefix whose writing processes are gone.

    Behind the prefix, a name has the :func:`natstats.files.locks.mark` of its process.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            rest = entry.name.removeprefix(prefix)
            if rest != entry.name and locks.is_gone(rest):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with contextlib.suppress(OSError):  # one that stays does not keep the others
                        os.unlink(entry.path)


def restore(path: Path) -> None:
    """Bring back the folder at `path` that a killed process left under a hidden name, and say so.

    Nothing happens when something is at `path`, or when nothing was left.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) or not real.parent.is_dir():
        return
    # The second is what older versions left.
    prefixes = (f".{hidden_name(real.name)}.{OLD}.", f".{real.name}.old.")
    with contextlib.suppress(OSError):
        left = [
            entry / "run"
            for entry in real.parent.iterdir()
            if entry.name.startswith(prefixes) and _is_any_kind(entry / "run")
        ]
        if left:
            newest = max(left, key=lambda folder: folder.parent.stat().st_mtime_ns)
            newest.rename(real)
            newest.parent.rmdir()
            _log.warning(
                "Note: %s was found as %s, where a process that was killed had left it, and is "
                "back in its place.",
                printable(path), printable(newest),
            )  # fmt: skip


def _is_any_kind(folder: Path) -> bool:
    return is_unfinished_series(folder) or any(read_record(folder, kind) for kind in KINDS)

"""A cache of the SHA-256 of files, so that each file is read for it only once.

A digest is kept under all that the file system says of a file without reading it: device, inode,
size, and the times of the last change of contents and of entry. It is used only while all of these
are the same. The digest of a file that was changed so recently that a second change could have the
same time is not kept.

The digests lie in an SQLite file in the user's cache directory (``$XDG_CACHE_HOME/natstats`` or
``~/.cache/natstats``), which orders the writing of several processes. Where it cannot be read or
written, and after any fault in it, digests are kept in memory only. It may be deleted; the files
are then read again.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["Identity", "cache_file", "identify", "keep", "known", "now"]

_ROWS = 4_000_000
"""Digests that are kept; the oldest go first."""

_IN_MEMORY = 200_000
_COARSE, _FINE = 2 * 10**9, 10**8
"""Nanoseconds in which two changes may have one time: where times are whole seconds, and else."""

_memory: dict[Identity, bytes] = {}


class Identity(NamedTuple):
    """What identifies the contents of a file, or of a part of it.

    Attributes:
        device: number of the device that the file is on.
        inode: inode of the file.
        size: size of the file, bytes.
        modified: time of the last change of the contents, nanoseconds.
        changed: time of the last change of the entry, nanoseconds.
        start: first byte of the part.
        length: length of the part, bytes; -1 for all of the file.
    """

    device: int
    inode: int
    size: int
    modified: int
    changed: int
    start: int = 0
    length: int = -1

    def is_settled(self, now: int) -> bool:
        """Whether a change after `now`, nanoseconds, would show in the time of the last change."""
        margin = _COARSE if self.modified % 10**9 == 0 else _FINE
        return now - self.modified > margin


def identify(path: str | Path, start: int = 0, length: int = -1) -> tuple[Identity, ...]:
    """A file's identity, in a tuple of one; empty where it is not there or cannot be told."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return ()
    if not status.st_ino:
        return ()
    # As SQLite has them: signed, of 64 bits.
    place = (status.st_dev, status.st_ino)
    device, inode = (n - (1 << 64) if n >= 1 << 63 else n for n in place)
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (Identity(device, inode, status.st_size, *times, start, length),)


def cache_file() -> Path | None:
    """Where digests are kept; None where the user has no such place."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path(os.path.expanduser("~"), ".cache")
    return home / "natstats" / "contents.sqlite" if home.is_absolute() else None


def known(wanted: Iterable[Identity]) -> dict[Identity, bytes]:
    """Digests that are kept of files as they are now; files without one are left out."""
    wanted = list(wanted)
    found = {one: _memory[one] for one in wanted if one in _memory}
    missing = [one for one in wanted if one not in found]
    if missing:
        with _connected(is_new=False) as connection:
            if connection is not None:
                for one in missing:
                    row = connection.execute(_FIND, one).fetchone()
                    if row is not None and isinstance(row[0], bytes) and len(row[0]) == 32:
                        found[one] = row[0]
    return found


def keep(digests: Mapping[Identity, bytes], read_at: int) -> None:
    """Keep digests for the next time, where that can be done.

    Args:
        digests: digests of files that had these identities both before and after they were read.
        read_at: when the first of them was read, nanoseconds since the epoch.
    """
    settled = {one: digest for one, digest in digests.items() if one.is_settled(read_at)}
    for one in list(_memory)[: max(0, len(_memory) + len(settled) - _IN_MEMORY)]:
        del _memory[one]
    _memory.update(settled)
    if settled:
        with _connected(is_new=True) as connection:
            if connection is not None:
                rows = [(*one, digest) for one, digest in settled.items()]
                connection.executemany(_KEEP, rows)
                connection.execute(_FORGET, (_ROWS,))
                connection.commit()


_TABLE = """
CREATE TABLE IF NOT EXISTS contents (
    device INTEGER, inode INTEGER, size INTEGER, modified INTEGER, changed INTEGER,
    start INTEGER, length INTEGER, digest BLOB,
    UNIQUE (device, inode, start, length) ON CONFLICT REPLACE
)"""
_FIND = """
SELECT digest FROM contents WHERE device = ? AND inode = ? AND size = ? AND modified = ?
AND changed = ? AND start = ? AND length = ?"""
_KEEP = "INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_FORGET = "DELETE FROM contents WHERE rowid <= (SELECT max(rowid) FROM contents) - ?"


@contextlib.contextmanager
def _connected(is_new: bool) -> Iterator[sqlite3.Connection | None]:
    """The open file of digests; None without one. A fault in it ends the block silently."""
    path = cache_file()
    connection = None
    with _forgiven(path):
        if path is not None and (path.is_file() or (is_new and not path.exists())):
            if is_new:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=5.0)
            if is_new:
                # Of two that read before they write, SQLite refuses one at once: so both ask to
                # write first, and one waits.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_TABLE)
    try:
        with _forgiven(path):
            yield connection
    finally:
        if connection is not None:
            connection.close()


@contextlib.contextmanager
def _forgiven(path: Path | None) -> Iterator[None]:
    """Ignore errors of the file; a damaged one is removed, to be made again."""
    try:
        yield
    except (OSError, OverflowError):
        return
    except sqlite3.Error as error:
        if type(error) is sqlite3.DatabaseError and path is not None:  # of its content
            with contextlib.suppress(OSError):
                path.unlink()


def now() -> int:
    """Nanoseconds since the epoch, by the clock that files are stamped with."""
    return time.time_ns()

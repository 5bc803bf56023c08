"""Opening files that others may have made, and following names that they hold, safely.

Opening a named pipe waits for a writer that never comes, and a path that is read from a file may
point anywhere. So only regular files are opened, and names from a file must stay in its folder.
Everything in natstats that opens what a user names, or follows a name from a file, goes through
here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from natstats.errors import NatstatsError, UsageError
from natstats.text import printable

__all__ = [
    "expanded", "folders_below", "found_from", "is_plain_name", "is_relative", "member",
    "open_regular", "plain_name", "read_regular", "way_from",
]  # fmt: skip

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file for reading bytes; never wait for something that is no file.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a device or a socket; ``strerror``
            says which.

    >>> with open_regular(Path(__file__)) as file:
    ...     file.read(3)
    b'\"\"\"'
    >>> open_regular("/dev/null")
    Traceback (most recent call last):
    OSError: [Errno 22] a character device, not a file: '/dev/null'
    """
    # Without O_NONBLOCK opening a pipe would hang before it could be looked at.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something special")
    raise OSError(errno.EINVAL, f"{kind}, not a file", str(path))


def read_regular(path: str | Path) -> bytes:
    """The contents of a file.

    Raises:
        OSError: see :func:`open_regular`.
    """
    with open_regular(path) as file:
        return file.read()


def is_plain_name(value: Any) -> bool:
    """Whether a value names something in a folder and nowhere else.

    >>> [is_plain_name(v) for v in ("epoch_2", "../a", "/a", "", "..", 3)]
    [True, False, False, False, False, False]
    """
    return (
        isinstance(value, str)
        and value not in ("", ".", "..")
        and not {"/", "\\", "\0"} & {*value}
        and not (os.name == "nt" and ":" in value)
    )


def plain_name(value: Any, where: str) -> str:
    """Return a name that was read from a file, when it names something in its own folder.

    Args:
        value: what was read.
        where: file and field, for the error.

    Raises:
        NatstatsError: it is a path, or no text.

    >>> plain_name("../a", "series.json, checkpoint")
    Traceback (most recent call last):
    natstats.errors.NatstatsError: series.json, checkpoint: expected a plain name; got '../a'
    """
    if not is_plain_name(value):
        raise NatstatsError(f"{where}: expected a plain name; got {printable(repr(value)[:80])}")
    return str(value)


def member(folder: Path, name: Any, where: str) -> Path:
    """The path of something in a folder whose name was read from a file or from the folder.

    Args:
        folder: in which it must be.
        name: of a file or a folder in it, there or not.
        where: file and field, for the error.

    Raises:
        NatstatsError: the name is a path, or a link that leads out of the folder.

    >>> member(Path("series"), "epoch_1", "series.json, checkpoint").as_posix()
    'series/epoch_1'
    """
    path = folder / plain_name(name, where)
    try:
        leads_out = path.is_symlink() and folder.resolve() not in path.resolve().parents
    except (OSError, RuntimeError):  # a link to itself
        leads_out = True
    if leads_out:
        raise NatstatsError(
            f"{where}: expected something in {printable(folder)}; {printable(repr(name))} is a "
            "link that leads out of it"
        )
    return path


def expanded(path: str | Path, argument: str) -> Path:
    """A path with the home of a user in place of ``~``.

    Raises:
        UsageError: there is no such user.

    >>> expanded("runs/a", "out").as_posix()
    'runs/a'
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(
            f"{argument}: expected the home of a user behind ~; got {printable(path)}"
        ) from None


def is_relative(path: str | Path) -> bool:
    """Whether a path depends on the current folder.

    >>> [is_relative(path) for path in ("runs/a", "../a", "/a", "~/a")]
    [True, True, False, False]
    """
    return not (Path(path).is_absolute() or str(path).startswith("~"))


def found_from(folder: str | Path | None, path: str) -> str:
    """A relative path below another folder where something is found only there, else as given.

    Args:
        folder: folder that the path was relative to; None where that is not known.
        path: the path as it was given.

    >>> found_from("/", "no such file")
    'no such file'
    """
    if folder is None or not is_relative(path):
        return path
    there = Path(folder, path)
    try:
        return str(there) if there.exists() and not Path(path).exists() else path
    except (OSError, ValueError):
        return path


def way_from(home: Path, path: Path | None) -> str | None:
    """The relative path from a folder to another path; None where there is none.

    It stays valid where both are moved together.

    >>> way_from(Path("reports/a"), Path("runs/b"))
    '../../runs/b'
    """
    if path is None:
        return None
    try:
        return Path(os.path.relpath(path.resolve(), home.resolve())).as_posix()
    except ValueError:  # on another drive
        return None


def folders_below(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, each with the names of the folders in it that come next.

    The list may be changed, as that of :func:`os.walk`. Links are followed once, and hidden folders
    are skipped.
    """
    seen: set[Path] = set()
    for name, folders, _ in os.walk(path, followlinks=True):
        here = Path(name)
        if here.resolve() in seen:
            folders.clear()
            continue
        seen.add(here.resolve())
        folders[:] = [one for one in folders if not one.startswith(".")]
        yield here, folders

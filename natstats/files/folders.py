"""Writing folders: whole or not at all, and never at the cost of what was there.

What is written goes into a hidden folder first and is put in place by renaming. Where the system
can exchange two folders in one step, there is no moment without the old or the new one; elsewhere
a process that is killed between two steps leaves the old folder under a hidden name, from which
:func:`restore` brings it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from natstats.errors import NatstatsError, UsageError
from natstats.files import placed
from natstats.files.ownership import (
    KINDS,
    NEW,
    foreign,
    is_unfinished_series,
    kind_of_record,
    list_files,
    names_of,
    own_files,
    read_record,
    remove_own,
)
from natstats.text import printable

__all__ = [
    "add_files", "check_target", "free_path", "move_in", "new_folder", "refuse_foreign", "restore",
    "write_directory",
]  # fmt: skip

_OLD = "natstats-old"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)

_log = logging.getLogger("natstats")


def free_path(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... that does not exist."""
    candidate, number = path, 2
    while os.path.lexists(candidate):
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def check_target(
    path: Path, overwrite: bool, kind: str = "run", *, beside: bool | None = None
) -> None:
    """Raise unless a folder of this kind may be written to `path`.

    Args:
        path: of the folder.
        overwrite: a folder of this kind may be there.
        kind: see :data:`natstats.files.ownership.KINDS`.
        beside: files go beside what else is there, so that only those that are replaced need be
            natstats' own; else the folder may hold nothing else. By default as the kind says.

    Raises:
        UsageError: something is there and `overwrite` is not set, it is not of this kind, or files
            are in the way that natstats did not write.
    """
    try:
        if not os.path.lexists(path):  # it may lead to something over folders that are not there
            path = Path(os.path.realpath(path))
        restore(path)
        _check_target(path, overwrite, kind)
        if os.path.lexists(path):
            refuse_foreign(path, kind, beside)
    except (OSError, ValueError) as error:
        if not isinstance(error, UsageError):
            raise UsageError(f"out: expected a path for a folder; {error}") from error
        raise


def _check_target(path: Path, overwrite: bool, kind: str) -> None:
    if not path.exists():
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise UsageError(f"out: expected a place that can be written to; {parent} is not")
        return
    own = KINDS[kind]
    if overwrite and own.is_whole:
        _check_can_be_replaced(path)
    if not overwrite:
        raise UsageError(
            f"out: expected a path where nothing is; {path} exists and is kept "
            f"(--overwrite replaces a {own.called})"
        )
    is_kind = path.is_dir() and (not any(path.iterdir()) or _is_of_kind(path, kind))
    if not is_kind:
        why = ""
        if os.path.lexists(path / own.record):
            why = f" ({own.record} is there and cannot be read as one of natstats)"
        raise UsageError(
            f"out: expected a {own.called} to overwrite; {path} is something else and is kept{why}"
        )


def _check_can_be_replaced(path: Path) -> None:
    """Raise when another folder could not be put where this one is, before there is any work."""
    real = Path(os.path.realpath(path))
    if os.path.ismount(real):
        raise UsageError(
            f"out: expected a folder that can be replaced; {path} is a mount point (a folder below "
            "it can be)"
        )
    if not os.access(real.parent, os.W_OK):
        raise UsageError(
            f"out: expected a folder that can be replaced; {real.parent}, which it is in, cannot "
            "be written to"
        )


def _is_of_kind(path: Path, kind: str) -> bool:
    if read_record(path, kind) is not None:
        return True
    if KINDS[kind].is_whole:
        return kind == "series" and is_unfinished_series(path)
    # Files are being added, and the record comes last: a process that was killed left them so.
    names = [entry.name for entry in path.iterdir()]
    left = [name for name in names if name.startswith(f".{NEW}.")]
    known = KINDS[kind].known
    return bool(left) and all(n in left or n == "figures" or known.fullmatch(n) for n in names)


def refuse_foreign(path: Path, kind: str, beside: bool | None = None) -> None:
    """Raise when files are in the way of a folder of this kind that natstats did not write.

    Args:
        path: of the folder.
        kind: of it.
        beside: see :func:`check_target`.

    Raises:
        UsageError: there are; some are named.
    """
    others = foreign(path, kind, beside)
    if others:
        raise UsageError(
            f"out: expected a {KINDS[kind].called} and nothing else to overwrite; {path} also "
            f"holds {names_of(others)}, which natstats did not write, and is kept"
        )


@contextlib.contextmanager
def write_directory(path: Path, overwrite: bool = False, kind: str = "run") -> Iterator[Path]:
    """Give a folder to write into that becomes `path` when the context closes without an error.

    Until then nothing is at `path`, or what was there before; after an error the folder is gone.
    The record of the kind then lists the files, which are all that is ever removed again.

    Raises:
        UsageError: see :func:`check_target`.
        NatstatsError: the folder cannot be made.
    """
    check_target(path, overwrite, kind)
    real = Path(os.path.realpath(path))  # a link stays one
    with new_folder(real.parent, real.name) as partial:
        # As if it had been made in the usual way.
        partial.chmod(0o777 & ~_umask())
        yield partial
        list_files(partial, kind)
        _sync(partial)
        check_target(path, overwrite, kind)
        placed.note(partial, real, path)
        _put_in_place(partial, real, kind)


@contextlib.contextmanager
def add_files(path: Path, last: str) -> Iterator[Path]:
    """Give a folder whose files go into the directory `path` when the context closes without error.

    Files of the same names are replaced and all others stay. The file `last` is taken away first
    and comes in place when all the others are: where it is there, they belong to it.

    Raises:
        UsageError: a file of the same name is there that natstats did not write.
        NatstatsError: they cannot be written.
    """
    kind = kind_of_record(last)
    with new_folder(path) as partial:
        yield partial
        if kind is not None:
            own: set[str] = set()
            if read_record(path, kind) is not None:
                files = {file.relative_to(partial).as_posix() for file in _files(partial)}
                others = sorted(files & {*foreign(path, kind)})
                if others:
                    raise UsageError(
                        f"out: expected to replace what natstats wrote; {path} holds "
                        f"{names_of(others)}, which it did not write, and is kept"
                    )
                own = {one for one in own_files(path, kind) if KINDS[kind].known.fullmatch(one)}
            list_files(partial, kind, own)
        move_in(partial, path, last)


def move_in(partial: Path, path: Path, last: str | None = None) -> None:
    """Move all files of one folder into another, those of the same names replaced; `last` is last.

    An interruption waits until all of them are in place.

    Raises:
        NatstatsError: a folder or a link is where a file goes, or a link where a folder is; or a
            file cannot be moved.
    """
    files = sorted(_files(partial))
    for here in [*files, *(folder for folder in partial.rglob("*") if folder.is_dir())]:
        home = path / here.relative_to(partial)
        is_odd = home.is_dir() if here.is_file() else home.exists() and not home.is_dir()
        # A link to a folder would lead what is written out of the place that was asked for.
        if is_odd or (here.is_dir() and home.is_symlink()):
            expected = "a file" if here.is_file() else "a folder"
            raise NatstatsError(f"out: expected {expected} or nothing at {home}; it is neither")

    def move() -> None:
        if last is not None and (partial / last).exists():
            (path / last).unlink(missing_ok=True)
        for file in sorted(files, key=lambda file: last is not None and file == partial / last):
            if file.exists():
                home = path / file.relative_to(partial)
                home.parent.mkdir(parents=True, exist_ok=True)
                placed.note(file, home, path)
                file.replace(home)

    try:
        _sync(partial)
        try:
            move()
        except KeyboardInterrupt:
            move()
            raise
    except OSError as error:
        raise NatstatsError(f"out: expected files that can be put in place; {error}") from error


@contextlib.contextmanager
def new_folder(parent: Path, name: str = "") -> Iterator[Path]:
    """Give a hidden folder in `parent`, which is made if it is not there; gone with the context.

    Args:
        parent: in which it is.
        name: of what it will become.

    Raises:
        NatstatsError: it cannot be made, or there is no room for what is written into it.
    """
    try:
        made = [here for here in (parent, *parent.parents) if not here.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{_hidden(name)}.{NEW}." if name else f".{NEW}."
        partial = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    except (OSError, ValueError) as error:
        raise NatstatsError(f"out: expected a folder to write to; {error}") from error
    own = placed.identity(partial)
    try:
        yield partial
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise NatstatsError(
            f"out: expected room for what is written to {parent}; {error.strerror} (nothing of it "
            "was kept)"
        ) from error
    finally:
        # Once it is in place, its hidden name is that of what was there before.
        if placed.identity(partial) == own:
            shutil.rmtree(partial, ignore_errors=True)
        for here in made:
            with contextlib.suppress(OSError):  # something is in it
                here.rmdir()


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file())


def _sync(folder: Path) -> None:
    for file in _files(folder):
        with file.open("rb") as handle:
            os.fsync(handle.fileno())


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _hidden(name: str) -> str:
    """A name as a part of a longer one, which file systems limit to 255 bytes."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= 180 else hashlib.sha256(encoded).hexdigest()[:16]


def _put_in_place(partial: Path, path: Path, kind: str) -> None:
    """Rename `partial` to `path`; what was there stays until the new one is in place."""
    own = placed.identity(partial)
    old = partial  # which is what an exchange makes of it
    try:
        if not os.path.lexists(path):
            partial.rename(path)
        elif not _exchange(partial, path):
            old = Path(tempfile.mkdtemp(prefix=f".{_hidden(path.name)}.{_OLD}.", dir=path.parent))
            old /= "run"
            # A process that is killed between these two is what `restore` is for.
            path.rename(old)
            partial.rename(path)
    except OSError as error:
        raise NatstatsError(f"out: expected a folder that can be put in place; {error}") from error
    finally:
        # Also after an interruption, which may come between any two of the steps.
        if placed.identity(path) == own:
            _discard(old, path, kind)
        elif old != partial and old.exists() and not os.path.lexists(path):
            old.rename(path)
        if old != partial:
            with contextlib.suppress(OSError):
                old.parent.rmdir()
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(old: Path, path: Path, kind: str) -> None:
    """Remove the folder that `path` took the place of, but for what natstats did not write."""
    if not old.exists():
        return
    remove_own(old, kind)
    if old.exists():  # files came while the new folder was written
        kept = free_path(path.with_name(f"{path.name}-kept"))
        old.rename(kept)
        _log.warning(
            "Note: %s was replaced; what natstats had not written there is in %s.",
            printable(path), printable(kept),
        )  # fmt: skip


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    at_working_directory, exchange = -100, 2
    paths = [ctypes.c_char_p(os.fsencode(path)) for path in (first, second)]
    failed: int = renameat2(
        at_working_directory, paths[0], at_working_directory, paths[1], ctypes.c_uint(exchange)
    )
    return failed == 0


def restore(path: Path) -> None:
    """Bring back the folder at `path` that a killed process left under a hidden name, and say so.

    Nothing happens when something is at `path`, or when nothing was left.
    """
    real = Path(os.path.realpath(path))
    if os.path.lexists(real) or not real.parent.is_dir():
        return
    # The second is what older versions left.
    prefixes = (f".{_hidden(real.name)}.{_OLD}.", f".{real.name}.old.")
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

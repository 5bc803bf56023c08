"""Writing folders: whole or not at all, and never at the cost of what was there.

What is written goes into a hidden folder first and is put in place by renaming. Where the system
can exchange two folders in one step, there is no moment without the old or the new one; elsewhere
a process that is killed between two steps leaves the old folder under a hidden name, from which
:func:`restore` brings it back.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from natstats.errors import NO_ROOM, NatstatsError, UsageError
from natstats.files import locks, placed
from natstats.files.leftovers import OLD, clear, hidden_name, partial_prefix, restore
from natstats.files.ownership import (
    KINDS,
    foreign,
    is_bare,
    kind_of_record,
    list_files,
    names_of,
    own_files,
    read_record,
    remove_own,
)  # fmt: skip
from natstats.files.targets import check_target, free_path, refuse_foreign
from natstats.files.whole_files import sync
from natstats.text import printable

__all__ = [
    "add_files", "check_target", "free_path", "move_in", "new_folder", "refuse_foreign", "restore",
    "write_directory",
]  # fmt: skip

_log = logging.getLogger("natstats")


@contextlib.contextmanager
def write_directory(path: Path, overwrite: bool = False, kind: str = "run") -> Iterator[Path]:
    """Give a folder to write into that becomes `path` when the context closes without an error.

    Until then `path` is as it was before; after an error the new folder is gone. The record of
    the folder lists its files, and only these are ever removed again.

    Raises:
        UsageError: see :func:`check_target`.
        NatstatsError: the folder cannot be made.
    """
    check_target(path, overwrite, kind)
    real = Path(os.path.realpath(path))  # where `path` is a link, it stays one
    with new_folder(real.parent, real.name) as partial:
        # The permissions of a folder that is made in the usual way.
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

    Files of the same names are replaced and all others stay. The file `last` is removed first and
    put in place after all the others: where it exists, they belong to it.

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
    """Give a hidden folder in `parent`, which is removed when the context closes.

    Args:
        parent: the folder that it is in, which is made if it is not there.
        name: name of the folder that it will become.

    Raises:
        NatstatsError: it cannot be made, or there is no room for what is written into it.
    """
    try:
        made = [here for here in (parent, *parent.parents) if not here.exists()]
        parent.mkdir(parents=True, exist_ok=True)
        prefix = partial_prefix(name)
        clear(parent, prefix)
        partial = Path(tempfile.mkdtemp(prefix=f"{prefix}{locks.mark()}_", dir=parent))
    except (OSError, ValueError) as error:
        raise NatstatsError(f"out: expected a folder to write to; {error}") from error
    own = placed.identity(partial)
    try:
        yield partial
    except OSError as error:
        if error.errno is None:  # not an error of the file system
            raise
        expected = "room for what is" if error.errno in NO_ROOM else "files that can be"
        raise NatstatsError(
            f"out: expected {expected} written to {parent}; {error.strerror or error} (nothing of "
            "it was kept)"
        ) from error
    finally:
        # Once it is in place, its hidden name may be that of the folder that was there before.
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
            sync(handle.fileno())


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put_in_place(partial: Path, path: Path, kind: str) -> None:
    """Rename `partial` to `path`; what was there stays until the new one is in place."""
    own = placed.identity(partial)
    old = partial  # where an exchange leaves the old folder
    try:
        if not os.path.lexists(path):
            partial.rename(path)
        elif not _exchange(partial, path):
            prefix = f".{hidden_name(path.name)}.{OLD}."
            old = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
            old /= "run"
            # A process that is killed between these two is what `restore` is for.
            path.rename(old)
            partial.rename(path)
    except OSError as error:
        raise NatstatsError(f"out: expected a folder that can be put in place; {error}") from error
    finally:
        # Also after an interruption, which may come between any two of the steps.
        with contextlib.suppress(OSError):  # what is left is cleared, or brought back, later
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
    """Remove the folder that `path` has replaced, except for files that natstats did not write."""
    if not old.exists():
        return
    remove_own(old, kind)
    if is_bare(old):  # apart from files that were removed while open
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():  # files came while the new folder was written
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

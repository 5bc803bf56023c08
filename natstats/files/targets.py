"""Whether a folder may be written to a path: checked before the work, and when it is done."""

from __future__ import annotations

import os
from pathlib import Path

from natstats.errors import UsageError
from natstats.files import locks
from natstats.files.leftovers import restore
from natstats.files.ownership import (
    KINDS,
    NEW,
    STATE,
    foreign,
    is_reserved,
    is_unfinished_series,
    names_of,
    read_record,
)  # fmt: skip

__all__ = ["check_target", "free_path", "refuse_foreign"]


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
        path: path of the folder.
        overwrite: whether a folder of this kind may be there.
        kind: see :data:`natstats.files.ownership.KINDS`.
        beside: whether files are added beside others, so that only those that are replaced must be
            natstats' own; else the folder may hold nothing else. By default as the kind says.

    Raises:
        UsageError: something is there and `overwrite` is not set, it is not of this kind, or files
            are in the way that natstats did not write.
    """
    try:
        if not os.path.lexists(path):  # such as missing/../run, which leads to run
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
    if locks.is_held(path / STATE):
        if is_reserved(path):
            return
    elif (owner := locks.owner(path / STATE)) is not None:
        raise UsageError(
            f"out: expected a folder where nobody is at work; {path} is being written by "
            f"{locks.in_words(owner)} (another --out, or wait for it)"
        )
    elif is_reserved(path):
        raise UsageError(
            f"out: expected a path where nothing is; {path} keeps the state of work that is not "
            "finished (the command that began it goes on from there)"
        )
    if overwrite and own.is_whole:
        _check_can_be_replaced(path)
    if not overwrite:
        raise UsageError(
            f"out: expected a path where nothing is; {path} exists and is kept "
            f"(--overwrite replaces a {own.called}; nothing can be added to one)"
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
    # The record comes last: a process that was killed while it added files left them without one.
    names = [entry.name for entry in path.iterdir()]
    left = [name for name in names if name.startswith(f".{NEW}.")]
    known = KINDS[kind].known
    return bool(left) and all(n in left or n == "figures" or known.fullmatch(n) for n in names)


def refuse_foreign(path: Path, kind: str, beside: bool | None = None) -> None:
    """Raise when files are in the way of a folder of this kind that natstats did not write.

    Args:
        path: path of the folder.
        kind: kind of the folder.
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

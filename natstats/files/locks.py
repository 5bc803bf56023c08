"""Which process is at work in a folder: a file that names it, and whether that process still runs.

The system tells whether a process on this machine runs; as process numbers are used again, the file
also keeps when it began. Of a process on another machine only the last sign of life is known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.files.json_files import read_json
from natstats.text import printable

__all__ = ["alive", "in_words", "is_gone", "is_held", "lock", "mark", "owner", "sign", "unlock"]

_NAME = "lock.json"

SILENCE = 900.0
"""Seconds without a sign of life after which a process on another machine is taken to be gone."""

SIGN_EVERY = 60.0
"""Seconds between two signs of life."""

_held: dict[str, str] = {}
"""Tokens of the locks that this process holds, by the folder."""


def lock(folder: Path, shown: Path) -> None:
    """Take the lock of a folder, also from a process that is gone.

    Args:
        folder: a folder that exists.
        shown: what to call it in errors.

    Raises:
        UsageError: another process is at work there, or it is a link, which may lead anywhere.
        OSError: it cannot be written to.
    """
    if folder.is_symlink():
        raise UsageError(
            f"out: expected a folder for the state of the work; {printable(shown / folder.name)} "
            "is a link, and nothing is written to where it leads"
        )
    token = uuid.uuid4().hex
    record = {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _born(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    with _alone(folder):
        other = owner(folder)
        if other is not None:
            raise UsageError(
                f"out: expected a folder where nobody is at work; {printable(shown)} is being "
                f"written by {in_words(other)} (another --out, or wait for it)"
            )
        partial = folder / f".{_NAME}.{token}"
        try:
            partial.write_text(json.dumps(record), encoding="utf-8")
            partial.replace(folder / _NAME)
        finally:
            with contextlib.suppress(OSError):  # it is still there where there was no room for it
                partial.unlink(missing_ok=True)
    _held[_key(folder)] = token


def unlock(folder: Path) -> None:
    """Give back the lock that this process holds; one that another has taken over stays."""
    token = _held.pop(_key(folder), None)
    if token is None:
        return
    with contextlib.suppress(OSError):
        if (_read(folder) or {}).get("token") == token:
            (folder / _NAME).unlink()


def sign(folder: Path) -> None:
    """Give a sign of life: set the time of the lock to now.

    Raises:
        NatstatsError: another process has taken the folder over.
    """
    found = _read(folder)
    if found is not None and found.get("token") != _held.get(_key(folder)):
        raise NatstatsError(
            f"out: expected to be alone at work in {printable(folder.parent)}; "
            f"{in_words(found)} has taken it over"
        )
    with contextlib.suppress(OSError):
        os.utime(folder / _NAME)


@contextlib.contextmanager
def alive(folder: Path) -> Iterator[None]:
    """Give signs of life as long as the context is open, whatever the process is doing.

    Args:
        folder: folder whose lock this process holds. None is given once another has taken it over.
    """
    is_over = threading.Event()

    def sign_now_and_then() -> None:
        while not is_over.wait(SIGN_EVERY):
            with contextlib.suppress(NatstatsError):  # the work hears of it when it saves
                sign(folder)

    threading.Thread(target=sign_now_and_then, daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def is_held(folder: Path) -> bool:
    """Whether this process holds the lock."""
    return _key(folder) in _held


def owner(folder: Path) -> dict[str, Any] | None:
    """What the lock says of another process that is at work there; None where there is none."""
    found = _read(folder)
    if found is None or found.get("token") == _held.get(_key(folder)):
        return None
    return found if _is_alive(found, folder) else None


def in_words(found: dict[str, Any]) -> str:
    """A process as a lock names it."""
    words = f"process {found.get('pid')} on {found.get('host')}, since {found.get('since')}"
    return printable(words)[:200]


def mark() -> str:
    """A mark of this process, in letters, digits and underscores, for names of what it writes."""
    return f"{_host()}_{os.getpid()}_{_clean(_born(os.getpid()))}"


def is_gone(name: str) -> bool:
    """Whether a name begins with the mark of a process of this machine that no longer runs.

    >>> is_gone(f"{mark()}_x"), is_gone("anything")
    (False, False)
    """
    found = re.match(r"(\w{8})_(\d{1,9})_([0-9a-f]*)_", name)
    if found is None or found[1] != _host():
        return False
    pid = int(found[2])
    return not _runs(pid) or _clean(_born(pid)) != found[3]


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _clean(born: str | None) -> str:
    return "" if born is None else hashlib.sha256(born.encode()).hexdigest()[:8]


def _key(folder: Path) -> str:
    return os.path.realpath(folder)


def _read(folder: Path) -> dict[str, Any] | None:
    """What a lock says; None where there is none, or only a part of one, or behind a link."""
    if folder.is_symlink():
        return None
    try:
        found = read_json(folder / _NAME)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep the other processes of this machine out of a folder for a moment."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not on every file system
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _is_alive(found: dict[str, Any], folder: Path) -> bool:
    pid = found.get("pid")
    if found.get("host") == socket.gethostname() and isinstance(pid, int):
        return _runs(pid) and found.get("born") in (None, _born(pid))
    try:
        # By the clock of the file system, which both machines see.
        probe = folder / f".clock.{uuid.uuid4().hex}"
        probe.touch()
        now = probe.stat().st_mtime
        probe.unlink()
        return now - (folder / _NAME).stat().st_mtime < SILENCE
    except OSError:
        return True


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _born(pid: int) -> str | None:
    """When a process began, by the clock of its machine; None where the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return f"{boot} {stat.rpartition(')')[2].split()[19]}"

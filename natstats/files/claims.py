"""Claims: a folder is reserved before the work that fills it, and keeps the state of that work.

A claim makes the folder, or takes one that may be replaced, and puts ``.natstats-state`` into it:
the state of the unfinished work, and the lock that says which process is doing it. Of processes
that want one folder, one gets it; if that one is killed, the next goes on from the state it left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from natstats.errors import NatstatsError, UsageError
from natstats.files import locks
from natstats.files.ownership import STATE, is_reserved
from natstats.files.paths import expanded
from natstats.files.targets import check_target

__all__ = ["claimed", "claimed_free", "first_free", "locked"]


@contextlib.contextmanager
def claimed(out: str | Path, overwrite: bool = False, kind: str = "run") -> Iterator[Path]:
    """Claim a folder for as long as the context is open, and give the folder of its state.

    A folder that this process has already claimed stays claimed, and its state folder is given
    again. What is in the state folder when the context closes stays, for a later claim to go on
    from; a folder that was made for the claim and is empty is removed again.

    Args:
        out: the folder.
        overwrite: whether what is there may be replaced when the work is done.
        kind: the kind of folder that it is to become, see :data:`natstats.files.ownership.KINDS`.

    Raises:
        UsageError: it is no place for such a folder, or another process is at work there.
        NatstatsError: it cannot be written to.
    """
    path = expanded(out, "out")
    if locks.is_held(path / STATE):
        yield path / STATE
        return
    if not is_reserved(path):
        check_target(path, overwrite, kind)
    state = Path(os.path.realpath(path)) / STATE
    with locked(state, path):
        yield state


@contextlib.contextmanager
def locked(own: Path, shown: Path) -> Iterator[None]:
    """Hold the lock of a folder as long as the context is open.

    Args:
        own: the folder, which is made if it is not there. It, and parents that were made for it,
            are removed again if they are empty.
        shown: what it is called in errors.

    Raises:
        UsageError: another process holds it.
        NatstatsError: it cannot be written to.
    """
    made = [here for here in own.parents if not here.exists()]
    try:
        try:
            try:
                own.mkdir(parents=True, exist_ok=True)
                locks.lock(own, shown)
            except FileNotFoundError:  # a claim that came to nothing has removed it meanwhile
                own.mkdir(parents=True, exist_ok=True)
                locks.lock(own, shown)
        except OSError as error:
            raise NatstatsError(
                f"out: expected a folder that can be written to; {error}"
            ) from error
        with locks.alive(own):
            yield
    finally:
        locks.unlock(own)
        with contextlib.suppress(OSError):
            for here in (own, *made):
                here.rmdir()  # fails where something is in it


@contextlib.contextmanager
def claimed_free(path: Path, goes_on: Callable[[Path], bool]) -> Iterator[Path]:
    """Claim the first of `path`, path-2, path-3, ... that is free, and give it.

    It is free where nothing is, or unfinished work that no process is doing and that can go on.

    Args:
        path: the first candidate.
        goes_on: whether this work can go on from a state folder of unfinished work.
    """

    def can_go_on(candidate: Path) -> bool:
        state = candidate / STATE
        is_idle = not locks.is_held(state) and locks.owner(state) is None
        return is_reserved(candidate) and is_idle and goes_on(state)

    with first_free(path, can_go_on, claimed) as candidate:
        yield candidate


@contextlib.contextmanager
def first_free(
    path: Path,
    is_usable: Callable[[Path], bool],
    claim: Callable[[Path], contextlib.AbstractContextManager[object]],
) -> Iterator[Path]:
    """Claim the first of `path`, path-2, path-3, ... that is free, and give it.

    Args:
        path: the first candidate.
        is_usable: whether a candidate at which something is counts as free.
        claim: claims a candidate; raises :class:`UsageError` where another process was faster.
    """
    with contextlib.ExitStack() as stack:
        candidate, number = path, 2
        while True:
            if not os.path.lexists(candidate) or is_usable(candidate):
                try:
                    stack.enter_context(claim(candidate))
                    break
                except UsageError:  # another process was faster
                    if not os.path.lexists(candidate):
                        raise
            candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
        yield candidate

"""A folder that is reserved before the work that fills it, and that keeps the state of that work.

A claim makes the folder, or takes one that may be replaced, and puts ``.natstats-state`` into it:
what unfinished work has come to, and the lock that says which process is at it. Of processes that
want one folder, one has it; where that one is killed, the next goes on from what it left.
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

__all__ = ["claimed", "claimed_free"]


@contextlib.contextmanager
def claimed(out: str | Path, overwrite: bool = False, kind: str = "run") -> Iterator[Path]:
    """Claim a folder for as long as the context is open, and give the folder for its state.

    What this process has claimed already stays so, and is given again.

    What is in that one when the context closes stays, for another claim to go on from; a folder
    that was made for the claim and holds nothing is removed again.

    Args:
        out: the folder.
        overwrite: what is there may be replaced when the work is done.
        kind: of folder that it is to become, see :data:`natstats.files.ownership.KINDS`.

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
    real = Path(os.path.realpath(path))
    made = [here for here in (real, *real.parents) if not here.exists()]
    state = real / STATE
    try:
        try:
            state.mkdir(parents=True, exist_ok=True)
            locks.lock(state, path)
        except FileNotFoundError:  # removed in this moment by a claim that came to nothing
            state.mkdir(parents=True, exist_ok=True)
            locks.lock(state, path)
    except OSError as error:
        raise NatstatsError(f"out: expected a folder that can be written to; {error}") from error
    try:
        yield state
    finally:
        locks.unlock(state)
        with contextlib.suppress(OSError):
            state.rmdir()  # only where nothing is in it
            for here in made:
                here.rmdir()


@contextlib.contextmanager
def claimed_free(path: Path, goes_on: Callable[[Path], bool]) -> Iterator[Path]:
    """Claim the first of `path`, path-2, path-3, ... that can be had, and give it.

    That is one where nothing is, or unfinished work that nobody is at and that can go on.

    Args:
        path: the first candidate.
        goes_on: asked with the state folder of unfinished work; whether it is that of this work.
    """
    with contextlib.ExitStack() as stack:
        candidate, number = path, 2
        while True:
            state = candidate / STATE
            is_idle = (
                is_reserved(candidate) and not locks.is_held(state) and locks.owner(state) is None
            )
            if not os.path.lexists(candidate) or (is_idle and goes_on(state)):
                try:
                    stack.enter_context(claimed(candidate))
                    break
                except UsageError:  # another process was faster
                    if not os.path.lexists(candidate):
                        raise
            candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
        yield candidate

"""Folders that trainings are written to: what may be there before, and what is done already."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import RECORD, STATE, TABLE, TABLE_FILES, has_state
from natstats.distill.training.setup import Distillation
from natstats.distill.training.state import refuse_other_settings
from natstats.errors import UsageError
from natstats.files import locks
from natstats.files.claims import first_free, locked
from natstats.files.json_files import to_json
from natstats.files.paths import expanded
from natstats.runs import store

__all__ = ["Sign", "check_out", "check_seeds_out", "finished", "reserved", "reserved_free"]

_LOCK = ".natstats-training"
"""Folder, in that of a training, with the file that names the process which is at it."""

_SECONDS_BETWEEN_SIGNS = 60.0

_LEFT = (f"{STATE}.partial", f"{STATE}.history")
"""Beginnings of files, which a process that was killed leaves."""


def check_out(path: Path, overwrite: bool) -> None:
    """Raise unless a run may be written to `path`: nothing is there, or a training that was cut.

    Raises:
        UsageError: something else is there, or a finished run and `overwrite` is not set.
    """
    if not path.is_dir() or (_entries(path) and not has_state(path)):
        store.check_target(path, overwrite, "distill")
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"out: expected a place that can be written to; {path} is not")


def _entries(path: Path) -> list[Path]:
    """What is in a folder, but for what says who is at work there."""
    return [entry for entry in path.iterdir() if entry.name != _LOCK]


@contextlib.contextmanager
def reserved(path: Path, overwrite: bool = False) -> Iterator[None]:
    """Have the folder of a training for this process alone, as long as the context is open.

    What it has already it may have again. A process that is gone keeps nobody out, and what it was
    writing is removed.

    Args:
        path: of the folder, which is made if it is not there, and removed if it stays empty.
        overwrite: see :func:`check_out`.

    Raises:
        UsageError: another process is at work there; or see :func:`check_out`.
        NatstatsError: the folder cannot be made.
    """
    check_out(path, overwrite)
    own = Path(os.path.realpath(path)) / _LOCK
    if locks.is_held(own):
        yield
        return
    with locked(own, path):
        check_out(path, overwrite)  # another one may have come to its end just now
        for name in _LEFT:
            if not (path / name).is_dir():
                (path / name).unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def reserved_free(path: Path) -> Iterator[Path]:
    """Reserve the first of `path`, path-2, path-3, ... where nothing is, and give it.

    Nor is there anything where a process was killed before it had kept something.
    """

    def is_left(candidate: Path) -> bool:
        return (candidate / _LOCK).is_dir() and not _entries(candidate)

    with first_free(path, is_left, reserved) as candidate:
        yield candidate


class Sign:
    """Gives a sign of life now and then, which processes on other machines look for.

    Args:
        path: of the folder, which may be reserved by another of several processes.
    """

    def __init__(self, path: Path) -> None:
        self._own = Path(os.path.realpath(path)) / _LOCK
        self._at = time.monotonic()

    def give(self) -> None:
        """Give one, unless the last was just given.

        Raises:
            NatstatsError: another process has taken the folder over, as there was none for long.
        """
        now = time.monotonic()
        if now - self._at > _SECONDS_BETWEEN_SIGNS and locks.is_held(self._own):
            self._at = now
            locks.sign(self._own)


def check_seeds_out(path: Path) -> None:
    """Raise unless the runs of several seeds may be written to folders in `path`.

    Raises:
        UsageError: something is there that is neither such runs nor their table.
    """
    if not path.exists():
        store.check_target(path, False, "table")
        return
    entries = _entries(path) if path.is_dir() else [path]
    is_single = (path / RECORD).is_file() or has_state(path)
    has_runs = any(
        re.fullmatch(r"seed-\d+", entry.name) and _is_training(entry) for entry in entries
    )
    has_other_table = TABLE not in (e.name for e in entries) and any(
        entry.name in TABLE_FILES for entry in entries
    )
    if is_single or (entries and (not has_runs or has_other_table)):
        what = "one training" if is_single else "other things"
        raise UsageError(
            f"out: expected a folder for the runs of several seeds; {path} holds {what} and is kept"
        )


def _is_training(path: Path) -> bool:
    return (path / RECORD).is_file() or has_state(path) or (path / _LOCK).is_dir()


def finished(setup: Distillation, out: str | Path, n_processes: int = 1) -> DistillationRun | None:
    """The run that this very training left in `out`; None where it has not come to its end.

    Args:
        setup: the training, before it is done.
        out: directory of the run.
        n_processes: processes that train.

    Raises:
        UsageError: a run of a training with other settings is there; they are named.
    """
    path = expanded(out, "out")
    if not (path / RECORD).is_file():
        return None
    run = DistillationRun.open(path)
    identity = _plain(setup.identity(n_processes))
    refuse_other_settings(run.info.get("identity", {}), identity, f"is in {path}")
    return run


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as they come back from a JSON file."""
    return dict(json.loads(to_json(dict(values))))

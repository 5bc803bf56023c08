"""Output folders of trainings: what they may hold, who works in them, and what is finished."""

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

__all__ = ["Takeover", "check_out", "check_seeds_out", "finished", "reserved", "reserved_free"]

_LOCK = ".natstats-training"
"""Folder inside that of a training; its file names the process that works there."""

_LEFT = (f"{STATE}.partial", f"{STATE}.history")
"""Partly written files, which a process that is killed leaves behind."""


def check_out(path: Path, overwrite: bool) -> None:
    """Raise unless a run may be written to `path`: nothing or an unfinished training is there.

    Raises:
        UsageError: something else is there, or a finished run and `overwrite` is not set.
    """
    if not path.is_dir() or (_entries(path) and not has_state(path)):
        store.check_target(path, overwrite, "distill")
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"out: expected a place that can be written to; {path} is not")


def _entries(path: Path) -> list[Path]:
    """What is in a folder, except the lock of the process at work there."""
    return [entry for entry in path.iterdir() if entry.name != _LOCK]


@contextlib.contextmanager
def reserved(path: Path, overwrite: bool = False) -> Iterator[None]:
    """Reserve the folder of a training for this process while the context is open.

    A process may reserve again what it holds already. The lock of a process that has ended does not
    count, and the files that it left half written are removed.

    Args:
        path: path of the folder, which is made if missing, and removed if it stays empty.
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
        check_out(path, overwrite)  # another process may have finished just now
        for name in _LEFT:
            if not (path / name).is_dir():
                (path / name).unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def reserved_free(path: Path) -> Iterator[Path]:
    """Reserve the first of `path`, path-2, path-3, ... that is free, and give it.

    A folder that holds only the lock of a process, killed before it had kept anything, is free too.
    """

    def is_left(candidate: Path) -> bool:
        return (candidate / _LOCK).is_dir() and not _entries(candidate)

    with first_free(path, is_left, reserved) as candidate:
        yield candidate


class Takeover:
    """Tells when another process took the folder over, as this one gave no sign of life for long.

    Args:
        path: path of the folder; another of several processes may be the one that reserved it.
    """

    def __init__(self, path: Path) -> None:
        self._own = Path(os.path.realpath(path)) / _LOCK
        self._at = time.monotonic()

    def refuse(self) -> None:
        """Raise if the folder was taken over; it is looked at once a minute.

        Raises:
            NatstatsError: another process is at work there.
        """
        now = time.monotonic()
        if now - self._at > locks.SIGN_EVERY and locks.is_held(self._own):
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
    """The run that this very training left in `out`; None where it is not finished.

    Args:
        setup: the training, set up but not run.
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

"""Folders that trainings are written to: what may be there before, and what is done already."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import RECORD, TABLE, TABLE_FILES, has_state
from natstats.distill.training.setup import Distillation
from natstats.distill.training.state import refuse_other_settings
from natstats.errors import UsageError
from natstats.files.json_files import to_json
from natstats.files.paths import expanded
from natstats.runs import store

__all__ = ["check_out", "check_seeds_out", "finished"]


def check_out(path: Path, overwrite: bool) -> None:
    """Raise unless a run may be written to `path`: nothing is there, or a training that was cut.

    Raises:
        UsageError: something else is there, or a finished run and `overwrite` is not set.
    """
    if not path.is_dir() or (any(path.iterdir()) and not has_state(path)):
        store.check_target(path, overwrite, "distill")
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"out: expected a place that can be written to; {path} is not")


def check_seeds_out(path: Path) -> None:
    """Raise unless the runs of several seeds may be written to folders in `path`.

    Raises:
        UsageError: something is there that is neither such runs nor their table.
    """
    if not path.exists():
        store.check_target(path, False, "table")
        return
    entries = list(path.iterdir()) if path.is_dir() else [path]
    is_single = (path / RECORD).is_file() or has_state(path)
    has_runs = any(
        re.fullmatch(r"seed-\d+", entry.name) and ((entry / RECORD).is_file() or has_state(entry))
        for entry in entries
    )
    has_other_table = TABLE not in (e.name for e in entries) and any(
        entry.name in TABLE_FILES for entry in entries
    )
    if is_single or (entries and (not has_runs or has_other_table)):
        what = "one training" if is_single else "other things"
        raise UsageError(
            f"out: expected a folder for the runs of several seeds; {path} holds {what} and is kept"
        )


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

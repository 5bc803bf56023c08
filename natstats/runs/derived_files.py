"""The files of a run that follow from its spectra: written, and looked at when it is opened.

A run is read from ``run.json`` and its arrays alone; tables and ``law.json`` are there for other
programs. If one of them was edited, cut short or removed, whoever reads it should know.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from natstats.errors import NatstatsError
from natstats.files.csv_files import read_csv, write_csv
from natstats.files.json_files import read_json, to_json
from natstats.files.paths import member

if TYPE_CHECKING:
    from natstats.runs.run import Run

__all__ = ["doubtful_files", "write_derived"]

_TABLES: dict[str, Callable[[Run], pd.DataFrame | None]] = {
    "layers.csv": lambda run: run.layers,
    "forms.csv": lambda run: run.forms,
    "sensitivity.csv": lambda run: run.sensitivity,
    "image_exponents.csv": lambda run: run.image_exponents,
    "skipped.csv": lambda run: run.skipped,
    "specifications.csv": lambda run: run.verdict.specifications.frame,
    "control.csv": lambda run: None if run.control is None else run.control.layers,
}
"""Tables by the names of their files; None where a run has none."""

_RECORDS: dict[str, Callable[[Run], dict[str, Any] | None]] = {
    "law.json": lambda run: run.verdict.to_dict(),
    "control.json": lambda run: None if run.control is None else run.control.to_dict(),
}

_CLOSE = 1e-6
"""Relative difference of numbers that another machine may compute from the same spectra."""


def write_derived(run: Run, folder: Path) -> None:
    """Write all of these files into a folder."""
    for name, table in _TABLES.items():
        frame = table(run)
        if frame is not None:
            write_csv(frame, folder / name)
    for name, record in _RECORDS.items():
        values = record(run)
        if values is not None:
            (folder / name).write_text(to_json(values), encoding="utf-8")


def doubtful_files(run: Run, folder: Path) -> dict[str, str]:
    """Files of a run that are not what its spectra give, and why, for people.

    Columns and fields that a file lacks, as those of an older natstats do, are not held against it.
    A folder with none of these files holds the measurement alone, and nothing in it is wrong.

    Args:
        run: that was read from the folder.
        folder: of the run.
    """
    found: dict[str, str] = {}
    derived_files: dict[str, Callable[[Run], Any]] = {**_TABLES, **_RECORDS}
    if not any(os.path.lexists(folder / name) for name in derived_files):
        return found
    for name, derived in derived_files.items():
        try:
            why = _why(run, name, derived, folder)
        except (NatstatsError, OSError, ValueError, RecursionError):
            why = "cannot be read"
        if why:
            found[name] = why
    return found


def _why(run: Run, name: str, derived: Callable[[Run], Any], folder: Path) -> str:
    """What is wrong with a file; empty for nothing."""
    expected = derived(run)
    if expected is None:
        return ""
    if not os.path.lexists(folder / name):
        return "is missing"
    path = member(folder, name, name)
    if name.endswith(".json"):
        own = json.loads(to_json(expected))
        return "has other values" if _differ(read_json(path), own) else ""
    kept = read_csv(path)
    if len(kept) != len(expected):
        return f"has {len(kept)} of {len(expected)} rows"
    # As the file would have it: texts, with what stands for nothing left empty.
    shared = [column for column in expected.columns if column in kept.columns]
    texts = expected[shared].map(lambda value: "" if pd.isna(value) else str(value))
    same = all(_same(kept[c].tolist(), texts[c].tolist()) for c in shared)
    return "" if same and (shared or expected.empty) else "has other values"


def _same(kept: list[str], expected: list[str]) -> bool:
    try:
        was, now = (np.array([float(one or "nan") for one in side]) for side in (kept, expected))
    except ValueError:
        return kept == expected
    return bool(np.allclose(was, now, rtol=_CLOSE, atol=_CLOSE**2, equal_nan=True))


def _differ(kept: Any, expected: Any) -> bool:
    """Whether values of a record differ; those that one of both lacks do not count."""
    if isinstance(expected, dict) and isinstance(kept, dict):
        shared = kept.keys() & expected.keys()
        return (bool(expected) and not shared) or any(
            _differ(kept[name], expected[name]) for name in shared
        )
    if isinstance(expected, list) and isinstance(kept, list):
        pairs = zip(kept, expected, strict=False)
        return len(kept) != len(expected) or any(_differ(*pair) for pair in pairs)
    if isinstance(expected, float) and isinstance(kept, int | float):
        return not math.isclose(kept, expected, rel_tol=_CLOSE, abs_tol=_CLOSE**2)
    return bool(kept != expected)

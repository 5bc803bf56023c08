"""Trainings and comparisons of methods as plain values for scripts; reading comparisons back.

The fields ``kind``, ``path`` and ``sentences`` are those of :mod:`natstats.runs.summaries`. A
``distillation`` has besides the fields of ``distill.json``, ``accuracy`` with ``accuracy_low`` and
``accuracy_high``, and ``history``, the columns of ``history.csv``. A ``table`` has the fields of
``table.json``, and ``methods``, ``gains`` and ``seeds``, the columns of their tables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from natstats.distill.comparison.compare import MethodComparison, compare_runs
from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import TABLE, find_runs
from natstats.errors import NatstatsError
from natstats.files.json_files import read_json
from natstats.files.paths import expanded

__all__ = ["methods_summary", "open_methods", "training_summary"]

FORMAT = 1
"""Number of the format of summaries."""


def training_summary(run: DistillationRun, path: Path | None = None) -> dict[str, Any]:
    """One training as plain values.

    Args:
        run: the training.
        path: its folder.
    """
    low, high = run.interval()
    return {
        **run.info,
        "format": FORMAT,
        "kind": "distillation",
        "path": None if path is None else str(path),
        "sentences": run.sentences(),
        "warnings": run.notes,
        "accuracy": run.accuracy,
        "accuracy_low": low,
        "accuracy_high": high,
        "history": run.history.to_dict("records"),
    }


def methods_summary(found: MethodComparison, path: Path | None = None) -> dict[str, Any]:
    """A comparison of methods as plain values.

    Args:
        found: the comparison.
        path: its folder.
    """
    rows = {name: getattr(found, name).to_dict("records") for name in ("methods", "gains", "seeds")}
    return {
        **found.to_dict(),
        "format": FORMAT,
        "path": None if path is None else str(path),
        "warnings": list(found.notes),
        **rows,
    }


def open_methods(path: str | Path) -> MethodComparison:
    """A comparison of methods, computed again from the trainings that it names.

    This is needed because its tables do not hold all that its page shows. If a training is no
    longer where it was, all of them are looked for in the folder itself.

    Raises:
        UsageError: the trainings are not found.
        NatstatsError: the table is damaged.
    """
    path = expanded(path, "table")
    try:
        record = read_json(path / TABLE)
        places = [Path(one) for one in record["runs"]]
        pairs = [
            (str(row["label"]), str(row["reference_label"]))
            for row in record["contrasts"]
            if not row["control"]
        ]
        references, level = [str(name) for name in record["references"]], float(record["level"])
    except OSError as error:
        raise NatstatsError(f"table: expected a table in {path}; {TABLE}: {error}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise NatstatsError(
            f"table: expected a whole table in {path}; {TABLE}: a field is missing or is of "
            f"another kind ({error})"
        ) from error
    if not places or not all(place.is_dir() for place in places):
        places = find_runs([path])
    runs = [DistillationRun.open(place) for place in places]
    return compare_runs(runs, references or None, level, list(dict.fromkeys(pairs)) or None)

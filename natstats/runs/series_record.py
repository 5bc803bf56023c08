"""What the directory of a series must hold: ``series.json`` and its tables, checked before use."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from natstats.errors import NatstatsError, UsageError
from natstats.files.csv_files import read_csv
from natstats.files.json_files import read_json
from natstats.files.paths import is_plain_name, member
from natstats.files.schema import FLAG, TEXT, Field, ListOf, Record, one_of, or_null, real, whole
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import OLDER_VERDICTS, VERDICTS
from natstats.runs import store
from natstats.runs.run_schema import FACTS, check_format
from natstats.text import printable

__all__ = ["CHANGE", "FORMAT", "LAYERS", "NUMBERS", "read_series", "read_table"]

FORMAT = 1
"""Number of the format of ``series.json``."""

NUMBERS = (
    "slope", "slope_low", "slope_high", "slope_p", "exponent_mean", "exponent_mean_low",
    "exponent_mean_high",
)  # fmt: skip
"""Numbers of a run, null where there is none."""

_ESTIMATE = Record({name: or_null(real()) for name in ("value", "low", "high", "p", "dof")})

_ROW = Record(
    {
        "checkpoint": Field("a plain name", is_plain_name),
        "step": whole(),
        "verdict": one_of((*VERDICTS, *OLDER_VERDICTS)),
        **{name: or_null(real()) for name in NUMBERS},
        "n_layers": whole(),
        "n_exponents": whole(),
        "best_shape": TEXT,
        "weights_digest": TEXT,
        "file_digest": TEXT,
        "file": TEXT,
    }
)

CHANGE = Record(
    {
        "names": ListOf(TEXT, 2, 2),
        "only": ListOf(ListOf(TEXT), 2, 2),
        "mean": _ESTIMATE,
        "slope": _ESTIMATE,
        "n_layers": whole(),
        "n_differ": whole(),
        "is_paired": FLAG,
        "level": Field("a number between 0 and 1", lambda v: isinstance(v, float) and 0 < v < 1),
        "depth": one_of(tuple(DEPTH_AXES)),
        "notes": ListOf(TEXT),
    }
)

_SERIES = Record({**FACTS, "runs": ListOf(_ROW, 2), "change": CHANGE}, optional=tuple(FACTS))

TEXTS = frozenset({"checkpoint", "layer", "kind", "flags"})
"""Columns of texts."""

_EXPONENTS = ("checkpoint", "step", "layer", "kind", "depth", "exponent", "low", "high", "flags")
LAYERS = (
    "layer", "kind", "depth", "exponent_a", "low_a", "high_a", "exponent_b", "low_b", "high_b",
    "difference", "low", "high", "p", "p_corrected", "flags",
)  # fmt: skip


def read_series(path: Path) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame, list[Path]]:
    """Read the directory of a series, without its runs.

    Returns:
        The record, the exponents of all runs, the layers of the change, the directories of the
        runs.

    Raises:
        UsageError: `path` is not a series, or it is not finished.
        NatstatsError: the series is damaged or of a newer format; file and field are named.
    """
    store.restore(path)
    if store.is_unfinished_series(path):
        raise UsageError(
            f"series: expected a finished series; {path} holds runs and no {store.SERIES} (the "
            "command that began it goes on where it stopped)"
        )
    if not os.path.lexists(path / store.SERIES):
        raise UsageError(f"series: expected a series; {path} holds no {store.SERIES}")
    file = store.SERIES
    try:
        record = read_json(member(path, file, file))
        check_format(record, FORMAT, file)
        record = {k: v for k, v in record.items() if v is not None or k not in FACTS}
        _SERIES.check(record, f"{file}, ")
        names = [row["checkpoint"] for row in record["runs"]]
        for place, name in enumerate(names):
            if name in names[:place]:
                raise NatstatsError(
                    f"{file}, runs[{place}].checkpoint: expected each once; got {name} again"
                )
        homes = [
            member(path, name, f"{file}, runs[{place}].checkpoint")
            for place, name in enumerate(names)
        ]
        file = "exponents.csv"
        exponents = read_table(path, file, _EXPONENTS)
        missing = set(names) - {*exponents.checkpoint}
        if missing:
            raise NatstatsError(f"{file}, checkpoint: expected rows of {sorted(missing)[0]}")
        file = "change.csv"
        layers = read_table(path, file, LAYERS)
    except OSError as error:
        raise NatstatsError(
            f"series: expected a whole series in {path}; {file}: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise NatstatsError(
            f"series: expected a whole series in {path}; {file}: {error}"
        ) from error
    except NatstatsError as error:
        raise NatstatsError(f"series: expected a whole series in {path}; {error}") from error
    return record, exponents, layers, homes


def read_table(
    folder: Path, name: str, columns: Collection[str], texts: Collection[str] = TEXTS
) -> pd.DataFrame:
    """A table with its numbers exactly as written; pandas' own reader may miss the last digit.

    Args:
        folder: in which it is.
        name: of the file.
        columns: that must be there.
        texts: columns that hold no numbers, whatever they look like.

    Raises:
        NatstatsError: a column is missing, or a cell that must be a number is not one.
    """
    frame = read_csv(member(folder, name, name))
    for column in columns:
        if column not in frame.columns:
            raise NatstatsError(f"{name}, {column}: expected a column; it is missing")
    for column in frame.columns.difference([*texts]):
        values = [_number(text, column == "step") for text in frame[column]]
        odd = next((row for row, value in enumerate(values) if value is None), None)
        if odd is None:
            frame[column] = values
        elif column in columns:  # others may be texts
            expected = "a whole number" if column == "step" else "a number or nothing"
            raise NatstatsError(
                f"{name}, {column}, row {odd + 1}: expected {expected}; got "
                f"{printable(repr(frame[column][odd])[:80])}"
            )
    return frame


def _number(text: str, is_whole: bool) -> Any:
    """The number that a text stands for; None where it is not a number."""
    try:
        if is_whole:
            return np.int64(int(text))
        return np.float64(text) if text else np.float64(np.nan)
    except (ValueError, OverflowError):
        return None

"""Reading and checking the files of a distillation run: record, tables and arrays.

Errors name the file and the field.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.distill.record import RunInfo, checked, known
from natstats.distill.run_folders import RECORD
from natstats.errors import NatstatsError, UsageError
from natstats.files.csv_files import read_csv
from natstats.files.json_files import read_json
from natstats.files.paths import open_regular
from natstats.text import printable

__all__ = [
    "FORMAT", "GAP", "GRADIENTS", "HISTORY", "KIND", "LATER", "OUTCOMES", "read_arrays",
    "read_record", "read_table", "typed",
]  # fmt: skip

FORMAT = 1
"""Number of the format; a run with a larger one was written by a newer natstats."""

KIND = "distillation"

OUTCOMES = "outcomes.npz"

HISTORY = (
    "stage", "epoch", "learning_rate", "loss", "accuracy", "eval_loss", "eval_accuracy", "seconds",
    "eval_images", "images_per_second", "memory_mib",
)  # fmt: skip
"""Columns of ``history.csv``; every other one is the mean unweighted value of a term."""

LATER = frozenset({"eval_images", "images_per_second", "memory_mib"})
"""Columns of ``history.csv`` that runs before 0.9.0 do not have."""

GRADIENTS = ("stage", "epoch", "term", "weight", "norm", "ce_norm", "cosine")
"""Columns of ``gradients.csv``."""

GAP = (
    "student_layer", "teacher_layer", "height", "width", "exponent_teacher", "exponent_before",
    "exponent_after", "distance_before", "distance_after",
)  # fmt: skip
"""Columns of ``gap.csv``."""

_TEXTS = {"stage", "term", "student_layer", "teacher_layer"}
_COUNTS = {"epoch", "height", "width"}
_ARRAYS = {
    "label": "iu", "predicted": "iu", "probability": "f", "image": "U", "teacher_predicted": "iu",
}  # fmt: skip
"""Arrays of the outcomes and the kinds of numbers that they may hold; the last may be missing."""
_MOST_BYTES = 2 << 30


def typed(frame: pd.DataFrame, columns: Sequence[str], where: str) -> pd.DataFrame:
    """A table whose columns are texts, counts or floats, whatever they were read as.

    Args:
        frame: the table; empty texts in place of floats become NaN.
        columns: names of the columns that it must have; others are floats. Those of :data:`LATER`
            may be missing, and are NaN then.
        where: name of the file or table, for the error.

    Raises:
        UsageError: a column is missing or holds values of another type; it is named.

    >>> typed(pd.DataFrame({"epoch": ["1", "two"]}), ["epoch"], "history.csv")
    Traceback (most recent call last):
    natstats.errors.UsageError: history.csv, epoch: expected whole numbers; got 'two'
    """
    later = [one for one in columns if one in LATER and one not in frame.columns]
    if later:
        frame = frame.assign(**dict.fromkeys(later, np.nan))
    lacking = [column for column in columns if column not in frame.columns]
    if lacking:
        raise UsageError(f"{where}: expected the column {lacking[0]}; it is missing")
    kinds = {
        name: str if name in _TEXTS else np.int64 if name in _COUNTS else np.float64
        for name in frame.columns
    }
    found = {name: _column(frame[name], kind, where) for name, kind in kinds.items()}
    return pd.DataFrame(found, index=pd.RangeIndex(len(frame)), columns=frame.columns)


def _column(values: pd.Series[Any], kind: Any, where: str) -> Any:
    if kind is str:
        return values.astype(str).to_numpy(object)
    values = values.replace("", np.nan) if kind is np.float64 and values.dtype == object else values
    try:
        return values.to_numpy().astype(kind)
    except (ValueError, TypeError, OverflowError):
        words = "whole numbers" if kind is np.int64 else "numbers"
        wrong = next((one for one in values if not _is_number(one, kind)), values.iloc[0])
        place = f"{where}, {printable(str(values.name))[:60]}"
        raise UsageError(f"{place}: expected {words}; got {printable(repr(wrong))[:60]}") from None


def _is_number(value: Any, kind: Any) -> bool:
    try:
        np.array([value]).astype(kind)
    except (ValueError, TypeError, OverflowError):
        return False
    return True


def read_record(path: Path) -> RunInfo:
    """The facts of the run in a directory, or in a file.

    Raises:
        OSError: they cannot be read.
        ValueError: they are not JSON, or not those of a run; file and field are named.
        NatstatsError: they are the facts of something else, or of a newer natstats.
    """
    file = path / RECORD if path.is_dir() else path
    name_of_file = printable(file.name)
    try:
        info = read_json(file, finite=True)
    except ValueError as error:
        raise UsageError(f"{name_of_file}: {error}") from None
    if not isinstance(info, dict):
        raise UsageError(f"{name_of_file}: expected an object; got {printable(repr(info))[:60]}")
    for name in ("kind", "format"):
        if name not in info:
            raise UsageError(f"{name_of_file}: expected kind and format; {name} is missing")
    shown = printable(repr(info["kind"]))[:60]
    if info["kind"] != KIND:
        raise NatstatsError(f"run: expected the kind {KIND!r}; {printable(path)} is a {shown}")
    number = info["format"]
    if type(number) is not int or number < 1:
        shown = printable(repr(number))[:60]
        raise UsageError(f"{name_of_file}, format: expected a whole number from 1; got {shown}")
    if number > FORMAT:
        raise NatstatsError(
            f"run: expected format {FORMAT} or older; {printable(path)} has format {number} and "
            "was written by a newer natstats"
        )
    return checked(known(info), name_of_file)


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table of a run, each column in its type.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; file and field are named.
    """
    try:
        frame = read_csv(path)
    except ValueError as error:
        raise UsageError(f"{path.name}: expected a table; {error}") from None
    # The very floats that were written: pandas' own reader may miss the last digit.
    return typed(frame.astype(object), columns, path.name)


def _refuse_large(file: BinaryIO) -> None:
    """Raise when the arrays of a file would fill the memory, as packed zeros can."""
    with zipfile.ZipFile(file) as archive:
        n_bytes = sum(archive.getinfo(name).file_size for name in archive.namelist())
    if n_bytes > _MOST_BYTES:
        raise ValueError(f"they have {n_bytes >> 20} MiB, and at most {_MOST_BYTES >> 20} are read")
    file.seek(0)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of ``outcomes.npz``; nothing in it is unpickled.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; file and field are named.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with open_regular(path) as file:
            _refuse_large(file)
            found = np.load(file, allow_pickle=False)
            for name in _ARRAYS:
                if name in found.files:
                    arrays[name] = np.asarray(found[name])
    except OSError:
        raise
    except Exception as error:  # a damaged file raises nearly anything
        reason = printable(" ".join(str(error).split()))[:160] or type(error).__name__
        raise UsageError(f"{path.name}: expected arrays of outcomes; {reason}") from None
    for name, kinds in _ARRAYS.items():
        if name not in arrays:
            if name != "teacher_predicted":
                raise UsageError(f"{path.name}: expected the array {name}; it is missing")
            continue
        array = arrays[name]
        if array.dtype.kind not in kinds or array.ndim != 1 or not len(array):
            words = {"iu": "whole numbers", "f": "numbers", "U": "texts"}[kinds]
            raise UsageError(
                f"{path.name}, {name}: expected (n,) {words}; got {array.dtype} of shape "
                f"{array.shape}"
            )
        if len(array) != len(arrays["label"]):
            raise UsageError(
                f"{path.name}, {name}: expected one for each of the {len(arrays['label'])} "
                f"labels; got {len(array)}"
            )
    return arrays

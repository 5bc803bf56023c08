"""Tables in files of comma-separated values: the one place that writes them and reads them back.

Names of layers, checkpoints and classes come from strangers, and a table is opened in a spreadsheet
or shown on a terminal: so every text is written as :func:`natstats.text.cell` makes it.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pandas as pd

from natstats.files.paths import open_regular
from natstats.text import cell, from_cell

__all__ = ["csv_text", "read_csv", "write_csv"]

_LARGEST = 64 * 2**20
"""Most bytes of a file that is read; reading takes up to 16 times as much memory. The largest file
that natstats writes has a few million."""

_MOST_COLUMNS = 1000


def csv_text(frame: pd.DataFrame) -> str:
    r"""A table as text: a header line, then a line for every row; NaN and None are empty.

    >>> csv_text(pd.DataFrame({"layer": ["conv", "=1+1"], "depth": [1, 2]}))
    "layer,depth\nconv,1\n'=1+1,2\n"
    """
    guarded = frame.copy()
    for place, dtype in enumerate(frame.dtypes):
        if not pd.api.types.is_numeric_dtype(dtype):
            column = frame.iloc[:, place].astype(object)
            guarded.isetitem(place, column.map(_guarded).to_numpy())
    guarded.columns = pd.Index([_guarded(name) for name in frame.columns])
    return str(guarded.to_csv(index=False, lineterminator="\n"))


def _guarded(value: object) -> object:
    return cell(value) if isinstance(value, str) else value


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table to a file; see :func:`csv_text`."""
    path.write_text(csv_text(frame), encoding="utf-8", newline="\n")


def read_csv(path: Path) -> pd.DataFrame:
    """Read what :func:`write_csv` wrote, every cell as the text that it was; "" where empty.

    Which cells are numbers is left to the caller, who knows: pandas' own reader may miss the last
    digit of one.

    Raises:
        OSError: there is no such file, or it is no regular file.
        ValueError: it holds no table, or is too large.
    """
    with open_regular(path) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"expected at most {_LARGEST >> 20} MiB of a table; it is larger")
    _check_cells(content.decode("utf-8"))
    with io.BytesIO(content) as file:
        frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8")
    for place in range(frame.shape[1]):
        texts = [from_cell(text) for text in frame.iloc[:, place].fillna("")]
        # As objects: pyarrow, where it is installed, holds no text that is not UTF-8.
        column: Any = pd.Series(texts, dtype=object)
        frame.isetitem(place, column)
    frame.columns = pd.Index([from_cell(str(name)) for name in frame.columns])
    return frame


def _check_cells(text: str) -> None:
    """Raise where a row has more cells than the header: pandas would make an index of them."""
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        n_columns = len(next(rows, []))
        if n_columns > _MOST_COLUMNS:
            raise ValueError(f"expected at most {_MOST_COLUMNS} columns; it has {n_columns}")
        if any(len(row) > n_columns for row in rows):
            raise ValueError("a row has more cells than the line of heads")
    except csv.Error as error:
        raise ValueError(str(error)) from None

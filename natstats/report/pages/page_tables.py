"""Tables of a page in which a reader chooses columns, order and rows: texts and numbers, no HTML.

The macro ``data_table`` of ``parts.html`` shows one, and ``report.js`` makes it interactive.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pandas as pd
from markupsafe import Markup

from natstats.files.csv_files import csv_text
from natstats.law.law import bare_p
from natstats.numbers import interval, number, short

__all__ = [
    "Cell", "Column", "First", "Table", "in_script", "interval_cell", "number_cell", "p_cell",
    "plain_cell",
]  # fmt: skip

First: TypeAlias = Literal["", "room", "wide", "always"]
"""When a column is shown, see :class:`Column`."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: head of the column, unique in its table.
        meaning: what it holds, for the tooltip.
        is_number: True for columns that are aligned right and sorted by value.
        first: when it is shown before a reader chooses: ``always``; ``wide``, on wide screens and
            on paper; ``room``, on screens that have room beside those; empty for never.
        is_list: its texts are items with semicolons between them, such as flags.
    """

    label: str
    meaning: str
    is_number: bool = True
    first: First = ""
    is_list: bool = False


@dataclass(frozen=True)
class Cell:
    """What a cell shows.

    Attributes:
        text: as it is shown.
        value: the number that it sorts by; None sorts by the text, and among numbers comes last.
        link: address of the page of what it stands for; empty where there is none.
    """

    text: str
    value: float | None = None
    link: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    """A table with what a reader can do with it.

    Attributes:
        key: tells it from the other tables of its page, also in the address; letters and hyphens.
        name: what its rows are, for those who cannot see it.
        columns: the first of them names the rows and is always there.
        rows: a row for each, as many cells as columns.
        frame: the same rows in the same order as the file has them, for the download; None where
            there is no such file.
        file: name of the download.

    Raises:
        ValueError: two columns have one label, or rows are not alike.

    >>> table = Table("nets", "networks", [Column("network", "", False)], [[Cell("a")]])
    >>> table.download
    Markup('')
    """

    key: str
    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    frame: pd.DataFrame | None = None
    file: str = ""

    def __post_init__(self) -> None:
        labels = [column.label for column in self.columns]
        if len({*labels}) < len(labels):
            raise ValueError(f"columns: expected each label once; got {labels}")
        if {len(row) for row in self.rows} - {len(labels)}:
            raise ValueError(f"rows: expected {len(labels)} cells in each; got others")
        if self.frame is not None and len(self.frame) != len(self.rows):
            raise ValueError(
                f"frame: expected the {len(self.rows)} rows of the table; got {len(self.frame)}"
            )

    @property
    def download(self) -> Markup:
        """The rows as lines of CSV, as JSON for a script; empty without a file."""
        if self.frame is None:
            return Markup("")
        head, *rows = csv_lines(self.frame)
        return in_script({"file": self.file, "head": head, "rows": rows})


def csv_lines(frame: pd.DataFrame) -> list[str]:
    r"""The head and every row as CSV has them; line breaks in cells are escapes there.

    >>> csv_lines(pd.DataFrame({"layer": ["conv\n1"], "depth": [1]}))
    ['layer,depth', 'conv\\x0a1,1']
    """
    return csv_text(frame).rstrip("\n").split("\n")


def in_script(value: Any) -> Markup:
    r"""JSON that can stand inside a ``<script>``: nothing in it ends the element or begins another.

    >>> in_script({"name": "</script>"})
    Markup('{"name":"\\u003c/script\\u003e"}')
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)


def number_cell(value: float, digits: int = 2, *, sign: bool = False) -> Cell:
    """A number with `digits` decimals, see :func:`natstats.numbers.number`."""
    return Cell(number(value, digits, sign=sign), _known(value))


def plain_cell(value: float) -> Cell:
    """A number that needs no more than four digits, such as a count or a size."""
    return Cell(short(value), _known(value)) if math.isfinite(value) else Cell("–")


def p_cell(value: float) -> Cell:
    """The p-value of a test."""
    if not math.isfinite(value):
        return Cell("–")
    return Cell(bare_p(value), float(value))


def interval_cell(low: float, high: float, digits: int = 2, *, sign: bool = False) -> Cell:
    """The ends of an interval, sorted by the lower one."""
    return Cell(interval(low, high, digits, sign=sign), _known(low))


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None

"""What a table that natstats writes holds: what a row is, and what each column means.

The tables themselves are described where they are made, in :mod:`natstats.runs.columns` and
:mod:`natstats.distill.columns`; figures/reference.py writes docs/reference/columns.md from there.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from natstats import checks

__all__ = ["TableFile"]


@dataclass(frozen=True)
class TableFile:
    """A file of comma-separated values.

    Attributes:
        name: name of the file.
        row: what a row is for, in words that follow "A row for".
        columns: meaning of each column, in the order of the file; names may be patterns, such as
            ``seed_*``.
        note: what else a reader must know; may be empty.

    >>> file = TableFile("gap.csv", "each layer", {"layer": "name of the layer", "p*": "a p-value"})
    >>> file.meaning("layer"), file.meaning("p_corrected")
    ('name of the layer', 'a p-value')
    """

    name: str
    row: str
    columns: Mapping[str, str]
    note: str = ""

    def meaning(self, column: str) -> str:
        """What a column means.

        Args:
            column: name of the column, as the file has it.

        Raises:
            UsageError: the file has no such column; those that it has are listed.
        """
        if column in self.columns:
            return self.columns[column]
        for pattern, meaning in self.columns.items():
            if "*" in pattern and fnmatch.fnmatchcase(column, pattern):
                return meaning
        checks.one_of("column", column, list(self.columns))
        raise AssertionError("one_of lets no other name pass")  # pragma: no cover

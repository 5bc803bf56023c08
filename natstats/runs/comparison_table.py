"""The table of a comparison as text for a terminal."""

from __future__ import annotations

import pandas as pd

from natstats.law.law import bare_p
from natstats.numbers import MINUS, estimate_cells
from natstats.runs.tables import evenly, not_shown
from natstats.runs.text_columns import Column, fitted
from natstats.text import lines

__all__ = ["text_of_layers"]

_COLUMNS = (
    Column("layer", True, cut="name"), Column("depth", rank=4), Column("A", rank=-3),
    Column("B", rank=-2), Column(f"B {MINUS} A"), Column("interval"), Column("Holm p", rank=-1),
    Column("p", rank=3),
    Column("kind", True, rank=5), Column("flags", True, cut="list"),
)  # fmt: skip


def text_of_layers(
    names: tuple[str, str],
    layers: pd.DataFrame,
    rows: int | None = None,
    width: int | None = None,
    how: str = "",
) -> str:
    """The layers of a comparison as aligned text, below the names of A and B.

    Args:
        names: of A and of B.
        layers: a row for each layer, see :class:`natstats.runs.comparison.Comparison`.
        rows: at most so many, evenly spaced.
        width: of the terminal; None for as wide as it takes.
        how: command that shows all rows, for the last line; empty for none.
    """
    cells = [
        (
            str(row["layer"]),
            f"{row['depth']:g}",
            *(
                estimate_cells(*(row[f"{part}_{end}"] for part in ("exponent", "low", "high")))[0]
                for end in ("a", "b")
            ),
            *estimate_cells(row["difference"], row["low"], row["high"], 3, sign=True),
            *(bare_p(row[name], "-") for name in ("p_corrected", "p")),
            str(row["kind"]),
            str(row["flags"]),
        )
        for row in evenly(layers, rows).to_dict("records")
    ]
    legend = lines((f"A: {names[0]}", f"B: {names[1]}")) + "\n"
    return legend + fitted(_COLUMNS, cells, width, not_shown(layers, rows, how))

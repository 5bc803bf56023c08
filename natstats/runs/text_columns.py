"""Tables as text that fits a width: what matters least goes first, and what is cut says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from natstats.text import printable

__all__ = ["Column", "fitted"]

GAP = 2
"""Blanks between two columns."""

LEAST_NAME, LEAST_LIST = 32, 24
"""Characters of names and of lists that other columns make room for."""

SHORTEST_NAME, SHORTEST_LIST = 12, 8
"""Characters below which neither is cut, however narrow the terminal is."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: what stands above it.
        starts: its cells start at one place; else they end at one.
        rank: 0 for a column that is always there; of the others the highest goes first.
        cut: how its cells are cut where there is no room: ``""`` for never, ``name`` in the
            middle, ``list`` behind the items that fit, with how many more there are.
    """

    head: str
    starts: bool = False
    rank: int = 0
    cut: str = ""


def fitted(
    columns: Sequence[Column],
    cells: Sequence[Sequence[str]],
    width: int | None = None,
    below: str = "",
) -> str:
    """Lines of text in columns, at most `width` characters wide.

    Args:
        columns: at most one of them a ``name`` and one a ``list``.
        cells: a text for each column, row by row.
        width: of the terminal; None for as wide as it takes.
        below: a last line.

    >>> columns = [Column("layer", True, cut="name"), Column("R2", rank=1),
    ...     Column("flags", True, cut="list")]
    >>> rows = [["features.10.conv.0.0", "0.99", "few rings; outer scale; few images"]]
    >>> print(fitted(columns, rows, 40))
    layer                 flags
    features.10.conv.0.0  few rings +2
    >>> print(fitted(columns, rows))
    layer                   R2  flags
    features.10.conv.0.0  0.99  few rings; outer scale; few images
    """
    rows = [[printable(text) for text in row] for row in cells]
    kept = list(range(len(columns)))
    longest = [max(len(row[i]) for row in [[c.head for c in columns], *rows]) for i in kept]
    widths = list(longest)
    if width is not None:
        kept, widths = _within(columns, longest, width)
    lines = []
    for row in [[one.head for one in columns], *rows]:
        texts = [_cut(row[i], widths[i], columns[i].cut) for i in kept]
        padded = [
            text.ljust(widths[i]) if columns[i].starts else text.rjust(widths[i])
            for i, text in zip(kept, texts, strict=True)
        ]
        lines.append((" " * GAP).join(padded).rstrip())
    return "\n".join([*lines, below] if below else lines)


def _within(
    columns: Sequence[Column], longest: Sequence[int], width: int
) -> tuple[list[int], list[int]]:
    """Places of the columns that there is room for, and the width of every column."""
    kept, widths = list(range(len(columns))), list(longest)
    least = {"name": LEAST_NAME, "list": LEAST_LIST}
    shortest = {"name": SHORTEST_NAME, "list": SHORTEST_LIST}

    def taken(widths: Sequence[int]) -> int:
        return sum(widths[i] for i in kept) + GAP * (len(kept) - 1)

    for i, one in enumerate(columns):
        widths[i] = min(longest[i], least.get(one.cut, longest[i]))
    while taken(widths) > width and (ranked := [i for i in kept if columns[i].rank]):
        kept.remove(max(ranked, key=lambda i: columns[i].rank))
    for kind in ("list", "name"):  # still too wide
        for i in kept:
            if columns[i].cut == kind:
                over = max(0, taken(widths) - width)
                widths[i] = max(min(widths[i], shortest[kind]), widths[i] - over)
    for kind in ("name", "list"):  # what is left over
        for i in kept:
            if columns[i].cut == kind:
                widths[i] = min(longest[i], widths[i] + max(0, width - taken(widths)))
    return kept, widths


def _cut(text: str, width: int, how: str) -> str:
    """A text of at most `width` characters.

    >>> _cut("features.12.conv.0.0", 14, "name"), _cut("few rings; constant", 12, "list")
    ('features...0.0', 'few rings +1')
    """
    if len(text) <= width or not how:
        return text
    if how == "name":
        room = width - 3
        return f"{text[: room - room // 3]}...{text[len(text) - room // 3 :]}"
    items = text.split("; ")
    for n in range(len(items) - 1, 0, -1):
        shown = f"{'; '.join(items[:n])} +{len(items) - n}"
        if len(shown) <= width:
            return shown
    more = f"... +{len(items) - 1}" if len(items) > 1 else "..."
    return f"{text[: max(width - len(more), 0)]}{more}"

"""Tables as text that fits a width: the least important columns go first, cuts are marked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from natstats.text import printable

__all__ = ["Column", "fitted", "shortened"]

GAP = 2
"""Blanks between two columns."""

WISHED = {"name": 32, "list": 24}
"""Characters of a cell for which other columns are dropped, by how its column is cut."""

SHORTEST = {"list": 12, "text": 14, "name": 12}
"""Least characters of a cell while there is another way to save room, in the order of cutting."""

NARROWEST_NAME = 6

_CUT = "..."


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its heading.
        starts: True for cells that are aligned left, False for right.
        rank: 0 for a column that is always there. Columns above 0 are dropped first, the highest
            before the others; those below 0 only where nothing else makes the table fit, the lowest
            before the others.
        cut: how its cells are cut where there is no room: ``""`` for never; ``name`` in the middle,
            or where two would then look alike, not at all: the name is then on a line above its
            row; ``list`` after the items that fit, with the number of the others; ``text`` into
            several lines.
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
        below: last lines, which may be wider; so may one that explains cut lists.

    >>> columns = [Column("layer", True, cut="name"), Column("R2", rank=1),
    ...     Column("flags", True, cut="list")]
    >>> rows = [["features.10.conv.0.0", "0.99", "few rings; outer scale; few images"]]
    >>> print(fitted(columns, rows, 40))
    layer                 flags
    features.10.conv.0.0  few rings +2
    (flags: +1 stands for 1 more, which a wider terminal shows)
    >>> print(fitted(columns, rows))
    layer                   R2  flags
    features.10.conv.0.0  0.99  few rings; outer scale; few images
    """
    heads = [one.head for one in columns]
    rows = [[printable(text) for text in row] for row in cells]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(columns))]
    kept = list(range(len(columns)))
    if width is not None:
        kept, widths = _within(columns, widths, width)
    shown = {i: _cut([row[i] for row in rows], widths[i], columns[i].cut) for i in kept}
    starts, taken = [columns[i].starts for i in kept], [widths[i] for i in kept]
    lines = _lines([_broken(heads[i], widths[i]) for i in kept], taken, starts)
    for row in rows:
        block = [shown[i][row[i]] for i in kept]
        for i in kept:
            if not shown[i][row[i]]:  # its name stands above the row
                lines += _broken(row[i], width or len(row[i]))
        lines += _lines(block, taken, starts)
    cut = [
        one.head
        for i, one in enumerate(columns)
        if i in kept and one.cut == "list" and any(shown[i][row[i]] != [row[i]] for row in rows)
    ]
    told = f"({' and '.join(cut)}: +1 stands for 1 more, which a wider terminal shows)"
    return "\n".join([*lines, *([below] if below else []), *([told] if cut else [])])


def _lines(
    block: Sequence[Sequence[str]], widths: Sequence[int], starts: Sequence[bool]
) -> list[str]:
    """The lines of a row whose cells may have several."""
    lines = []
    for number in range(max(map(len, block))):
        texts = [cell[number] if number < len(cell) else "" for cell in block]
        padded = [
            text.ljust(width) if is_start else text.rjust(width)
            for text, width, is_start in zip(texts, widths, starts, strict=True)
        ]
        lines.append((" " * GAP).join(padded).rstrip())
    return lines


def _within(
    columns: Sequence[Column], longest: Sequence[int], width: int
) -> tuple[list[int], list[int]]:
    """Places of the columns that there is room for, and the width of every column."""
    kept = list(range(len(columns)))
    widths = [min(n, WISHED.get(one.cut, n)) for one, n in zip(columns, longest, strict=True)]

    def over() -> int:
        return sum(widths[i] for i in kept) + GAP * (len(kept) - 1) - width

    def narrow(cut: str, least: int) -> None:
        for i in kept:
            if columns[i].cut == cut and over() > 0:
                widths[i] = max(min(widths[i], least), widths[i] - over())

    while over() > 0 and (ranked := [i for i in kept if columns[i].rank > 0]):
        kept.remove(max(ranked, key=lambda i: columns[i].rank))
    for cut, least in SHORTEST.items():
        narrow(cut, least)
    for i in [i for i in kept if columns[i].cut == "list"]:  # the number of items, or no column
        if over() > 0:
            widths[i] = len(columns[i].head)
        if over() > 0:
            kept.remove(i)
    while over() > 0 and (ranked := [i for i in kept if columns[i].rank < 0]):
        kept.remove(min(ranked, key=lambda i: columns[i].rank))
    narrow("name", NARROWEST_NAME)
    for cut in ("name", "text", "list"):  # use the room that is left
        for i in kept:
            if columns[i].cut == cut:
                widths[i] = min(longest[i], widths[i] + max(0, -over()))
    return kept, widths


def _cut(texts: Sequence[str], width: int, how: str) -> dict[str, list[str]]:
    """The lines that show each text of a column; none for a name that there is no room for."""
    if how == "name":
        return {name: [text] if text else [] for name, text in shortened(texts, width).items()}
    if how == "text":
        return {text: _broken(text, width) for text in texts}
    if how == "list":
        return {text: [_listed(text, width)] for text in texts}
    return {text: [text] for text in texts}


def shortened(names: Iterable[str], width: int) -> dict[str, str]:
    """Names of at most `width` characters, of which no two look alike.

    A name that is too long loses its middle, or more of its start where names would look alike.
    Where they still would, all names that are too long become empty.

    >>> shortened(["features.12.conv.0.0"], 14)
    {'features.12.conv.0.0': 'feature...0.0'}
    >>> list(shortened(["encoder.block.11.proj", "encoder.block.21.proj"], 14).values())
    ['enc...11.proj', 'enc...21.proj']
    >>> list(shortened(["a", "block_1_norm_of_layer", "block_2_norm_of_layer"], 12).values())
    ['a', '', '']
    """
    names = list(dict.fromkeys(names))
    room = width - len(_CUT)
    for head in range(room - room // 3, -1, -1):
        if room < NARROWEST_NAME:
            break
        found = {name: _without_middle(name, head, room) for name in names}
        if len(set(found.values())) == len(names):
            return found
    return {name: name if len(name) <= width else "" for name in names}


def _without_middle(name: str, head: int, room: int) -> str:
    if len(name) <= room + len(_CUT):
        return name
    start = len(name) - (room - head)
    # The end begins at a whole part or number: 10.conv must not be read as 0.conv.
    part = re.compile(r"(?<=[._/:-])\w|(?<!\d)\d").search(name, start)
    return f"{name[:head]}{_CUT}{name[start if part is None else part.start() :]}"


def _broken(text: str, width: int) -> list[str]:
    """A text in lines, all but the first indented; broken after blanks, dots and the like.

    >>> _broken("depends on the specification", 14), _broken("few", 2)
    (['depends on the', ' specification'], ['fe', ' w'])
    """
    lines, line = [], ""
    for part in re.findall(r"[^\s._/:-]*[._/:-]*\s*", text):
        if line.strip() and len((line + part).rstrip()) > width:
            lines.append(line.rstrip())
            line = " "
        line += part
        while len(line.rstrip()) > width:
            lines.append(line[:width])
            line = f" {line[width:]}"
    return [*lines, line.rstrip()] if line.strip() or not lines else lines


def _listed(text: str, width: int) -> str:
    """As many items as fit, and how many more; their number alone where not one fits.

    >>> _listed("few rings; constant", 12), _listed("few rings; constant", 5)
    ('few rings +1', '2')
    """
    items = text.split("; ")
    if len(text) <= width:
        return text
    for n in range(len(items) - 1, 0, -1):
        shown = f"{'; '.join(items[:n])} +{len(items) - n}"
        if len(shown) <= width:
            return shown
    more = f"... +{len(items) - 1}" if len(items) > 1 else "..."
    left = width - len(more)
    return f"{text[:left]}{more}" if left >= 5 else str(len(items))

"""Text from elsewhere, made fit to be shown: names of files, keys of checkpoints, messages.

Text that others chose may hold terminal escapes, line breaks that forge a second message, marks
that reverse the reading order, or what a spreadsheet takes for a formula.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["cell", "few", "from_cell", "lines", "natural", "printable"]

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of characters that are invisible, or that change how the rest is shown."""

_FORMULA = re.compile(r"['\s]*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""Start of a text that a spreadsheet may take for a formula, or that already looks guarded."""

_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def _is_hidden(char: str) -> bool:
    return unicodedata.category(char) in _HIDDEN


def printable(name: str | Path) -> str:
    r"""Any text as one line that shows what is in it and does nothing else.

    Bytes that are not UTF-8, control characters, line breaks and marks of reading order are written
    as escapes.

    >>> printable("caf\udce9.jpg"), printable("a\x1b[31m\nError: b")
    ('caf\\xe9.jpg', 'a\\x1b[31m\\nError: b')
    """
    try:
        text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, as JSON can hold, which stands for no byte
        text = str(name)
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii") if _is_hidden(char) else char for char in text
    )


def lines(texts: Iterable[str]) -> str:
    r"""Texts as lines, one line each whatever is in them.

    >>> lines(["Layers:", "  conv\n1"])
    'Layers:\n  conv\\n1'
    """
    return "\n".join(map(printable, texts))


def few(names: Sequence[str], most: int = 3) -> str:
    r"""The first names as text, and how many more there are; each name once, without line breaks.

    >>> few(["a", "b\x1b", "c", "d"])
    'a, b\\x1b, c and 1 more'
    """
    names = list(dict.fromkeys(names))
    more = len(names) - most
    listed = ", ".join(printable(name[:200]) for name in names[:most])
    return listed + (f" and {more} more" if more > 0 else "")


def natural(text: str) -> list[tuple[int, str] | str]:
    """A sort key by which 2 comes before 10; equal numbers are sorted by how they are written.

    >>> sorted(["seed-10", "seed-02", "seed-2"], key=natural)
    ['seed-02', 'seed-2', 'seed-10']
    """
    parts = re.split(r"(\d+)", text)
    return [(int(part), part) if place % 2 else part for place, part in enumerate(parts)]


def cell(text: str) -> str:
    r"""Text for a table cell, which no spreadsheet takes for a formula.

    Invisible characters become escapes, and a text that starts like a formula gets an apostrophe
    in front, which spreadsheets read as "this is text". :func:`from_cell` gives the text back.

    >>> cell("layer1.0.conv1"), cell("=1+1"), cell("a\nb")
    ('layer1.0.conv1', "'=1+1", 'a\\x0ab')
    """
    parts, place = [], 0
    while place < len(text):
        char = text[place]
        # A backslash that would read as an escape is written as one.
        if _is_hidden(char) or (char == "\\" and _ESCAPE.match(text, place)):
            char = _escape(char)
        parts.append(char)
        place += 1
    shown = "".join(parts)
    return f"'{shown}" if _FORMULA.match(shown) else shown


def _escape(char: str) -> str:
    number = ord(char)
    return rf"\x{number:02x}" if number < 1 << 8 else (
        rf"\u{number:04x}" if number < 1 << 16 else rf"\U{number:08x}"
    )  # fmt: skip


def from_cell(shown: str) -> str:
    r"""The text that :func:`cell` was given.

    >>> [from_cell(cell(text)) for text in ("=1", "'=1", "a\x1b", r"a\x1b")]
    ['=1', "'=1", 'a\x1b', 'a\\x1b']
    """
    if shown.startswith("'") and _FORMULA.match(shown, 1):
        shown = shown[1:]
    return _ESCAPE.sub(_character, shown)


def _character(found: re.Match[str]) -> str:
    number = int(found[0][2:], 16)
    return chr(number) if number < 0x110000 else found[0]

"""Text from elsewhere, made fit to be shown: names of files, keys of checkpoints, messages.

What a stranger can name may hold terminal escapes, line breaks that forge a second message, marks
that reverse the reading order, or what a spreadsheet takes for a formula.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

__all__ = ["cell", "printable"]

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Categories of Unicode that are not seen, or that change how the rest is seen."""

_FORMULA = ("=", "+", "-", "@")


def printable(name: str | Path) -> str:
    r"""Any text as one line that shows what is in it and does nothing else.

    Bytes that are not UTF-8, control characters, line breaks and marks of reading order are written
    as escapes.

    >>> printable("caf\udce9.jpg"), printable("a\x1b[31m\nError: b")
    ('caf\\xe9.jpg', 'a\\x1b[31m\\nError: b')
    """
    text = str(name).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if unicodedata.category(char) in _HIDDEN
        else char
        for char in text
    )


def cell(text: str) -> str:
    """Text for a cell of a table that a spreadsheet may open: never taken for a formula.

    What starts like one is given an apostrophe in front, which spreadsheets read as "this is text".

    >>> cell("layer1.0.conv1"), cell("=1+1")
    ('layer1.0.conv1', "'=1+1")
    """
    shown = printable(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown

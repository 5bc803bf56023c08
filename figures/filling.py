"""Fills a page of docs between its markers: what all scripts that write tables share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["fill"]


def fill(page: Path, script: str, parts: Mapping[str, Callable[[], Sequence[str]]]) -> None:
    """Replace the lines between the markers of each part by those that it makes."""
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- {name}: begin (figures/{script}) -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = "\n".join([before + begin, *part(), end]) + rest.split(end)[1]
    page.write_text(text, encoding="utf-8")

"""Docstrings as Markdown, for the site: examples and formulas as code, names without their roles.

mkdocs.yml names this file as an extension of griffe, which reads the docstrings.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import griffe

__all__ = ["Docstrings", "as_markdown"]

_ROLE = re.compile(r":\w+:`~?([^`]+)`")


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is read as Google's style."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite that of one object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    r"""A docstring with its examples fenced, and its names and literals as Markdown has them.

    >>> print(as_markdown("See :func:`natstats.measure`, ``x``.\n\n>>> [1][0]\n1"))
    See `natstats.measure`, `x`.
    <BLANKLINE>
    ```pycon
    >>> [1][0]
    1
    ```
    """
    text = _ROLE.sub(r"`\1`", inspect.cleandoc(docstring)).replace("``", "`")
    return "\n".join(_fenced(text.splitlines()))


def _fenced(lines: list[str]) -> Iterator[str]:
    inside = False
    for line in lines:
        if not inside and line.startswith(">>>"):
            inside = True
            yield "```pycon"
        elif inside and not line.strip():
            inside = False
            yield "```"
        yield line.removesuffix("::") + ":" if line.endswith("::") and not inside else line
    if inside:
        yield "```"

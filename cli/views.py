"""How much of a result is printed, and as what: the options that commands with a result share."""

from __future__ import annotations

import functools
import os
import shlex
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

__all__ = [
    "PLAIN_WIDTH", "View", "path_text", "show_command", "view_options", "width_of", "wrapped",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

ROWS = 14
"""Rows of a table that are shown when not all are asked for."""

PLAIN_WIDTH = 100
"""Characters of a line where there is no terminal."""

NARROWEST = 40


@dataclass(frozen=True)
class View:
    """What is printed of a result.

    Attributes:
        show_all: all rows, and nothing cut where there is no terminal.
        as_json: plain values for scripts, and nothing else on standard output.
        quiet: neither progress nor a table.
    """

    show_all: bool = False
    as_json: bool = False
    quiet: bool = False

    @property
    def rows(self) -> int | None:
        """The most rows of a table; None for all."""
        return None if self.show_all else ROWS

    @property
    def width(self) -> int | None:
        """Characters of a line; None for as many as it takes."""
        return width_of(sys.stdout) or (None if self.show_all else PLAIN_WIDTH)


def width_of(stream: TextIO) -> int | None:
    """Characters of a line of the terminal that a stream goes to; None where it is none."""
    try:
        found = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        found = 0
    if found <= 0:
        try:
            found = os.get_terminal_size(stream.fileno()).columns
        except (OSError, ValueError, AttributeError):  # no terminal, or a stream without a number
            return None
    return max(found, NARROWEST) if found > 0 else None


def wrapped(text: str, width: int | None) -> list[str]:
    """A sentence as lines; those that go on are moved in, so that each start is seen.

    Words stay whole, as paths and names are copied.

    >>> wrapped("Note: 1 layer was not measured.", 24)
    ['Note: 1 layer was not', '  measured.']
    """
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(
        text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def path_text(path: Path) -> str:
    """A path as it is shown: from the current folder where that is shorter."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # another drive, or no current folder
        return str(path)
    return min(str(path), relative, key=len)


def show_command(path: Path) -> str:
    """The command that shows all rows of what is in a folder."""
    return f"natstats show {shlex.quote(path_text(path))} --all"


_ALL = click.option("--all", "show_all", is_flag=True, help="Print all rows of the table.")
_JSON = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the result as JSON, and nothing else; its fields are described in "
    "natstats.runs.summaries.",
)
_QUIET = click.option(
    "--quiet", is_flag=True, help="Print neither progress nor the result, only errors."
)


def view_options(*, can_be_quiet: bool = True) -> Callable[[F], F]:
    """Options of a command that prints a result; it is given a :class:`View` as ``view``."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def with_view(*args: Any, show_all: bool, as_json: bool, **settings: Any) -> Any:
            view = View(show_all, as_json, settings.pop("quiet", False))
            if view.show_all and view.quiet:
                raise click.UsageError("all: expected --all or --quiet; got both")
            return function(*args, view=view, **settings)

        wrapped: Any = with_view
        for option in (*([_QUIET] if can_be_quiet else []), _JSON, _ALL):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return decorate

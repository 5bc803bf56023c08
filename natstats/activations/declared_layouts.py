"""Layouts that a user declares for modules, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping

from natstats import checks
from natstats.activations.layouts import LAYOUTS, Layout
from natstats.errors import UsageError

__all__ = ["UNKNOWN", "declarable", "parse_layouts"]

UNKNOWN = -1
"""Number of prefix tokens in a declared layout that does not give it."""

MOST_LISTED = 1 << 20
"""Most tokens that a list may have."""

_TOKENS = re.compile(r"(?P<letters>[A-Z]+)(\+(?P<before>\d+)(-(?P<behind>\d+))?|:(?P<listed>.*))?")


def declarable() -> tuple[str, ...]:
    """Names of the layouts that can be declared.

    >>> declarable()
    ('NCHW', 'NHWC', 'NLC', 'LNC', 'NCTHW', 'NTHWC')
    """
    return tuple(name for name, kind in LAYOUTS.items() if kind.is_declarable)


def parse_layouts(declared: Mapping[str, str]) -> dict[str, Layout]:
    """Layouts that a user declares for modules: name or pattern, and the layout.

    Tokens may say where the map is: ``NLC+1`` has one token before it, ``NLC+0-2`` none before and
    two behind, ``NLC:0-29,36-65`` the tokens of these numbers, row by row. The grid is found from
    the shape.

    Args:
        declared: the layout as text, by the name or pattern of modules.

    Raises:
        UsageError: there is no such layout, or its tokens cannot be read.

    >>> found = parse_layouts({"encoder.*": "NLC+1-4", "head": "NLC:0-3,8-11"})
    >>> found["encoder.*"].n_prefix, found["encoder.*"].n_suffix, found["head"].tokens
    (1, 4, (0, 1, 2, 3, 8, 9, 10, 11))
    """
    found = {}
    for name, text in declared.items():
        parts = _TOKENS.fullmatch(str(text))
        letters = parts["letters"] if parts else re.split(r"[+:]", str(text))[0]
        checks.one_of(f"layout of {name}", letters, declarable())
        if parts is None or (LAYOUTS[letters].tokens is None and letters != text):
            of_tokens = " or ".join(f"{one}+" for one, k in LAYOUTS.items() if k.tokens is not None)
            raise UsageError(
                f"layout of {name}: expected a number of tokens after {of_tokens} (NLC+0-2 has "
                f"none before and two behind), or their numbers (NLC:0-29,36-65); got {text!r}"
            )
        if parts["listed"] is not None:
            found[name] = Layout(letters, (), tokens=_listed(name, parts["listed"]))
        elif parts["before"] is not None:
            before, behind = int(parts["before"]), int(parts["behind"] or 0)
            found[name] = Layout(letters, (), n_prefix=before, n_suffix=behind)
        else:
            found[name] = Layout(letters, (), n_prefix=UNKNOWN)
    return found


def _listed(name: str, text: str) -> tuple[int, ...]:
    """Numbers of tokens, written ``0-29,36-65``; a range may run backwards."""
    numbers: list[int] = []
    for piece in text.split(","):
        ends = re.fullmatch(r"\s*(\d{1,7})(?:-(\d{1,7}))?\s*", piece)
        if ends is None:
            raise UsageError(
                f"layout of {name}: expected numbers of tokens such as 0-29,36-65; got {text!r}"
            )
        first, last = int(ends[1]), int(ends[2] or ends[1])
        if len(numbers) + abs(last - first) >= MOST_LISTED:
            raise UsageError(
                f"layout of {name}: expected at most {MOST_LISTED} tokens; got {text!r}"
            )
        numbers += range(first, last + 1) if last >= first else range(first, last - 1, -1)
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"layout of {name}: expected every token once; got {text!r}")
    return tuple(numbers)

"""Names beside the rows of a figure; where it is for a phone, they are broken into lines."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from natstats.report.figures.style import is_for_phones

__all__ = ["height_of", "row_names"]

_LONGEST = 24
"""Most characters of a line on a phone, but for a longer word."""

_ROW, _LINE = 0.32, 0.13
"""Height of a row with a name of one line, and of every further line, inches."""


def row_names(names: Sequence[str]) -> list[str]:
    r"""The names as a figure of the present width shows them.

    >>> from natstats.report.figures.style import for_phones
    >>> with for_phones():
    ...     row_names(["kd+spectral (spectral.weight=3.0) over kd (weight=0.9)"])
    ['kd+spectral\n(spectral.weight=3.0)\nover kd (weight=0.9)']
    """
    if not is_for_phones():
        return list(names)
    return ["\n".join(textwrap.wrap(name, _LONGEST, break_long_words=False)) for name in names]


def height_of(names: Sequence[str]) -> float:
    """Height of the rows with these names, inches."""
    return _ROW * max(len(names), 1) + _LINE * sum(name.count("\n") for name in names)

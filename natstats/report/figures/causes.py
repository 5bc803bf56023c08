"""How the causes of an account are drawn: told apart by colour, hatching and marker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from natstats.numbers import change, number
from natstats.report.figures.style import GREY, PALETTE
from natstats.theory.account import CAUSES

__all__ = [
    "CAUSE_STYLES", "ROUNDING", "CauseStyle", "cause_name", "share_text", "without_rounding",
]  # fmt: skip

ROUNDING = 1e-6
"""Shares and their sums up to this size are rounding errors of zero: maps are in single precision,
and exponents are of the order of one."""


@dataclass(frozen=True)
class CauseStyle:
    """Colour, hatching of areas and marker of lines; any two of them tell causes apart."""

    colour: str
    hatch: str
    marker: str

    @property
    def area(self) -> dict[str, Any]:
        """Arguments for a bar: white hatching on the colour."""
        return {"facecolor": self.colour, "edgecolor": "white", "linewidth": 0.0}


CAUSE_STYLES = {
    "kernels": CauseStyle(PALETTE[0], "", "o"),
    "correlations": CauseStyle(PALETTE[2], "/////", "^"),
    "borders": CauseStyle(PALETTE[7], "-----", "p"),
    "strides": CauseStyle(PALETTE[5], "", "s"),
    "rectifiers": CauseStyle(PALETTE[1], "\\\\\\\\\\", "v"),
    "norms": CauseStyle(PALETTE[3], "|||||", "D"),
    "pooling": CauseStyle("#3c4650", "", "P"),
    "additions": CauseStyle(PALETTE[4], "xxxxx", "X"),
    "concatenations": CauseStyle("#a8b0b8", "", "<"),
    "gates": CauseStyle("#7a4a1e", "/////", ">"),
    "attention": CauseStyle("#5b3a8c", "|||||", "*"),
    "convolutions": CauseStyle(GREY, "+++++", "h"),
    "other": CauseStyle("#cdd3d8", "", "d"),
}
"""How each of :data:`natstats.theory.account.CAUSES` is drawn, the same in all figures."""

assert tuple(CAUSE_STYLES) == tuple(CAUSES)


def cause_name(cause: str) -> str:
    """What a cause is called where it is drawn.

    >>> cause_name("correlations"), cause_name("all")
    ('correlations of channels', 'all')
    """
    return CAUSES.get(cause, cause)


def without_rounding(value: float) -> float:
    """A share or a sum of shares, or zero where it is only rounding error.

    >>> without_rounding(0.25), without_rounding(-2e-7)
    (0.25, 0.0)
    """
    return 0.0 if abs(value) <= ROUNDING else value


def share_text(value: float, low: float, high: float) -> str:
    """The same with its interval; without one where it is only rounding error.

    >>> share_text(0.25, 0.125, 0.375), share_text(-2e-7, -3e-7, -1e-7)
    ('+0.25 [+0.12, +0.38]', '+0.00')
    """
    if max(map(abs, (value, low, high))) <= ROUNDING:
        return number(0.0, sign=True)
    return change(value, low, high, 2)

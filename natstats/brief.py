"""Base class of records whose ``repr`` is one line, whatever arrays and tables they hold."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import fields
from typing import Any

from natstats.text import printable

__all__ = ["Brief"]

_LONGEST = 150
"""Characters after which the line ends with ``...``."""


class Brief:
    """Base of dataclasses declared with ``repr=False``: shows plain values, and sizes of all else.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> @dataclass(repr=False)
    ... class Measured(Brief):
    ...     name: str
    ...     power: np.ndarray
    ...     rows: list
    >>> Measured("conv1", np.zeros((128, 16)), [1, 2])
    <Measured: name 'conv1', power (128, 16), rows [2]>
    """

    def __repr__(self) -> str:
        told: list[str] = []
        known: Any = fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        for field in known:
            told.append(f"{field.name} {_short(getattr(self, field.name))}")
            if sum(map(len, told)) > _LONGEST:
                told[-1] = "..."
                break
        return f"<{type(self).__name__}: {printable(', '.join(told))}>"


def _short(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):
        return str(tuple(shape))
    if value is None or isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else f"{value[:37]}...")
    if isinstance(value, Sized):
        return f"[{len(value)}]"
    return type(value).__name__

"""What the sums of an account must look like in the state of a measurement."""

from __future__ import annotations

from typing import Any

import numpy as np

from natstats.files.schema import FLAG, TEXT, Field, ListOf, Record, or_null, whole
from natstats.theory.activation_kinds import ACTIVATIONS

__all__ = ["ACCOUNT_FUNCTIONS", "ACCOUNT_SUMS"]

_SOME_NUMBER = whole(0, 2**20)


def _is_offset(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and type(value[0]) is int and isinstance(value[1], int | float)


def _numbers_of(*n_axes: int) -> Field:
    """An array of finite numbers with so many axes."""
    return Field(
        f"an array of finite numbers of {' or '.join(map(str, n_axes))} axes",
        lambda v: (
            isinstance(v, np.ndarray)
            and v.dtype.kind in "if"
            and v.ndim in n_axes
            and bool(np.isfinite(v).all())
        ),
    )


ACCOUNT_SUMS = Record(
    {
        "by_modules": FLAG,
        "sums": Record(
            {
                "sums": ListOf(Record({"states": ListOf(_SOME_NUMBER, 1), "sums": _numbers_of(3)})),
                "offsets": Field(
                    "pairs of a number and a sum",
                    lambda v: isinstance(v, list) and all(map(_is_offset, v)),
                ),
            }
        ),
        "moments": ListOf(
            Record(
                {
                    "after": _SOME_NUMBER,
                    "power": _numbers_of(4),
                    "total": _numbers_of(2),
                    "maps": _numbers_of(3),
                    "count": _numbers_of(1),
                    "centre": or_null(_numbers_of(4)),
                }
            )
        ),
        "n_left_out": whole(0, 2**40),
        "next_index": whole(0, 2**62),
    }
)
"""What :meth:`natstats.theory.account_pass.AccountPass.state_dict` gives."""


def _is_function(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[2], dict)):
        return False
    number, name, given = value
    is_known = type(number) is int and 0 <= number < 2**20 and isinstance(name, str)
    is_plain = all(
        isinstance(own, str) or (isinstance(own, int | float) and abs(own) < 1e300)
        for own in given.values()
    )
    return is_known and name in ACTIVATIONS and is_plain


ACCOUNT_FUNCTIONS = Record(
    {
        "note": TEXT,
        "functions": ListOf(Field("a number, a function and its parameters", _is_function)),
    }
)
"""What is known of the activation functions of an account without its network."""

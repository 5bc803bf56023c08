"""Checks of arguments of the theory: arrays of any library, and one number or two for the axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError

__all__ = ["as_array", "checked_pair"]


def as_array(argument: str, value: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return an array, a tensor or nested lists as an array of float64.

    Args:
        argument: its name, for an error.
        value: the array.

    Raises:
        UsageError: it is not an array of finite real numbers.

    >>> as_array("power", Tensor([1, 2]).requires_grad_())
    array([1., 2.])
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy() if not value.is_complex() else np.zeros(1, complex)
    try:
        raw = np.asarray(value)
        is_complex = np.iscomplexobj(raw)
        array = np.zeros(0) if is_complex else raw.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{argument}: expected an array of numbers; got a {type(value).__name__}"
        ) from error
    if is_complex:
        raise UsageError(f"{argument}: expected real numbers; got complex ones")
    if not np.all(np.isfinite(array)):
        raise UsageError(f"{argument}: expected finite numbers; got NaN or infinite ones")
    return array


def checked_pair(argument: str, value: Any) -> tuple[int, int]:
    """Return a number, or one for each axis, as two whole numbers of at least 1.

    Raises:
        UsageError: it is neither.

    >>> checked_pair("stride", 2), checked_pair("stride", (1, 2))
    ((2, 2), (1, 2))
    """
    try:
        first, second = value
    except TypeError:
        first = second = value
    except ValueError as error:
        raise UsageError(f"{argument}: expected one whole number or two; got {value!r}") from error
    return checks.positive_int(argument, first), checks.positive_int(argument, second)

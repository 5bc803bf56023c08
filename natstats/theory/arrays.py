"""Arguments of the theory: arrays of whatever library, and what stands for each axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError

__all__ = ["as_array", "checked_pair"]


def as_array(value: ArrayLike | Tensor) -> NDArray[np.float64]:
    """Return an array, a tensor or nested lists as an array of float64.

    >>> as_array(Tensor([1, 2]).requires_grad_())
    array([1., 2.])
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)


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

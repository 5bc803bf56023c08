"""Several functions of single values, one after the other or side by side, as one function.

A chain of functions of a Gaussian field is exact as one function of that field. Taken a step at a
time, values that are rectified already would count as Gaussian again.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.theory.activation_functions import Activation

__all__ = ["beside", "composed", "linear_function"]

Array = NDArray[np.float64]

_REACH = 64.0
"""Values between which the bends of a chain are looked for; those of a network are of order 1."""

_STEPS = 4097


def linear_function(factor: float, shift: float = 0.0) -> Activation:
    """The function factor x + shift.

    >>> linear_function(2.0, 1.0)([0.0, 3.0])
    array([1., 7.])
    """
    return Activation(
        name=f"{factor:.4g} x + {shift:.4g}" if shift else f"{factor:.4g} x",
        function=lambda x: factor * x + shift,
        is_homogeneous=shift == 0.0,
        pieces=((factor, shift),),
    )


def _numbers(function: Activation) -> list[tuple[float, float]] | None:
    """Slope and intercept of each straight piece; None where these are not plain numbers."""
    pieces = function.pieces
    if pieces is None or any(np.ndim(part) for piece in pieces for part in piece):
        return None
    return [(float(slope), float(intercept)) for slope, intercept in pieces]


def _reached(first: Activation, level: float) -> list[float]:
    """The points where a function takes this value."""
    pieces = _numbers(first)
    if pieces is not None:
        ends = [-np.inf, *first.kinks, np.inf]
        found = []
        for (low, high), (slope, intercept) in zip(pairwise(ends), pieces, strict=True):
            if slope and low <= (at := (level - intercept) / slope) <= high:
                found.append(at)
        return found
    grid = np.linspace(-_REACH, _REACH, _STEPS)
    above = first(grid) > level
    found = []
    for place in np.flatnonzero(above[1:] != above[:-1]):
        low, high = grid[place], grid[place + 1]
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (low, middle) if (first(middle) > level) != above[place] else (middle, high)
        found.append(float((low + high) / 2))
    return found


def _joined(
    name: str, function: Callable[[Array], Array], kinks: set[float], parts: tuple[Activation, ...]
) -> Activation:
    """A function of its parts, made of straight pieces where all of them are."""
    knots = tuple(sorted(kinks))
    pieces: tuple[tuple[Any, Any], ...] | None = None
    if all(_numbers(part) is not None for part in parts):
        ends = [knots[0] - 2.0, *knots, knots[-1] + 2.0] if knots else [-1.0, 1.0]
        found = []
        for low, high in pairwise(ends):
            x = np.array([low + (high - low) / 4, high - (high - low) / 4])
            left, right = function(x)
            slope = (right - left) / (x[1] - x[0])
            found.append((float(slope), float(left - slope * x[0])))
        pieces = tuple(found)
    return Activation(
        name=name,
        function=function,
        kinks=knots,
        is_homogeneous=all(part.is_homogeneous for part in parts),
        pieces=pieces,
        bends=tuple(sorted({bend for part in parts for bend in part.bends})),
    )


def composed(first: Activation, second: Activation) -> Activation:
    """The function second(first(x)).

    >>> from natstats.theory.activation_functions import activation
    >>> chain = composed(activation("relu"), activation("hardtanh", min_val=-1.0, max_val=6.0))
    >>> chain.kinks, chain([-2.0, 3.0, 9.0])
    ((0.0, 6.0), array([0., 3., 6.]))
    """
    kinks = {*first.kinks, *(at for kink in second.kinks for at in _reached(first, kink))}
    return _joined(
        f"{second.name} of {first.name}",
        lambda x: second(first(x)),
        kinks,
        (first, second),
    )


def beside(
    how: Callable[[Array, Array], Array], name: str, one: Activation, two: Activation
) -> Activation:
    """The sum, or the product, of two functions of the same value.

    >>> from natstats.theory.activation_functions import activation
    >>> beside(np.multiply, "product", linear_function(1.0), activation("sigmoid"))([0.0])
    array([0.])
    """
    joined = _joined(
        f"{name} of {one.name} and {two.name}",
        lambda x: how(one(x), two(x)),
        {*one.kinks, *two.kinks},
        (one, two),
    )
    if name == "sum":
        return joined
    # A product of straight pieces is not straight, nor one of homogeneous functions homogeneous.
    return Activation(joined.name, joined.function, joined.kinks, bends=joined.bends)

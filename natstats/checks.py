"""Argument checks: each returns the checked value, or raises an error of one sentence.

Every message names the argument, says what was expected and shows what was given.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping
from typing import Any, SupportsFloat, SupportsIndex, TypeVar

from natstats.errors import UsageError
from natstats.text import few

__all__ = [
    "LARGEST", "LONGEST_SIDE", "MINIMUM_SIDE", "MOST_PIXELS", "finite", "flag",
    "one_of", "pair_in_order", "positive_int", "probability", "shaped", "spatial_shape",
    "state_keys", "within_float",
]  # fmt: skip

LARGEST = {
    "n_groups": 10_000,
    "resamples": 100_000,
    "batch_size": 16_384,
    "workers": 256,
    "limit": 10**9,
    "seed": 2**32 - 1,
    "size": 32_768,
    "crop": 32_768,
    "frames": 10_000,
    "control_seeds": 1_000,
}
"""The largest values of arguments: more would not fit in memory. A seed has 32 bits."""


T = TypeVar("T", bound=str)

_LARGEST_FLOAT = int(sys.float_info.max)

MINIMUM_SIDE = 5
"""The shortest side, in pixels, of a map with two rings: a slope needs two points."""

LONGEST_SIDE, MOST_PIXELS = 2**16, 2**26
"""The longest side of a map in pixels, and its most pixels: its expected spectrum takes 2 GB."""

NYQUIST = 0.5
"""The highest frequency that a sampled map can carry along an axis, in cycles per pixel."""


def one_of(argument: str, value: T, allowed: Collection[str]) -> T:
    """Return `value` when it is in `allowed`; else raise with those that it may stand for.

    These are names with its letters as initials, such as learning_rate for lr, and similar ones.

    Raises:
        UsageError: `value` is not one of `allowed`.

    >>> one_of("edges", "sine", ["sine", "hann"])
    'sine'
    >>> one_of("edges", "han", ["sine", "hann"])
    Traceback (most recent call last):
    natstats.errors.UsageError: edges: expected one of sine, hann; got 'han' (did you mean hann?)
    """
    if isinstance(value, str) and value in allowed:
        return value
    import difflib  # not needed to start the command line

    near = [name for name in allowed if "_" in name and _initials(name) == value][:5]
    near += difflib.get_close_matches(str(value), set(allowed) - set(near), n=5, cutoff=0.5)
    hint = f" (did you mean {', '.join(near)}?)" if near else ""
    listed = ", ".join(allowed) if len(allowed) <= 24 else f"{len(allowed)} names"
    raise UsageError(f"{argument}: expected one of {listed}; got {value!r}{hint}")


def _initials(name: str) -> str:
    return "".join(word[:1] for word in name.split("_"))


def positive_int(
    argument: str, value: SupportsIndex, minimum: int = 1, maximum: int | None = None
) -> int:
    """Return `value` as an int of at least `minimum` and at most `maximum`.

    Raises:
        UsageError: not a whole number, below `minimum` or above `maximum`.

    >>> positive_int("groups", 0)
    Traceback (most recent call last):
    natstats.errors.UsageError: groups: expected a whole number of at least 1; got 0
    """
    try:
        number = value.__index__()
    except (AttributeError, TypeError):  # an array of several numbers has the method, but it raises
        number = minimum - 1
    if number < minimum or isinstance(value, bool):
        raise UsageError(
            f"{argument}: expected a whole number of at least {minimum}; got {value!r}"
        )
    if maximum is not None and number > maximum:
        raise UsageError(
            f"{argument}: expected a whole number of at most {maximum}; got {_short(number)}"
        )
    return number


def _short(number: int) -> str:
    """A whole number as text; of one that is too long for Python to print, its number of bits."""
    return str(number) if number.bit_length() < 400 else f"one of {number.bit_length()} bits"


def flag(argument: str, value: Any) -> bool:
    """Return `value` when it is True or False.

    Raises:
        UsageError: it is something else.

    >>> flag("normalize", "no")
    Traceback (most recent call last):
    natstats.errors.UsageError: normalize: expected True or False; got 'no'
    """
    if not isinstance(value, bool):
        raise UsageError(f"{argument}: expected True or False; got {value!r}")
    return value


def finite(
    argument: str,
    value: Any,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> float:
    """Return `value` as a finite float within the limits.

    Args:
        argument: its name, for the error.
        value: an int or a float, not a bool.
        least: the smallest allowed.
        above: a limit that the value must exceed.
        most: the largest allowed.
        below: a limit that the value must stay below.

    Raises:
        UsageError: not a finite number, or beyond a limit.

    >>> finite("momentum", 1, least=0, below=1)
    Traceback (most recent call last):
    natstats.errors.UsageError: momentum: expected a number that is at least 0 and below 1; got 1
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, int) and abs(value) > _LARGEST_FLOAT:
        raise UsageError(
            f"{argument}: expected a number that a float can hold; got {_short(value)}"
        )
    if is_number and math.isfinite(value) and least <= value <= most and above < value < below:
        return float(value)
    limits = (("at least", least), ("above", above), ("at most", most), ("below", below))
    said = " and ".join(f"{words} {limit:g}" for words, limit in limits if math.isfinite(limit))
    raise UsageError(
        f"{argument}: expected a number{f' that is {said}' if said else ''}; got {value!r}"
    )


def within_float(argument: str, value: float) -> float:
    """Return a number as a float, which may be infinite or NaN.

    Raises:
        UsageError: a whole number that is larger than any float.

    >>> within_float("lr", 1)
    1.0
    """
    return finite(argument, value) if isinstance(value, int) else float(value)


def probability(argument: str, value: SupportsFloat) -> float:
    """Return `value` as a float strictly between 0 and 1.

    Raises:
        UsageError: no number, or outside (0, 1).

    >>> probability("level", 95)
    Traceback (most recent call last):
    natstats.errors.UsageError: level: expected a number between 0 and 1; got 95
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not 0.0 < number < 1.0:
        raise UsageError(f"{argument}: expected a number between 0 and 1; got {value!r}")
    return number


def pair_in_order(argument: str, value: Any, low: float, high: float) -> tuple[float, float]:
    """Return `value` as (a, b) with low <= a < b <= high.

    Raises:
        UsageError: not two numbers, out of order or out of range.

    >>> pair_in_order("band", (0.02, 0.4), 0.0, 0.5)
    (0.02, 0.4)
    """
    try:
        first, second = (float(part) for part in value)
        good = low <= first < second <= high
    except (TypeError, ValueError, OverflowError):
        good = False
    if not good:
        raise UsageError(
            f"{argument}: expected two rising numbers between {low:g} and {high:g}; got {value!r}"
        )
    return first, second


def shaped(argument: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Return `value` when it is an array or a tensor of this shape.

    Raises:
        UsageError: it is not.

    >>> shaped("sums", 3, (2, 2))
    Traceback (most recent call last):
    natstats.errors.UsageError: sums: expected an array of shape (2, 2); got a value of type int
    """
    found = getattr(value, "shape", None)
    if found is None or tuple(found) != shape:
        got = (
            f"a value of type {type(value).__name__}" if found is None else f"one of {tuple(found)}"
        )
        raise UsageError(f"{argument}: expected an array of shape {shape}; got {got}")
    return value


def spatial_shape(argument: str, height: int, width: int, minimum: int) -> tuple[int, int]:
    """Return (height, width) when both are at least `minimum` pixels, and the map is not too large.

    Raises:
        UsageError: a side is shorter, or longer than :data:`LONGEST_SIDE`, or there are more pixels
            than :data:`MOST_PIXELS`.

    >>> spatial_shape("maps", 4, 4, 5)
    Traceback (most recent call last):
    natstats.errors.UsageError: maps: expected at least 5 x 5 pixels; got 4 x 4
    """
    if height < minimum or width < minimum:
        raise UsageError(
            f"{argument}: expected at least {minimum} x {minimum} pixels; got {height} x {width}"
        )
    if max(height, width) > LONGEST_SIDE or height * width > MOST_PIXELS:
        raise UsageError(
            f"{argument}: expected at most {MOST_PIXELS} pixels, and {LONGEST_SIDE} along a side; "
            f"got {height} x {width}"
        )
    return height, width


def state_keys(
    of: str,
    state: Any,
    expected: Collection[str],
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    optional: Collection[str] = (),
) -> None:
    """Raise when a state is not that of an object, naming all that is wrong with it at once.

    Args:
        of: the object whose state is expected, with its article.
        state: a mapping from names to values.
        expected: names that it must have.
        shapes: shapes of its arrays or tensors, by name.
        optional: names that it may also have.

    Raises:
        UsageError: keys are missing or unexpected, or values have another shape.

    >>> state_keys("a meter", {"total": 1, "extra": 2}, ["total", "count"])
    Traceback (most recent call last):
    natstats.errors.UsageError: state: expected that of a meter; missing: count; unexpected: extra
    """
    if not isinstance(state, Mapping):
        raise UsageError(f"state: expected that of {of}; got an object of {type(state).__name__}")
    wrong = {
        "missing": [name for name in expected if name not in state],
        "unexpected": [str(name) for name in state if name not in (*expected, *optional)],
        "of another shape": [
            f"{name} {got} where {shape} was expected"
            for name, shape in (shapes or {}).items()
            if name in state and (got := _shape_of(state[name])) != str(shape)
        ],
    }
    told = [f"{what}: {few(names, 5)}" for what, names in wrong.items() if names]
    if told:
        raise UsageError(f"state: expected that of {of}; {'; '.join(told)}")


def _shape_of(value: Any) -> str:
    found = getattr(value, "shape", None)
    return f"an object of {type(value).__name__}" if found is None else str(tuple(found))

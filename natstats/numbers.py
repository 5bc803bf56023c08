"""Numbers as text that does not lie: no false zero, no interval rounded onto or across zero.

And numbers of records that were read, in which null stands for NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "as_number", "change", "change_cells", "count", "counted", "estimate", "estimate_cells",
    "evenly_spaced", "interval", "interval_text", "map_size", "nan_for_null", "number", "share",
    "short",
]  # fmt: skip

MINUS, THIN = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


def number(value: float, digits: int = 2, *, sign: bool = False, missing: str = "–") -> str:
    """A value with at least `digits` decimals, and as many more as keep it from reading as zero.

    >>> number(1.005), number(-0.0004), number(float("nan")), number(0.0), number(2.0, sign=True)
    ('1.00', '−0.0004', '–', '0.00', '+2.00')
    """
    if not math.isfinite(value):
        return missing
    while value and digits < 12 and float(f"{value:.{digits}f}") == 0:
        digits += 1
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", MINUS)


def short(value: float, digits: int = 4) -> str:
    """A quantity with `digits` significant digits and no needless zeros; whole parts are never cut.

    Very large and very small ones are shown as a number times a power of ten, not as 1e-9.

    >>> short(1134.2, 3), short(0.5), short(-0.00001), short(float("nan")), short(74835)
    ('1134', '0.5', '−0.00001', '–', '74\u202f835')
    >>> short(2.5e-9), short(3e21)
    ('2.5 × 10⁻⁹', '3 × 10²¹')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    power = math.floor(math.log10(abs(value)))
    if not -7 < power < 15:
        raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{short(value / 10.0**power, digits)} × 10{raised}"
    decimals = max(digits - 1 - power, 0)
    text = f"{value:,.{decimals}f}" if abs(value) >= 10_000 else f"{value:.{decimals}f}"
    if decimals:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", MINUS).replace(",", THIN)


def count(value: int) -> str:
    """A whole number, its digits in groups of three from five digits on.

    >>> count(1434), count(172051)
    ('1434', '172\u202f051')
    """
    return (f"{value:,}" if abs(value) >= 10_000 else str(value)).replace(",", THIN)


def counted(n: int, one: str, several: str = "") -> str:
    """A number of things with their name, in the singular where there is one.

    Args:
        n: how many.
        one: name in the singular, with the words that follow it.
        several: the same in the plural, also for none; by default `one` with an s behind it.

    >>> counted(1, "layer"), counted(0, "layer"), counted(2, "class", "classes")
    ('1 layer', '0 layers', '2 classes')
    """
    return f"{count(n)} {one if n == 1 else several or f'{one}s'}"


def share(value: float, missing: str = "–") -> str:
    """A share of at most 1 with three decimals, cut and not rounded: only a whole one reads as 1.

    >>> share(0.99999), share(1.0), share(float("nan"))
    ('0.999', '1.000', '–')
    """
    cut = math.floor(1000 * value) / 1000 if math.isfinite(value) else value
    return number(cut, 3, missing=missing)


def interval(low: float, high: float, digits: int = 2, *, sign: bool = False) -> str:
    """The ends of an interval, with as many decimals as its width asks for.

    They show two significant digits of a width that begins with 1, 2 or 3, and one of the others:
    the ends are off by a twentieth of the width at most. Intervals of layers that are about as
    certain then have the same number of decimals.

    >>> interval(1.234, 1.456), interval(-0.00004, 0.0121), interval(0.01231, 0.01239)
    ('[1.23, 1.46]', '[−0.00004, 0.01210]', '[0.01231, 0.01239]')
    >>> interval(3.071, 3.158), interval(3.071, 3.101)
    ('[3.07, 3.16]', '[3.071, 3.101]')
    >>> interval(float("nan"), 1.0)
    'no interval'
    """
    if not _has_ends(low, high):
        return "no interval"
    digits = _digits_for(low, high, digits)
    return f"[{number(low, digits, sign=sign)}, {number(high, digits, sign=sign)}]"


def interval_text(low: float, high: float, digits: int = 2, *, sign: bool = False) -> str:
    """The ends of an interval as a column of the terminal has them, without brackets.

    >>> interval_text(1.234, 1.456), interval_text(float("nan"), 1.0)
    ('1.23 to 1.46', '-')
    """
    if not _has_ends(low, high):
        return "-"
    return interval(low, high, digits, sign=sign)[1:-1].replace(", ", " to ")


def change(value: float, low: float, high: float, digits: int = 4) -> str:
    """A signed estimate with its interval, all with the same number of decimals.

    >>> change(0.01986, 0.01254, 0.02716)
    '+0.0199 [+0.0125, +0.0272]'
    """
    return estimate(value, low, high, digits, sign=True)


def change_cells(value: float, low: float, high: float, digits: int = 4) -> tuple[str, str]:
    """What `change` writes, as two cells of a page.

    >>> change_cells(0.01986, 0.01254, 0.02716)
    ('+0.0199', '[+0.0125, +0.0272]')
    """
    told, _, ends = change(value, low, high, digits).partition(" ")
    return told, ends


def estimate(value: float, low: float, high: float, digits: int = 2, *, sign: bool = False) -> str:
    """An estimate with its interval, which decides the decimals of all three numbers.

    >>> estimate(3.1149, 3.0713, 3.1579), estimate(1.5, 1.49, 1.504), estimate(0.0001, -0.21, 0.2)
    ('3.11 [3.07, 3.16]', '1.500 [1.490, 1.504]', '0.00 [−0.21, 0.20]')
    >>> estimate(1.5, float("nan"), 2.0)
    '1.50 no interval'
    """
    return f"{_value(value, low, high, digits, sign)} {interval(low, high, digits, sign=sign)}"


def estimate_cells(
    value: float, low: float, high: float, digits: int = 2, *, sign: bool = False
) -> tuple[str, str]:
    """An estimate and its interval as two columns of the terminal have them.

    >>> estimate_cells(3.1149, 3.0713, 3.1579), estimate_cells(1.5, 1.49, 1.504)
    (('3.11', '3.07 to 3.16'), ('1.500', '1.490 to 1.504'))
    >>> estimate_cells(float("nan"), float("nan"), float("nan"))
    ('-', '-')
    """
    text = _value(value, low, high, digits, sign, missing="-")
    return text, interval_text(low, high, digits, sign=sign)


def _value(
    value: float, low: float, high: float, digits: int, sign: bool, missing: str = "–"
) -> str:
    """A value with the decimals of its interval, where it may be zero to that precision."""
    if not (_has_ends(low, high) and math.isfinite(value)):
        return number(value, digits, sign=sign, missing=missing)
    digits = _digits_for(low, high, digits)
    return number(round(value, digits) + 0.0, digits, sign=sign)  # + 0.0 makes -0.0 a zero


def _has_ends(low: float, high: float) -> bool:
    return math.isfinite(low) and math.isfinite(high)


def _digits_for(low: float, high: float, digits: int) -> int:
    """Decimals for an interval, `digits` at least; no end becomes zero that is none."""
    digits = max(digits, _decimals(high - low))
    for end in (low, high):
        digits = max(digits, len(number(end, digits).partition(".")[2]))
    return digits


def _decimals(width: float) -> int:
    """Decimals that show two significant digits of 0.010 to 0.039, one of 0.04 to 0.09, and so on.

    >>> [_decimals(width) for width in (0.039, 0.04, 0.1, 5.0, 0.0)]
    [3, 2, 2, 0, 0]
    """
    if width <= 0:
        return 0
    power = math.floor(math.log10(width))
    n_digits = 2 if width < 4 * 10.0**power else 1
    return min(max(n_digits - 1 - power, 0), 12)


def map_size(height: int, width: int, unit: str = "") -> str:
    """Size of a map; of a clip, whose width is 1, the number of frames.

    >>> map_size(8, 12), map_size(8, 12, " px"), map_size(16, 1)
    ('8 × 12', '8 × 12 px', '16 frames')
    """
    return counted(height, "frame") if width == 1 else f"{height} × {width}{unit}"


def evenly_spaced(n: int, most: int) -> list[int]:
    """Places of at most `most` of n things, evenly spaced from the first to the last.

    >>> evenly_spaced(3, 5), evenly_spaced(10, 4), evenly_spaced(10, 1)
    ([0, 1, 2], [0, 3, 6, 9], [0])
    """
    if n <= most:
        return list(range(n))
    step = (n - 1) / max(most - 1, 1)
    return [round(place * step) for place in range(most)]


def as_number(value: Any) -> float:
    """The number in a record that was read from JSON, which has null for NaN and infinities: NaN.

    Raises:
        TypeError: it is a list, or a mapping.
        ValueError: it is a text of something else.

    >>> as_number(2), as_number(None)
    (2.0, nan)
    """
    return math.nan if value is None else float(value)


def nan_for_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by name, NaN where null was read; what is no number stays as it is.

    >>> nan_for_null({"low": None, "n": 3, "name": "a"})
    {'low': nan, 'n': 3, 'name': 'a'}
    """
    return {name: math.nan if value is None else value for name, value in values.items()}

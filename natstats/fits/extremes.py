"""The steepest and the flattest layer of a network, and which layers may be as steep."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

__all__ = ["Extreme", "steepest_and_flattest"]

Row = Mapping[Hashable, Any]


@dataclass(frozen=True)
class Extreme:
    """A layer at one end of all exponents.

    Attributes:
        word: ``Steepest`` or ``Flattest``.
        row: of the table of layers.
        following: row of the layer whose exponent comes next.
        overlapping: rows of all layers whose intervals overlap with that of this one, the nearest
            exponent first.
    """

    word: str
    row: Row
    following: Row
    overlapping: tuple[Row, ...]

    @property
    def is_apart(self) -> bool:
        """Whether its interval, if it has one, overlaps with no other."""
        ends = self.row["exponent_low"], self.row["exponent_high"]
        return not self.overlapping and all(map(math.isfinite, ends))


def steepest_and_flattest(layers: pd.DataFrame) -> list[Extreme]:
    """The two ends of the exponents of a network; none of fewer than two layers.

    The images, and layers without an exponent, are left out. Of layers with the same exponent the
    first counts.

    Args:
        layers: columns kind, exponent, exponent_low, exponent_high, and any others.

    >>> frame = pd.DataFrame({"layer": ["a", "b", "c"], "kind": "conv", "exponent": [2.0, 1.0, 1.1],
    ...     "exponent_low": [1.9, 0.9, 1.0], "exponent_high": [2.1, 1.1, 1.2]})
    >>> [(one.word, one.row["layer"], len(one.overlapping)) for one in steepest_and_flattest(frame)]
    [('Steepest', 'a', 0), ('Flattest', 'b', 1)]
    """
    inner = layers[(layers.kind != "input") & np.isfinite(layers.exponent)]
    if len(inner) < 2:
        return []
    found = []
    for word, ascending in (("Steepest", False), ("Flattest", True)):
        order = inner.sort_values("exponent", ascending=ascending, kind="stable")
        row, *others = order.to_dict("records")
        # An end that is not known, NaN, overlaps with nothing.
        overlapping = [
            one
            for one in others
            if one["exponent_low"] <= row["exponent_high"]
            and row["exponent_low"] <= one["exponent_high"]
        ]
        found.append(Extreme(word, row, others[0], tuple(overlapping)))
    return found

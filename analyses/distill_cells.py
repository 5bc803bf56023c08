"""What the cells of a study's tables say: intervals, gains, arguments, and where a curve gets to.

Not a study by itself: analyses/distill_report.py uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from natstats.distill.comparison.pooled import PooledVariance, pooled_difference
from natstats.numbers import change

__all__ = ["LEVEL", "Accuracies", "ends_of", "first_reach", "gain", "spread", "with_ends"]

LEVEL = 0.95

Accuracies = dict[str, dict[int, float]]
"""Accuracy by method and seed."""


def first_reach(curve: pd.DataFrame, aim: float) -> float:
    """The epoch at which a curve comes to an accuracy, along straight lines; NaN for never."""
    epochs, values = curve.epoch.to_numpy(float), curve.accuracy.to_numpy(float)
    above = np.flatnonzero(values >= aim)
    if not len(above):
        return float("nan")
    place = int(above[0])
    if place == 0:
        return float(epochs[0])
    return float(np.interp(aim, values[place - 1 : place + 1], epochs[place - 1 : place + 1]))


def spread(values: np.ndarray[Any, Any]) -> str:
    """Student's interval over seeds."""
    if len(values) < 2 or np.ptp(values) == 0:
        return "–"
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stats.sem(values))
    mean = float(values.mean())
    return f"[{100 * (mean - reach):.1f}, {100 * (mean + reach):.1f}]"


def gain(known: Accuracies, name: str, other: str, pool: PooledVariance) -> str:
    """By how many points a method is above another, with the interval where there is one."""
    if name == other:
        return "–"
    found = pooled_difference(known, name, other, pool, LEVEL)
    if not np.isfinite(found.low):
        return "–" if not np.isfinite(found.value) else f"{100 * found.value:+.1f}"
    return change(100 * found.value, 100 * found.low, 100 * found.high, 1)


def ends_of(tried: Mapping[float, float]) -> dict[float, str]:
    """What is to be said of the smallest and the largest candidate that did not break down.

    Args:
        tried: accuracy by candidate, NaN for those that did.
    """
    trained = [value for value, accuracy in tried.items() if np.isfinite(accuracy)]
    if len(tried) < 2 or not trained:
        return {}
    return {
        end(trained): f"{words} {'tried' if end(trained) == end(tried) else 'that trained'}"
        for end, words in ((min, "smallest"), (max, "largest"))
    }


def with_ends(values: Mapping[str, Any], ends: Mapping[str, Mapping[float, str]]) -> str:
    """Arguments; one that lies at an end of what was tried might be better beyond."""

    def said(name: str, value: Any) -> str:
        words = ends.get(name, {}).get(value)
        return f"{name} {value} ({words})" if words else f"{name} {value}"

    return ", ".join(said(name, value) for name, value in values.items()) or "–"

"""Planned contrasts: pairs of methods that were to be compared before anything was trained.

Every X+spectral over X is one by default. Their errors are pooled over methods
(:mod:`natstats.distill.comparison.pooled`), and their p-values corrected for the number of planned
contrasts only (Holm), not for all pairs that could be formed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from natstats.distill.comparison.pooled import pooled_difference, pooled_variance
from natstats.errors import UsageError
from natstats.law.differences import holm
from natstats.law.trend import SIGNIFICANCE

__all__ = [
    "CONTRAST", "VERDICTS", "check_pairs", "contrast_frame", "contrast_rows",
    "corrected_rows", "empty_row", "with_verdicts",
]  # fmt: skip

CONTRAST = (
    "task", "label", "reference_label", "control", "difference", "low", "high", "p", "p_corrected",
    "dof", "se", "n_seeds", "n_left_out", "n_pooled", "error", "low_images", "high_images",
    "p_images", "p_images_corrected", "verdict", "reason",
)  # fmt: skip
"""Columns of the frame of contrasts; see :class:`natstats.distill.report.records.MethodTable`."""

VERDICTS = ("better", "worse", "no effect seen", "too little to tell")
"""What can be said of a contrast."""

_COUNTS = ("task", "n_seeds", "n_left_out", "n_pooled")
_TEXTS = ("label", "reference_label", "error", "verdict", "reason")


def contrast_rows(
    accuracies: Mapping[str, Mapping[int, float]],
    pairs: Sequence[tuple[str, str]],
    level: float = 0.95,
    n_images: int | None = None,
) -> list[dict[str, Any]]:
    """Differences of pairs of methods over their shared seeds, with errors for other seeds.

    Args:
        accuracies: of methods trained with one recipe, by seed; the variance is pooled over all
            of them.
        pairs: names of methods, the first over the second.
        level: level of the intervals.
        n_images: number of evaluation images, where known; see
            :func:`natstats.distill.comparison.pooled.pooled_difference`.

    Returns:
        A row for each pair, its p-value corrected for their number. `error` says whether the
        variance is ``pooled`` or the pair's ``own``, and `reason` why it is not pooled, or why
        there is none.

    Raises:
        UsageError: a method is unknown, an accuracy is not finite, or a pair comes twice, in
            this order or the other.

    >>> runs = {"ce": [50, 60, 55, 57, 52, 59], "kd": [60, 69, 66, 67, 61, 70]}
    >>> runs["at"] = [60, 71, 64, 67, 63, 69]
    >>> runs = {name: dict(enumerate(own)) for name, own in runs.items()}
    >>> (row,) = contrast_rows(runs, [("kd", "ce")])
    >>> row["difference"], row["dof"], row["error"], row["n_seeds"]
    (10.0, 10.0, 'pooled', 6)
    """
    check_pairs(pairs)
    pool = pooled_variance(accuracies, n_images)
    rows = []
    for first, second in pairs:
        found = pooled_difference(accuracies, first, second, pool, level)
        ours, theirs = accuracies[first].keys(), accuracies[second].keys()
        row = empty_row(first, second, found.reason) | {
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "dof": found.dof,
            "se": found.se,
            "n_seeds": len(ours & theirs),
            "n_left_out": len(ours ^ theirs),
            "n_pooled": len(pool.members) if found.is_pooled else 0,
            "error": "pooled" if found.is_pooled else "own" if np.isfinite(found.p) else "",
        }
        rows.append(row)
    return corrected_rows(rows, "p", "p_corrected")


def check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Refuse a pair of a method with itself, and one that comes twice, in either order.

    Either would count in Holm's rule and add nothing.
    """
    known: dict[frozenset[str], tuple[str, str]] = {}
    for first, second in pairs:
        if first == second:
            raise UsageError(f"contrast: expected two methods; got {first} twice")
        other = known.get(frozenset((first, second)))
        if other == (first, second):
            raise UsageError(f"contrast: expected each once; got {first}:{second} twice")
        if other:
            raise UsageError(
                f"contrast: expected each once; got {second}:{first} and {first}:{second}, which "
                "is the same the other way round"
            )
        known[frozenset((first, second))] = (first, second)


def empty_row(first: str, second: str, reason: str) -> dict[str, Any]:
    """The row of a contrast that could not be formed: nothing but the reason is known."""
    row: dict[str, Any] = {**dict.fromkeys(CONTRAST, np.nan), **dict.fromkeys(_TEXTS, "")}
    row |= dict.fromkeys(_COUNTS, 0)
    names = {"label": first, "reference_label": second}
    return row | names | {"control": False, "reason": reason}


def corrected_rows(rows: Sequence[dict[str, Any]], name: str, into: str) -> list[dict[str, Any]]:
    """Rows with p-values corrected by Holm's rule, which counts rows without a p-value too."""
    p = np.array([row[name] for row in rows], dtype=np.float64)
    corrected = np.where(np.isfinite(p), holm(np.nan_to_num(p, nan=1.0)), np.nan)
    return [{**row, into: float(value)} for row, value in zip(rows, corrected, strict=True)]


def with_verdicts(
    rows: Sequence[dict[str, Any]], controls: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The contrasts and then the controls, each with its verdict.

    The verdict *no effect seen* needs a positive control that shows its gain, and an interval
    without half so large a gain or loss: trainings that miss a gain known to exist cannot show that
    another one is absent, and an interval that holds one of that size has not excluded it. That the
    margin is a half is our choice.

    Args:
        rows: planned contrasts.
        controls: gains that are known to be there, corrected among themselves.

    Returns:
        All of them, controls last.
    """
    seen = [row["difference"] for row in controls if _verdict(row) == "better"]
    margin = min(seen, default=0.0) / 2
    judged = [{**row, "verdict": _verdict(row, margin)} for row in rows]
    return [
        *judged,
        *({**row, "control": True, "verdict": _verdict(row, margin)} for row in controls),
    ]


def _verdict(row: Mapping[str, Any], margin: float = 0.0) -> str:
    """The verdict of a row; gains and losses below `margin` count as none."""
    if not np.isfinite(row["p_corrected"]):
        return VERDICTS[3]
    if row["p_corrected"] < SIGNIFICANCE:
        return VERDICTS[0] if row["difference"] > 0 else VERDICTS[1]
    is_small = -margin < row["low"] <= row["high"] < margin
    return VERDICTS[2] if is_small else VERDICTS[3]


def contrast_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with the columns :data:`CONTRAST`."""
    frame = pd.DataFrame(list(rows), columns=list(CONTRAST))
    kinds: dict[str, Any] = dict.fromkeys(CONTRAST, np.float64)
    kinds |= {**dict.fromkeys(_COUNTS, np.int64), **dict.fromkeys(_TEXTS, str), "control": bool}
    return frame.astype(kinds)

"""Planned contrasts in words: cells of a table, sentences, and an explanation of the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from natstats.distill.report.records import KNOWN_GAINS
from natstats.law.law import bare_p, format_p
from natstats.numbers import change, interval, number
from natstats.text import few

__all__ = ["CONTRAST_HEADS", "contrast_cells", "contrast_explanation", "contrast_sentences"]

CONTRAST_HEADS = (
    "contrast", "points, other seeds", "p (Holm)", "verdict", "other seeds and images", "p (Holm)",
    "error", "degrees of freedom", "seeds",
)  # fmt: skip

Row = Mapping[Any, Any]


def contrast_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Cells under :data:`CONTRAST_HEADS`."""
    return [_cells(row) for row in rows]


def _cells(row: Row) -> list[str]:
    pair = _names(row)
    return [
        f"{pair} (control)" if row["control"] else pair,
        _points(row) if np.isfinite(row["difference"]) else "–",
        bare_p(row["p_corrected"]),
        str(row["verdict"]),
        interval(100 * row["low_images"], 100 * row["high_images"], 1, sign=True)
        if np.isfinite(row["low_images"])
        else "–",
        bare_p(row["p_images_corrected"]),
        f"pooled over {row['n_pooled']}" if row["error"] == "pooled" else row["error"] or "–",
        f"{row['dof']:.0f}" if np.isfinite(row["dof"]) else "–",
        str(row["n_seeds"]),
    ]


def _points(row: Row) -> str:
    value, low, high = (100 * row[name] for name in ("difference", "low", "high"))
    return change(value, low, high, 1) if np.isfinite(low) else number(value, 1, sign=True)


def contrast_sentences(contrasts: pd.DataFrame) -> list[str]:
    """Sentences on the planned contrasts of a task, and on whether a control shows its gain."""
    every = contrasts.to_dict("records")
    rows = [row for row in every if np.isfinite(row["p_corrected"])]
    planned = [row for row in rows if not row["control"]]
    missing = _untested(every)
    if not planned:
        return missing
    texts = [f"{_said(row)}." for row in planned] + missing
    unseen = [row for row in planned if row["verdict"] not in ("better", "worse")]
    if unseen:
        seeing = [row for row in rows if _is_control(row) and row["verdict"] == "better"]
        if seeing:
            shown = "; ".join(_pair(row) for row in seeing)
            texts.append(f"That a gain can be seen here is shown by {shown}.")
        else:
            texts.append(
                "No positive control (kd or at over ce) is seen here, so that nothing can be said "
                "of a contrast that is not seen."
            )
    return texts


def _untested(rows: Sequence[Row]) -> list[str]:
    """Planned contrasts without a test, one sentence for each reason."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        if not row["control"] and not np.isfinite(row["p_corrected"]) and row["reason"]:
            by_reason.setdefault(str(row["reason"]), []).append(_names(row))
    texts = []
    for reason, names in by_reason.items():
        was, is_, counts = ("was", "is", "counts") if len(names) == 1 else ("were", "are", "count")
        untested = f"{few(names)} {was} planned and {is_} not tested"
        texts.append(f"{untested}, but {counts} in Holm's rule: {reason}.")
    return texts


def _is_control(row: Row) -> bool:
    # A label is the name of a method, with what tells it from others of that name in parentheses.
    pair = tuple(row[key].split(" (")[0] for key in ("label", "reference_label"))
    return bool(row["control"]) or pair in KNOWN_GAINS


def _pair(row: Row) -> str:
    p = f"corrected p {format_p(row['p_corrected'])}"
    return f"{_names(row)} {_points(row)} ({p})"


def _names(row: Row) -> str:
    return f"{row['label']} over {row['reference_label']}"


def _said(row: Row) -> str:
    return f"{_pair(row)}: {row['verdict']}"


def contrast_explanation(level: float) -> str:
    """An explanation of the table of contrasts."""
    return (
        "Planned contrasts are in percentage points over the seeds that both methods have. "
        "Accuracy is taken as method + seed + residual; the "
        f"{100 * level:g} % intervals and p are for other seeds on these images, with the residual "
        "variance pooled over the methods of one recipe and teacher with six seeds or more (error "
        "own: there are fewer, or the variances of methods differ, and it is that of the paired "
        "differences). Where all seeds have one difference, the error is that of one image at one "
        "seed. The columns of other seeds and images allow for other images besides. Holm's rule "
        "counts all planned contrasts, tested or not, and the controls by themselves. A verdict "
        "better or worse has a corrected p below 0.05, whatever the level of the intervals. No "
        "effect is spoken of only where the interval lies within half the smallest gain that a "
        "positive control shows, on both sides of zero."
    )

"""Gains of methods over a reference, on the seeds and images that both have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.distill.comparison.crossed import crossed_difference, exact_difference
from natstats.distill.comparison.method_runs import ALONE, MethodRuns, Task
from natstats.law.differences import Estimate, holm

__all__ = ["GAIN", "answers_apart", "comparable", "gains_frame", "gains_over", "with_gains"]

GAIN = (
    "task", "label", "method", "reference", "reference_label", "difference", "low", "high", "p",
    "p_corrected", "dof", "n_seeds", "n_left_out", "n_images", "test", "reason",
)  # fmt: skip
"""Columns of the frame of gains."""


def gains_over(
    number: int, task: Task, methods: Sequence[MethodRuns], name: str, level: float
) -> list[dict[str, Any]]:
    """Gains of all other methods of a task over one, corrected for their number by Holm's rule.

    Args:
        number: number of the task.
        task: the task.
        methods: its methods, in the order of the rows.
        name: method or label of the reference.
        level: level of the intervals.

    Returns:
        Rows of :func:`gains_frame`.
    """
    rows = []
    named = [method for method in methods if method.label == name]
    named = named or [method for method in methods if method.name == name]
    for method in methods:
        if method in named:
            continue
        close = [other for other in named if comparable(method, other)]
        row: dict[str, Any] = {
            **dict.fromkeys(GAIN, np.nan),
            **dict.fromkeys(("reference_label", "test", "reason"), ""),
            **dict.fromkeys(("n_seeds", "n_left_out"), 0),
            "task": number,
            "label": method.label,
            "method": method.name,
            "reference": name,
            "n_images": task.n_images,
        }
        if len(close) == 1:
            row["reference_label"] = close[0].label
            row.update(_paired(method, close[0], level))
        elif close:
            row["reason"] = f"several rows are {name}, and only the label of one chooses it"
        else:
            row["reason"] = f"there is no {name} on these images with the same recipe and teacher"
        rows.append(row)
    corrected = holm(np.array([row["p"] for row in rows], dtype=np.float64))
    return [{**row, "p_corrected": float(p)} for row, p in zip(rows, corrected, strict=True)]


def gains_frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows of :func:`gains_over` as a frame with the columns :data:`GAIN`."""
    frame = pd.DataFrame(list(rows), columns=list(GAIN))
    floats = ("difference", "low", "high", "p", "p_corrected", "dof")
    counts = ("task", "n_seeds", "n_left_out", "n_images")
    texts = [name for name in GAIN if name not in (*floats, *counts)]
    kinds: dict[str, Any] = {
        **dict.fromkeys(floats, np.float64), **dict.fromkeys(counts, np.int64),
        **dict.fromkeys(texts, str),
    }  # fmt: skip
    return frame.astype(kinds)


def comparable(method: MethodRuns, reference: MethodRuns) -> bool:
    """Whether two methods share their recipe and, unless one has no teacher, their teacher."""
    alone = ALONE in (method.name, reference.name)
    return method.shares(reference, "recipe.") and (alone or method.shares(reference, "teacher."))


def answers_apart(
    method: MethodRuns, reference: MethodRuns
) -> tuple[NDArray[np.int8] | None, int, str]:
    """Which images the first alone (1) or the second alone (-1) got right, with each shared seed.

    Returns:
        The differences in {-1, 0, 1}, (seeds, images), or None; the number of seeds that only one
        of the two has; and why there are no differences, empty where there are.
    """
    ours, theirs = ({run.seed: run for run in one.runs} for one in (method, reference))
    shared = sorted(ours.keys() & theirs.keys())
    left_out = len(ours.keys() ^ theirs.keys())
    if not shared:
        return None, left_out, "no seed is in both"
    pairs = [(ours[seed], theirs[seed]) for seed in shared]
    first = pairs[0][0].outcomes
    for run in (run for pair in pairs for run in pair):
        for what, name in (("image", "images"), ("label", "labels")):
            if not np.array_equal(getattr(run.outcomes, what), getattr(first, what)):
                reason = f"the {name} of their outcomes differ, or stand in another order"
                return None, left_out, reason
    differences: NDArray[np.int8] = np.stack(
        [a.outcomes.correct.astype(np.int8) - b.outcomes.correct.astype(np.int8) for a, b in pairs]
    )
    return differences, left_out, ""


def _paired(method: MethodRuns, reference: MethodRuns, level: float) -> dict[str, Any]:
    """The gain over a reference on the seeds and images that both have."""
    differences, left_out, reason = answers_apart(method, reference)
    if differences is None:
        return {"n_left_out": left_out, "reason": reason}
    if min(differences.shape) == 1:
        found, test = exact_difference(differences[0], level), "images"
    else:
        found, test = crossed_difference(differences, level), "seeds and images"
    return {**_ends(found), "n_seeds": len(differences), "n_left_out": left_out, "test": test}


def _ends(found: Estimate) -> dict[str, float]:
    return {
        "difference": found.value, "low": found.low, "high": found.high, "p": found.p,
        "dof": found.dof,
    }  # fmt: skip


def with_gains(
    methods: pd.DataFrame, gains: pd.DataFrame, references: Sequence[str]
) -> pd.DataFrame:
    """The frame of methods with the gains over every reference beside them."""
    columns = {
        "difference": "", "low": "_low", "high": "_high", "p": "_p", "p_corrected": "_p_holm",
    }  # fmt: skip
    for name in references:
        own = gains[gains.reference == name].set_index(["task", "label"])
        own = own[list(columns)].rename(columns={k: f"gain_{name}{v}" for k, v in columns.items()})
        methods = methods.join(own.astype(np.float64), on=["task", "label"])
    return methods

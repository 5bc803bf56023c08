"""The planned contrasts of a task: which of its methods they compare, and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from natstats import checks
from natstats.distill.comparison.contrasts import (
    check_pairs,
    contrast_rows,
    corrected_rows,
    empty_row,
    with_verdicts,
)
from natstats.distill.comparison.crossed import crossed_difference
from natstats.distill.comparison.gains import answers_apart, comparable
from natstats.distill.comparison.method_runs import ALONE, MethodRuns, Task
from natstats.distill.report.records import KNOWN_GAINS
from natstats.errors import UsageError

__all__ = ["Pair", "checked_contrasts", "contrasts_of", "default_contrasts"]

SPECTRAL = "spectral"
"""The method that the planned contrasts add by default."""

Pair = tuple[str, str]


def checked_contrasts(given: Sequence[Any], tasks: Sequence[Task]) -> list[Pair]:
    """Pairs of names or labels, each of which some task has.

    Raises:
        UsageError: one is not a pair, comes twice (in either order), pairs a method with itself,
            or names an unknown method.
    """
    if isinstance(given, str) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in given
    ):
        raise UsageError(f"contrasts: expected pairs, METHOD and the one it is over; got {given!r}")
    names = list(dict.fromkeys(
        name for task in tasks for method in task.methods for name in (method.label, method.name)
    ))  # fmt: skip
    pairs = [(str(first), str(second)) for first, second in given]
    for pair in pairs:
        for name in pair:
            checks.one_of("contrast", name, names)
    check_pairs(pairs)
    return pairs


def default_contrasts(task: Task) -> list[Pair]:
    """Every X+spectral over the X with the same arguments, as labels; spectral alone is over ce."""
    pairs = []
    for method in task.methods:
        base = _without_spectral(method.name)
        if base is None:
            continue
        alike = [
            other
            for other in task.methods
            if other.name == base
            and comparable(method, other)
            and all(method.shares(other, f"argument.{part}.") for part in base.split("+"))
        ]
        if len(alike) == 1:
            pairs.append((method.label, alike[0].label))
    return pairs


def _without_spectral(name: str) -> str | None:
    parts = name.split("+")
    if SPECTRAL not in parts:
        return None
    rest = [part for part in parts if part != SPECTRAL]
    return "+".join(rest) or ALONE


def contrasts_of(
    number: int, task: Task, given: Sequence[Pair] | None, level: float
) -> list[dict[str, Any]]:
    """Planned contrasts of a task, and the positive controls that are present.

    A planned pair that this task cannot form has a row with the reason, and still counts in Holm's
    rule.

    Args:
        number: number of the task.
        task: the task; the error of a contrast is pooled over those of its methods that can be
            compared with both.
        given: names or labels; None for :func:`default_contrasts`.
        level: level of the intervals.

    Returns:
        Rows of :func:`natstats.distill.comparison.contrasts.contrast_frame`.

    Raises:
        UsageError: two of the given pairs are the same methods of this task, in either order.
    """
    wanted = default_contrasts(task) if given is None else given
    planned = [one for pair in wanted for one in _labelled(task, pair) or [pair]]
    check_pairs(planned)
    usual = [pair for control in KNOWN_GAINS for pair in _labelled(task, control)]
    known = [pair for pair in usual if pair in planned]
    found = []
    for pairs in (planned, [pair for pair in usual if pair not in planned]):
        rows = [{**_row(task, pair, level), "task": number} for pair in pairs]
        rows = corrected_rows(rows, "p", "p_corrected")
        found.append(corrected_rows(rows, "p_images", "p_images_corrected"))
    own, beside = found
    # A control that was planned is corrected with the planned contrasts, and is a control still.
    also = [row for row in own if (row["label"], row["reference_label"]) in known]
    judged = with_verdicts(own, [*beside, *also])
    return judged[: len(own) + len(beside)]


def _labelled(task: Task, pair: Pair) -> list[Pair]:
    """A pair by label, for all rows of these names that can be compared."""
    firsts, seconds = (_named(task, name) for name in pair)
    return [
        (first.label, second.label)
        for first in firsts
        for second in seconds
        if first is not second and comparable(first, second)
    ]


def _row(task: Task, pair: Pair, level: float) -> dict[str, Any]:
    """The row of a pair; only the reason where it cannot be formed."""
    for name in pair:
        if not _named(task, name):
            return empty_row(*pair, f"there is no {name} in this task")
    by_label = {method.label: method for method in task.methods}
    ours, theirs = by_label.get(pair[0]), by_label.get(pair[1])
    if ours is None or theirs is None or not comparable(ours, theirs):
        return empty_row(*pair, "no two of their rows have the same recipe and teacher")
    # Only trainings of one recipe share what a seed does, and their variance.
    accuracies = {
        method.label: {run.seed: run.accuracy for run in method.runs}
        for method in task.methods
        if comparable(method, ours) and comparable(method, theirs)
    }
    (row,) = contrast_rows(accuracies, [pair], level, task.n_images)
    return {**row, **_on_images(by_label, row, level)}


def _named(task: Task, name: str) -> list[MethodRuns]:
    own = [method for method in task.methods if method.label == name]
    return own or [method for method in task.methods if method.name == name]


def _on_images(
    by_label: Mapping[str, MethodRuns], row: Mapping[str, Any], level: float
) -> dict[str, Any]:
    """The same difference for other seeds and other images, or why there is none."""
    first, second = by_label[row["label"]], by_label[row["reference_label"]]
    differences, _, reason = answers_apart(first, second)
    if differences is None or min(differences.shape) < 2 or not np.isfinite(row["p"]):
        return {"reason": row["reason"] or reason}
    between = (row["se"] ** 2, row["dof"]) if row["error"] == "pooled" else None
    found = crossed_difference(differences, level, between)
    return {"low_images": found.low, "high_images": found.high, "p_images": found.p}

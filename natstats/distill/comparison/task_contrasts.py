"""The planned contrasts of a task: which rows of its table they are of, and their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from natstats import checks
from natstats.distill.comparison.contrasts import (
    CONTROLS,
    contrast_rows,
    corrected_rows,
    with_verdicts,
)
from natstats.distill.comparison.crossed import crossed_difference
from natstats.distill.comparison.gains import answers_apart, comparable
from natstats.distill.comparison.method_runs import ALONE, MethodRuns, Task
from natstats.errors import UsageError

__all__ = ["Pair", "checked_contrasts", "contrasts_of", "default_contrasts"]

SPECTRAL = "spectral"
"""The method that the planned contrasts add by default."""

Pair = tuple[str, str]


def checked_contrasts(given: Sequence[Any], tasks: Sequence[Task]) -> list[Pair]:
    """Pairs of names or labels, each of which some task has.

    Raises:
        UsageError: one is no pair, comes twice, is of a method with itself, or a name is unknown.
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
        if pair[0] == pair[1]:
            raise UsageError(f"contrast: expected two methods; got {pair[0]} twice")
        if pairs.count(pair) > 1:
            raise UsageError(f"contrast: expected each once; got {pair[0]}:{pair[1]} twice")
    return pairs


def default_contrasts(task: Task) -> list[Pair]:
    """Every X+spectral over the X with the same arguments, as labels; spectral itself is ce's."""
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
    """Planned contrasts of a task, and the positive controls that are there.

    Args:
        number: of the task.
        task: its methods all give the pooled variance.
        given: names or labels; None for :func:`default_contrasts`.
        level: level of the intervals.

    Returns:
        Rows of :func:`natstats.distill.comparison.contrasts.contrast_frame`.
    """
    planned = default_contrasts(task) if given is None else _labelled(task, given)
    controls = [pair for pair in _labelled(task, CONTROLS) if pair not in planned]
    known = [pair for pair in _labelled(task, CONTROLS) if pair in planned]
    accuracies = {
        method.label: {run.seed: run.accuracy for run in method.runs} for method in task.methods
    }
    by_label = {method.label: method for method in task.methods}
    found = []
    for pairs in (planned, controls):
        rows = [
            {**row, "task": number, **_on_images(by_label, row, level)}
            for row in contrast_rows(accuracies, pairs, level)
        ]
        found.append(corrected_rows(rows, "p_images", "p_images_corrected"))
    own, beside = found
    # A control that was planned is corrected with the others, and shows as much.
    also = [row for row in own if (row["label"], row["reference_label"]) in known]
    judged = with_verdicts(own, [*beside, *also])
    return judged[: len(own) + len(beside)]


def _labelled(task: Task, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs by label, as far as a task has one row of each that can be compared."""
    found = []
    for pair in pairs:
        firsts, seconds = (_named(task, name) for name in pair)
        found += [
            (first.label, second.label)
            for first in firsts
            for second in seconds
            if first is not second and comparable(first, second)
        ]
    return list(dict.fromkeys(found))


def _named(task: Task, name: str) -> list[MethodRuns]:
    own = [method for method in task.methods if method.label == name]
    return own or [method for method in task.methods if method.name == name]


def _on_images(
    by_label: Mapping[str, MethodRuns], row: Mapping[str, Any], level: float
) -> dict[str, Any]:
    """The same difference for other seeds and other images, or why it cannot be had."""
    first, second = by_label[row["label"]], by_label[row["reference_label"]]
    differences, _, reason = answers_apart(first, second)
    if differences is None or min(differences.shape) < 2 or not np.isfinite(row["p"]):
        return {"reason": row["reason"] or reason}
    between = (row["se"] ** 2, row["dof"]) if row["error"] == "pooled" else None
    found = crossed_difference(differences, level, between)
    return {"low_images": found.low, "high_images": found.high, "p_images": found.p}

"""The page of a comparison or a meta-analysis, made again from the folder that it is in.

The folder names the runs that the result was made from, whose pages the new page links. For a
comparison these runs must be there: its figure draws all layers of both, and its page says how each
was measured.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import pandas as pd

from natstats.errors import NatstatsError, UsageError
from natstats.files.json_files import read_json
from natstats.files.ownership import KINDS
from natstats.files.paths import expanded
from natstats.files.schema import TEXT, ListOf, Record, or_null
from natstats.report.records import ComparisonReport, NetworksReport
from natstats.runs.comparison import Comparison, compare
from natstats.runs.networks_result import MetaAnalysis
from natstats.runs.run import Run
from natstats.text import printable

__all__ = ["PageAgain", "comparison_again", "networks_again"]

ROUNDING = 1e-6
"""Exponents that differ by less count as the same: they may be of another machine."""

Report = TypeVar("Report")

_TWO = or_null(ListOf(or_null(TEXT), 2, 2))
_COMPARED = Record(
    {"runs": _TWO, "runs_from_here": _TWO, "made_by": _TWO, "command": or_null(TEXT)},
    optional=("runs", "runs_from_here", "made_by", "command"),
)
_NAMED = Record({"path": TEXT, "from_here": or_null(TEXT)}, optional=("from_here",))
_TOGETHER = Record({"runs": ListOf(_NAMED), "command": or_null(TEXT)}, optional=("command",))

_COMPARED_AGAIN = ("exponent_a", "exponent_b", "low_a", "high_a", "low_b", "high_b")


@dataclass(frozen=True, eq=False)
class PageAgain(Generic[Report]):
    """What is needed to write a page again.

    Attributes:
        report: what it shows.
        command: command line that made it; empty where it was made from Python.
        notes: what has changed since, a sentence each.
    """

    report: Report
    command: str = ""
    notes: Sequence[str] = ()


def comparison_again(path: str | Path) -> PageAgain[ComparisonReport]:
    """The page of a comparison, from its folder and its runs; its numbers stay as they are.

    Args:
        path: what :meth:`natstats.Comparison.save` wrote.

    Raises:
        UsageError: it is no comparison, or a run is missing or is not what was compared.
        NatstatsError: the comparison or a run is damaged.
    """
    path = expanded(path, "comparison")
    stored = Comparison.open(path)
    record = _record(path, "comparison", _COMPARED)
    named = record.get("runs") or [None, None]
    near = record.get("runs_from_here") or [None, None]
    made_by = record.get("made_by") or [None, None]
    places = [_place(one, other, path) for one, other in zip(named, near, strict=True)]
    missing = [
        _missing(letter, name, command)
        for letter, name, command, place in zip("AB", named, made_by, places, strict=True)
        if place is None
    ]
    shown = printable(path)
    if missing:
        raise UsageError(
            f"run: expected the two runs of the comparison {shown}, which its page needs; "
            f"{' and '.join(missing)}"
        )
    runs = tuple(Run.open(place) for place in places if place is not None)
    expected = f"run: expected the runs of the comparison {shown} as they were compared"
    try:
        now = compare(runs[0], runs[1], stored.names)
    except UsageError as error:
        raise UsageError(f"{expected}; they cannot be compared any more: {error}") from None
    if changed := _changed(stored, now):
        again = " ".join(printable(place) for place in places if place is not None)
        raise UsageError(
            f"{expected}; {changed} (natstats compare {again} --out {shown} --overwrite compares "
            "them as they are)"
        )
    whole = replace(stored, runs=(runs[0], runs[1]))
    return PageAgain(whole.page(), record.get("command") or "")


def networks_again(path: str | Path) -> PageAgain[NetworksReport]:
    """The page of a meta-analysis, from its folder; runs that are missing are not linked.

    Args:
        path: what :meth:`natstats.MetaAnalysis.save` wrote.

    Raises:
        UsageError: it is no meta-analysis.
        NatstatsError: it is damaged.
    """
    path = expanded(path, "law")
    report = MetaAnalysis.open(path).report()
    record = _record(path, "law", _TOGETHER)
    near = {one["path"]: one.get("from_here") for one in record["runs"]}
    names = [str(name) for name in report.networks.path]
    places = [_place(name, near.get(name), path) for name in names]
    gone = [
        printable(name)
        for name, place in zip(names, places, strict=True)
        if place is None and near.get(name) is not None
    ]
    notes = []
    if gone:
        is_not = "is not there, and its row leads" if len(gone) == 1 else "are not there, and their"
        rest = " nowhere" if len(gone) == 1 else " rows lead nowhere"
        notes.append(f"{', '.join(gone)} {is_not}{rest}.")
    found = report.networks.assign(place=["" if one is None else str(one) for one in places])
    return PageAgain(replace(report, networks=found), record.get("command") or "", notes)


def _record(path: Path, kind: str, schema: Record) -> dict[str, Any]:
    """The record of a folder that has been opened, with the fields that a page takes of it."""
    file = KINDS[kind].record
    try:
        record: Mapping[str, Any] = read_json(path / file)
        schema.check(record, f"{file}, ")
    except (NatstatsError, OSError, ValueError) as error:
        raise NatstatsError(
            f"{kind}: expected a whole {KINDS[kind].called} in {printable(path)}; {error}"
        ) from error
    return dict(record)


def _place(name: str | None, from_here: str | None, home: Path) -> Path | None:
    """Where a run is now: by its way from the folder that names it, else by its path as typed."""
    record = KINDS["run"].record
    tried = [] if from_here is None else [Path(os.path.normpath(home.resolve() / from_here))]
    tried += [] if name is None else [Path(name)]
    try:
        return next((one for one in tried if (one / record).is_file()), None)
    except (OSError, ValueError):  # no valid path
        return None


def _missing(letter: str, name: str | None, command: str | None) -> str:
    """What is to be done about a run that is not there."""
    if name is None:
        return f"{letter} was in no folder when it was compared (save it and compare again)"
    how = f"`{printable(command)}` made it" if command else "natstats measure makes runs"
    return f"{printable(name)} is not there ({how}: put it back, or make it again)"


def _changed(stored: Comparison, now: Comparison) -> str:
    """What of the runs is not as it was compared, in words; empty where all of it is."""
    old, new = stored.layers, now.layers
    if [*old.layer] != [*new.layer] or stored.only != now.only:
        return "they have other layers now"
    if (stored.level, stored.depth) != (now.level, now.depth) or _differ(old, new):
        return "they were measured or fitted again"
    return ""


def _differ(old: pd.DataFrame, new: pd.DataFrame) -> bool:
    columns = [*_COMPARED_AGAIN]
    one, other = (frame[columns].to_numpy(dtype=float) for frame in (old, new))
    return not np.allclose(one, other, rtol=ROUNDING, atol=ROUNDING, equal_nan=True)

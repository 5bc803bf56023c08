"""The runs at or below given paths, and short names for them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from natstats.errors import UsageError
from natstats.files.ownership import KINDS
from natstats.files.paths import expanded, folders_below
from natstats.runs import store
from natstats.runs.series import Series
from natstats.text import natural, printable

__all__ = ["FoundRun", "find_runs", "short_names"]

_RUN = KINDS["run"].record


@dataclass(frozen=True)
class FoundRun:
    """A run that was found.

    Attributes:
        path: its directory.
        is_named: whether its own path was given, not that of a folder that holds it.
        series: the series of which it is the last checkpoint; None for a run by itself.
        place: place of the given path that it was found at or below.
    """

    path: Path
    is_named: bool = True
    series: Path | None = None
    place: int = 0


def find_runs(paths: Iterable[str | Path]) -> tuple[list[FoundRun], list[str]]:
    """Runs at or below each path, and notes on what was passed over.

    A series is one network at several times: its last checkpoint is taken. The runs in a folder
    are sorted, each of them once; hidden entries are skipped, and so are the controls of a run.

    Args:
        paths: each a run, a series, or a folder that holds any of these.

    Raises:
        UsageError: no run is found at or below a path, or a series that was named is not finished.

    >>> find_runs(["missing"])
    Traceback (most recent call last):
    natstats.errors.UsageError: runs: expected a run or a folder of runs; missing is not there
    """
    found: list[FoundRun] = []
    notes: list[str] = []
    for place, given in enumerate(paths):
        path = expanded(given, "runs")
        if store.is_series(path):
            own = [_last(path)]
        elif (path / _RUN).is_file():
            own = [FoundRun(path)]
        else:
            below = list(_below(path, notes))
            if not below:
                raise UsageError(_nothing(path))
            known = {one.path.resolve() for one in found}
            own = [one for one in below if one.path.resolve() not in known]
        found += [replace(one, place=place) for one in own]
    return found, notes


def _last(path: Path, *, is_named: bool = True) -> FoundRun:
    """The last checkpoint of a series."""
    home = Series.open(path).runs.paths[-1]  # type: ignore[attr-defined]
    return FoundRun(home, is_named, path)


def _below(path: Path, notes: list[str]) -> Iterator[FoundRun]:
    for here, folders in folders_below(path):
        folders.sort(key=natural)
        if (here / _RUN).is_file():
            folders.clear()
            yield FoundRun(here, is_named=False)
        elif here != path and store.is_unfinished_series(here):
            folders.clear()
            notes.append(f"The series in {printable(here)} is not finished and left out.")
        elif os.path.lexists(here / store.SERIES):
            folders.clear()
            yield _last(here, is_named=False)


def _nothing(path: Path) -> str:
    expected = "runs: expected a run or a folder of runs"
    shown = printable(path)
    if not path.exists():
        return f"{expected}; {shown} is not there"
    if not path.is_dir():
        return f"{expected}; {shown} is a file"
    return f"{expected}; {shown} holds no {_RUN}, nor does any folder in it"


def short_names(paths: Sequence[Path], least: Sequence[int]) -> list[str]:
    """The end of each path, as long as it takes to tell it from the others.

    Args:
        paths: what to name.
        least: parts of each that are shown in any case.

    >>> short_names([Path("a/x"), Path("b/x"), Path("b/y")], [1, 1, 1])
    ['a/x', 'b/x', 'y']
    """
    parts = [path.resolve().parts for path in paths]
    lengths = list(least)
    while True:
        names = ["/".join(own[-n:]) for own, n in zip(parts, lengths, strict=True)]
        alike = [
            place
            for place, name in enumerate(names)
            if names.count(name) > 1 and lengths[place] < len(parts[place])
        ]
        if not alike:
            return names
        for place in alike:
            lengths[place] += 1

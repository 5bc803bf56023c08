"""Folders of distillation runs: telling finished from unfinished ones, finding them below a path.

From the first epoch on, the directory of a training holds the state that it resumes from, the file
:data:`STATE`; without :data:`RECORD` beside it the training is not finished.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from natstats.errors import UsageError
from natstats.files.paths import expanded, folders_below
from natstats.text import natural, printable

__all__ = [
    "RECORD", "STATE", "TABLE", "TABLE_FILES", "find_runs", "find_unfinished", "has_state",
    "is_unfinished",
]  # fmt: skip

RECORD = "distill.json"
"""The file that makes a directory a finished run; it is put in place last."""

STATE = "natstats-state.pt"
"""The state that a training resumes from, removed at its end; the name is natstats' own."""

TABLE = "table.json"
TABLE_FILES = (
    TABLE, "table.csv", "table.md", "gains.csv", "contrasts.csv", "terms.csv", "seeds.csv",
    "report.html", "figures",
)  # fmt: skip
"""Files that a comparison of runs writes into its folder, :data:`TABLE` last."""


def has_state(path: Path) -> bool:
    """Whether a directory holds the state of a training, whole or partly written."""
    return any((path / name).is_file() for name in (STATE, f"{STATE}.partial"))


def is_unfinished(path: Path) -> bool:
    """Whether a directory holds a training that is not finished."""
    return has_state(path) and not (path / RECORD).exists()


def find_runs(paths: Iterable[str | Path], argument: str = "runs") -> list[Path]:
    """Runs at or below each path, sorted, each once; hidden entries are skipped.

    Args:
        paths: each a run, the folder of a method's seeds, or a folder that holds any of these.
        argument: its name, for errors.

    Raises:
        UsageError: a path holds no training, or no training is finished.

    >>> find_runs(["missing"])
    Traceback (most recent call last):
    natstats.errors.UsageError: runs: expected a training or a folder of them; missing is not there
    """
    found: dict[Path, Path] = {}
    without = []
    for given in paths:
        path = expanded(given, argument)
        own = [folder for folder in _walk(path) if (folder / RECORD).is_file()]
        if not own and not (path.is_dir() and find_unfinished([path])):
            raise UsageError(_nothing(path, argument))
        without += [] if own else [path]
        for folder in own:
            found.setdefault(folder.resolve(), folder)
    if without and not found:
        raise UsageError(_nothing(without[0], argument))
    return sorted(found.values(), key=lambda folder: natural(str(folder)))


def find_unfinished(paths: Iterable[str | Path]) -> list[Path]:
    """Directories at or below the paths with a training that is not finished, sorted."""
    found = {
        folder.resolve(): folder
        for path in paths
        for folder in _walk(expanded(path, "runs"))
        if is_unfinished(folder)
    }
    return sorted(found.values(), key=lambda folder: natural(str(folder)))


def _nothing(path: Path, argument: str) -> str:
    expected = f"{argument}: expected a training or a folder of them"
    shown = printable(path)
    if not path.exists():
        return f"{expected}; {shown} is not there"
    if not path.is_dir():
        return f"{expected}; {shown} is a file"
    unfinished = find_unfinished([path])
    if unfinished:
        return f"{expected}; the training in {printable(unfinished[0])} is not finished"
    return f"{expected}; {shown} holds no {RECORD}, nor does any folder in it"


def _walk(path: Path) -> Iterator[Path]:
    """A folder and the folders below it, but not those inside a run."""
    for here, folders in folders_below(path):
        if (here / RECORD).is_file():
            folders.clear()
        yield here

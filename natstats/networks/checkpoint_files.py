"""Checkpoints of one training: their files, their order, their steps and their names.

Only the names of the files decide. What trainers write into a checkpoint as ``epoch`` or
``global_step`` is the last one finished for some and the next one for others, and is not read.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular
from natstats.text import natural, printable

__all__ = ["SUFFIXES", "CheckpointFile", "find_checkpoints", "number_checkpoints", "step_name"]

SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin")
"""Endings of the files that a folder of checkpoints is searched for."""

_TAKEN = (
    "figures", "report.html", "series.json", "series.csv", "exponents.csv", "change.csv",
)  # fmt: skip
"""Names that stand for something else in the directory of a series."""


@dataclass(frozen=True)
class CheckpointFile:
    """One checkpoint of a training.

    Attributes:
        name: what tells its file from the others, fit for the name of a folder.
        step: place in the training, see :func:`number_checkpoints`.
        path: path of the file.
    """

    name: str
    step: int
    path: Path

    def digest(self) -> str:
        """SHA-256 of the file, 16 hex digits.

        Raises:
            UsageError: it is not there.
            NatstatsError: it cannot be read.
        """
        sha = hashlib.sha256()
        try:
            with open_regular(self.path) as file:
                while piece := file.read(1 << 20):
                    sha.update(piece)
        except OSError as error:
            kind = UsageError if isinstance(error, FileNotFoundError) else NatstatsError
            raise kind(
                f"checkpoint: expected a readable file; {printable(self.path)}: "
                f"{error.strerror or error}"
            ) from error
        return sha.hexdigest()[:16]


def find_checkpoints(given: str | Path | Iterable[str | Path]) -> list[Path]:
    """Find the files that patterns, folders and paths stand for.

    What one pattern or folder holds comes in natural order (2 before 10); several patterns stand in
    the order in which they are given. A path without wildcards is taken as it is, there or not. No
    file comes twice.

    Args:
        given: a pattern such as ``runs/epoch_*.pth``, a folder (its files ending in one of
            :data:`SUFFIXES`), a file, or several of these.

    Raises:
        UsageError: a pattern or a folder holds no file.

    >>> find_checkpoints(["last.pth", "last.pth", "first.pth"]) == [
    ...     Path("last.pth"), Path("first.pth")]
    True
    """
    several = [given] if isinstance(given, str | Path) else list(given)
    found: dict[Path, Path] = {}
    for one in several:
        for path in _files(Path(one).expanduser()):
            found.setdefault(path.absolute(), path)
    return list(found.values())


def _files(path: Path) -> list[Path]:
    if os.path.isdir(path):  # which accepts any text, also one that no file can have as a name
        files = [
            file
            for file in path.iterdir()
            if file.suffix in SUFFIXES and file.is_file() and not file.name.startswith(".")
        ]
        wanted = f"a folder with {', '.join(SUFFIXES)} files"
    elif os.path.exists(path) or not glob.has_magic(str(path)):
        return [path]
    else:
        matched = (Path(name) for name in glob.glob(str(path), recursive=True))
        files = [file for file in matched if file.is_file()]
        wanted = "a pattern that some file matches"
    if not files:
        raise UsageError(f"checkpoint: expected {wanted}; got {printable(path)!r}")
    return sorted(files, key=lambda file: natural(str(file)))


def number_checkpoints(paths: Sequence[Path]) -> list[CheckpointFile]:
    """Give every file its name and its step, and sort by step.

    Where the names are alike but for one number, that number is the step. Else the files keep
    their order, and their steps are 0, 1, 2 and so on. A file is called by its name without the
    ending; where several have the same, by its name with the ending, or else by the parts of the
    path that differ.

    Raises:
        UsageError: two files cannot be told apart in this way.

    >>> for one in number_checkpoints([Path("epoch_10.pth"), Path("epoch_2.pth")]):
    ...     print(one.name, one.step)
    epoch_2 2
    epoch_10 10
    >>> [one.step for one in number_checkpoints([Path("first.pth"), Path("last.pth")])]
    [0, 1]
    """
    names = _names(paths)
    steps = _differing_number(names)
    numbers = range(len(names)) if steps is None else steps
    found = [
        CheckpointFile(_safe(name), step, path)
        for name, step, path in zip(names, numbers, paths, strict=True)
    ]
    if len({one.name for one in found}) < len(found):
        raise UsageError(
            "checkpoint: expected files that their names or folders tell apart; got "
            f"{', '.join(map(printable, paths[:4]))}{', ...' if len(paths) > 4 else ''}"
        )
    return sorted(found, key=lambda one: one.step)


def step_name(checkpoints: Sequence[str]) -> str:
    """What the steps of checkpoints of these names count: ``epoch``, ``iteration``, ``step``, ...

    >>> step_name(["epoch_1", "epoch_2"]), step_name(["first", "last"])
    ('epoch', 'checkpoint')
    """
    if _differing_number(checkpoints) is None:
        return "checkpoint"
    text = checkpoints[0].lower()
    words = {"epoch": "epoch", "iter": "iteration", "batch": "batch"}
    return next((word for part, word in words.items() if part in text), "step")


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for every file, each only once."""
    for names in ([path.stem for path in paths], [path.name for path in paths]):
        if len(set(names)) == len(names):
            return names
    parts = [path.absolute().parts for path in paths]
    start = _n_shared(parts)
    end = _n_shared([one[start:][::-1] for one in parts])
    return ["_".join(one[start : len(one) - end]) or one[-1] for one in parts]


def _n_shared(parts: Sequence[Sequence[str]]) -> int:
    """How many items all have in common from the start on."""
    return next(
        (i for i, same in enumerate(zip(*parts, strict=False)) if len(set(same)) > 1),
        min(map(len, parts)),
    )


def _differing_number(names: Sequence[str]) -> list[int] | None:
    """The one number in which these names differ; None where there is none, or more differs."""
    split = [re.split(r"(\d+)", name) for name in names]
    if len({len(parts) for parts in split}) != 1:
        return None
    differing = [
        place for place, texts in enumerate(zip(*split, strict=True)) if len(set(texts)) > 1
    ]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    numbers = [int(parts[differing[0]]) for parts in split]
    # Larger numbers are no steps, and fit no table.
    is_step = len(set(numbers)) == len(numbers) and max(numbers) < 1 << 63
    return numbers if is_step else None


def _safe(name: str) -> str:
    """The name, changed where it would be hidden or stand for something else in a series."""
    return f"checkpoint-{name.lstrip('.')}" if name in _TAKEN or name.startswith(".") else name

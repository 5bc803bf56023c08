"""Which files of a folder natstats wrote: only these are ever replaced or removed.

A record (``run.json``, ``series.json``, ...) lists the files that were written with it. Records of
older formats have no list; there, files with names that natstats gives are taken for its own. A
listed file must have such a name, too, as a folder, and its list, may come from somebody else.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natstats.files.json_files import read_json, to_json
from natstats.text import printable

__all__ = [
    "KINDS", "NEW", "STATE", "Kind", "foreign", "is_bare", "is_reserved", "is_unfinished_series",
    "kind_of_record", "list_files", "names_of", "own_files", "read_record", "remove_own",
    "what_is",
]  # fmt: skip

NEW = "natstats-new"
"""Part of the name of a hidden folder that is being written; nobody else has such a name."""

STATE = ".natstats-state"
"""Name of a folder, inside one that is to become a run, for the state of unfinished work."""

_DELETED = re.compile(r"\.nfs[0-9a-f]{8,}")
"""Names that NFS gives to files that were removed while open, until they are closed."""

_NEW = re.compile(rf"\.(.+\.)?{NEW}\.\w+|{re.escape(STATE)}")


@dataclass(frozen=True)
class Kind:
    """A kind of folder that natstats writes.

    Attributes:
        record: the file that makes a folder one of this kind.
        called: what the kind is called in sentences.
        known: pattern of the paths of its files in any version.
        is_whole: whether it is replaced as a whole; else its files are added beside others.
        says: the field ``kind`` of the record, where it has one.
    """

    record: str
    called: str
    known: re.Pattern[str]
    is_whole: bool = True
    says: str | None = None

    @property
    def listed(self) -> re.Pattern[str]:
        """Pattern of what a record may list: in a whole folder, also figures of any plain name."""
        figures = r"|figures/[a-z_]+\.(svg|png)" if self.is_whole else ""
        return re.compile(self.known.pattern + figures)


def _known(files: str, figures: str) -> re.Pattern[str]:
    return re.compile(rf"({files})|figures/({figures})\.(svg|png)")


KINDS = {
    "run": Kind(
        "run.json",
        "run",
        _known(
            r"run\.json|spectra\.npz|(layers|forms|sensitivity|image_exponents|skipped|control)\.csv"
            r"|(specifications|account)\.csv|(law|control|account)\.json|account\.npz|report\.html"
            r"|control/seed-\d+/(run\.json|(spectra|account)\.npz)"
            r"|counterfactual/(run\.json|spectra\.npz)"
            r"|state/(images|trained|shuffled|seed-\d+)\.safetensors",
            "law|specifications|control|spectra|spread|sensitivity"
            "|account|account_totals|kernels|kernel_exponents",
        ),
    ),
    "series": Kind(
        "series.json",
        "series",
        _known(r"series\.json|(series|exponents|change)\.csv|report\.html", "exponents|slopes"),
        says="series",
    ),
    "part": Kind(
        "part.json",
        "part",
        re.compile(r"part\.json|(images|trained|seed-\d+)\.safetensors"),
        says="part",
    ),
    "comparison": Kind(
        "comparison.json",
        "comparison",
        # Before 0.12 the figure was beside the tables.
        _known(r"comparison\.(json|csv)|difference\.(svg|png)|report\.html", "difference|compare"),
    ),
    "law": Kind(
        "meta_analysis.json",
        "meta-analysis",
        _known(r"meta_analysis\.json|(networks|subgroups)\.csv|report\.html", "forest"),
        says="law",
    ),
    "table": Kind(
        "table.json",
        "table",
        _known(
            r"table\.json|table\.md|(table|gains|contrasts|terms|seeds)\.csv|report\.html",
            r"(accuracy|contrasts|curves|gap)(-\d+)?",
        ),
        is_whole=False,
        says="table",
    ),
    "distill": Kind(
        "distill.json",
        "training",
        _known(
            r"distill\.json|history\.json|(history|gradients|gap)\.csv|outcomes\.npz|student\.safetensors"
            r"|report\.html",
            "curves|gradients|gap",
        ),
        is_whole=False,
        says="distillation",
    ),
}


def kind_of_record(name: str) -> str | None:
    """The kind of folder whose record has this name; None where there is none."""
    return next((kind for kind, one in KINDS.items() if one.record == name), None)


def read_record(folder: Path, kind: str) -> dict[str, Any] | None:
    """The record of a folder of this kind; None where there is none that can be read."""
    own = KINDS[kind]
    try:
        found = read_json(folder / own.record)
    except (OSError, ValueError):
        return None
    number = found.get("format") if isinstance(found, dict) else None
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        return None
    if own.says is not None and found.get("kind") != own.says:
        return None
    return dict(found)


def is_reserved(path: Path) -> bool:
    """Whether a folder holds nothing but the state of unfinished work."""
    try:
        return [e.name for e in path.iterdir() if not _DELETED.fullmatch(e.name)] == [STATE]
    except OSError:
        return False


def is_bare(path: Path) -> bool:
    """Whether there is a folder that holds no file."""
    return path.is_dir() and next(_entries(path), None) is None


def is_unfinished_series(path: Path) -> bool:
    """Whether a folder holds runs of a series, and nothing else, without ``series.json``.

    That is what an interruption leaves: every run is whole, the tables over all runs are missing.
    Runs that were not measured for a series do not count, nor does a folder with other files;
    hidden entries do not matter.
    """
    own = KINDS["series"]
    if not path.is_dir() or os.path.lexists(path / own.record):
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    runs = [
        entry
        for entry in entries
        if entry.name != "figures"
        and not own.known.fullmatch(entry.name)
        and not is_reserved(entry)
    ]
    return bool(runs) and all(_is_of_a_series(read_record(run, "run")) for run in runs)


def _is_of_a_series(record: Mapping[str, Any] | None) -> bool:
    return record is not None and isinstance(record.get("series"), dict)


def own_files(folder: Path, kind: str) -> set[str]:
    """Paths, below a folder of this kind, of the files in it that natstats wrote."""
    own, record = KINDS[kind], read_record(folder, kind)
    listed = _listed(record)
    pattern = own.known if listed is None else own.listed
    found = {
        name
        for name, is_file in _entries(folder)
        if is_file
        and pattern.fullmatch(name)
        and (listed is None or name in listed or name == own.record)
    }
    if kind == "series":
        for run in _runs(folder, record):
            found |= {f"{run}/{name}" for name in own_files(folder / run, "run")}
    return found


def _listed(record: Mapping[str, Any] | None) -> set[str] | None:
    """The files that a record lists; None where it has no list."""
    files = None if record is None else record.get("files")
    return {one for one in files if isinstance(one, str)} if isinstance(files, list) else None


def _runs(folder: Path, record: Mapping[str, Any] | None) -> Iterator[str]:
    """Names of the runs in a folder that belong to its series."""
    rows = None if record is None else record.get("runs")
    named = {row.get("checkpoint") for row in rows or [] if isinstance(row, dict)}
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            run = read_record(entry, "run")
            if run is not None and (entry.name in named or _is_of_a_series(run)):
                yield entry.name


def _entries(folder: Path) -> Iterator[tuple[str, bool]]:
    """Path of everything below a folder that is no folder, and whether it is a plain file.

    Links are not followed, and what natstats was writing when it was killed is not looked into.
    """
    for here, folders, files in os.walk(folder, followlinks=False):
        at = Path(here)
        folders[:] = [one for one in folders if not _NEW.fullmatch(one)]
        plain = [one for one in files if not _DELETED.fullmatch(one)]
        for name in [*plain, *(one for one in folders if (at / one).is_symlink())]:
            with contextlib.suppress(FileNotFoundError):
                is_file = stat.S_ISREG(os.lstat(at / name).st_mode)
                yield (at / name).relative_to(folder).as_posix(), is_file


def foreign(folder: Path, kind: str, beside: bool | None = None) -> list[str]:
    """Paths of what is in the way of a folder of this kind: files that natstats did not write.

    Args:
        folder: the folder as it is now.
        kind: kind of the folder that is to be written.
        beside: whether files are added beside others, so that only files with their names are in
            the way; by default as the kind says.
    """
    own = own_files(folder, kind)
    names = [name for name, _ in _entries(folder) if name not in own]
    if beside if beside is not None else not KINDS[kind].is_whole:
        names = [name for name in names if KINDS[kind].known.fullmatch(name)]
    return sorted(names)


def names_of(paths: Sequence[str], most: int = 3) -> str:
    """Some of the paths, for a sentence.

    >>> names_of(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = len(paths) - most
    shown = ", ".join(printable(path) for path in paths[:most])
    return shown if more < 1 else f"{shown} and {more} more"


def remove_own(folder: Path, kind: str) -> None:
    """Remove the files in a folder that natstats wrote, and the folder if nothing else is in it."""
    for name in own_files(folder, kind):
        (folder / name).unlink(missing_ok=True)
    for here, folders, _ in os.walk(folder, topdown=False):
        for name in folders:
            if _NEW.fullmatch(name):
                shutil.rmtree(Path(here) / name, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(here)


def list_files(folder: Path, kind: str, before: set[str] | None = None) -> None:
    """Write into the record of a folder which files natstats wrote there.

    Args:
        folder: the folder with all of them.
        kind: kind of the folder; runs of a series have a list of their own.
        before: other files that natstats wrote before, in the folder to which these are moved.
    """
    own = KINDS[kind]
    try:
        record = read_json(folder / own.record)
    except (OSError, ValueError):
        return
    if not isinstance(record, dict):
        return
    here = {name for name, is_file in _entries(folder) if is_file and own.listed.fullmatch(name)}
    record["files"] = sorted(here | (before or set()))
    (folder / own.record).write_text(to_json(record), encoding="utf-8")


def what_is(path: Path, missing: str) -> str:
    """What is at a path instead of a folder with one record, in words, for errors.

    Args:
        path: where it was looked for.
        missing: the record that is not there.

    >>> what_is(Path("/nowhere"), "run.json")
    '/nowhere is not there'
    """
    shown = printable(str(path))
    if not path.exists():
        return f"{shown} is not there"
    if not path.is_dir():
        return f"{shown} is a file"
    for kind in KINDS.values():
        if (path / kind.record).is_file():
            return f"{shown} is a {kind.called}"
    return f"{shown} holds no {missing}"

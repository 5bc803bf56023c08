"""Finding the images below a folder, and the files that are left out with a note.

Left out are what natstats itself has written, for its figures are no photographs; a file that was
already reached by another path; and files whose endings are not those of images.
"""

from __future__ import annotations

import fnmatch
import functools
import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from natstats.errors import UsageError
from natstats.files.paths import open_regular
from natstats.images.formats import has_image_name, is_companion
from natstats.text import printable

__all__ = ["Found", "images_below", "images_matching", "left_out_note", "paths_matching"]

RECORDS = (
    "run.json", "series.json", "distill.json", "comparison.json", "table.json",
    "meta_analysis.json",
)  # fmt: skip
"""Each makes a folder one that natstats wrote."""

_NAMED = 3


@dataclass
class Found:
    """The result of a search for images.

    Attributes:
        paths: paths of the images, sorted.
        other: files whose endings are not those of images.
        written: folders and figures that natstats wrote.
        again: paths that lead to a file that is in `paths` already.
    """

    paths: list[Path] = field(default_factory=list)
    other: list[Path] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """What was left out, in words."""
        said = []
        if self.written:
            n = len(self.written)
            what = "folder or figure" if n == 1 else "folders and figures"
            were = "was" if n == 1 else "were"
            said.append(f"{n} {what} that natstats wrote {were} left out: {_some(self.written)}")
        if self.again:
            n = len(self.again)
            said.append(
                f"{n} {'path leads' if n == 1 else 'paths lead'} to a file or folder that is there "
                f"already, which counts once: {_some(self.again)}"
            )
        if self.other:
            said.append(left_out_note([path.name for path in self.other]))
        return tuple(said)

    def ready(self, base: Path) -> Found:
        """The same object, sorted, with `written` and `again` relative to `base`."""
        self.paths.sort()
        self.other.sort()
        for paths in (self.written, self.again):
            paths[:] = sorted(p.relative_to(base) if p.is_relative_to(base) else p for p in paths)
        return self


def left_out_note(names: Iterable[str]) -> str:
    """The note that files were left out for their endings.

    >>> left_out_note(["b.heic", "a.heic", "c"])
    '3 files were left out, as their endings are not those of images: .heic (2), none (1)'
    """
    counts: dict[str, int] = {}
    for name in names:
        ending = os.path.splitext(name)[1].lower() or "none"
        counts[ending] = counts.get(ending, 0) + 1
    n = sum(counts.values())
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{printable(ending)} ({count})" for ending, count in most[:8])
    more = ", and others" if len(most) > 8 else ""
    if n == 1:
        return f"1 file was left out, as its ending is not that of an image: {listed}"
    return f"{n} files were left out, as their endings are not those of images: {listed}{more}"


def images_below(folder: Path) -> Found:
    """Every image below `folder`, each file once.

    Links are followed, but never in a circle, and a file that can be reached without a link counts
    under that path. Names that begin with a dot are skipped. A link that leads nowhere and a folder
    that cannot be listed count as images, so that they are reported as unreadable later.

    Raises:
        UsageError: the folder is not there, or holds no image.
    """
    if not os.path.isdir(folder):
        raise UsageError(f"images: expected a folder of images; got {printable(folder)!r}")
    found = Found()
    _walk(folder, found)
    found.ready(folder)
    if not found.paths:
        raise UsageError(
            f"images: expected at least one image; got none below {printable(folder)!r}"
            f"{_because(found)}"
        )
    return found


def images_matching(pattern: str, base: Path) -> Found:
    """The images that a pattern such as ``photos/**/*.png`` matches, each file once.

    Args:
        pattern: path with wildcards, ``**`` for any folders.
        base: the folder that the pattern starts from, which may be one that natstats wrote.

    Raises:
        UsageError: no image matches.
    """
    found, reached = Found(), _Reached()
    is_ours = functools.cache(_is_ours)
    names = paths_matching(pattern)
    # Sorted, and links behind what they lead to, so that the same path counts every time.
    for path in sorted(names, key=lambda one: (_is_link(one, base), one)):
        if os.path.isdir(path):
            continue
        written = next((up for up in _between(path, base) if is_ours(up)), None)
        if written is not None:
            if written not in found.written:
                found.written.append(written)
        elif not has_image_name(path.name):
            if not is_companion(path.name):
                found.other.append(path)
        elif _is_figure(path):
            found.written.append(path)
        else:
            (found.again if reached.before(path) else found.paths).append(path)
    found.ready(base)
    if not found.paths:
        raise UsageError(
            f"images: expected at least one image; nothing matches {printable(pattern)!r}"
            f"{_because(found)}"
        )
    return found


class _Reached:
    """Files that were reached, known by their real paths."""

    def __init__(self) -> None:
        self._real: set[str] = set()

    def before(self, path: Path, real: str | None = None) -> bool:
        """Whether this file was reached before; from now on it counts as reached."""
        if real is None:
            real = os.path.realpath(path)
            if not os.path.exists(real):  # a link that leads nowhere, or round: will be unreadable
                return False
        met = real in self._real
        self._real.add(real)
        return met


def _walk(top: Path, found: Found) -> None:
    reached = _Reached()
    linked = []
    for place, real, entries in _folders(top, found.again, into_runs=False):
        if entries is None:
            found.paths.append(place)
            continue
        if _is_ours(place):
            found.written.append(place)
            continue
        for path in entries:
            if not has_image_name(path.name):
                if not is_companion(path.name):
                    found.other.append(path)
            elif _is_figure(path):
                found.written.append(path)
            elif os.path.islink(path):
                linked.append(path)
            else:
                reached.before(path, os.path.join(real, path.name))
                found.paths.append(path)
    for path in linked:
        (found.again if reached.before(path) else found.paths).append(path)


def _folders(
    top: Path, again: list[Path], into_runs: bool
) -> Iterator[tuple[Path, str, list[Path] | None]]:
    """A folder and those below it: path, real path, and files, None where they cannot be listed.

    Each comes once, by a path without links where there is one, so that no link decides what a file
    is called. Links to folders that were reached before are added to `again`.
    """
    folders: list[Path] = [top]
    links: list[Path] = []
    seen: set[str] = set()
    while folders or links:
        is_link = not folders
        place = folders.pop() if folders else links.pop(0)
        real = os.path.realpath(place)
        if real in seen:
            if is_link:
                again.append(place)
            continue
        seen.add(real)
        try:
            entries = [path for path in sorted(place.iterdir()) if not path.name.startswith(".")]
        except OSError:
            yield place, real, None
            continue
        below = [path for path in entries if os.path.isdir(path)]
        others = set(below)
        yield place, real, [path for path in entries if path not in others]
        if into_runs or not _is_ours(place):
            for path in below:
                (links if os.path.islink(path) else folders).append(path)


def paths_matching(pattern: str) -> Iterator[Path]:
    """What a pattern matches, in no order, each file by one path.

    ``**`` stands for folders at any depth, except hidden ones. Python's glob would not come to an
    end where links form a circle.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        yield from (Path(name) for name in glob.glob(pattern))
        return
    place = parts.index("**")
    tops = glob.glob(str(Path(*parts[:place]))) if place else ["."]
    for top in map(Path, tops):
        for _, _, entries in _folders(top, [], into_runs=True) if os.path.isdir(top) else ():
            for path in entries or ():
                if _matches(path.relative_to(top).parts, parts[place:]):
                    yield path


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or (bool(path) and _matches(path[1:], pattern))
    if not path or not fnmatch.fnmatchcase(path[0], pattern[0]):
        return False
    return _matches(path[1:], pattern[1:])


def _is_figure(path: Path) -> bool:
    """Whether a picture is a saved plot: drawn by matplotlib, with the same as SVG beside it."""
    if path.suffix != ".png" or not os.path.isfile(path.with_suffix(".svg")):
        return False
    try:
        with open_regular(path) as file:
            return b"Matplotlib" in file.read(512)
    except OSError:
        return False


def _is_ours(folder: Path) -> bool:
    return any(os.path.isfile(folder / name) for name in RECORDS)


def _between(path: Path, base: Path) -> Iterator[Path]:
    """Folders from below `base` down to that of `path`."""
    for folder in reversed(path.parents):
        if folder != base and folder.is_relative_to(base):
            yield folder


def _is_link(path: Path, base: Path) -> bool:
    return any(os.path.islink(one) for one in (*_between(path, base), path))


def _because(found: Found) -> str:
    notes = found.notes()
    return f" ({'; '.join(notes)})" if notes else ""


def _some(paths: list[Path]) -> str:
    listed = ", ".join(printable(path) for path in paths[:_NAMED])
    return listed + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")

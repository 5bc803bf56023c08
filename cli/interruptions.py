"""What an interrupted training leaves behind, in words; not a subcommand."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from natstats.errors import NatstatsError

__all__ = ["interruptions"]


class _InterruptedError(NatstatsError):
    """Ctrl-C in a training: the code of an interruption, and word of what was kept."""

    exit_code = 130


@contextlib.contextmanager
def interruptions(out: Path, folders: Sequence[Path], overwrite: bool) -> Iterator[None]:
    """Turn an interruption into a sentence on what is kept and how to go on.

    Args:
        out: as it was given, or chosen.
        folders: of the trainings, at or below `out`.
        overwrite: whether what was there is replaced.
    """
    from natstats.distill.run_folders import RECORD, STATE

    names = (RECORD, STATE)
    before = {folder / name: _mark(folder / name) for folder in folders for name in names}

    def is_own(file: Path) -> bool:
        mark = _mark(file)
        return mark is not None and mark != before[file]

    try:
        yield
    except KeyboardInterrupt:
        was_there = [folder for folder in folders if any(before[folder / n] for n in names)]
        finished = [folder for folder in folders if is_own(folder / RECORD)]
        if not overwrite:  # what was finished before was looked at and taken
            finished += [folder for folder in was_there if before[folder / RECORD]]
        cut = [f for f in folders if f not in finished and is_own(f / STATE)]
        left = [folder for folder in was_there if folder not in (*finished, *cut)]
        if not (finished or cut or left):
            raise
        kept = _what_is_kept(out, finished, cut, left, overwrite)
        raise _InterruptedError(f"interrupted; {kept}") from None


def _mark(file: Path) -> tuple[int, int] | None:
    """What tells a file from one that was there before; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _what_is_kept(
    out: Path,
    finished: Sequence[Path],
    cut: Sequence[Path],
    left: Sequence[Path],
    overwrite: bool,
) -> str:
    if finished == [out]:
        return f"the training is finished, and {out} holds its run"
    old = ", ".join(str(folder) for folder in left)
    if not (finished or cut):
        return f"nothing new was kept, and {old} {_hold(left)} before"
    parts = [f"{folder} keeps where the training stands" for folder in cut]
    if finished:
        kept = ", ".join(sorted(folder.name for folder in finished))
        parts.insert(0, f"{out} keeps what is finished ({kept})")
    text = (
        f"{' and '.join(parts)}, and the same command, with --out {out} and without --overwrite, "
        "goes on from there"
    )
    if left and overwrite:
        return f"{text} when {old}, which {_hold(left)} before, {_is(left)} moved away"
    return text


def _hold(folders: Sequence[Path]) -> str:
    return "holds what it held" if len(folders) == 1 else "hold what they held"


def _is(folders: Sequence[Path]) -> str:
    return "is" if len(folders) == 1 else "are"

"""Parquet files on disk: finding them, and checking that each is whole before any is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from natstats.errors import UsageError
from natstats.files.paths import open_regular
from natstats.images.folder_walk import paths_matching
from natstats.images.image_sets import reason_of
from natstats.text import few, printable

__all__ = ["check_parquet", "parquet_files"]

_SUFFIX = ".parquet"


def parquet_files(place: str) -> list[Path]:
    """The parquet files that a folder holds, at any depth, or that a name or a pattern stands for.

    Args:
        place: a path.

    Returns:
        Their paths, sorted; an empty list where there are none.
    """
    path = Path(place)
    if path.exists() and not path.is_dir():
        return [path] if path.suffix == _SUFFIX else []
    pattern = f"{glob.escape(place)}/**/*{_SUFFIX}" if path.is_dir() else place
    if not pattern.endswith(_SUFFIX):
        return []
    # A folder may have such a name, with the files in it.
    return sorted(one for one in paths_matching(pattern) if not os.path.isdir(one))


def check_parquet(paths: Sequence[Path], description: str) -> None:
    """Raise unless each file ends with its metadata, which a file that was cut short lacks.

    Args:
        paths: paths of the files.
        description: name of the data set, for an error.

    Raises:
        UsageError: some are not whole; the error names the first.
    """
    if not paths:
        return
    damages = {path: _damage(path) for path in paths}
    bad = [f"{printable(path.name)}: {why}" for path, why in damages.items() if why]
    if bad:
        raise UsageError(
            f"images: expected whole parquet files in {description}; {len(bad)} of {len(paths)} "
            f"{'is' if len(bad) == 1 else 'are'} cut or damaged ({few(bad)})"
        )


def _damage(path: Path) -> str:
    """Why a file is not whole; empty where it is."""
    import pyarrow.parquet

    try:
        with open_regular(path) as file:
            pyarrow.parquet.read_metadata(file)
    except Exception as error:  # whatever a damaged file leads the library to
        return reason_of(error)[:160]
    return ""

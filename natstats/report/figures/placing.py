"""Put figures into a folder that may hold other files: all or none, never over foreign files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from natstats.errors import UsageError
from natstats.files.folders import move_in, new_folder
from natstats.files.ownership import names_of
from natstats.files.paths import open_regular

__all__ = ["add_figures"]

_NAMES = (
    "law", "specifications", "control", "spectra", "spread", "sensitivity", "compare", "exponents",
    "slopes", "account", "account_totals", "kernels", "kernel_exponents",
)  # fmt: skip
"""Names that figures have had in any version."""


_LARGEST = 1 << 24
"""Most bytes of a PDF that are searched."""


@contextlib.contextmanager
def add_figures(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a folder to draw into; its files go into `out` when the context closes without error.

    Args:
        out: where they go; made when it is not there. What else is there stays.
        overwrite: replace figures of the same names that natstats has drawn.

    Raises:
        UsageError: a file of the same name is there, and `overwrite` is not set or natstats did not
            draw it.
        NatstatsError: they cannot be written.
    """
    with new_folder(out) as folder:
        yield folder
        names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
        there = [name for name in names if (out / name).exists() or (out / name).is_symlink()]
        if there and not overwrite:
            raise UsageError(
                f"out: expected a place without figures of these names; {out} holds "
                f"{names_of([str(name) for name in there])}, which are kept (--overwrite replaces "
                "figures)"
            )
        others = [str(name) for name in there if not _is_drawn(out / name)]
        if others:
            raise UsageError(
                f"out: expected figures of natstats to overwrite; {out} holds {names_of(others)}, "
                "which natstats did not draw, and is kept"
            )
        move_in(folder, out)


def _is_drawn(path: Path) -> bool:
    """Whether a file has the name of one of our figures and says that matplotlib drew it."""
    if path.stem not in _NAMES or path.is_symlink():
        return False
    try:
        with open_regular(path) as file:
            # A PDF says so at its end.
            most = _LARGEST if path.suffix == ".pdf" else 4096
            return b"Matplotlib v" in file.read(most)
    except OSError:
        return False

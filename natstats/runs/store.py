"""The run directory: what it holds, and how it is written and read.

Every run has ``run.json`` and ``spectra.npz``, which are written and read here. The tables and
figures beside them are made by :meth:`natstats.Run.save`. How folders are put in place:
:mod:`natstats.files.folders`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from natstats.errors import NatstatsError, UsageError
from natstats.files.folders import add_files, check_target, free_path, restore, write_directory
from natstats.files.json_files import read_json, to_json
from natstats.files.ownership import KINDS, is_reserved, is_unfinished_series, what_is
from natstats.files.paths import member, open_regular
from natstats.runs.run_schema import ARRAYS, check_format, check_record, read_spectra
from natstats.spectra.records import LayerSpectrum, SkippedLayer
from natstats.text import few, natural

__all__ = [
    "FORMAT",
    "SERIES",
    "add_files",
    "check_target",
    "free_path",
    "is_series",
    "is_unfinished_series",
    "read_run",
    "restore",
    "to_json",
    "write_directory",
    "write_run",
]

FORMAT = 3
"""Number of the run format; a run with a larger one was written by a newer natstats.

2 added the order and the receptive field of a layer and the normalised power: not known in runs of
format 1. 3 added the layout of a layer, which was NCHW before.
"""

SERIES = KINDS["series"].record
"""What makes a directory of runs a finished series."""

_RUN, _SPECTRA = KINDS["run"].record, "spectra.npz"


def is_series(path: Path) -> bool:
    """Whether a path is a series, finished or not, and so not a run."""
    restore(path)
    return os.path.lexists(path / SERIES) or is_unfinished_series(path)


def write_run(
    folder: Path,
    info: Mapping[str, Any],
    spectra: Sequence[LayerSpectrum],
    skipped: Sequence[SkippedLayer],
) -> None:
    """Write ``run.json`` and ``spectra.npz`` into `folder`."""
    arrays: dict[str, Any] = {}
    layers = []
    for place, measured in enumerate(spectra):
        spectrum = measured.spectrum
        layers.append(
            {**asdict(measured.layer), "edges": spectrum.edges, "n_nonfinite": spectrum.n_nonfinite}
        )
        for name in ARRAYS:
            arrays[f"{place:04d}/{name}"] = getattr(spectrum, name)
    record = {
        "format": FORMAT,
        **info,
        "layers": layers,
        "skipped": [asdict(layer) for layer in skipped],
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    (folder / _SPECTRA).write_bytes(buffer.getvalue())
    (folder / _RUN).write_text(to_json(record), encoding="utf-8")


def read_run(
    path: Path, name: str = ""
) -> tuple[dict[str, Any], list[LayerSpectrum], list[SkippedLayer]]:
    """Read what :func:`write_run` wrote: the facts, the spectra, the skipped layers.

    Args:
        path: the directory.
        name: name of a part of a run, below its directory, for errors.

    Raises:
        UsageError: `path` is not a run.
        NatstatsError: the run is damaged, or was written by a newer natstats.
    """
    restore(path)
    stem = f"{name}/" if name else ""
    if not os.path.lexists(path / _RUN):
        if (path / "distill.json").is_file():
            raise UsageError(
                f"run: expected a run of natstats measure; {path} is one of natstats distill, "
                "which natstats table reads"
            )
        if is_reserved(path):
            raise UsageError(
                f"run: expected a finished run; {path} keeps a measurement that is not finished "
                "(the command that began it goes on from there)"
            )
        inside = [one.parent.name for one in path.glob(f"[!.]*/{_RUN}")]
        named = f", but runs in it: {few(sorted(inside, key=natural))}" if inside else ""
        raise UsageError(f"run: expected a run directory; {what_is(path, _RUN)}{named}")
    file = f"{stem}{_RUN}"
    try:
        info = read_json(member(path, _RUN, file))
        check_format(info, FORMAT, file)
        info = check_record(info, file)
        file = f"{stem}{_SPECTRA}"
        with open_regular(member(path, _SPECTRA, file)) as arrays:
            spectra, skipped = read_spectra(arrays, info, file)
    except OSError as error:
        raise NatstatsError(
            f"run: expected a whole run in {path}; {file}: {error.strerror or error}"
        ) from error
    except ValueError as error:
        raise NatstatsError(f"run: expected a whole run in {path}; {file}: {error}") from error
    except NatstatsError as error:
        raise NatstatsError(f"run: expected a whole run in {path}; {error}") from error
    for own in ("layers", "skipped", "files"):
        info.pop(own, None)
    return info, spectra, skipped

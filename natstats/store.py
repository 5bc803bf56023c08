"""The run directory: what it holds, how it is written whole or not at all, and how it is read.

This module knows files, not what is in them: a run is a set of named byte strings beside
``run.json`` and ``spectra.npz``.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from natstats.errors import NatstatsError, UsageError
from natstats.records import Layer, LayerSpectrum, SkippedLayer, Spectrum

__all__ = [
    "FORMAT",
    "SERIES",
    "add_files",
    "check_target",
    "free_path",
    "is_unfinished_series",
    "read_run",
    "to_json",
    "write_directory",
    "write_run",
]

FORMAT = 3
"""Number of the run format; a run with a larger one was written by a newer natstats.

2 added the order and the receptive field of a layer and the normalised power: not known in runs of
format 1. 3 added the layout of a layer, which was NCHW before.
"""

SERIES = "series.json"
"""What makes a directory of runs a finished series."""

_SERIES_FILES = ("series.csv", "exponents.csv", "change.csv", "report.html", "figures")
"""What stands beside the runs of a series."""

_CALLED = {"distill": "training"}
"""Kinds of directories whose name is no word for them."""

_ARRAYS = ("frequency", "power", "normalized", "count", "offset", "image_power")


def to_json(value: Any) -> str:
    """JSON text of plain values; NaN and infinities become null, which every reader accepts.

    >>> to_json({"a": float("nan"), "b": (1, 2.5)}).split()
    ['{', '"a":', 'null,', '"b":', '[', '1,', '2.5', ']', '}']
    """

    def plain(item: Any) -> Any:
        if isinstance(item, Mapping):
            return {str(key): plain(inner) for key, inner in item.items()}
        if isinstance(item, list | tuple):
            return [plain(inner) for inner in item]
        if isinstance(item, np.generic):
            return plain(item.item())
        if isinstance(item, float) and not math.isfinite(item):
            return None
        return item

    return json.dumps(plain(value), indent=1, allow_nan=False) + "\n"


def free_path(path: Path) -> Path:
    """Return `path`, or the first of path-2, path-3, ... that does not exist."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.name}-{number}"), number + 1
    return candidate


def check_target(path: Path, overwrite: bool, kind: str = "run") -> None:
    """Raise unless a directory of this kind, known by its ``KIND.json``, may be written to `path`.

    A series is known without that file, too: see :func:`is_unfinished_series`.

    Raises:
        UsageError: something is there and `overwrite` is not set, or it is not of this kind.
    """
    if not path.exists():
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise UsageError(f"out: expected a place that can be written to; {parent} is not")
        return
    called = _CALLED.get(kind, kind)
    if not overwrite:
        raise UsageError(
            f"out: expected a path where nothing is; {path} exists and is kept "
            f"(--overwrite replaces a {called})"
        )
    is_kind = path.is_dir() and (
        (path / f"{kind}.json").is_file()
        or not any(path.iterdir())
        or (kind == "series" and is_unfinished_series(path))
    )
    if not is_kind:
        raise UsageError(
            f"out: expected a {called} to overwrite; {path} is something else and is kept"
        )


def is_unfinished_series(path: Path) -> bool:
    """Whether a folder holds runs of a series, and nothing else, without ``series.json``.

    That is what an interruption leaves: every run is whole, the tables over all runs are missing.
    Runs that were not measured for a series do not count, nor does a folder with other files;
    hidden entries do not matter.
    """
    if not path.is_dir() or (path / SERIES).exists():
        return False
    entries = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    runs = [entry for entry in entries if entry.name not in _SERIES_FILES]
    return bool(runs) and all(map(_is_of_a_series, runs))


def _is_of_a_series(path: Path) -> bool:
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(info, dict) and isinstance(info.get("series"), dict)


@contextlib.contextmanager
def write_directory(path: Path, overwrite: bool = False, kind: str = "run") -> Iterator[Path]:
    """Give a folder to write into that becomes `path` when the context closes without an error.

    Until then nothing is at `path`, or what was there before; after an error the folder is gone.

    Raises:
        UsageError: see :func:`check_target`.
        NatstatsError: the folder cannot be made.
    """
    check_target(path, overwrite, kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise NatstatsError(f"out: expected a folder to write to; {error}") from error
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        _sync(partial)
        check_target(path, overwrite, kind)
        _put_in_place(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def add_files(path: Path, last: str) -> Iterator[Path]:
    """Give a folder whose files go into the directory `path` when the context closes without error.

    Files of the same names are replaced and all others stay. The file `last` is taken away first
    and comes in place when all the others are: where it is there, they belong to it.

    Raises:
        NatstatsError: they cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial.", dir=path))
    except OSError as error:
        raise NatstatsError(f"out: expected a folder to write to; {error}") from error
    try:
        yield partial
        _sync(partial)
        (path / last).unlink(missing_ok=True)
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        for file in sorted(files, key=lambda file: file == partial / last):
            home = path / file.relative_to(partial)
            home.parent.mkdir(parents=True, exist_ok=True)
            file.replace(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())


def _umask() -> int:
    # The only way to read it is to set it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _put_in_place(partial: Path, path: Path) -> None:
    """Rename `partial` to `path`; what was there stays until the new one is in place."""
    old: Path | None = None
    if path.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent)) / "run"
        path.rename(old)
    try:
        partial.rename(path)
    except OSError:
        if old is not None:
            old.rename(path)
        raise
    if old is not None:
        shutil.rmtree(old.parent, ignore_errors=True)
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
        for name in _ARRAYS:
            arrays[f"{place:04d}/{name}"] = getattr(spectrum, name)
    record = {
        "format": FORMAT,
        **info,
        "layers": layers,
        "skipped": [asdict(layer) for layer in skipped],
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    (folder / "spectra.npz").write_bytes(buffer.getvalue())
    (folder / "run.json").write_text(to_json(record), encoding="utf-8")


def read_run(path: Path) -> tuple[dict[str, Any], list[LayerSpectrum], list[SkippedLayer]]:
    """Read what :func:`write_run` wrote: the facts, the spectra, the skipped layers.

    Raises:
        UsageError: `path` is not a run.
        NatstatsError: the run is damaged, or was written by a newer natstats.
    """
    if not (path / "run.json").is_file():
        if (path / "distill.json").is_file():
            raise UsageError(
                f"run: expected a run of natstats measure; {path} is one of natstats distill, "
                "which natstats table reads"
            )
        raise UsageError(f"run: expected a run directory; {path} holds no run.json")
    try:
        info = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if not isinstance(info, dict) or not isinstance(info.get("format"), int):
            raise NatstatsError(f"run: expected a run with a format number; {path} has none")
        if info["format"] > FORMAT:
            raise NatstatsError(
                f"run: expected format {FORMAT} or older; {path} has format {info['format']} and "
                "was written by a newer natstats"
            )
        with (
            (path / "spectra.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            spectra = [
                _layer_spectrum(dict(layer), place, arrays)
                for place, layer in enumerate(info.pop("layers"))
            ]
        skipped = [SkippedLayer(**layer) for layer in info.pop("skipped")]
    except _DAMAGE as error:
        raise NatstatsError(f"run: expected a whole run in {path}; {error}") from error
    return info, spectra, skipped


_DAMAGE = (
    OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _layer_spectrum(layer: dict[str, Any], place: int, arrays: Any) -> LayerSpectrum:
    edges, n_nonfinite = layer.pop("edges"), layer.pop("n_nonfinite")
    if layer.get("receptive_field") is None:
        layer["receptive_field"] = math.nan  # JSON has no NaN
    record = Layer(**layer)
    read = {name: arrays[key] for name in _ARRAYS if (key := f"{place:04d}/{name}") in arrays}
    # Format 1 had no normalised power, and a fit that asks for it says so.
    read.setdefault("normalized", np.full_like(read["power"], np.nan))
    spectrum = Spectrum(
        height=record.height, width=record.width, edges=edges, n_nonfinite=n_nonfinite, **read
    )
    return LayerSpectrum(record, spectrum)

"""What a run directory must hold: the fields of ``run.json`` and the arrays of ``spectra.npz``.

Everything that reads a run relies on what is checked here, and on nothing else. The arrays are
checked before they are read: a small file can unpack to more than fits into memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from natstats.checks import LARGEST, LONGEST_SIDE, MINIMUM_SIDE, MOST_PIXELS
from natstats.errors import NatstatsError
from natstats.files.array_files import Arrays
from natstats.files.schema import (
    FLAG,
    MAPPING,
    TEXT,
    Field,
    ListOf,
    MappingOf,
    Record,
    Schema,
    or_null,
    real,
    whole,
)
from natstats.numbers import counted
from natstats.spectra.edges import EDGES
from natstats.spectra.frequencies import NYQUIST, extent
from natstats.spectra.records import Layer, LayerSpectrum, SkippedLayer, Spectrum

__all__ = ["ARRAYS", "FACTS", "check_format", "check_record", "read_spectra"]

_MOST_GROUPS = LARGEST["n_groups"]

_COUNT = whole(0, 2**40)
_SIZE = or_null(whole(1, LONGEST_SIDE))
_NAME = or_null(TEXT)


def _optional(**fields: Schema) -> Record:
    """A record whose fields may all be missing."""
    return Record(fields, optional=tuple(fields))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


_NORMALISATION = or_null(Record({"mean": ListOf(real()), "std": ListOf(real())}))

_LAYER = Record(
    {
        "name": TEXT,
        "call": _COUNT,
        "kind": TEXT,
        "depth": whole(0, 10**9),
        "channels": whole(1, 10**12),
        "height": whole(MINIMUM_SIDE, LONGEST_SIDE),
        "width": whole(1, LONGEST_SIDE),
        "stride": or_null(real(above=0)),
        "order": or_null(whole(0, 10**9)),
        "receptive_field": or_null(real(0, 1e12)),
        "layout": TEXT,
        "span": or_null(real(above=0)),
        "is_output": or_null(FLAG),
        "edges": Field(f"one of {', '.join(EDGES)}", lambda v: isinstance(v, str) and v in EDGES),
        "n_nonfinite": _COUNT,
    },
    optional=("order", "receptive_field", "layout", "span", "is_output"),
)

FACTS: Mapping[str, Schema] = {
    "name": TEXT,
    "created": TEXT,
    "command": Field("a text, or a list of them", lambda v: _is_text(v) or _is_texts(v)),
    "refit": Field("true, false or a text", lambda v: isinstance(v, bool | str)),
    "warnings": ListOf(TEXT),
    "versions": MappingOf(_NAME),
    "timing": _optional(seconds=real(), images_per_second=real()),
    "device": _optional(type=_NAME, name=_NAME),
    "model": or_null(_optional(name=_NAME, weights=_NAME, digest=_NAME, trained=or_null(FLAG))),
    "images": _optional(
        source=_NAME,
        n_images=or_null(_COUNT),
        digest=_NAME,
        contents=_NAME,
        size=_SIZE,
        resize=_SIZE,
        interpolation=_NAME,
        n_enlarged=or_null(_COUNT),
        frames=or_null(_COUNT),
        normalisation=_NORMALISATION,
        n_unreadable=or_null(_COUNT),
        unreadable=or_null(ListOf(TEXT)),
    ),
    "options": _optional(
        layers=Field(
            "a text, a list of them, or null", lambda v: v is None or _is_text(v) or _is_texts(v)
        ),
        layouts=or_null(MappingOf(TEXT)),
        temporal=or_null(FLAG),
        edges=_NAME,
        n_groups=or_null(_COUNT),
        seed=or_null(whole()),
        control=_NAME,
        control_seeds=or_null(_COUNT),
        amp=or_null(FLAG),
        normalisation=_NORMALISATION,
    ),
    "fit": MAPPING,
    "series": _optional(checkpoint=TEXT, file=TEXT, digest=TEXT, asked=MAPPING),
    "seed": whole(),
}
"""Facts about a measurement that are read; all may be missing, and others are left alone."""

_RUN = Record(
    {
        **FACTS,
        "layers": ListOf(_LAYER),
        "skipped": ListOf(Record({"name": TEXT, "kind": TEXT, "reason": TEXT})),
    },
    optional=tuple(FACTS),
)


def check_format(record: Any, newest: int, file: str) -> int:
    """The format of a record.

    Args:
        record: what the file holds.
        newest: format that is known.
        file: its name.

    Raises:
        NatstatsError: there is no format number, or a newer natstats wrote the file.
    """
    if not isinstance(record, dict):
        Record({}).check(record, file)
    if "format" not in record:
        raise NatstatsError(f"{file}, format: expected a format number; it is missing")
    value = record["format"]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        Field("a format number of at least 1", lambda _: False).check(value, f"{file}, format")
    if value > newest:
        raise NatstatsError(
            f"{file}, format: expected {newest} or older; got {value}, which was written by a "
            "newer natstats"
        )
    return int(value)


def check_record(record: dict[str, Any], file: str = "run.json") -> dict[str, Any]:
    """The record of a run, without facts that are null.

    Raises:
        NatstatsError: a field is not as expected; file and field are named.
    """
    # Null means not known, except for the model: there it means images measured without one.
    known = {k: v for k, v in record.items() if v is not None or k not in FACTS or k == "model"}
    _RUN.check(known, f"{file}, ")
    if not known["layers"] and "seed" not in known:
        raise NatstatsError(f"{file}, layers: expected a layer or more; got none")
    for place, layer in enumerate(known["layers"]):
        height, width = layer["height"], layer["width"]
        where = f"{file}, layers[{place}]"
        if 1 < width < MINIMUM_SIDE:
            raise NatstatsError(
                f"{where}.width: expected 1, or at least {MINIMUM_SIDE}; got {width}"
            )
        if height * width > MOST_PIXELS:
            raise NatstatsError(
                f"{where}.height: expected a map of at most {MOST_PIXELS} pixels; got {height} x "
                f"{width}"
            )
    return known


ARRAYS: Mapping[str, np.dtype[Any]] = {
    "frequency": np.dtype(np.float64),
    "power": np.dtype(np.float64),
    "normalized": np.dtype(np.float64),
    "count": np.dtype(np.int64),
    "offset": np.dtype(np.float64),
    "image_power": np.dtype(np.float32),
}
"""Name and type of the arrays of a layer, see :class:`natstats.spectra.records.Spectrum`."""


def read_spectra(
    file: BinaryIO, record: Mapping[str, Any], name: str = "spectra.npz"
) -> tuple[list[LayerSpectrum], list[SkippedLayer]]:
    """Layers with their spectra, and skipped layers.

    Args:
        file: the file of the arrays.
        record: the record of the run, as :func:`check_record` gave it.
        name: name of the file.

    Raises:
        NatstatsError: an array is missing, damaged or not as the layer says; it is named.
    """
    arrays = Arrays(file, name)
    spectra = []
    n_groups: int | None = None
    for place, layer in enumerate(record["layers"]):
        read = _layer_arrays(arrays, place, layer, n_groups, record["format"])
        n_groups = len(read["count"])
        own = {one.name: layer[one.name] for one in fields(Layer) if one.name in layer}
        for known in ("stride", "receptive_field", "span"):
            if own.get(known) is None:
                own[known] = math.nan  # JSON has no NaN
        spectrum = Spectrum(
            height=layer["height"],
            width=layer["width"],
            edges=layer["edges"],
            n_nonfinite=layer["n_nonfinite"],
            **read,
        )
        spectra.append(LayerSpectrum(Layer(**own), spectrum))
    skipped = [SkippedLayer(one["name"], one["kind"], one["reason"]) for one in record["skipped"]]
    return spectra, skipped


def _layer_arrays(
    arrays: Arrays, place: int, layer: Mapping[str, Any], n_groups: int | None, version: int
) -> dict[str, NDArray[Any]]:
    n_rings = extent(layer["height"], layer["width"]) // 2
    count = arrays.read(f"{place:04d}/count", ARRAYS["count"], (_MOST_GROUPS + 1,), least=True)
    if n_groups is not None and len(count) != n_groups:
        raise arrays.error(
            f"{place:04d}/count", f"{counted(n_groups, 'group')} as in the layer before", len(count)
        )
    if not 1 <= len(count) <= _MOST_GROUPS:
        raise arrays.error(f"{place:04d}/count", f"1 to {_MOST_GROUPS} groups", len(count))
    shapes = {
        "frequency": (n_rings,),
        "power": (len(count), n_rings),
        "normalized": (len(count), n_rings),
        "offset": (len(count),),
        "image_power": (-1, n_rings),
    }
    read = {"count": count}
    for name, shape in shapes.items():
        key = f"{place:04d}/{name}"
        # Format 1 had no normalised power; a fit that asks for it raises an error.
        if name == "normalized" and version == 1 and key not in arrays:
            read[name] = np.full(shape, np.nan)
            continue
        read[name] = arrays.read(key, ARRAYS[name], shape)
    for name, expected in _problems(read):
        raise arrays.error(f"{place:04d}/{name}", expected, _odd(read[name]))
    return read


def _problems(read: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, str]]:
    """Name of every array with impossible values, and what they should be."""
    frequency = read["frequency"]
    rises = bool(np.all(np.diff(frequency) > 0)) and bool(np.isfinite(frequency).all())
    if not (rises and frequency[0] > 0 and frequency[-1] <= NYQUIST + 1e-6):
        yield "frequency", f"numbers that rise from above 0 to at most {NYQUIST:g}"
    if not np.all((read["count"] >= 0) & (read["count"] < 2**40)):
        yield "count", f"whole numbers from 0 to {2**40}"
    for name in ("power", "offset", "normalized"):
        values = read[name]
        if name == "normalized" and np.isnan(values).all():
            continue  # a run of format 1 that was written again
        with np.errstate(over="ignore"):
            is_good = bool(np.all(values >= 0)) and bool(np.isfinite(values.sum()))
        if not is_good:
            yield name, "finite numbers of at least 0"
    images = read["image_power"]
    if np.any(images < 0) or np.any(np.isinf(images)):
        yield "image_power", "numbers of at least 0, or NaN"


def _odd(values: NDArray[Any]) -> str:
    """A value that is not as expected, for the message."""
    if not values.size:
        return "none"
    for odd in (np.isnan(values), np.isinf(values), values < 0):
        if odd.any():
            return str(values[odd][0])
    return f"{values.min():g} to {values.max():g}"

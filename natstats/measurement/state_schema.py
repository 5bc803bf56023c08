"""What the state of a measurement must look like: all that is taken up again is checked here.

States are read from disk, where others may have changed them, or made them up. The code that adds
them relies on what is checked here, and memory is taken only for what is in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from natstats.checks import LARGEST, LONGEST_SIDE, MINIMUM_SIDE, MOST_PIXELS
from natstats.errors import NatstatsError
from natstats.files.schema import (
    FLAG,
    TEXT,
    Field,
    ListOf,
    MappingOf,
    Record,
    or_null,
    real,
    whole,
)
from natstats.images.stream_numbers import STRIDE
from natstats.images.stream_shards import MOST_SHARDS
from natstats.measurement.account_schema import ACCOUNT_FUNCTIONS, ACCOUNT_SUMS
from natstats.runs.run_schema import FACTS
from natstats.spectra.accumulator import state_shapes
from natstats.spectra.edges import EDGES

__all__ = ["ABOUT", "PASS_NAME", "check_state"]

PASS_NAME = re.compile(r"images|trained|shuffled|seed-\d{1,10}")
"""Names of the passes of a measurement."""

_NUMBER, _COUNT = 2**62, whole(0, 2**40)
_SIDE = or_null(whole(1, LONGEST_SIDE))


def _array(expected: str, dtype: str, is_good: Callable[[Any], Any]) -> Field:
    """An array of this type, with values or a shape as they must be."""

    def check(value: Any) -> bool:
        is_array = isinstance(value, np.ndarray) and value.dtype == np.dtype(dtype)
        return is_array and bool(is_good(value))

    return Field(f"an array of {np.dtype(dtype)}, {expected}", check)


def _is_power(values: Any) -> bool:
    return values.ndim == 2 and bool(np.isfinite(values).all() and (values >= 0).all())


def _is_kept_power(values: Any) -> bool:
    # An image that has no spectrum, or is not there, is NaN.
    return values.ndim == 2 and not bool((values < 0).any())


def _is_rising(values: Any) -> bool:
    if values.ndim != 1:
        return False
    in_range = not len(values) or 0 <= values.min() <= values.max() < _NUMBER
    return in_range and bool((values[1:] > values[:-1]).all())


def _is_float(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_REAL = Field("a number, or NaN", lambda v: _is_float(v) and (v != v or abs(v) < 1e300))


def _is_plain(value: Any) -> bool:
    todo = [value]  # no recursion: values may be nested deeper than Python allows
    while todo:
        one = todo.pop()
        if isinstance(one, dict | list):
            todo += one.values() if isinstance(one, dict) else one
        elif not (one is None or isinstance(one, str | int | float)):
            return False
    return True


_PLAIN = Field("plain values", _is_plain)
_PAIR = Field(
    "a pair of numbers",
    lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_float, v)),
)
_INTERVALS = Field(
    "pairs of whole numbers that rise",
    lambda v: isinstance(v, list) and all(map(_is_interval, v)),
)


def _is_interval(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(one) is int for one in value)
        and 0 <= value[0] <= value[1] <= _NUMBER
    )


_NOTED = Field(
    "pairs of a number and a text",
    lambda v: isinstance(v, list) and all(_is_note(one) for one in v),
)


def _is_note(value: Any) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2
    return is_pair and type(value[0]) is int and value[0] >= 0 and isinstance(value[1], str)


_ENDED = Field(
    "for each shard its place, how many images it has, and names of others",
    lambda v: isinstance(v, list) and all(map(_is_end, v)),
)


def _is_end(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[2], list)):
        return False
    shard, n_images, others = value
    is_counted = type(shard) is int and type(n_images) is int
    return (
        is_counted
        and 0 <= shard < MOST_SHARDS
        and 0 <= n_images < STRIDE
        and all(isinstance(name, str) for name in others)
    )


_SCALING = or_null(Record({"mean": ListOf(real(), 1), "std": ListOf(real(), 1)}))

_FACTS = Record(
    {
        "name": TEXT,
        "model": FACTS["model"],
        "options": Record(
            {
                "edges": Field("a kind of edges", lambda v: isinstance(v, str) and v in EDGES),
                "n_groups": whole(1, LARGEST["n_groups"]),
                "temporal": FLAG,
            }
        ),
        "device": FACTS["device"],
        "normalisation": _SCALING,
        "expected": _SCALING,
        "notes": ListOf(TEXT),
        "found": ListOf(TEXT),
        "assumed": ListOf(TEXT),
        "example": whole(0, _NUMBER),
    },
    optional=("model", "normalisation", "expected", "notes", "found", "assumed", "example"),
)

_READING = Record(
    {
        "facts": Record(
            {
                "description": TEXT,
                "n_images": or_null(whole(0, _NUMBER)),
                "listing": TEXT,
                "digest": TEXT,
                "notes": ListOf(TEXT),
                "is_photographs": FLAG,
                "size": _SIDE,
                "resize": _SIDE,
                "interpolation": or_null(TEXT),
                "frames": or_null(_COUNT),
                "n_shards": or_null(whole(1, MOST_SHARDS)),
            },
            optional=("n_shards",),
        ),
        "n_read": _COUNT,
        "n_enlarged": _COUNT,
        "range": or_null(_PAIR),
        "left_out": _NOTED,
        "small": _NOTED,
        "numbers": _array("numbers of images from 0 that rise", "int64", _is_rising),
        "contents": _array("32 for each image", "uint8", lambda v: v.shape[1:] == (32,)),
        "ended": _ENDED,
    },
    # Before 0.11.0 there were no streams.
    optional=("ended",),
)

_SUMS = Record(
    {
        "height": whole(MINIMUM_SIDE, LONGEST_SIDE),
        "width": whole(1, LONGEST_SIDE),
        "edges": Field("a kind of edges", lambda v: isinstance(v, str) and v in EDGES),
        "n_groups": whole(1, LARGEST["n_groups"]),
        "next_index": whole(0, _NUMBER),
        "numbers": _INTERVALS,
        "sums": _array("finite numbers from 0", "float64", _is_power),
        "image_power": _array("numbers from 0, or NaN", "float32", _is_kept_power),
    },
    optional=("numbers",),
)

_INPUTS = Record(
    {"sums": MappingOf(_SUMS), "channels": MappingOf(whole(1, 10**12)), "frames": FLAG}
)

_SIZE = Record(
    {
        "accumulator": _SUMS,
        "stride": _REAL,
        "channels": whole(1, 10**12),
        "layout": TEXT,
        "images": ListOf(whole(1, _NUMBER), 0, 2),
    }
)


def _is_key(value: Any) -> bool:
    kinds = [type(one) for one in value] if isinstance(value, list) else []
    return kinds == [str, int, str] and value[1] >= 0


_COLLECTED = Record(
    {
        "sums": ListOf(
            Record(
                {
                    "key": Field("a name, a number and a name", _is_key),
                    "sizes": ListOf(_SIZE),
                    "reasons": MappingOf(_COUNT),
                }
            )
        ),
        "calls": MappingOf(
            Record(
                {
                    "place": whole(0, 10**9),
                    "depth": whole(0, 10**9),
                    "order": or_null(whole(0, 10**9)),
                    "receptive_field": _REAL,
                    "pitch": _REAL,
                    "is_output": or_null(FLAG),
                    "is_by_rule": FLAG,
                }
            )
        ),
        "kinds": MappingOf(TEXT),
        "never_called": MappingOf(TEXT),
        "unknown": ListOf(Record({"name": TEXT, "kind": TEXT, "reason": TEXT})),
        "temporal": FLAG,
    }
)


def _is_look(value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[2], str)):
        return False
    n_images, width, _ = value
    return type(n_images) is int and 0 < n_images < 2**40 and isinstance(width, float)


_STATE = Record(
    {
        "facts": _FACTS,
        "reading": _READING,
        "inputs": _INPUTS,
        "collected": or_null(_COLLECTED),
        "seconds": real(0),
        "smallest": whole(0, LARGEST["batch_size"]),
        "account": or_null(_array("of one axis", "uint8", lambda v: v.ndim == 1)),
        "account_sums": or_null(ACCOUNT_SUMS),
        "is_whole": FLAG,
        "account_functions": or_null(ACCOUNT_FUNCTIONS),
        "look": or_null(Field("images, a width and the name of a layer", _is_look)),
    },
    # Before 0.13.0 neither looks were kept nor accounts added.
    optional=("look", "account_functions"),
)

ABOUT = Record(
    {
        "command": or_null(
            Field(
                "a text, or a list of them",
                lambda v: isinstance(v, str | list) and all(isinstance(one, str) for one in v),
            )
        ),
        "fit": Field("a mapping of plain values", lambda v: isinstance(v, dict) and _is_plain(v)),
        "series": or_null(
            Field("a mapping of plain values", lambda v: isinstance(v, dict) and _is_plain(v))
        ),
        "weights": or_null(TEXT),
        "notes": ListOf(TEXT),
    },
    optional=("command", "fit", "series", "weights", "notes"),
)
"""What is kept beside the sums: what was typed, how to fit, and for which series it is measured."""


def check_state(state: Mapping[str, Any]) -> None:
    """Raise unless a state is that of a pass, whose parts fit one another.

    Args:
        state: as :func:`natstats.files.state_files.read_state` gives it.

    Raises:
        NatstatsError: it is not; what is wrong is named.
    """
    _STATE.check(dict(state), "state, ")
    _PLAIN.check(state["facts"], "state, facts")
    n_groups = state["facts"]["options"]["n_groups"]
    inputs, collected, reading = state["inputs"], state["collected"], state["reading"]
    for name, sums in inputs["sums"].items():
        _check_sums(sums, n_groups, f"state, inputs.sums.{name!r:.80}")
        _expect(name in inputs["channels"], "state, inputs.channels", "those of all sums")
    n_images = reading["facts"]["n_images"]
    numbers = reading["numbers"]
    _expect(len(numbers) == len(reading["contents"]), "state, reading.contents", "one each")
    _expect(reading["n_read"] <= len(numbers), "state, reading.n_read", "at most all images")
    last = max(int(numbers.max()) if len(numbers) else 0, state["facts"].get("example", 0))
    ended = [one[0] for one in reading.get("ended", [])]
    n_shards = reading["facts"].get("n_shards") or 0
    is_each_once = len({*ended}) == len(ended) and max(ended, default=-1) < n_shards
    _expect(is_each_once, "state, reading.ended", f"each of {n_shards} shards at most once")
    if n_images is not None and n_images:
        _expect(last < n_images, "state, reading.numbers", f"numbers below {n_images}")
    if collected is None:
        return
    _expect(
        collected["never_called"].keys() <= collected["kinds"].keys(),
        "state, collected.never_called", "modules with a kind",
    )  # fmt: skip
    for place, own in enumerate(collected["sums"]):
        where = f"state, collected.sums[{place}]"
        _expect(own["key"][0] in collected["kinds"], where, "a module with a kind")
        for size in own["sizes"]:
            _check_sums(size["accumulator"], n_groups, where)


def _check_sums(sums: Mapping[str, Any], n_groups: int, where: str) -> None:
    height, width = sums["height"], sums["width"]
    is_map = (width == 1 or width >= MINIMUM_SIDE) and height * width <= MOST_PIXELS
    _expect(is_map, where, f"a map of at most {MOST_PIXELS} pixels")
    _expect(sums["n_groups"] == n_groups, where, f"{n_groups} groups")
    for name, shape in state_shapes(height, width, n_groups).items():
        got = sums[name].shape
        _expect(got == shape, f"{where}, {name}", f"shape {shape}, and not {got}")
    counts = sums["sums"][:, -2:]
    _expect(bool((counts < 2**40).all()), f"{where}, sums", "counts of images")


def _expect(is_so: bool, where: str, expected: str) -> None:
    if not is_so:
        raise NatstatsError(f"{where}: expected {expected}")

"""``account.npz``: how a run stores what was measured for the account of its network."""

from __future__ import annotations

import io
import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.checks import MINIMUM_SIDE
from natstats.errors import NatstatsError
from natstats.files.array_files import Arrays
from natstats.files.json_files import to_json
from natstats.files.paths import member, open_regular
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
from natstats.numbers import as_number
from natstats.runs.run_schema import check_format
from natstats.spectra.edges import EDGES
from natstats.spectra.frequencies import extent
from natstats.theory.account_spectra import AccountSpectra, GaussianPart, State, Step

__all__ = [
    "ACCOUNT", "account_from_bytes", "account_in_bytes", "read_account", "write_account",
]  # fmt: skip

ACCOUNT = "account.npz"

FORMAT = 1
"""Number of the format of the file."""

_NUMBERS = np.dtype(np.float32)
"""Type of the sums: seven digits, while only three digits of an exponent mean anything."""

_MOST_STATES = 2**20

_STATE = Record(
    {
        "height": whole(MINIMUM_SIDE, 2**16),
        "width": whole(MINIMUM_SIDE, 2**16),
        "edges": Field(f"one of {', '.join(EDGES)}", lambda v: isinstance(v, str) and v in EDGES),
        "span": real(above=0),
    }
)
_NUMBER = whole(0, _MOST_STATES)
_STEP = Record(
    {
        "name": TEXT,
        "kind": TEXT,
        "operation": TEXT,
        "module": TEXT,
        "layers": ListOf(TEXT),
        "depth": whole(0, 10**9),
        "before": _NUMBER,
        "after": _NUMBER,
        "is_trunk": FLAG,
        "predictions": MappingOf(_NUMBER),
        "kernel_exponent": or_null(real()),
        "shuffled_exponent": or_null(real()),
        "is_gaussian": FLAG,
    }
)
_RECORD = Record(
    {
        "states": ListOf(_STATE),
        "steps": ListOf(_STEP),
        "every": whole(1, 2**20),
        "note": TEXT,
    }
)


def write_account(folder: Path, account: AccountSpectra) -> None:
    """Write ``account.npz`` into the folder of a run."""
    (folder / ACCOUNT).write_bytes(account_in_bytes(account))


def account_in_bytes(account: AccountSpectra) -> bytes:
    """An account as the bytes of ``account.npz``."""
    arrays: dict[str, Any] = {}
    for number, state in enumerate(account.states):
        arrays[f"{number:04d}/power"] = state.power.astype(_NUMBERS)
        arrays[f"{number:04d}/normalized"] = state.normalized.astype(_NUMBERS)
        arrays[f"{number:04d}/count"] = state.count.astype(np.int64)
    steps = []
    for number, step in enumerate(account.steps):
        own = {one.name: getattr(step, one.name) for one in fields(Step)}
        part = own.pop("gaussian")
        own["is_gaussian"] = part is not None
        own["predictions"] = dict(step.predictions)
        steps.append(own)
        if part is not None:
            for name in ("before", "after"):
                # In full precision, as blocks differ only in the last digits.
                arrays[f"gaussian/{number:04d}/{name}"] = getattr(part, name)
            arrays[f"gaussian/{number:04d}/count"] = part.count.astype(np.int64)
    record = {
        "format": FORMAT,
        "states": [
            {name: getattr(state, name) for name in ("height", "width", "edges", "span")}
            for state in account.states
        ],
        "steps": steps,
        "every": account.every,
        "note": account.note,
    }
    arrays["record"] = np.frombuffer(to_json(record).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def account_from_bytes(content: bytes, n_groups: int) -> AccountSpectra:
    """Inverse of :func:`account_in_bytes`.

    Raises:
        NatstatsError: it is damaged; what is wrong is named.
    """
    return _read(Arrays(io.BytesIO(content), ACCOUNT), n_groups, ACCOUNT)


def read_account(folder: Path, n_groups: int, stem: str = "") -> AccountSpectra | None:
    """Read what :func:`write_account` wrote; None for a run without an account.

    Args:
        folder: folder of the run, or of a part of it.
        n_groups: groups of images in the run.
        stem: what stands before the name of the file in errors.

    Raises:
        NatstatsError: the file is damaged; what is wrong is named.
    """
    if not os.path.lexists(folder / ACCOUNT):
        return None
    name = f"{stem}{ACCOUNT}"
    try:
        with open_regular(member(folder, ACCOUNT, name)) as file:
            return _read(Arrays(file, name), n_groups, name)
    except OSError as error:
        raise NatstatsError(
            f"run: expected a whole run in {folder}; {name}: {error.strerror or error}"
        ) from error
    except NatstatsError as error:
        raise NatstatsError(f"run: expected a whole run in {folder}; {error}") from error


def _read(arrays: Arrays, n_groups: int, name: str) -> AccountSpectra:
    raw = arrays.read("record", np.dtype(np.uint8), (-1,))
    try:
        record = json.loads(raw.tobytes().decode())
    except ValueError as error:
        raise NatstatsError(f"{name}, record: expected JSON; {error}") from error
    check_format(record, FORMAT, f"{name}, record")
    _RECORD.check(record, f"{name}, record, ")
    states = tuple(
        _state(arrays, number, own, n_groups) for number, own in enumerate(record["states"])
    )
    steps = tuple(
        _step(arrays, number, own, states, name) for number, own in enumerate(record["steps"])
    )
    return AccountSpectra(states, steps, record["every"], record["note"])


def _state(arrays: Arrays, number: int, own: dict[str, Any], n_groups: int) -> State:
    n_rings = extent(own["height"], own["width"]) // 2
    count = arrays.read(f"{number:04d}/count", np.dtype(np.int64), (n_groups,))
    if not np.all((count >= 0) & (count < 2**40)):
        raise arrays.error(f"{number:04d}/count", "whole numbers from 0", int(count.min()))
    sums = []
    for which in ("power", "normalized"):
        key = f"{number:04d}/{which}"
        values = arrays.read(key, _NUMBERS, (n_groups, n_rings)).astype(np.float64)
        sums.append(_checked(arrays, key, values))
    return State(
        own["height"], own["width"], own["edges"], float(own["span"]), sums[0], sums[1], count
    )


def _checked(arrays: Arrays, key: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    # A predicted power may lie below zero by rounding.
    if not np.all(np.isfinite(values)):
        raise arrays.error(key, "finite numbers", "others")
    return values


def _step(
    arrays: Arrays, number: int, own: dict[str, Any], states: tuple[State, ...], name: str
) -> Step:
    for which in (own["before"], own["after"], *own["predictions"].values()):
        if which >= len(states):
            raise NatstatsError(
                f"{name}, record, steps[{number}]: expected states below {len(states)}; got {which}"
            )
    own = dict(own)
    gaussian = None
    if own.pop("is_gaussian"):
        stem, before = f"gaussian/{number:04d}", states[own["before"]]
        count = arrays.read(f"{stem}/count", np.dtype(np.int64), (2**20,), least=True)
        shape = (len(count) + 1, extent(before.height, before.width) // 2)
        rows = [
            _checked(arrays, f"{stem}/{which}", arrays.read(f"{stem}/{which}", _EXACT, shape))
            for which in ("before", "after")
        ]
        gaussian = GaussianPart(rows[0], rows[1], count)
    for which in ("kernel_exponent", "shuffled_exponent"):
        own[which] = as_number(own[which])
    known = {one.name for one in fields(Step)}
    kept = {key: value for key, value in own.items() if key in known}
    return Step(**{**kept, "layers": tuple(own["layers"]), "gaussian": gaussian})


_EXACT = np.dtype(np.float64)

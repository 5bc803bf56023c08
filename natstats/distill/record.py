"""The fields of ``distill.json``, which describes a training, and how they are checked.

The trainer fills :class:`RunInfo`, the reader checks it, and page, tables and comparison read it.
A field that is not listed here can neither be written nor read.
"""

from __future__ import annotations

import math
import numbers
import types
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypedDict, Union, cast, get_args, get_origin, get_type_hints

from natstats.errors import UsageError
from natstats.text import printable

__all__ = ["RunInfo", "checked", "known"]

_MOST = 2**63

Count = Annotated[int, 0, _MOST]
Share = Annotated[float, 0, 1]
Amount = Annotated[float, 0, math.inf]

_LARGEST = 1e300
"""Larger numbers in JSON are refused: they are close to, or beyond, what a float holds."""

_DEEPEST = 20
"""Most levels of lists and objects in a field that takes any plain value."""


class Versions(TypedDict, total=False):
    """Versions of what the training ran with."""

    natstats: str
    torch: str
    torchvision: str
    numpy: str
    python: str


class Device(TypedDict, total=False):
    """The machine: type of the device, its name, threads of the processor."""

    type: str
    name: str
    threads: Count


class Timing(TypedDict, total=False):
    """Time of the training, s, and images of all epochs divided by it."""

    seconds: Amount
    images_per_second: Amount


class _Named(TypedDict):
    name: str


class NetworkFacts(_Named, total=False):
    """A network: name, arguments of its builder, parameters, where its weights came from."""

    arguments: dict[str, Any]
    n_parameters: Count
    weights: str


class TeacherFacts(NetworkFacts, total=False):
    """A teacher: digest of its weights too, and its accuracy on the images of the evaluation."""

    digest: str
    accuracy: Share | None


class TeacherRun(TypedDict, total=False):
    """The measured run that targets came from; see ``losses.teacher_run.run_facts``."""

    model: str | None
    digest: str | None
    normalisation: dict[str, Any] | None
    spectra: str


class DataFacts(TypedDict, total=False):
    """The images: see :meth:`natstats.distill.training.data.LabelledData.facts`."""

    name: str
    source: str
    digest: str | None
    listing: str | None
    contents: str | None
    classes: list[str]
    n_train: Count
    n_eval: Count
    split: str
    holdout: Share
    seed: Count
    size: Count
    n_unreadable: Count
    unreadable: list[str]


class _Seeded(_Named):
    seed: Count


class AskedNetwork(_Seeded, total=False):
    """A network as it was asked for; see :class:`natstats.networks.network.NetworkSource`."""

    weights: str
    checkpoint: str | None
    checkpoint_key: str | None
    model_args: dict[str, Any]
    takes: str | None
    size: Count | None
    strict: bool


class Asked(TypedDict, total=False):
    """What a repetition must ask for again and what stands nowhere else in the record.

    A network that was given as a module is None here, as nothing can make it again. `folder` is the
    folder that relative paths of images, weights and a measured run start from; None where there
    are no such paths.
    """

    student: AskedNetwork | None
    teacher: AskedNetwork | None
    limit: Count | None
    strict: bool
    taps: list[list[str]]
    teacher_run: str | None
    folder: str | None
    options: dict[str, Any]


class Term(_Named, total=False):
    """A term of what was minimised; two weights are the ends of a ramp."""

    weight: float | list[float]
    reduction: str
    stage: str


class _Pair(TypedDict):
    method: str
    student: str
    teacher: str


class Tap(_Pair, total=False):
    """Layers that were compared; shapes are channels, height, width."""

    student_shape: list[Count]
    teacher_shape: list[Count]


class Costs(TypedDict, total=False):
    """What the training took."""

    ms_per_step: Amount | None
    peak_memory_mib: Amount | None
    memory_of: str
    teacher_passes: Amount
    extra_parameters: Count
    epochs: Count
    epochs_before: Count
    seconds: Amount
    sittings: Count


class _Needed(TypedDict):
    method: str
    seed: Count
    data: DataFacts
    student: NetworkFacts
    accuracy: Share


class RunInfo(_Needed, total=False):
    """All that ``distill.json`` holds.

    Attributes:
        method: the method as it was asked for, such as ``kd+spectral``.
        seed: seed of the training.
        data: the images.
        student: the student, before the training.
        accuracy: share of the images classified correctly right after the last epoch.
        kind: kind of the file, written by :meth:`natstats.distill.results.DistillationRun.write`.
        format: format of the file, likewise.
        created: when the training ended, UTC.
        versions: versions of natstats and of what it runs on.
        timing: how fast it was.
        device: on what machine.
        command: the command line.
        terms: what was minimised.
        arguments: arguments of each part of the method.
        ce_weight: weight of the cross-entropy in the main stage.
        recipe: how the student was trained.
        teacher: the teacher; None without one.
        taps: layers that were compared.
        teacher_run: the measured run that targets came from; None without one.
        identity: all that was asked for, see ``Distillation.identity``.
        asked: what a repetition needs beside the rest, see :class:`Asked`.
        best_accuracy: highest accuracy of all evaluations on all images.
        top5: share with the true class among the five highest; None for five classes or fewer.
        costs: time, memory and passes that it took.
        notes: what a reader must know.
    """

    kind: str
    format: Count
    created: str
    versions: Versions
    timing: Timing
    device: Device
    command: str
    terms: list[Term]
    arguments: dict[str, dict[str, Any]]
    ce_weight: float | None
    recipe: dict[str, Any]
    teacher: TeacherFacts | None
    taps: list[Tap]
    teacher_run: TeacherRun | None
    identity: dict[str, Any]
    asked: Asked
    best_accuracy: Share | None
    top5: Share | None
    costs: Costs
    notes: list[str]


def checked(values: Any, where: str = "info") -> RunInfo:
    """Return the facts of a training if each is a field of :class:`RunInfo` and of its type.

    Args:
        values: the facts.
        where: what holds them, for the error.

    Raises:
        UsageError: a fact is missing, of another type, or unknown; it is named.

    >>> checked({"method": "kd", "seed": "0", "data": {}, "student": {"name": "n"}, "accuracy": 1})
    Traceback (most recent call last):
    natstats.errors.UsageError: info, seed: expected a whole number from 0; got '0'
    """
    _check(values, RunInfo, where, "")
    return cast(RunInfo, dict(values))


def known(values: Any, kind: Any = RunInfo) -> Any:
    """The values without fields that are not listed, which a newer natstats may have written."""
    if kind is None or kind is Any:
        return values
    if _is_record(kind) and isinstance(values, Mapping):
        hints = _hints(kind)
        return {key: known(one, hints[key]) for key, one in values.items() if key in hints}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is list and isinstance(values, list):
        return [known(one, arguments[0]) for one in values]
    if origin in (Union, types.UnionType):
        records = [one for one in arguments if _is_record(one)]
        return known(values, records[0]) if records else values
    return values


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and hasattr(kind, "__required_keys__")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _check(value: Any, kind: Any, where: str, field: str) -> None:
    """Raise unless a value is of a type; `field` is its place in the whole."""
    if _is_record(kind):
        _check_record(value, kind, where, field)
        return
    if kind is Any:
        _check_depth(value, where, field, _DEEPEST)
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        options = [one for one in arguments if _fits(value, one)]
        if not options:
            raise _error(value, kind, where, field)
        _check(value, options[0], where, field)
    elif not _fits(value, kind):
        raise _error(value, kind, where, field)
    elif origin is list:
        for place, one in enumerate(value):
            _check(one, arguments[0], where, f"{field}[{place}]")
    elif origin is dict:
        for name, one in value.items():
            inner = f"{field}.{printable(str(name))[:60]}"
            if not isinstance(name, str):
                raise _error(name, str, where, inner)
            _check(one, arguments[1], where, inner)


def _check_record(value: Any, kind: Any, where: str, field: str) -> None:
    if not isinstance(value, Mapping):
        raise _error(value, kind, where, field)
    hints = _hints(kind)
    place = f"{where}, {field}" if field else where
    needed = [name for name in hints if name in kind.__required_keys__]
    missing = [name for name in needed if value.get(name) is None]
    if missing:
        raise UsageError(f"{place}: expected {', '.join(needed)}; {missing[0]} is missing")
    for name, one in value.items():
        if name not in hints:
            raise UsageError(
                f"{place}: expected only {', '.join(hints)}; got {printable(str(name))[:60]}"
            )
        _check(one, hints[name], where, f"{field}.{name}".lstrip("."))


def _check_depth(value: Any, where: str, field: str, left: int) -> None:
    if not isinstance(value, Mapping | list | tuple):
        return
    if not left:
        raise UsageError(f"{where}, {field}: expected at most {_DEEPEST} levels; got more")
    for one in value.values() if isinstance(value, Mapping) else value:
        _check_depth(one, where, field, left - 1)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, without a look at the values inside it."""
    if kind is None or kind is type(None):
        return value is None
    if _is_record(kind):
        return isinstance(value, Mapping)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        own, low, high = arguments
        return _fits(value, own) and not (value < low or value > high)
    if origin is list:
        return isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if origin is dict:
        return isinstance(value, Mapping)
    if kind is str:
        return isinstance(value, str)
    if isinstance(value, bool):
        return kind is bool
    if kind is int:
        return isinstance(value, numbers.Integral)
    if not isinstance(value, numbers.Real):
        return False
    held: Any = value
    return bool(held != held or -_LARGEST < held < _LARGEST)


def _words(kind: Any) -> str:
    """A type in words."""
    if _is_record(kind):
        return "an object"
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is Annotated:
        own, low, high = arguments
        reach = f"from {low} to {high}" if high < _MOST else f"from {low}"
        return f"{_words(own)} {reach}"
    if origin is list:
        return "a list"
    if origin is dict:
        return "an object"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(kind, "nothing")


def _error(value: Any, kind: Any, where: str, field: str) -> UsageError:
    shown = printable(repr(value)[:60]) if not isinstance(value, Mapping | list) else (
        "an object" if isinstance(value, Mapping) else "a list"
    )  # fmt: skip
    place = f"{where}, {field}" if field else where
    return UsageError(f"{place}: expected {_words(kind)}; got {shown}")

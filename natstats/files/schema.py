"""What a record in a file must look like, so that an error names the file and the field.

A schema is a value that can check another: :class:`Field` for a plain value, :class:`ListOf` and
:class:`Record` for those that hold others. Fields that a record does not know are left alone: a
newer natstats may have written them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from natstats.errors import NatstatsError
from natstats.text import printable

__all__ = [
    "FLAG", "MAPPING", "TEXT", "Field", "ListOf", "MappingOf", "Record", "Schema",
    "one_of", "or_null", "real", "shown", "whole",
]  # fmt: skip

_LARGEST = 2**53
"""Whole numbers above this are not exact in a float."""


class Schema(Protocol):
    """Something that can check a value."""

    @property
    def expected(self) -> str:
        """What it expects, in words."""

    def check(self, value: Any, where: str) -> None:
        """Raise when `value`, found at `where`, is not as expected.

        Raises:
            NatstatsError: it is not; file and field are named.
        """


def shown(value: Any) -> str:
    """A value that was read, as the file has it, short and on one line.

    >>> shown(None), shown("x"), shown([1] * 50)[-6:]
    ('null', '"x"', ' 1,...')
    """
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = repr(value)
    return printable(text if len(text) <= 60 else f"{text[:57]}...")


def _refuse(schema: Schema, value: Any, where: str) -> NatstatsError:
    return NatstatsError(f"{where}: expected {schema.expected}; got {shown(value)}")


@dataclass(frozen=True)
class Field:
    """A plain value.

    Attributes:
        expected: what it is, in words.
        is_good: says whether a value is as expected.
    """

    expected: str
    is_good: Callable[[Any], bool]

    def check(self, value: Any, where: str) -> None:
        """See :class:`Schema`."""
        if not self.is_good(value):
            raise _refuse(self, value, where)


@dataclass(frozen=True)
class ListOf:
    """A list, all items alike.

    Attributes:
        item: schema of each.
        least: fewest items.
        most: most items, None for any number.
    """

    item: Schema
    least: int = 0
    most: int | None = None

    @property
    def expected(self) -> str:
        """What it expects, in words."""
        if self.least == self.most:
            return f"a list of {self.least} items"
        if self.most is not None:
            return f"a list of {self.least} to {self.most} items"
        return f"a list of {self.least} items or more" if self.least else "a list"

    def check(self, value: Any, where: str) -> None:
        """See :class:`Schema`."""
        if not isinstance(value, list):
            raise _refuse(self, value, where)
        if len(value) < self.least or (self.most is not None and len(value) > self.most):
            raise NatstatsError(f"{where}: expected {self.expected}; got {len(value)}")
        for place, one in enumerate(value):
            self.item.check(one, f"{where}[{place}]")


@dataclass(frozen=True)
class MappingOf:
    """A mapping of any keys, all values alike."""

    value: Schema
    expected: str = "a mapping"

    def check(self, value: Any, where: str) -> None:
        """See :class:`Schema`."""
        if not isinstance(value, dict):
            raise _refuse(self, value, where)
        for name, one in value.items():
            self.value.check(one, f"{where}.{printable(name)}")


@dataclass(frozen=True)
class Record:
    """A mapping with fields of its own.

    Attributes:
        fields: schema of each field.
        optional: names of those that may be missing.
    """

    fields: Mapping[str, Schema]
    optional: Collection[str] = field(default=())
    expected: str = "a mapping"

    def check(self, value: Any, where: str) -> None:
        """See :class:`Schema`; `where` ends with a comma and a space for a whole file."""
        if not isinstance(value, dict):
            raise _refuse(self, value, where.removesuffix(", "))
        stem = where if where.endswith(", ") else f"{where}."
        for name, schema in self.fields.items():
            if name in value:
                schema.check(value[name], f"{stem}{name}")
            elif name not in self.optional:
                raise NatstatsError(f"{stem}{name}: expected {schema.expected}; it is missing")


def whole(least: int = 0, most: int = _LARGEST) -> Field:
    """A whole number.

    >>> whole(1).check("x", "run.json, layers[3].height")
    Traceback (most recent call last):
    natstats.errors.NatstatsError: run.json, layers[3].height: expected a whole number of at least \
1; got "x"
    """
    limit = f" and at most {most}" if most < _LARGEST else ""
    return Field(
        f"a whole number of at least {least}{limit}",
        lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most,
    )


def real(least: float = -math.inf, most: float = math.inf, *, above: float = -math.inf) -> Field:
    """A finite number."""
    limits = (("at least", least), ("above", above), ("at most", most))
    said = " and ".join(f"{words} {limit:g}" for words, limit in limits if math.isfinite(limit))

    def is_good(value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        # A whole number of JSON may be too large for a float.
        return -1e300 < value < 1e300 and least <= value <= most and value > above

    return Field(f"a number{f' that is {said}' if said else ''}", is_good)


def one_of(allowed: Collection[str]) -> Field:
    """One of some words."""
    listed = ", ".join(allowed)
    return Field(f"one of {listed}", lambda v: isinstance(v, str) and v in allowed)


def or_null(schema: Schema) -> Schema:
    """What a schema expects, or null."""
    return _OrNull(schema)


@dataclass(frozen=True)
class _OrNull:
    schema: Schema

    @property
    def expected(self) -> str:
        return f"{self.schema.expected}, or null"

    def check(self, value: Any, where: str) -> None:
        if value is None:
            return
        if isinstance(self.schema, Field) and not self.schema.is_good(value):
            raise _refuse(self, value, where)
        self.schema.check(value, where)


TEXT = Field("a text", lambda v: isinstance(v, str))
FLAG = Field("true or false", lambda v: isinstance(v, bool))
MAPPING = Field("a mapping", lambda v: isinstance(v, dict))

"""The distillation methods by name, and their combinations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from natstats import checks
from natstats.distill.losses import (
    ab,
    at,
    dist,
    dkd,
    ffl,
    fitnets,
    freekd,
    fsp,
    ft,
    jacobian,
    kd,
    ofd,
    reviewkd,
    spectral,
    spectralkd,
)
from natstats.distill.method import Method, Plan, Setting
from natstats.errors import UsageError

__all__ = ["METHODS", "arguments_of", "get_method", "merged", "parse_method"]


def _alone(setting: Setting) -> Plan:
    return Plan(ce_weight=checks.finite("ce.weight", setting.arguments["weight"], least=0))


CE = Method(
    name="ce",
    title="Student alone",
    paper="cross-entropy with the labels, no teacher",
    reduction="mean over images",
    defaults={"weight": 1.0},
    plan=_alone,
    needs_teacher=False,
    teacher_passes=0.0,
)


def registry(methods: Iterable[Method]) -> Mapping[str, Method]:
    """The methods by name.

    Raises:
        ValueError: two have the same name.
    """
    found: dict[str, Method] = {}
    for method in methods:
        if method.name in found:
            raise ValueError(f"method {method.name} is there twice")
        found[method.name] = method
    return MappingProxyType(found)


_LOSSES = (
    *(kd, fitnets, at, fsp, jacobian, ft, ab, ofd, spectral),
    *(dkd, dist, reviewkd, spectralkd, freekd, ffl),
)

METHODS = registry([CE, *(of.METHOD for of in _LOSSES)])
"""Every method by its name."""


def get_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UsageError: there is none; what exists is listed.

    >>> get_method("kd").title
    'Soft targets'
    """
    if name not in METHODS:
        checks.one_of("method", name, METHODS)
    return METHODS[name]


def parse_method(text: str) -> tuple[Method, ...]:
    """The methods in a combination such as ``kd+spectral``.

    Raises:
        UsageError: an unknown name, one that comes twice, or no text.

    >>> [method.name for method in parse_method("kd+spectral")]
    ['kd', 'spectral']
    """
    if not isinstance(text, str):
        raise UsageError(f"method: expected text, such as kd or kd+at; got {text!r:.60}")
    names = [part.strip() for part in text.split("+")]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"method: expected each method once; got {text!r}")
    return tuple(get_method(name) for name in names)


def arguments_of(methods: Sequence[Method], given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments of every method: its defaults, overridden by what was given as METHOD.NAME.

    With a single method, NAME alone is enough.

    Raises:
        UsageError: an argument of no method, of another type than the default, or no mapping.

    >>> arguments_of(parse_method("kd"), {"temperature": 2})["kd"]["temperature"]
    2.0
    """
    if not isinstance(given, Mapping):
        raise UsageError(f"method_args: expected a mapping of names to values; got {given!r:.60}")
    by_method: dict[str, dict[str, Any]] = {method.name: {} for method in methods}
    for key, value in given.items():
        if not isinstance(key, str):
            raise UsageError(f"method_args: expected names as keys; got {key!r:.60}")
        name, dot, argument = key.partition(".")
        if not dot:
            if len(methods) > 1:
                listed = ", ".join(f"{method.name}.{key}" for method in methods)
                raise UsageError(f"method argument: expected one of {listed}; got {key!r}")
            name, argument = methods[0].name, key
        if name not in by_method:
            listed = ", ".join(by_method)
            raise UsageError(
                f"method argument {key}: expected METHOD.NAME with one of the methods {listed}; "
                f"got {name!r}"
            )
        if argument in by_method[name]:
            raise UsageError(f"method argument {name}.{argument}: expected once; got it twice")
        by_method[name][argument] = value
    return {method.name: method.arguments(by_method[method.name]) for method in methods}


def merged(plans: Mapping[str, Plan]) -> Plan:
    """The plan of a combination: the stages before, one by one, then all terms together.

    The weight of the cross-entropy is that of ``ce`` where it is named, and otherwise the smallest
    that a method asks for: soft targets replace a part of the labels beside other methods too.

    >>> merged({"kd": Plan(ce_weight=0.1), "at": Plan(ce_weight=1.0)}).ce_weight
    0.1
    """
    weights = [plan.ce_weight for plan in plans.values() if plan.ce_weight is not None]
    weight = plans["ce"].ce_weight if "ce" in plans else min(weights, default=1.0)
    return Plan(
        terms=tuple(term for plan in plans.values() for term in plan.terms),
        before=tuple(stage for plan in plans.values() for stage in plan.before),
        ce_weight=weight,
        notes=tuple(note for plan in plans.values() for note in plan.notes),
    )

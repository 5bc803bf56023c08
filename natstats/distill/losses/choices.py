"""Weights of methods: the argument that holds the weight of a variant, and rising weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from natstats.checks import finite, one_of
from natstats.distill.method import Ramp
from natstats.errors import UsageError

__all__ = ["rising_weight", "variant_weight"]


def variant_weight(
    method: str,
    choice: str,
    names: Mapping[str, str],
    arguments: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> tuple[str, float]:
    """The name and the value of the weight of the chosen variant.

    Variants that reduce a loss differently need weights of another size, so each has its own.

    Args:
        method: named in errors.
        choice: the argument that chooses the variant.
        names: for each variant, the argument that holds its weight.
        arguments: arguments of the method, as they are.
        defaults: default arguments of the method.

    Raises:
        UsageError: an unknown variant, a weight below 0, or one that was given for another variant.

    >>> defaults = {"form": "code", "weight": 1000.0, "paper_weight": 0.1}
    >>> names = {"code": "weight", "paper": "paper_weight"}
    >>> variant_weight("at", "form", names, {**defaults, "form": "paper"}, defaults)
    ('paper_weight', 0.1)
    """
    variant = one_of(f"{method}.{choice}", arguments[choice], list(names))
    chosen = names[variant]
    for name in names.values():
        if name != chosen and arguments[name] != defaults[name]:
            raise UsageError(
                f"{method}.{name}: expected {method}.{chosen}, which is the weight with "
                f"{choice}={variant}; got {arguments[name]!r}"
            )
    return chosen, finite(f"{method}.{chosen}", arguments[chosen], least=0)


def rising_weight(method: str, weight: float, warmup: float) -> tuple[float | Ramp, str]:
    """A weight that rises from 0 in the first part of the stage, and its description for a note.

    Args:
        method: named in errors.
        weight: what it reaches.
        warmup: share of the stage in which it rises, 0 to 1; 0 for a fixed weight.

    Raises:
        UsageError: a weight below 0, or a share outside 0 to 1.

    >>> factor, words = rising_weight("dkd", 2.0, 0.5)
    >>> factor(0.25), words
    (1.0, 'the weight rises over 50 % of the stage')
    >>> rising_weight("dkd", 2.0, 0.0)
    (2.0, 'the weight is the same in the whole stage')
    """
    finite(f"{method}.weight", weight, least=0)
    finite(f"{method}.warmup", warmup, least=0, most=1)
    if not warmup:
        return weight, "the weight is the same in the whole stage"
    return Ramp(
        0.0, weight, 0.0, warmup
    ), f"the weight rises over {100 * warmup:.3g} % of the stage"

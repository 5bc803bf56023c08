"""Which argument holds the weight, where a method's variants have one each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from natstats.checks import finite, one_of
from natstats.errors import UsageError

__all__ = ["variant_weight"]


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

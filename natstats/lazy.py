"""Public names of a package that are imported on first use.

So ``natstats --help`` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str], public: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: its name.
        homes: the module of each name, below the package.
        public: all public names.

    Reference:
        PEP 562, Module __getattr__ and __dir__.

    >>> get, _ = lazy_names("natstats", {"UsageError": "errors"}, ["UsageError"])
    >>> get("UsageError").__module__
    'natstats.errors'
    >>> get("nothing")
    Traceback (most recent call last):
    AttributeError: module 'natstats' has no attribute 'nothing'
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        setattr(sys.modules[package], name, value)  # found there from now on
        return value

    return get, lambda: sorted(public)

"""Importing torchvision without torch's compiler, which takes longer to load than torch itself.

One module of torchvision imports a function from ``torch._dynamo``, and calls it only where regions
are pooled in a deterministic way on an accelerator. So stand-ins take the place of the compiler
while torchvision is imported: that function loads the compiler when it is called, and anything else
that is looked up loads it at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

__all__ = ["torchvision_models", "without_compiler"]

_COMPILER, _UTILS = "torch._dynamo", "torch._dynamo.utils"


def _is_compile_supported(device_type: Any) -> Any:
    """What the compiler's function of this name says."""
    _give_way()
    return importlib.import_module(_UTILS).is_compile_supported(device_type)


_LATER = {_UTILS: {"is_compile_supported": _is_compile_supported}}
"""By module, the functions for which the compiler need only be loaded when they are called."""


class _StandIn(ModuleType):
    """A module of the compiler that is loaded as soon as it is needed."""

    def __getattr__(self, name: str) -> Any:
        own = self.__name__
        if name in _LATER.get(own, {}):
            return _LATER[own][name]
        is_path = own == _COMPILER and name == "__path__"  # for an import of another part
        if name.startswith("__") and not is_path:  # looked up in any module
            raise AttributeError(name)
        _give_way()
        return getattr(importlib.import_module(own), name)


def _give_way() -> None:
    """Remove the stand-ins, so that an import finds the modules that they stand for."""
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import torchvision inside the context without loading torch's compiler.

    Afterwards all modules are as usual, except that the compiler is not loaded yet. Where it or
    torchvision was imported before, nothing is done.

    >>> with without_compiler():
    ...     import torchvision
    >>> isinstance(sys.modules.get("torch._dynamo"), _StandIn)
    False
    """
    if _COMPILER in sys.modules or "torchvision" in sys.modules:
        yield
        return
    importlib.import_module("torch")  # which must not find the stand-ins
    sys.modules.update({name: _StandIn(name) for name in (_COMPILER, _UTILS)})
    try:
        yield
    finally:
        _give_way()


def torchvision_models() -> ModuleType:
    """The module of torchvision's networks.

    >>> torchvision_models().__name__
    'torchvision.models'
    """
    with without_compiler():
        import torchvision.models

    found: ModuleType = torchvision.models
    return found

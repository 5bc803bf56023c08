"""torchvision, imported without the compiler of torch, which costs as much as torch itself.

One module of torchvision takes a function from ``torch._dynamo`` on being imported, and asks it
only where regions are pooled in a deterministic way on an accelerator. Loading the compiler for it
takes longer than loading torch. So a stand-in answers while torchvision is imported: the function
that is asked for loads the compiler when it is called, and anything else loads it at once.
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
"""By module, what is enough when it is called."""


class _StandIn(ModuleType):
    """A module of the compiler that is loaded as soon as it is needed."""

    def __getattr__(self, name: str) -> Any:
        own = self.__name__
        if name in _LATER.get(own, {}):
            return _LATER[own][name]
        is_path = own == _COMPILER and name == "__path__"  # where another part of it is looked for
        if name.startswith("__") and not is_path:  # what is looked at in any module
            raise AttributeError(name)
        _give_way()
        return getattr(importlib.import_module(own), name)


def _give_way() -> None:
    """Take the stand-ins away, so that an import finds what they stand for."""
    for name in (_COMPILER, _UTILS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import torchvision inside the context without loading torch's compiler.

    Afterwards everything is where it would be, but that the compiler is not loaded yet. Where it
    or torchvision was imported before, nothing is done.

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

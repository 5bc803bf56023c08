"""Wrappers around a network: taken off where its layers can then be watched, else refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from natstats.errors import UsageError

__all__ = ["uncompiled", "unwrapped"]

# By the names of classes, so that nothing heavy is imported to look for one.
_INSIDE = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",  # torch.optim.swa_utils
}

_SHARDED = (
    "a module sharded by FSDP, of which each process holds a part; pass the network itself, with "
    "the whole weights loaded into it"
)
_REFUSED = {
    "ScriptModule": (
        "a TorchScript module, which calls its layers without their hooks; pass the Python module "
        "that was scripted or traced"
    ),
    "ExportedProgram": (
        "an exported program, which has operations in place of layers; pass the Python module "
        "that was exported"
    ),
    "FullyShardedDataParallel": _SHARDED,
    "FSDPModule": _SHARDED,
}
_REFUSED_PARTS = {"FullyShardedDataParallel", "FSDPModule"}


def unwrapped(model: Any, argument: str = "model") -> nn.Module:
    """Return the network inside the wrappers of data parallelism, averaging and torch.compile.

    The hooks that watch layers see nothing once a compiled graph runs, and the replicas of
    ``DataParallel`` are copies, so it is the network inside that is to be measured. Wrappers may be
    nested in any order, and also stand around parts of the network, where they stay.

    Args:
        model: a module.
        argument: what to call it in an error.

    Raises:
        UsageError: not a module, or one whose layers cannot be watched (TorchScript, an exported
            program, FSDP).

    >>> net = nn.Conv2d(3, 8, 3)
    >>> unwrapped(nn.DataParallel(nn.DataParallel(net))) is net
    True
    """
    while True:
        kinds = _torch_classes(model)
        reason = next((_REFUSED[kind] for kind in kinds if kind in _REFUSED), None)
        if reason is not None:
            raise UsageError(f"{argument}: expected a network of Python modules; got {reason}")
        if not isinstance(model, nn.Module):
            raise UsageError(f"{argument}: expected a torch.nn.Module; got {_described(model)}")
        inside = next((_INSIDE[kind] for kind in kinds if kind in _INSIDE), None)
        if inside is None:
            break
        model = getattr(model, inside)
    lazy = [name for name, tensor in model.named_parameters() if nn.parameter.is_lazy(tensor)]
    if lazy:
        raise UsageError(
            f"{argument}: expected weights that have their shapes; got lazy modules that have seen "
            f"no data yet ({', '.join(lazy[:3])}); run one batch through the model before"
        )
    sharded = [n for n, part in model.named_modules() if _REFUSED_PARTS & {*_torch_classes(part)}]
    if sharded:
        raise UsageError(
            f"{argument}: expected a network of Python modules; got {_SHARDED} ({sharded[0]})"
        )
    return model


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run a network layer by layer inside the context, also where it was compiled in place.

    ``model.compile()`` leaves the module as it is and compiles its call, and a compiled graph runs
    without hooks that were added later. What was compiled stays, and is used again after the
    context.

    >>> with uncompiled(nn.ReLU()):
    ...     pass
    """
    compiled = any(
        getattr(part, "_compiled_call_impl", None) is not None
        or type(part).__name__ == "OptimizedModule"
        for part in model.modules()
    )
    with torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext():
        yield


def _torch_classes(model: Any) -> list[str]:
    """Names of those classes of an object that are torch's own."""
    return [kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("torch.")]


def _described(model: Any) -> str:
    if isinstance(model, tuple | list):
        kinds = ", ".join(type(item).__name__ for item in model)
        return f"a {type(model).__name__} of {kinds}"
    if isinstance(model, type):
        return f"the class {model.__name__}, not an instance of it"
    return f"a {type(model).__name__}"

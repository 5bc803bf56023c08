"""Networks from other packages: ``package.module:factory``, and timm's where it is installed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import nn

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.networks.builders import Builder
from natstats.networks.torchvision_imports import without_compiler
from natstats.text import printable

__all__ = ["factory_builder", "timm_builder", "timm_library", "timm_weights"]


def factory_builder(name: str, arguments: Mapping[str, Any]) -> Builder:
    """The builder behind ``package.module:factory``.

    Modules in the current directory can be imported, as with ``python -m``. The factory is a
    function or a class that returns a network, or a network itself.

    Args:
        name: module and attribute, the latter dotted where it is inside another.
        arguments: arguments of the factory.

    Raises:
        UsageError: there is no such module or factory, or it takes other arguments.
        NatstatsError: the module cannot be imported, or building raises.

    >>> factory_builder("natstats.networks.zoo:cifar_resnet", {"depth": 8}).build(0).fc.in_features
    64
    """
    factory = _attribute(name)
    if isinstance(factory, nn.Module) or not callable(factory):
        if arguments:
            raise UsageError(
                f"model_args: expected none, as {name} is no function; got {', '.join(arguments)}"
            )
        return Builder(name, lambda: factory, is_random=False)
    _check_arguments(name, factory, arguments)
    return Builder(name, _called(name, factory), arguments, is_random=False)


def _attribute(name: str) -> Any:
    home, _, path = name.partition(":")
    if not home or not path:
        raise UsageError(f"model: expected package.module:factory; got {name!r}")
    try:
        with _importable_here():
            found: Any = importlib.import_module(home)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        is_named = missing is not None and f"{home}.".startswith(f"{missing}.")
        raise (UsageError if is_named else NatstatsError)(
            f"model: expected a module that can be imported, {printable(home)}; "
            f"{printable(type(error).__name__)}: {_reason(error)}"
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            public = [
                key for key, value in vars(found).items() if callable(value) and key[0] != "_"
            ]
            checks.one_of(f"model, in {home}", part, public)
        found = getattr(found, part)
    return found


def _check_arguments(name: str, factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # written in C: the call will tell
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        takes = ", ".join(map(str, signature.parameters.values())) or "nothing"
        raise UsageError(
            f"model_args: expected the arguments of {name}, which takes {takes}; {error}"
        ) from error


def _called(name: str, factory: Callable[..., Any]) -> Callable[..., Any]:
    """The factory, with imports from the current directory, and its errors in one sentence."""

    @functools.wraps(factory)
    def call(**arguments: Any) -> Any:
        try:
            with _importable_here():
                return factory(**arguments)
        except (Exception, SystemExit) as error:
            given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            raise NatstatsError(
                f"model: expected {name}({given}) to return a network; it raised "
                f"{printable(type(error).__name__)}: {_reason(error)}"
            ) from error

    return call


@contextlib.contextmanager
def _importable_here() -> Iterator[None]:
    here = os.getcwd()
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _reason(error: BaseException) -> str:
    return printable(" ".join(str(error).split())[:200]) or "it gives no reason"


def timm_builder(name: str, arguments: Mapping[str, Any]) -> Builder:
    """The builder of a network of timm.

    Args:
        name: as timm knows it, such as ``convnext_tiny`` or ``convnext_tiny.fb_in1k``.
        arguments: arguments of ``timm.create_model``.

    Raises:
        UsageError: timm is not installed or does not know the name.
    """
    timm = timm_library()
    if not timm.is_model(name):
        checks.one_of("model", f"timm:{name}", [f"timm:{known}" for known in timm.list_models()])
    for key in {"pretrained", "checkpoint_path"} & {*arguments}:
        raise UsageError(
            f"model_args: expected arguments other than {key}; got it: --weights and --checkpoint "
            "say which weights"
        )
    call = functools.partial(timm.create_model, name)
    return Builder(
        f"timm:{name}", call, arguments, {"pretrained": False}, convert=_converted_by_timm
    )


def _converted_by_timm(state: Mapping[str, Any], model: nn.Module) -> Any:
    """A state dict as the authors of a network published it, in the form that timm has for it."""
    home = sys.modules[type(model).__module__]
    return home.checkpoint_filter_fn(state, model)


def timm_weights(builder: Builder, weights: str, seed: int) -> tuple[nn.Module, str]:
    """Build a network of timm with published weights; return it and their name.

    Args:
        builder: see :func:`timm_builder`.
        weights: ``default``, or the tag of published weights, such as ``fb_in1k``.
        seed: seed of what the weights do not cover.

    Raises:
        UsageError: no such weights.
        NatstatsError: they cannot be downloaded.
    """
    timm = timm_library()
    name = builder.name.removeprefix("timm:")
    if weights != "default":
        base = name.partition(".")[0]
        tagged = timm.list_pretrained(f"{base}.*")
        checks.one_of("weights", weights, [known.partition(".")[2] for known in tagged])
        name = f"{base}.{weights}"
    call = functools.partial(timm.create_model, name)
    loading = Builder(builder.name, call, builder.arguments, {"pretrained": True})
    try:
        model = loading.build(seed)
    except UsageError:
        raise
    except Exception as error:
        raise NatstatsError(
            f"weights: expected to download those of timm's {name}; got {_reason(error)}. Give a "
            "file with --checkpoint, or take the untrained network with --weights none"
        ) from error
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    tag = config.get("tag") if isinstance(config, Mapping) else None
    return model, f"timm {name}" if "." in name or not tag else f"timm {name}.{tag}"


def timm_library() -> Any:
    """The module timm.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with without_compiler():
            return importlib.import_module("timm")
    except ImportError as error:
        raise UsageError(
            "model: expected timm to be installed for the names that start with timm:; "
            f"pip install 'natstats[timm]' installs it ({_reason(error)})"
        ) from error

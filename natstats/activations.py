"""Forward hooks: which modules are layers, and how their maps reach a sink.

Knows nothing of spectra. A hook hands over each output at once and keeps nothing, because an
in-place activation may rewrite it as soon as the hook returns.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from natstats.errors import NatstatsError, UsageError

__all__ = [
    "ActivationHooks",
    "Sink",
    "batch_size",
    "block_names",
    "call_name",
    "module_kind",
    "select_modules",
]

Sink = Callable[[str, int, Any], None]
"""Called with the module's name, the number of its call in this forward pass, and its output."""

GROUPS_OF_LAYERS = ("conv", "act", "block", "stage")
"""Selections by role; anything else is a name pattern."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_WEIGHT_LAYERS = (nn.Linear, nn.modules.conv._ConvNd)


def call_name(name: str, call: int) -> str:
    """Name of a layer: the module's own, with the number of the call from its second call on.

    >>> call_name("layer1.0.relu", 0), call_name("layer1.0.relu", 1)
    ('layer1.0.relu', 'layer1.0.relu:1')
    """
    return name if call == 0 else f"{name}:{call}"


def module_kind(module: nn.Module) -> str:
    """What sort of layer a module is: ``conv``, ``depthwise``, ``pointwise``, ``act``, ...

    >>> module_kind(nn.Conv2d(8, 8, 3, groups=8)), module_kind(nn.Conv2d(8, 4, 1))
    ('depthwise', 'pointwise')
    """
    if isinstance(module, nn.modules.conv._ConvNd):
        if module.groups > 1 and module.groups == module.in_channels:
            return "depthwise"
        return "pointwise" if set(module.kernel_size) == {1} else "conv"
    home = type(module).__module__
    if home == "torch.nn.modules.activation" and not isinstance(module, nn.MultiheadAttention):
        return "act"
    if home in ("torch.nn.modules.batchnorm", "torch.nn.modules.normalization"):
        return "norm"
    return type(module).__name__


def block_names(model: nn.Module) -> list[str]:
    """Names of the outermost modules that hold two weight layers or more and repeat no such thing.

    These are the residual, dense, inverted-bottleneck, inception or transformer blocks.
    """

    def is_candidate(module: nn.Module) -> bool:
        if isinstance(module, _CONTAINERS):
            return False
        return sum(isinstance(inner, _WEIGHT_LAYERS) for inner in module.modules()) >= 2

    found: list[str] = []

    def descend(name: str, module: nn.Module) -> None:
        inside = [
            inner for inner in module.modules() if inner is not module and is_candidate(inner)
        ]
        repeats = max(Counter(type(inner) for inner in inside).values(), default=0) >= 2
        if name and is_candidate(module) and not repeats:
            found.append(name)
            return
        for child_name, child in module.named_children():
            descend(f"{name}.{child_name}".lstrip("."), child)

    descend("", model)
    return found


def select_modules(
    model: nn.Module, layers: str | Sequence[str], stages: Iterable[str] = ()
) -> list[str]:
    """Names of the modules that `layers` asks for, in the order of the model.

    Args:
        model: the network.
        layers: ``conv`` (every 2-D convolution), ``act`` (activation modules), ``block``
            (residual, dense, inverted-bottleneck, ... blocks), ``stage`` (the last block of each
            resolution), or name patterns such as ``layer1.*.conv2``; several as a sequence or
            separated by commas.
        stages: what ``stage`` stands for in this model; it takes a forward pass to know.

    Raises:
        UsageError: something asked for is not there.

    >>> select_modules(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), "conv,1")
    ['0', '1']
    """
    asked = layers.split(",") if isinstance(layers, str) else list(layers)
    named = [(name, module) for name, module in model.named_modules() if name]
    chosen: set[str] = set()
    for part in (part.strip() for part in asked):
        if part == "conv":
            found = [n for n, m in named if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        elif part == "act":
            found = [n for n, m in named if module_kind(m) == "act"]
        elif part == "block":
            found = block_names(model)
        elif part == "stage":
            found = list(stages)
        else:
            found = fnmatch.filter([n for n, _ in named], part)
        if not found:
            raise UsageError(
                f"layers: expected {', '.join(GROUPS_OF_LAYERS)} or a pattern that matches a "
                f"module of the model; nothing matched {part!r} (modules are named like "
                f"{', '.join(n for n, m in named if not list(m.children()))[:80]})"
            )
        chosen.update(found)
    return [name for name, _ in named if name in chosen]


def batch_size(inputs: Iterable[Any]) -> int | None:
    """Number of images in the arguments of a forward pass: of the first tensor, or a list's length.

    >>> import torch
    >>> batch_size((torch.zeros(4, 3, 8, 8),)), batch_size(([torch.zeros(3, 8, 8)] * 2,))
    (4, 2)
    """
    for value in inputs:
        if isinstance(value, Tensor):
            return len(value)
        if isinstance(value, list | tuple):
            return len(value)
    return None


class ActivationHooks:
    """Hands the outputs of chosen modules to a sink, for as long as the context is open.

    The number of a module's call is counted anew in every forward pass of the model. The hooks
    come off when the context closes, also after an exception.

    Args:
        model: the network.
        names: the chosen modules, as in ``model.named_modules()``.
        sink: where the outputs go.
        on_start: called with the arguments of the model before each forward pass.
        on_success: called after each forward pass that raised nothing.

    Raises:
        UsageError: a name is not a module of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        names: Iterable[str],
        sink: Sink,
        on_start: Callable[[tuple[Any, ...], dict[str, Any]], None] | None = None,
        on_success: Callable[[], None] | None = None,
    ) -> None:
        modules = dict(model.named_modules())
        missing = [name for name in names if name not in modules]
        if missing:
            raise UsageError(f"names: expected modules of the model; got {', '.join(missing)}")
        self._model = model
        self._modules = {name: modules[name] for name in names}
        self._sink = sink
        self._on_start = on_start
        self._on_success = on_success
        self._calls: Counter[str] = Counter()
        self._inside = False
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> ActivationHooks:
        if self._handles:
            raise NatstatsError("hooks: expected to be entered once; they are on already")
        self._handles.append(self._model.register_forward_pre_hook(self._start, with_kwargs=True))
        self._handles.append(self._model.register_forward_hook(self._stop, always_call=True))
        self._handles.append(self._model.register_forward_hook(self._succeed))
        for name, module in self._modules.items():
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _start(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._calls.clear()
        self._inside = True
        if self._on_start is not None:
            self._on_start(inputs, named)

    def _stop(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._inside = False

    def _succeed(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._on_success is not None:
            self._on_success()

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self._inside:  # a part of the model called alone is not a forward pass
                return
            call = self._calls[name]
            self._calls[name] += 1
            self._sink(name, call, output)

        return hook

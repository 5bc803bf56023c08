"""Forward hooks: how the outputs of chosen modules reach a sink while a network runs.

Knows nothing of spectra. A hook hands over each output at once and keeps nothing, because an
in-place activation may rewrite it as soon as the hook returns.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils.hooks import RemovableHandle

from natstats.errors import NatstatsError, UsageError

__all__ = [
    "ActivationHooks", "Sink", "at_work", "batch_size", "level", "parts_of", "same_modes",
    "undisturbed", "unwatched", "working",
]  # fmt: skip

Sink = Callable[[str, int, Any], None]
"""Called with the module's name, the number of its call in this forward pass, and its output."""

level: ContextVar[int] = ContextVar("level", default=0)
"""How many :func:`unwatched` contexts are open; hooks see the passes of their own level only."""


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """Hide the passes inside from all hooks that were put on outside.

    A pass that only looks at the model is not data for any collector that watches the model.
    """
    token = level.set(level.get() + 1)
    try:
        yield
    finally:
        level.reset(token)


at_work: ContextVar[bool] = ContextVar("at_work", default=False)
"""Whether a hook is at work: its operations are not part of the pass, whoever watches it."""


@contextlib.contextmanager
def working() -> Iterator[None]:
    """Keep the operations inside from counting as part of a pass, whoever watches it."""
    token = at_work.set(True)
    try:
        if torch._C._len_torch_dispatch_stack():  # else there is nothing to switch off
            with _disable_current_modes():
                yield
        else:
            yield
    finally:
        at_work.reset(token)


def parts_of(output: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors in an output with what to add to the layer's name: nothing for the only one.

    >>> maps = torch.zeros(1, 2, 8, 8)
    >>> [part for part, _ in parts_of((maps, None))]
    ['']
    >>> [part for part, _ in parts_of({"fine": maps, "coarse": [maps, maps]})]
    ['[fine]', '[coarse][0]', '[coarse][1]']
    """

    def walk(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
        if isinstance(value, Tensor):
            yield path, value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                yield from walk(inner, f"{path}[{key}]")
        elif isinstance(value, list | tuple):
            for place, inner in enumerate(value):
                yield from walk(inner, f"{path}[{place}]")
        elif hasattr(value, "__dataclass_fields__"):
            yield from walk(vars(value), path)

    found = list(walk(output, ""))
    return iter([("", found[0][1])] if len(found) == 1 else found)


def batch_size(inputs: Iterable[Any]) -> int | None:
    """Number of images in the arguments of a forward pass.

    It is the length of the first tensor of three or more axes, or list of images, that is found;
    else that of the first other tensor or list; else None. Dicts and lists of batches are searched.

    >>> batch_size((torch.zeros(4, 3, 8, 8),)), batch_size(([torch.zeros(3, 8, 8)] * 2,))
    (4, 2)
    >>> batch_size((torch.tensor(0.5), {"image": torch.zeros(4, 3, 8, 8)}))
    4
    """
    others: list[int] = []

    def look(values: Iterable[Any]) -> int | None:
        for value in values:
            if isinstance(value, Tensor) and value.ndim >= 3:
                return len(value)
            if isinstance(value, Tensor) and value.ndim:
                others.append(len(value))
            found = None
            if isinstance(value, Mapping):
                found = look(value.values())
            elif isinstance(value, list | tuple):
                first = value[0] if value else None
                if isinstance(first, Tensor) and first.ndim > 3:
                    found = look(value)
                elif isinstance(first, Tensor | Mapping):
                    found = len(value)
                else:
                    others.append(len(value))
            if found is not None:
                return found
        return None

    found = look(inputs)
    return found if found is not None else next(iter(others), None)


@contextlib.contextmanager
def same_modes(model: nn.Module) -> Iterator[None]:
    """Give every module of a network its mode back, train or eval, when the context closes."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, and restore modes and random state when the context closes."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with same_modes(model):
        model.eval()
        with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
            yield


class _FunctionalCalls(TorchFunctionMode):
    """Sees products with the weights of linear layers that a parent uses without calling them.

    Args:
        modules: the layers, by name.
        sink: told the name and the output.
    """

    def __init__(self, modules: Mapping[str, nn.Module], sink: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._names = {id(module.weight): name for name, module in modules.items()}
        self._sink = sink

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func is nn.functional.linear:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            if id(weight) in self._names:
                self._sink(self._names[id(weight)], output)
        return output


def _call_frame() -> FrameType:
    """The frame of the module call that runs the asking hook: the nearest in torch's own code."""
    frame = sys._getframe(1)
    home = nn.Module.__call__.__code__.co_filename
    while frame.f_code.co_filename != home and frame.f_back is not None:
        frame = frame.f_back
    # What runs a module's forward with its hooks is a function inside its call.
    if frame.f_code.co_name == "inner" and frame.f_back is not None:
        frame = frame.f_back
    return frame


class ActivationHooks:
    """Hands the outputs of chosen modules to a sink, for as long as the context is open.

    The number of a module's call is counted anew in every forward pass of the model. The hooks
    come off when the context closes, also after an exception. Passes in a context of
    :func:`unwatched` are not seen, so `on_start` may run one there.

    Args:
        model: the network.
        names: the chosen modules, as in ``model.named_modules()``.
        sink: where the outputs go.
        on_start: called with the arguments of the model before each forward pass.
        on_success: called after each forward pass that raised nothing.
        on_enter: called before a chosen module runs, with its name, the number of the call and its
            positional arguments.
        functional: those of the chosen modules whose weights may be used by a parent that does not
            call them; linear layers.

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
        on_enter: Sink | None = None,
        functional: Collection[str] = (),
    ) -> None:
        modules, names = dict(model.named_modules()), list(names)
        missing = [name for name in names if name not in modules]
        if missing:
            raise UsageError(f"names: expected modules of the model; got {', '.join(missing)}")
        self._model = model
        self._modules = {name: modules[name] for name in names}
        self._sink = sink
        self._on_start = on_start
        self._on_success = on_success
        self._on_enter = on_enter
        self.functional = functional
        self._calls: Counter[str] = Counter()
        self._level = 0
        self._inside = False
        self._frame: FrameType | None = None
        self._running: set[str] = set()
        self.returning: str | None = None
        """The module that is returning while the sink is called; None for a functional call."""
        self._watch: _FunctionalCalls | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> ActivationHooks:
        if self._handles:
            raise NatstatsError("hooks: expected to be entered once; they are on already")
        self._level = level.get()
        start, stop, succeed = self._of_the_model()
        self._handles.append(self._model.register_forward_pre_hook(start, with_kwargs=True))
        self._handles.append(self._model.register_forward_hook(stop, always_call=True))
        self._handles.append(self._model.register_forward_hook(succeed))
        for name, module in self._modules.items():
            if isinstance(module, torch.jit.ScriptModule):  # torch takes no hooks there
                continue
            if name in self.functional:
                self._handles.append(module.register_forward_pre_hook(self._note_call(name)))
            if self._on_enter is not None:
                enter = self._enter_hook(name, self._on_enter)
                self._handles.append(module.register_forward_pre_hook(enter))
            self._handles.append(module.register_forward_hook(self._hook(name)))
        return self

    def _of_the_model(self) -> tuple[Callable[..., None], ...]:
        """The hooks of the model: functions, which a copy of the model shares and does not copy.

        They do nothing for a copy, and nothing when the model calls itself.
        """

        def start(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            if module is self._model and level.get() == self._level and not self._is_nested():
                self._frame = _call_frame()
                self._start(inputs, named)

        def stop(module: nn.Module, inputs: Any, output: Any) -> None:
            if module is self._model and level.get() == self._level and self._is_outermost():
                self._inside, self._frame = False, None
                self._unwatch()

        def succeed(module: nn.Module, inputs: Any, output: Any) -> None:
            is_own = module is self._model and level.get() == self._level
            if is_own and self._is_outermost() and self._on_success is not None:
                with working():
                    self._on_success()

        return start, stop, succeed

    def _is_nested(self) -> bool:
        """Whether the call that began last is still running, and this one is made from within.

        A pass that was broken off may have called no closing hook, but its frame is off the stack.
        """
        if not self._inside or self._frame is None:
            return False
        frame = _call_frame().f_back
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    def _is_outermost(self) -> bool:
        """Whether the hook that asks is called for the pass that was counted."""
        return self._frame is None or _call_frame() is self._frame

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._unwatch()
        self._frame = None

    def _start(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._unwatch()  # after a pass that was broken off
        self._calls.clear()
        self._running.clear()
        if self._on_start is not None:
            with working():
                self._on_start(inputs, named)
        self._inside = True
        if self.functional:
            watched = {n: m for n, m in self._modules.items() if n in self.functional}
            self._watch = _FunctionalCalls(watched, self._functional_call)
            self._watch.__enter__()  # type: ignore[no-untyped-call, unused-ignore]

    def _unwatch(self) -> None:
        if self._watch is not None:
            watch, self._watch = self._watch, None
            watch.__exit__(None, None, None)  # type: ignore[no-untyped-call, unused-ignore]

    def _note_call(self, name: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if module is self._modules[name]:
                self._running.add(name)

        return hook

    def _enter_hook(self, name: str, told: Sink) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, inputs: Any) -> None:
            if module is self._modules[name] and self._is_watched():
                with working():
                    told(name, self._calls[name], inputs)

        return hook

    @property
    def is_inside(self) -> bool:
        """Whether a forward pass of the model is running."""
        return self._inside

    def _is_watched(self) -> bool:
        """Whether a forward pass of the model runs; a call of one of its parts does not count."""
        return self._inside and level.get() == self._level

    def _functional_call(self, name: str, output: Any) -> None:
        if name not in self._running:  # its own forward is the product that was seen
            self._hand_over(name, output)

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if module is not self._modules[name]:  # of a copy of the model
                return
            self._running.discard(name)
            self.returning = name
            try:
                self._hand_over(name, output)
            finally:
                self.returning = None

        return hook

    def _hand_over(self, name: str, output: Any) -> None:
        if not self._is_watched():
            return
        call = self._calls[name]
        self._calls[name] += 1
        with working():
            self._sink(name, call, output)

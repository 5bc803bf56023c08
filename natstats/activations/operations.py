"""The operations of a forward pass as they are dispatched: what each does, and where it stands.

An operation is recognised from pass to pass by its :class:`Place`: the call of the innermost module
that runs it, its name, and how many of the same name that call has run before. So places stay the
same for batches of another size, for which torch may run other operations in between.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from natstats.activations.dispatch import DispatchMode
from natstats.activations.hooks import ActivationHooks, at_work, level, working
from natstats.activations.selection import owned_weights
from natstats.activations.storages import HeldStorages

__all__ = ["KINDS", "OperationHooks", "Place", "kind_of"]

KINDS = (
    "convolution", "linear", "rectifier", "normalization", "pooling", "addition", "concatenation",
    "gate", "view", "other",
)  # fmt: skip
"""What operations do to maps. A rectifier is any activation function of single values."""

_KIND_OF = {
    "convolution": re.compile(r"(\w+_)?convolution(_overrideable)?$"),
    "linear": re.compile(r"(addmm|mm|linear)$"),
    "rectifier": re.compile(
        r"(relu6?|leaky_relu|rrelu_with_noise|prelu_kernel|hardtanh|hardswish|hardsigmoid|gelu|silu|"
        r"elu|selu|celu|softplus|mish|sigmoid|log_sigmoid_forward|tanh|clamp(_min)?)$"
    ),
    "normalization": re.compile(r"(\w*batch_norm\w*|native_(layer|group)_norm|instance_norm)$"),
    "pooling": re.compile(r"(avg_pool2d|adaptive_avg_pool2d|max_pool2d_with_indices|mean)$"),
    "addition": re.compile(r"(add|sub|rsub)$"),
    "concatenation": re.compile(r"cat$"),
    "gate": re.compile(r"(mul|div)$"),
    "view": re.compile(
        r"(view|reshape|permute|transpose|t|slice|select|expand|unsqueeze|squeeze|alias|detach|"
        r"as_strided|split|chunk|unbind|clone|contiguous|unsafe_view|reshape_alias|to_copy|copy|"
        r"channel_shuffle|native_channel_shuffle|pixel_shuffle|pixel_unshuffle|roll|flip|"
        r"dropout|native_dropout|lift_fresh|view_as_real|unfold)$"
    ),
}  # fmt: skip


def kind_of(name: str) -> str:
    """What an operation does to maps, one of :data:`KINDS`.

    Args:
        name: of the operation, without overload and underscores around it.

    >>> kind_of("hardtanh"), kind_of("native_batch_norm"), kind_of("bmm")
    ('rectifier', 'normalization', 'other')
    """
    return next((kind for kind, names in _KIND_OF.items() if names.match(name)), "other")


class Place(NamedTuple):
    """Where in a forward pass an operation stands.

    Attributes:
        module: dotted name of the innermost module that runs it, empty for the model itself.
        call: number of the module's call in the pass.
        name: of the operation.
        number: how many of that name the call has run before.
    """

    module: str
    call: int
    name: str
    number: int


_WHOLE: set[Any] = set()
"""Operations that are not made of others, kept because asking torch each time is slow."""

After = Callable[[Any], None]
"""Called with what an operation returned."""

Operations = Callable[[Place, Any, "dict[str, Any]"], After | None]
"""Called before an operation with its place, torch's own record of it and its arguments by name;
what it returns is called afterwards. Both may work with tensors without being seen."""

Layers = Callable[[str, int, Any], None]
"""Called with the name of a module that has returned, the number of its call and its output."""


class OperationHooks(DispatchMode):
    """Shows every operation of a model's forward passes, for as long as the context is open.

    Products, additions, activations: all that reaches torch, whether a module or a function asked
    for it. Gradients are off in the context, and attention takes the path that shows its parts.

    Args:
        model: the network.
        on_operation: called before every operation.
        on_layer: called after every call of a module; with it the storages of the pass are held, so
            that no address is used twice before the pass has ended.
        on_start: called before each pass, with the arguments of the model.
        on_success: called after each pass that raised nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        on_operation: Operations,
        on_layer: Layers | None = None,
        on_start: Callable[[tuple[Any, ...], dict[str, Any]], None] | None = None,
        on_success: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self._on_operation, self._on_layer = on_operation, on_layer
        self._on_start = on_start
        modules = dict(model.named_modules())
        owned = owned_weights(model)
        linear: set[str] = set()
        if on_layer is not None:  # only then it matters which parent uses the weights of whom
            linear = {n for n, m in modules.items() if type(m) is nn.Linear and n not in owned}
        self._hooks = ActivationHooks(
            model,
            [name for name in modules if name],
            self._leave,
            self._start,
            on_success,
            on_enter=self._enter,
            functional=linear - {""},
        )
        self.places: Container[Place] | None = None
        """Places of the operations that are shown; None for all."""
        self._contexts = ExitStack()
        self._start((), {}, is_pass=False)

    def __enter__(self) -> OperationHooks:
        self._level = level.get()
        self._contexts.enter_context(torch.no_grad())
        self._contexts.callback(
            torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled()
        )
        torch.backends.mha.set_fastpath_enabled(False)
        self._contexts.enter_context(self._hooks)
        super().__enter__()  # type: ignore[no-untyped-call, unused-ignore]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call, unused-ignore]
        self._contexts.close()

    def _start(self, inputs: tuple[Any, ...], named: dict[str, Any], is_pass: bool = True) -> None:
        self._scopes: list[tuple[str, int]] = [("", 0)]
        self._calls: Counter[str] = Counter()
        self._run: Counter[tuple[str, int, str]] = Counter()
        self.storages = HeldStorages()
        if is_pass and self._on_start is not None:
            self._on_start(inputs, named)

    def _enter(self, name: str, call: int, given: Any) -> None:
        self._scopes.append((name, self._calls[name]))
        self._calls[name] += 1

    def _leave(self, name: str, call: int, output: Any) -> None:
        if self._hooks.returning == name:
            while len(self._scopes) > 1 and self._scopes.pop()[0] != name:
                pass  # left by an exception that the network has caught itself
        if self._on_layer is not None:
            self._on_layer(name, call, output)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self._hooks.is_inside or at_work.get() or level.get() != self._level:
            return func(*args, **kwargs)
        if func not in _WHOLE and not func.overloadpacket.__name__.startswith("upsample"):
            with self.again():
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
            _WHOLE.add(func)
        name = func.overloadpacket.__name__.strip("_")
        scope = self._scopes[-1]
        seen = *scope, name
        place = Place(*seen, self._run[seen])
        self._run[seen] += 1
        if self.places is not None and place not in self.places:
            return func(*args, **kwargs)
        with working():
            after = self._on_operation(place, func, _by_name(func, args, kwargs))
        output = func(*args, **kwargs)
        if self._on_layer is not None:
            for leaf in tree_leaves((args, kwargs, output)):
                if isinstance(leaf, Tensor):
                    self.storages.hold(leaf)
        if after is not None:
            with working():
                after(output)
        return output

    def again(self) -> Any:
        """A context with the mode on again, inside an operation, where torch has it off."""
        return _Again(self)


class _Again:
    """Enters a dispatch mode without the hooks that its own context puts on."""

    def __init__(self, mode: TorchDispatchMode) -> None:
        self._mode = mode

    def __enter__(self) -> None:
        TorchDispatchMode.__enter__(self._mode)  # type: ignore[no-untyped-call, unused-ignore]

    def __exit__(self, *error: Any) -> None:
        TorchDispatchMode.__exit__(self._mode, *error)  # type: ignore[no-untyped-call, unused-ignore]


def _by_name(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of an operation by their names, with the defaults of the rest."""
    found = {one.name: one.default_value for one in func._schema.arguments}
    for one, value in zip(func._schema.arguments, args, strict=False):
        found[one.name] = value
    found.update(kwargs)
    return found

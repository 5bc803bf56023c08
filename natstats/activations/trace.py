"""One pass of one image through a network: which layers are called, in what order, how deep.

The depth of a layer is the number of weight layers (convolutions and products with a learned
matrix) on the longest path from the input to it. It is found by following the data itself: every
operation of the pass is seen as it is dispatched, its result is as deep as its deepest input, one
deeper when it multiplies data with weights. So it is right for residual, dense, branching and
attention networks alike, without a graph of the code.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from natstats.activations.dispatch import DispatchMode
from natstats.activations.hooks import ActivationHooks, batch_size, parts_of, unwatched
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import Layout
from natstats.activations.map_sets import frame_major, watched_regions
from natstats.activations.own_output import OwnOutput, is_named_classifier, is_normalisation
from natstats.activations.passes import repeatable, unchanged
from natstats.activations.receptive_field import ReceptiveFields
from natstats.activations.selection import (
    block_names,
    call_name,
    is_weight_layer,
    module_kind,
    owned_weights,
)
from natstats.activations.storages import HeldStorages, storage_key

__all__ = ["LayerCall", "Trace", "trace_calls"]

_PRODUCTS = ("addmm", "mm", "bmm", "baddbmm", "matmul", "addmv", "mv", "addbmm")
_NAMED_PRODUCTS = re.compile(r"conv(?!ert)|^linear")
_KNOWN = ("aten", "prims", "prim", "torchvision", "quantized")
"""Libraries whose operations are known. Any other operation with weights counts as a product."""


def _is_product(func: Any) -> bool:
    """Whether an operation multiplies data with what may be weights."""
    name = func.overloadpacket.__name__.lstrip("_")
    is_known = func.namespace in _KNOWN
    return not is_known or name in _PRODUCTS or _NAMED_PRODUCTS.search(name) is not None


_QUANTIZED = "quantized::"


@dataclass(frozen=True)
class LayerCall:
    """One call of one module, seen in the traced pass; one tensor of what it returned.

    Attributes:
        name: of the layer, with the number of the call from the second on, and the part.
        module: dotted name of the module.
        call: 0 for the first.
        kind: see :func:`natstats.activations.selection.module_kind`.
        depth: weight layers on the longest path from the input.
        shape: of the output.
        order: weight layers that were executed up to here, this one included.
        receptive_field: side of the theoretical receptive field along the height, input pixels; NaN
            when it could not be followed.
        layout: where the maps are, or why there are none.
        pitch: input pixels from one row of the maps to the next; NaN when it could not be
            followed.
        is_called: False where a parent used the weights of the module without calling it.
        is_output: whether it is the network's own output, see
            :mod:`natstats.activations.own_output`; None when that is not known.
    """

    name: str
    module: str
    call: int
    kind: str
    depth: int
    shape: tuple[int, ...]
    order: int
    receptive_field: float
    layout: Layout | str = ""
    pitch: float = math.nan
    is_called: bool = True
    is_output: bool | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """All module calls of a pass, in the order in which they returned.

    Attributes:
        calls: the calls.
        followed: False when the data could not be followed: depth is then the order, and no
            receptive field is known.
        rules: what was learned of the layouts.
        multiplying: modules with weights of their own that data were multiplied with.
        arguments: of the pass, as they were before it.
        output: what the model returned.
    """

    calls: tuple[LayerCall, ...]
    followed: bool
    rules: LayoutRules
    multiplying: frozenset[str] = frozenset()
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = field(default=((), {}), repr=False)
    output: Any = field(default=None, repr=False)

    @cached_property
    def by_name(self) -> dict[str, LayerCall]:
        """The calls by the name of the layer."""
        return {call.name: call for call in self.calls}

    @cached_property
    def functional(self) -> set[str]:
        """Modules whose weights a parent used without ever calling them."""
        called = {call.module for call in self.calls if call.is_called}
        return {call.module for call in self.calls} - called

    def stages(self, model: nn.Module, smallest: int = 5) -> list[str]:
        """Modules whose output is the last at its resolution: blocks, else convs and activations.

        Outputs with a side below `smallest` pixels are left out.
        """
        blocks = set(block_names(model))
        last: dict[tuple[int, ...], str] = {}
        for call in self.calls:
            wanted = call.module in blocks if blocks else call.kind in ("conv", "act")
            if wanted and isinstance(call.layout, Layout):
                last[call.layout.grid[-2:]] = call.module
        return [name for size, name in last.items() if min(size) >= smallest]


class _DepthMode(DispatchMode):
    """Keeps the depth of the data in every storage, and which storages hold weights only.

    It follows the receptive fields and the network's own output, too.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.fields = ReceptiveFields(inputs)
        self.own = OwnOutput(inputs)
        self._depth: dict[int, int] = {}
        self._storages = HeldStorages()
        self.multiplied: set[int] = set()
        """Storages of weights that data were multiplied with."""
        self._weights = {storage_key(p) for p in [*model.parameters(), *model.buffers()]}
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                self._depth[storage_key(leaf)] = 0

    def has_multiplied(self, weight: Tensor) -> bool:
        return storage_key(weight) in self.multiplied

    def depends_on_input(self, output: Tensor) -> bool:
        return storage_key(output) in self._depth

    def depth_of(self, output: Any) -> int:
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        return max((self._depth.get(storage_key(leaf), 0) for leaf in leaves), default=0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode compound operations arrive whole, but the rules know only their parts.
        # Interpolation stays whole: torch would make an indexing of it.
        if not func.overloadpacket.__name__.startswith("upsample"):
            with self:
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        output = func(*args, **kwargs)
        for leaf in tree_leaves((args, kwargs, output)):
            if isinstance(leaf, Tensor):
                self._storages.hold(leaf)
        self.fields.follow(func, args, kwargs, output)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        keys = [storage_key(tensor) for tensor in tensors]
        depths = [self._depth[key] for key in keys if key in self._depth]
        weights = {
            key
            for key, tensor in zip(keys, tensors, strict=True)
            if key in self._weights and tensor.ndim >= 2
        }
        by_weights, is_product = bool(weights), _is_product(func)
        if is_product and depths:
            self.multiplied |= weights
        # The weights of a quantised product are packed, and no tensor.
        by_weights = by_weights or func.name().startswith(_QUANTIZED)
        is_deeper = by_weights and is_product
        self.own.follow(func, args, kwargs, output, is_deeper)
        for leaf in tree_leaves(output):
            if not isinstance(leaf, Tensor):
                continue
            key = storage_key(leaf)
            if depths:
                deep = max(depths) + (1 if is_deeper else 0)
                # A storage that was there before keeps what is deepest in it.
                self._depth[key] = max(deep, self._depth.get(key, 0))
                self._weights.discard(key)
            elif key not in keys and any(source in self._weights for source in keys):
                self._weights.add(key)
        return output


def _run(
    model: nn.Module,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
    rules: LayoutRules,
    mode: _DepthMode | None,
) -> tuple[list[LayerCall], Any]:
    calls: list[LayerCall] = []
    modules = dict(model.named_modules())
    owned = owned_weights(model)
    n_weight_layers = 0

    def note(name: str, call: int, output: Any) -> None:
        nonlocal n_weight_layers
        module = modules[name]
        # Attention has two products with weights on its way: into queries and keys, and out.
        n_weight_layers += (
            1 + isinstance(module, nn.MultiheadAttention) if is_weight_layer(module) else 0
        )
        for part, tensor in parts_of(output):
            layer = call_name(name, call, part)
            if mode is not None:
                mode.own.leave(name, tensor)
            if mode is not None and not mode.depends_on_input(tensor):
                rules.refuse(layer, "its output does not depend on the images")
            layout, pitch = rules.find(name, tensor, call=call, part=part), math.nan
            if mode is not None and isinstance(layout, Layout):
                pitch = mode.fields.pitch_of(tensor, layout.grid[-2])
            calls.append(
                LayerCall(
                    layer,
                    name,
                    call,
                    module_kind(module),
                    n_weight_layers if mode is None else mode.depth_of(tensor),
                    tuple(tensor.shape),
                    n_weight_layers,
                    math.nan if mode is None else mode.fields.side_of(tensor),
                    layout,
                    pitch,
                    is_called=hooks.returning == name,
                )
            )

    def enter(name: str, call: int, given: Any) -> None:
        if mode is not None and is_normalisation(modules[name]):
            mode.own.enter(name, given)

    rules.start((inputs, named), batch_size([*inputs, *named.values()]) or 1)
    linear = {n for n, m in modules.items() if type(m) is nn.Linear and n and n not in owned}
    names = [name for name in modules if name]
    hooks = ActivationHooks(model, names, note, on_enter=enter, functional=linear)
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        # The fused attention hides its weight layers in one operation.
        torch.backends.mha.set_fastpath_enabled(False)
        following = mode or contextlib.nullcontext()
        watching = watched_regions(model, rules)
        with unchanged(model), repeatable(), torch.no_grad(), hooks, watching, following:
            output = model(*inputs, **named)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        # Older versions of torch would use again what autocast has cast in here without gradient.
        torch.clear_autocast_cache()
    if mode is not None:
        calls = _with_own_output(model, calls, mode.own, output)
    return calls, output


def _with_own_output(
    model: nn.Module, calls: list[LayerCall], own: OwnOutput, output: Any
) -> list[LayerCall]:
    """The same calls, each with whether it is the network's own output."""
    found = []
    for call, way in zip(calls, own.ways_out(output), strict=True):
        n_maps = None
        if isinstance(call.layout, Layout) and call.shape:
            n_maps = call.shape[1 if call.layout.channels_first else -1]
        is_classifier = is_named_classifier(model, call.module, n_maps)
        found.append(replace(call, is_output=None if way is None else way.is_output(is_classifier)))
    return found


def trace_calls(
    model: nn.Module,
    inputs: tuple[Any, ...],
    named: dict[str, Any] | None = None,
    layouts: Mapping[str, str] | None = None,
) -> Trace:
    """Run `inputs` through the model once, in eval mode, and return every module call.

    Where an output holds several sets of maps for the image, two more passes of two images show in
    what order they stand. Mode, random state and buffers are as before when it returns.

    Args:
        model: the network.
        inputs: arguments of the forward pass, of one image.
        named: its keyword arguments.
        layouts: declared layouts, see :func:`natstats.activations.declared_layouts.parse_layouts`.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> [(c.name, c.depth) for c in trace_calls(model, (torch.zeros(1, 3, 9, 9),)).calls]
    [('0', 1), ('1', 1), ('2', 2)]
    """
    with unwatched():
        return _traced(model, inputs, named or {}, layouts)


def _traced(
    model: nn.Module,
    inputs: tuple[Any, ...],
    named: dict[str, Any],
    layouts: Mapping[str, str] | None,
) -> Trace:
    arguments = inputs, named

    def own() -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Copies, as a network may write into what it is given."""
        copied: tuple[tuple[Any, ...], dict[str, Any]] = tree_map_only(
            Tensor, lambda tensor: tensor.detach().clone(), arguments
        )
        return copied

    followed = True
    rules = LayoutRules(model, layouts)
    given = own()
    mode = _DepthMode(model, given)
    try:
        calls, output = _run(model, *given, rules, mode)
    except (RuntimeError, NotImplementedError, AttributeError):
        # Something that cannot be dispatched through Python; if the model itself is at fault the
        # plain pass fails in the same way, and says so.
        followed = False
        rules = LayoutRules(model, layouts)
        calls, output = _run(model, *own(), rules, None)
    several = {c.name for c in calls if isinstance(c.layout, Layout) and c.layout.sets > 1}
    if several:
        for name in frame_major(model, *own(), several):
            rules.put_frames_first(name)
    multiplying = frozenset(
        name
        for name, module in model.named_modules()
        if any(mode.has_multiplied(p) for p in module.parameters(recurse=False))
    )
    return Trace(tuple(calls), followed, rules, multiplying, own(), output)

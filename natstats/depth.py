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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from natstats.activations import block_names, call_name, module_kind
from natstats.receptive import ReceptiveFields

__all__ = ["LayerCall", "Trace", "trace_calls", "undisturbed"]

_PRODUCTS = ("conv", "linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "addmv", "mv")


@dataclass(frozen=True)
class LayerCall:
    """One call of one module, seen in the traced pass.

    Attributes:
        name: of the layer, with the number of the call from the second on.
        module: dotted name of the module.
        call: 0 for the first.
        kind: see :func:`natstats.activations.module_kind`.
        depth: weight layers on the longest path from the input.
        shape: of the output, None when it is not one tensor.
        order: weight layers that were executed up to here, this one included.
        receptive_field: side of the theoretical receptive field along the height, input pixels; NaN
            when it could not be followed.
    """

    name: str
    module: str
    call: int
    kind: str
    depth: int
    shape: tuple[int, ...] | None
    order: int
    receptive_field: float


@dataclass(frozen=True)
class Trace:
    """All module calls of a pass, in the order in which they returned.

    Attributes:
        calls: the calls.
        followed: False when the data could not be followed: depth is then the order, and no
            receptive field is known.
    """

    calls: tuple[LayerCall, ...]
    followed: bool

    def call_of(self, name: str) -> LayerCall | None:
        """The layer called `name`, None when it was not called."""
        return next((call for call in self.calls if call.name == name), None)

    def depth_of(self, name: str) -> int | None:
        """Depth of the layer called `name`, None when it was not called."""
        call = self.call_of(name)
        return None if call is None else call.depth

    def stages(self, model: nn.Module, smallest: int = 5) -> list[str]:
        """Modules whose output is the last at its resolution: blocks if there are any, else convs.

        Outputs with a side below `smallest` pixels are left out.
        """
        blocks = set(block_names(model))
        last: dict[tuple[int, ...], str] = {}
        for call in self.calls:
            wanted = call.module in blocks if blocks else call.kind in ("conv", "act")
            if wanted and call.shape is not None and len(call.shape) == 4:
                last[call.shape[2:]] = call.module
        return [name for size, name in last.items() if min(size) >= smallest]


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put the model in eval mode, and give back modes and random state as they were."""
    modes = [(module, module.training) for module in model.modules()]
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    try:
        model.eval()
        with torch.random.fork_rng(devices=[d for d in devices if d is not None]):
            yield
    finally:
        for module, training in modes:
            module.training = training


class _DepthMode(TorchDispatchMode):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """Keeps the depth of the data in every storage, and which storages hold weights only.

    The receptive fields are followed along with it.
    """

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.fields = ReceptiveFields(inputs)
        self._depth: dict[int, int] = {}
        self._weights = {self._key(p) for p in [*model.parameters(), *model.buffers()]}
        for leaf in tree_leaves(inputs):
            if isinstance(leaf, Tensor):
                self._depth[self._key(leaf)] = 0

    @staticmethod
    def _key(tensor: Tensor) -> int:
        # A storage, not a tensor: views and in-place writes share it.
        return int(tensor.untyped_storage()._cdata)

    def depth_of(self, output: Any) -> int:
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        return max((self._depth.get(self._key(leaf), 0) for leaf in leaves), default=0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        # In inference mode compound operations arrive whole; both countings know only their parts.
        # Not so interpolation, of which torch makes an indexing.
        if not func.overloadpacket.__name__.startswith("upsample"):
            with self:
                whole = func.decompose(*args, **kwargs)
            if whole is not NotImplemented:
                return whole
        output = func(*args, **kwargs)
        self.fields.follow(func, args, kwargs, output)
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        keys = [self._key(tensor) for tensor in tensors]
        depths = [self._depth[key] for key in keys if key in self._depth]
        name = func.overloadpacket.__name__.lstrip("_")
        by_weights = any(
            key in self._weights and tensor.ndim >= 2
            for key, tensor in zip(keys, tensors, strict=True)
        )
        is_product = name.startswith(_PRODUCTS[:2]) or name in _PRODUCTS
        for leaf in tree_leaves(output):
            if not isinstance(leaf, Tensor):
                continue
            key = self._key(leaf)
            if depths:
                deep = max(depths) + (1 if by_weights and is_product else 0)
                # A storage that was there before keeps what is deepest in it; a new one may have
                # the address of one that is gone.
                self._depth[key] = max(deep, self._depth.get(key, 0)) if key in keys else deep
                self._weights.discard(key)
            elif key not in keys:
                self._depth.pop(key, None)
                if any(source in self._weights for source in keys):
                    self._weights.add(key)
                else:
                    self._weights.discard(key)
        return output


def _run(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], mode: _DepthMode | None
) -> list[LayerCall]:
    calls: list[LayerCall] = []
    counter: Counter[str] = Counter()
    n_weight_layers = 0

    def hook_for(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            nonlocal n_weight_layers
            kind = module_kind(module)
            n_weight_layers += isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
            call = counter[name]
            counter[name] += 1
            depth = n_weight_layers if mode is None else mode.depth_of(output)
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            field = math.nan if mode is None else mode.fields.side_of(output)
            names = call_name(name, call), name, call, kind
            calls.append(LayerCall(*names, depth, shape, n_weight_layers, field))

        return hook

    handles = [m.register_forward_hook(hook_for(n)) for n, m in model.named_modules() if n]
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        # The fused attention hides its weight layers in one operation.
        torch.backends.mha.set_fastpath_enabled(False)
        with undisturbed(model), torch.no_grad(), mode or contextlib.nullcontext():
            model(*inputs, **named)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for handle in handles:
            handle.remove()
    return calls


def trace_calls(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any] | None = None
) -> Trace:
    """Run `inputs` through the model once, in eval mode, and return every module call.

    Mode, random state and buffers are as before when it returns.

    Args:
        model: the network.
        inputs: arguments of the forward pass; one image is enough.
        named: its keyword arguments.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    >>> [(c.name, c.depth) for c in trace_calls(model, (torch.zeros(1, 3, 9, 9),)).calls]
    [('0', 1), ('1', 1), ('2', 2)]
    """
    named = named or {}
    try:
        calls = _run(model, inputs, named, _DepthMode(model, (inputs, named)))
        return Trace(tuple(calls), True)
    except (RuntimeError, NotImplementedError, AttributeError):
        # Something that cannot be dispatched through Python; if the model itself is at fault the
        # plain pass fails in the same way, and says so.
        return Trace(tuple(_run(model, inputs, named, None)), False)

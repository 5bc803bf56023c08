"""Taps, which record the maps of layers while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from natstats.activations.hooks import ActivationHooks, undisturbed, unwatched
from natstats.activations.layouts import Layout
from natstats.activations.probe import proved_layouts
from natstats.activations.selection import call_name
from natstats.activations.trace import trace_calls
from natstats.brief import Brief
from natstats.distill.method import Outputs
from natstats.distill.traces import Traces
from natstats.errors import NatstatsError, UsageError

__all__ = ["INPUT", "Tapped", "Taps", "parsed"]

INPUT = "@input"
"""Ends the name of a tap on the input of a layer."""


def parsed(name: str) -> tuple[str, int, bool]:
    """Module, number of the call, and whether the tap is on its input, from the name of a tap."""
    rest, marked, _ = name.partition(INPUT)
    module, colon, call = rest.rpartition(":")
    if colon and call.isdigit():
        return module, int(call), bool(marked)
    return rest, 0, bool(marked)


@dataclass(frozen=True, eq=False, repr=False)
class Tapped(Brief):
    """What the taps gave in the last pass.

    Attributes:
        maps: the maps of every tap that was called, (N, C, H, W), by its name.
        names: names of all taps, in the order in which they were asked for.
    """

    maps: Mapping[str, Tensor]
    names: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Tensor:
        """The maps of a tap, (N, C, H, W)."""
        if name not in self.maps:
            raise NatstatsError(f"tap {name}: expected the network to call it; it did not")
        return self.maps[name]

    def outputs(self, logits: Tensor, images: Tensor | None = None) -> Outputs:
        """The maps in the order of the taps beside the scores, as every loss takes them.

        Args:
            logits: class scores of the same pass, (N, K).
            images: what the network was given, (N, 3, H, W), for losses that use it.
        """
        return Outputs(logits, tuple(self[name] for name in self.names), images)


class Taps:
    """Records the maps of layers while a network runs, with their gradients, and changes nothing.

    No module is called again: a map before a ReLU is taken as what goes into the ReLU, not by a
    second call of a batch norm, which would change its statistics. A map that the network
    overwrites later in the same pass is copied first. The taps are active inside a ``with``, which
    may stand around one pass, around a whole loop, or inside another one of the same taps.

    Args:
        model: the network.
        names: names of layers, such as ``layer1.0.relu:1``; ``@input`` after a name stands
            for what goes into the layer.
        images: (1, 3, H, W), for one pass in eval mode that shows layouts and what is overwritten;
            None for the first image of the first pass inside a ``with``.
        traces: results of passes traced before, which are reused and added to; None for none.

    Attributes:
        names: names of the taps, each once.
        shapes: (C, H, W) of every tap by its name; empty before the first pass where there were no
            images.

    Raises:
        UsageError: there is no such layer, or its output holds no maps.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> taps = Taps(model, ["1@input", "1"])
    >>> for images in torch.randn(3, 2, 3, 8, 8):
    ...     with taps:
    ...         scores = model(images).mean((2, 3))
    ...     tapped = taps.take()
    >>> bool(tapped["1@input"].min() < 0), bool(tapped["1"].min() < 0)
    (True, False)
    >>> taps.shapes["1"], [tuple(maps.shape) for maps in tapped.outputs(scores).maps]
    ((4, 6, 6), [(2, 4, 6, 6), (2, 4, 6, 6)])
    """

    def __init__(
        self,
        model: nn.Module,
        names: Sequence[str],
        images: Tensor | None = None,
        traces: Traces | None = None,
    ) -> None:
        if isinstance(names, str):
            raise UsageError(f"names: expected a list of names of layers; got the text {names!r}")
        self.names = list(dict.fromkeys(names))
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self._model = model
        self._taps = {name: parsed(name) for name in self.names}
        self._by_call = {tap: name for name, tap in self._taps.items()}
        self._maps: dict[str, Tensor] = {}
        self._copied: set[str] = set()
        self._entered = 0
        self._refuse_unknown()
        self._hooks = self._made_hooks(self._start)
        self._layouts: dict[str, Layout] = {}
        self._traces = traces
        if images is not None:
            self._prepare((images,), {})

    def _made_hooks(self, on_start: Callable[..., None] | None) -> ActivationHooks:
        has_inputs = any(is_input for _, _, is_input in self._taps.values())
        return ActivationHooks(
            self._model,
            list(dict.fromkeys(module for module, _, _ in self._taps.values())),
            self._after,
            on_start=on_start,
            on_enter=self._before if has_inputs else None,
        )

    @property
    def _is_ready(self) -> bool:
        return len(self.shapes) == len(self.names)

    def _refuse_unknown(self) -> None:
        modules = [name for name, _ in self._model.named_modules() if name]
        for name, (module, _, _) in self._taps.items():
            if module not in modules:
                near = [n for n in modules if n.split(".")[0] == module.split(".")[0]]
                listed = ", ".join((near or modules)[:12])
                raise UsageError(f"tap: expected a layer, such as {listed}; got {name!r}")

    def _prepare(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Find layouts and shapes of the maps, and which of them the network overwrites later.

        Args:
            inputs: arguments of the forward pass, of one image.
            named: its keyword arguments.
        """
        if self._is_ready:
            return
        self._layouts = self._find_layouts(inputs, named)
        versions: dict[str, tuple[Tensor, int]] = {}
        self._on_take = lambda name, raw: versions.update({name: (raw, raw._version)})
        try:
            # With hooks of its own: those that are on must not see this pass.
            with unwatched(), self._made_hooks(None), undisturbed(self._model), torch.no_grad():
                self._model(*inputs, **named)
        finally:
            self._on_take = None
        tapped = self.take()
        self._copied = {n for n, (raw, before) in versions.items() if raw._version != before}
        for name in self.names:
            _, channels, height, width = tapped[name].shape
            self.shapes[name] = int(channels), int(height), int(width)

    def _find_layouts(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Layout]:
        layouts = self._proved(inputs, named)
        found = {}
        for name, (module, number, _) in self._taps.items():
            layout = layouts.get(call_name(module, number), "it is not called")
            if not isinstance(layout, Layout) or len(layout.grid) != 2:
                reason = layout if isinstance(layout, str) else f"it has the layout {layout}"
                raise UsageError(f"tap {name}: expected a layer with maps; {reason}")
            found[name] = layout
        return found

    def _proved(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> Mapping[str, Layout | str]:
        if self._traces is not None and len(inputs) == 1 and not named:
            return self._traces.of(self._model, inputs[0]).layouts
        trace = trace_calls(self._model, inputs, named)
        return proved_layouts(self._model, trace, {tap[0] for tap in self._taps.values()})

    def __enter__(self) -> Taps:
        if not self._entered:
            self._hooks.__enter__()
        self._entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self._hooks.__exit__(kind, error, trace)

    _on_take: Callable[[str, Tensor], None] | None = None

    def _start(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._maps = {}
        if not self._is_ready:
            self._prepare(
                tuple(_first(one) for one in inputs), {k: _first(one) for k, one in named.items()}
            )

    def _before(self, module: str, call: int, inputs: tuple[Any, ...]) -> None:
        self._keep((module, call, True), inputs[0] if inputs else None)

    def _after(self, module: str, call: int, output: Any) -> None:
        self._keep((module, call, False), output)

    def _keep(self, tap: tuple[str, int, bool], raw: Any) -> None:
        name = self._by_call.get(tap)
        if name is None:
            return
        if not isinstance(raw, Tensor):
            raise UsageError(f"tap {name}: expected a tensor; got {type(raw).__name__}")
        if self._on_take is not None:
            self._on_take(name, raw)
        self._maps[name] = self._layouts[name].maps(raw.clone() if name in self._copied else raw)

    def take(self) -> Tapped:
        """What the last pass gave; afterwards the taps no longer hold it."""
        maps, self._maps = self._maps, {}
        return Tapped(maps, tuple(self.names))


def _first(argument: Any) -> Any:
    """The first image of a batch; an argument that is not a batch stays as it is."""
    if isinstance(argument, Tensor) and argument.ndim:
        return argument.detach()[:1]
    return argument

"""Taps: they take the maps of layers while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from natstats.activations.hooks import undisturbed
from natstats.activations.layouts import Layout
from natstats.activations.probe import proved_layouts
from natstats.activations.selection import call_name
from natstats.activations.trace import trace_calls
from natstats.errors import NatstatsError, UsageError

__all__ = ["INPUT", "Tapped", "Taps", "parsed"]

INPUT = "@input"
"""Marks a tap on what goes into a layer."""


def parsed(name: str) -> tuple[str, int, bool]:
    """Module, call and whether its input is meant."""
    rest, marked, _ = name.partition(INPUT)
    module, colon, call = rest.rpartition(":")
    if colon and call.isdigit():
        return module, int(call), bool(marked)
    return rest, 0, bool(marked)


@dataclass(frozen=True, eq=False)
class Tapped:
    """What the taps gave in the last pass."""

    maps: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        """The maps of a tap, (N, C, H, W)."""
        if name not in self.maps:
            raise NatstatsError(f"tap {name}: expected the network to call it; it did not")
        return self.maps[name]


class Taps:
    """Takes the maps of layers while a network runs, with their gradients, and changes nothing.

    No module is called for it: a map before a ReLU is what goes into the ReLU, not a second call
    of a batch norm, which would change its statistics. A map that the network overwrites later in
    the same pass is copied first.

    Args:
        model: the network.
        names: of layers, such as ``layer1.0.relu:1``; with ``@input`` behind them, for what goes
            into the layer.
        images: (1, 3, H, W), for one pass in eval mode that shows layouts and what is overwritten.

    Raises:
        UsageError: there is no such layer, or its output holds no maps.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> with Taps(model, ["1@input", "1"], torch.zeros(1, 3, 8, 8)) as taps:
    ...     _ = model(torch.randn(2, 3, 8, 8))
    >>> tapped = taps.take()
    >>> bool(tapped["1@input"].min() < 0), bool(tapped["1"].min() < 0)
    (True, False)
    """

    def __init__(self, model: nn.Module, names: Sequence[str], images: Tensor) -> None:
        self.names = list(dict.fromkeys(names))
        self._model = model
        self._taps = {name: parsed(name) for name in self.names}
        self._handles: list[RemovableHandle] = []
        self._calls: dict[str, int] = {}
        self._maps: dict[str, Tensor] = {}
        self._layouts: dict[str, Layout] = {}
        self._copied: set[str] = set()
        self.shapes: dict[str, tuple[int, int, int]] = {}
        if self.names:
            self._look(images)

    def _look(self, images: Tensor) -> None:
        modules = dict(self._model.named_modules())
        for name, (module, _, _) in self._taps.items():
            if module not in modules or not module:
                near = [n for n in modules if n and n.split(".")[0] == module.split(".")[0]]
                listed = ", ".join((near or [n for n in modules if n])[:12])
                raise UsageError(f"tap: expected a layer, such as {listed}; got {name!r}")
        trace = trace_calls(self._model, (images,))
        layouts = proved_layouts(self._model, trace, {tap[0] for tap in self._taps.values()})
        for name, (module, number, _) in self._taps.items():
            layout = layouts.get(call_name(module, number), "it is not called")
            if not isinstance(layout, Layout) or len(layout.grid) != 2:
                reason = layout if isinstance(layout, str) else f"it has the layout {layout}"
                raise UsageError(f"tap {name}: expected a layer with maps; {reason}")
            self._layouts[name] = layout
        with self, undisturbed(self._model), torch.no_grad():
            self._copied = set()
            versions: dict[str, tuple[Tensor, int]] = {}
            self._on_take: Callable[[str, Tensor], None] | None = lambda name, raw: versions.update(
                {name: (raw, raw._version)}
            )
            try:
                self._model(images)
            finally:
                self._on_take = None
            tapped = self.take()
        self._copied = {n for n, (raw, before) in versions.items() if raw._version != before}
        for name in self.names:
            _, channels, height, width = tapped[name].shape
            self.shapes[name] = int(channels), int(height), int(width)

    def __enter__(self) -> Taps:
        if self._handles:
            raise NatstatsError("taps: expected to be entered once; they are on already")
        modules = dict(self._model.named_modules())
        wanted: dict[str, dict[tuple[int, bool], str]] = {}
        for name, (module, call, is_input) in self._taps.items():
            wanted.setdefault(module, {})[call, is_input] = name
        self._handles.append(self._model.register_forward_pre_hook(self._start))
        for module, names in wanted.items():
            self._handles.append(modules[module].register_forward_pre_hook(self._before(names)))
            self._handles.append(modules[module].register_forward_hook(self._after(module, names)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    _on_take: Callable[[str, Tensor], None] | None = None

    def _start(self, module: nn.Module, inputs: Any) -> None:
        self._calls = {name: 0 for name, _, _ in self._taps.values()}
        self._maps = {}

    def _keep(self, name: str, raw: Any) -> None:
        if not isinstance(raw, Tensor):
            raise UsageError(f"tap {name}: expected a tensor; got {type(raw).__name__}")
        if self._on_take is not None:
            self._on_take(name, raw)
        self._maps[name] = self._layouts[name].maps(raw.clone() if name in self._copied else raw)

    def _before(self, names: Mapping[tuple[int, bool], str]) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            for (call, is_input), name in names.items():
                if is_input and self._calls[self._taps[name][0]] == call:
                    self._keep(name, inputs[0] if inputs else None)

        return hook

    def _after(self, module_name: str, names: Mapping[tuple[int, bool], str]) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            call = self._calls.get(module_name, 0)
            self._calls[module_name] = call + 1
            name = names.get((call, False))
            if name is not None:
                self._keep(name, output)

        return hook

    def take(self) -> Tapped:
        """What the last pass gave; the taps hold it no longer."""
        maps, self._maps = self._maps, {}
        return Tapped(maps)

"""From forward passes to one spectrum per layer: hooks and accumulators put together."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.activations import ActivationHooks, batch_size, call_name, module_kind, select_modules
from natstats.depth import Trace, trace_calls
from natstats.edges import EDGES
from natstats.errors import NatstatsError, UsageError
from natstats.radial import MINIMUM_SIDE
from natstats.records import Layer, LayerSpectrum, SkippedLayer
from natstats.spectra import SpectrumAccumulator

__all__ = ["Collector"]


def _first(value: Any) -> Any:
    """The first image of an argument that holds several, as a copy."""
    return value[:1].detach().clone() if isinstance(value, Tensor) and value.ndim else value


class Collector:
    """Measures the spectra of a network's layers while anyone's own loop runs it.

    Open it as a context around the forward passes. Every output of a chosen module goes into an
    accumulator on its device at once; nothing else is kept, so memory does not grow with the
    number of images. Images are numbered as they come, unless :meth:`number_images` says
    otherwise. A forward pass that fails is not counted. The hooks come off when the context closes,
    also after an exception.

    Args:
        model: the network.
        layers: which modules, see :func:`natstats.activations.select_modules`; by default every
            convolution.
        edges: edge treatment, see :mod:`natstats.edges`.
        n_groups: groups of images, the unit of resampling.
        trace: a traced pass of the model; by default the first image that came is traced when the
            context closes.

    Raises:
        UsageError: an argument is out of range, or no layer matched.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    >>> with Collector(model) as collector:
    ...     for _ in range(4):
    ...         _ = model(torch.rand(8, 3, 32, 32))
    >>> [(s.layer.name, s.layer.depth, s.spectrum.n_images) for s in collector.compute()]
    [('0', 1, 32), ('2', 2, 32)]
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Sequence[str] = "conv",
        *,
        edges: str = "sine",
        n_groups: int = 128,
        trace: Trace | None = None,
    ) -> None:
        self.edges = checks.one_of("edges", edges, EDGES)
        self.n_groups = checks.positive_int("n_groups", n_groups)
        self._model = model
        self._trace = trace
        stages = trace.stages(model, MINIMUM_SIDE) if trace is not None else ()
        self._names = select_modules(model, layers, stages)
        self._kinds = {name: module_kind(model.get_submodule(name)) for name in self._names}
        self._hooks = ActivationHooks(
            model, self._names, self._receive, self._start_pass, self._count_pass
        )
        self._pending: list[tuple[SpectrumAccumulator, Tensor]] = []
        self._accumulators: dict[tuple[str, int], SpectrumAccumulator] = {}
        self._channels: dict[tuple[str, int], int] = {}
        self._skipped: dict[tuple[str, int], str] = {}
        self._next_index = 0
        self._numbers: Tensor | None = None
        self._index: Tensor | None = None
        self._example: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._input_height: int | None = None

    def __enter__(self) -> Collector:
        self._hooks.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        if error is None and self._trace is None and self._example is not None:
            # Now, not when it is asked for: by then the model may be elsewhere.
            self._trace = trace_calls(self._model, *self._example)
            self._example = None

    def number_images(self, index: Tensor) -> None:
        """Give the images of the next batch their numbers in the data, (N,) whole numbers."""
        self._numbers = index

    def _start_pass(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._pending.clear()
        values = [*inputs, *named.values()]
        n_images = batch_size(values)
        if n_images is None:
            raise UsageError("inputs: expected a tensor or a list of images; got neither")
        if self._numbers is None:
            self._index = torch.arange(self._next_index, self._next_index + n_images)
        elif len(self._numbers) != n_images:
            raise UsageError(
                f"index: expected a number for each of {n_images} images; got {len(self._numbers)}"
            )
        else:
            self._index, self._numbers = self._numbers, None
        if self._example is None and self._trace is None:
            self._example = (
                tuple(_first(value) for value in inputs),
                {name: _first(value) for name, value in named.items()},
            )
        first = next((value for value in values if isinstance(value, Tensor)), None)
        if self._input_height is None and first is not None and first.ndim >= 3:
            self._input_height = first.shape[-2]

    def _count_pass(self) -> None:
        """Count what the pass gave, now that it has succeeded."""
        for accumulator, rows in self._pending:
            accumulator.add(rows, self._index)
        self._pending.clear()
        if self._index is not None and len(self._index):
            self._next_index = int(self._index.max()) + 1

    def _receive(self, name: str, call: int, output: Any) -> None:
        key = (name, call)
        if key in self._skipped or self._index is None:
            return
        accumulator = self._accumulators.get(key)
        reason = self._unfit(output, accumulator)
        if reason is not None:
            # What came before belongs to another size; a mean over both would be of neither.
            self._skipped[key] = reason
            self._accumulators.pop(key, None)
            return
        if accumulator is None:
            height, width = output.shape[2:]
            accumulator = SpectrumAccumulator(
                height, width, self.edges, self.n_groups, output.device
            )
            self._accumulators[key] = accumulator
            self._channels[key] = output.shape[1]
        self._pending.append((accumulator, accumulator.transform(output)))

    def _unfit(self, output: Any, accumulator: SpectrumAccumulator | None) -> str | None:
        """Why an output cannot be measured; None when it can."""
        if not isinstance(output, Tensor):
            return f"the output is a {type(output).__name__}, not a tensor"
        if output.ndim != 4:
            shape = " x ".join(str(side) for side in output.shape)
            return f"the output ({shape}) is not a batch of maps (N, C, H, W)"
        if not output.is_floating_point():
            return f"the output is {output.dtype}, not floating"
        if self._index is not None and len(output) != len(self._index):
            return f"{len(output)} sets of maps for {len(self._index)} images"
        height, width = output.shape[2:]
        if min(height, width) < MINIMUM_SIDE:
            return f"maps of {height} x {width} pixels; at least {MINIMUM_SIDE} x {MINIMUM_SIDE}"
        if accumulator is not None and (height, width) != (accumulator.height, accumulator.width):
            return (
                f"the map size changed from {accumulator.height} x {accumulator.width} to "
                f"{height} x {width} between batches"
            )
        return None

    @property
    def trace(self) -> Trace:
        """The traced pass of the model: every call, its depth and shape.

        Raises:
            NatstatsError: no image has come yet.
        """
        if self._trace is None:
            raise NatstatsError("trace: expected a forward pass inside the context; there was none")
        return self._trace

    @property
    def skipped(self) -> list[SkippedLayer]:
        """Chosen layers that were not measured, with the reason."""
        seen = {name for name, _ in (*self._accumulators, *self._skipped)}
        reasons = self._skipped | {
            key: "not called for the first image, so that its depth is not known"
            for key in self._accumulators
            if self._trace is not None and self._trace.depth_of(call_name(*key)) is None
        }
        found = [
            SkippedLayer(call_name(*key), self._kinds[key[0]], reason)
            for key, reason in reasons.items()
        ]
        never = [
            SkippedLayer(name, self._kinds[name], "never called")
            for name in self._names
            if name not in seen
        ]
        return found + never

    def compute(self) -> list[LayerSpectrum]:
        """Return what was measured so far, in the order of execution.

        Raises:
            NatstatsError: no image has come yet.
        """
        trace = self.trace
        order = {call.name: place for place, call in enumerate(trace.calls)}
        measured = []
        for (name, call), accumulator in self._accumulators.items():
            layer_name = call_name(name, call)
            traced = trace.call_of(layer_name)
            if traced is None:
                continue
            spectrum = accumulator.compute()
            layer = Layer(
                name=layer_name,
                call=call,
                kind=self._kinds[name],
                depth=traced.depth,
                channels=self._channels[name, call],
                height=spectrum.height,
                width=spectrum.width,
                stride=(self._input_height or spectrum.height) / spectrum.height,
                order=traced.order,
                receptive_field=traced.receptive_field,
            )
            measured.append(LayerSpectrum(layer, spectrum))
        return sorted(measured, key=lambda m: order[m.layer.name])

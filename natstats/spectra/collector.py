"""From forward passes to one spectrum per layer: hooks and accumulators put together."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from natstats import checks
from natstats.activations.batch_arguments import first_image
from natstats.activations.clips import as_columns_of_time, as_frames
from natstats.activations.hooks import ActivationHooks, batch_size, parts_of
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import Layout
from natstats.activations.map_sets import rows_by_image, watched_regions
from natstats.activations.probe import Probed, probe_layouts
from natstats.activations.selection import call_name, module_kind, select_modules
from natstats.activations.trace import LayerCall, Trace, trace_calls
from natstats.errors import NatstatsError, UsageError
from natstats.networks.wrappers import uncompiled, unwrapped
from natstats.spectra.accumulator import SpectrumAccumulator, check_index
from natstats.spectra.collected import (
    CallFacts,
    CallKey,
    Collected,
    unknown_layers,
    why_never_called,
)
from natstats.spectra.edge_names import EDGES, Edges
from natstats.spectra.layer_reading import LayerReading, why_unfit
from natstats.spectra.layer_sums import MOST_SIZES, LayerSums, SizeSums
from natstats.spectra.records import LayerSpectrum, SkippedLayer
from natstats.spectra.transforms import ring_transform

__all__ = ["Collector"]


class Collector:
    """Measures the spectra of a network's layers while anyone's own loop runs it.

    Open it as a context around the forward passes. Every output of a chosen module goes into an
    accumulator on its device at once; nothing else is kept, so memory does not grow with the
    number of images. Images are numbered as they come, unless :meth:`number_images` says
    otherwise. A forward pass that fails is not counted. The hooks come off when the context closes,
    also after an exception.

    Outputs may have any layout of :mod:`natstats.activations.layouts`; of a module that returns
    several tensors each is a layer. Where the size of a layer's maps changes from batch to batch,
    each size is measured apart, and the result of the layer is that of the commonest size.

    Args:
        model: the network.
        layers: which modules, see :func:`natstats.activations.selection.select_modules`; by default
            every layer with weights.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        n_groups: groups of images, the unit of resampling.
        trace: a traced pass of the model; by default the first image that comes is traced.
        layouts: layouts of modules that the rules do not find, by name or pattern: ``NCHW``,
            ``NHWC``, ``NLC`` (tokens), ``LNC``, ``NCTHW``, ``NTHWC``. Of tokens, ``NLC+1`` leaves
            one out before the map, ``NLC+0-2`` two behind it, ``NLC:0-29,36-65`` takes those.
        temporal: for clips, measure the spectrum along time in place of those of the frames.
        probe: prove the layouts by changing a patch of the first image, see
            :mod:`natstats.activations.probe`; it costs five passes of one image, once.

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
        layers: str | Sequence[str] = "weight",
        *,
        edges: Edges = "sine",
        n_groups: int = 128,
        trace: Trace | None = None,
        layouts: Mapping[str, str] | None = None,
        temporal: bool = False,
        probe: bool = True,
    ) -> None:
        self.edges = checks.one_of("edges", edges, EDGES)
        self.n_groups = checks.positive_int("n_groups", n_groups)
        self.temporal = temporal
        self._original = model
        self._model = model = unwrapped(model)
        self._trace = trace
        self._layouts = dict(layouts or {})
        LayoutRules(model, self._layouts)  # raises now if they are wrong
        stages = trace.stages(model) if trace is not None else ()
        asked = layers.split(",") if isinstance(layers, str) else list(layers)
        self._asked = [one.strip() for one in asked]
        self._names = select_modules(model, layers, stages)
        self._kinds = {name: module_kind(model.get_submodule(name)) for name in self._names}
        self._hooks = ActivationHooks(
            model, self._names, self._receive, self._start_pass, self._count_pass
        )
        self._contexts = contextlib.ExitStack()
        self._is_watching = False
        self._is_probed = not probe
        self.probed = Probed()
        """What the probe of the layouts found; nothing before the first image, or without it."""
        self._pending: list[tuple[SizeSums, Tensor, Tensor]] = []
        self._left_out: list[tuple[CallKey, str]] = []  # and the reason
        self._sums: dict[CallKey, LayerSums] = {}
        self._readings: dict[CallKey, LayerReading] = {}
        self.known_rows: Callable[[str], Tensor | None] | None = None
        """Given a layer's name, may return what the transform would give, and so save the work."""
        self.is_paused = False
        """Set to True, it lets passes go by that are not data."""
        self._next_index = 0
        self._numbers: Tensor | None = None
        self._index: Tensor | None = None
        self._later: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._later_calls: tuple[LayerCall, ...] = ()
        self._loaded_calls: dict[str, CallFacts] = {}
        self._example: tuple[tuple[Any, ...], dict[str, Any]] | None = None

    def __enter__(self) -> Collector:
        self._hooks.__enter__()
        # A graph that was compiled before calls no hooks.
        self._contexts.enter_context(uncompiled(self._original))
        if self._trace is not None:
            self._watch()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.__exit__(kind, error, trace)
        self._contexts.close()
        self._is_watching = False
        if error is None:
            # Now, not when results are asked for: by then the model may be on another device.
            self._trace_later()

    def _trace_later(self) -> None:
        """Trace a pass in which a layer was called that the first trace does not know."""
        if self._later is not None:
            arguments, self._later = self._later, None
            with contextlib.suppress(RuntimeError, ValueError, TypeError):
                self._later_calls += trace_calls(self._model, *arguments, self._layouts).calls

    def _watch(self) -> None:
        """Watch for what only a traced pass tells: functional calls, and regions of images."""
        assert self._trace is not None
        self._hooks.functional = self._trace.functional
        if not self._is_watching:
            self._contexts.enter_context(watched_regions(self._model, self._trace.rules))
            self._is_watching = True

    def prove_layouts(self) -> None:
        """Prove the layouts of the traced pass, if that is wanted and was not done yet.

        It happens by itself with the first image.
        """
        if not self._is_probed:
            self._is_probed = True
            self.probed = probe_layouts(self._model, self.trace, self._names)

    def number_images(self, index: Tensor) -> None:
        """Give the images of the next batch their numbers in the data, (N,) whole numbers."""
        self._numbers = index

    def _start_pass(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._pending.clear()
        self._left_out.clear()
        if self.is_paused:
            self._index = None
            return
        self._trace_later()
        values = [*inputs, *named.values()]
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        if any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)):
            raise UsageError(
                "inputs: expected tensors with their values; got those of torch.vmap or another "
                "transform of torch.func, which have none yet; call the model on the batch itself"
            )
        n_images = batch_size(values)
        if n_images is None:
            kinds = ", ".join(type(value).__name__ for value in values) or "nothing"
            raise UsageError(f"inputs: expected a tensor or a list of images; got {kinds}")
        if self._numbers is None:
            self._index = torch.arange(self._next_index, self._next_index + n_images)
        elif len(self._numbers) != n_images:
            raise UsageError(
                f"index: expected a number for each of {n_images} images; got {len(self._numbers)}"
            )
        else:
            check_index(self._numbers, n_images)
            self._index, self._numbers = self._numbers, None
        example = (
            tuple(first_image(value, n_images) for value in inputs),
            {name: first_image(value, n_images) for name, value in named.items()},
        )
        if not n_images:  # nothing to measure
            self._index = None
            return
        if self._trace is None:
            self._trace = trace_calls(self._model, *example, self._layouts)
            self._watch()
        self.prove_layouts()
        self._example = example
        self._trace.rules.start((inputs, named), n_images)

    def _count_pass(self) -> None:
        """Count what the pass gave, now that it has succeeded."""
        for sums, rows, index in self._pending:
            sums.add(rows, index)
        for key, reason in self._left_out:
            self._sums.setdefault(key, LayerSums()).leave_out(reason)
        self._pending.clear()
        self._left_out.clear()
        if self._index is not None and len(self._index):
            self._next_index = max(self._next_index, int(self._index.max()) + 1)

    def _receive(self, name: str, call: int, output: Any) -> None:
        if self._index is None or self._trace is None:
            return
        tensors = list(parts_of(output))
        if not tensors:
            reason = f"the output is a {type(output).__name__}, no tensor"
            self._left_out.append(((name, call, ""), reason))
        for part, tensor in tensors:
            self._receive_part((name, call, part), tensor)

    def _receive_part(self, key: CallKey, output: Tensor) -> None:
        assert self._trace is not None
        assert self._index is not None
        rules = self._trace.rules
        reading = self._readings.get(key)
        if reading is not None and reading.fits(output, rules.state):
            layout = reading.layout
            rules.see(layout)
        else:
            reading, found = None, self._find_layout(key, output)
            if found is None:
                return
            layout = found
        by_channel = layout.maps(output.detach())
        maps = as_columns_of_time(by_channel) if self.temporal else as_frames(by_channel)
        if reading is None:
            reading = self._new_reading(key, output, layout, by_channel.shape[1], maps.shape)
            if reading is None:
                return
        name = call_name(*key)
        rows = None if self.known_rows is None else self.known_rows(name)
        if rows is None:
            rows = reading.transform(maps)
        rows, index = rows_by_image(rows, reading.layout, self._index, rules.regions)
        self._pending.append((reading.sums, rows, index))

    def _find_layout(self, key: CallKey, output: Tensor) -> Layout | None:
        """The layout of an output that looks like none before; None where it is left out."""
        assert self._trace is not None
        layout = self._trace.rules.find(key[0], output, call=key[1], part=key[2])
        reason = layout if isinstance(layout, str) else why_unfit(layout, self.temporal)
        if isinstance(layout, str) or reason is not None:
            self._left_out.append((key, str(reason)))
            return None
        return layout

    def _new_reading(
        self, key: CallKey, output: Tensor, layout: Layout, n_channels: int, shape: torch.Size
    ) -> LayerReading | None:
        """How outputs of this look are read; None where they are left out.

        Args:
            key: the call.
            output: the first of them.
            layout: of the output.
            n_channels: number of maps of an image.
            shape: of its maps as they are transformed, (M, C, H, W).
        """
        assert self._trace is not None
        rules = self._trace.rules
        size = shape[2], shape[3]
        sums = self._sums.setdefault(key, LayerSums())
        own = sums.by_size.get(size)
        if own is not None and own.accumulator.device != output.device:  # restored
            own.accumulator.to(output.device)
        if own is None:
            if len(sums.by_size) >= MOST_SIZES:
                reason = f"more than {MOST_SIZES} map sizes; later ones are not measured"
                self._left_out.append((key, reason))
                return None
            accumulator = SpectrumAccumulator(*size, self.edges, self.n_groups, output.device)
            stride = self._input_length(rules.input_shape, size[0]) / size[0]
            images = (rules.input_shape or ())[-2:]
            own = sums.by_size[size] = SizeSums(
                accumulator, stride, n_channels, str(layout), images
            )
        if call_name(*key) not in self._calls and self._later is None:
            self._later = self._example
        transform = ring_transform(*size, self.edges, own.accumulator.device)
        reading = LayerReading(output.shape, output.dtype, rules.state, layout, own, transform)
        if rules.is_kept(output):
            self._readings[key] = reading
        return reading

    def _input_length(self, shape: tuple[int, ...] | None, unknown: int) -> int:
        """Height of the images, or along time frames of the clips; `unknown` without images."""
        if shape is None:
            return unknown
        return shape[-3 if self.temporal and len(shape) >= 4 else -2]

    @property
    def trace(self) -> Trace:
        """The traced pass of the model: every call, its depth and shape.

        Raises:
            NatstatsError: no image has come yet.
        """
        if self._trace is None:
            raise NatstatsError(
                "trace: expected a forward pass inside the context; there was none. What counts is "
                "calling the model itself, model(images): not its forward or forward_features, and "
                "not a function that was compiled around it before"
            )
        return self._trace

    @property
    def skipped(self) -> list[SkippedLayer]:
        """Chosen layers, or map sizes of layers, that were not measured, with the reason."""
        return self.collected().skipped()

    def collected(self) -> Collected:
        """The sums so far, to which the next image still adds, and what their results need."""
        by_rule = set() if self._trace is None else self._trace.rules.by_rule
        unknown: list[SkippedLayer] = []
        if "weight" in self._asked and self._trace is not None:
            unknown = list(unknown_layers(self._model, self._trace, self._names))
        called = {key[0] for key in self._sums}
        calls = {
            name: CallFacts.of(call, place, name in by_rule)
            for place, (name, call) in enumerate(self._calls.items())
            if call.module in self._kinds
        }
        return Collected(
            self._sums,
            {**self._loaded_calls, **calls},
            self._kinds,
            {n: why_never_called(self._model, n) for n in self._names if n not in called},
            unknown,
            self.temporal,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a copy: tensors and plain values."""
        return self.collected().state()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, by a collector of the same settings.

        What this one has summed so far is dropped.

        Raises:
            UsageError: keys are missing or unexpected, or the state is of other modules.
        """
        try:
            collected = Collected.from_state(state)
        except (KeyError, TypeError) as error:
            raise UsageError(f"state: expected that of a collector; {error}") from error
        collected.check_modules(self._kinds, self.temporal)
        self._sums, self._loaded_calls = collected.sums, collected.calls
        self._readings.clear()
        self._next_index = max((own.end for own in collected.sums.values()), default=0)

    @property
    def _calls(self) -> dict[str, LayerCall]:
        """Traced calls by name, in the order of execution."""
        calls = dict(self._trace.by_name) if self._trace is not None else {}
        for call in self._later_calls:
            # A call that was traced twice is that of the first trace, in the order of the second.
            calls[call.name] = calls.pop(call.name, call)
        return calls

    def compute(self) -> list[LayerSpectrum]:
        """Return what was measured so far, in the order of execution.

        Raises:
            NatstatsError: no image has come yet.
        """
        _ = self._loaded_calls or self.trace
        return self.collected().spectra()

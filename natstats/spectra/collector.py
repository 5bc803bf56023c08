"""From forward passes to one spectrum per layer: hooks and accumulators put together."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from natstats.activations.selection import call_name, module_kind, owned_weights, select_modules
from natstats.activations.trace import LayerCall, Trace, trace_calls
from natstats.checks import MINIMUM_SIDE
from natstats.errors import NatstatsError, UsageError
from natstats.networks.wrappers import uncompiled, unwrapped
from natstats.spectra.accumulator import SpectrumAccumulator
from natstats.spectra.edges import EDGES
from natstats.spectra.records import Layer, LayerSpectrum, SkippedLayer

__all__ = ["Collector"]

MOST_SIZES = 16
"""Map sizes of one layer that are measured apart; sums of any more would not be constant memory."""

_Key = tuple[str, int, str]


@dataclass
class _Measured:
    """What is known of one layer while images come.

    Attributes:
        by_size: sums for each size of its maps.
        strides: of the maps of each size.
        channels: number of maps of an image.
        layout: of the output.
        reasons: why outputs were left out, with how many.
    """

    channels: int = 0
    layout: Layout | None = None
    by_size: dict[tuple[int, int], SpectrumAccumulator] = field(default_factory=dict)
    strides: dict[tuple[int, int], float] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)


class Collector:
    """Measures the spectra of a network's layers while anyone's own loop runs it.

    Open it as a context around the forward passes. Every output of a chosen module goes into an
    accumulator on its device at once; nothing else is kept, so memory does not grow with the
    number of images. Images are numbered as they come, unless :meth:`number_images` says
    otherwise. A forward pass that fails is not counted. The hooks come off when the context closes,
    also after an exception.

    Outputs may have any layout of :mod:`natstats.activations.layouts`; of a module that returns
    several tensors each is a layer. Where the size of a layer's maps changes from batch to batch,
    sizes are measured apart, and the layer is the size that most images had.

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
        edges: str = "sine",
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
        LayoutRules(model, self._layouts)  # says now what is wrong with them
        stages = trace.stages(model) if trace is not None else ()
        self._asked = layers.split(",") if isinstance(layers, str) else list(layers)
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
        self._pending: list[tuple[SpectrumAccumulator, Tensor, Tensor]] = []
        self._measured: dict[_Key, _Measured] = {}
        self._next_index = 0
        self._numbers: Tensor | None = None
        self._index: Tensor | None = None
        self._later: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._later_calls: tuple[LayerCall, ...] = ()
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
        if error is None and self._later is not None:
            # Now, not when it is asked for: by then the model may be elsewhere.
            arguments, self._later = self._later, None
            with contextlib.suppress(RuntimeError, ValueError, TypeError):
                self._later_calls += trace_calls(self._model, *arguments, self._layouts).calls

    def _watch(self) -> None:
        """Look for what only a traced pass tells: functional calls, and regions of images."""
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
        for accumulator, rows, index in self._pending:
            accumulator.add(rows, index)
        self._pending.clear()
        if self._index is not None and len(self._index):
            self._next_index = int(self._index.max()) + 1

    def _receive(self, name: str, call: int, output: Any) -> None:
        if self._index is None or self._trace is None:
            return
        tensors = list(parts_of(output))
        if not tensors:
            self._leave_out((name, call, ""), f"the output is a {type(output).__name__}, no tensor")
        for part, tensor in tensors:
            self._receive_part((name, call, part), tensor)

    def _leave_out(self, key: _Key, reason: str) -> None:
        reasons = self._measured.setdefault(key, _Measured()).reasons
        reasons[reason] = reasons.get(reason, 0) + 1

    def _receive_part(self, key: _Key, output: Tensor) -> None:
        assert self._trace is not None
        assert self._index is not None
        rules = self._trace.rules
        layout = rules.find(key[0], output, call=key[1], part=key[2])
        if isinstance(layout, str):
            self._leave_out(key, layout)
            return
        reason = self._unfit(layout)
        if reason is not None:
            self._leave_out(key, reason)
            return
        maps = layout.maps(output.detach())
        n_channels = maps.shape[1]
        maps = as_columns_of_time(maps) if self.temporal else as_frames(maps)
        measured = self._measured.setdefault(key, _Measured())
        size = (maps.shape[2], maps.shape[3])
        accumulator = measured.by_size.get(size)
        if accumulator is None:
            if len(measured.by_size) >= MOST_SIZES:
                self._leave_out(key, f"maps of more than {MOST_SIZES} sizes; of the later ones")
                return
            accumulator = SpectrumAccumulator(*size, self.edges, self.n_groups, output.device)
            measured.by_size[size] = accumulator
            measured.strides[size] = self._input_length(rules.input_shape, size[0]) / size[0]
            measured.channels, measured.layout = n_channels, layout
        rows, index = rows_by_image(accumulator.transform(maps), layout, self._index, rules.regions)
        self._pending.append((accumulator, rows, index))
        if call_name(*key) not in self._trace.by_name and self._later is None:
            self._later = self._example

    def _input_length(self, shape: tuple[int, ...] | None, unknown: int) -> int:
        """Height of the images, or along time frames of the clips; `unknown` without images."""
        if shape is None:
            return unknown
        return shape[-3 if self.temporal and len(shape) >= 4 else -2]

    def _unfit(self, layout: Layout) -> str | None:
        """Why maps of a layout cannot be measured; None when they can."""
        height, width = layout.grid[-2:]
        if self.temporal:
            if len(layout.grid) < 3:
                return "no time axis"
            n_frames = layout.grid[0]
            if n_frames < MINIMUM_SIDE:
                return f"{n_frames} frames; at least {MINIMUM_SIDE}"
            return None
        if min(height, width) < MINIMUM_SIDE:
            return f"maps of {height} x {width} pixels; at least {MINIMUM_SIDE} x {MINIMUM_SIDE}"
        return None

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

    def _call_of(self, key: _Key) -> LayerCall | None:
        name = call_name(*key)
        calls = self._trace.by_name if self._trace is not None else {}
        return calls.get(name) or next((c for c in self._later_calls if c.name == name), None)

    @property
    def skipped(self) -> list[SkippedLayer]:
        """Chosen layers, or map sizes of layers, that were not measured, with the reason."""
        found = []
        for key, measured in self._measured.items():
            name, kind = call_name(*key), self._kinds[key[0]]
            counts = {size: _n_images(a) for size, a in measured.by_size.items()}
            main = max(counts, key=lambda size: counts[size], default=None)
            if main is None or counts[main] == 0:
                reasons = list(measured.reasons) or ["no region was found in any image"]
                found.append(SkippedLayer(name, kind, "; ".join(reasons)))
                continue
            if self._call_of(key) is None:
                reason = "called in no traced pass, so that its depth is not known"
                found.append(SkippedLayer(name, kind, reason))
                continue
            found += [
                SkippedLayer(
                    f"{name}@{size[0]}x{size[1]}",
                    kind,
                    f"the map size changes; the layer is measured at {main[0]} x {main[1]} pixels "
                    f"({counts[main]} images), {n} images had this one",
                )
                for size, n in counts.items()
                if size != main
            ]
            found += [
                SkippedLayer(name, kind, f"in {n} batches: {reason}")
                for reason, n in measured.reasons.items()
            ]
        found += [SkippedLayer(name, kind, reason) for name, kind, reason in self._unknown()]
        called = {key[0] for key in self._measured}
        for name in self._names:
            if name not in called:
                found.append(SkippedLayer(name, self._kinds[name], self._why_never(name)))
        return found

    def _unknown(self) -> Iterator[tuple[str, str, str]]:
        """Modules beside the layers with weights that multiply maps with weights of their own."""
        if "weight" not in self._asked or self._trace is None:
            return
        with_maps = {call.module for call in self._trace.calls if isinstance(call.layout, Layout)}
        for name in sorted((self._trace.multiplying & with_maps) - {*self._names}):
            reason = "has weights of its own and is no layer that is known; name it to measure it"
            yield name, module_kind(self._model.get_submodule(name)), reason

    def _why_never(self, name: str) -> str:
        parent = name.rpartition(".")[0]
        if isinstance(self._model.get_submodule(name), torch.jit.ScriptModule):
            return "in TorchScript, where no layer can be watched"
        if name in owned_weights(self._model):
            return f"never called itself: the output of {parent} is its output"
        return "never called"

    def compute(self) -> list[LayerSpectrum]:
        """Return what was measured so far, in the order of execution.

        Raises:
            NatstatsError: no image has come yet.
        """
        order = {
            call.name: place for place, call in enumerate((*self.trace.calls, *self._later_calls))
        }
        found = []
        for key, measured in self._measured.items():
            traced = self._call_of(key)
            spectra = [accumulator.compute() for accumulator in measured.by_size.values()]
            spectrum = max(spectra, key=lambda s: s.n_images + s.n_nonfinite, default=None)
            if traced is None or spectrum is None or spectrum.n_images + spectrum.n_nonfinite == 0:
                continue
            layer = Layer(
                name=traced.name,
                call=key[1],
                kind=self._kinds[key[0]],
                depth=traced.depth,
                channels=measured.channels,
                height=spectrum.height,
                width=spectrum.width,
                stride=measured.strides[spectrum.height, spectrum.width],
                order=traced.order,
                # A receptive field is one along the height.
                receptive_field=math.nan if self.temporal else traced.receptive_field,
                layout=self._described(traced.name, measured),
            )
            found.append(LayerSpectrum(layer, spectrum))
        return sorted(found, key=lambda m: order[m.layer.name])

    def _described(self, name: str, measured: _Measured) -> str:
        """The layout in words, and whether only a rule speaks for it."""
        is_guess = name in self.trace.rules.by_rule
        return f"{measured.layout}{' by rule' if is_guess else ''}"


def _n_images(accumulator: SpectrumAccumulator) -> int:
    spectrum = accumulator.compute()
    return spectrum.n_images + spectrum.n_nonfinite

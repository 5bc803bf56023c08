"""From the sums of a collector to its results: the spectra of layers, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from natstats.activations.layouts import Layout
from natstats.activations.selection import call_name, module_kind, owned_weights
from natstats.activations.trace import LayerCall, Trace
from natstats.spectra.frequencies import extent
from natstats.spectra.layer_sums import LayerSums
from natstats.spectra.records import Layer, LayerSpectrum, SkippedLayer

__all__ = [
    "CallKey", "layer_spectra", "skipped_layers", "unknown_layers", "why_never_called",
]  # fmt: skip

CallKey = tuple[str, int, str]
"""Name of a module, number of its call in the forward pass, part of its output."""


def _call_of(key: CallKey, calls: Mapping[str, LayerCall]) -> LayerCall | None:
    return calls.get(call_name(*key))


def layer_spectra(
    sums: Mapping[CallKey, LayerSums],
    calls: Mapping[str, LayerCall],
    kinds: Mapping[str, str],
    by_rule: set[str],
    temporal: bool,
) -> list[LayerSpectrum]:
    """The spectrum of every layer that was measured, in the order of execution.

    Args:
        sums: of every call of a chosen module.
        calls: traced calls by name, in the order of execution.
        kinds: of the modules, by name.
        by_rule: layers for whose layout only a rule speaks.
        temporal: the spectra are those along time.
    """
    order = {name: place for place, name in enumerate(calls)}
    found = []
    for key, own in sums.items():
        traced, size = _call_of(key, calls), own.main_size()
        if traced is None or size is None:
            continue
        measured = own.by_size[size]
        layer = Layer(
            name=traced.name,
            call=key[1],
            kind=kinds[key[0]],
            depth=traced.depth,
            channels=measured.channels,
            height=size[0],
            width=size[1],
            stride=measured.stride,
            order=traced.order,
            # A receptive field is one along the height.
            receptive_field=math.nan if temporal else traced.receptive_field,
            layout=f"{measured.layout}{' by rule' if traced.name in by_rule else ''}",
            span=math.nan if temporal else _span(size, measured.images, traced.pitch),
            is_output=traced.is_output,
        )
        found.append(LayerSpectrum(layer, measured.compute()))
    return sorted(found, key=lambda m: order[m.layer.name])


def _span(size: tuple[int, int], images: tuple[int, ...], pitch: float) -> float:
    """Share of the image's shorter side that maps stand for, see :class:`Layer`.

    The pitch is known along the height. It holds along the width, too, where the maps leave out as
    much of the image there, up to what strides round away; elsewhere nothing is known.

    >>> _span((388, 388), (572, 572), 1.0).__round__(3), _span((8, 16), (16, 16), 2.0)
    (0.678, nan)
    """
    if len(images) < 2 or math.isnan(pitch):
        return math.nan
    left_out = [image - pitch * side for image, side in zip(images, size, strict=True)]
    if abs(left_out[0] - left_out[1]) > 2 * pitch:
        return math.nan
    return extent(*size) * pitch / min(images)


def skipped_layers(
    sums: Mapping[CallKey, LayerSums],
    calls: Mapping[str, LayerCall],
    kinds: Mapping[str, str],
) -> Iterator[SkippedLayer]:
    """Chosen layers, or map sizes of layers, that were not measured, with the reason."""
    for key, own in sums.items():
        name, kind = call_name(*key), kinds[key[0]]
        main = own.main_size()
        if main is None:
            reasons = list(own.reasons) or ["no region was found in any image"]
            yield SkippedLayer(name, kind, "; ".join(reasons))
            continue
        if _call_of(key, calls) is None:
            reason = "called in no traced pass, so that its depth is not known"
            yield SkippedLayer(name, kind, reason)
            continue
        counts = own.counts()
        for size, n in counts.items():
            if size != main and n:
                reason = (
                    f"the map size changes; the layer is measured at {main[0]} x {main[1]} pixels "
                    f"({counts[main]} images), {n} images had this one"
                )
                yield SkippedLayer(f"{name}@{size[0]}x{size[1]}", kind, reason)
        for reason, n in own.reasons.items():
            yield SkippedLayer(name, kind, f"in {n} batches: {reason}")


def unknown_layers(model: nn.Module, trace: Trace, names: Sequence[str]) -> Iterator[SkippedLayer]:
    """Modules beside the layers with weights that multiply maps with weights of their own."""
    with_maps = {call.module for call in trace.calls if isinstance(call.layout, Layout)}
    for name in sorted((trace.multiplying & with_maps) - {*names}):
        reason = "has weights of its own and is no layer that is known; name it to measure it"
        yield SkippedLayer(name, module_kind(model.get_submodule(name)), reason)


def why_never_called(model: nn.Module, name: str) -> str:
    """Why nothing came from a chosen module."""
    if isinstance(model.get_submodule(name), torch.jit.ScriptModule):
        return "in TorchScript, where no layer can be watched"
    if name in owned_weights(model):
        return f"never called itself: the output of {name.rpartition('.')[0]} is its output"
    return "never called"

"""From the sums of a collector to its results: the spectra of layers, and what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from natstats import checks
from natstats.activations.layouts import Layout
from natstats.activations.selection import call_name, module_kind, owned_weights
from natstats.activations.trace import LayerCall, Trace
from natstats.errors import UsageError
from natstats.numbers import counted
from natstats.spectra.frequencies import extent
from natstats.spectra.layer_sums import LayerSums
from natstats.spectra.records import Layer, LayerSpectrum, SkippedLayer
from natstats.text import few

__all__ = ["CallFacts", "CallKey", "Collected", "unknown_layers", "why_never_called"]

CallKey = tuple[str, int, str]
"""Name of a module, number of its call in the forward pass, part of its output."""

_KEYS = ("sums", "calls", "kinds", "never_called", "unknown", "temporal")
"""Names in a state."""


@dataclass(frozen=True)
class CallFacts:
    """What a traced pass tells of one layer.

    Attributes:
        place: in the order of execution.
        depth: weight layers on the longest path from the input.
        order: weight layers that were executed up to here.
        receptive_field: side of the receptive field along the height, input pixels.
        pitch: input pixels from one row of the maps to the next.
        is_output: whether it is the network's own output.
        is_by_rule: whether its layout is that of a rule, without a proof.
    """

    place: int
    depth: int
    order: int
    receptive_field: float
    pitch: float
    is_output: bool | None
    is_by_rule: bool

    @classmethod
    def of(cls, call: LayerCall, place: int, is_by_rule: bool) -> CallFacts:
        """The facts of a traced call."""
        names = ("depth", "order", "receptive_field", "pitch", "is_output")
        return cls(
            place=place, is_by_rule=is_by_rule, **{name: getattr(call, name) for name in names}
        )


@dataclass
class Collected:
    """The sums of all layers and what their results need; parts of one measurement can be added.

    Attributes:
        sums: of every call of a chosen module.
        calls: facts of the traced calls of chosen modules, by the name of the layer.
        kinds: of the chosen modules, by name.
        never_called: chosen modules that gave no output, with the reason.
        unknown: modules that multiply maps with weights of their own, but are no known layers.
        temporal: whether the spectra are those along time.
    """

    sums: dict[CallKey, LayerSums]
    calls: dict[str, CallFacts]
    kinds: dict[str, str]
    never_called: dict[str, str]
    unknown: list[SkippedLayer]
    temporal: bool

    def merge(self, other: Collected) -> None:
        """Add what another part of the same measurement has collected.

        Raises:
            UsageError: an image is in both.
        """
        for key, own in other.sums.items():
            if key in self.sums:
                self.sums[key].merge(own)
            else:
                self.sums[key] = own
        self.calls = {**other.calls, **self.calls}
        self.never_called = {
            name: why for name, why in self.never_called.items() if name in other.never_called
        }
        self.unknown = list(dict.fromkeys([*self.unknown, *other.unknown]))

    def renumber(self, by: int) -> None:
        """Add `by`, a multiple of the number of groups, to the number of every image."""
        for own in self.sums.values():
            for sums in own.by_size.values():
                sums.renumber(by)

    def spectra(self) -> list[LayerSpectrum]:
        """The spectrum of every layer that was measured, in the order of execution."""
        found = []
        for key, own in self.sums.items():
            name, size = call_name(*key), own.main_size()
            call = self.calls.get(name)
            if call is None or size is None:
                continue
            measured = own.by_size[size]
            layer = Layer(
                name=name,
                call=key[1],
                kind=self.kinds[key[0]],
                depth=call.depth,
                channels=measured.channels,
                height=size[0],
                width=size[1],
                stride=measured.stride,
                order=call.order,
                # The receptive field is along the height, not along time.
                receptive_field=math.nan if self.temporal else call.receptive_field,
                layout=f"{measured.layout}{' by rule' if call.is_by_rule else ''}",
                span=math.nan if self.temporal else _span(size, measured.images, call.pitch),
                is_output=call.is_output,
            )
            found.append((call.place, LayerSpectrum(layer, measured.compute())))
        return [measured for _, measured in sorted(found, key=lambda one: one[0])]

    def skipped(self) -> list[SkippedLayer]:
        """Chosen layers, or map sizes of layers, that were not measured, with the reason."""
        found = [one for key, own in self.sums.items() for one in self._skipped_of(key, own)]
        never = [
            SkippedLayer(name, self.kinds[name], why) for name, why in self.never_called.items()
        ]
        return [*found, *self.unknown, *never]

    def _skipped_of(self, key: CallKey, own: LayerSums) -> Iterator[SkippedLayer]:
        name, kind = call_name(*key), self.kinds[key[0]]
        main = own.main_size()
        if main is None:
            reasons = list(own.reasons) or ["no region was found in any image"]
            yield SkippedLayer(name, kind, "; ".join(reasons))
            return
        if name not in self.calls:
            reason = "called in no traced pass, so that its depth is not known"
            yield SkippedLayer(name, kind, reason)
            return
        counts = own.counts()
        for size, n in counts.items():
            if size != main and n:
                reason = (
                    f"the map size changes; the layer is measured at {main[0]} x {main[1]} pixels "
                    f"({counts[main]} images), {counted(n, 'image')} had this one"
                )
                yield SkippedLayer(f"{name}@{size[0]}x{size[1]}", kind, reason)
        for reason, n in own.reasons.items():
            yield SkippedLayer(name, kind, f"in {n} batches: {reason}")

    def state(self) -> dict[str, Any]:
        """Everything needed to go on later: tensors and plain values."""
        return {
            "sums": [{"key": list(key), **own.state()} for key, own in self.sums.items()],
            "calls": {name: asdict(call) for name, call in self.calls.items()},
            "kinds": dict(self.kinds),
            "never_called": dict(self.never_called),
            "unknown": [asdict(one) for one in self.unknown],
            "temporal": self.temporal,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Collected:
        """Inverse of :meth:`state`, on the CPU.

        Raises:
            UsageError: keys are missing or unexpected.
        """
        checks.state_keys("a collector", state, _KEYS)
        return cls(
            {tuple(own["key"]): LayerSums.from_state(own) for own in state["sums"]},
            {name: CallFacts(**call) for name, call in state["calls"].items()},
            dict(state["kinds"]),
            dict(state["never_called"]),
            [SkippedLayer(**one) for one in state["unknown"]],
            state["temporal"],
        )

    def check_modules(self, kinds: Mapping[str, str], temporal: bool) -> None:
        """Raise unless this holds the modules of `kinds`, and spectra of the same sort.

        Raises:
            UsageError: it does not; the message names the missing and the unexpected modules.
        """
        told = {
            "missing": [name for name in kinds if name not in self.kinds],
            "unexpected": [name for name in self.kinds if name not in kinds],
            "of another kind": [n for n in kinds if self.kinds.get(n, kinds[n]) != kinds[n]],
        }
        said = [f"{what}: {few(names)}" for what, names in told.items() if names]
        if temporal != self.temporal:
            said.append("along time: only one of both")
        if said:
            raise UsageError(
                f"state: expected one of the modules that are measured; {'; '.join(said)}"
            )


def _span(size: tuple[int, int], images: tuple[int, ...], pitch: float) -> float:
    """Share of the image's shorter side that maps stand for, see :class:`Layer`.

    The pitch is known along the height. It is taken to hold along the width, too, where the maps
    leave out as much of the image there, up to the rounding by strides; if not, the share is NaN.

    >>> _span((388, 388), (572, 572), 1.0).__round__(3), _span((8, 16), (16, 16), 2.0)
    (0.678, nan)
    """
    if len(images) < 2 or math.isnan(pitch):
        return math.nan
    left_out = [image - pitch * side for image, side in zip(images, size, strict=True)]
    if abs(left_out[0] - left_out[1]) > 2 * pitch:
        return math.nan
    return extent(*size) * pitch / min(images)


def unknown_layers(model: nn.Module, trace: Trace, names: Sequence[str]) -> Iterator[SkippedLayer]:
    """Modules that multiply maps with weights of their own, but are not among `names`."""
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

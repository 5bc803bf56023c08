"""Proof of where the maps are: a small patch of the image is changed, and the layers' maps answer.

A rule that goes by shapes is wrong where tokens or windows happen to fill a square. So one image
passes again with a patch changed, at four places off the diagonals. A layer whose layout is right
answers where the patch is. One whose layout is wrong answers elsewhere: then either another layout
of the same shape puts the answers right, or the layer is refused. A layer that answers everywhere
alike (the outputs of attention, say) proves nothing itself; it follows the layers of its form, see
:mod:`natstats.activations.probe_outcome`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from natstats.activations.answers import Answers, Outcome, verdict
from natstats.activations.channel_axis import channels_are_last
from natstats.activations.hooks import ActivationHooks, parts_of, unwatched
from natstats.activations.layout_candidates import candidates, patch_grids
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import Layout
from natstats.activations.passes import repeatable, unchanged
from natstats.activations.patches import PLACES, is_image, patched, spans_of
from natstats.activations.probe_outcome import Probed, decide_on_rest
from natstats.activations.selection import call_name
from natstats.activations.trace import LayerCall, Trace
from natstats.checks import MINIMUM_SIDE

__all__ = ["PLACES", "Probed", "probe_layouts", "proved_layouts"]


class _Energies:
    """Sums over channels of the squared changes of every layer, with channels first and last.

    Args:
        layers: those that are watched, and whether their channels are on the last axis; None where
            they may be on either.
    """

    def __init__(self, layers: Mapping[str, bool | None]) -> None:
        self._layers = layers
        self.base: dict[str, Tensor] = {}
        self.changes: dict[str, list[tuple[Tensor | None, Tensor | None]]] = {}
        self.is_changed = False

    def receive(self, name: str, call: int, output: Any) -> None:
        for part, tensor in parts_of(output):
            layer = call_name(name, call, part)
            if layer not in self._layers or tensor.ndim not in (3, 4, 5):
                continue
            values = tensor.detach()
            if values.is_quantized:
                values = values.dequantize()
            if not values.is_floating_point():
                continue
            if not self.is_changed:
                self.base[layer] = values.clone()
            elif layer in self.base and self.base[layer].shape == values.shape:
                change = (values - self.base[layer]).float().square_()
                # Where the channels must be, the other sum is not needed.
                is_last = self._layers[layer]
                first = None if is_last is True else change.sum(1).cpu()
                last = None if is_last is False else change.sum(-1).cpu()
                self.changes.setdefault(layer, []).append((first, last))

    @property
    def layers(self) -> Collection[str]:
        return self._layers.keys()

    def answers(self, layer: str, spans: NDArray[np.float64]) -> Answers | None:
        """The answers of a layer to all patches; None when one is missing or not finite."""
        changes = self.changes.get(layer, [])
        if len(changes) != len(spans):
            return None
        first, last = (
            None if one[0] is None else torch.stack([x for x in one if x is not None]).double()
            for one in zip(*changes, strict=True)
        )
        known = last if first is None else first
        is_finite = known is not None and bool(known.isfinite().all())
        base = self.base[layer]
        rounding = max(64 * torch.finfo(torch.float32).eps, 2 * torch.finfo(base.dtype).eps)
        floor = rounding**2 * float(base.float().square().sum())
        return Answers(spans, first, last, floor) if is_finite else None


def probe_layouts(model: nn.Module, trace: Trace, names: Collection[str]) -> Probed:
    """Prove the layouts of the layers of some modules, and tell the rules what was found.

    Five passes of the traced image: as it is, and four times with a patch changed. Mode, random
    state and inputs are as before when it returns. If another pass of the same image does not give
    what the traced one gave, the network draws at random and nothing is proved.

    Args:
        model: the network.
        trace: trace of a pass of one image; its rules are told how to read each layer.
        names: names of the modules.

    >>> from natstats.activations.trace import trace_calls
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    >>> trace = trace_calls(model, (torch.rand(1, 3, 32, 32),))
    >>> sorted(probe_layouts(model, trace, ["0", "1"]).proved)
    ['0', '1']
    """
    found = Probed()
    wanted = {*names}
    calls = {call.name: call for call in trace.calls if call.module in wanted}
    images = [leaf for leaf in tree_leaves(trace.arguments) if is_image(leaf)]
    energies = _Energies(_axes_of_channels(model, trace.rules, calls))
    try:
        with unwatched(), unchanged(model), torch.no_grad():
            found.problem = _patch_and_watch(model, trace, wanted, images, energies)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        found.problem = f"a pass of a changed image fails with a {type(error).__name__}"
    rest: dict[str, Outcome] = {}
    for layer in energies.layers:
        call, outcome = calls[layer], Outcome(is_silent=True)
        answers = None if found.problem else energies.answers(layer, spans_of(images[0]))
        if answers is not None:
            read = call.layout if isinstance(call.layout, Layout) else None
            outcome = verdict(answers, read, partial(_ways, model, trace, call, images[0]))
        if outcome.layout == call.layout:
            found.proved.add(layer)
        elif trace.rules.is_declared(call.module):
            # Another layout that puts the answers right contradicts it, too; silence does not.
            is_doubted = outcome.is_elsewhere or outcome.layout is not None
            rest[layer] = replace(outcome, is_elsewhere=is_doubted)
        elif outcome.layout is None:
            rest[layer] = outcome
        else:
            found.settled[layer] = outcome.layout
    decide_on_rest(rest, calls, trace.rules, found)
    _tell(trace.rules, calls, found)
    return found


def _axes_of_channels(
    model: nn.Module, rules: LayoutRules, calls: Mapping[str, LayerCall]
) -> dict[str, bool | None]:
    """The layers to watch, and whether their channels are last; None where they may be either."""
    return {
        name: None
        if rules.is_declared(call.module)
        else channels_are_last(model.get_submodule(call.module))
        for name, call in calls.items()
        if _may_be_maps(call)
    }


def _patch_and_watch(
    model: nn.Module,
    trace: Trace,
    wanted: Collection[str],
    images: Collection[Tensor],
    energies: _Energies,
) -> str:
    """Pass the traced image as it is and with every patch; return in words why not, or nothing."""
    n_axes = next((image.ndim for image in images), 0)
    functional = trace.functional & {*wanted}

    def run(place: tuple[float, float] | None) -> Any:
        def prepared(value: Any) -> Any:
            if place is not None and is_image(value) and value.ndim == n_axes:
                return patched(value, place)
            return value.clone() if isinstance(value, Tensor) else value

        inputs, named = tree_map(prepared, trace.arguments)
        hooks = ActivationHooks(model, wanted, energies.receive, functional=functional)
        with repeatable(), hooks:
            return model(*inputs, **named)

    if not images:
        return "no argument of the network is an image"
    if not _alike(trace.output, run(None)):
        return "two passes of one image give different results"
    energies.is_changed = True
    for place in PLACES:
        run(place)
    return ""


def proved_layouts(
    model: nn.Module, trace: Trace, names: Collection[str]
) -> dict[str, Layout | str]:
    """The layouts of the layers of some modules after the probe, or why there is none.

    >>> from natstats.activations.trace import trace_calls
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten())
    >>> trace = trace_calls(model, (torch.rand(1, 3, 32, 32),))
    >>> str(proved_layouts(model, trace, ["0"])["0"])
    'NCHW'
    """
    found = probe_layouts(model, trace, names)
    layouts: dict[str, Layout | str] = {
        call.name: call.layout for call in trace.calls if call.module in {*names}
    }
    return layouts | found.settled | found.refused


def _ways(model: nn.Module, trace: Trace, call: LayerCall, image: Tensor) -> list[Layout]:
    """The layouts in which the output of a layer may be read."""
    shape = call.shape
    grids: dict[tuple[int, ...], None] = dict.fromkeys(trace.rules.grids)
    if len(shape) == 3:
        height, width = image.shape[-2:]
        for n_tokens in {shape[0], shape[1]}:
            grids |= dict.fromkeys(patch_grids(n_tokens, (height, width)))
    ways = candidates(model.get_submodule(call.module), shape, tuple(grids))
    if isinstance(call.layout, str) and shape[0] > 1:  # its sets are taken for pieces of a map
        return [way for way in ways if way.windows is not None]
    return ways


def _may_be_maps(call: LayerCall) -> bool:
    """Whether a layer is read, or may be once its layout is known."""
    if isinstance(call.layout, Layout):
        return call.layout.sets != 0 and min(call.layout.grid[-2:]) >= MINIMUM_SIDE
    return LayoutRules.is_open(call.layout)


def _tell(rules: LayoutRules, calls: Mapping[str, LayerCall], found: Probed) -> None:
    for layer, layout in found.settled.items():
        rules.settle(layer, calls[layer].shape, layout)
    for layer in found.proved:
        shape, read = calls[layer].shape, calls[layer].layout
        if len({*shape[1:]}) == 1 and isinstance(read, Layout):
            rules.settle(layer, shape, read)  # a cube, of which the shape says nothing
    for layer, reason in found.refused.items():
        rules.refuse(layer, reason)
    rules.by_rule |= found.by_rule


def _alike(one: Any, other: Any) -> bool:
    """Whether two results differ by at most a hundredth of the spread of their values."""
    ours, theirs = ([x for x in tree_leaves(o) if isinstance(x, Tensor)] for o in (one, other))
    if len(ours) != len(theirs):
        return False
    for left, right in zip(ours, theirs, strict=True):
        if left.shape != right.shape:
            return False
        if left.is_quantized:
            left, right = left.dequantize(), right.dequantize()
        if not left.is_floating_point() or left.numel() < 2:
            continue
        left, right = left.detach().double(), right.detach().double()
        spread = float((left - left.mean()).abs().mean())
        if float((left - right).abs().mean()) > 0.01 * spread:
            return False
    return True

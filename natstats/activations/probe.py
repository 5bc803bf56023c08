"""Where the maps are, proved: a small patch of the image is changed, and the layers' maps answer.

A rule that goes by shapes guesses wrong where tokens or windows happen to fill a square. So one
image passes again with a patch changed, at four places off the diagonals. A layer whose layout is
right answers where the patch is; one whose layout is wrong answers elsewhere, and then either
another layout of the same shape puts all four answers right, or the layer is refused. What answers
everywhere alike (the outputs of attention, say) proves nothing and keeps the layout of the rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from natstats.activations.answers import Answers, Outcome, verdict
from natstats.activations.hooks import ActivationHooks, parts_of, unwatched
from natstats.activations.layout_candidates import candidates, patch_grids
from natstats.activations.layout_rules import LayoutRules, channels_are_last
from natstats.activations.layouts import Layout
from natstats.activations.passes import repeatable, unchanged
from natstats.activations.selection import call_name
from natstats.activations.trace import LayerCall, Trace
from natstats.checks import MINIMUM_SIDE

__all__ = ["PLACES", "Probed", "probe_layouts", "proved_layouts"]

PLACES = ((0.10, 0.64), (0.36, 0.10), (0.64, 0.90), (0.90, 0.36))
"""Centres of the patches, as shares of height and width. None is where another one comes to lie
when the image is transposed, so that a map read with rows and columns swapped answers elsewhere."""


FEWEST_POINTS = 8
"""Side of a map, points, from which on a convolution has to answer in place."""


@dataclass
class Probed:
    """What the probe found.

    Attributes:
        proved: layers whose answers sit where their layout says.
        settled: layers that are read in another layout than the rules', and which.
        refused: layers that no layout puts right, with the reason.
        by_rule: layers whose answers prove nothing, so that the layout is that of the rules.
        doubted: layers whose layout was declared, and which answer elsewhere.
        problem: why the probe could not be made; empty when it was.
    """

    proved: set[str] = field(default_factory=set)
    settled: dict[str, Layout] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    by_rule: set[str] = field(default_factory=set)
    doubted: list[str] = field(default_factory=list)
    problem: str = ""

    def warnings(self) -> list[str]:
        """What a reader of the results must know."""
        said = []
        if self.problem:
            said.append(f"the layouts of the layers were not proved: {self.problem}")
        if self.doubted:
            n = len(self.doubted)
            said.append(
                f"{n} {'layer answers' if n == 1 else 'layers answer'} in another place than the "
                f"layout says that was declared: {', '.join(self.doubted[:3])}"
            )
        return said


def _is_image(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.ndim >= 3
        and min(value.shape[-2:]) >= MINIMUM_SIDE
        and (value.is_floating_point() or value.dtype is torch.uint8)
    )


def _corner(length: int, share: float, side: int) -> int:
    """Where a patch begins: at a multiple of its side, so that larger patches hold it whole."""
    return min(int(share * length) // side * side, length - side)


def _side(image: Tensor) -> int:
    """Side of the patch: about a 24th of the image's shorter side, a power of two."""
    return 1 << max(1, (min(image.shape[-2:]) // 24).bit_length() - 1)


def _spans(image: Tensor) -> NDArray[np.float64]:
    """First and last end of the patches along height and width, as shares, (K, 2, 2)."""
    side = _side(image)
    starts = [
        [_corner(n, s, side) for s, n in zip(place, image.shape[-2:], strict=True)]
        for place in PLACES
    ]
    ends = np.stack([np.array(starts), np.array(starts) + side], -1)
    return ends / np.array(image.shape[-2:], dtype=np.float64)[:, None]


def _patched(image: Tensor, place: tuple[float, float]) -> Tensor:
    """A copy of an image with a patch of a texture unlike what was there, in the image's range."""
    side = _side(image)
    top, left = (_corner(n, s, side) for s, n in zip(place, image.shape[-2:], strict=True))
    changed = image.clone()
    patch = changed[..., top : top + side, left : left + side]
    low, high = image.min().double().item(), image.max().double().item()
    if not high > low:
        low, high = low - 1, high + 1
    if image.dtype is torch.uint8:
        low, high = max(low, 0), min(high, 255)
    # Light where it was dark: the patch differs in its mean, and from pixel to pixel.
    far, near = (high, low) if patch.double().mean() < (low + high) / 2 else (low, high)
    checked = (torch.arange(side)[:, None] + torch.arange(side)) % 2
    patch.copy_(far + (near - far) * 0.35 * checked.to(torch.float64))
    return changed


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
    state and inputs are as before when it returns. Where a pass of the same image gives something
    else than the traced one, the network is left to chance and nothing is proved.

    Args:
        model: the network.
        trace: of a pass of one image; its rules are told what to read how.
        names: the modules.

    >>> from natstats.activations.trace import trace_calls
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    >>> trace = trace_calls(model, (torch.rand(1, 3, 32, 32),))
    >>> sorted(probe_layouts(model, trace, ["0", "1"]).proved)
    ['0', '1']
    """
    found = Probed()
    wanted = {*names}
    calls = {call.name: call for call in trace.calls if call.module in wanted}
    energies = _Energies(
        {
            name: None
            if trace.rules.is_declared(call.module)
            else channels_are_last(model.get_submodule(call.module))
            for name, call in calls.items()
            if _may_be_maps(call)
        }
    )
    images = [leaf for leaf in tree_leaves(trace.arguments) if _is_image(leaf)]
    n_axes = images[0].ndim if images else 0

    def run(place: tuple[float, float] | None) -> Any:
        def prepared(value: Any) -> Any:
            if place is not None and _is_image(value) and value.ndim == n_axes:
                return _patched(value, place)
            return value.clone() if isinstance(value, Tensor) else value

        inputs, named = tree_map(prepared, trace.arguments)
        functional = trace.functional & wanted
        hooks = ActivationHooks(model, wanted, energies.receive, functional=functional)
        with repeatable(), hooks:
            return model(*inputs, **named)

    try:
        with unwatched(), unchanged(model), torch.no_grad():
            if not images:
                found.problem = "no argument of the network is an image"
            elif not _alike(trace.output, run(None)):
                found.problem = "two passes of one image give different results"
            else:
                energies.is_changed = True
                for place in PLACES:
                    run(place)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        found.problem = f"a pass of a changed image fails with a {type(error).__name__}"
    rest: dict[str, Outcome] = {}
    for layer in energies.layers:
        call = calls[layer]
        answers = None if found.problem else energies.answers(layer, _spans(images[0]))
        outcome = Outcome(is_silent=True)
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
    _decide_on_rest({layer: calls[layer] for layer in rest}, rest, calls, trace.rules, found)
    _tell(trace.rules, calls, found)
    return found


def proved_layouts(
    model: nn.Module, trace: Trace, names: Collection[str]
) -> dict[str, Layout | str]:
    """The layouts of the layers of some modules, proved, or why there is none.

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
    shape = call.shape or ()
    grids: dict[tuple[int, ...], None] = dict.fromkeys(trace.rules.grids)
    if len(shape) == 3:
        height, width = image.shape[-2:]
        for n_tokens in {shape[0], shape[1]}:
            grids |= dict.fromkeys(patch_grids(n_tokens, (height, width)))
    ways = candidates(model.get_submodule(call.module), shape, tuple(grids))
    if isinstance(call.layout, str) and shape[0] > 1:  # pieces of a map, each of which is none
        return [way for way in ways if way.name == "windows"]
    return ways


def _may_be_maps(call: LayerCall) -> bool:
    """Whether a layer is read, or may be once its layout is known."""
    if isinstance(call.layout, Layout):
        return call.layout.sets != 0 and min(call.layout.grid[-2:]) >= MINIMUM_SIDE
    return LayoutRules.is_open(call.layout)


def _decide_on_rest(
    rest: Mapping[str, LayerCall],
    outcomes: Mapping[str, Outcome],
    calls: Mapping[str, LayerCall],
    rules: LayoutRules,
    found: Probed,
) -> None:
    """Layers without a proof go with those of the same form that have one.

    Tokens of one number stand in one order, as a rule, and the outputs of attention among them
    answer everywhere.
    """
    # On a map of a few points, each of which sees the whole image, a convolution may well answer
    # somewhere else; and its output can be read in one way only.
    small = {
        n
        for n, call in rest.items()
        if isinstance(call.layout, Layout)
        and min(call.layout.grid[-2:]) < FEWEST_POINTS
        and rules.is_certain(call.module, call.layout)
    }
    refused = {n for n, outcome in outcomes.items() if outcome.is_elsewhere} - small
    # Nor do a few tokens that come from such a map prove anything.
    proved = (calls[name] for name in found.proved)
    dense = {
        call.layout.grid
        for call in proved
        if isinstance(call.layout, Layout) and len(call.shape or ()) > 3
    }
    for layer, call in rest.items():
        outcome, read = outcomes[layer], call.layout
        if rules.is_declared(call.module):
            if outcome.is_elsewhere and isinstance(read, Layout):
                found.doubted.append(layer)
            continue
        alike = [other for n, other in calls.items() if n != layer and _form(other) == _form(call)]
        # Windows are shifted in every other block: only the layers of one attention are alike.
        beside = [other for other in alike if _home(other) == _home(call)]
        settled = [found.settled[c.name] for c in (*alike, *beside) if c.name in found.settled]
        if settled and (settled[-1].name != "windows" or beside) and not outcome.is_silent:
            found.settled[layer] = settled[-1]
            found.by_rule.add(layer)
        elif not isinstance(read, Layout):
            continue  # it was refused already
        elif layer in refused:
            found.refused[layer] = f"answers in the wrong place: {outcome.words} as {read}"
        elif (
            any(other.name in found.proved for other in alike)
            or found.problem
            or (
                min(read.grid[-2:]) < FEWEST_POINTS
                and read.grid in dense
                and read.n_prefix + read.n_suffix <= 1
                and not any(other.name in refused for other in alike)
            )
        ):
            if not rules.is_certain(call.module, read):
                found.by_rule.add(layer)
        elif len(call.shape or ()) == 3 or any(other.name in refused for other in alike):
            found.refused[layer] = f"answers in no place: {outcome.words} as {read}"
        elif not rules.is_certain(call.module, read):
            found.by_rule.add(layer)


def _home(call: LayerCall) -> str:
    return call.module.rpartition(".")[0]


def _form(call: LayerCall) -> tuple[Any, ...]:
    """What layers have in common whose maps stand in the same places."""
    shape = call.shape or ()
    return len(shape), str(call.layout), shape[0] if len(shape) == 3 else 0


def _tell(rules: LayoutRules, calls: Mapping[str, LayerCall], found: Probed) -> None:
    for layer, layout in found.settled.items():
        rules.settle(layer, calls[layer].shape or (), layout)
    for layer in found.proved:
        shape, read = calls[layer].shape or (), calls[layer].layout
        if len({*shape[1:]}) == 1 and isinstance(read, Layout):
            rules.settle(layer, shape, read)  # a cube, of which the shape says nothing
    for layer, reason in found.refused.items():
        rules.refuse(layer, reason)
    rules.by_rule |= found.by_rule


def _alike(one: Any, other: Any) -> bool:
    """Whether two results agree, up to rounding, in a hundredth of how much their values differ."""
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

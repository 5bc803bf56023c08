"""The way of the maps through a network: which values are measured, and what is done between them.

Every value that holds maps has one *main input*, the deepest value that it was made of; so the
values are a tree with the images at its root, and from each layer one way leads back to them. The
*trunk* is the way to the deepest layer that is not the network's own output. At an addition it goes
through the branch with more weight layers, not through the shortcut; where branches are equally
deep, through the one with the larger kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from natstats.activations.graph import WRITTEN, Graph, Operation
from natstats.activations.layouts import Layout
from natstats.activations.operations import Place
from natstats.activations.own_output import IS_CONSTANT
from natstats.activations.trace import LayerCall, Trace
from natstats.checks import MINIMUM_SIDE

__all__ = ["MeasuredValue", "Plan", "PlannedStep", "plan_of_graph", "plan_of_modules"]

_SPATIAL = ("convolution", "pooling", "normalization")
_KEEPING = ("rectifier", "normalization", "addition", "gate", "view", "other")
_ATTENTION = ("softmax", "scaled_dot_product", "bmm", "baddbmm", "attention")


@dataclass(frozen=True, eq=False)
class MeasuredValue:
    """A value whose spectrum is measured.

    Attributes:
        number: place among the measured values; the images have 0.
        name: of the layer whose output it is, else of the operation.
        place: of the operation that makes it; None for the images.
        layout: where its maps are.
        channels: number of maps.
        layers: names of the layers whose output it is.
        depth: weight layers on the way to it.
        pitch: pixels of the image from one row of the maps to the next; NaN when not known.
        part: which of the tensors that the operation returns.
    """

    number: int
    name: str
    place: Place | None
    layout: Layout
    channels: int
    layers: tuple[str, ...]
    depth: int
    pitch: float
    part: int = 0


@dataclass(frozen=True, eq=False)
class PlannedStep:
    """What is done to the maps between two measured values.

    Attributes:
        kind: one of :data:`natstats.activations.operations.KINDS`, or ``attention``.
        before: number of the value that it starts from.
        after: number of the value that it ends at.
        operation: the one operation that it is; None where there are several or it is not known.
        others: numbers of the other measured values that the operation takes.
        is_trunk: whether it is a part of the trunk.
    """

    kind: str
    before: int
    after: int
    operation: Operation | None
    others: tuple[int, ...]
    is_trunk: bool


@dataclass(frozen=True, eq=False)
class Plan:
    """What to measure on a pass.

    Attributes:
        values: the measured values, in the order of execution; the images first.
        steps: one for each value but the images.
        image_leaf: which of the tensors that the network is given are the images.
        note: what a reader must know; empty where every operation was followed.
    """

    values: tuple[MeasuredValue, ...]
    steps: tuple[PlannedStep, ...]
    note: str = ""
    image_leaf: int = 0


class _Ways:
    """Where each value of a graph comes from."""

    def __init__(self, graph: Graph, trace: Trace) -> None:
        self.graph = graph
        self.layouts = _layouts(graph, trace)
        n = len(graph.values)
        self.main: list[int | None] = [None] * n
        self.depth, self._taps, self.anchor = [0] * n, [0] * n, list(range(n))
        # Values that were made by writing into new memory or into others, and views of them.
        self._written: set[int] = set()
        for one in graph.operations:
            out = one.output
            is_view = one.kind == "view" and not self._written.isdisjoint(one.inputs)
            if one.name == WRITTEN or is_view or IS_CONSTANT.search(one.name):
                self._written.add(out)
            main = self._main_input(one)
            self.main[out] = main
            is_product = one.kind in ("convolution", "linear")
            self.depth[out] = self.depth[main] + is_product
            self._taps[out] = self._taps[main] + _taps(one)
            if not self.is_measured(out):
                self.anchor[out] = self.anchor[main]

    def is_measured(self, value: int) -> bool:
        """Whether maps are known to be in a value, of a size that can be measured."""
        layout = self.layouts.get(value)
        if value in self._written:
            return False
        return layout is not None and min(layout.grid) >= MINIMUM_SIDE

    def _main_input(self, one: Operation) -> int:
        inputs = list(one.inputs)
        if self.is_measured(one.output):
            # A gate may be as deep as the maps, but comes through a pooling over the whole map.
            inputs = [number for number in inputs if self.is_measured(number)] or inputs
        return max(inputs, key=self.rank)

    def rank(self, value: int) -> tuple[int, int]:
        """What makes a value the deeper of two: weight layers, then how far their kernels look."""
        return self.depth[value], self._taps[value]

    def between(self, value: int) -> list[Operation]:
        """The operations from the measured value before to this one, the last first."""
        found, number = [], value
        while (maker := self.graph.maker(number)) is not None:
            found.append(maker)
            main = self.main[number]
            assert main is not None
            if self.is_measured(main):
                break
            number = main
        return found


def _taps(one: Operation) -> int:
    """How far beyond one pixel the kernels of an operation reach, both axes added, pixels."""
    weight = one.arguments.get("weight")
    if one.kind != "convolution" or not isinstance(weight, Tensor):
        return 0
    shape = weight.shape[2:]
    return sum((side - 1) * by for side, by in zip(shape, one.arguments["dilation"], strict=True))


def _layouts(graph: Graph, trace: Trace) -> dict[int, Layout]:
    """Where the maps are in each value, as far as that is known."""
    found: dict[int, Layout] = {}
    for value in graph.values:
        for name in value.layers:
            call = trace.by_name.get(name)
            if call is not None and isinstance(call.layout, Layout) and call.layout.sets == 1:
                found.setdefault(value.number, call.layout)
    for number in graph.inputs:
        if len(graph.values[number].shape) == 4:
            found[number] = Layout("NCHW", graph.values[number].shape[2:])
    for _ in range(2):  # what is known of an output holds for its inputs, too
        for one in graph.operations:
            _spread(graph, one, found)
    return {
        number: layout
        for number, layout in found.items()
        if len(layout.grid) == 2 and _is_whole(layout) and not layout.is_quantized
    }


def _is_whole(layout: Layout) -> bool:
    return layout.sets == 1 and layout.windows is None


def _spread(graph: Graph, one: Operation, found: dict[int, Layout]) -> None:
    """Pass what is known of the values at one end of an operation on to the other."""
    values = [*one.inputs, one.output]
    shapes = [graph.values[number].shape for number in values]
    if one.kind in _SPATIAL and one.name not in ("mean", "native_layer_norm"):
        for number, shape in ((values[0], shapes[0]), (one.output, shapes[-1])):
            if len(shape) == 4:
                found.setdefault(number, Layout("NCHW", shape[2:]))
    if one.kind == "concatenation" and one.arguments.get("dim") in (1, -3):
        known = [found[number] for number in one.inputs if number in found]
        if known and all(layout.name == "NCHW" for layout in known):
            for number in values:
                found.setdefault(number, known[0])
    if one.kind in _KEEPING and not one.name.startswith(_SHUFFLING):
        for number, shape in zip(values, shapes, strict=True):
            if number in found:
                for other, alike in zip(values, shapes, strict=True):
                    if shape == alike:
                        found.setdefault(other, found[number])


_SHUFFLING = ("view", "transpose", "permute", "t", "as_strided", "expand", "written", "bmm", "mm")
"""May return something of the same shape whose axes mean something else."""


def plan_of_graph(graph: Graph, trace: Trace) -> Plan:
    """What to measure of a network whose operations were followed.

    Args:
        graph: of the pass.
        trace: the traced pass, which knows the layouts of layers and the network's own output.
    """
    ways = _Ways(graph, trace)
    images = next((number for number in graph.inputs if ways.is_measured(number)), None)
    if images is None:
        return Plan((), (), "the network takes no images that can be measured")
    chosen = [images]
    for one in graph.operations:
        number = one.output
        if ways.is_measured(number) and not _is_alias(ways, number):
            chosen.append(number)
    number_of = {value: place for place, value in enumerate(chosen)}
    # An alias has the number of the value that it is the same as.
    for one in graph.operations:
        if one.output not in number_of and ways.is_measured(one.output):
            main = ways.main[one.output]
            assert main is not None
            if ways.anchor[main] in number_of:
                number_of[one.output] = number_of[ways.anchor[main]]
    trunk = _trunk(ways, trace, chosen)
    values = tuple(_named(_value(ways, trace, number_of[v], v) for v in chosen))
    found = [_step(ways, value, number_of, value in trunk) for value in chosen[1:]]
    steps = [step for step in found if step is not None]
    return Plan(values, tuple(steps), image_leaf=graph.inputs.index(images))


_ORDER_KEEPING = ("clone", "contiguous", "alias", "detach", "dropout", "to_copy", "permute")


def _is_alias(ways: _Ways, value: int) -> bool:
    """Whether a value is the maps of the one before in the same order, laid out differently."""
    main = ways.main[value]
    assert main is not None
    before = ways.anchor[main]
    if not ways.is_measured(before) or _size(ways, before) != _size(ways, value):
        return False
    names = {one.name for one in ways.between(value)}
    return names <= {*_ORDER_KEEPING} and ways.layouts[before].grid == ways.layouts[value].grid


def _trunk(ways: _Ways, trace: Trace, chosen: Sequence[int]) -> set[int]:
    """The values from the images to the deepest layer that is not the network's own output."""
    best: int | None = None
    for value in chosen[1:]:
        calls = [trace.by_name[n] for n in ways.graph.values[value].layers if n in trace.by_name]
        is_end = not calls or any(call.is_output for call in calls)
        maker = ways.graph.maker(value)
        is_product = any(one.kind in ("convolution", "linear") for one in ways.between(value))
        if is_end or not is_product or maker is None:
            continue
        if best is None or ways.rank(value) >= ways.rank(best):
            best = value
    found: set[int] = set()
    while best is not None:
        found.add(best)
        main = ways.main[best]
        best = None if main is None else ways.anchor[main]
        if best is not None and ways.main[best] is None:
            break
    return found


def _value(ways: _Ways, trace: Trace, number: int, value: int) -> MeasuredValue:
    layout, held = ways.layouts[value], ways.graph.values[value]
    maker = ways.graph.maker(value)
    layers = tuple(name for name in held.layers if name in trace.by_name)
    name = "images"
    if maker is not None:
        name = layers[0] if layers else f"{maker.module or 'network'} {maker.name}"
    channels = held.shape[1 if layout.channels_first else -1]
    place = None if maker is None else maker.place
    pitch = 1.0 if maker is None else _pitch(ways, trace, value)
    part = 0 if maker is None else maker.part
    depth = ways.depth[value]
    return MeasuredValue(number, name, place, layout, channels, layers, depth, pitch, part)


def _pitch(ways: _Ways, trace: Trace, value: int | None) -> float:
    """Pixels of the image between rows, from a layer on the same way with maps of this size."""
    grid = ways.layouts[value].grid if value is not None else ()
    while value is not None and (value not in ways.layouts or ways.layouts[value].grid == grid):
        for name in ways.graph.values[value].layers:
            if name in trace.by_name and value in ways.layouts:
                return trace.by_name[name].pitch
        if ways.main[value] is None:
            return 1.0
        value = ways.main[value]
    return math.nan


def _named(values: Iterable[MeasuredValue]) -> Iterable[MeasuredValue]:
    """The same values with unique names: the second of a name gets a number."""
    seen: dict[str, int] = {}
    for value in values:
        times = seen.get(value.name, 0)
        seen[value.name] = times + 1
        if times:
            value = MeasuredValue(**{**vars(value), "name": f"{value.name}:{times}"})
        yield value


def _step(ways: _Ways, value: int, number_of: dict[int, int], is_trunk: bool) -> PlannedStep | None:
    between = ways.between(value)
    first = between[-1]
    main = ways.main[first.output]
    assert main is not None
    before = number_of.get(ways.anchor[main])
    if before is None:
        return None  # made of something that never was an image
    acting = [one for one in between if one.kind != "view"]
    if len(acting) == 1 and _is_plain(ways, acting[0], ways.anchor[main], value):
        one = acting[0]
        others = tuple(
            number_of[number]
            for number in one.inputs
            if number in number_of and number_of[number] != before
        )
        return PlannedStep(one.kind, before, number_of[value], one, others, is_trunk)
    kind = "view" if not acting else "other"
    if any(word in one.name for one in acting for word in _ATTENTION):
        kind = "attention"
    return PlannedStep(kind, before, number_of[value], None, (), is_trunk)


def _is_plain(ways: _Ways, one: Operation, before: int, after: int) -> bool:
    """Whether an operation is all that lies between two values, but for changes of shape."""
    sizes = [_size(ways, number) for number in (before, ways.main[one.output], one.output, after)]
    return sizes[0] == sizes[1] and sizes[2] == sizes[3]


def _size(ways: _Ways, value: int | None) -> int:
    assert value is not None
    size = 1
    for side in ways.graph.values[value].shape:
        size *= side
    return size


_KIND_OF_MODULE = {
    "conv": "convolution", "depthwise": "convolution", "pointwise": "convolution",
    "act": "rectifier", "norm": "normalization",
}  # fmt: skip


def plan_of_modules(trace: Trace) -> Plan:
    """What to measure of a network whose operations could not be followed: all leaf modules.

    Args:
        trace: the traced pass.
    """
    calls = [call for call in trace.calls if _can_be_measured(call)]
    containers = {call.module.rpartition(".")[0] for call in trace.calls}
    leaves = [call for call in calls if call.module not in containers]
    values, steps = [], []
    for place, call in enumerate(leaves, 1):
        assert isinstance(call.layout, Layout)
        channels = call.shape[1 if call.layout.channels_first else -1]
        where = Place(call.module, call.call, "", 0)
        values.append(
            MeasuredValue(
                place, call.name, where, call.layout, channels, (call.name,), call.depth, call.pitch
            )
        )
        kind = _KIND_OF_MODULE.get(call.kind, "other")
        steps.append(PlannedStep(kind, place - 1, place, None, (), not call.is_output))
    note = (
        "the operations of the network could not be followed; it was measured before and after "
        "its modules, in the order of execution, and nothing is predicted"
    )
    shape = next((leaf.shape for leaf in trace.arguments[0] if hasattr(leaf, "shape")), None)
    if shape is None or len(shape) != 4 or not values:
        return Plan((), (), note)
    images = MeasuredValue(
        0, "images", None, Layout("NCHW", tuple(shape[2:])), shape[1], (), 0, 1.0
    )
    return Plan((images, *values), tuple(steps), note)


def _can_be_measured(call: LayerCall) -> bool:
    layout = call.layout
    is_map = isinstance(layout, Layout) and len(layout.grid) == 2 and _is_whole(layout)
    return is_map and isinstance(layout, Layout) and min(layout.grid) >= MINIMUM_SIDE

"""Taps: the places in teacher and student whose maps a method compares, and how they are paired."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from natstats import checks
from natstats.activations import undisturbed
from natstats.depth import trace_calls
from natstats.distill.method import ACTIVATIONS, PLACES, TapPoint
from natstats.distill.trunk import TrunkMap, trunk_of
from natstats.errors import NatstatsError, UsageError
from natstats.layouts import Layout
from natstats.selection import call_name

__all__ = ["Tapped", "Taps", "pair_by_name", "pair_taps", "student_taps"]

INPUT = "@input"
"""Marks a tap on what goes into a layer."""


@dataclass(frozen=True, eq=False)
class _Group:
    """The maps of one resolution on the trunk, from the first to the last, by their roles."""

    size: tuple[int, int]
    stem: TrunkMap | None
    blocks: tuple[TrunkMap, ...]
    end: TrunkMap
    after: TrunkMap | None


def _groups(model: nn.Module, images: Tensor) -> list[_Group]:
    """Groups of one resolution; where there are blocks, those that have some."""
    trunk = [m for m in trunk_of(model, images) if min(m.height, m.width) > 1]
    has_blocks = any(m.is_block for m in trunk)
    groups: dict[tuple[int, int], list[TrunkMap]] = {}
    for found in trunk:
        groups.setdefault((found.height, found.width), []).append(found)
    result: list[_Group] = []
    for size, maps in groups.items():
        blocks = [m for m in maps if m.is_block]
        if not blocks and not has_blocks:
            blocks = [m for m in maps if m.is_activation] or maps[-1:]
        # Pooling alone makes no group.
        if not blocks or (result and blocks[-1].depth <= result[-1].end.depth):
            continue
        end = blocks[-1]
        behind = maps[maps.index(end) :]
        ahead = [m for m in maps[: maps.index(blocks[0])] if m.is_activation]
        stem = ahead[-1] if ahead and blocks[0].is_block else None
        # One that a weight layer stands before belongs to what comes next.
        after = next((m for m in behind if m.is_activation and m.depth == end.depth), None)
        result.append(_Group(size, stem, tuple(blocks), end, after))
    return result


def _point(found: TrunkMap, name: str, activation: nn.Module | None) -> TapPoint:
    return TapPoint(
        name=name,
        channels=found.channels,
        height=found.height,
        width=found.width,
        batch_norm=found.batch_norm,
        activation=activation,
        aliases=found.aliases if name == found.name else (),
    )


def _with_activation(block: TrunkMap, after: TrunkMap | None, which: str) -> TapPoint:
    """The tap of a block: what it returns, or what goes into or comes out of its activation."""
    if which == "block" or after is None:
        return _point(block, block.name, block.module if block.is_activation else None)
    name = after.source if which == "pre" else after.name
    return _point(after, name, after.module)


def _along(blocks: Sequence[TrunkMap], group: _Group, which: str) -> list[TapPoint]:
    return [
        _with_activation(
            b, group.after if b is group.end else b if b.is_activation else None, which
        )
        for b in blocks
    ]


def _matched(student: Sequence[Any], teacher: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Two sequences, matched at the same share of their lengths; the last goes with the last."""
    n = min(len(student), len(teacher))
    return [
        (student[(i * len(student)) // n - 1], teacher[(i * len(teacher)) // n - 1])
        for i in range(1, n + 1)
    ]


def pair_taps(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    place: str = "groups",
    activation: str = "post",
    smallest: int = 1,
) -> tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]:
    """Taps of student and teacher at corresponding places.

    Groups of blocks of one resolution correspond where both networks have that resolution; where
    they have none in common, they do at the same share of all groups. Blocks in corresponding
    groups do at the same share of the group.

    Args:
        student: a classifier.
        teacher: a classifier.
        images: (1, 3, H, W), as both will be given.
        place: see :data:`natstats.distill.method.PLACES`.
        activation: see :data:`natstats.distill.method.ACTIVATIONS`.
        smallest: maps with a side below this, pixels, are left out.

    Returns:
        Taps in the student and in the teacher, as many.

    Raises:
        UsageError: an argument is out of range, or nothing corresponds.

    >>> from natstats.networks import cifar_resnet
    >>> images = torch.zeros(1, 3, 32, 32)
    >>> mine, theirs = pair_taps(cifar_resnet(8), cifar_resnet(20), images, activation="pre")
    >>> [(s.name, t.name) for s, t in zip(mine, theirs)][-1]
    ('stage3.0.relu2@input', 'stage3.2.relu2@input')
    """
    checks.one_of("place", place, PLACES)
    checks.one_of("activation", activation, ACTIVATIONS)
    if place == "none":
        return (), ()
    mine = _groups(student, images)
    theirs = mine if teacher is student else _groups(teacher, images)
    mine, theirs = ([g for g in side if min(g.size) >= smallest] for side in (mine, theirs))
    by_size = {group.size: group for group in theirs}
    pairs = [(group, by_size[group.size]) for group in mine if group.size in by_size]
    if not pairs and mine and theirs:
        pairs = _matched(mine, theirs)
    if not pairs:
        shapes = [" ".join(f"{h}x{w}" for h, w in [g.size for g in s]) for s in (mine, theirs)]
        none = f"none of {max(smallest, 2)} pixels or more"
        raise UsageError(
            "teacher: expected a network whose maps correspond to the student's; the student has "
            f"maps of {shapes[0] or none}, the teacher of {shapes[1] or none} "
            "(--tap STUDENT=TEACHER says which belong together)"
        )
    if place == "middle":
        pairs = [pairs[(len(pairs) - 1) // 2]]
    elif place == "last":
        pairs = pairs[-1:]
    found: list[tuple[TapPoint, TapPoint]] = []
    for place_of, pair in enumerate(pairs):
        ends = [_with_activation(g.end, g.after, activation) for g in pair]
        if place == "blocks":
            ours, other = (_along(g.blocks, g, activation) for g in pair)
            found += _matched(ours, other)
            continue
        if place == "sections":
            found.append(_firsts(pairs, place_of, activation))
        found.append((ends[0], ends[1]))
    return tuple(one for one, _ in found), tuple(other for _, other in found)


def student_taps(
    student: nn.Module,
    images: Tensor,
    place: str = "groups",
    activation: str = "post",
    smallest: int = 1,
) -> tuple[TapPoint, ...]:
    """Taps of a student whose teacher is not at hand: the places that it would have with itself.

    Raises:
        UsageError: an argument is out of range, or there is no such place.
    """
    return pair_taps(student, student, images, place, activation, smallest)[0]


def _firsts(
    pairs: Sequence[tuple[_Group, _Group]], place: int, activation: str
) -> tuple[TapPoint, TapPoint]:
    """The first maps of two groups; where one is a single block, what the blocks start from.

    That is the end of the group before, or the stem's map for the first group.
    """
    pair = pairs[place]
    if min(len(group.blocks) for group in pair) == 1:
        stems = [group.stem for group in pair]
        if place > 0:
            ends = [_with_activation(g.end, g.after, activation) for g in pairs[place - 1]]
            return ends[0], ends[1]
        if stems[0] is not None and stems[1] is not None:
            return (
                _with_activation(stems[0], stems[0], activation),
                _with_activation(stems[1], stems[1], activation),
            )
    firsts = [_along(group.blocks[:1], group, activation)[0] for group in pair]
    return firsts[0], firsts[1]


def pair_by_name(
    student: nn.Module, teacher: nn.Module, images: Tensor, names: Sequence[tuple[str, str]]
) -> tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]:
    """Taps with the names that were asked for, with what the traced pass tells of them.

    Args:
        student: a classifier.
        teacher: a classifier.
        images: (1, 3, H, W).
        names: layers of the student and of the teacher, such as ``("layer2", "layer2.1.bn2")``;
            ``@input`` behind one stands for what goes into it.

    Raises:
        UsageError: there is no such layer, or it has no maps.
    """
    sides = []
    for which, model in enumerate((student, teacher)):
        trunk = {m.name: m for m in trunk_of(model, images)}
        taps = Taps(model, [pair[which] for pair in names], images)
        points = []
        for name in taps.names:
            module = model.get_submodule(_parsed(name)[0])
            found = trunk.get(name)
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            norm = found.batch_norm if found else (module if is_norm else None)
            channels, height, width = taps.shapes[name]
            points.append(TapPoint(name, channels, height, width, norm))
        sides.append(tuple(points))
    return sides[0], sides[1]


def _parsed(name: str) -> tuple[str, int, bool]:
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
        self._taps = {name: _parsed(name) for name in self.names}
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
        calls = {call.name: call for call in trace_calls(self._model, (images,)).calls}
        for name, (module, number, _) in self._taps.items():
            call = calls.get(call_name(module, number))
            layout = "it is not called" if call is None else call.layout
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

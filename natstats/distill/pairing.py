"""Which layers of student and teacher a method compares: pairs of taps, found or named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from natstats import checks
from natstats.distill.method import ACTIVATIONS, PLACES, Activation, Place, TapPoint
from natstats.distill.taps import Taps, parsed
from natstats.distill.traces import Traces
from natstats.distill.trunk import TrunkMap, trunk_of
from natstats.errors import UsageError

__all__ = ["TapSides", "named_pairs", "pair_by_name", "pair_taps", "student_taps"]

TapSides = tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]
"""Taps of a student and as many of its teacher, which are compared one by one."""


@dataclass(frozen=True, eq=False)
class _Group:
    """The maps of one resolution on the trunk, from the first to the last, by their roles."""

    size: tuple[int, int]
    stem: TrunkMap | None
    blocks: tuple[TrunkMap, ...]
    end: TrunkMap
    after: TrunkMap | None


def _groups(model: nn.Module, images: Tensor, traces: Traces) -> list[_Group]:
    """Groups of maps of one resolution; in a network with blocks, only groups that contain some."""
    trunk = [m for m in trunk_of(model, images, traces) if min(m.height, m.width) > 1]
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
        # An activation behind another weight layer belongs to what comes next.
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


def named_pairs(taps: Any) -> tuple[tuple[str, str], ...]:
    """The given pairs of names of layers, checked.

    Raises:
        UsageError: no pairs of two texts each.

    >>> named_pairs([["layer1", "layer2"]])
    (('layer1', 'layer2'),)
    >>> named_pairs(["ab"])
    Traceback (most recent call last):
    natstats.errors.UsageError: taps: expected pairs, student and teacher; got 'ab'
    """
    if not isinstance(taps, Sequence) or isinstance(taps, str):
        raise UsageError(f"taps: expected pairs, student and teacher; got {taps!r:.60}")
    for pair in taps:
        if (
            not isinstance(pair, Sequence)
            or isinstance(pair, str)
            or len(pair) != 2
            or not all(isinstance(name, str) for name in pair)
        ):
            raise UsageError(f"taps: expected pairs, student and teacher; got {pair!r:.60}")
    return tuple((one, other) for one, other in taps)


def pair_taps(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    place: Place = "groups",
    activation: Activation = "post",
    smallest: int = 1,
    traces: Traces | None = None,
) -> TapSides:
    """Taps of student and teacher at corresponding places.

    Groups of blocks correspond where both networks have their resolution. Where no resolution is
    shared, those at the same share of all groups correspond. In corresponding groups, blocks at the
    same share of the group correspond.

    Args:
        student: a classifier.
        teacher: a classifier.
        images: (1, 3, H, W), as both networks will be given.
        place: see :data:`natstats.distill.method.PLACES`.
        activation: see :data:`natstats.distill.method.ACTIVATIONS`.
        smallest: maps with a side below this, pixels, are left out.
        traces: results of passes traced before, which are reused and added to; None for none.

    Returns:
        Taps in the student and in the teacher, equally many.

    Raises:
        UsageError: an argument is out of range, or nothing corresponds.

    >>> import torch
    >>> from natstats.networks.zoo import cifar_resnet
    >>> images = torch.zeros(1, 3, 32, 32)
    >>> mine, theirs = pair_taps(cifar_resnet(8), cifar_resnet(20), images, activation="pre")
    >>> [(s.name, t.name) for s, t in zip(mine, theirs)][-1]
    ('stage3.0.relu2@input', 'stage3.2.relu2@input')
    """
    checks.one_of("place", place, PLACES)
    checks.one_of("activation", activation, ACTIVATIONS)
    if place == "none":
        return (), ()
    traces = traces or Traces()
    mine = _groups(student, images, traces)
    theirs = mine if teacher is student else _groups(teacher, images, traces)
    pairs = _corresponding(mine, theirs, smallest)
    if place == "middle":
        pairs = [pairs[(len(pairs) - 1) // 2]]
    elif place == "last":
        pairs = pairs[-1:]
    found: list[tuple[TapPoint, TapPoint]] = []
    for number, (one, other) in enumerate(pairs):
        if place == "blocks":
            found += _matched(
                _along(one.blocks, one, activation), _along(other.blocks, other, activation)
            )
            continue
        if place == "sections":
            found.append(_firsts(pairs, number, activation))
        found.append(_ends((one, other), activation))
    return tuple(point for point, _ in found), tuple(point for _, point in found)


def _corresponding(
    student: Sequence[_Group], teacher: Sequence[_Group], smallest: int
) -> list[tuple[_Group, _Group]]:
    """Pairs of groups of one resolution, or, where none is shared, at the same share of all groups.

    Raises:
        UsageError: there is no pair.
    """
    mine, theirs = ([g for g in side if min(g.size) >= smallest] for side in (student, teacher))
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
    return pairs


def _ends(pair: tuple[_Group, _Group], activation: str) -> tuple[TapPoint, TapPoint]:
    one, other = (_with_activation(group.end, group.after, activation) for group in pair)
    return one, other


def student_taps(
    student: nn.Module,
    images: Tensor,
    place: Place = "groups",
    activation: Activation = "post",
    smallest: int = 1,
    traces: Traces | None = None,
) -> tuple[TapPoint, ...]:
    """Taps of a student without its teacher: those it would have if it were its own teacher.

    Raises:
        UsageError: an argument is out of range, or there is no such place.
    """
    return pair_taps(student, student, images, place, activation, smallest, traces)[0]


def _firsts(
    pairs: Sequence[tuple[_Group, _Group]], place: int, activation: str
) -> tuple[TapPoint, TapPoint]:
    """The first maps of two groups; where either is a single block, what the blocks start from.

    That is the end of the group before, or the stem's map for the first group.
    """
    pair = pairs[place]
    if min(len(group.blocks) for group in pair) == 1:
        stems = [group.stem for group in pair]
        if place > 0:
            return _ends(pairs[place - 1], activation)
        if stems[0] is not None and stems[1] is not None:
            return (
                _with_activation(stems[0], stems[0], activation),
                _with_activation(stems[1], stems[1], activation),
            )
    firsts = [_along(group.blocks[:1], group, activation)[0] for group in pair]
    return firsts[0], firsts[1]


def pair_by_name(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    names: Sequence[tuple[str, str]],
    traces: Traces | None = None,
) -> TapSides:
    """Taps at the layers with the given names, with what a traced pass shows about them.

    Args:
        student: a classifier.
        teacher: a classifier.
        images: (1, 3, H, W).
        names: layers of the student and of the teacher, such as ``("layer2", "layer2.1.bn2")``;
            ``@input`` after a name stands for what goes into the layer.
        traces: results of passes traced before, which are reused and added to; None for none.

    Raises:
        UsageError: there is no such layer, or it has no maps.
    """
    sides, traces = [], traces or Traces()
    for which, model in enumerate((student, teacher)):
        trunk = trunk_of(model, images, traces)
        by_name = {name: one for one in trunk for name in (one.name, *one.aliases)}
        after = {one.source: one for one in trunk if one.is_activation}
        taps = Taps(model, [pair[which] for pair in names], images, traces)
        points = []
        for name in (pair[which] for pair in names):  # a layer may be in several pairs
            module = model.get_submodule(parsed(name)[0])
            found = by_name.get(name)
            act = found if found and found.is_activation else after.get(name)
            is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            known = found or act
            norm = known.batch_norm if known else module if is_norm else None
            channels, height, width = taps.shapes[name]
            points.append(
                TapPoint(name, channels, height, width, norm, act.module if act else None)
            )
        sides.append(tuple(points))
    return sides[0], sides[1]

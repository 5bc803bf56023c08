"""What a distillation method is: its losses, the layers it compares, its stages of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.brief import Brief
from natstats.errors import UsageError

__all__ = [
    "ACTIVATIONS",
    "PLACES",
    "TRAINS",
    "DistillationLoss",
    "Method",
    "Outputs",
    "Plan",
    "Ramp",
    "Setting",
    "Stage",
    "TapPoint",
    "Term",
    "at_least_float32",
    "float_maps",
]

Place = Literal["none", "groups", "middle", "last", "sections", "blocks"]
Activation = Literal["block", "pre", "post"]
"""The names below for type checkers."""

PLACES = ("none", "groups", "middle", "last", "sections", "blocks")
"""Where a method looks: nowhere, at the end of every group of blocks of one resolution, at that of
the middle group or the last one, at the first and last map of every group, or at every block."""

ACTIVATIONS = ("block", "pre", "post")
"""Which map of a place: what the last block returns, what goes into the last activation of the
group, or what comes out of it."""

TRAINS = ("student", "lower", "losses")
"""What a stage trains: the whole student, the student up to its last tap, or neither. The losses'
own parameters are trained besides. With ``lower`` the optimiser is still given the whole student,
but gradients reach only the part up to the last tap; batch norms after it still update their
statistics."""


@dataclass(frozen=True, eq=False, repr=False)
class Outputs(Brief):
    """What one forward pass of a network gave.

    Attributes:
        logits: class scores, (N, K).
        maps: maps at the taps of the method, in its order, each (N, C, H, W).
        images: what the network was given, (N, 3, H, W); they need a gradient where the method
            uses them.
    """

    logits: Tensor
    maps: tuple[Tensor, ...] = ()
    images: Tensor | None = None


def scores_of(output: object) -> Tensor:
    """The class scores in what a classifier returns, which may hold auxiliary scores too."""
    if isinstance(output, Tensor):
        return output
    first = getattr(output, "logits", None)
    if first is None and isinstance(output, tuple):
        first = output[0]
    assert isinstance(first, Tensor), f"scores of {type(output).__name__}"
    return first


class DistillationLoss(nn.Module):
    """A loss of a student against its teacher; a scalar, fit for any training loop.

    It is computed in the widest type of what it is given, and at least in float32.

    Parameters of its own (connectors) are trained beside the student and dropped at the end.
    """

    reduction: str = ""
    """How it is reduced, in words; the meaning of its weight depends on that."""

    needs_teacher: bool = True
    """Whether it uses the teacher's outputs."""

    compares_scores: bool = False
    """Whether class scores of student and teacher are compared, which need the same classes."""

    needs_labels: bool = False
    """Whether it needs one class for each image, and not shares of classes as of mixed images."""

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32, or in float64 for outputs in that.

        Args:
            student: outputs of the student; gradients flow into them.
            teacher: outputs of the teacher on the same images, detached, maps in the same order.
            labels: (N,), whole numbers.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TapPoint:
    """A place where a map is taken, as seen in a traced pass.

    Attributes:
        name: name of the layer, such as ``layer2.1.relu:1``; with ``@input`` for what goes into it.
        channels: C.
        height: H, pixels.
        width: W, pixels.
        batch_norm: the batch norm whose output the map is, or, for a residual sum, the batch norm
            that gave its first such summand; None where there is none.
        activation: the activation that follows (``pre``) or has just been applied (``post``); None
            where there is none.
        aliases: other layers that return the same map, such as the block that an activation ends.
    """

    name: str
    channels: int
    height: int
    width: int
    batch_norm: nn.Module | None = field(default=None, repr=False, compare=False)
    activation: nn.Module | None = field(default=None, repr=False, compare=False)
    aliases: tuple[str, ...] = field(default=(), repr=False, compare=False)

    @property
    def map_name(self) -> str:
        """A name of the map, the same for all layers that return it."""
        return min((self.name, *self.aliases))


@dataclass(frozen=True)
class Ramp:
    """A weight that goes in a straight line from one value to another, and stays there.

    Attributes:
        start: value up to `begin`.
        end: value from `finish` on.
        begin: share of the stage at which it begins to change, 0 to 1.
        finish: share of the stage at which it ends, above `begin`; above 1 it is not finished.

    >>> Ramp(4.0, 1.0)(0.5)
    2.5
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0

    def __call__(self, progress: float) -> float:
        """The weight at a share of the stage, 0 to 1."""
        share = (progress - self.begin) / (self.finish - self.begin)
        return self.start + (self.end - self.start) * min(max(share, 0.0), 1.0)


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of what is minimised.

    Attributes:
        name: name of the method, or METHOD.PART where a method has several.
        loss: gives its value.
        weight: its factor, fixed or along a stage.
    """

    name: str
    loss: DistillationLoss
    weight: float | Ramp

    def factor(self, progress: float) -> float:
        """The weight at a share of the stage, 0 to 1."""
        return self.weight(progress) if isinstance(self.weight, Ramp) else self.weight

    @property
    def can_count(self) -> bool:
        """Whether the weight is ever other than 0."""
        return self.factor(0.0) != 0 or self.factor(1.0) != 0


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of training before the main one.

    Attributes:
        name: METHOD.NAME.
        terms: what is minimised.
        epochs: a share of those of the main stage, rounded up.
        trains: see :data:`TRAINS`.
        learning_rate: a factor on that of the main stage.
        schedule: schedule of the learning rate, ``same`` as in the main stage or ``constant``.
    """

    name: str
    terms: tuple[Term, ...]
    epochs: float
    trains: str = "student"
    learning_rate: float = 1.0
    schedule: str = "same"


@dataclass(frozen=True, eq=False)
class Plan:
    """What a method does in one training.

    Attributes:
        terms: terms of the main stage.
        before: stages before it, in their order.
        ce_weight: weight of the cross-entropy in the main stage; None leaves it as it is.
        notes: choices worth a line in the log, such as which variant runs.
    """

    terms: tuple[Term, ...] = ()
    before: tuple[Stage, ...] = ()
    ce_weight: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Setting:
    """What a method is given to make its plan.

    Attributes:
        student: taps in the student.
        teacher: taps in the teacher, paired with them.
        arguments: the method's defaults, overridden by what the user asked for.
        teacher_run: a measured run of the teacher, a :class:`natstats.Run`, for methods that can
            take their targets from there.
    """

    student: tuple[TapPoint, ...]
    teacher: tuple[TapPoint, ...]
    arguments: Mapping[str, Any]
    teacher_run: Any = None


@dataclass(frozen=True, eq=False)
class Method:
    """The record of a distillation method.

    Attributes:
        name: name on the command line.
        title: name in words.
        paper: publication that it comes from.
        reduction: how its loss is reduced, which says what its weight means.
        defaults: its arguments; ``weight`` among them where it has one.
        plan: makes losses and stages for a pair of networks.
        place: see :data:`PLACES`.
        activation: see :data:`ACTIVATIONS`. A method whose arguments have a ``place`` or an
            ``activation`` lets the user choose.
        smallest: side of the smallest maps that it can use, pixels.
        needs_signed: True where a map after a ReLU would be of no use in the student.
        uses_images: True where gradients with respect to the images are taken.
        needs_teacher: False for the student alone.
        teacher_bn: ``running`` for a teacher in eval mode, or ``batch`` for the statistics of each
            batch; an argument ``teacher_bn`` of the method overrides it.
        teacher_passes: passes of the teacher in a step, for the table of costs: a forward pass
            counts once, a backward pass twice.
        connectors: what is trained beside the student, in words.
        stages: names of the stages.
    """

    name: str
    title: str
    paper: str
    reduction: str
    defaults: Mapping[str, Any]
    plan: Callable[[Setting], Plan]
    place: Place = "none"
    activation: Activation = "post"
    smallest: int = 1
    needs_signed: bool = False
    uses_images: bool = False
    needs_teacher: bool = True
    teacher_bn: str = "running"
    teacher_passes: float = 1.0
    connectors: str = "none"
    stages: tuple[str, ...] = ("main",)

    def __post_init__(self) -> None:
        assert self.place in PLACES, self.name
        assert self.activation in ACTIVATIONS, self.name
        object.__setattr__(self, "defaults", MappingProxyType(dict(self.defaults)))

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The defaults, overridden by what was given.

        Raises:
            UsageError: an unknown argument, or a value of another kind than the default.
        """
        arguments = dict(self.defaults)
        for key, value in given.items():
            if key not in arguments:
                listed = ", ".join(arguments) or "none"
                raise UsageError(
                    f"method argument {self.name}.{key}: expected one of {listed}; got {key!r}"
                )
            arguments[key] = _like(f"method argument {self.name}.{key}", value, arguments[key])
        return arguments


def _like(argument: str, value: Any, default: Any) -> Any:
    """`value`, checked to be of the type of the default; a float may be given as a whole number."""
    if isinstance(default, bool) or isinstance(value, bool):
        fits = isinstance(value, bool) and isinstance(default, bool)
    elif isinstance(default, float):
        fits = isinstance(value, int | float)
    else:
        fits = isinstance(value, type(default))
    if not fits:
        raise UsageError(
            f"{argument}: expected a value like {default!r} ({type(default).__name__}); "
            f"got {value!r}"
        )
    return checks.within_float(argument, value) if isinstance(default, float) else value


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in its own type where that is wider.

    >>> at_least_float32(torch.zeros(1, dtype=torch.half)).dtype
    torch.float32
    >>> at_least_float32(torch.zeros(1, dtype=torch.double)).dtype
    torch.float64
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def float_maps(outputs: Outputs) -> tuple[Tensor, ...]:
    """The maps in float32, or in float64 where the pass ran in that."""
    return tuple(at_least_float32(maps) for maps in outputs.maps)

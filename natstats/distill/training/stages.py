"""From the name of a method to the stages of a training: taps found, losses built, terms bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.activations.hooks import undisturbed
from natstats.distill.losses.teacher_run import points_of, run_facts
from natstats.distill.method import PLACES, Method, Plan, Ramp, Setting, TapPoint, Term
from natstats.distill.methods import arguments_of, merged, parse_method
from natstats.distill.pairing import pair_by_name, pair_taps, student_taps
from natstats.distill.results import MAIN
from natstats.distill.taps import Taps
from natstats.distill.training.objective import BoundTerm
from natstats.errors import UsageError
from natstats.runs.run import Run
from natstats.text import lines

__all__ = ["Program", "TrainingStage", "plan_training"]

Pairs = tuple[tuple[TapPoint, TapPoint], ...]

_PROBED = 16
"""Images in the pass that shows whether a map is signed."""


@dataclass(frozen=True, eq=False)
class TrainingStage:
    """A stage as it is trained.

    Attributes:
        name: METHOD.NAME, or :data:`natstats.distill.results.MAIN`.
        terms: what is minimised beside the cross-entropy.
        ce_weight: weight of the cross-entropy.
        epochs: whole epochs.
        trains: see :data:`natstats.distill.method.TRAINS`.
        learning_rate: factor on the recipe's.
        schedule: schedule of the learning rate; None for the recipe's.
    """

    name: str
    terms: tuple[BoundTerm, ...]
    ce_weight: float
    epochs: int
    trains: str = "student"
    learning_rate: float = 1.0
    schedule: str | None = None


@dataclass(frozen=True, eq=False)
class Program:
    """All that a method does in a training.

    Attributes:
        method: name as it was asked for.
        methods: its parts.
        arguments: arguments of each part.
        stages: the stages in their order, the main one last.
        taps: pairs of layers of each part, in the student and in the teacher.
        notes: which variants run, and what a reader must know.
        teacher_run: what tells the run apart from which targets come; None for none.
    """

    method: str
    methods: tuple[Method, ...]
    arguments: Mapping[str, Mapping[str, Any]]
    stages: tuple[TrainingStage, ...]
    taps: Mapping[str, Pairs]
    notes: tuple[str, ...] = field(default=())
    teacher_run: Mapping[str, Any] | None = None

    @property
    def needs_teacher(self) -> bool:
        """Whether a method of it looks at a teacher."""
        return any(method.needs_teacher for method in self.methods)

    @property
    def teacher_bn(self) -> str:
        """``batch`` where a method wants the teacher to normalise with each batch's statistics."""
        asked = {str(self.arguments[m.name].get("teacher_bn", m.teacher_bn)) for m in self.methods}
        return "batch" if "batch" in asked else "running"

    @property
    def teacher_passes(self) -> float:
        """Passes of the teacher in a step of the main stage: one serves all methods."""
        if not any(bound.needs_teacher for bound in self.stages[-1].terms):
            return 0.0
        return max((m.teacher_passes for m in self.methods), default=0.0)

    def losses(self) -> nn.ModuleList:
        """All losses of all stages, each once, in a fixed order."""
        found: dict[int, nn.Module] = {}
        for stage in self.stages:
            for bound in stage.terms:
                found.setdefault(id(bound.term.loss), bound.term.loss)
        return nn.ModuleList(found.values())

    def n_extra_parameters(self) -> int:
        """Parameters that are trained beside the student and dropped at the end."""
        return sum(parameter.numel() for parameter in self.losses().parameters())

    def terms_table(self) -> list[dict[str, Any]]:
        """A record for every term: its stage, weight and reduction."""
        rows: list[dict[str, Any]] = []
        for stage in self.stages:
            if stage.ce_weight:
                rows.append(
                    {
                        "name": "ce",
                        "weight": stage.ce_weight,
                        "reduction": "mean over images",
                        "stage": stage.name,
                    }
                )
            for bound in stage.terms:
                # What a ramp reaches in the stage, which may end before the ramp does.
                ends = [bound.term.factor(progress) for progress in (0.0, 1.0)]
                rows.append(
                    {
                        "name": bound.term.name,
                        "weight": ends if isinstance(bound.term.weight, Ramp) else ends[0],
                        "reduction": bound.term.loss.reduction,
                        "stage": stage.name,
                    }
                )
        return rows

    def taps_table(self) -> list[dict[str, Any]]:
        """A record for every pair of taps."""
        return [
            {
                "method": name,
                "student": mine.name,
                "teacher": theirs.name,
                "student_shape": [mine.channels, mine.height, mine.width],
                "teacher_shape": [theirs.channels, theirs.height, theirs.width],
            }
            for name, pairs in self.taps.items()
            for mine, theirs in pairs
        ]

    def text(self) -> str:
        """What will be trained, in lines for people: stages, terms, taps and notes."""
        shown_lines = []
        for stage in self.stages:
            epochs = "1 epoch" if stage.epochs == 1 else f"{stage.epochs} epochs"
            shown_lines.append(f"Stage {stage.name}: {epochs}, trains the {_TRAINED[stage.trains]}")
            for row in self.terms_table():
                if row["stage"] == stage.name:
                    weight = _weight_words(row["weight"])
                    shown_lines.append(f"  {weight} x {row['name']} ({row['reduction']})")
        for name, pairs in self.taps.items():
            if pairs:
                shown_lines.append(f"Taps of {name} (student <- teacher):")
            for mine, theirs in pairs:
                shapes = [f"{p.channels} x {p.height} x {p.width}" for p in (mine, theirs)]
                shown_lines.append(f"  {mine.name} ({shapes[0]}) <- {theirs.name} ({shapes[1]})")
        shown_lines += [f"Note: {note}." for note in self.notes]
        return lines(shown_lines)


def _weight_words(weight: float | list[float]) -> str:
    return f"{weight[0]:.3g} to {weight[1]:.3g}" if isinstance(weight, list) else f"{weight:g}"


_TRAINED = {
    "student": "student",
    "lower": "student up to its last tap",
    "losses": "connectors only",
}


def plan_training(
    method: str,
    given: Mapping[str, Any],
    student: nn.Module,
    teacher: nn.Module | None,
    images: Tensor,
    epochs: int,
    *,
    teacher_run: str | Path | None = None,
    taps: Sequence[tuple[str, str]] = (),
) -> Program:
    """Find the taps of a method and build its losses and stages.

    Args:
        method: a name, or several with + between them.
        given: arguments, METHOD.NAME or, with a single method, NAME.
        student: the student.
        teacher: the teacher; None for none.
        images: some images as the networks take them, (N, 3, H, W).
        epochs: length of the main stage.
        teacher_run: a measured run of the teacher, for the spectral terms.
        taps: names of layers in student and teacher that are to be compared, in place of those
            that are found.

    Raises:
        UsageError: an unknown method or argument, or networks that the method cannot compare.
    """
    methods = parse_method(method)
    arguments = arguments_of(methods, given)
    if teacher_run is not None and not any(one.name == "spectral" for one in methods):
        raise UsageError(f"teacher_run: expected only beside method spectral; got {method!r}")
    opened = None if teacher_run is None else Run.open(teacher_run)
    networks = _Networks(student, teacher, images, taps)
    plans: dict[str, Plan] = {}
    paired: dict[str, Pairs] = {}
    for one in methods:
        from_run = opened if one.name == "spectral" else None
        mine, theirs = networks.taps_of(one, arguments[one.name], from_run)
        paired[one.name] = tuple(zip(mine, theirs, strict=True))
        setting = Setting(
            student=mine, teacher=theirs, arguments=arguments[one.name], teacher_run=from_run
        )
        plans[one.name] = one.plan(setting)
    if taps and (teacher is None or not any(paired.values())):
        why = "no teacher" if teacher is None else f"method {method}, which looks at no layer"
        raise UsageError(
            f"tap: expected only beside a teacher and a method that compares layers; got {why}"
        )
    whole = merged(plans)
    stages = _stages(whole, {one.name: one for one in methods}, paired, epochs)
    facts = None if opened is None else run_facts(opened)
    return Program(method, methods, arguments, stages, paired, whole.notes, facts)


def _stages(
    whole: Plan, methods: Mapping[str, Method], paired: Mapping[str, Pairs], epochs: int
) -> tuple[TrainingStage, ...]:
    """The stages of a plan with its terms bound to taps, the main one last.

    Raises:
        UsageError: all weights of a stage are 0.
    """

    def bound(terms: Sequence[Term]) -> tuple[BoundTerm, ...]:
        owners = [methods[term.name.split(".")[0]] for term in terms]
        return tuple(
            _bound(term, owner, paired[owner.name])
            for term, owner in zip(terms, owners, strict=True)
        )

    stages = [
        TrainingStage(
            stage.name,
            bound(stage.terms),
            0.0,
            max(1, math.ceil(stage.epochs * epochs - 1e-9)),
            stage.trains,
            stage.learning_rate,
            None if stage.schedule == "same" else stage.schedule,
        )
        for stage in whole.before
        if stage.epochs > 0
    ]
    assert whole.ce_weight is not None
    stages.append(TrainingStage(MAIN, bound(whole.terms), whole.ce_weight, epochs))
    for stage in stages:
        if not stage.ce_weight and not any(b.term.can_count for b in stage.terms):
            raise UsageError(
                f"method arguments: expected a weight above 0 in stage {stage.name}; all are 0"
            )
    return tuple(stages)


def _bound(term: Term, method: Method, pairs: Pairs) -> BoundTerm:
    # Of a teacher that is known by its run no layers are looked at.
    teacher = pairs if term.loss.needs_teacher else ()
    return BoundTerm(
        term,
        tuple(mine.name for mine, _ in pairs),
        tuple(theirs.name for _, theirs in teacher),
        method.uses_images,
    )


@dataclass(frozen=True, eq=False)
class _Networks:
    """What taps are found in.

    Attributes:
        student: the student.
        teacher: the teacher; None for none.
        images: some images as the networks take them.
        named: pairs of layers that the user asked for, in place of those that are found.
    """

    student: nn.Module
    teacher: nn.Module | None
    images: Tensor
    named: Sequence[tuple[str, str]]

    def taps_of(
        self, method: Method, arguments: Mapping[str, Any], teacher_run: Run | None
    ) -> tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]:
        """Taps of a method in student and teacher.

        Raises:
            UsageError: there is no teacher, or the method cannot compare the networks.
        """
        if method.needs_teacher and self.teacher is None and teacher_run is None:
            raise UsageError(f"teacher: expected one for method {method.name}; got none")
        pairs = self._find(method, arguments, teacher_run)
        pairs = _without_last(method, pairs, arguments.get("skip_last", 0.0))
        if method.needs_signed:
            _refuse_unsigned(method, self.student, pairs[0], self.images[:_PROBED])
        return pairs

    def _find(
        self, method: Method, arguments: Mapping[str, Any], teacher_run: Run | None
    ) -> tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]:
        place, image = method.place, self.images[:1]
        if "place" in arguments:
            argument = f"method argument {method.name}.place"
            place = checks.one_of(argument, str(arguments["place"]), PLACES[1:])
        which = str(arguments.get("activation", method.activation))
        if place == "none":
            return (), ()
        if self.named and self.teacher is not None:
            pairs = pair_by_name(self.student, self.teacher, image, self.named)
            return _expected_number(method, place, pairs)
        if self.teacher is not None:
            return pair_taps(self.student, self.teacher, image, place, which, method.smallest)
        assert teacher_run is not None
        if place in ("blocks", "sections"):
            raise UsageError(
                f"teacher: expected one beside the teacher run for place={place}, as a run does "
                "not say what its blocks are; got none"
            )
        mine = student_taps(self.student, image, place, which, method.smallest)
        return mine, points_of(teacher_run, mine, (image.shape[2], image.shape[3]), which)


def _without_last(
    method: Method, pairs: tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]], skipped: float
) -> tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]:
    """The pairs without the deepest ones.

    Raises:
        UsageError: not a whole number, or none would be left.
    """
    if not (float(skipped).is_integer() and 0 <= skipped < max(len(pairs[0]), 1)):
        raise UsageError(
            f"method argument {method.name}.skip_last: expected a whole number from 0 to below the "
            f"number of pairs of layers, {len(pairs[0])}; got {skipped:g}"
        )
    left = len(pairs[0]) - int(skipped)
    return pairs[0][:left], pairs[1][:left]


def _expected_number(
    method: Method, place: str, pairs: tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]
) -> tuple[tuple[TapPoint, ...], tuple[TapPoint, ...]]:
    n = len(pairs[0])
    if place in ("middle", "last") and n != 1:
        raise UsageError(f"tap: expected one pair for method {method.name}; got {n}")
    if place == "sections" and n % 2:
        raise UsageError(
            f"tap: expected pairs for the first and the last map of each section for method "
            f"{method.name}, an even number; got {n}"
        )
    return pairs


def _refuse_unsigned(
    method: Method, student: nn.Module, points: Sequence[TapPoint], images: Tensor
) -> None:
    """Raise where a tap gives what a ReLU let through."""
    with Taps(student, [p.name for p in points], images[:1]) as taps:
        with undisturbed(student), torch.no_grad():
            student(images)
        tapped = taps.take()
    for point in points:
        if float(tapped[point.name].min()) >= 0:
            raise UsageError(
                f"tap {point.name}: expected a map before a ReLU for method {method.name}; got "
                "one without a negative value"
            )

"""From the name of a method to the stages of a training: finds taps, builds losses and terms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.activations.hooks import undisturbed
from natstats.distill.losses.teacher_run import points_of, run_facts
from natstats.distill.method import PLACES, Activation, Method, Plan, Setting, TapPoint, Term
from natstats.distill.methods import arguments_of, merged, parse_method
from natstats.distill.pairing import TapSides, pair_by_name, pair_taps, student_taps
from natstats.distill.results import MAIN
from natstats.distill.taps import Taps
from natstats.distill.traces import Traces
from natstats.distill.training.objective import BoundTerm
from natstats.distill.training.program import Pairs, Program, TrainingStage
from natstats.errors import NatstatsError, UsageError
from natstats.runs.run import Run

__all__ = ["Program", "TrainingStage", "plan_training"]

_PROBED = 16
"""Images in the pass that shows whether a map is signed."""


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
    opened = None if teacher_run is None else _opened(teacher_run)
    traces = Traces()
    networks = _Networks(student, teacher, images, taps, traces)
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
    return Program(method, methods, arguments, stages, paired, whole.notes, facts, traces)


def _opened(teacher_run: str | Path) -> Run:
    """The run of a teacher; an error names the argument."""
    try:
        return Run.open(teacher_run)
    except NatstatsError as error:
        told = str(error.args[0]).removeprefix("run: ")
        raise type(error)(f"teacher_run: {told}", *error.args[1:]) from error


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
    # A teacher known only by its measured run has no layers to tap.
    teacher = pairs if term.loss.needs_teacher else ()
    return BoundTerm(
        term,
        tuple(mine.name for mine, _ in pairs),
        tuple(theirs.name for _, theirs in teacher),
        method.uses_images,
    )


@dataclass(frozen=True, eq=False)
class _Networks:
    """The networks in which taps are found, and images for it.

    Attributes:
        student: the student.
        teacher: the teacher; None for none.
        images: some images as the networks take them.
        named: pairs of layers that the user asked for, in place of those that are found.
        traces: results of traced passes of the networks.
    """

    student: nn.Module
    teacher: nn.Module | None
    images: Tensor
    named: Sequence[tuple[str, str]]
    traces: Traces

    def taps_of(
        self, method: Method, arguments: Mapping[str, Any], teacher_run: Run | None
    ) -> TapSides:
        """Taps of a method in student and teacher.

        Raises:
            UsageError: there is no teacher, or the method cannot compare the networks.
        """
        if method.needs_teacher and self.teacher is None and teacher_run is None:
            raise UsageError(f"teacher: expected one for method {method.name}; got none")
        pairs = self._find(method, arguments, teacher_run)
        pairs = _without_last(method, pairs, arguments.get("skip_last", 0.0))
        if method.needs_signed:
            self._refuse_unsigned(method, pairs[0])
        return pairs

    def _find(
        self, method: Method, arguments: Mapping[str, Any], teacher_run: Run | None
    ) -> TapSides:
        place, image = method.place, self.images[:1]
        if "place" in arguments:
            argument = f"method argument {method.name}.place"
            place = checks.one_of(argument, arguments["place"], PLACES[1:])
        which: Activation = arguments.get("activation", method.activation)
        if place == "none":
            return (), ()
        if self.named and self.teacher is not None:
            pairs = pair_by_name(self.student, self.teacher, image, self.named, self.traces)
            return _expected_number(method, place, pairs)
        if self.teacher is not None:
            return pair_taps(
                self.student, self.teacher, image, place, which, method.smallest, self.traces
            )
        assert teacher_run is not None
        if place in ("blocks", "sections"):
            raise UsageError(
                f"teacher: expected one beside the teacher run for place={place}, as a run does "
                "not say what its blocks are; got none"
            )
        mine = student_taps(self.student, image, place, which, method.smallest, self.traces)
        return mine, points_of(teacher_run, mine, (image.shape[2], image.shape[3]), which)

    def _refuse_unsigned(self, method: Method, points: Sequence[TapPoint]) -> None:
        """Raise where a tap of the student gives no negative value, as after a ReLU."""
        student, images = self.student, self.images[:_PROBED]
        with Taps(student, [p.name for p in points], images[:1], self.traces) as taps:
            with undisturbed(student), torch.no_grad():
                student(images)
            tapped = taps.take()
        for point in points:
            if float(tapped[point.name].min()) >= 0:
                raise UsageError(
                    f"tap {point.name}: expected a map before a ReLU for method {method.name}; "
                    "got one without a negative value"
                )


def _without_last(method: Method, pairs: TapSides, skipped: float) -> TapSides:
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


def _expected_number(method: Method, place: str, pairs: TapSides) -> TapSides:
    n = len(pairs[0])
    if place in ("middle", "last") and n != 1:
        raise UsageError(f"tap: expected one pair for method {method.name}; got {n}")
    if place == "sections" and n % 2:
        raise UsageError(
            f"tap: expected pairs for the first and the last map of each section for method "
            f"{method.name}, an even number; got {n}"
        )
    return pairs

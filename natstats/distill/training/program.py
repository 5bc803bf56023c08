"""What a training does, stage by stage: records of its stages, terms and taps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from natstats.distill.method import Method, Ramp, TapPoint
from natstats.distill.traces import Traces
from natstats.distill.training.objective import BoundTerm, Objective, Values
from natstats.numbers import short
from natstats.text import lines

__all__ = ["Pairs", "Program", "TrainingStage"]

Pairs = tuple[tuple[TapPoint, TapPoint], ...]
"""Taps that belong together, in the student and in the teacher."""


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

    @property
    def trains_student(self) -> bool:
        """Whether the student is trained, all of it or its lower part."""
        return self.trains != "losses"

    @property
    def ramps(self) -> list[str]:
        """Names of the terms whose weight changes in the course of the stage."""
        return [bound.term.name for bound in self.terms if isinstance(bound.term.weight, Ramp)]

    def factors(self, progress: float) -> dict[str, float]:
        """Weight of the cross-entropy, as ``ce``, and of every term at a share of the stage."""
        terms = {bound.term.name: bound.term.factor(progress) for bound in self.terms}
        return {"ce": self.ce_weight, **terms}

    def total(self, values: Values, factors: Mapping[str, float], device: torch.device) -> Tensor:
        """What is minimised: the weighted sum; without a gradient where all factors are 0."""
        counted = []
        if values.objective_ce is not None and factors["ce"]:
            counted.append(factors["ce"] * values.objective_ce)
        counted += [factors[name] * value for name, value in values.terms.items() if factors[name]]
        return sum(counted[1:], counted[0]) if counted else torch.zeros((), device=device)

    def objective(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        image: Tensor,
        label_smoothing: float = 0.0,
        autocast: torch.dtype | None = None,
        traces: Traces | None = None,
    ) -> Objective:
        """The module that gives the values of the stage, on the device of the image.

        Args:
            student: the student.
            teacher: the teacher, in eval mode; None for none.
            image: (1, 3, H, W), for the pass in which the taps find their maps.
            label_smoothing: smoothing of the labels in the cross-entropy.
            autocast: type in which the networks run; None for float32.
            traces: results of passes traced before, which are reused and added to; None for none.
        """
        return Objective(
            student, teacher, self.terms, image, label_smoothing, autocast,
            needs_student=self.trains_student, traces=traces,
        ).to(image.device)  # fmt: skip

    def trained(self, objective: Objective) -> list[list[nn.Parameter]]:
        """Groups of parameters for an optimiser: those of the student, and those of the losses."""
        groups = [objective.student.parameters()] if self.trains_student else []
        groups.append(objective.losses.parameters())
        found = [[p for p in group if p.requires_grad] for group in groups]
        return [group for group in found if group]


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
        teacher_run: facts that identify the measured run that targets come from; None for none.
        traces: results of traced passes of the networks, for use in the training.
    """

    method: str
    methods: tuple[Method, ...]
    arguments: Mapping[str, Mapping[str, Any]]
    stages: tuple[TrainingStage, ...]
    taps: Mapping[str, Pairs]
    notes: tuple[str, ...] = field(default=())
    teacher_run: Mapping[str, Any] | None = None
    traces: Traces = field(default_factory=Traces, repr=False)

    @property
    def needs_teacher(self) -> bool:
        """Whether one of its methods uses a teacher."""
        return any(method.needs_teacher for method in self.methods)

    @property
    def teacher_bn(self) -> str:
        """``batch`` where a method wants the teacher to normalise with each batch's statistics."""
        asked = {str(self.arguments[m.name].get("teacher_bn", m.teacher_bn)) for m in self.methods}
        return "batch" if "batch" in asked else "running"

    @property
    def teacher_passes(self) -> float:
        """Passes of the teacher in a step of the main stage, which all methods share."""
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
    return " to ".join(short(one, 3) for one in (weight if isinstance(weight, list) else [weight]))


_TRAINED = {
    "student": "student",
    "lower": "student up to its last tap",
    "losses": "connectors only",
}

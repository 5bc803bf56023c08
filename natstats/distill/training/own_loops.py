"""Methods in one's own training loop: stages, each with a module that gives a step's loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from natstats import checks
from natstats.brief import Brief
from natstats.distill.losses.logits import refuse_other_labels
from natstats.distill.pairing import named_pairs
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.objective import Objective
from natstats.distill.training.program import Program, TrainingStage
from natstats.distill.training.recipe_names import Amp
from natstats.distill.training.recipes import AMPS
from natstats.distill.training.setup import (
    as_network,
    check_pair,
    check_scores,
    refuse_random_classifier,
)
from natstats.distill.training.stages import plan_training
from natstats.distill.training.trainer import DTYPES
from natstats.errors import UsageError
from natstats.networks.network import Network

__all__ = ["LoopPlan", "LoopStage", "StageObjective", "StepLoss", "plan"]


@dataclass(frozen=True, eq=False, repr=False)
class StepLoss(Brief):
    """What a batch gave in one step of one's own loop; every tensor but `n_right` is float32.

    Attributes:
        loss: what is minimised, the weighted sum of all below, with its gradient.
        ce: cross-entropy of the student, without a gradient; None where the student is not run.
        terms: the values of the terms by name, without their weights and without gradients.
        n_right: images that the student classified correctly; None where it is not run.
    """

    loss: Tensor
    ce: Tensor | None
    terms: Mapping[str, Tensor]
    n_right: Tensor | None


class StageObjective(nn.Module):
    """The loss of a stage: passes of both networks, taps, connectors and weights in one module.

    The student and the connectors are submodules, so that ``.parameters()``, ``.train()``,
    ``state_dict()`` and wrappers for several processes see them; ``find_unused_parameters=True``
    is needed there, as not every stage reaches every parameter. The teacher is not a submodule: in
    each call it is put in eval mode, without gradients (its batch norms use the statistics of the
    batch where the method says so), and restored afterwards.

    Args:
        stage: a stage of a program.
        objective: its passes and terms.
        teacher: the teacher; None for none.
        batch_statistics: whether batch norms of the teacher normalise with those of each batch.
        n_classes: K, for the check of labels; None leaves the check to the losses.
    """

    def __init__(
        self,
        stage: TrainingStage,
        objective: Objective,
        teacher: nn.Module | None,
        batch_statistics: bool = False,
        n_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.stage = stage
        self.batch_statistics = batch_statistics
        self.n_classes = n_classes
        self._teacher = (teacher,)  # a tuple hides it from the parameters of this module

    @property
    def student(self) -> nn.Module:
        """The student."""
        return self.objective.student

    @property
    def losses(self) -> nn.ModuleList:
        """The losses of the stage with their connectors, in the order of its terms."""
        return self.objective.losses

    def forward(self, images: Tensor, labels: Tensor, progress: float | None = None) -> StepLoss:
        """The loss on a batch.

        Args:
            images: (N, 3, H, W), as the networks take them, on their device.
            labels: (N,), whole numbers, or (N, K), shares of the classes as of mixed images, where
                no loss needs one class for each image.
            progress: share of the stage that is done, 0 to 1; needed where a weight changes in the
                course of the stage (:attr:`LoopStage.ramps`), and without effect elsewhere.

        Raises:
            UsageError: `progress` is needed and missing, or out of range; `images` are not
                (N, 3, H, W), float; or labels do not fit the images and classes.
        """
        if progress is None:
            if self.stage.ramps:
                raise UsageError(
                    "progress: expected the share of the stage that is done, 0 to 1, as the weight "
                    f"of {', '.join(self.stage.ramps)} changes with it; got none"
                )
            progress = 0.0
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
            shown = (
                f"shape {tuple(images.shape)}, {images.dtype}"
                if isinstance(images, Tensor)
                else type(images).__name__
            )
            raise UsageError(f"images: expected (N, 3, H, W), float; got {shown}")
        labels = self._checked_labels(images, labels)
        factors = self.stage.factors(checks.finite("progress", progress, least=0, most=1))
        with frozen(self._teacher[0], self.batch_statistics):
            values = self.objective(images, labels, factors)
        loss = self.stage.total(values, factors, images.device)
        terms = {name: value.detach() for name, value in values.terms.items()}
        return StepLoss(loss, values.ce, terms, values.n_right)

    def _checked_labels(self, images: Tensor, labels: Any) -> Any:
        """The labels, whole numbers in the type that torch wants them in."""
        if self.n_classes is None:
            return labels
        scores = images.new_empty(1).expand(len(images), self.n_classes)
        if isinstance(labels, Tensor) and labels.is_floating_point() and labels.ndim == 2:
            if labels.shape != scores.shape:
                raise UsageError(
                    f"labels: expected shares of the {self.n_classes} classes for each of "
                    f"{len(images)} images, {tuple(scores.shape)}; got {tuple(labels.shape)}"
                )
            return labels
        refuse_other_labels("labels", labels, scores)
        return labels.long()


@dataclass(frozen=True, eq=False, repr=False)
class LoopStage(Brief):
    """A stage of a method, bound to its networks.

    Attributes:
        stage: what it minimises and trains.
        program: the program that it belongs to.
        student: the student.
        teacher: the teacher; None for none.
        image: (1, 3, H, W), for the pass in which the taps find their maps.
        label_smoothing: smoothing of the labels in the cross-entropy.
        amp: type in which the networks run.
        n_classes: K, for the check of labels; None leaves the check to the losses.
    """

    stage: TrainingStage
    program: Program
    student: nn.Module
    teacher: nn.Module | None
    image: Tensor
    label_smoothing: float = 0.0
    amp: str = "none"
    n_classes: int | None = None

    @property
    def name(self) -> str:
        """METHOD.NAME, or ``main`` for the last one."""
        return self.stage.name

    @property
    def epochs(self) -> int:
        """Its length, epochs."""
        return self.stage.epochs

    @property
    def learning_rate(self) -> float:
        """Factor on the learning rate of the main stage."""
        return self.stage.learning_rate

    @property
    def trains(self) -> str:
        """See :data:`natstats.distill.method.TRAINS`."""
        return self.stage.trains

    @property
    def ramps(self) -> list[str]:
        """Names of the terms whose weight changes with the progress of the stage."""
        return self.stage.ramps

    @cached_property
    def objective(self) -> StageObjective:
        """The module that gives the loss of a step, in train mode when it is first asked for.

        ``objective.train()`` puts the student back into train mode after an evaluation.
        """
        teacher = self.teacher if self.program.needs_teacher else None
        inner = self.stage.objective(
            self.student, teacher, self.image, self.label_smoothing, DTYPES[self.amp],
            self.program.traces,
        )  # fmt: skip
        by_batch = self.program.teacher_bn == "batch"
        return StageObjective(self.stage, inner, teacher, by_batch, self.n_classes).train()

    def parameters(self) -> list[nn.Parameter]:
        """The parameters that this stage trains: the student's, if it does, and the connectors'.

        Raises:
            UsageError: there are none.
        """
        found = [p for group in self.stage.trained(self.objective.objective) for p in group]
        if not found:
            raise UsageError(f"stage {self.name}: expected parameters to train; there are none")
        return found


@dataclass(frozen=True, eq=False, repr=False)
class LoopPlan(Brief):
    """A method for one's own loop: see :func:`plan`.

    Attributes:
        program: the method's stages, terms and taps.
        stages: the stages in their order, the main one last.
    """

    program: Program
    stages: tuple[LoopStage, ...]

    @property
    def losses(self) -> nn.ModuleList:
        """All losses of all stages with their connectors, each once; for ``state_dict()``."""
        return self.program.losses()

    @property
    def notes(self) -> tuple[str, ...]:
        """Which variants run, and what a reader must know."""
        return self.program.notes

    def text(self) -> str:
        """What will be trained, in lines for people: stages, terms, taps and notes."""
        return self.program.text()


def plan(
    method: str,
    student: nn.Module | Network,
    teacher: nn.Module | Network | None = None,
    images: Tensor | None = None,
    *,
    method_args: Mapping[str, Any] | None = None,
    epochs: int = 60,
    taps: Sequence[tuple[str, str]] = (),
    teacher_run: str | Path | None = None,
    label_smoothing: float = 0.0,
    amp: Amp = "none",
) -> LoopPlan:
    """A method for one's own model, data and loop: taps are found, connectors and losses made.

    The networks stay where they are, and neither their weights nor their modes are changed by
    planning. New connectors are drawn from torch's random state, so that ``torch.manual_seed``
    before the call makes them repeatable.

    Args:
        method: a name, or several with + between them, see :data:`natstats.distill.METHODS`.
        student: the classifier that is trained.
        teacher: the trained classifier; None for methods without one.
        images: two or more images as the networks take them, (N, 3, H, W), float, on the device of
            the networks and of the size used in training; passes of them find the taps.
        method_args: METHOD.NAME and value, or NAME with a single method.
        epochs: length of the main stage, from which those of stages before it follow.
        taps: names of layers in student and teacher to compare, in place of those found.
        teacher_run: a measured run of the teacher, for the spectral terms.
        label_smoothing: smoothing of the labels in the cross-entropy, 0 to below 1.
        amp: ``none``, or the type in which the networks run, ``bf16`` or ``fp16`` (which needs a
            ``GradScaler`` in the loop); a loop's own ``torch.autocast`` does as well. Losses are
            always in float32.

    Raises:
        UsageError: an argument is invalid, or the method cannot compare the networks.

    >>> import torch
    >>> from natstats.networks.zoo import cifar_resnet
    >>> student, teacher = cifar_resnet(8), cifar_resnet(14)
    >>> images, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3])
    >>> for stage in plan("ofd", student, teacher, images).stages:
    ...     objective = stage.objective
    ...     optimizer = torch.optim.SGD(stage.parameters(), lr=0.1 * stage.learning_rate)
    ...     for _ in range(2):
    ...         optimizer.zero_grad()
    ...         objective(images, labels).loss.backward()
    ...         optimizer.step()
    >>> stage.name, stage.epochs, [type(loss).__name__ for loss in objective.losses]
    ('main', 60, ['FeatureOverhaul'])
    """
    checks.positive_int("epochs", epochs)
    checks.finite("label_smoothing", label_smoothing, least=0, below=1)
    checks.one_of("amp", amp, AMPS)
    _check_module("student", student)
    mine, theirs = as_network(student), None
    if teacher is not None:
        _check_module("teacher", teacher)
        theirs = as_network(teacher)
    check_pair(mine, theirs)
    named = named_pairs(taps)
    given, n_classes = _checked_images(images, mine, theirs)
    if theirs is not None:
        refuse_random_classifier(theirs)
    device = given.device
    program = plan_training(
        method, {} if method_args is None else method_args, mine.model,
        None if theirs is None else theirs.model, given, epochs, teacher_run=teacher_run,
        taps=named,
    )  # fmt: skip
    _refuse_other_classes(program, *n_classes)
    program.losses().to(device)
    model = None if theirs is None else theirs.model
    stages = [
        LoopStage(
            stage,
            program,
            mine.model,
            model,
            given[:1].clone(),
            label_smoothing,
            amp,
            n_classes[0],
        )
        for stage in program.stages
    ]
    return LoopPlan(program, tuple(stages))


def _check_module(role: str, given: Any) -> None:
    if not isinstance(given, nn.Module | Network):
        raise UsageError(f"{role}: expected a module or a Network; got {type(given).__name__}")


def _refuse_other_classes(program: Program, student: int, teacher: int | None = None) -> None:
    """Raise where class scores are compared and the numbers of classes differ."""
    if teacher in (None, student):
        return
    for bound in (bound for stage in program.stages for bound in stage.terms):
        # A loss that uses the teacher but none of its maps uses its scores.
        loss = bound.term.loss
        if bound.needs_teacher and (loss.compares_scores or not bound.teacher):
            raise UsageError(
                f"teacher: expected scores for the {student} classes of the student, which "
                f"{bound.term.name} compares; got {teacher} classes"
            )


def _checked_images(
    images: Any, student: Network, teacher: Network | None
) -> tuple[Tensor, list[int]]:
    """The images, checked on both networks, and the networks' numbers of classes."""
    n_classes = []
    expected = "images: expected two or more as the networks take them, (N, 3, H, W), float"
    if not isinstance(images, Tensor):
        raise UsageError(f"{expected}; got {type(images).__name__}")
    if images.ndim != 4 or len(images) < 2 or not images.is_floating_point():
        raise UsageError(f"{expected}; got shape {tuple(images.shape)}, {images.dtype}")
    for role, network in (("student", student), ("teacher", teacher)):
        if network is None:
            continue
        device = next((p.device for p in network.model.parameters()), images.device)
        if device != images.device:
            raise UsageError(
                f"images: expected on the device of the {role}, {device}; got {images.device}"
            )
        n_classes.append(check_scores(role, network, images))
    return images.detach(), n_classes

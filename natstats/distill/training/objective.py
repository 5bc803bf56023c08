"""What one step minimises: passes of student and teacher, taps, and the terms from them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from natstats.distill.method import DistillationLoss, Outputs, Term, scores_of
from natstats.distill.taps import Tapped, Taps
from natstats.distill.traces import Traces

__all__ = ["BoundTerm", "Objective", "Taught", "Values"]


@dataclass(frozen=True, eq=False)
class BoundTerm:
    """A term with the taps of its method.

    Attributes:
        term: the term.
        student: names of its taps in the student.
        teacher: names of its taps in the teacher.
        uses_images: True where it takes gradients with respect to the images.
    """

    term: Term
    student: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()
    uses_images: bool = False

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss uses the teacher's outputs."""
        return bool(self.term.loss.needs_teacher)


@dataclass(frozen=True, eq=False)
class Taught:
    """The outputs of a teacher for a batch, kept from an earlier pass.

    Attributes:
        scores: (N, K).
        maps: by the name of the tap, (N, C, H, W).
    """

    scores: Tensor
    maps: Mapping[str, Tensor]

    def part(self, number: int, n_parts: int) -> Taught:
        """The outputs for one part of the batch, its number from 0."""
        if n_parts == 1:
            return self
        maps = {name: one.tensor_split(n_parts)[number] for name, one in self.maps.items()}
        return Taught(self.scores.tensor_split(n_parts)[number], maps)


@dataclass(frozen=True, eq=False)
class Values:
    """What one pass gave.

    Attributes:
        ce: cross-entropy of the student, without label smoothing; None where the student did not
            run.
        objective_ce: the same with label smoothing, as it is minimised.
        terms: the terms' values, without their weights.
        n_right: images classified correctly by the student; of mixed labels the largest counts.
    """

    ce: Tensor | None
    objective_ce: Tensor | None
    terms: Mapping[str, Tensor]
    n_right: Tensor | None


class Objective(nn.Module):
    """The student with the losses of a stage; its forward pass gives all their values.

    It is a single module, so that wrappers for several processes see all trained parameters.
    The teacher is not part of it: it is never trained, saved or moved along.

    Args:
        student: the student.
        teacher: the teacher, in eval mode; None for none.
        terms: terms of the stage.
        image: (1, 3, H, W), for the pass in which the taps find their maps.
        label_smoothing: smoothing of the labels in the cross-entropy.
        autocast: dtype in which the networks run; None for float32. Losses are always float32.
        needs_student: False for a stage that trains losses only.
        traces: results of passes traced before, which are reused and added to; None for none.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        terms: Sequence[BoundTerm],
        image: Tensor,
        label_smoothing: float = 0.0,
        autocast: torch.dtype | None = None,
        needs_student: bool = True,
        traces: Traces | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.losses = nn.ModuleList(bound.term.loss for bound in terms)
        self.terms = tuple(terms)
        self.label_smoothing = label_smoothing
        self.autocast = autocast
        self.needs_student = needs_student
        self._teacher = (teacher,)  # a tuple hides it from the parameters of this module
        self._compiled: dict[str, Callable[..., Any] | None] = {}
        self.uses_images = any(bound.uses_images for bound in terms)
        self.needs_teacher = teacher is not None and any(b.needs_teacher for b in terms)
        names = [name for bound in terms for name in bound.student]
        self._student_taps = Taps(student, names, image, traces)
        self._teacher_taps: Taps | None = None
        if teacher is not None:
            names = [name for bound in terms for name in bound.teacher]
            self._teacher_taps = Taps(teacher, names, image, traces)

    def use_compiled(
        self, student: Callable[..., Any] | None, teacher: Callable[..., Any] | None
    ) -> None:
        """Run these in place of the networks where no tap sits; None for the network itself."""
        self._compiled = {"student": student, "teacher": teacher}

    @contextlib.contextmanager
    def uncompiled(self) -> Iterator[None]:
        """Run the networks themselves, whose graphs allow more than one backward pass."""
        compiled, self._compiled = self._compiled, {}
        try:
            yield
        finally:
            self._compiled = compiled

    def _run(self, role: str, network: nn.Module, taps: Taps) -> Callable[..., Any]:
        """What gives the scores; never the compiled network with taps or with image gradients."""
        is_watched = bool(taps.names) or self.uses_images
        return network if is_watched else self._compiled.get(role) or network

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """Names of the taps in the teacher."""
        return () if self._teacher_taps is None else tuple(self._teacher_taps.names)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.autocast)

    def _kernels(self) -> contextlib.AbstractContextManager[Any]:
        """Attention kernels with second derivatives, which fused ones lack, for image gradients."""
        return sdpa_kernel(SDPBackend.MATH) if self.uses_images else contextlib.nullcontext()

    def _student_pass(self, images: Tensor) -> tuple[Tensor, Tapped]:
        if not self.needs_student:
            return images.new_empty(0), Tapped({})
        with _on(self._student_taps), self._precision(images.device), self._kernels():
            run = self._run("student", self.student, self._student_taps)
            scores = scores_of(run(images))
        return scores, self._student_taps.take()

    def _teacher_pass(self, images: Tensor) -> tuple[Tensor, Tapped]:
        teacher = self._teacher[0]
        if teacher is None or self._teacher_taps is None or not self.needs_teacher:
            return images.new_empty(0), Tapped({})
        with (
            torch.set_grad_enabled(self.uses_images),
            _on(self._teacher_taps),
            self._precision(images.device),
        ):
            scores = scores_of(self._run("teacher", teacher, self._teacher_taps)(images))
        maps = self._teacher_taps.take().maps
        # Detached once for all terms: those that share work recognise maps as the same tensors.
        return scores, Tapped({name: one.detach() for name, one in maps.items()})

    def forward(
        self,
        images: Tensor,
        labels: Tensor,
        factors: Mapping[str, float] | None = None,
        taught: Taught | None = None,
    ) -> Values:
        """The cross-entropy and every term on a batch.

        Args:
            images: (N, 3, H, W), normalised.
            labels: (N,), whole numbers, or (N, K), shares of the classes.
            factors: factor of each term by its name, and of the cross-entropy as ``ce``. A value
                with the factor 0 is detached, as several processes would wait for a gradient that
                never comes. None for gradients of all.
            taught: the teacher's outputs for these images, where they are kept; the teacher then
                does not run.
        """

        def counted(name: str, value: Tensor) -> Tensor:
            return value if factors is None or factors[name] else value.detach()

        if self.uses_images:
            images = images.detach().requires_grad_(True)
        # The teacher first: it leaves no graph, so that the student's pass can reuse its memory.
        theirs, their_maps = self._teacher_pass(images) if taught is None else _known(taught)
        mine, my_maps = self._student_pass(images)
        terms = {}
        with _in_float32(images.device):
            for bound in self.terms:
                loss = bound.term.loss
                assert isinstance(loss, DistillationLoss)
                names = bound.student if self.needs_student else ()
                ours = Outputs(mine, tuple(my_maps[name] for name in names), images)
                other = Outputs(
                    theirs if bound.uses_images else theirs.detach(),
                    tuple(their_maps[name] for name in bound.teacher),
                    images,
                )
                terms[bound.term.name] = counted(bound.term.name, loss(ours, other, labels))
            if not self.needs_student:
                return Values(None, None, terms, None)
            scores = mine.float()
            plain = functional.cross_entropy(scores, labels)
            smooth = plain
            if self.label_smoothing:
                smooth = functional.cross_entropy(
                    scores, labels, label_smoothing=self.label_smoothing
                )
        largest = labels if labels.ndim == 1 else labels.argmax(dim=1)
        n_right = (scores.detach().argmax(dim=1) == largest).sum()
        return Values(plain.detach(), counted("ce", smooth), terms, n_right)


def _on(taps: Taps) -> contextlib.AbstractContextManager[Any]:
    """The taps for a pass, or nothing where there are none: hooks cost some time."""
    return taps if taps.names else contextlib.nullcontext()


def _in_float32(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Switch autocast off where it is on; where it is off, that would only cost time."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return contextlib.nullcontext()


def _known(taught: Taught) -> tuple[Tensor, Tapped]:
    return taught.scores, Tapped(taught.maps)

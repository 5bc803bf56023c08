"""The training loop: stages, epochs and steps, and what is logged and saved on the way."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from natstats.activations.hooks import same_modes
from natstats.distill.results import MAIN
from natstats.distill.training.averaging import WeightAverage
from natstats.distill.training.compiling import CompiledNetworks
from natstats.distill.training.costs import PeakMemory
from natstats.distill.training.distributed import Processes, synchronised
from natstats.distill.training.evaluation import Looks
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.gradients import gradient_rows
from natstats.distill.training.loading import LabelledBatch, TrainBatches, prepared
from natstats.distill.training.mixing import mixed
from natstats.distill.training.objective import Objective, Taught
from natstats.distill.training.optimization import learning_rate
from natstats.distill.training.program import Program, TrainingStage
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.soundness import refuse_broken_weights, refuse_non_finite
from natstats.distill.training.state import TrainingState
from natstats.distill.training.stepping import Stepper
from natstats.distill.training.sums import EpochSums
from natstats.distill.training.teacher_cache import TeacherCache
from natstats.distill.training.trained import Trained
from natstats.errors import UsageError

__all__ = ["DTYPES", "Trainer"]

DTYPES: Mapping[str, torch.dtype | None] = {
    "none": None, "bf16": torch.bfloat16, "fp16": torch.float16
}  # fmt: skip
"""Type in which the networks compute, by its name in a recipe."""

_CHECKED_EVERY = 50
"""Steps between checks that losses on an accelerator are finite; each check waits for it."""

_STEPS_BETWEEN_GRADIENTS = 100
"""Fewest steps between measurements of the gradients: they cost a step or two in a hundred."""


def _seed(*parts: Any) -> int:
    """A seed for torch's random state that no other step has."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@contextlib.contextmanager
def _enough_for_batch_norm() -> Iterator[None]:
    """Explain torch's error where a batch norm sees a single value per channel."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UsageError(
            "batch_size: expected two images or more for every process, as a batch norm sees maps "
            "of one pixel; got 1"
        ) from None


class Trainer:
    """Trains a student through the stages of a program.

    All random numbers of a step come from a seed of its own (training, stage, epoch, step), so that
    an interrupted training resumes as if it had not been interrupted.

    Args:
        student: trained in place.
        teacher: the teacher, on the same device; None for none.
        program: stages and losses.
        batches: batches of the training images.
        recipe: how to train.
        looks: how the student is evaluated, in eval mode; they restore its mode.
        state: where to keep what an interrupted training resumes from; None to keep nothing.
        together: the processes that train.
        seed: seed of the training.
        keep_seconds: the state is kept after each epoch, and whenever this time has passed.
        evaluate_every: epochs between evaluations in the main stage; the last epoch always has one.
        gradients_every: epochs between measurements of the gradients of the terms, from the first
            epoch of a stage on; 0 for none, None for as many epochs as have 100 steps together.
        n_classes: K, for labels that are mixed; by default one more than the largest label.
        progress: called with the steps done and to do.
        log: called with each record of the history, when the state is kept.
        cache: gives the teacher's outputs in place of its passes; None for none.
        compiled: what runs in place of the networks where no tap sits.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        program: Program,
        batches: TrainBatches,
        recipe: Recipe,
        looks: Looks,
        *,
        together: Processes,
        seed: int = 0,
        state: TrainingState | None = None,
        keep_seconds: float = 300.0,
        evaluate_every: int = 1,
        gradients_every: int | None = None,
        n_classes: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        log: Callable[[Mapping[str, Any]], None] | None = None,
        cache: TeacherCache | None = None,
        compiled: CompiledNetworks | None = None,
    ) -> None:
        self.student, self.teacher, self.program = student, teacher, program
        self.batches, self.recipe, self.looks = batches, recipe, looks
        self.together, self.seed, self.state = together, seed, state
        self.keep_seconds, self.evaluate_every = keep_seconds, evaluate_every
        self.progress, self.log, self.cache = progress, log, cache
        self.compiled = compiled or CompiledNetworks()
        usual = math.ceil(_STEPS_BETWEEN_GRADIENTS / batches.n_steps)
        self.gradients_every = usual if gradients_every is None else gradients_every
        self.n_classes = n_classes or int(batches.images.labels.max()) + 1
        self.average = WeightAverage(student, recipe.ema) if recipe.ema else None
        self.memory = PeakMemory(together.device, begins=False)
        self.trained = Trained()
        self.losses = program.losses().to(together.device)
        self.scaler = torch.amp.GradScaler(
            together.device.type, enabled=recipe.amp == "fp16" and together.device.type == "cuda"
        )
        self._since = time.perf_counter()
        self._kept_at = time.perf_counter()

    # -- the whole ----------------------------------------------------------------------------

    def train(self) -> Trained:
        """Train from the beginning, or from the state that was kept.

        Raises:
            NatstatsError: a loss or a weight is not finite; the term is named, and the last good
                state stays.
        """
        kept = None if self.state is None else self.state.read(self.together.device)
        place = (0, 0, 0)
        if kept is not None:
            place = self._resume(kept)
        self._since = self._kept_at = time.perf_counter()
        with (
            same_modes(self.student),
            synchronised(self.student, self.together, self.recipe.sync_bn),
            frozen(self.teacher, self.program.teacher_bn == "batch"),
        ):
            for number in range(place[0], len(self.program.stages)):
                resumed = kept if kept is not None and number == place[0] else None
                self._train_stage(number, place[1:] if resumed is not None else (0, 0), resumed)
        if self.average is not None:
            self.average.keep()
        self._count_seconds()
        return self.trained

    def _resume(self, kept: Mapping[str, Any]) -> tuple[int, int, int]:
        self.student.load_state_dict(kept["student"])
        self.losses.load_state_dict(kept["losses"])
        self.scaler.load_state_dict(kept["scaler"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        self.trained = Trained(**kept["trained"])
        self.trained.n_sittings += 1
        return kept["stage"], kept["epoch"], kept["step"]

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.trained.seconds += now - self._since
        self._since = now

    # -- a stage ------------------------------------------------------------------------------

    def _train_stage(
        self, number: int, place: tuple[int, ...], kept: Mapping[str, Any] | None
    ) -> None:
        stage = self.program.stages[number]
        stepper = Stepper(
            stage,
            self._objective(stage),
            self.recipe,
            self.scaler,
            self.together.device,
            self.together.world,
        )
        if kept is not None and kept["optimizer"] is not None:
            stepper.optimizer.load_state_dict(kept["optimizer"])
        for epoch in range(place[0], stage.epochs):
            start = place[1] if epoch == place[0] else 0
            sums = stepper.sums()
            if start and kept is not None:
                n_images = sum(self.batches.sizes[:start]) // self.together.world
                sums.load(kept["sums"], start, n_images)
            with _enough_for_batch_norm():
                self._train_epoch(number, epoch, start, stepper, sums)
            self._finish_epoch(number, epoch, sums, stepper.optimizer)

    def _objective(self, stage: TrainingStage) -> Objective:
        size = self.batches.images.size if self.recipe.size is None else self.recipe.size
        image = torch.zeros(1, 3, size, size, device=self.together.device)
        amp = DTYPES[self.recipe.amp]
        objective = stage.objective(
            self.student, self.teacher, image, self.recipe.label_smoothing, amp,
            self.program.traces,
        )  # fmt: skip
        objective.use_compiled(self.compiled.student, self.compiled.teacher)
        return objective

    # -- an epoch -----------------------------------------------------------------------------

    def _train_epoch(
        self, number: int, epoch: int, start: int, stepper: Stepper, sums: EpochSums
    ) -> None:
        stage, n_steps = stepper.stage, self.batches.n_steps
        done = sum(s.epochs for s in self.program.stages[:number]) * n_steps
        total = sum(s.epochs for s in self.program.stages) * n_steps
        self.student.train(stage.trains_student)
        stepper.objective.losses.train()
        looks_at_each = self.together.device.type == "cpu"
        kept = (
            None if self.cache is None else self.cache.epoch(stepper.objective, stage.name, epoch)
        )
        began = time.perf_counter()
        aside = 0.0
        for offset, batch in enumerate(self.batches.epoch(stage.name, epoch, start)):
            step = start + offset
            images, labels = self._batch(batch, (stage.name, epoch, step))
            taught = None if kept is None else kept.batch(batch.places, self.together.device)
            if step == 0 and self._notes_gradients(stage, epoch):
                before = time.perf_counter()
                self._note_gradients(stepper, epoch, images, labels, taught)
                aside += time.perf_counter() - before
            self._seed_torch(stage.name, epoch, step)
            at = epoch * n_steps + step
            stepper.set_rate(
                stage.learning_rate
                * learning_rate(self.recipe, at, n_steps, stage.epochs, stage.schedule)
            )
            factors = stage.factors(at / (stage.epochs * n_steps))
            stepper.backward(images, labels, factors, sums, step, taught)
            if looks_at_each or step % _CHECKED_EVERY == _CHECKED_EVERY - 1:
                self._refuse_non_finite(stage, epoch, sums)
            stepper.follow()
            if self.average is not None and stage.trains_student:
                self.average.update()
            if self.progress is not None and self.together.is_first:
                self.progress(done + at + 1, total)
            if time.perf_counter() - self._kept_at > self.keep_seconds and step + 1 < n_steps:
                self._refuse_broken(stage, epoch, sums)
                self._keep(number, epoch, step + 1, stepper.optimizer, sums)
        self._refuse_broken(stage, epoch, sums)
        seconds = time.perf_counter() - began - aside
        n_done = sum(self.batches.sizes[start:])
        self._images_per_second = n_done / seconds if n_done else math.nan
        if stage.name == MAIN and start == 0:
            self.trained.step_seconds.append(seconds / n_steps)

    def _batch(self, batch: LabelledBatch, place: tuple[str, int, int]) -> tuple[Tensor, Tensor]:
        """Images and labels as the networks take them, at a place: stage, epoch and step."""
        images = prepared(batch.images, self.recipe, self.together.device)
        labels = batch.labels.to(self.together.device, non_blocking=True)
        seed = _seed(self.seed, self.together.rank, "mixing", *place)
        return mixed(images, labels, self.recipe, self.n_classes, seed)

    def _seed_torch(self, stage: str, epoch: int, step: int) -> None:
        seed = _seed(self.seed, self.together.rank, stage, epoch, step)
        if self.together.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # no look at every other device
        else:
            torch.manual_seed(seed)

    def _notes_gradients(self, stage: TrainingStage, epoch: int) -> bool:
        is_due = bool(self.gradients_every) and epoch % self.gradients_every == 0
        return is_due and stage.trains_student and self.together.world == 1

    def _refuse_non_finite(self, stage: TrainingStage, epoch: int, sums: EpochSums) -> None:
        refuse_non_finite(sums, stage.name, epoch, self._what_is_kept())

    def _refuse_broken(self, stage: TrainingStage, epoch: int, sums: EpochSums) -> None:
        self._refuse_non_finite(stage, epoch, sums)
        trained = (*self.student.parameters(), *self.losses.parameters())
        refuse_broken_weights(trained, stage.name, epoch, self._what_is_kept())

    def _what_is_kept(self) -> str:
        is_there = self.state is not None and self.state.is_kept
        return "; the last good state is kept" if is_there else ""

    def _note_gradients(
        self, stepper: Stepper, epoch: int, images: Tensor, labels: Tensor, taught: Taught | None
    ) -> None:
        stage, n_parts = stepper.stage, stepper.n_parts(len(images))
        torch.manual_seed(_seed(self.seed, "gradients", stage.name, epoch))
        weights = stage.factors(epoch / stage.epochs)
        del weights["ce"]
        first = None if taught is None else taught.part(0, n_parts)
        rows = gradient_rows(
            stepper.objective,
            images.tensor_split(n_parts)[0],
            labels.tensor_split(n_parts)[0],
            weights,
            first,
        )
        self.trained.gradients += [{"stage": stage.name, "epoch": epoch + 1, **r} for r in rows]

    def _finish_epoch(
        self, number: int, epoch: int, sums: EpochSums, optimizer: torch.optim.Optimizer
    ) -> None:
        stage = self.program.stages[number]
        n_right, n_images = self.together.total(sums.right).tolist()
        totals = self.together.total(sums.sums) / n_images
        means = dict(zip(sums.names, totals.tolist(), strict=True))
        if not stage.trains_student:
            del means["ce"]
        loss, accuracy, n_looked = self._look(stage, epoch)
        self._count_seconds()
        row = {
            "stage": stage.name,
            "epoch": epoch + 1,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "loss": means.pop("loss"),
            "accuracy": n_right / n_images if stage.trains_student else math.nan,
            **means,
            "eval_loss": loss,
            "eval_accuracy": accuracy,
            "seconds": self.trained.seconds,
            "eval_images": n_looked,
            "images_per_second": self._images_per_second,
            "memory_mib": self.memory.mebibytes()[0],
        }
        self.trained.history.append(row)
        last = epoch + 1 == stage.epochs
        following = (number + 1, 0) if last else (number, epoch + 1)
        self._keep(*following, 0, None if last else optimizer, None)
        if self.log is not None and self.together.is_first:
            self.log(row)

    def _look(self, stage: TrainingStage, epoch: int) -> tuple[float, float, float]:
        """Loss and accuracy of the student after an epoch, and on how many images; NaN if none."""
        is_last = epoch + 1 == stage.epochs
        is_due = (epoch + 1) % self.evaluate_every == 0 or is_last
        if stage.name != MAIN or not is_due or not self.together.is_first:
            return math.nan, math.nan, math.nan
        with contextlib.nullcontext() if self.average is None else self.average.in_place():
            return self.looks.at_all() if is_last else self.looks.on_the_way()

    def _keep(
        self,
        number: int,
        epoch: int,
        step: int,
        optimizer: torch.optim.Optimizer | None,
        sums: EpochSums | None,
    ) -> None:
        self._kept_at = time.perf_counter()
        if self.state is None or not self.together.is_first:
            return
        self._count_seconds()
        self.state.write(
            {
                "stage": number,
                "epoch": epoch,
                "step": step,
                "student": self.student.state_dict(),
                "losses": self.losses.state_dict(),
                "optimizer": None if optimizer is None else optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "average": None if self.average is None else self.average.state_dict(),
                "sums": None if sums is None else sums.state(),
                "trained": {
                    name: getattr(self.trained, name) for name in Trained.__dataclass_fields__
                },
            }
        )

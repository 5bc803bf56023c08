"""The training loop: stages, steps, what is logged and kept on the way."""

from __future__ import annotations

import contextlib
import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from natstats.activations.hooks import same_modes
from natstats.distill.results import MAIN
from natstats.distill.training.distributed import Processes
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.gradients import gradient_rows
from natstats.distill.training.loading import TrainBatches, prepared
from natstats.distill.training.objective import Objective, Values
from natstats.distill.training.optimization import learning_rate, make_optimizer
from natstats.distill.training.program import Program, TrainingStage
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.state import TrainingState
from natstats.distill.training.sums import EpochSums
from natstats.errors import NatstatsError, UsageError

__all__ = ["DTYPES", "Trained", "Trainer"]

DTYPES: Mapping[str, torch.dtype | None] = {
    "none": None, "bf16": torch.bfloat16, "fp16": torch.float16
}  # fmt: skip
"""Type in which the networks compute, by its name in a recipe."""

_CHECKED_EVERY = 50
"""Steps between looks at an accelerator's losses, each of which waits for it."""


@dataclass
class Trained:
    """What a training left behind, beside the student.

    Attributes:
        history: a record per epoch.
        gradients: a record per epoch and term.
        step_seconds: mean time of a step of each epoch of the main stage.
        seconds: time of training and evaluation, over all sittings.
        n_sittings: 1 for a training that was never cut.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    gradients: list[dict[str, Any]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    n_sittings: int = 1

    @property
    def ms_per_step(self) -> float:
        """Median over the epochs of the main stage, ms; NaN where none was whole."""
        return 1000 * statistics.median(self.step_seconds) if self.step_seconds else math.nan


def _seed(*parts: Any) -> int:
    """A number for torch's random state that no other step has."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@contextlib.contextmanager
def _enough_for_batch_norm() -> Iterator[None]:
    """Say what torch means when a batch norm sees one value a channel, which has no variance."""
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

    Every chance event of a step is drawn from a seed of its own (training, stage, epoch, step), so
    that a training that was cut goes on as if it had not been.

    Args:
        student: trained in place.
        teacher: the teacher, on the same device; None for none.
        program: stages and losses.
        batches: batches of the training images.
        recipe: how to train.
        evaluate: returns loss and accuracy of the student, in eval mode; gives its mode back.
        state: where to keep what a cut training goes on from; None to keep nothing.
        together: the processes that train.
        seed: seed of the training.
        keep_seconds: the state is kept after each epoch, and when this time has passed.
        evaluate_every: epochs between evaluations in the main stage; the last epoch has one always.
        progress: called with the steps done and to do.
        log: called with each record of the history, when the state is kept.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        program: Program,
        batches: TrainBatches,
        recipe: Recipe,
        evaluate: Callable[[], tuple[float, float]],
        *,
        together: Processes,
        seed: int = 0,
        state: TrainingState | None = None,
        keep_seconds: float = 300.0,
        evaluate_every: int = 1,
        progress: Callable[[int, int], None] | None = None,
        log: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self.student, self.teacher, self.program = student, teacher, program
        self.batches, self.recipe, self.evaluate = batches, recipe, evaluate
        self.together, self.seed, self.state = together, seed, state
        self.keep_seconds, self.evaluate_every = keep_seconds, evaluate_every
        self.progress, self.log = progress, log
        self.trained = Trained()
        self.losses = program.losses().to(together.device)
        self.scaler = torch.amp.GradScaler(
            together.device.type, enabled=recipe.amp == "fp16" and together.device.type == "cuda"
        )
        self._since = time.perf_counter()
        self._kept_at = time.perf_counter()

    # -- the whole ----------------------------------------------------------------------------

    def train(self) -> Trained:
        """Train from the beginning, or from where the kept state stands.

        Raises:
            NatstatsError: a loss or a weight is not finite; the term is named, and the last good
                state kept.
        """
        kept = None if self.state is None else self.state.read(self.together.device)
        place = (0, 0, 0)
        if kept is not None:
            place = self._resume(kept)
        self._since = self._kept_at = time.perf_counter()
        with same_modes(self.student), frozen(self.teacher, self.program.teacher_bn == "batch"):
            for number in range(place[0], len(self.program.stages)):
                resumed = kept if kept is not None and number == place[0] else None
                self._train_stage(number, place[1:] if resumed is not None else (0, 0), resumed)
        self._count_seconds()
        return self.trained

    def _resume(self, kept: Mapping[str, Any]) -> tuple[int, int, int]:
        self.student.load_state_dict(kept["student"])
        self.losses.load_state_dict(kept["losses"])
        self.scaler.load_state_dict(kept["scaler"])
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
        device = self.together.device
        objective = self._objective(stage)
        groups = stage.trained(objective)
        optimizer = make_optimizer(self.recipe, [{"params": group} for group in groups])
        if kept is not None and kept["optimizer"] is not None:
            optimizer.load_state_dict(kept["optimizer"])
        runner: nn.Module = objective
        if self.together.world > 1:
            runner = DistributedDataParallel(
                objective,
                device_ids=[device.index] if device.type == "cuda" else None,
                find_unused_parameters=True,
            )
        for epoch in range(place[0], stage.epochs):
            start = place[1] if epoch == place[0] else 0
            sums = EpochSums([b.term.name for b in stage.terms] + ["ce", "loss"], device)
            if start and kept is not None:
                sums.load(kept["sums"])
            with _enough_for_batch_norm():
                self._train_epoch(number, epoch, start, runner, objective, optimizer, sums)
            self._finish_epoch(number, epoch, sums, optimizer)

    def _objective(self, stage: TrainingStage) -> Objective:
        size = self.batches.images.size if self.recipe.size is None else self.recipe.size
        image = torch.zeros(1, 3, size, size, device=self.together.device)
        amp = DTYPES[self.recipe.amp]
        return stage.objective(
            self.student, self.teacher, image, self.recipe.label_smoothing, amp
        )  # fmt: skip

    # -- an epoch -----------------------------------------------------------------------------

    def _train_epoch(
        self,
        number: int,
        epoch: int,
        start: int,
        runner: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        sums: EpochSums,
    ) -> None:
        stage, n_steps = self.program.stages[number], self.batches.n_steps
        done = sum(s.epochs for s in self.program.stages[:number]) * n_steps
        total = sum(s.epochs for s in self.program.stages) * n_steps
        self.student.train(stage.trains != "losses")
        objective.losses.train()
        looks_at_each = self.together.device.type == "cpu"
        began = time.perf_counter()
        aside = 0.0
        for offset, batch in enumerate(self.batches.epoch(stage.name, epoch, start)):
            step = start + offset
            images = prepared(batch.images, self.recipe, self.together.device)
            labels = batch.labels.to(self.together.device, non_blocking=True)
            if step == 0 and stage.trains != "losses" and self.together.world == 1:
                before = time.perf_counter()
                self._note_gradients(stage, epoch, objective, images, labels)
                aside += time.perf_counter() - before
            torch.manual_seed(_seed(self.seed, self.together.rank, stage.name, epoch, step))
            at = epoch * n_steps + step
            rate = stage.learning_rate * learning_rate(
                self.recipe, at, n_steps, stage.epochs, stage.schedule
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            factors = stage.factors(at / (stage.epochs * n_steps))
            values: Values = runner(images, labels, factors)
            loss, listed = self._total(stage, values, factors)
            sums.add(listed, values.n_right, len(labels), step)
            if looks_at_each or step % _CHECKED_EVERY == _CHECKED_EVERY - 1:
                self._refuse_non_finite(stage, epoch, sums)
            if loss.requires_grad:  # not where a ramp begins at 0 beside nothing else
                self._follow(loss, optimizer)
            if self.progress is not None and self.together.is_first:
                self.progress(done + at + 1, total)
            if time.perf_counter() - self._kept_at > self.keep_seconds and step + 1 < n_steps:
                self._refuse_non_finite(stage, epoch, sums)
                self._refuse_broken_weights(stage, epoch)
                self._keep(number, epoch, step + 1, optimizer, sums)
        self._refuse_non_finite(stage, epoch, sums)
        self._refuse_broken_weights(stage, epoch)
        if stage.name == MAIN and start == 0:
            self.trained.step_seconds.append((time.perf_counter() - began - aside) / n_steps)

    def _follow(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimiser."""
        optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call, unused-ignore]
        if self.recipe.clip is not None:
            self.scaler.unscale_(optimizer)
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.scaler.step(optimizer)
        self.scaler.update()

    def _total(
        self, stage: TrainingStage, values: Values, factors: Mapping[str, float]
    ) -> tuple[Tensor, Tensor]:
        """What is minimised, and all values in the order of the sums."""
        device = self.together.device
        loss = stage.total(values, factors, device)
        ce = torch.zeros((), device=device) if values.ce is None else values.ce
        listed = [values.terms[bound.term.name].detach() for bound in stage.terms]
        return loss, torch.stack([*listed, ce, loss.detach()]).float()

    def _refuse_non_finite(self, stage: TrainingStage, epoch: int, sums: EpochSums) -> None:
        step, names = sums.culprits()
        if not names:
            return
        named = [name for name in names if name != "loss"] or names
        were = "was" if len(named) == 1 else "were"
        raise NatstatsError(
            f"training: expected finite losses; {' and '.join(named)} {were} not finite in stage "
            f"{stage.name}, epoch {epoch + 1}, step {step + 1}{self._what_is_kept()}"
        )

    def _refuse_broken_weights(self, stage: TrainingStage, epoch: int) -> None:
        """Raise where a step from a finite loss led to weights that are not; they are not kept."""
        trained = (*self.student.parameters(), *self.losses.parameters())
        if not bool(torch.stack([weights.isfinite().all() for weights in trained]).all()):
            raise NatstatsError(
                f"training: expected finite weights; a step in stage {stage.name}, epoch "
                f"{epoch + 1} led to others{self._what_is_kept()}"
            )

    def _what_is_kept(self) -> str:
        is_there = self.state is not None and self.state.is_kept
        return "; the last good state is kept" if is_there else ""

    def _note_gradients(
        self, stage: TrainingStage, epoch: int, objective: Objective, images: Tensor, labels: Tensor
    ) -> None:
        torch.manual_seed(_seed(self.seed, "gradients", stage.name, epoch))
        weights = {b.term.name: b.term.factor(epoch / stage.epochs) for b in stage.terms}
        rows = gradient_rows(objective, images, labels, weights)
        self.trained.gradients += [{"stage": stage.name, "epoch": epoch + 1, **r} for r in rows]

    def _finish_epoch(
        self, number: int, epoch: int, sums: EpochSums, optimizer: torch.optim.Optimizer
    ) -> None:
        stage = self.program.stages[number]
        n_steps = self.batches.n_steps
        totals = self.together.total(sums.sums) / (self.together.world * n_steps)
        right = self.together.total(sums.right)
        means = dict(zip(sums.names, totals.tolist(), strict=True))
        if stage.trains == "losses":
            del means["ce"]
        loss, accuracy = math.nan, math.nan
        is_due = (epoch + 1) % self.evaluate_every == 0 or epoch + 1 == stage.epochs
        if stage.name == MAIN and is_due and self.together.is_first:
            loss, accuracy = self.evaluate()
        self._count_seconds()
        row = {
            "stage": stage.name,
            "epoch": epoch + 1,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "loss": means.pop("loss"),
            "accuracy": float(right[0] / right[1]) if float(right[1]) else math.nan,
            **means,
            "eval_loss": loss,
            "eval_accuracy": accuracy,
            "seconds": self.trained.seconds,
        }
        self.trained.history.append(row)
        last = epoch + 1 == stage.epochs
        following = (number + 1, 0) if last else (number, epoch + 1)
        self._keep(*following, 0, None if last else optimizer, None)
        if self.log is not None and self.together.is_first:
            self.log(row)

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
                "sums": None if sums is None else sums.state(),
                "trained": {
                    name: getattr(self.trained, name) for name in Trained.__dataclass_fields__
                },
            }
        )

"""The training loop of natstats in turns with a plain loop of PyTorch that does the same work.

Not a study by itself: analyses/distill_overhead.py uses it.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from natstats.distill.method import Outputs
from natstats.distill.training import distillation
from natstats.distill.training.data import LabelledData
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Looks
from natstats.distill.training.gap import GapMeasurement
from natstats.distill.training.labelled import LabelledImages
from natstats.distill.training.loading import LabelledBatch, TrainBatches
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.stages import TrainingStage, plan_training
from natstats.distill.training.trainer import Trainer
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs

__all__ = ["compare_loops", "noise", "shares_of_looks"]

RATE = 1e-3

CLOCK = time.process_time
"""Time of this process: another one on the same machine does not count for it."""


class _Maps:
    """Maps of layers, taken by the plainest hooks there are; ``relu:1`` is a second call."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        self.maps: dict[str, Tensor] = {}
        self._calls: dict[str, int] = {}
        modules = dict(model.named_modules())
        for name in dict.fromkeys(name.partition(":")[0] for name in names):
            assert "@" not in name, f"{name}: a plain hook takes outputs only"
            modules[name].register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            self.maps[f"{name}:{call}" if call else name] = output

        return hook

    def take(self) -> dict[str, Tensor]:
        maps, self.maps, self._calls = self.maps, {}, {}
        return maps


class PlainLoop:
    """Soft targets, and spectral terms where the stage has them, written out with torch alone."""

    def __init__(
        self, student: nn.Module, teacher: nn.Module, stage: TrainingStage, recipe: Recipe
    ) -> None:
        self.student, self.teacher = copy.deepcopy(student).train(), copy.deepcopy(teacher).eval()
        for parameter in self.teacher.parameters():
            parameter.requires_grad_(False)
        self.terms = [bound for bound in stage.terms if bound.term.name != "kd"]
        # Together, so that terms that share their work go on doing so.
        self.losses = copy.deepcopy([bound.term.loss for bound in self.terms])
        self.weight = next(b.term.factor(0.0) for b in stage.terms if b.term.name == "kd")
        self.ce_weight = stage.ce_weight
        self.mine = _Maps(self.student, [name for b in self.terms for name in b.student])
        self.theirs = _Maps(self.teacher, [name for b in self.terms for name in b.teacher])
        # Connectors are trained too.
        trained = nn.ModuleList([self.student, *self.losses]).parameters()
        self.optimizer = torch.optim.SGD(
            trained, RATE, recipe.momentum, nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )  # fmt: skip
        assert recipe.mean is not None
        assert recipe.std is not None
        self.mean = torch.tensor(recipe.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(recipe.std).view(1, 3, 1, 1)

    def step(self, batch: LabelledBatch) -> None:
        """One step."""
        images = batch.images.float().div_(255).sub_(self.mean).div_(self.std)
        with torch.no_grad():
            goal = self.teacher(images)
        their_maps = self.theirs.take()
        scores = self.student(images)
        my_maps = self.mine.take()
        soft = functional.kl_div(
            functional.log_softmax(scores / 4, 1), functional.log_softmax(goal / 4, 1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip
        loss = self.ce_weight * functional.cross_entropy(scores, batch.labels)
        loss = loss + self.weight * 16 * soft
        for bound, own in zip(self.terms, self.losses, strict=True):
            ours = Outputs(scores, tuple(my_maps[name] for name in bound.student), images)
            other = Outputs(goal, tuple(their_maps[name] for name in bound.teacher), images)
            loss = loss + bound.term.factor(0.0) * own(ours, other, batch.labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


class _Noise(Photographs):
    """Images that are in memory only."""

    def label(self, number: int) -> str:
        return f"[{number}]"


def noise(n: int, size: int, n_classes: int) -> LabelledImages:
    """Images of noise, which cost as much as any."""
    draw = torch.Generator().manual_seed(0)
    return LabelledImages(
        _Noise(n, Framing(size), None, 0, "noise"),
        torch.arange(n) % n_classes,
        held=torch.randint(256, (n, 3, size, size), generator=draw, dtype=torch.uint8),
    )


def compare_loops(
    method: str, student: str, teacher: str, *, size: int, batch: int, rounds: int, steps: int,
    n_classes: int,
) -> dict[str, Any]:  # fmt: skip
    """Time both loops in one process, `steps` of the one and then `steps` of the other.

    They see the same images in the same order, and the weights of both students are compared after
    the last step.

    Returns:
        Images/s of both (median over rounds), the ratio of their times with its quartiles, and the
        largest difference of a weight.
    """
    mine = classifier(student, n_classes).model.train()
    theirs = classifier(teacher, n_classes, seed=1).model.eval()
    recipe = Recipe(
        epochs=1, batch_size=batch, size=size, schedule="constant", learning_rate=RATE
    )  # fmt: skip
    n_steps = (rounds + 1) * steps
    batches = TrainBatches(noise(n_steps * batch, size, n_classes), recipe, seed=0)
    torch.manual_seed(0)
    program = plan_training(method, {}, mine, theirs, torch.zeros(2, 3, size, size), 1)
    plain = PlainLoop(mine, theirs, program.stages[-1], recipe)
    its_batches: Iterator[LabelledBatch] = batches.epoch("main", 0)
    seconds: dict[str, list[float]] = {"natstats": [], "plain": []}
    began = CLOCK()

    def progress(done: int, total: int) -> None:
        nonlocal began
        if done % steps:
            return
        seconds["natstats"].append(CLOCK() - began)
        began = CLOCK()
        for _ in range(steps):
            plain.step(next(its_batches))
        seconds["plain"].append(CLOCK() - began)
        began = CLOCK()

    trainer = Trainer(
        mine, theirs, program, batches, recipe, Looks(lambda: (0.0, 0.0)),
        together=Processes(0, 1, torch.device("cpu")), progress=progress,
        gradients_every=0,
    )  # fmt: skip
    trainer.train()
    apart = max(
        float((one - other).detach().abs().max())
        for one, other in zip(mine.parameters(), plain.student.parameters(), strict=True)
    )
    assert apart < 1e-5, f"{method}: the loops led to other weights, {apart} apart"
    kept = {name: times[1:] for name, times in seconds.items()}  # the first round warms up
    ratios = [a / b for a, b in zip(kept["natstats"], kept["plain"], strict=True)]
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    n_images = steps * batch
    return {
        **{
            f"{name}_images_per_second": round(n_images / statistics.median(times), 1)
            for name, times in kept.items()
        },
        "ratio": round(float(middle), 4),
        "ratio_quartiles": [round(float(low), 4), round(float(high), 4)],
        "largest_difference": apart,
    }


def shares_of_looks(
    method: str, student: str, teacher: str, *, size: int, batch: int, n_classes: int,
    epochs: int = 3, steps: int = 20, n_evaluation: int = 1000,
) -> dict[str, float]:  # fmt: skip
    """What looks, the gap and gradients cost beside the steps, by the defaults of a training.

    Returns:
        Time of each by that of the steps of all epochs, %; the last look and that at the teacher,
        which are on all images, come once in a training and are apart.
    """
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **named: Any) -> Any:
            began = CLOCK()
            try:
                return work(*given, **named)
            finally:
                spent[name] = spent.get(name, 0.0) + CLOCK() - began

        return run

    recipe = Recipe(epochs=epochs, batch_size=batch, size=size, warmup_epochs=1)
    parts = noise(steps * batch, size, n_classes), noise(n_evaluation, size, n_classes)
    data = LabelledData(
        *parts, classes=tuple(map(str, range(n_classes))), split="test", name="noise",
        source="noise", digest="0", listing="0", contents=None, size=size, holdout=0.0, seed=0,
        notes=(),
    )  # fmt: skip
    theirs = classifier(teacher, n_classes, seed=1)
    setup = Distillation.of(
        classifier(student, n_classes), data, method, teacher=theirs, recipe=recipe
    )  # fmt: skip
    evaluation = distillation._Evaluation
    with (
        TemporaryDirectory() as folder,
        patch.object(Trainer, "_train_epoch", timed("steps", Trainer._train_epoch)),
        patch.object(Trainer, "_note_gradients", timed("gradients", Trainer._note_gradients)),
        patch.object(evaluation, "glance", timed("looks_on_the_way", evaluation.glance)),
        patch.object(evaluation, "look", timed("last_look", evaluation.look)),
        patch.object(evaluation, "teacher", timed("teacher", evaluation.teacher)),
        patch.object(
            distillation, "GapMeasurement", timed("gap_before", distillation.GapMeasurement)
        ),
        patch.object(GapMeasurement, "rows", timed("gap_after", GapMeasurement.rows)),
    ):
        distillation.distill(setup, Path(folder) / "run", report=False)
    whole = spent.pop("steps") - spent.get("gradients", 0.0)
    return {name: round(100 * seconds / whole, 1) for name, seconds in spent.items()}

"""Training steps of every distillation method on a device, and a short training from end to end.

Not a study by itself: analyses/gpu_check.py uses it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gpu_checks_setting import Case, Setting, WrongResultError, plain_products, settled
from PIL import Image
from torch import Tensor

from natstats.activations.hooks import same_modes
from natstats.distill.methods import METHODS
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import distill
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.stages import plan_training
from natstats.distill.training.stepping import Stepper
from natstats.distill.training.trainer import DTYPES

__all__ = ["METHODS_TRIED", "compiled", "training_steps", "whole_trainings"]

METHODS_TRIED = (*METHODS, "kd+spectral", "fitnets+at+spectral")
N_CLASSES = 10
GOOD_STEPS = 2

MOST_STEPS = 16
"""A scaler begins at 65536 and halves it after a step whose gradients are not finite in float16."""

LOSS = 0.01
"""Allowed between the loss of the first step on the device and on the CPU, as a share of it."""

LATER_LOSS = 0.1
"""The same of a stage after another one, whose steps have led to somewhat other weights."""


@dataclass(frozen=True)
class Steps:
    """What came of a few steps of all stages.

    Attributes:
        first_loss: of the first step of each stage.
        n_skipped: steps that the scaler left out.
        scale: of the scaler in the end.
    """

    first_loss: dict[str, float]
    n_skipped: int
    scale: float


def training_steps(setting: Setting) -> list[Case]:
    """Two steps of every stage of every method, in every precision."""
    precisions = ("none", "fp16", "bf16") if setting.is_cuda else ("none", "bf16")
    return [
        (
            f"{method}, {'float32' if amp == 'none' else amp}",
            functools.partial(_method, setting, method, amp),
        )
        for amp in precisions
        for method in METHODS_TRIED
        if not setting.small or amp == "none" or method in ("ofd", "kd+spectral")
    ]


def _method(setting: Setting, method: str, amp: str) -> dict[str, Any]:
    with plain_products():
        steps = _steps(setting, method, amp, setting.device)
        record: dict[str, Any] = {"first_loss": steps.first_loss}
        if amp == "fp16":
            record |= {"steps_skipped": steps.n_skipped, "scale": steps.scale}
        if amp != "none" or not setting.is_cuda:
            return record
        expected = _steps(setting, method, amp, torch.device("cpu")).first_loss
    apart = [abs(steps.first_loss[name] / value - 1) for name, value in expected.items()]
    record["loss_differences"] = [float(f"{one:.3g}") for one in apart]
    if not (apart[0] < LOSS and max(apart) < LATER_LOSS):
        raise WrongResultError(f"losses: expected those of the CPU, {expected}; got others", record)
    return record


def _steps(setting: Setting, method: str, amp: str, device: torch.device) -> Steps:
    """Take steps in each stage until there were enough with finite gradients.

    Raises:
        WrongResultError: a loss, a gradient or a weight is not finite, or nothing was trained.
    """
    size, batch = (16, 4) if setting.small else (32, 32)
    images, labels = _batch(batch, size)
    student = classifier("cifar_resnet8", N_CLASSES, seed=0).model.to(device)
    teacher = settled(classifier("cifar_resnet14", N_CLASSES, seed=1).model, images).to(device)
    images, labels = images.to(device), labels.to(device)
    torch.manual_seed(0)
    program = plan_training(method, {}, student, teacher, images[:2], 10)
    recipe = Recipe(learning_rate=1e-3, batch_size=batch, size=size, amp=amp)
    is_scaled = amp == "fp16" and device.type == "cuda"
    scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)
    first_loss, n_skipped = {}, 0
    for stage in program.stages:
        objective = stage.objective(
            student, teacher, images[:1], autocast=DTYPES[amp], traces=program.traces
        )
        stepper = Stepper(stage, objective, recipe, scaler, device)
        before = [p.detach().clone() for group in stage.trained(objective) for p in group]
        with same_modes(student), frozen(teacher, program.teacher_bn == "batch"):
            student.train(stage.trains_student)
            objective.losses.train()
            loss, skipped = _stage(stepper, images, labels)
        first_loss[stage.name], n_skipped = loss, n_skipped + skipped
        after = [p.detach() for group in stage.trained(objective) for p in group]
        if not all(bool(p.isfinite().all()) for p in after):
            raise WrongResultError(
                f"stage {stage.name}: expected finite weights after a step; got others"
            )
        if all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            raise WrongResultError(
                f"stage {stage.name}: expected other weights after a step; got the same"
            )
    return Steps(first_loss, n_skipped, float(scaler.get_scale()))


def _batch(n: int, size: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=draw)
    return images, torch.randint(N_CLASSES, (n,), generator=draw)


def _stage(stepper: Stepper, images: Tensor, labels: Tensor) -> tuple[float, int]:
    """Loss of the first step, and steps that were left out."""
    factors = stepper.stage.factors(0.5)
    first, n_good, n_skipped = 0.0, 0, 0
    for number in range(MOST_STEPS):
        sums = stepper.sums()
        torch.manual_seed(number)
        stepper.backward(images, labels, factors, sums, number)
        _, culprits = sums.culprits()
        if culprits:
            raise WrongResultError(
                f"losses: expected finite ones; {', '.join(culprits)} in step {number + 1}"
            )
        if number == 0:
            first = float(sums.sums[-1]) / len(images)
        gradients = list(_gradients(stepper))
        if not gradients:
            raise WrongResultError(
                f"stage {stepper.stage.name}: expected gradients; there are none"
            )
        is_finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
        if not is_finite and not stepper.scaler.is_enabled():
            raise WrongResultError(
                f"stage {stepper.stage.name}: expected finite gradients; got others"
            )
        stepper.follow()
        n_good, n_skipped = n_good + is_finite, n_skipped + (not is_finite)
        if n_good == GOOD_STEPS:
            return first, n_skipped
    raise WrongResultError(
        f"stage {stepper.stage.name}: expected finite gradients within {MOST_STEPS} steps; the "
        f"scale came down to {stepper.scaler.get_scale():g}"
    )


def _gradients(stepper: Stepper) -> Iterator[Tensor]:
    for group in stepper.optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None:
                yield parameter.grad


# -- whole trainings ----------------------------------------------------------------------------


def whole_trainings(setting: Setting) -> list[Case]:
    """Short trainings from images to the record of a run."""
    ways: dict[str, dict[str, Any]] = {"float32": {}}
    if setting.is_cuda:
        ways["fp16, channels_last, ema, workers, cache"] = {
            "amp": "fp16", "channels_last": True, "ema": 0.9, "augmentation_seed": 0, "draws": 1,
        }  # fmt: skip
        ways["bf16, mixup, accumulated"] = {"amp": "bf16", "mixup": 0.2, "accumulate": 2}
    return [
        (f"kd+spectral, {name}", functools.partial(_whole, setting, name, changes))
        for name, changes in ways.items()
    ]


def _whole(setting: Setting, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Train, and look at the record."""
    has_more = "workers" in name
    setup = _setup(setting, "kd+spectral", changes)
    run = distill(
        setup, setting.folder / f"training {name}", report=False, gap_on=16,
        workers=2 if has_more else 0,
        teacher_cache=setting.folder / "cache" if has_more else None,
    )  # fmt: skip
    costs = run.info["costs"]
    record = {
        "accuracy": run.accuracy, "ms_per_step": costs["ms_per_step"],
        "peak_memory_mib": costs["peak_memory_mib"], "memory_of": costs["memory_of"],
    }  # fmt: skip
    if not np.isfinite(run.history["loss"]).all():
        raise WrongResultError("history: expected finite losses; got others", record)
    of = "device" if setting.is_cuda else "process"
    if costs["memory_of"] != of:
        raise WrongResultError(f"memory_of: expected {of}; got {costs['memory_of']}", record)
    return record


def _setup(setting: Setting, method: str, changes: dict[str, Any]) -> Distillation:
    folder = _labelled(setting)
    recipe = Recipe(epochs=1, batch_size=4, size=16, learning_rate=0.01).changed(**changes)
    data = open_labelled(f"imagefolder:{folder}", recipe)
    student, teacher = (
        classifier(name, len(data.classes), seed=seed, device=setting.device)
        for seed, name in enumerate(("cifar_resnet8", "cifar_resnet14"))
    )
    teacher.model.eval()
    return Distillation.of(student, data, method, teacher=teacher, recipe=recipe)


def _labelled(setting: Setting) -> Any:
    """Two classes of brightness, a few images each."""
    root = setting.folder / "labelled"
    if not root.is_dir():
        draw = np.random.default_rng(0)
        for split, n in (("train", 8), ("val", 4)):
            for place, name in enumerate(("dark", "light")):
                (root / split / name).mkdir(parents=True)
                for number in range(n):
                    pixels = np.clip(draw.normal(80 + 80 * place, 30, (16, 16, 3)), 0, 255)
                    image = Image.fromarray(pixels.astype(np.uint8))
                    image.save(root / split / name / f"{number}.png")
    return root


def compiled(setting: Setting) -> list[Case]:
    """A training whose networks run compiled."""
    return [("kd, both networks compiled", functools.partial(_compiled, setting))]


def _compiled(setting: Setting) -> dict[str, Any]:
    setup = _setup(setting, "kd", {})
    run = distill(setup, setting.folder / "compiled", report=False, gap=False, compile="both")
    return {"accuracy": run.accuracy, "ms_per_step": run.info["costs"]["ms_per_step"]}

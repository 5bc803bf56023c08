"""Trainings on CUDA: the weights of the CPU in float32, and float16 with a scaler."""

from __future__ import annotations

import copy

import pytest
import torch

from natstats.distill.training.distillation import distill
from natstats.distill.training.setup import Distillation, classifier

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def trained(data, teacher, recipe, device, out, method="kd+spectral", **options):
    student = classifier("cifar_resnet8", 3, seed=0, device=device)
    other = copy.deepcopy(teacher)
    other.model.to(device)
    setup = Distillation.of(student, data, method, teacher=other, recipe=recipe)
    return distill(setup, out, report=False, gap=False, **options), setup


def test_an_epoch_ends_near_the_weights_of_the_cpu(data, teacher, recipe, tmp_path):
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        losses = [
            trained(data, teacher, recipe.changed(epochs=1), device, tmp_path / device)[0]
            .history["loss"].iloc[-1]
            for device in ("cuda", "cpu")
        ]  # fmt: skip
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.parametrize("amp", ["fp16", "bf16"])
def test_half_precision_trains(data, teacher, recipe, tmp_path, amp):
    changed = recipe.changed(amp=amp, channels_last=True, clip=1.0, ema=0.9)
    run, setup = trained(data, teacher, changed, "cuda", tmp_path / amp, workers=2)
    assert run.history["loss"].notna().all()
    assert run.info["costs"]["memory_of"] == "device"
    assert all(bool(p.isfinite().all()) for p in setup.student.model.parameters())


def test_the_outputs_of_a_teacher_are_kept(data, teacher, recipe, tmp_path):
    changed = recipe.changed(augmentation_seed=0, draws=1)
    for name in ("first", "second"):
        run, _ = trained(
            data, teacher, changed, "cuda", tmp_path / name, teacher_cache=tmp_path / "cache"
        )
        assert run.history["loss"].notna().all()

"""Targets that come from a measured run of the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.distill.training.distillation import distill
from natstats.distill.training.objective import Objective
from natstats.distill.training.setup import Distillation, classifier
from natstats.errors import UsageError


def measured(path, network, layers="act", size=16):
    pixels = np.random.default_rng(0).random((8, 3, size, size), dtype=np.float32)
    natstats.measure(network, pixels, layers=layers).save(path, report=False)
    return path


@pytest.fixture(scope="module")
def run(teacher, tmp_path_factory):
    """A run of the teacher."""
    return measured(tmp_path_factory.mktemp("measured") / "run", teacher)


@pytest.mark.slow
def test_terms_of_a_run_need_no_teacher(tmp_path, data, teacher, recipe):
    pixels = np.random.default_rng(0).random((16, 3, 16, 16), dtype=np.float32)
    seen = natstats.measure(teacher.model, pixels, layers="stage*.1.relu2,stage*.0.relu2")
    seen.save(tmp_path / "teacher", report=False)
    setup = Distillation.of(
        classifier("cifar_resnet8", 3), data, "spectral", recipe=recipe.changed(epochs=1),
        teacher_run=tmp_path / "teacher",
    )  # fmt: skip
    run = distill(setup, tmp_path / "run", report=False)
    assert run.info["teacher"] is None
    assert run.info["costs"]["teacher_passes"] == 0
    assert run.info["teacher_run"]["digest"] == teacher.digest()
    assert run.history["spectral.spectrum"].iloc[0] > 0
    assert len(run.gap) == 0
    assert {(row["student"], row["teacher"]) for row in run.info["taps"]} == {
        ("stage1.0.relu2", "stage1.1.relu2"), ("stage2.0.relu2", "stage2.1.relu2"),
    }  # fmt: skip


class TestTargetsOfARun:
    @pytest.mark.slow
    def test_another_run_is_another_training(self, tmp_path, data, run, setup_of):
        runs = [run, measured(tmp_path / "run", classifier("cifar_resnet14", 3, seed=0))]
        setups = [setup_of(data, None, "spectral", teacher_run=run) for run in runs]
        identities = [setup.identity(1) for setup in setups]
        assert identities[0] != identities[1]
        assert {**identities[0], "teacher_run": None} == {**identities[1], "teacher_run": None}

    @pytest.mark.slow
    def test_a_teacher_beside_its_run_is_not_asked(self, data, teacher, run, setup_of):
        setup = setup_of(data, teacher, "spectral", teacher_run=run)
        assert setup.program.teacher_passes == 0
        objective = Objective(
            setup.student.model, teacher.model, setup.program.stages[-1].terms,
            torch.zeros(1, 3, 16, 16),
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(teacher.model, "forward", None)
            values = objective(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long))
        assert values.terms["spectral.spectrum"].isfinite()
        assert setup_of(data, teacher, "kd+spectral", teacher_run=run).program.teacher_passes == 1

    @pytest.mark.slow
    def test_another_normalisation_is_told(self, tmp_path, data, folder, teacher, setup_of, recipe):
        path = tmp_path / "run"
        natstats.measure(teacher, folder / "train", layers="act", size=16).save(path, report=False)
        (left_out,) = setup_of(data, None, "spectral", teacher_run=path).program.notes
        assert left_out == "spectral: coherence is left out; a teacher run has ring spectra only"
        recipe = recipe.changed(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
        _, note = setup_of(data, None, "spectral", teacher_run=path, recipe=recipe).program.notes
        assert "normalised with the mean 0.485 0.456 0.406, the student's are with 0.100" in note

    @pytest.mark.slow
    def test_weights_of_another_teacher_are_refused(self, tmp_path, data, teacher, setup_of):
        run = measured(tmp_path / "run", classifier("cifar_resnet14", 3, seed=8))
        with pytest.raises(UsageError, match="teacher_run: expected a run of the teacher, whose"):
            setup_of(data, teacher, "spectral", teacher_run=run)

    @pytest.mark.slow
    def test_layers_that_are_no_activations_are_no_targets(self, tmp_path, data, teacher, setup_of):
        run = measured(tmp_path / "run", teacher, layers="conv")
        with pytest.raises(UsageError, match="teacher run: expected layer stage1.1.relu2; it was"):
            setup_of(data, teacher, "spectral", teacher_run=run)
        with pytest.raises(UsageError, match="an activation of 16 x 16 pixels, .* got none"):
            setup_of(data, None, "spectral", teacher_run=run)

    @pytest.mark.slow
    def test_images_of_another_size_are_refused(self, tmp_path, data, teacher, setup_of):
        run = measured(tmp_path / "run", teacher, size=32)
        for known in (teacher, None):
            with pytest.raises(UsageError, match="teacher run: expected .*16 x 16 .* 32 x 32"):
                setup_of(data, known, "spectral", teacher_run=run)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "asked", [{"activation": "pre"}, {"activation": "block"}, {"place": "blocks"}]
    )
    def test_layers_that_a_run_does_not_name_need_the_teacher(self, data, run, asked, setup_of):
        (named,) = asked.items()
        with pytest.raises(UsageError, match=f"beside the teacher run for {'='.join(named)}"):
            setup_of(data, None, "spectral", teacher_run=run, method_args=asked)

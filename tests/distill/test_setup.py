"""What a training is to be: planned and said before it begins, or refused."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from natstats.distill.training.distillation import distill
from natstats.distill.training.out_folders import check_out
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.stages import plan_training
from natstats.errors import UsageError


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "message"),
        [("kd+nonsense", "expected one of ce, kd"), ("kd+kd", "each method once"),
         ("at", "teacher: expected one for method at; got none")],
    )  # fmt: skip
    def test_methods(self, data, method, message, recipe):
        with pytest.raises(UsageError, match=message):
            Distillation.of(classifier("cifar_resnet8", 3), data, method, recipe=recipe)

    def test_other_numbers_of_classes(self, data, teacher, setup_of, recipe):
        with pytest.raises(UsageError, match="student: expected scores for the 3 classes of"):
            Distillation.of(classifier("cifar_resnet8", 5), data, "ce", recipe=recipe)
        other = classifier("cifar_resnet8", 10)
        with pytest.raises(UsageError, match="teacher: .*cifar_resnet8 has 10 classes"):
            setup_of(data, other)

    @pytest.mark.slow
    def test_unequal_channels_for_fsp(self, data, teacher, setup_of):
        with pytest.raises(UsageError, match="fsp: expected equal numbers of channels"):
            setup_of(data, teacher, "fsp", student="wrn_10_2")

    @pytest.mark.slow
    @pytest.mark.parametrize("method", ["ab", "ofd"])
    def test_a_tap_behind_a_relu_where_the_sign_is_needed(self, data, teacher, method, setup_of):
        with pytest.raises(UsageError, match="tap stage1.0.relu2: expected a map before a ReLU"):
            setup_of(data, teacher, method, taps=[("stage1.0.relu2", "stage1.1.relu2")])

    @pytest.mark.slow
    def test_a_network_for_larger_images(self, data, recipe):
        with pytest.raises(UsageError, match="takes images of 16 x 16 pixels; alexnet says"):
            Distillation.of(classifier("alexnet", 3), data, "ce", recipe=recipe)

    def test_a_run_beside_another_method(self, data, teacher, setup_of):
        with pytest.raises(UsageError, match="teacher_run: expected only beside method spectral"):
            setup_of(data, teacher, "kd", teacher_run="nowhere")

    def test_a_teacher_that_is_the_student(self, data, teacher, recipe):
        with pytest.raises(UsageError, match="teacher: expected another network than the student"):
            Distillation.of(teacher, data, "kd", teacher=teacher, recipe=recipe)

    def test_a_student_that_cannot_be_trained(self, data, recipe):
        student = classifier("cifar_resnet8", 3)
        student.model.requires_grad_(False)
        with pytest.raises(UsageError, match="student: expected parameters that can be trained"):
            Distillation.of(student, data, "ce", recipe=recipe)

    def test_taps_without_a_partner(self, data, teacher, setup_of):
        with pytest.raises(UsageError, match="taps: expected pairs, student and teacher"):
            setup_of(data, teacher, "at", taps=[("stage1",)])

    def test_a_place_that_is_none(self, data, teacher, setup_of):
        with pytest.raises(UsageError, match=r"spectral\.place: expected one of groups, middle"):
            setup_of(data, teacher, "spectral", method_args={"place": "none"})

    def test_an_argument_that_comes_twice(self, data, teacher, setup_of):
        with pytest.raises(UsageError, match=r"kd\.weight: expected once; got it twice"):
            setup_of(data, teacher, "kd", method_args={"weight": 1, "kd.weight": 2})

    def test_an_argument_of_another_method(self, data, teacher, setup_of):
        with pytest.raises(UsageError, match=r"at\.weight: expected METHOD\.NAME with one of"):
            setup_of(data, teacher, "kd", method_args={"at.weight": 1})

    def test_what_is_there_is_kept(self, tmp_path, data, teacher, setup_of):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match="is kept"):
            distill(setup_of(data, teacher), tmp_path)
        with pytest.raises(UsageError, match="is something else and is kept"):
            distill(setup_of(data, teacher), tmp_path, overwrite=True)
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
        check_out(tmp_path / "new", False)


@pytest.mark.slow
def test_the_plan_says_what_will_happen(data, teacher, setup_of):
    text = setup_of(data, teacher, "fitnets+spectral").text()
    assert "Stage fitnets.hint: 1 epoch, trains the student up to its last tap" in text
    assert "4 to " in text
    assert "stage2.0.relu2 (32 x 8 x 8) <- stage2.1.relu2 (32 x 8 x 8)" in text
    assert "18 test images" in text


@pytest.mark.parametrize(
    ("method", "is_taught", "message"),
    [("kd", True, "method kd, which looks at no layer"), ("ce", False, "no teacher")],
)
def test_taps_that_nothing_looks_at_are_refused(
    data, teacher, method, is_taught, message, setup_of
):
    with pytest.raises(UsageError, match=f"tap: expected only beside a teacher .* {message}"):
        setup_of(data, teacher if is_taught else None, method, taps=[("stage1", "stage1")])


@pytest.mark.slow
def test_a_ramp_is_shown_as_far_as_it_goes(data, teacher, setup_of):
    """That of FitNets is cut off by the end of the stage, as in its public code."""
    program = setup_of(data, teacher, "fitnets").program
    (row,) = [row for row in program.terms_table() if row["name"] == "fitnets.kd"]
    assert row["weight"] == pytest.approx([4.0, 4.0 - 3.0 * (288 - 5) / (400 - 5)])
    assert "4 to 1.85 x fitnets.kd" in program.text()


@pytest.mark.slow
def test_named_taps_are_taken(data, teacher, setup_of):
    program = setup_of(data, teacher, "at", taps=[("stage2.0.bn2", "stage2.1.bn2")]).program
    assert [(a.name, b.name) for a, b in program.taps["at"]] == [("stage2.0.bn2", "stage2.1.bn2")]
    with pytest.raises(UsageError, match="expected one pair for method ft; got 2"):
        setup_of(data, teacher, "ft", taps=[("stage1", "stage1"), ("stage2", "stage2")])


@pytest.mark.slow
def test_losses_of_a_plan_do_not_depend_on_earlier_draws(data, teacher, setup_of):
    first = setup_of(data, teacher, "ofd").program.losses().state_dict()
    torch.rand(5)
    second = setup_of(data, teacher, "ofd").program.losses().state_dict()
    assert first
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    other = setup_of(data, teacher, "ofd", seed=4).program.losses().state_dict()
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("kd", {"weight": 0.0, "ce_weight": 0.0}, "weight above 0 in stage main; all are 0"),
        ("fsp", {"weight": 0.0}, r"weight above 0 in stage fsp\.matrices; all are 0"),
        ("ce", {"weight": -1.0}, r"ce\.weight: expected a number that is at least 0; got -1"),
        ("spectral", {"exponent": math.nan}, r"spectral\.exponent: expected a number"),
    ],
)
def test_weights_with_which_nothing_is_trained_are_refused(
    data, method, arguments, message, setup_of
):
    same = classifier("cifar_resnet8", 3, seed=1)
    with pytest.raises(UsageError, match=message):
        setup_of(data, same, method, method_args=arguments)


@pytest.mark.slow
def test_planning_leaves_the_networks_alone(data, teacher):
    student = classifier("cifar_resnet8", 3).model.train()
    before = copy.deepcopy(student.state_dict())
    plan_training("kd+spectral+ofd", {}, student, teacher.model, torch.randn(2, 3, 16, 16), 2)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert all(module.training for module in student.modules())

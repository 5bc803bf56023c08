"""Jacobian matching: gradients of gradients, against differences of numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from natstats.distill.losses import jacobian
from natstats.distill.method import Outputs, Setting
from natstats.errors import UsageError

LABELS = torch.tensor([2, 0])


class Smooth(nn.Module):
    """Two layers with tanh, in float64."""

    def __init__(self, seed, scale=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh()
        ).double()
        self.scale = scale

    def forward(self, images):
        return self.scale * self.layers(images)


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.double).requires_grad_()


def both(student, teacher, given=None):
    given = images() if given is None else given
    return Outputs(student(given), images=given), Outputs(teacher(given), images=given)


def numeric_gradient(network, image, label, step=1e-5):
    gradient = []
    for index in range(image.numel()):
        values = []
        for sign in (1, -1):
            moved = image.detach().clone()
            moved.view(-1)[index] += sign * step
            values.append(float(network(moved[None])[0, label].detach()))
        gradient.append((values[0] - values[1]) / (2 * step))
    return gradient


def oracle(student, teacher, classes):
    total = 0.0
    for image, label in zip(images(), classes.tolist(), strict=True):
        directions = []
        for network in (student, teacher):
            gradient = numeric_gradient(network, image, label)
            norm = math.sqrt(sum(value**2 for value in gradient))
            directions.append([value / norm for value in gradient])
        total += sum((a - b) ** 2 for a, b in zip(*directions, strict=True))
    return total / 2


def test_the_value_equals_differences_of_pixels():
    student, teacher = Smooth(1), Smooth(2)
    value = jacobian.JacobianMatching()(*both(student, teacher), LABELS).item()
    assert value == pytest.approx(oracle(student, teacher, LABELS), rel=1e-6)
    assert 0.0 < value < 4.0


def test_the_class_that_the_teacher_is_surest_of():
    student, teacher = Smooth(1), Smooth(2)
    classes = teacher(images()).argmax(1)
    assert not torch.equal(classes, LABELS)
    value = jacobian.JacobianMatching("teacher")(*both(student, teacher), LABELS).item()
    assert value == pytest.approx(oracle(student, teacher, classes), rel=1e-6)


def test_the_gradient_of_the_loss_equals_differences_of_weights():
    student, teacher = Smooth(1), Smooth(2)
    loss = jacobian.JacobianMatching()
    loss(*both(student, teacher), LABELS).backward()
    for name, parameter in student.named_parameters():
        for index in range(0, parameter.numel(), 7):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[index] += sign * 1e-5
                values.append(loss(*both(student, teacher), LABELS).item())
                with torch.no_grad():
                    parameter.view(-1)[index] -= sign * 1e-5
            expected = (values[0] - values[1]) / 2e-5
            assert parameter.grad.view(-1)[index].item() == pytest.approx(
                expected, rel=1e-4, abs=1e-7
            ), name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_scores_have_no_scale():
    student, teacher = Smooth(1), Smooth(2)
    loss = jacobian.JacobianMatching()
    value = loss(*both(student, teacher), LABELS).item()
    assert loss(*both(Smooth(1, 30.0), teacher), LABELS).item() == pytest.approx(value, rel=1e-6)
    assert loss(*both(student, Smooth(2, 0.05)), LABELS).item() == pytest.approx(value, rel=1e-6)
    assert loss(*both(student, Smooth(1, 3.0)), LABELS).item() == pytest.approx(0.0, abs=1e-10)
    assert loss(*both(student, Smooth(1, -1.0)), LABELS).item() == pytest.approx(4.0, rel=1e-6)


def test_a_score_that_answers_to_nothing_is_finite():
    student = Smooth(1)
    with torch.no_grad():
        student.layers[3].weight.zero_()
    value = jacobian.JacobianMatching()(*both(student, Smooth(2)), LABELS)
    value.backward()
    assert value.item() == pytest.approx(1.0, rel=1e-6)
    assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)


def test_relu_in_place_and_half_precision():
    torch.manual_seed(0)
    nets = [
        nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)
        )
        for _ in range(2)
    ]
    given = torch.randn(2, 3, 4, 4, requires_grad=True)
    exact = jacobian.JacobianMatching()(*both(*nets, given), LABELS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = jacobian.JacobianMatching()(*both(*nets, given), LABELS)
    value.backward()
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=0.05)
    assert nets[0][0].weight.grad.abs().sum() > 0
    assert nets[1][0].weight.grad is None


def test_nan_in_a_gradient_is_not_passed_over():
    student, teacher = Smooth(1), Smooth(2)
    with torch.no_grad():
        student.layers[1].weight[0, 0] = float("nan")
    assert torch.isnan(jacobian.JacobianMatching()(*both(student, teacher), LABELS))


def test_images_without_a_gradient_are_refused():
    student, teacher = Smooth(1), Smooth(2)
    loss = jacobian.JacobianMatching()
    good, also = both(student, teacher)
    message = "jacobian: expected images that need a gradient and logits"
    with pytest.raises(UsageError, match=rf"{message}.*; got no images and logits with a gradient"):
        loss(Outputs(good.logits), also, LABELS)
    with pytest.raises(UsageError, match=rf"{message}.* with a gradient and logits without a"):
        loss(good, Outputs(also.logits.detach(), images=also.images), LABELS)
    with torch.no_grad(), pytest.raises(UsageError, match=message):
        loss(*both(student, teacher), LABELS)
    with pytest.raises(UsageError, match="got logits that do not depend on them"):
        loss(Outputs(good.logits, images=images()), also, LABELS)
    other = torch.randn(2, 3, 3, 3)
    with pytest.raises(
        UsageError, match=r"images of one size .* \(2, 3, 2, 2\) and \(2, 3, 3, 3\)"
    ):
        jacobian.jacobian_loss(images(), other)


def test_soft_targets_are_part_of_the_method():
    arguments = jacobian.METHOD.arguments({})
    plan = jacobian.METHOD.plan(Setting((), (), arguments))
    assert [term.name for term in plan.terms] == ["jacobian", "jacobian.kd"]
    assert "no published one is known" in plan.notes[0]
    alone = jacobian.METHOD.plan(Setting((), (), {**arguments, "kd_weight": 0.0}))
    assert [term.name for term in alone.terms] == ["jacobian"]
    assert alone.ce_weight == 0.1
    assert "keeps its weight of 0.1" in alone.notes[1]

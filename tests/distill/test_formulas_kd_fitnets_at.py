"""Soft targets, FitNets and attention transfer against their formulas, in loops over numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from natstats.distill.losses import at, fitnets, kd
from natstats.distill.losses.connectors import (
    hint_regressor,
    resizing_regressor,
)
from natstats.distill.method import Ramp
from natstats.errors import UsageError
from tests.distill.loss_inputs import (
    LABELS,
    attention,
    close,
    maps,
    outputs,
    positions,
    setting,
)

# Soft targets


def soft_targets(student, teacher, temperature):
    total = 0.0
    for one, other in zip(student.tolist(), teacher.tolist(), strict=True):
        p = [math.exp(z / temperature) for z in other]
        q = [math.exp(z / temperature) for z in one]
        for k in range(len(p)):
            total += p[k] / sum(p) * math.log(p[k] / sum(p) * sum(q) / q[k])
    return total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets(temperature):
    one, other = maps(5), maps(5, seed=1)
    expected = soft_targets(one, other, temperature)
    close(kd.soft_target_loss(one, other, temperature, t_squared=False), expected)
    close(kd.soft_target_loss(one, other, temperature), expected * temperature**2)


def test_soft_targets_are_cross_entropy_less_the_teachers_own():
    one, other = maps(5), maps(5, seed=1)
    p = torch.softmax(other / 4, 1)
    cross = -(p * torch.log_softmax(one / 4, 1)).sum(1).mean()
    entropy = -(p * p.log()).sum(1).mean()
    close(kd.soft_target_loss(one, other, 4.0, t_squared=False), float(cross - entropy))


def test_t_squared_keeps_the_gradient():
    """For large T the gradient is (z_S - z_T, both centred) / (N K), whatever T is."""
    other = 0.1 * maps(5, seed=1)
    norms = []
    for temperature in (4.0, 16.0):
        one = (0.1 * maps(5)).requires_grad_()
        kd.soft_target_loss(one, other, temperature).backward()
        norms.append(float(one.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_logits_of_other_classes_are_refused():
    with pytest.raises(UsageError, match=r"got \(3, 1\) of the student and \(3, 5\) of the"):
        kd.soft_target_loss(maps(1), maps(5))


# FitNets


def test_hints():
    one, other = maps(4, 5, 6), maps(4, 5, 6, seed=1)
    squared = sum(float(one[i] - other[i]) ** 2 for i in positions(one))
    close(fitnets.hint_loss(one, other), squared / 2 / (3 * 5 * 6))
    close(fitnets.hint_loss(one, other, "crd"), squared / one.numel())
    assert fitnets.hint_loss(one, one) == 0.0


def test_the_regressor_does_not_pad_and_ends_like_the_teacher():
    activation = nn.LeakyReLU(0.3, inplace=True)
    record = activation.register_forward_hook(lambda *_: pytest.fail("the hook of a tap fired"))
    plan = fitnets.METHOD.plan(setting(fitnets.METHOD, [(4, 8, 9)], [(6, 5, 9, None, activation)]))
    (term,) = plan.before[0].terms
    assert plan.before[0].trains == "lower"
    regressor = term.loss.regressor
    assert regressor[0].kernel_size == (4, 1)
    assert regressor[1].negative_slope == 0.3
    assert not regressor[1].inplace
    assert activation.inplace
    assert regressor(maps(4, 8, 9)).shape == (3, 6, 5, 9)
    record.remove()
    # What is minimised in the main stage trains no connector.
    assert not list(plan.terms[0].loss.parameters())
    assert plan.ce_weight == 1.0
    assert not plan.terms[0].loss.t_squared


def test_the_weight_of_soft_targets_falls_as_in_the_public_code():
    plan = fitnets.METHOD.plan(setting(fitnets.METHOD, [(4, 8, 8)], [(4, 8, 8)]))
    ramp = plan.terms[0].weight
    assert isinstance(ramp, Ramp)
    assert ramp(5 / 288) == 4.0
    # Epoch 288 of a line from (5, 4) to (400, 1).
    assert ramp(1.0) == pytest.approx(4 - 3 * 283 / 395)
    assert any("no activation is known at t0" in note for note in plan.notes)


def test_a_student_smaller_than_the_hint_is_refused():
    with pytest.raises(UsageError, match="s0 with 4 x 8 and t0 with 8 x 8 pixels"):
        fitnets.METHOD.plan(setting(fitnets.METHOD, [(4, 4, 8)], [(4, 8, 8)]))


@pytest.mark.parametrize(
    ("student", "kind", "kernel"),
    [
        ((4, 8, 8), nn.Conv2d, (3, 3)),
        ((4, 2, 2), nn.ConvTranspose2d, (4, 4)),
        ((4, 4, 4), nn.Conv2d, (1, 1)),
        ((4, 7, 5), nn.Conv2d, (4, 2)),
    ],
)
def test_the_regressor_of_one_stage_takes_other_sizes(student, kind, kernel):
    given = setting(fitnets.METHOD, [student], [(6, 4, 4)], schedule="crd")
    plan = fitnets.METHOD.plan(given)
    (term,) = plan.terms
    assert isinstance(term.loss.regressor[0], kind)
    assert term.loss.regressor[0].kernel_size == kernel
    assert term.loss.regressor(maps(*student)).shape == (3, 6, 4, 4)
    assert (term.weight, plan.before, plan.ce_weight) == (100.0, (), None)


def test_a_size_without_a_regressor_is_refused():
    with pytest.raises(UsageError, match="fitnets: expected .* s0 with 3 x 3 and t0 with 4 x 4"):
        fitnets.METHOD.plan(setting(fitnets.METHOD, [(4, 3, 3)], [(6, 4, 4)], schedule="crd"))
    with pytest.raises(UsageError, match="hint_regressor: expected .* 3 x 3 and 4 x 4"):
        hint_regressor((4, 3, 3), (6, 4, 4))
    with pytest.raises(UsageError, match="resizing_regressor: expected .* 3 x 3 and 4 x 4"):
        resizing_regressor((4, 3, 3), (6, 4, 4))


def test_a_regressor_that_gives_another_shape_is_named():
    with pytest.raises(UsageError, match=r"at tap 0; got \(3, 2, 4, 4\) .* \(3, 5, 4, 4\)"):
        fitnets.HintLoss(nn.Identity())(outputs(maps(2, 4, 4)), outputs(maps(5, 4, 4)), LABELS)


# Attention transfer


def test_attention():
    one, other = maps(4, 5, 6), maps(7, 5, 6, seed=1)
    distances = [((attention(one[n]) - attention(other[n])) ** 2).sum() for n in range(3)]
    close(at.attention_loss(one, other), sum(distances) / (3 * 5 * 6))
    close(at.attention_loss(one, other, "paper"), sum(map(math.sqrt, distances)) / 2 / 3)
    both = outputs(one, other), outputs(other, one)
    close(at.AttentionTransfer()(*both, LABELS), 2 * sum(distances) / (3 * 5 * 6))


def test_attention_where_one_map_is_larger():
    one, other = maps(4, 3, 6), maps(7, 6, 3, seed=1)
    small = torch.zeros(3, 4, 3, 3)
    for n, c, y, x in positions(small):
        small[n, c, y, x] = (one[n, c, y, 2 * x] + one[n, c, y, 2 * x + 1]) / 2
    large = torch.zeros(3, 7, 3, 3)
    for n, c, y, x in positions(large):
        large[n, c, y, x] = (other[n, c, 2 * y, x] + other[n, c, 2 * y + 1, x]) / 2
    close(at.attention_loss(one, other), float(at.attention_loss(small, large)))


@pytest.mark.parametrize("form", ["code", "paper"])
def test_attention_has_no_scale_and_no_order_of_channels(form):
    one, other = maps(4, 5, 6), maps(7, 5, 6, seed=1)
    value = at.attention_loss(one, other, form)
    for factor in (1e-3, 1e3):
        torch.testing.assert_close(at.attention_loss(factor * one, other, form), value)
        torch.testing.assert_close(at.attention_loss(one, factor * other, form), value)
    torch.testing.assert_close(at.attention_loss(one[:, [2, 0, 3, 1]], other, form), value)
    assert at.attention_loss(one, one, form) == 0.0
    # |q_S - q_T|^2 is at most 2, as neither has a negative element.
    assert value * (30 if form == "code" else 1) <= 2


@pytest.mark.parametrize("form", ["code", "paper"])
def test_attention_of_a_map_of_zeros_is_finite(form):
    zeros = torch.zeros(3, 4, 5, 6, requires_grad=True)
    value = at.attention_loss(zeros, maps(4, 5, 6), form)
    value.backward()
    close(value, 1 / 30 if form == "code" else 0.5)
    assert torch.isfinite(zeros.grad).all()


def test_the_forms_of_attention_have_their_own_weights():
    taps = [(4, 5, 6)], [(7, 5, 6)]
    assert at.METHOD.plan(setting(at.METHOD, *taps)).terms[0].weight == 1000.0
    plan = at.METHOD.plan(setting(at.METHOD, *taps, form="paper"))
    assert plan.terms[0].weight == 0.1
    assert "form=paper" in plan.notes[0]


def test_the_weight_of_the_papers_attention_follows_the_map():
    """1000 / (128 H W), where the code has 1000 times a mean over the batch and H W pixels."""
    sides = (8, 16, 32)
    taps = [(4, side, side) for side in sides], [(7, 2 * side, side) for side in sides]
    given = setting(at.METHOD, *taps, form="paper")
    (term,) = at.METHOD.plan(given).terms
    ours, theirs = ([maps(*shape, seed=n) for n, shape in enumerate(shapes)] for shapes in taps)
    expected = 0.0
    for side, one, other in zip(sides, ours, theirs, strict=True):
        expected += 1000 / (128 * side**2) * float(at.attention_loss(one, other, "paper"))
    value = term.weight * term.loss(outputs(*ours), outputs(*theirs), LABELS)
    close(value, expected)
    assert "which is 0.122, 0.0305, 0.00763" in at.METHOD.plan(given).notes[0]
    # As natstats had it before 0.9: the same for all maps.
    given = setting(at.METHOD, *taps, form="paper", paper_scale="fixed")
    (term,) = at.METHOD.plan(given).terms
    expected = sum(
        float(at.attention_loss(*pair, "paper")) for pair in zip(ours, theirs, strict=True)
    )
    close(term.loss(outputs(*ours), outputs(*theirs), LABELS), expected)
    with pytest.raises(UsageError, match=r"at\.paper_scale: expected one of map, fixed; got 'no'"):
        at.METHOD.plan(setting(at.METHOD, *taps, paper_scale="no"))
    with pytest.raises(UsageError, match="at: expected 2 maps of student and teacher each; got 3"):
        at.AttentionTransfer("paper", (1.0, 2.0))(outputs(*ours), outputs(*theirs), LABELS)

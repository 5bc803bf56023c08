"""Each loss against its formula, in loops over numbers, and the properties that follow from it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from natstats.distill.losses import ab, at, fitnets, fsp, ft, kd, ofd
from natstats.distill.losses.connectors import (
    Paraphraser,
    hint_regressor,
    projection,
    resizing_regressor,
    translator,
)
from natstats.distill.losses.maps import pooled
from natstats.distill.method import Outputs, Ramp, Setting, TapPoint
from natstats.errors import UsageError

LABELS = torch.tensor([0, 1, 2])
LOGITS = torch.zeros(3, 4)


def maps(*shape, seed=0):
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))


def positions(array):
    return itertools.product(*(range(side) for side in array.shape))


def outputs(*given):
    return Outputs(LOGITS, tuple(given))


def close(value, expected):
    assert float(value.detach()) == pytest.approx(expected, rel=2e-5)


def setting(method, student, teacher, **arguments):
    """Student and teacher as (C, H, W, ...) each."""
    taps = [
        tuple(
            TapPoint(f"{who}{index}", *shape[:3], *shape[3:]) for index, shape in enumerate(shapes)
        )
        for who, shapes in (("s", student), ("t", teacher))
    ]
    return Setting(*taps, method.arguments(arguments))


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


def attention(image):
    """q of one image, (H, W), from its maps (C, H, W)."""
    H, W = image.shape[1:]
    A = np.zeros((H, W))
    for c, y, x in positions(image):
        A[y, x] += float(image[c, y, x]) ** 2
    return A / math.sqrt(sum(A[y, x] ** 2 for y in range(H) for x in range(W)))


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


# FSP


def flow(first, last):
    m, n = first.shape[0], last.shape[0]
    H, W = first.shape[1:]
    G = np.zeros((m, n))
    for i, j, y, x in itertools.product(range(m), range(n), range(H), range(W)):
        G[i, j] += float(first[i, y, x] * last[j, y, x]) / (H * W)
    return G


def test_flow():
    first, last, first_teacher, last_teacher = (
        maps(c, 4, 5, seed=c + s) for s, c in ((0, 3), (0, 2), (9, 3), (9, 2))
    )
    squared = sum(
        ((flow(first[n], last[n]) - flow(first_teacher[n], last_teacher[n])) ** 2).sum()
        for n in range(3)
    )
    both = outputs(first, last), outputs(first_teacher, last_teacher)
    close(fsp.FlowMatching()(*both, LABELS), squared / 3)
    close(fsp.FlowMatching("crd")(*both, LABELS), squared / (3 * 3 * 2))
    assert fsp.FlowMatching()(both[0], both[0], LABELS) == 0.0
    twice = [outputs(*(each.maps * 2)) for each in both]
    close(fsp.FlowMatching()(*twice, LABELS), 2 * squared / 3)


def test_flow_takes_maxima_where_sizes_differ():
    first, last = maps(3, 4, 6), maps(2, 2, 3, seed=1)
    small = torch.zeros(3, 3, 2, 3)
    for n, c, y, x in positions(small):
        small[n, c, y, x] = first[n, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max()
    torch.testing.assert_close(fsp.flow_matrix(first, last), fsp.flow_matrix(small, last))
    averaged = first.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5))
    torch.testing.assert_close(
        fsp.flow_matrix(first, last, "average"), fsp.flow_matrix(averaged, last)
    )


def test_flow_knows_no_order_and_grows_with_the_fourth_power():
    given = [maps(c, 4, 4, seed=s) for s, c in enumerate((3, 2, 3, 2))]
    value = fsp.FlowMatching()(outputs(*given[:2]), outputs(*given[2:]), LABELS)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = [each.flatten(2)[..., order].unflatten(2, (4, 4)) for each in given[:2]]
    again = fsp.FlowMatching()(outputs(*moved), outputs(*given[2:]), LABELS)
    torch.testing.assert_close(again, value)
    scaled = [2.0 * each for each in given]
    again = fsp.FlowMatching()(outputs(*scaled[:2]), outputs(*scaled[2:]), LABELS)
    torch.testing.assert_close(again, 16.0 * value)


def test_flow_refuses_unequal_channels_and_half_sections():
    taps = [(4, 8, 8), (4, 8, 8)], [(4, 8, 8), (6, 8, 8)]
    with pytest.raises(UsageError, match=r"fsp: expected equal .*; got s1 \(4\) and t1 \(6\)$"):
        fsp.METHOD.plan(setting(fsp.METHOD, *taps))
    with pytest.raises(UsageError, match=r"got flow matrices of 4 x 4 .* and 4 x 6"):
        fsp.FlowMatching()(
            outputs(maps(4, 2, 2), maps(4, 2, 2)), outputs(maps(4, 2, 2), maps(6, 2, 2)), LABELS
        )
    with pytest.raises(UsageError, match="fsp: expected first and last map .*; got 1 maps"):
        fsp.FlowMatching()(outputs(maps(4, 2, 2)), outputs(maps(4, 2, 2)), LABELS)


def test_flow_is_matched_before_and_not_in_the_main_stage():
    plan = fsp.METHOD.plan(setting(fsp.METHOD, *([(4, 8, 8), (4, 8, 8)],) * 2))
    assert plan.terms == ()
    (stage,) = plan.before
    assert (stage.trains, stage.learning_rate) == ("student", 0.01)


# Factor transfer


def test_factors():
    one, other = maps(4, 2, 3), maps(4, 2, 3, seed=1)
    total = 0.0
    for n in range(3):
        norms = [math.sqrt(sum(float(v) ** 2 for v in each[n].flatten())) for each in (one, other)]
        for index in positions(one[n]):
            total += abs(float(one[n][index]) / norms[0] - float(other[n][index]) / norms[1])
    close(ft.factor_loss(one, other), total / (3 * 4 * 2 * 3))
    total = sum(np.abs(attention(one[n]) - attention(other[n])).sum() for n in range(3))
    close(ft.factor_loss(one, other, "crd"), total / (3 * 2 * 3))


def test_factors_have_no_scale_but_an_order_of_channels():
    one, other = maps(4, 2, 3), maps(4, 2, 3, seed=1)
    value = ft.factor_loss(one, other)
    torch.testing.assert_close(ft.factor_loss(9.0 * one, 0.1 * other), value)
    order = [1, 2, 3, 0]
    assert ft.factor_loss(one, one[:, order]) > 0.01
    # The form of the benchmark does not see the channels, as the reference measured.
    assert ft.factor_loss(one, one[:, order], "crd") < 1e-6


def test_reconstruction():
    one, other = maps(4, 2, 3), maps(4, 2, 3, seed=1)
    differences = [float(one[i] - other[i]) for i in positions(one)]
    close(ft.reconstruction_loss(one, other), sum(map(abs, differences)) / len(differences))
    squared = sum(d * d for d in differences) / len(differences)
    close(ft.reconstruction_loss(one, other, "paper"), squared)


def test_the_paraphraser_is_trained_before_and_kept_after():
    plan = ft.METHOD.plan(setting(ft.METHOD, [(4, 4, 4)], [(6, 8, 8)]))
    before, (term,) = plan.before[0], plan.terms
    assert before.trains == "losses"
    paraphraser = before.terms[0].loss.paraphraser
    assert paraphraser.factors == 3
    frozen = set(paraphraser.parameters())
    assert frozen == set(before.terms[0].loss.parameters())
    assert not frozen & set(term.loss.parameters())
    assert not any("paraphraser" in name for name in term.loss.state_dict())
    student = outputs(maps(4, 4, 4).requires_grad_())
    # The teacher's factor is twice as large, and pooled.
    term.loss(student, outputs(maps(6, 8, 8)), LABELS).backward()
    assert all(parameter.grad is None for parameter in frozen)
    assert student.maps[0].grad.abs().sum() > 0
    # It is the same one: what the first stage changes, the main stage sees.
    value = term.loss(student, outputs(maps(6, 8, 8)), LABELS)
    with torch.no_grad():
        for parameter in frozen:
            parameter.copy_(torch.randn_like(parameter))
    assert term.loss(student, outputs(maps(6, 8, 8)), LABELS) != value


def test_the_layers_of_factor_transfer():
    def channels(layers):
        return [(m.in_channels, m.out_channels) for m in layers if hasattr(m, "in_channels")]

    paraphraser = Paraphraser(8, rate=0.75)
    assert channels(paraphraser.encoder) == [(8, 8), (8, 6), (6, 6)]
    assert channels(paraphraser.decoder) == [(6, 6), (6, 8), (8, 8)]
    assert channels(translator(4, 6)) == [(4, 4), (4, 6), (6, 6)]
    assert Paraphraser(1).factors == 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in paraphraser.modules())
    with pytest.raises(UsageError, match=r"ft: expected maps of one shape .* 5, .* 6, "):
        loss = ft.FactorTransfer(paraphraser, translator(4, 5))
        loss(outputs(maps(4, 4, 4)), outputs(maps(8, 4, 4)), LABELS)


# Activation boundaries


def boundaries(student, teacher, mu):
    total = 0.0
    for index in positions(student):
        s, t = float(student[index]), float(teacher[index])
        if t > 0 and s <= mu:
            total += (s - mu) ** 2
        if t <= 0 and s > -mu:
            total += (s + mu) ** 2
    return total / len(student)


@pytest.mark.parametrize("margin", [0.5, 1.0])
def test_boundaries(margin):
    one, other = 2.0 * maps(4, 5, 6), maps(4, 5, 6, seed=1)
    close(ab.boundary_loss(one, other, margin), boundaries(one, other, margin))


def test_boundaries_take_of_the_teacher_its_sign_only():
    one, other = maps(4, 5, 6), maps(4, 5, 6, seed=1)
    value = ab.boundary_loss(one, other)
    assert torch.equal(ab.boundary_loss(one, 77.0 * other), value)
    assert torch.equal(ab.boundary_loss(one, other.relu()), value)


def test_boundaries_are_zero_only_beyond_the_margin():
    other = maps(4, 5, 6)
    beyond = 1.01 * other.sign()
    assert ab.boundary_loss(beyond, other) == 0.0
    beyond[1, 2, 3, 4] *= 0.9
    assert ab.boundary_loss(beyond, other) > 0.0


@pytest.mark.parametrize(
    ("s", "t", "slope"), [(0.5, 1.0, -1.0), (2.0, 1.0, 0.0), (0.5, -1.0, 3.0), (-2.0, 0.0, 0.0)]
)
def test_the_slope_of_boundaries(s, t, slope):
    one = torch.full((1, 1, 1, 1), s, requires_grad=True)
    ab.boundary_loss(one, torch.full((1, 1, 1, 1), t)).backward()
    assert one.grad.item() == slope


def test_deeper_boundaries_weigh_more():
    given = [maps(2, 4, 4, seed=seed) for seed in range(6)]
    both = outputs(*given[:3]), outputs(*given[3:])
    value = ab.ActivationBoundaries([nn.Identity()] * 3)(*both, LABELS)
    one, two, three = (boundaries(given[i], given[i + 3], 1.0) for i in range(3))
    close(value, one / 4 + two / 2 + three)


def test_boundaries_refuse_a_student_after_the_relu():
    both = outputs(maps(2, 4, 4), maps(2, 4, 4).relu()), outputs(*[maps(2, 4, 4)] * 2)
    with pytest.raises(UsageError, match=r"ab: expected a map of the student .* at tap 1; got one"):
        ab.ActivationBoundaries([nn.Identity()] * 2)(*both, LABELS)


def test_the_plan_of_boundaries():
    taps = [(4, 8, 8), (4, 4, 4)], [(4, 8, 8), (8, 4, 4)]
    plan = ab.METHOD.plan(setting(ab.METHOD, *taps))
    (term,) = plan.before[0].terms
    assert isinstance(term.loss.connectors[0], nn.Identity)
    assert isinstance(term.loss.connectors[1], nn.Sequential)
    assert term.weight == pytest.approx(3 / 1000)
    assert (plan.ce_weight, plan.terms[0].loss.t_squared) == (0.0, False)
    assert plan.terms[0].loss.temperature == 3.0
    plan = ab.METHOD.plan(setting(ab.METHOD, *taps, form="crd"))
    assert (plan.ce_weight, plan.terms, plan.before[0].schedule) == (None, (), "constant")


@pytest.mark.parametrize("module", [ab, ofd])
def test_maps_of_other_sizes_are_refused(module):
    given = setting(module.METHOD, [(4, 8, 8), (4, 8, 4)], [(4, 8, 8), (8, 4, 4)])
    with pytest.raises(UsageError, match=r"got s1 with 8 x 4 pixels .* and t1 with 4 x 4 pixels"):
        module.METHOD.plan(given)


def test_a_projection_keeps_the_size_of_its_answers():
    torch.manual_seed(0)
    convolution = projection(300, 400)[0]
    assert convolution.bias is None
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)


# Overhaul


def overhaul(student, teacher, margin):
    total = 0.0
    for n, c, y, x in positions(student):
        s, t = float(student[n, c, y, x]), max(float(teacher[n, c, y, x]), float(margin[c]))
        if not s <= t <= 0:
            total += (s - t) ** 2
    return total / len(student)


MARGIN = torch.tensor([-0.2, -1.0, -3.0, 0.0])


def test_partial_distance():
    one, other = 2.0 * maps(4, 5, 6), maps(4, 5, 6, seed=1)
    close(ofd.partial_distance(one, other, MARGIN), overhaul(one, other, MARGIN))


def test_partial_distance_leaves_alone_what_is_off():
    other = -maps(4, 5, 6).abs()
    below = torch.maximum(other, MARGIN[:, None, None]) - maps(4, 5, 6, seed=1).abs()
    assert ofd.partial_distance(below, other, MARGIN) == 0.0
    assert ofd.partial_distance(other.abs(), other.abs(), MARGIN) == 0.0
    assert ofd.partial_distance(-below, other, MARGIN) > 0.0


def test_deeper_partial_distances_weigh_more():
    given = [maps(4, 4, 4, seed=seed) for seed in range(6)]
    loss = ofd.FeatureOverhaul([nn.Identity()] * 3, [MARGIN] * 3)
    value = loss(outputs(*given[:3]), outputs(*given[3:]), LABELS)
    one, two, three = (overhaul(given[i], given[i + 3], MARGIN) for i in range(3))
    close(value, one / 4 + two / 2 + three)


@pytest.mark.parametrize("mu", [-3.0, -0.5, 0.0, 0.7, 3.5])
@pytest.mark.parametrize("sigma", [0.2, 1.0, 2.5])
def test_the_margin_is_the_mean_of_the_negative_part(mu, sigma):
    normal = stats.norm(mu, sigma)
    low = min(0.0, mu) - 10 * sigma
    # Scaled, so that the integrals do not vanish where the mean lies many deviations above 0.
    top = normal.logpdf(min(0.0, mu))
    weight = integrate.quad(lambda t: math.exp(normal.logpdf(t) - top), low, 0.0, limit=200)[0]
    moment = integrate.quad(lambda t: t * math.exp(normal.logpdf(t) - top), low, 0.0, limit=200)[0]
    value = ofd.negative_mean(torch.tensor([mu]).double(), torch.tensor([sigma]).double())
    assert value.item() == pytest.approx(moment / weight, rel=1e-6)


def test_the_margin_equals_what_draws_give():
    draws = np.random.default_rng(0).normal(0.3, 1.2, 200_000)
    expected = draws[draws < 0].mean()
    value = ofd.negative_mean(torch.tensor([0.3]), torch.tensor([1.2]))
    assert value.item() == pytest.approx(expected, abs=4 * 1.2 / math.sqrt(200_000 * 0.4))


def test_the_margin_far_above_zero():
    """-sigma^2 / mu in the limit, where the authors' program falls back to -3 sigma."""
    mean, deviation = torch.tensor([1e3, 50.0, 3.5]), torch.tensor([1.0, 0.5, 1.0])
    exact = ofd.negative_mean(mean, deviation)
    assert exact[0].item() == pytest.approx(-1e-3, rel=1e-4)
    assert exact[1].item() == pytest.approx(-0.005, rel=1e-3)
    # Simpson's rule on t * exp(-(t - 3.5)^2 / 2 + 3.5^2 / 2), over the same without t.
    t = np.linspace(-12.0, 0.0, 100_001)
    density = np.exp(-(t**2) / 2 + 3.5 * t)
    truth = integrate.simpson(t * density, x=t) / integrate.simpson(density, x=t)
    assert exact[2].item() == pytest.approx(truth, rel=1e-5)
    code = ofd.negative_mean(mean, deviation, fallback=True)
    torch.testing.assert_close(code, -3.0 * deviation)
    # Phi(-3) is 0.00135, above the limit.
    near = torch.tensor([3.0]), torch.tensor([1.0])
    assert torch.equal(ofd.negative_mean(*near, fallback=True), ofd.negative_mean(*near))


def test_the_margin_of_channels_without_spread():
    value = ofd.negative_mean(torch.tensor([2.0, -2.0, 0.0]), torch.zeros(3))
    assert value.tolist() == [0.0, -2.0, 0.0]
    wide = ofd.negative_mean(torch.tensor([-1e6, 1e30]), torch.tensor([1e-3, 1e-30]))
    torch.testing.assert_close(wide, torch.tensor([-1e6, 0.0]))


def batch_norm(channels):
    layer = nn.BatchNorm2d(channels)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    return layer


def test_margins_come_from_the_teachers_batch_norm():
    torch.manual_seed(0)
    layer = batch_norm(6)
    given = [(4, 8, 8)], [(6, 8, 8, layer)]
    plan = ofd.METHOD.plan(setting(ofd.METHOD, *given))
    (term,) = plan.terms
    expected = ofd.negative_mean(layer.bias.detach(), layer.weight.detach().abs())
    assert torch.equal(term.loss.margin(0), expected)
    assert not term.loss.margin(0).requires_grad
    with torch.no_grad():
        layer.bias.add_(5.0)
    assert torch.equal(term.loss.margin(0), expected)
    assert "batch statistics" in plan.notes[0]
    assert ofd.METHOD.teacher_bn == ofd.METHOD.defaults["teacher_bn"] == "batch"


@pytest.mark.parametrize(
    "layer", [None, nn.BatchNorm2d(6, affine=False), batch_norm(5), nn.Identity()]
)
def test_without_batch_norm_margins_are_measured_and_noted(layer):
    plan = ofd.METHOD.plan(setting(ofd.METHOD, [(4, 8, 8)], [(6, 8, 8, layer)]))
    assert plan.terms[0].loss.measured == (True,)
    assert any("at t0: its margin is measured" in note for note in plan.notes)


def test_measured_margins_are_means_of_negatives_and_stay():
    batches = [maps(2, 4, 4, seed=seed) for seed in range(4)]
    for batch in batches:
        batch[:, 1] = batch[:, 1].abs()
    loss = ofd.FeatureOverhaul([nn.Identity()], [2], measured_batches=2)
    for count, batch in enumerate(batches, 1):
        loss(outputs(batch), outputs(batch), LABELS)
        seen = torch.cat(batches[: min(count, 2)])[:, 0]
        close(loss.margin(0)[0], float(seen[seen < 0].mean()))
        # Nothing below 0: the margin is 0.
        assert loss.margin(0)[1] == 0.0
    loss = ofd.FeatureOverhaul([nn.Identity()], [2]).eval()
    loss(outputs(batches[0]), outputs(batches[0]), LABELS)
    assert loss.n_batches == 0


def test_a_state_from_before_is_measured_on():
    batches = [maps(2, 4, 4, seed=seed) for seed in range(3)]
    loss = ofd.FeatureOverhaul([nn.Identity()], [2], measured_batches=2)
    loss(outputs(batches[0]), outputs(batches[0]), LABELS)
    state = {name: value.clone() for name, value in loss.state_dict().items()}
    for batch in batches[1:]:
        loss(outputs(batch), outputs(batch), LABELS)
    margin = loss.margin(0)
    loss.load_state_dict(state)
    assert not torch.equal(loss.margin(0), margin)
    loss(outputs(batches[1]), outputs(batches[1]), LABELS)
    assert torch.equal(loss.margin(0), margin)
    assert loss.n_batches == 2


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_overhaul_refuses_maps_after_the_relu(whose):
    both = [outputs(maps(4, 4, 4)), outputs(maps(4, 4, 4))]
    both[whose == "teacher"] = outputs(maps(4, 4, 4).relu())
    with pytest.raises(UsageError, match=rf"ofd: expected a map of the {whose} from before"):
        ofd.FeatureOverhaul([nn.Identity()], [MARGIN])(*both, LABELS)


def test_pooling_wants_a_known_way():
    with pytest.raises(UsageError, match="how: expected one of average, max; got 'mean'"):
        pooled(maps(1, 2, 2), maps(1, 4, 4), "mean")

"""Activation boundaries and the overhaul against their formulas, in loops over numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from natstats.distill.losses import ab, ofd
from natstats.distill.losses.connectors import (
    projection,
)
from natstats.errors import UsageError
from tests.distill.loss_inputs import (
    LABELS,
    close,
    maps,
    outputs,
    positions,
    setting,
)

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

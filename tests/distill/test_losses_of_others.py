"""Laws of the newer baselines: what they are blind to, what they refuse, and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from natstats.distill.losses import dist, dkd, ffl, freekd, kd, reviewkd, spectralkd
from natstats.distill.losses.choices import rising_weight
from natstats.distill.losses.logits import standardised
from natstats.distill.method import Outputs, Ramp, Setting, TapPoint
from natstats.errors import UsageError

LABELS = torch.tensor([0, 5, 2, 3])


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def out(*maps, logits=None):
    return Outputs(torch.zeros(len(maps[0]), 3) if logits is None else logits, maps)


def points(*shapes, activation=None):
    return [TapPoint(f"t{n}", *shape, None, activation) for n, shape in enumerate(shapes)]


ON_LOGITS = {
    "dkd": lambda a, b: dkd.decoupled_loss(a, b, LABELS),
    "dkd-standardised": lambda a, b: dkd.decoupled_loss(a, b, LABELS, standardise=True),
    "kd-standardised": lambda a, b: kd.soft_target_loss(a, b, standardise=True),
    "dist": dist.correlation_loss,
}


@pytest.mark.parametrize("name", list(ON_LOGITS))
def test_losses_on_logits(name):
    """Zero at equality, blind to a constant, an exact gradient to the student alone."""
    loss = ON_LOGITS[name]
    mine, theirs = 3 * noise(4, 6), 3 * noise(4, 6, seed=1)
    value = loss(mine, theirs)
    assert value > 0.01
    assert abs(loss(mine, mine)) < 1e-4  # dist: 1e-8 beside the norms
    torch.testing.assert_close(loss(mine + 7, theirs - 2), value)
    mine.requires_grad_()
    theirs.requires_grad_()
    loss(mine, theirs).backward()
    assert mine.grad.abs().sum() > 0
    assert theirs.grad is None
    assert torch.autograd.gradcheck(lambda logits: loss(logits, theirs.detach()), mine)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        half = loss(mine.detach().to(dtype), theirs.detach().to(dtype))
        assert half.dtype == torch.float32
        torch.testing.assert_close(half.double(), value, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("name", list(ON_LOGITS))
@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_logits_that_are_all_alike_or_far_apart(name, scale):
    mine = (scale * noise(4, 6)).float().requires_grad_()
    value = ON_LOGITS[name](mine, (scale * noise(4, 6, seed=1)).float())
    value.backward()
    assert value.isfinite()
    assert mine.grad.isfinite().all()


@pytest.mark.parametrize("name", list(ON_LOGITS))
def test_logits_of_other_classes_are_refused(name):
    with pytest.raises(UsageError, match=r"expected logits .* got \(4, 6\) .* \(4, 5\) of the"):
        ON_LOGITS[name](noise(4, 6), noise(4, 5))


def test_the_parts_of_dkd_make_up_soft_targets():
    """KD = T + (1 - p_t) O by image, where T is of the true class and O of the others."""
    mine, theirs = 3 * noise(4, 6), 3 * noise(4, 6, seed=1)
    for n, label in enumerate(LABELS.tolist()):
        images = mine[n : n + 1], theirs[n : n + 1]
        one = LABELS[n : n + 1]
        true = dkd.decoupled_loss(*images, one, alpha=1.0, beta=0.0)
        others = dkd.decoupled_loss(*images, one, alpha=0.0, beta=1.0)
        p = (theirs[n] / 4).softmax(0)[label]
        torch.testing.assert_close(true + (1 - p) * others, kd.soft_target_loss(*images))


def test_dkd_sees_the_true_class_apart():
    mine = 3 * noise(4, 6)
    theirs = mine.clone()
    theirs[torch.arange(4), LABELS] += 2.0
    assert dkd.decoupled_loss(mine, theirs, LABELS, alpha=0.0) < 1e-12
    assert dkd.decoupled_loss(mine, theirs, LABELS, beta=0.0) > 0.1


@pytest.mark.parametrize("labels", [torch.rand(4, 6), torch.zeros(4), torch.zeros(3).long()])
def test_dkd_needs_one_class_for_every_image(labels):
    with pytest.raises(UsageError, match=r"dkd: expected labels \(N,\), a whole number for each"):
        dkd.decoupled_loss(noise(4, 6), noise(4, 6), labels)


def test_a_single_class_is_refused():
    one = noise(4, 1)
    with pytest.raises(UsageError, match="dkd: expected two classes or more; got 1"):
        dkd.decoupled_loss(one, one, torch.zeros(4).long())
    with pytest.raises(UsageError, match="standardise: expected two classes or more; got 1"):
        kd.soft_target_loss(one, one, standardise=True)


def test_standardised_logits_have_no_scale():
    logits = noise(4, 6)
    found = standardised(logits)
    torch.testing.assert_close(found.std(1), torch.ones(4).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.mean(1), torch.zeros(4).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(standardised(5 * logits - 3), found, rtol=1e-6, atol=1e-9)
    value = kd.soft_target_loss(logits, 9 * logits, standardise=True)
    assert value < 1e-9 < kd.soft_target_loss(logits, 9 * logits)


def test_dist_asks_for_correlation_only():
    """Probabilities in a straight line of the teacher's are at distance 0."""
    theirs = noise(5, 4).softmax(1)
    mine = 0.5 * theirs + 0.125
    value = dist.correlation_loss(mine.log(), theirs.log(), temperature=1.0)
    assert abs(value) < 1e-6
    assert kd.soft_target_loss(mine.log(), theirs.log(), 1.0) > 0.01
    # In a batch of one there is no relation of images: 1, without a gradient.
    mine = noise(1, 4).requires_grad_()
    value = dist.correlation_loss(mine, noise(1, 4, seed=1), beta=0.0, temperature=1.0)
    value.backward()
    assert value.item() == pytest.approx(1.0)
    assert mine.grad.abs().max() < 1e-9


def test_the_weight_rises_and_the_notes_say_so():
    for module, share in ((dkd, 1 / 12), (reviewkd, 1 / 12)):
        taps = () if module is dkd else tuple(points((4, 8, 8)))
        plan = module.METHOD.plan(Setting(taps, taps, module.METHOD.arguments({"weight": 2.0})))
        (term,) = plan.terms
        assert isinstance(term.weight, Ramp)
        assert (term.factor(0.0), term.factor(1.0)) == (0.0, 2.0)
        assert term.factor(share / 2) == pytest.approx(1.0)
        assert plan.ce_weight == 1.0
        assert "8.33 % of the stage" in plan.notes[0]
        arguments = module.METHOD.arguments({"weight": 2.0, "warmup": 0.0})
        assert module.METHOD.plan(Setting(taps, taps, arguments)).terms[0].weight == 2.0


ON_MAPS = {
    "spectralkd": lambda mine, theirs: spectralkd.CoefficientDistance(),
    "ffl": ffl.FocalFrequency,
    "freekd": freekd.DetailDistance,
    "reviewkd": reviewkd.KnowledgeReview,
}


def made(name, mine, theirs):
    torch.manual_seed(0)
    return ON_MAPS[name](points(*mine), points(*theirs))


@pytest.mark.parametrize("connector", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", list(ON_MAPS))
def test_gradients_on_maps_in_float64(name, connector):
    loss = made(name, [(3, 8, 8)], [(4, 8, 8)]).to(connector)
    mine, theirs = noise(2, 3, 8, 8).requires_grad_(), noise(2, 4, 8, 8, seed=1)

    def distance(maps):
        return loss(out(maps), out(theirs), LABELS[:2])

    assert distance(mine).dtype == torch.float64
    if name != "ffl":  # its weights are held fixed in the gradient, and not in the value
        assert torch.autograd.gradcheck(distance, mine, fast_mode=True)
    single = made(name, [(3, 8, 8)], [(4, 8, 8)])
    value = single(out(mine.detach().float()), out(theirs.float()), LABELS[:2])
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(float(distance(mine).detach()), rel=1e-4)


@pytest.mark.parametrize("name", list(ON_MAPS))
@pytest.mark.parametrize("whose", ["student", "teacher", "both"])
def test_maps_of_zeros(name, whose):
    loss = made(name, [(3, 8, 8)], [(4, 8, 8)])
    mine, theirs = noise(2, 3, 8, 8).float(), noise(2, 4, 8, 8, seed=1).float()
    mine = (0 * mine if whose != "teacher" else mine).requires_grad_()
    theirs = 0 * theirs if whose != "student" else theirs
    value = loss(out(mine), out(theirs), LABELS[:2])
    value.backward()
    assert value.isfinite()
    assert value < 100
    assert mine.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("name", list(ON_MAPS))
@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ([(3, 8, 8)], [(7, 8, 8)]),
        ([(7, 8, 8)], [(3, 8, 8)]),
        ([(3, 8, 12), (5, 4, 6)], [(4, 16, 24), (9, 4, 6)]),
        ([(3, 9, 7)], [(4, 5, 7)]),
        ([(3, 2, 2)], [(4, 2, 2)]),
    ],
)
def test_unlike_channels_and_sizes(name, mine, theirs):
    loss = made(name, mine, theirs)
    ours = [noise(2, *shape, seed=n).float().requires_grad_() for n, shape in enumerate(mine)]
    others = [noise(2, *shape, seed=9 + n).float() for n, shape in enumerate(theirs)]
    value = loss(out(*ours), out(*others), LABELS[:2])
    value.backward()
    assert value.isfinite()
    assert all(maps.grad.abs().sum() > 0 for maps in ours)


def test_spectralkd_is_the_distance_of_maps_but_for_columns():
    """By Parseval's theorem, where the half plane counts the columns inside only once."""
    mine, theirs = noise(2, 3, 6, 6), noise(2, 3, 6, 6, seed=1)
    plane = torch.fft.fft2(mine - theirs, norm="ortho")[..., :4]
    expected = (plane.abs().square().sum() / plane.numel() / 2).item()
    assert spectralkd.coefficient_loss(mine, theirs).item() == pytest.approx(expected)
    # Neighbouring channels are averaged, of whichever has more.
    wide = torch.stack([mine - 1, mine + 1], dim=2).flatten(1, 2)
    assert spectralkd.coefficient_loss(wide, mine) < 1e-24
    assert spectralkd.coefficient_loss(mine, wide) < 1e-24


def test_spectralkd_without_soft_targets():
    taps = tuple(points((4, 8, 8)))
    plan = spectralkd.METHOD.plan(Setting(taps, taps, spectralkd.METHOD.arguments({})))
    assert [(term.name, term.weight) for term in plan.terms] == [
        ("spectralkd", 0.2),
        ("spectralkd.kd", 0.9),
    ]
    assert plan.ce_weight == 0.1
    assert plan.terms[1].loss.temperature == 1.0
    arguments = spectralkd.METHOD.arguments({"kd_weight": 0.0, "ce_weight": 1.0})
    plan = spectralkd.METHOD.plan(Setting(taps, taps, arguments))
    assert [term.name for term in plan.terms] == ["spectralkd"]
    assert plan.ce_weight == 1.0


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 9)])
def test_focal_loss_without_focus_is_the_squared_distance(size):
    mine, theirs = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    expected = (mine - theirs).square().mean()
    torch.testing.assert_close(ffl.focal_loss(mine, theirs, 0.0), expected)
    assert ffl.focal_loss(mine, theirs) < expected
    assert ffl.focal_loss(mine, mine) == 0


def test_focal_loss_weights_the_largest_difference_by_one():
    mine = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    wave = torch.cos(2 * torch.pi * torch.arange(8) / 8).double()[:, None] * torch.ones(8)
    torch.testing.assert_close(ffl.focal_loss(mine, wave[None, None]), wave.square().mean())
    spoiled = mine.clone()
    spoiled[0, 0, 0, 0] = torch.nan
    assert ffl.focal_loss(spoiled, mine).isnan()


def test_haar_details_keep_the_power():
    maps = noise(2, 3, 16, 8)
    levels = freekd.haar_details(maps)
    mean = maps.unfold(2, 8, 8).unfold(3, 8, 8).sum((-1, -2)) / 8  # what is left after 3 levels
    power = sum(level.square().sum() for level in levels) + mean.square().sum()
    torch.testing.assert_close(power, maps.square().sum())
    assert all(level.abs().max() < 1e-12 for level in freekd.haar_details(maps * 0 + 3))
    block = torch.tensor([[[[4.0, 2.0], [1.0, -3.0]]]])
    assert freekd.haar_details(block, 1)[0].flatten().tolist() == [4.0, 3.0, -1.0]


def test_masks_are_close_to_one_half_and_kept():
    loss = made("freekd", [(4, 8, 8)], [(4, 8, 8)])
    assert loss.tokens_0.shape == (3, 6, 4)
    assert "tokens_0" in loss.state_dict()
    assert not any("tokens" in name for name, _ in loss.named_parameters())
    with torch.no_grad():
        loss.connectors[0].weight.copy_(torch.eye(4)[:, :, None, None])
        mine, theirs = noise(2, 4, 8, 8).float(), noise(2, 4, 8, 8, seed=1).float()
        value = loss(out(mine), out(theirs), LABELS[:2])
        plain = sum(level.abs().mean() for level in freekd.haar_details(mine - theirs)) / 2
        assert value.item() == pytest.approx(plain.item(), rel=0.02)
        assert loss(out(mine), out(mine), LABELS[:2]) == 0


def test_a_pyramid_of_a_constant_is_its_square():
    for side in (1, 2, 3, 4, 5, 8):
        maps = torch.zeros(2, 3, side, side)
        assert reviewkd.pyramid_loss(maps + 3, maps).item() == pytest.approx(9.0)


def test_the_student_of_reviewkd_is_behind_its_activation():
    torch.manual_seed(0)
    taps = points((4, 8, 8), activation=nn.ReLU(inplace=True))
    loss = reviewkd.KnowledgeReview(taps, points((6, 8, 8))).eval()
    mine, theirs = noise(2, 4, 8, 8).float(), noise(2, 6, 8, 8, seed=1).float()
    before = mine.clone()
    value = loss(out(mine), out(theirs), LABELS[:2])
    assert torch.equal(mine, before)
    torch.testing.assert_close(loss(out(mine.relu()), out(theirs), LABELS[:2]), value)
    assert loss(out(mine), out(theirs.relu()), LABELS[:2]) != value
    taps = tuple(points((4, 8, 8)))
    plan = reviewkd.METHOD.plan(Setting(taps, taps, reviewkd.METHOD.arguments({})))
    assert sum("no activation is known at t0" in note for note in plan.notes) == 2


def test_reviewkd_refuses_a_batch_of_one_and_no_pairs():
    loss = made("reviewkd", [(4, 8, 8)], [(6, 8, 8)])
    one = out(noise(1, 4, 8, 8).float()), out(noise(1, 6, 8, 8).float())
    with pytest.raises(UsageError, match="reviewkd: expected two images or more in a batch; got 1"):
        loss(*one, LABELS[:1])
    assert loss.eval()(*one, LABELS[:1]).isfinite()
    with pytest.raises(UsageError, match="reviewkd: expected one pair of taps or more; got 0"):
        reviewkd.KnowledgeReview([], [])
    with pytest.raises(UsageError, match="got 1 in the student and 2 in the teacher"):
        reviewkd.KnowledgeReview(points((4, 8, 8)), points((4, 8, 8), (4, 8, 8)))


def test_a_student_without_an_opinion_has_a_limited_gradient():
    """As a network begins whose last layer is all zeros."""

    teacher = 3 * torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
    student = torch.zeros(16, 10, requires_grad=True)
    for _ in range(50):
        (gradient,) = torch.autograd.grad(dist.correlation_loss(student, teacher), student)
        assert gradient.norm() < 1e3
        student = (student - 0.01 * gradient).detach().requires_grad_(True)
    before = dist.correlation_loss(0 * student, teacher)
    assert dist.correlation_loss(student, teacher) < 0.5 * before


@pytest.mark.parametrize("method", ["dkd", "reviewkd"])
def test_a_warm_up_is_a_share_of_its_stage(method):
    assert rising_weight(method, 2.0, 1.0)[0](0.5) == 1.0
    for warmup in (2.0, 1.01, -0.1):
        with pytest.raises(UsageError, match=f"{method}.warmup: expected a number that is at"):
            rising_weight(method, 1.0, warmup)
    point = (TapPoint("a", 4, 8, 8),)
    chosen = {"dkd": dkd, "reviewkd": reviewkd}[method].METHOD
    arguments = {**chosen.defaults, "warmup": 2.0}
    with pytest.raises(UsageError, match=f"{method}.warmup"):
        chosen.plan(Setting(point, point, arguments))


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0]])
def test_labels_of_decoupled_targets_are_classes(labels):
    logits = torch.zeros(2, 3)
    with pytest.raises(UsageError, match="dkd: expected labels from 0 to 2"):
        dkd.decoupled_loss(logits, logits, torch.tensor(labels))

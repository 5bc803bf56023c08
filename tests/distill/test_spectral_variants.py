"""Variants of the spectral terms: weighting of frequencies and layers, and two more terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natstats.distill.losses.channels import ChannelSpectra
from natstats.distill.losses.controls import common_plane
from natstats.distill.losses.likeness import Likeness, likenesses, octaves
from natstats.distill.losses.maps import layer_weights
from natstats.distill.losses.ring_comparison import RingComparison, frequency_weights
from natstats.distill.losses.spectral import (
    METHOD,
    OF_MAPS,
    RelativeDistance,
    SpectrumDistance,
)
from natstats.distill.method import Setting, TapPoint
from natstats.distill.training.stages import plan_training
from natstats.errors import UsageError
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.frequencies import rings
from tests.distill.spectral_maps import out, point

N = 5
POINTS = (TapPoint("layer", 4, 16, 16),) * 2
LABELS = torch.zeros(N, dtype=torch.long)


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def coloured(*shape, seed=0):
    """Maps that differ in power and in its fall from image to image."""
    maps = noise(*shape, seed=seed)
    share = torch.linspace(0, 1, shape[0], dtype=maps.dtype)[:, None, None, None]
    return (1 + share) * (share * maps.cumsum(-1) + (1 - share) * maps)


# Frequencies


@pytest.mark.parametrize("size", [(8, 8), (16, 16), (32, 32), (16, 24), (9, 31)])
def test_weights_of_frequencies(size):
    f = rings(*size).cycles_per_image
    octave, ring, low, high = (
        frequency_weights(f, name) for name in ("octave", "ring", "low", "high")
    )
    np.testing.assert_allclose(octave, 1 / f / np.sum(1 / f))
    np.testing.assert_allclose(ring, 1 / len(f))
    for part in (octave, ring, low, high):
        assert part.sum() == pytest.approx(1.0)
    # Low and high share the frequencies, in the proportions of octave.
    assert np.all((low > 0) != (high > 0))
    assert np.all(np.diff(np.flatnonzero(low)) == 1)
    assert low[0] > 0 < high[-1]
    assert min(np.sum(low > 0), np.sum(high > 0)) >= 2
    for part in (low, high):
        inside = part > 0
        np.testing.assert_allclose(part[inside], octave[inside] / octave[inside].sum())


def test_the_border_of_low_and_high_is_the_geometric_mean():
    f = np.arange(1.0, 17.0)
    assert np.flatnonzero(frequency_weights(f, "high"))[0] == 3  # 4 = sqrt(1 * 16)


def test_weightings_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="weighting: expected one of octave, ring, low, high; got"):
        frequency_weights(np.arange(1.0, 9.0), "middle")
    with pytest.raises(UsageError, match="four frequencies or more for low; got 3"):
        frequency_weights(np.arange(1.0, 4.0), "low")


@pytest.mark.parametrize("weighting", ["octave", "ring", "low", "high"])
@pytest.mark.parametrize("level", ["kept", "free"])
def test_spectrum_under_a_weighting_is_its_formula(weighting, level):
    mine, theirs = coloured(N, 4, 16, 16), coloured(N, 6, 16, 16, seed=1)
    w = frequency_weights(rings(16, 16).cycles_per_image, weighting)
    logs = [power_spectrum(maps, dtype=maps.dtype).log().numpy() for maps in (mine, theirs)]
    difference = logs[0] - logs[1]
    if level == "free":
        difference = difference - (difference @ w)[:, None]
    expected = np.mean(difference**2 @ w)
    loss = SpectrumDistance([point()], [point(6)], level=level, weighting=weighting)
    assert float(loss(out(mine), out(theirs), LABELS)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("make", [SpectrumDistance, ChannelSpectra, RelativeDistance])
def test_low_and_high_see_their_own_frequencies(make):
    """A change above the border is seen by high alone, whatever the term."""
    f = torch.fft.fftfreq(16, 1 / 16).abs()
    theirs = coloured(N, 4, 16, 16)
    plane = torch.fft.fft2(theirs)
    gain = 1 + torch.arange(N)[:, None, None, None] * (torch.maximum(f[:, None], f) > 6)
    mine = torch.fft.ifft2(plane * gain).real
    values = {}
    for weighting in ("low", "high"):
        loss = make([point()], [point()], weighting=weighting).double()
        for connector in getattr(loss, "connectors", []):
            with torch.no_grad():
                connector.weight.copy_(torch.eye(4)[:, :, None, None])
        values[weighting] = float(loss(out(mine), out(theirs), LABELS).detach())
    assert values["high"] > 20 * values["low"]


# Layers


def test_weights_of_layers():
    assert layer_weights("equal", 3) is None
    assert layer_weights("deep", 3) == pytest.approx((1 / 7, 2 / 7, 4 / 7))
    assert layer_weights("shallow", 3) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert layer_weights("deep", 1) == (1.0,)
    with pytest.raises(UsageError, match="layers: expected one of equal, deep, shallow; got 'all'"):
        layer_weights("all", 2)


def plan(points=POINTS, **changed):
    return METHOD.plan(Setting(points, points, METHOD.arguments(changed)))


@pytest.mark.parametrize("term", ["spectrum", "exponent", *OF_MAPS])
@pytest.mark.parametrize(
    ("layers", "weights"),
    [("equal", (0.5, 0.5)), ("deep", (1 / 3, 2 / 3)), ("shallow", (2 / 3, 1 / 3))],
)
def test_layers_are_weighted_in_every_term(term, layers, weights):
    only = {"spectrum": 0.0, "exponent": 0.0, "coherence": 0.0, term: 1.0}
    torch.manual_seed(0)
    (both,) = plan(**only, layers=layers).terms
    state = both.loss.state_dict()
    maps = [coloured(N, 4, 16, 16, seed=seed) for seed in range(4)]
    value = both.loss(out(*maps[:2]), out(*maps[2:]), LABELS)
    expected = 0.0
    for place, weight in enumerate(weights):
        (single,) = plan((point(),), **only).terms
        kept = {
            name.replace(f"connectors.{place}.", "connectors.0."): one
            for name, one in state.items()
            if f"connectors.{place}." in name
        }
        single.loss.load_state_dict(kept)
        pair = out(maps[place]), out(maps[2 + place])
        expected += weight * float(single.loss(*pair, LABELS).detach())
    assert float(value.detach()) == pytest.approx(expected, rel=1e-5)


def test_what_is_not_as_usual_is_noted():
    assert plan().notes == ()
    notes = plan(weighting="low", layers="deep").notes
    assert notes[0].startswith("spectral: weighting=low of the frequencies in spectrum, channels")
    assert notes[1] == "spectral: layers=deep, pairs halved from the last"
    with pytest.raises(UsageError, match=r"spectral\.weighting: expected one of octave, ring"):
        plan(weighting="lower")
    with pytest.raises(UsageError, match=r"spectral\.layers: expected one of equal, deep"):
        plan(layers="last")


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_the_last_layers_can_be_left_out(teacher, skipped):
    from natstats.distill.training.setup import classifier

    student = classifier("cifar_resnet8", 3, seed=0).model
    arguments = {"spectral.skip_last": skipped, "spectral.phase": 1}
    images = torch.randn(2, 3, 32, 32)
    program = plan_training("kd+spectral", arguments, student, teacher.model, images, 2)
    assert len(program.taps["spectral"]) == 3 - skipped
    names = [mine.name for mine, _ in program.taps["spectral"]]
    assert names == ["stage1.0.relu2", "stage2.0.relu2", "stage3.0.relu2"][: 3 - skipped]


@pytest.mark.slow
@pytest.mark.parametrize("skipped", [3, -1, 0.5, float("nan")])
def test_layers_that_cannot_be_left_out(teacher, skipped):
    from natstats.distill.training.setup import classifier

    student = classifier("cifar_resnet8", 3, seed=0).model
    with pytest.raises(UsageError, match=r"spectral\.skip_last: expected a whole number from 0 to"):
        plan_training(
            "spectral", {"skip_last": skipped}, student, teacher.model, torch.randn(2, 3, 32, 32), 2
        )


# Relative


def test_relative_is_its_formula():
    mine, theirs = coloured(N, 4, 16, 16), 3 * coloured(N, 6, 16, 16, seed=1)
    w = frequency_weights(rings(16, 16).cycles_per_image)
    s, t = (power_spectrum(maps, dtype=maps.dtype).log().numpy() for maps in (mine, theirs))
    s, t = s - s.mean(0), t - t.mean(0)
    expected = np.mean((s - t) ** 2, 0) / (np.mean(t**2, 0) + 0.01) @ w
    value = RelativeDistance([point()], [point(6)])(out(mine), out(theirs), LABELS)
    assert float(value) == pytest.approx(expected, rel=1e-4)


def test_relative_leaves_what_all_images_share():
    theirs = coloured(N, 4, 16, 16)
    loss = RelativeDistance([point()], [point()], weighting="ring")
    assert loss(out(7 * theirs[:, [3, 1, 0, 2]]), out(theirs), LABELS) < 1e-9
    # A student that gives every image the same spectrum is at 1, but for the constant.
    same = noise(1, 4, 16, 16).expand(N, -1, -1, -1)
    assert float(loss(out(same), out(theirs), LABELS)) == pytest.approx(1.0, abs=0.1)
    # One image has no others to be compared with.
    one = noise(1, 4, 16, 16).requires_grad_()
    value = loss(out(one), out(noise(1, 4, 16, 16, seed=1)), LABELS[:1])
    value.backward()
    assert value == 0
    assert one.grad.isfinite().all()


# Likeness


def full_plane(maps, half):
    """Coefficients (C, n) of one image below `half` cycles/image, and their radii."""
    height, width = maps.shape[1:]
    taper = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (height, width)))
    mean = (maps * taper).sum((1, 2), keepdims=True) / taper.sum()
    plane = np.fft.fft2((maps - mean) * taper, norm="ortho")
    k = [(y, x) for y in range(1 - half, half) for x in range(1 - half, half) if (y, x) != (0, 0)]
    return np.stack([plane[:, y, x] for y, x in k], axis=1), np.hypot(*np.array(k).T)


def test_likeness_is_its_formula_on_the_whole_plane():
    mine, theirs = 3 + coloured(N, 4, 16, 16), coloured(N, 6, 24, 24, seed=1)
    tables = []
    for maps in (mine, theirs):
        planes = [full_plane(image, 8) for image in maps.numpy()]
        radius = planes[0][1]
        table = np.zeros((3, N, N))
        for octave, i, j in np.ndindex(3, N, N):
            inside = (radius >= 2**octave) & (radius < min(2 ** (octave + 1), 8))
            a, b = planes[i][0][:, inside], planes[j][0][:, inside]
            size = np.sqrt(np.sum(abs(a) ** 2) * np.sum(abs(b) ** 2))
            table[octave, i, j] = np.sum(a * b.conj()).real / size
        tables.append(table)
    squared = (tables[0] - tables[1]) ** 2
    expected = squared.sum((1, 2)).mean() / (N * (N - 1))
    loss = Likeness([point()], [point(6, 24)])
    assert not list(loss.parameters())
    assert float(loss(out(mine), out(theirs), LABELS)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("side", [4, 5, 8, 16, 31])
def test_every_frequency_is_in_one_octave(side):
    order, sizes = octaves(side)
    assert len(order) == sum(sizes) == len(set(order.tolist()))
    half = side // 2
    y, x = np.mgrid[1 - half : half, 1 - half : half]
    radius = np.hypot(y, x)
    inside = (radius >= 1) & (radius < half)
    assert 2 * len(order) == inside.sum()
    assert len(sizes) == int(np.floor(np.log2(radius[inside].max()))) + 1
    assert min(sizes) > 0


def test_likeness_is_blind_to_gain_rotation_and_a_common_shift():
    maps, other = coloured(N, 4, 16, 16), coloured(N, 4, 16, 16, seed=1)
    loss = Likeness([point()], [point()])
    value = float(loss(out(maps), out(other), LABELS))
    assert value > 0.01
    turn = torch.linalg.qr(noise(4, 4))[0]
    turned = torch.einsum("dc,nchw->ndhw", turn, maps)
    gains = torch.arange(1, N + 1)[:, None, None, None]
    assert float(loss(out(5 * gains * turned), out(other), LABELS)) == pytest.approx(value)
    assert loss(out(turned), out(maps), LABELS) < 1e-12
    # Without a taper, a shift that all images share changes no likeness.
    planes = [common_plane(m, 16) for m in (maps, maps.roll((3, 5), (2, 3)))]
    torch.testing.assert_close(*(likenesses(plane, *octaves(16)) for plane in planes))
    moved = maps.clone()
    moved[0] = maps[0].roll((3, 5), (1, 2))
    assert loss(out(moved), out(maps), LABELS) > 0.001


def test_one_image_is_like_no_other():
    one = noise(1, 4, 16, 16).requires_grad_()
    value = Likeness([point()], [point()])(out(one), out(noise(1, 4, 16, 16, seed=1)), LABELS[:1])
    value.backward()
    assert value < 1e-15
    assert one.grad.isfinite().all()


@pytest.mark.parametrize("name", ["relative", "likeness"])
def test_new_terms_are_off_and_reach_the_student_only(name):
    assert METHOD.defaults[name] == 0.0
    (term,) = plan((point(),), spectrum=0, exponent=0, coherence=0, **{name: 2}).terms
    assert term.name == f"spectral.{name}"
    mine, theirs = coloured(N, 4, 16, 16), coloured(N, 4, 16, 16, seed=1)
    mine.requires_grad_()
    theirs.requires_grad_()
    term.loss(out(mine), out(theirs), LABELS).backward()
    assert mine.grad.abs().sum() > 0
    assert theirs.grad is None
    with pytest.raises(UsageError, match=rf"expected sine beside spectral\.{name}; got none"):
        plan(edges="none", **{name: 1})


def test_a_comparison_says_which_frequencies_it_weights():
    comparison = RingComparison((16, 16), (32, 32), weighting="low")
    assert torch.equal(comparison.weights > 0, comparison.frequency < 3.5)

"""The spectral terms against formulas written out, and what they must be blind to or see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.distill.losses import controls
from natstats.distill.losses.channels import ChannelSpectra
from natstats.distill.losses.ring_comparison import RingComparison, exponent_of, log_power
from natstats.distill.losses.spectral import METHOD, ExponentDistance, SpectrumDistance
from natstats.distill.method import Outputs, Setting, TapPoint
from natstats.errors import UsageError
from natstats.fits.bands import band_of
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.frequencies import radius_grid

LABELS = torch.zeros(3, dtype=torch.long)


def point(channels=4, height=16, width=None):
    return TapPoint("layer", channels, height, width or height)


def out(*maps):
    return Outputs(torch.zeros(len(maps[0]), 2), tuple(maps))


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ring_power(image):
    """Ring power of maps (C, H, W) by the definition, with numpy's FFT and a loop over rings."""
    n_channels, height, width = image.shape
    axes = [np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (height, width)]
    taper = np.outer(*axes)
    radius, shorter = radius_grid(height, width), min(height, width)
    power = np.zeros((height, width))
    for one in image.astype(np.float64):
        centred = one - np.sum(taper * one) / np.sum(taper)
        power += np.abs(np.fft.fft2(taper * centred)) ** 2 / np.sum(taper**2) / n_channels
    found = []
    for k in range(1, shorter // 2 + 1):
        inside = (radius * shorter >= k - 0.5) & (radius * shorter < k + 0.5) & (radius <= 0.5)
        found.append((radius[inside].mean(), power[inside].mean()))
    return np.array(found).T


@pytest.mark.parametrize("level", ["free", "kept"])
def test_spectrum_distance_is_its_formula(level):
    mine, theirs = noise(3, 4, 16, 16), 2 * noise(3, 6, 16, 16, seed=1).cumsum(-1)
    expected = []
    for a, b in zip(mine.numpy(), theirs.numpy(), strict=True):
        frequency, first = ring_power(a)
        _, second = ring_power(b)
        weights = 1 / frequency / np.sum(1 / frequency)
        difference = np.log(first) - np.log(second)
        if level == "free":
            difference = difference - np.sum(weights * difference)
        expected.append(np.sum(weights * difference**2))
    loss = SpectrumDistance([point()], [point(6)], level=level)
    value = loss(out(mine), out(theirs), LABELS)
    assert float(value) == pytest.approx(np.mean(expected), rel=1e-4)


def test_exponent_distance_is_the_squared_difference_of_octave():
    fields = [
        natstats.power_law_fields(12, 16, 16, alpha=a, seed=a).reshape(3, 4, 16, 16) for a in (1, 2)
    ]
    mine, theirs = (torch.tensor(f, dtype=torch.float32) for f in fields)
    band = band_of(16, 16, "sine", 0.0, 0.5)
    alphas = [band.estimate(power_spectrum(m).double().numpy(), "octave") for m in (mine, theirs)]
    value = ExponentDistance([point()], [point()])(out(mine), out(theirs), LABELS)
    assert float(value) == pytest.approx(np.mean((alphas[0] - alphas[1]) ** 2), rel=1e-3)
    assert 0.5 < float(value) < 1.5


@pytest.mark.parametrize("size", [(8, 8), (14, 14), (32, 32), (16, 24)])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
def test_a_known_exponent_comes_back_differentiably(size, alpha):
    band = band_of(*size, "sine", 0.0, 0.5)
    log_spectrum = torch.tensor(band.log_expected_power(alpha)[None], dtype=torch.float64)
    log_spectrum.requires_grad_(True)
    found = exponent_of(log_spectrum, *size)
    assert float(found.detach()) == pytest.approx(alpha, abs=0.02)
    (gradient,) = torch.autograd.grad(found.sum(), log_spectrum)
    expected = band.gradient(log_spectrum.detach().exp().numpy(), np.array([alpha]), "octave")
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0.05, atol=5e-3)


def test_a_loss_in_inference_mode_leaves_training_possible():
    maps = noise(2, 4, 18, 22)  # a size that no other test has
    with torch.inference_mode():
        ExponentDistance([point(4, 18, 22)], [point(4, 18, 22)])(out(maps), out(maps), LABELS)
    maps.requires_grad_(True)
    loss = ExponentDistance([point(4, 18, 22)], [point(4, 18, 22)])
    loss(out(maps), out(noise(2, 4, 18, 22, seed=1)), LABELS).backward()
    assert maps.grad is not None


@pytest.mark.parametrize("loss_of", [SpectrumDistance, ExponentDistance])
class TestInvariances:
    """What a power spectrum is blind to: gain, order and sign of channels, circular place."""

    def value(self, loss_of, mine, theirs, **settings):
        return float(
            loss_of([point(mine.shape[1])], [point(theirs.shape[1])], **settings)(
                out(mine), out(theirs), LABELS
            )
        )

    def test_zero_at_the_teacher(self, loss_of):
        maps = noise(3, 4, 16, 16)
        assert self.value(loss_of, maps, maps.clone()) == 0

    def test_channels_sign_and_the_gain_where_it_is_free(self, loss_of):
        maps, other = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        value = self.value(loss_of, maps, other)
        assert value > 0.001
        changed = -maps[:, [2, 0, 3, 1]]
        assert self.value(loss_of, changed, other) == pytest.approx(value, rel=1e-3)
        settings = {"level": "free"} if loss_of is SpectrumDistance else {}
        value = self.value(loss_of, maps, other, **settings)
        assert self.value(loss_of, 3 * changed, other, **settings) == pytest.approx(value, rel=1e-3)

    def test_circular_shift_without_taper(self, loss_of):
        maps, other = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        moved = maps.roll((3, 5), (2, 3))
        settings = {"edges": "none"}
        value = self.value(loss_of, maps, other, **settings)
        assert self.value(loss_of, moved, other, **settings) == pytest.approx(value, rel=1e-3)

    def test_gradient_reaches_the_student_only(self, loss_of):
        mine, theirs = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        mine.requires_grad_(True)
        theirs.requires_grad_(True)
        loss_of([point()], [point()])(out(mine), out(theirs), LABELS).backward()
        assert mine.grad is not None
        assert mine.grad.isfinite().all()
        assert mine.grad.abs().max() > 0
        assert theirs.grad is None

    def test_gradient_is_that_of_finite_differences(self, loss_of):
        mine, theirs = noise(1, 2, 8, 8), noise(1, 2, 8, 8, seed=1).cumsum(-1)
        direction = noise(1, 2, 8, 8, seed=2)
        loss = loss_of([point(2, 8)], [point(2, 8)])
        mine.requires_grad_(True)
        (gradient,) = torch.autograd.grad(loss(out(mine), out(theirs), LABELS), mine)
        step = 1e-2
        with torch.no_grad():
            ends = [
                loss(out(mine + s * direction), out(theirs), LABELS).item() for s in (-step, step)
            ]
        slope = (ends[1] - ends[0]) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.03, abs=1e-4)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_maps_are_compared_in_float32(self, loss_of, dtype):
        maps, other = (noise(3, 4, 16, 16, seed=s).to(dtype) for s in (0, 1))
        loss = loss_of([point()], [point()])
        value = loss(out(maps), out(other), LABELS)
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(
            float(loss(out(maps.float()), out(other.float()), LABELS)), rel=1e-6
        )

    def test_autocast_does_not_reach_the_transform(self, loss_of):
        maps, other = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        loss = loss_of([point()], [point()])
        expected = float(loss(out(maps), out(other), LABELS))
        with torch.autocast("cpu", torch.bfloat16):
            found = float(loss(out(maps), out(other), LABELS))
        assert found == pytest.approx(expected, rel=1e-5)

    def test_constant_maps_are_finite(self, loss_of):
        mine = torch.zeros(3, 4, 16, 16, requires_grad=True)
        value = loss_of([point()], [point()])(out(mine), out(noise(3, 4, 16, 16)), LABELS)
        value.backward()
        assert value.isfinite()
        assert mine.grad is not None
        assert mine.grad.isfinite().all()

    def test_maps_that_are_not_finite_are_not_hidden(self, loss_of):
        mine = noise(3, 4, 16, 16)
        mine[0, 0, 0, 0] = torch.nan
        value = loss_of([point()], [point()])(out(mine), out(noise(3, 4, 16, 16)), LABELS)
        assert not value.isfinite()

    def test_wrong_maps_are_refused(self, loss_of):
        loss = loss_of([point()], [point()])
        with pytest.raises(UsageError, match="expected 1 of student and teacher; got 2 and 1"):
            loss(out(noise(3, 4, 16, 16), noise(3, 4, 16, 16)), out(noise(3, 4, 16, 16)), LABELS)
        with pytest.raises(UsageError, match="expected 16 x 16 pixels of the student"):
            loss(out(noise(3, 4, 8, 8)), out(noise(3, 4, 16, 16)), LABELS)


def test_the_level_counts_where_it_is_kept():
    maps = noise(3, 4, 16, 16)
    loss = SpectrumDistance([point()], [point()])
    # A factor of e in amplitude is 2 in the logarithm of the power.
    value = loss(out(np.e * maps), out(maps), LABELS)
    assert float(value) == pytest.approx(4.0, rel=1e-4)


@pytest.mark.slow
def test_other_sizes_are_compared_at_the_same_cycles_per_image():
    """Fields of one exponent on another grid are alike; of another exponent they are not."""

    def fields(side, alpha, seed):
        made = natstats.power_law_fields(64, side, side, alpha=alpha, seed=seed)
        return torch.tensor(made.reshape(4, 16, side, side), dtype=torch.float32)

    comparison = RingComparison((32, 32), (16, 16))
    assert len(comparison.frequency) == 8
    assert float(comparison.frequency[-1]) <= 8.5
    loss = SpectrumDistance([point(16, 32)], [point(16, 16)], level="free")
    alike = float(loss(out(fields(32, 2.0, 0)), out(fields(16, 2.0, 1)), LABELS))
    apart = float(loss(out(fields(32, 0.5, 0)), out(fields(16, 2.0, 1)), LABELS))
    assert apart > 4 * alike


def test_one_scene_on_two_grids_is_the_same_at_its_level():
    """Below 8 cycles/image a grid of 16 pixels loses nothing of what one of 32 has."""
    plane = torch.fft.fft2(noise(3, 4, 32, 32))
    below = torch.fft.fftfreq(32, 1 / 32).abs() < 8
    scene = torch.fft.ifft2(plane * below[:, None] * below).real
    loss = SpectrumDistance([point(4, 32)], [point(4, 16)], edges="none")
    comparison = loss.comparisons[0]
    fine, coarse = scene, scene[:, :, ::2, ::2]
    spectra = [
        comparison.common(comparison.spectrum(maps, which), which)
        for maps, which in ((fine, "student"), (coarse, "teacher"))
    ]
    np.testing.assert_allclose(spectra[0][:, :6], spectra[1][:, :6], atol=1e-4)


def test_sizes_of_maps_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match="5 x 5"):
        SpectrumDistance([point(4, 4)], [point(4, 4)])


def test_log_power_floor_is_relative():
    power = torch.tensor([[1.0, 1e-12]])
    low = log_power(power)
    torch.testing.assert_close(log_power(1e6 * power) - low, torch.full((1, 2), np.log(1e6)))


class TestControls:
    def loss(self, name, n=4):
        torch.manual_seed(0)
        return controls.CONTROLS[name]([point(n)], [point(n)])

    def with_identity(self, name, n=4):
        loss = self.loss(name, n)
        for connector in getattr(loss, "connectors", []):
            with torch.no_grad():
                connector.weight.copy_(torch.eye(n)[:, :, None, None])
        return loss

    @pytest.mark.parametrize("name", list(controls.CONTROLS))
    def test_zero_at_the_teacher_and_free_of_gain(self, name):
        maps, other = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        loss = self.with_identity(name)
        with torch.no_grad():
            same, value, scaled = (
                float(loss(out(a), out(b), LABELS))
                for a, b in ((maps, maps), (maps, other), (5 * maps, other))
            )
        assert same == pytest.approx(0, abs=1e-4)
        assert value > 0.05
        assert scaled == pytest.approx(value, rel=1e-3)

    @staticmethod
    def by_hand(name, mine, theirs):
        """The distance of one image, from the whole plane of numpy's transform."""
        half = min(*mine.shape[1:], *theirs.shape[1:]) // 2
        planes = []
        for maps in (mine, theirs):
            height, width = maps.shape[1:]
            taper = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (height, width)))
            mean = (maps * taper).sum((1, 2), keepdims=True) / taper.sum()
            planes.append(np.fft.fft2((maps - mean) * taper, norm="ortho"))
        k = [
            (y, x) for y in range(1 - half, half) for x in range(1 - half, half) if (y, x) != (0, 0)
        ]
        ours, other = (np.stack([plane[:, y, x] for y, x in k]) for plane in planes)  # (n, C)
        radius = np.hypot(*np.array(k).T)
        weights = radius**-2 / np.sum(radius**-2)
        if name == "amplitude":
            d = np.log((abs(ours) ** 2).mean(1)) - np.log((abs(other) ** 2).mean(1))
            return np.sum(weights * (d - np.sum(weights * d)) ** 2)
        if name == "phase":
            return 1 - np.sum(weights * np.cos(np.angle(ours) - np.angle(other)).mean(1))
        rings = []
        for ring in range(1, half):
            a, b = (side[np.floor(radius + 0.5) == ring] for side in (ours, other))
            cross = np.sum(a * b.conj()).real
            rings.append(cross / np.sqrt(np.sum(abs(a) ** 2) * np.sum(abs(b) ** 2)))
        octaves = 1 / np.arange(1, half)
        return 1 - np.sum(octaves * rings) / np.sum(octaves)

    @torch.no_grad()
    @pytest.mark.parametrize("side", [16, 32])
    @pytest.mark.parametrize("name", ["amplitude", "phase", "coherence"])
    def test_it_is_its_formula_on_the_whole_plane(self, name, side):
        mine = 3 + noise(3, 4, 16, 16)
        theirs = noise(3, 4, side, side, seed=1).cumsum(-1) - 2
        loss = controls.CONTROLS[name]([point(4, 16)], [point(4, side)])
        for connector in getattr(loss, "connectors", []):
            connector.weight.copy_(torch.eye(4)[:, :, None, None])
        expected = [
            self.by_hand(name, *pair)
            for pair in zip(mine.double().numpy(), theirs.double().numpy(), strict=True)
        ]
        assert float(loss(out(mine), out(theirs), LABELS)) == pytest.approx(
            np.mean(expected), rel=1e-4
        )

    @torch.no_grad()
    def test_spatial_is_half_the_squared_distance_of_unit_vectors(self):
        mine, theirs = 3 + noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1).cumsum(-1)
        expected = []
        for pair in zip(mine.double().numpy(), theirs.double().numpy(), strict=True):
            a, b = ((m - m.mean((1, 2), keepdims=True)).ravel() for m in pair)
            expected.append(1 - np.corrcoef(a, b)[0, 1])
        value = self.with_identity("spatial")(out(mine), out(theirs), LABELS)
        assert float(value) == pytest.approx(np.mean(expected), rel=1e-4)

    @torch.no_grad()
    def test_phase_sees_no_amplitude_and_amplitude_no_phase(self):
        maps = noise(3, 4, 16, 16)
        other = noise(3, 4, 16, 16, seed=1)
        first, second = torch.fft.fft2(maps), torch.fft.fft2(other)
        swapped = torch.fft.ifft2(second.abs() * first / first.abs()).real
        phase = self.with_identity("phase")
        # The taper mixes neighbours, so phases are kept only roughly.
        same = float(phase(out(swapped), out(maps), LABELS))
        apart = float(phase(out(other), out(maps), LABELS))
        assert same < 0.6 * apart
        amplitude = self.with_identity("amplitude")
        same = float(amplitude(out(swapped), out(other), LABELS))
        apart = float(amplitude(out(maps.cumsum(-1)), out(other), LABELS))
        assert same < 0.6 * apart

    @torch.no_grad()
    @pytest.mark.parametrize("name", ["phase", "coherence", "spatial"])
    def test_unlike_maps_are_near_one_and_opposite_ones_are_two(self, name):
        maps, other = noise(64, 4, 16, 16), noise(64, 4, 16, 16, seed=1)
        loss = self.with_identity(name)
        labels = torch.zeros(64, dtype=torch.long)
        assert float(loss(out(maps), out(other), labels)) == pytest.approx(1.0, abs=0.1)
        assert float(loss(out(-maps), out(maps), labels)) == pytest.approx(2.0, abs=1e-3)

    @pytest.mark.parametrize("name", list(controls.CONTROLS))
    def test_gradient_reaches_student_and_connectors_only(self, name):
        loss = self.loss(name)
        mine, theirs = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        mine.requires_grad_(True)
        theirs.requires_grad_(True)
        loss(out(mine), out(theirs), LABELS).backward()
        assert mine.grad is not None
        assert mine.grad.abs().max() > 0
        assert theirs.grad is None
        assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())

    def test_other_sizes_and_channels_are_compared(self):
        for name, make in controls.CONTROLS.items():
            loss = make([point(4, 16)], [point(6, 32)])
            value = loss(out(noise(3, 4, 16, 16)), out(noise(3, 6, 32, 32)), LABELS)
            assert value.isfinite(), name


class TestChannels:
    """The spectra channel by channel."""

    def loss(self):
        loss = ChannelSpectra([point()], [point()])
        with torch.no_grad():
            loss.connectors[0].weight.copy_(torch.eye(4)[:, :, None, None])
        return loss

    def test_it_is_its_formula(self):
        mine, theirs = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1).cumsum(-1)
        expected = []
        for a, b in zip(mine.numpy(), theirs.numpy(), strict=True):
            frequency = ring_power(a)[0]
            weights = 1 / frequency / np.sum(1 / frequency)
            difference = np.stack(
                [np.log(ring_power(a[[c]])[1]) - np.log(ring_power(b[[c]])[1]) for c in range(4)]
            )
            level = (difference @ weights).mean()
            expected.append(((difference - level) ** 2 @ weights).mean())
        value = self.loss()(out(mine), out(theirs), LABELS)
        assert float(value.detach()) == pytest.approx(np.mean(expected), rel=1e-3)

    @torch.no_grad()
    def test_gain_is_free_and_the_share_of_a_channel_is_not(self):
        maps, other = noise(3, 4, 16, 16), noise(3, 4, 16, 16, seed=1)
        loss = self.loss()
        value = float(loss(out(maps), out(other), LABELS))
        assert float(loss(out(5 * maps), out(other), LABELS)) == pytest.approx(value, rel=1e-3)
        louder = maps.clone()
        louder[:, 0] *= 5
        assert float(loss(out(louder), out(maps), LABELS)) > 0.5
        assert float(loss(out(maps), out(maps.clone()), LABELS)) < 1e-9

    def test_gradient_reaches_student_and_connectors_only(self):
        loss = ChannelSpectra([point()], [point(6, 32)])
        mine, theirs = noise(3, 4, 16, 16), noise(3, 6, 32, 32, seed=1)
        mine.requires_grad_(True)
        theirs.requires_grad_(True)
        loss(out(mine), out(theirs), LABELS).backward()
        assert mine.grad is not None
        assert mine.grad.abs().max() > 0
        assert theirs.grad is None
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in loss.parameters())

    def test_silent_channels_are_finite(self):
        maps = noise(3, 4, 16, 16)
        maps[:, 1] = 0
        maps.requires_grad_(True)
        value = self.loss()(out(maps), out(noise(3, 4, 16, 16, seed=1)), LABELS)
        value.backward()
        assert value.isfinite()
        assert maps.grad is not None
        assert maps.grad.isfinite().all()

    def test_it_is_a_term_of_the_method(self):
        arguments = METHOD.arguments({"spectrum": 0, "exponent": 0, "channels": 0.5})
        plan = METHOD.plan(Setting((point(),), (point(),), arguments))
        (term,) = plan.terms
        assert (term.name, term.factor(0)) == ("spectral.channels", 0.5 * arguments["weight"])


class TestMethod:
    def plan(self, **changed):
        setting = Setting((point(),), (point(),), METHOD.arguments(changed))
        return METHOD.plan(setting)

    def test_two_terms_by_default(self):
        plan = self.plan()
        assert [t.name for t in plan.terms] == ["spectral.spectrum", "spectral.exponent"]
        assert not plan.before

    def test_two_terms_of_a_plan_transform_once_and_hold_nothing(self, monkeypatch):
        from natstats.distill.losses import ring_comparison

        calls = []

        def counted(maps, edges):
            calls.append(tuple(maps.shape))
            return power_spectrum(maps, edges)

        monkeypatch.setattr(ring_comparison, "power_spectrum", counted)
        plan = self.plan()
        values = []
        for seed in (0, 1):
            mine, theirs = noise(3, 4, 16, 16, seed=seed), noise(3, 4, 16, 16, seed=5)
            mine.requires_grad_(True)
            student, teacher = out(mine), out(theirs)
            values.append([term.loss(student, teacher, LABELS) for term in plan.terms])
            sum(values[-1]).backward()
            alone = [
                loss([point()], [point()])(student, teacher, LABELS)
                for loss in (SpectrumDistance, ExponentDistance)
            ]
            assert [float(v.detach()) for v in values[-1]] == [float(v.detach()) for v in alone]
        assert len(calls) == 2 * (2 + 4)
        assert plan.terms[0].loss._shared._left is None

    def test_weight_multiplies_all_terms(self):
        one, two = self.plan(weight=1), self.plan(weight=2)
        assert [t.factor(0) * 2 for t in one.terms] == [t.factor(0) for t in two.terms]

    def test_terms_come_and_go_with_their_weights(self):
        plan = self.plan(spectrum=0, exponent=0, phase=1)
        assert [t.name for t in plan.terms] == ["spectral.phase"]
        with pytest.raises(UsageError, match="expected one term"):
            self.plan(spectrum=0, exponent=0)

    @pytest.mark.parametrize(
        ("changed", "message"),
        [({"edges": "no"}, "spectral.edges"),
         ({"edges": "hann", "phase": 1}, "expected sine beside spectral.phase; got hann"),
         ({"level": "no"}, "spectral.level"),
         ({"nonsense": 1}, "expected one of weight"), ({"weight": "much"}, "a value like 3.0")],
    )  # fmt: skip
    def test_wrong_arguments_are_named(self, changed, message):
        with pytest.raises(UsageError, match=message):
            self.plan(**changed)


class TestTeacherRun:
    @pytest.fixture(scope="class")
    @staticmethod
    def run(tmp_path_factory):
        images = np.random.default_rng(0).random((40, 3, 32, 32), dtype=np.float32)
        model = natstats.load_network("cifar_resnet8", weights="none")
        path = tmp_path_factory.mktemp("runs") / "teacher"
        natstats.measure(model, images, layers="stage*.0.relu2").save(path, report=False)
        return path, images, model

    def plan(self, path, points):
        run = natstats.Run.open(path)
        return METHOD.plan(Setting(points, points, METHOD.arguments({}), teacher_run=run))

    @pytest.mark.slow
    def test_the_teacher_is_at_distance_zero_from_its_own_run(self, run):
        from natstats.distill.pairing import student_taps
        from natstats.distill.taps import Taps

        path, images, network = run
        pixels = torch.tensor(images)  # an array is measured as it is
        points = student_taps(network.model, pixels[:1])
        plan = self.plan(path, points)
        with Taps(network.model, [p.name for p in points], pixels[:1]) as taps, torch.no_grad():
            network.model(pixels)
        maps = taps.take()
        mine = Outputs(torch.zeros(40, 10), tuple(maps[p.name] for p in points))
        for term in plan.terms:
            nothing = Outputs(torch.zeros(0))
            assert float(term.loss(mine, nothing, LABELS)) == pytest.approx(0, abs=1e-4)
            assert not term.loss.needs_teacher
            assert term.loss.reduction.endswith("pairs, of the batch's mean spectrum")

    def test_maps_of_another_size_are_refused(self, run):
        with pytest.raises(UsageError, match="expected 20 x 20 pixels .* the run has 32 x 32"):
            self.plan(run[0], (TapPoint("stage1.0.relu2", 16, 20, 20),))

    def test_a_layer_that_was_not_measured_is_no_target(self, run):
        with pytest.raises(UsageError, match="teacher run: expected layer stage1.9; it was not"):
            self.plan(run[0], (TapPoint("stage1.9", 16, 32, 32),))

    def test_other_terms_need_the_teacher(self, run):
        points = (TapPoint("stage1.0.relu2", 16, 32, 32),)
        setting = Setting(
            points, points, METHOD.arguments({"phase": 1}), teacher_run=natstats.Run.open(run[0])
        )
        with pytest.raises(UsageError, match=r"spectral\.phase"):
            METHOD.plan(setting)

"""The spectral terms against formulas written out, and what they must be blind to or see."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.distill.losses.ring_comparison import RingComparison, exponent_of, log_power
from natstats.distill.losses.spectral import ExponentDistance, SpectrumDistance
from natstats.errors import UsageError
from natstats.fits.bands import band_of
from natstats.spectra.accumulator import power_spectrum
from tests.distill.spectral_maps import LABELS, noise, out, point, ring_power


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

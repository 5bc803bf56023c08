"""The controls of the spectral terms, and spectra channel by channel, against formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natstats.distill.losses import controls
from natstats.distill.losses.channels import ChannelSpectra
from natstats.distill.losses.spectral import METHOD
from natstats.distill.method import Setting
from tests.distill.spectral_maps import LABELS, noise, out, point, ring_power


@pytest.mark.parametrize("make", [*controls.CONTROLS.values(), ChannelSpectra])
def test_gradient_reaches_student_and_connectors_only(make):
    loss = make([point(4, 16)], [point(6, 32)])
    mine, theirs = noise(3, 4, 16, 16), noise(3, 6, 32, 32, seed=1)
    mine.requires_grad_(True)
    theirs.requires_grad_(True)
    loss(out(mine), out(theirs), LABELS).backward()
    assert mine.grad is not None
    assert mine.grad.abs().max() > 0
    assert theirs.grad is None
    reached = [p.grad is not None and p.grad.abs().max() > 0 for p in loss.parameters()]
    # Amplitudes averaged over channels need no connector.
    assert all(reached)
    assert bool(reached) == (make is not controls.AmplitudeDistance)
    assert all(p.grad.isfinite().all() for p in loss.parameters())


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
        arguments = METHOD.arguments(
            {"spectrum": 0, "exponent": 0, "coherence": 0, "channels": 0.5}
        )
        plan = METHOD.plan(Setting((point(),), (point(),), arguments))
        (term,) = plan.terms
        assert (term.name, term.factor(0)) == ("spectral.channels", 0.5 * arguments["weight"])

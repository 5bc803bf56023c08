"""Moments of the input of activation functions, summed as a pass goes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natstats.spectra.frequencies import rings
from natstats.spectra.transforms import ring_transform
from natstats.theory.activation_kinds import activation
from natstats.theory.covariances import about_the_mean, mean_lag_covariance, power_of_lags
from natstats.theory.moments import MomentSums
from natstats.theory.rectifiers import rectified_sum

CPU = torch.device("cpu")
FUNCTIONS = {
    "relu": {}, "leaky_relu": {"negative_slope": 0.2}, "hardtanh": {"min_val": 0.0, "max_val": 6.0},
    "gelu": {"approximate": "none"}, "silu": {}, "hardswish": {},
}  # fmt: skip


def maps_of(small, n=32, side=16, channels=6):
    """Channels of different means and powers."""
    maps = small.photographs(n, side, channels)
    level = torch.linspace(-3, 3, channels)[:, None, None]
    return maps / 4 * torch.linspace(0.5, 2, channels)[:, None, None] + level


def summed(maps, function, edges="sine", blocks=8, batch=8):
    sums = MomentSums(maps.shape[2:], edges, maps.shape[1], function, blocks, CPU)
    for start in range(0, len(maps), batch):
        own = maps[start : start + batch]
        sums.add(sums.prepared(own), torch.arange(start, start + len(own)) % blocks)
    return sums.result()


@pytest.mark.parametrize("edges", ["sine", "none"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_prediction_is_that_of_the_series(small, name, edges):
    """Against the functions that take all maps at once."""
    maps, function = maps_of(small), activation(name, **FUNCTIONS[name])
    found = summed(maps, function, edges)
    mean, covariance = about_the_mean(
        mean_lag_covariance(maps.double(), edges), maps.double().mean(0), edges
    )
    ring = rings(16, 16)
    before = ring.mean(power_of_lags(covariance.sum(0), edges).numpy())
    after = ring.mean(
        power_of_lags(rectified_sum(covariance, mean, name, **FUNCTIONS[name]), edges).numpy()
    )
    assert np.allclose(found.before[0], before, rtol=2e-3)
    assert np.allclose(found.after[0], after, rtol=2e-3, atol=2e-3 * after.max() * 1e-2)


def test_without_a_function_nothing_changes(small):
    found = summed(maps_of(small), activation("identity"))
    assert np.allclose(found.before, found.after, rtol=1e-3)


def test_the_spectrum_of_the_moments_is_the_measured_one(small):
    maps = maps_of(small, 128)
    found = summed(maps, activation("relu"))
    measured = ring_transform(16, 16, "sine", CPU)(maps)[:, :-1].mean(0) * maps.shape[1]
    assert np.allclose(found.before[0][1:], measured[1:], rtol=0.03)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_without_a_block_is_what_is_had_without_its_images(small, name):
    maps, function = maps_of(small, 64), activation(name, **FUNCTIONS[name])
    found = summed(maps, function, blocks=4)
    for block in range(4):
        kept = maps[torch.arange(64) % 4 != block]
        alone = summed(kept, function, blocks=4)
        assert np.allclose(found.before[1 + block], alone.before[0], rtol=0.02)
        # To first order in what a block changes; the longest wave goes with the mean of the map,
        # whose change is taken to be the same at every place.
        change = found.after[1 + block] - found.after[0]
        exact = alone.after[0] - found.after[0]
        assert np.abs(change - exact)[1:].max() < 0.1 * np.abs(exact).max() + 1e-3
        assert np.allclose(found.after[1 + block], alone.after[0], rtol=0.03)


def test_blocks_without_images_leave_nothing_out(small):
    maps = maps_of(small, 8)
    sums = MomentSums((16, 16), "sine", 6, activation("relu"), 8, CPU)
    sums.add(sums.prepared(maps), torch.tensor([0, 0, 2, 2, 5, 5, -1, -1]))
    found = sums.result()
    assert found.count.tolist() == [2, 0, 2, 0, 0, 2, 0, 0]
    assert np.array_equal(found.after[2], found.after[0])
    assert not np.array_equal(found.after[1], found.after[0])


def test_images_of_one_block_are_too_few(small):
    maps = maps_of(small, 4)
    sums = MomentSums((16, 16), "sine", 6, activation("relu"), 8, CPU)
    assert sums.result() is None
    sums.add(sums.prepared(maps), torch.zeros(4, dtype=torch.int64))
    assert sums.result() is None


def test_channels_without_variance_are_constants():
    maps = torch.ones(8, 2, 16, 16)
    maps[:, 1] = torch.randn(8, 16, 16, generator=torch.Generator().manual_seed(0))
    found = summed(maps, activation("relu"))
    alone = summed(maps[:, 1:], activation("relu"))
    assert np.isfinite(found.after).all()
    assert np.allclose(found.after[0], alone.after[0], rtol=1e-4)

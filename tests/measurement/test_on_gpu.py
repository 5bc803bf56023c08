"""Runs that were measured on CUDA are those of the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import natstats
from natstats.distill.training.setup import classifier

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


@pytest.fixture(scope="module")
def network():
    return classifier("cifar_resnet8", 10).model.eval()


@pytest.fixture(scope="module")
def images():
    fields = natstats.power_law_fields(48, 32, 32, alpha=2.0, outer_scale=2, seed=0)
    return np.float32(fields.reshape(16, 3, 32, 32) / fields.std())


def measured(network, images, device, **options):
    tf32, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        model = copy.deepcopy(network)
        return natstats.measure(model, images, device=device, workers=0, **options)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32


@pytest.mark.parametrize("options", [{}, {"batch_size": 5}, {"explain": True}, {"edges": "none"}])
def test_a_run_is_that_of_the_cpu(network, images, options):
    mine, other = (measured(network, images, device, **options) for device in ("cuda", "cpu"))
    assert mine.info["device"]["type"] == "cuda"
    assert mine.layers.layer.tolist() == other.layers.layer.tolist()
    np.testing.assert_allclose(mine.layers.exponent, other.layers.exponent, atol=5e-4)
    assert mine.law.slope == pytest.approx(other.law.slope, abs=1e-3)
    if options.get("explain"):
        states = (run.account_spectra.states for run in (mine, other))
        for one, its in zip(*states, strict=True):
            np.testing.assert_allclose(one.power.sum(0), its.power.sum(0), rtol=5e-3)


def test_mixed_precision_changes_exponents_a_little(network, images):
    mine = measured(network, images, "cuda", amp=True)
    other = measured(network, images, "cpu")
    np.testing.assert_allclose(mine.layers.exponent, other.layers.exponent, atol=0.05)
    assert all(one.spectrum.n_nonfinite == 0 for one in mine.spectra)


def test_images_come_from_workers_through_pinned_memory(network, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    mine, other = (
        natstats.measure(
            copy.deepcopy(network), tmp_path / "images.npy", device="cuda", workers=workers
        )
        for workers in (2, 0)
    )
    np.testing.assert_allclose(mine.layers.exponent, other.layers.exponent, atol=1e-5)


def test_the_random_state_of_the_device_stays(network, images):
    torch.cuda.manual_seed(3)
    expected = torch.rand(4, device="cuda")
    torch.cuda.manual_seed(3)
    measured(network, images, "cuda")
    torch.testing.assert_close(torch.rand(4, device="cuda"), expected)

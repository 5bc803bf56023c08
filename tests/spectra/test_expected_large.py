"""Large maps: the same numbers as the whole lattice and the matrix of rings, in bounded memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

import natstats
from natstats.fits.bands import Band
from natstats.spectra import expected, transforms
from natstats.spectra.edges import EDGES, axis_taper
from natstats.spectra.expected import (
    _covariance,
    _periodic,
    _tapered,
    expected_power,
    expected_spectrum,
    independent_modes,
)
from natstats.spectra.expected_large import large_ring_power
from natstats.spectra.frequencies import rings
from natstats.spectra.transforms import RingTransform

ALPHAS = (-2.0, 0.0, 1.0, 2.0, 3.0, 4.0)


def whole(alpha, height, width, edges, outer_scale=12):
    """The sum over the whole lattice, as maps up to 512 pixels have it."""
    covariance = _covariance(height, width, alpha, outer_scale)
    plane = _periodic(covariance) if edges == "periodic" else _tapered(covariance, edges)
    return rings(height, width).mean(plane)


@pytest.mark.slow
@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(
    ("height", "width", "outer_scale"),
    [(64, 64, 12), (97, 40, 36), (40, 96, 4), (5, 300, 12), (255, 256, 12)],
)
def test_products_of_splines_are_the_whole_lattice(height, width, outer_scale, edges):
    for alpha in ALPHAS if height < 200 else (2.0,):
        found = large_ring_power(alpha, height, width, edges, (4, 7, outer_scale))
        np.testing.assert_allclose(
            found, whole(alpha, height, width, edges, outer_scale), rtol=2e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(520, 520), (24, 900)])
def test_exponents_of_large_maps_are_those_of_the_whole_lattice(size):
    """Ring power by the whole lattice, read by the table of products: within 0.003, far less."""
    band = Band(*size, "sine", 0.0, 0.5)
    for alpha in (1.0, 3.0):
        power = whole(alpha, *size, "sine")
        for estimator in ("octave", "whittle"):
            assert band.estimate(power[None], estimator)[0] == pytest.approx(alpha, abs=1e-3)


def test_maps_of_512_pixels_keep_the_whole_lattice(monkeypatch):
    """Bit for bit; a pixel more takes the products."""
    asked = []
    monkeypatch.setattr(
        expected, "large_ring_power", lambda *given: asked.append(given[1:3]) or np.ones(2)
    )
    found = expected_power(2.0, 512, 300)
    assert np.array_equal(found, whole(2.0, 512, 300, "sine"))
    expected_power(2.0, 9000, 1)  # a series has one axis, and no such lattice
    assert asked == []
    expected_power(2.0, 513, 300)
    expected_power(2.0, 20, 513)
    assert asked == [(513, 300), (20, 513)]


@pytest.mark.slow
@pytest.mark.parametrize("edges", ["sine", "none"])
def test_the_table_of_a_large_map_is_the_function(edges):
    table = expected_spectrum(40, 800, edges)
    for alpha in (-0.7, 1.9, 2.95, 4.4):
        exact = np.log(expected_power(alpha, 40, 800, edges))
        np.testing.assert_allclose(table.log_power(alpha), exact, atol=1e-3)


@pytest.mark.slow
def test_large_maps_against_simulation():
    """Mean ring power of 32 crops of 600 x 530 pixels out of periodic fields of 2400 pixels."""
    alpha, height, width, side = 2.0, 600, 530, 2400
    generator = np.random.default_rng(3)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)).astype(np.float32)
    radius[0, 0] = np.inf
    power = []
    for _ in range(2):
        noise = np.fft.rfft2(generator.standard_normal((side, side), dtype=np.float32))
        field = np.fft.irfft2(noise * radius ** (-alpha / 2), s=(side, side))
        crops = field.reshape(4, height, side)[:, :, : 4 * width].reshape(4, height, 4, width)
        maps = np.float32(crops.transpose(0, 2, 1, 3)).reshape(16, 1, height, width)
        power.append(natstats.power_spectrum(torch.from_numpy(maps)).double().numpy())
    power = np.concatenate(power)
    error = power.std(0) / np.sqrt(len(power))
    z = (power.mean(0) - expected_power(alpha, height, width, outer_scale=4)) / error
    assert abs(z.mean()) < 0.5
    assert 0.8 < z.std() < 1.3
    other = (power.mean(0) - expected_power(alpha + 0.1, height, width, outer_scale=4)) / error
    assert other.std() > 3


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("size", [(5, 5), (6, 7), (14, 14), (31, 1), (16, 45), (40, 8)])
def test_independent_modes_are_those_of_all_pairs(size, edges):
    """n^2 over the sum of rho(k - l), by the convolution of the ring with rho over the plane."""
    ring = rings(*size)
    taper = np.outer(*(axis_taper(n, edges) ** 2 for n in size))
    rho = np.abs(np.fft.fft2(taper)) ** 2
    kernel = np.fft.fft2(rho / rho[0, 0])
    for k, found in enumerate(independent_modes(*size, edges)):
        members = (ring.index == k).astype(float)
        alike = np.fft.ifft2(np.fft.fft2(members) * kernel).real
        assert found == pytest.approx(members.sum() ** 2 / np.sum(members * alike), rel=1e-9)


def sums(height, width, edges, monkeypatch):
    """A transform that adds every frequency to its ring, at any size."""
    monkeypatch.setattr(transforms, "LARGEST_RING_MATRIX", 0)
    return RingTransform(height, width, edges, torch.device("cpu"))


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (45, 41), (5, 90)])
def test_sums_of_rings_are_those_of_the_matrix(height, width, edges, monkeypatch):
    """Values, gradients and second derivatives, with more channels than fit into one piece."""
    maps = 3 + torch.randn(3, 4, height, width, generator=torch.Generator().manual_seed(0))
    results = []
    matrix = RingTransform(height, width, edges, torch.device("cpu"))
    for transform in (matrix, sums(height, width, edges, monkeypatch)):
        given = maps.clone().requires_grad_()
        rows = transform(given)
        (slope,) = torch.autograd.grad(rows.clamp(min=1e-9).log().sum(), given, create_graph=True)
        (bend,) = torch.autograd.grad(slope.square().sum(), given)
        with torch.no_grad():
            monkeypatch.setitem(transforms.PIECE_BYTES, "cpu", 4 * height * width * 2)
            pieces = transform(maps)
        results.append((rows, slope, bend, pieces))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(
            one, other, rtol=2e-4, atol=2e-5 * float(one.detach().abs().max())
        )
    assert transform._ring is None
    assert matrix._ring is not None


def test_the_power_of_a_large_map_is_that_of_numpy():
    height, width = 530, 640
    image = np.random.default_rng(0).standard_normal((height, width)).astype(np.float32) + 2
    taper = np.outer(*(np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (height, width)))
    mean = (taper * image).sum() / taper.sum()
    plane = np.abs(np.fft.fft2(taper * (image - mean))) ** 2 / np.sum(taper**2)
    found = natstats.power_spectrum(torch.from_numpy(image)[None, None])
    # The removed mean leaves the rounding of float32 in the first ring.
    np.testing.assert_allclose(found[0], rings(height, width).mean(plane), rtol=1e-4)


def test_a_large_map_takes_memory_by_its_pixels():
    """A matrix of frequencies by rings would take 2.9 GB here, the whole lattice 100 MB a plane."""
    tracemalloc.start()
    try:
        RingTransform(900, 900, "sine", torch.device("cpu"))
        large_ring_power(2.0, 900, 900, "sine", (4, 7, 12))
        independent_modes(900, 900)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 120 * 900 * 900  # numpy tells its arrays; ten planes of double precision and some


def test_the_spectrum_of_a_large_photograph_has_an_exponent():
    fields = np.random.default_rng(1).standard_normal((5, 1, 60, 530)).astype(np.float32)
    run = natstats.measure_images(fields)
    (row,) = run.layers.to_dict("records")
    assert row["exponent"] == pytest.approx(0.0, abs=0.2)
    assert row["exponent_whittle"] == pytest.approx(0.0, abs=0.03)
    assert row["n_rings"] == 30

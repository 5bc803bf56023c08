"""Ring power against the formula written out in float64, and the laws it obeys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.spectra.edges import EDGES, axis_taper, boundary_laplacian
from natstats.spectra.frequencies import radius_grid, rings
from natstats.spectra.transforms import LARGEST_AXIS, RingTransform, ring_transform

CPU = torch.device("cpu")
SIZES = [
    (5, 5),
    (7, 7),
    (8, 6),
    (14, 14),
    (27, 30),
    (24, 9),
    (20, 24),
    (40, 9),
    (16, 64),
    (56, 56),
    (112, 100),
]


def power_plane(maps: np.ndarray, edges: str) -> np.ndarray:
    """|sum w (u - m) e|^2 / sum w^2 of every map and frequency, straight from the definition."""
    height, width = maps.shape[-2:]
    if edges == "periodic":
        # Moisan (2011), equation 10: u - s, where the Laplacian of s is the jumps at the border.
        jumps = np.zeros_like(maps)
        jumps[..., 0, :] += maps[..., -1, :] - maps[..., 0, :]
        jumps[..., -1, :] -= maps[..., -1, :] - maps[..., 0, :]
        jumps[..., :, 0] += maps[..., :, -1] - maps[..., :, 0]
        jumps[..., :, -1] -= maps[..., :, -1] - maps[..., :, 0]
        smooth = np.fft.fft2(jumps) / boundary_laplacian(height, width)
        return np.abs(np.fft.fft2(maps) - smooth) ** 2 / (height * width)
    window = np.outer(axis_taper(height, edges), axis_taper(width, edges))
    mean = (maps * window).sum((-1, -2), keepdims=True) / window.sum()
    return np.abs(np.fft.fft2(window * (maps - mean))) ** 2 / (window**2).sum()


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_ring_power_is_the_formula(height, width, edges):
    maps = torch.randn(3, 4, height, width, generator=torch.Generator().manual_seed(0)) + 5
    power, offset = RingTransform(height, width, edges, CPU)(maps).tensor_split([-1], dim=1)
    expected = rings(height, width).mean(power_plane(maps.double().numpy(), edges).mean(1))
    np.testing.assert_allclose(power, expected, rtol=2e-5)
    if edges != "periodic":
        window = np.outer(axis_taper(height, edges), axis_taper(width, edges))
        means = (maps.double().numpy() * window).sum((-1, -2)) / window.sum()
        np.testing.assert_allclose(offset[:, 0], (means**2).mean(1), rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (8, 8), (24, 20), (48, 41)])
def test_parseval(height, width):
    """Without a taper the power of the whole plane averages to the variance of the map."""
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    transform = RingTransform(height, width, "none", CPU)
    squares = transform._in_pieces(maps) / 3
    if max(height, width) <= LARGEST_AXIS:  # an orthonormal real basis: every coefficient once
        whole = squares[:, 1:].sum(1)
    else:
        weights = torch.full((height, width // 2 + 1, 2), 2.0)
        weights[:, 0] = 1.0
        if width % 2 == 0:
            weights[:, -1] = 1.0
        whole = (squares * weights.ravel())[:, 2:].sum(1)
    variance = maps.var((-1, -2), correction=0).mean(1)
    torch.testing.assert_close(whole / (height * width), variance)


def test_rings_partition_the_disc_below_nyquist():
    for height, width in SIZES:
        ring = rings(height, width)
        radius = radius_grid(height, width)
        shorter = min(height, width)
        # With an odd shorter side the outer edge of the last ring, not part of it, is Nyquist.
        below = radius <= 0.5 + 1e-9 if shorter % 2 == 0 else radius < 0.5 - 1e-9
        assert np.array_equal(ring.index >= 0, (radius >= 0.5 / shorter - 1e-9) & below)
        assert ring.n_members.sum() == (ring.index >= 0).sum()
        assert (np.diff(ring.frequency) > 0).all()


def test_a_wave_lands_in_its_ring_on_a_map_that_is_not_square():
    # Binning by pixel index would put this wave, 4 cycles over 64 pixels, into ring 4.
    wave = torch.cos(2 * torch.pi * 4 * torch.arange(64) / 64).expand(1, 1, 16, 64)
    power = natstats.power_spectrum(wave.contiguous(), edges="none")[0]
    assert int(power.argmax()) == 0
    assert float(power[1:].sum() / power.sum()) < 1e-6
    assert rings(16, 64).frequency[0] == pytest.approx(1 / 16, abs=0.02)


@pytest.mark.parametrize("side", [8, 20, 44])
@pytest.mark.parametrize("n_images", [1, 3, 20])
def test_pieces_change_nothing(n_images, side, monkeypatch):
    """However a batch is cut, also through the channels of an image, the sums are the same."""
    maps = torch.randn(n_images, 7, side, side, generator=torch.Generator().manual_seed(2))
    transform = RingTransform(side, side, "sine", CPU)
    whole = transform(maps)
    for maps_per_piece in (1, 3, 7, 15):
        monkeypatch.setitem(
            natstats.spectra.transforms.PIECE_BYTES, "cpu", maps_per_piece * 4 * side * side
        )
        torch.testing.assert_close(transform(maps), whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("side", [7, 12, 42])
def test_gradient_agrees_with_differences(side, edges):
    maps = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(3))
    maps.requires_grad_(True)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return natstats.power_spectrum(x, edges).log().sum()

    (gradient,) = torch.autograd.grad(loss(maps), maps)
    direction = torch.randn(maps.shape, generator=torch.Generator().manual_seed(4))
    step = 1e-2
    with torch.no_grad():
        slope = (loss(maps + step * direction) - loss(maps - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=2e-2)


@pytest.mark.parametrize("edges", ["sine", "none"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_gradient_is_that_of_every_step_followed(height, width, edges):
    """The adjoint transform against autograd through the transform itself."""
    maps = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(6)) + 1
    maps.requires_grad_(True)
    transform = RingTransform(height, width, edges, CPU)
    weights = torch.rand(2, transform.rings.n_rings + 1)
    followed = transform._squares(transform._coefficients(maps)) @ transform._ring / 3
    (expected,) = torch.autograd.grad((followed * weights).sum(), maps)
    (found,) = torch.autograd.grad((transform(maps) * weights).sum(), maps)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [7, 12, 42])
def test_second_derivative_is_that_of_differences(side):
    maps = torch.randn(1, 2, side, side, generator=torch.Generator().manual_seed(7))
    direction = torch.randn(maps.shape, generator=torch.Generator().manual_seed(8))

    def slope(x):
        x = x.clone().requires_grad_(True)
        value = natstats.power_spectrum(x).log().sum()
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return (gradient * direction).sum(), x

    along, leaf = slope(maps)
    (second,) = torch.autograd.grad(along, leaf)
    step = 1e-3
    ends = [float(slope(maps + s * direction)[0].detach()) for s in (-step, step)]
    expected = (ends[1] - ends[0]) / (2 * step)
    assert float((second * direction).sum()) == pytest.approx(expected, rel=2e-2)


def test_with_and_without_gradient_agree():
    maps = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(5))
    plain = natstats.power_spectrum(maps)
    tracked = natstats.power_spectrum(maps.clone().requires_grad_(True))
    torch.testing.assert_close(plain, tracked.detach(), rtol=1e-5, atol=0)


def test_the_maps_are_left_as_they_were():
    for side in (7, 24, 48):
        maps = torch.randn(2, 3, side, side)
        before = maps.clone()
        natstats.power_spectrum(maps)
        assert torch.equal(maps, before)


def test_reduced_precision_does_not_reach_the_transform():
    """Neither autocast nor a low matmul precision may cost the small powers their bits."""
    fields = natstats.power_law_fields(4, 7, 7, alpha=5.0, seed=0)
    maps = torch.from_numpy(fields[:, None]).float()
    exact = natstats.power_spectrum(maps)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            reduced = natstats.power_spectrum(maps)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(reduced, exact, rtol=1e-6, atol=0)


def test_half_precision_maps_are_cast_up():
    maps = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(6)).half()
    torch.testing.assert_close(natstats.power_spectrum(maps), natstats.power_spectrum(maps.float()))


def test_a_prepared_transform_serves_inference_and_training():
    ring_transform.cache_clear()
    maps = torch.randn(1, 2, 13, 13)
    with torch.inference_mode():
        natstats.power_spectrum(maps)
    natstats.power_spectrum(maps.requires_grad_(True)).sum().backward()
    assert maps.grad is not None


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        (np.zeros((1, 1, 8, 8)), "torch.Tensor; got ndarray"),
        (torch.zeros(1, 8, 8), r"\(N, C, H, W\); got \(1, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.int64), "floating dtype; got torch.int64"),
        (torch.zeros(1, 0, 8, 8), "at least one channel"),
        (torch.zeros(1, 1, 4, 8), "at least 5 x 5 pixels; got 4 x 8"),
    ],
)
def test_bad_maps_are_named(maps, words):
    with pytest.raises(natstats.UsageError, match=words):
        natstats.power_spectrum(maps)


def test_an_unknown_treatment_names_the_near_ones():
    with pytest.raises(natstats.UsageError, match="edges: .*did you mean sine"):
        natstats.power_spectrum(torch.zeros(1, 1, 8, 8), edges="sin")

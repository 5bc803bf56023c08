"""Fields and spectra with a known exponent: for tests, calibration and documentation."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from natstats import checks
from natstats.spectra.accumulator import KEPT_IMAGES
from natstats.spectra.frequencies import radius_grid, rings
from natstats.spectra.records import Spectrum

__all__ = ["power_law_fields", "spectrum_of"]


def power_law_fields(
    n: int, height: int, width: int, alpha: float, *, outer_scale: int = 12, seed: int = 0
) -> NDArray[np.float64]:
    """Cut `n` crops from Gaussian random fields with power f^-alpha.

    Each crop is cut from a field of its own on a torus `outer_scale` times as long, so the crops
    are independent, not periodic, and hold wavelengths longer than themselves, as photographs do.

    Args:
        n: number of crops.
        height: H, pixels.
        width: W, pixels.
        alpha: exponent of the power (not the amplitude).
        outer_scale: longest wavelength in units of the crop's longer side.
        seed: of the generator.

    Returns:
        (n, H, W); the density of the field is f^-alpha exactly.

    Raises:
        UsageError: a count or size below 1.

    >>> power_law_fields(3, 8, 8, alpha=2.0).shape
    (3, 8, 8)
    """
    checks.positive_int("n", n)
    checks.positive_int("outer_scale", outer_scale)
    checks.positive_int("height", height)
    checks.positive_int("width", width)
    generator = np.random.default_rng(seed)
    side = outer_scale * max(height, width)
    radius = radius_grid(side, side)
    radius[0, 0] = 1.0
    amplitude = side * radius ** (-alpha / 2)
    amplitude[0, 0] = 0.0
    fields = np.empty((n, height, width))
    for first in range(0, n, 2):
        noise = generator.standard_normal((side, side, 2)).view(np.complex128)[..., 0]
        field = scipy.fft.ifft2(noise * amplitude)[:height, :width]
        # The real and the imaginary part are independent fields.
        for row, part in zip(fields[first : first + 2], (field.real, field.imag), strict=False):
            row[:] = part
    return fields


def spectrum_of(
    power: NDArray[np.float64],
    height: int,
    width: int,
    edges: str = "sine",
    n_groups: int | None = None,
) -> Spectrum:
    """What the accumulator would give for images of this ring power.

    Args:
        power: of every image, (n, n_rings).
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        edges: edge treatment.
        n_groups: groups of images; by default one for each.

    >>> spectrum_of(np.ones((3, 2)), 5, 5).n_images
    3
    """
    n_images, n_rings = power.shape
    n_groups = n_images if n_groups is None else n_groups
    group = np.arange(n_images) % max(n_groups, 1)
    mean = np.average(power, axis=1, weights=rings(height, width).n_members)[:, None]
    usable = np.isfinite(mean) & (mean > 0)
    own = np.divide(power, mean, out=np.zeros_like(power), where=usable)
    sums = np.zeros((2, n_groups, n_rings))
    np.add.at(sums[0], group, power)
    np.add.at(sums[1], group, own)
    return Spectrum(
        height=height,
        width=width,
        edges=edges,
        frequency=rings(height, width).frequency,
        power=sums[0],
        normalized=sums[1],
        count=np.bincount(group, minlength=n_groups),
        offset=np.zeros(n_groups),
        image_power=power[:KEPT_IMAGES].astype(np.float32),
    )

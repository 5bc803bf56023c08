"""Ring power of crops of known exponent, by the hundred thousand: the raw material of calibration.

Crops are cut from Gaussian random fields OUTER_SCALE times their longer side, sixteen from each.
The crops of one field share its long waves, so they go to sixteen different repeats: within a
repeat all images come from different fields and are independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.expected import OUTER_SCALE
from natstats.spectra.frequencies import radius_grid

PER_FIELD = 16

Array = NDArray[np.float64]


def crops(
    height: int, width: int, alphas: Sequence[float], n: int, generator: np.random.Generator
) -> list[Array]:
    """For each alpha, crops (n, PER_FIELD, H, W) of n fields, all alphas from the same noise."""
    side = OUTER_SCALE * max(height, width)
    radius = radius_grid(side, side)
    radius[0, 0] = 1.0
    found = [np.empty((n, PER_FIELD, height, width)) for _ in alphas]
    step = side // 4
    for first in range(0, n, 2):
        noise = generator.standard_normal((side, side, 2)).view(np.complex128)[..., 0]
        noise[0, 0] = 0.0
        for alpha, kept in zip(alphas, found, strict=True):
            # The real and the imaginary part are two independent fields of density f^-alpha.
            field = scipy.fft.ifft2(noise * radius ** (-alpha / 2)) * side
            for place, part in enumerate((field.real, field.imag)[: n - first]):
                for k in range(PER_FIELD):
                    row, column = step * (k // 4), step * (k % 4)
                    kept[first + place, k] = part[row : row + height, column : column + width]
    return found


def crop_power(
    height: int,
    width: int,
    alphas: Sequence[float],
    n: int,
    generator: np.random.Generator,
    edges: str = "sine",
) -> list[Array]:
    """For each alpha, ring power (n, PER_FIELD, n_rings) of the crops of n fields."""
    found: list[list[Array]] = [[] for _ in alphas]
    # A few fields at a time: the crops of all would not fit into memory.
    for first in range(0, n, 64):
        batch = crops(height, width, alphas, min(64, n - first), generator)
        for kept, fields in zip(found, batch, strict=True):
            maps = torch.from_numpy(fields.reshape(-1, 1, height, width))
            power = power_spectrum(maps, edges).numpy().astype(np.float64)
            kept.append(power.reshape(len(fields), PER_FIELD, -1))
    return [np.concatenate(parts) for parts in found]

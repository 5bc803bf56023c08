"""Maps of noise that the spectral terms are given, and their ring power by the definition."""

from __future__ import annotations

import numpy as np
import torch

from natstats.distill.method import Outputs, TapPoint
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

"""The estimators on one map, against the bounds of likelihood theory; part of calibration.py."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import scipy.fft
import scipy.linalg
import torch
from simulated import PER_FIELD, crops

from natstats.fits.bands import band_of
from natstats.fits.options import ESTIMATORS
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.edges import EDGES, axis_taper, boundary_laplacian
from natstats.spectra.expected import _covariance, _periodic, _tapered
from natstats.spectra.frequencies import radius_grid, rings

Rows = list[dict[str, Any]]


def full_bound(side: int, alpha: float) -> float:
    """Cramer-Rao bound on the sd of alpha from one map: Gaussian field, level and mean unknown."""
    lag = np.abs(np.subtract.outer(np.arange(side), np.arange(side)))

    def whole(covariance: np.ndarray) -> np.ndarray:
        square = covariance[lag[:, None, :, None], lag[None, :, None, :]]
        return square.reshape(side**2, side**2)

    step = 0.01
    lags = _covariance(side, side, alpha)
    # A large constant in the covariance leaves the mean free.
    matrix = whole(lags) + 10 * np.abs(lags).max()
    rise = _covariance(side, side, alpha + step) - _covariance(side, side, alpha - step)
    factor = scipy.linalg.cho_factor(matrix, lower=True, check_finite=False)
    by_alpha, by_level = (
        scipy.linalg.cho_solve(factor, whole(part), check_finite=False)
        for part in (rise / (2 * step), lags)
    )
    aa, al, ll = (
        0.5 * np.sum(one * two.T)
        for one, two in ((by_alpha, by_alpha), (by_alpha, by_level), (by_level, by_level))
    )
    return float(1 / np.sqrt(aa - al**2 / ll))


def ring_bound(side: int) -> float:
    """The same from the frequencies of the rings alone, taken as independent."""
    radius = radius_grid(side, side)[rings(side, side).index >= 0]
    return float(1 / np.sqrt(0.5 * np.sum((np.log(radius) - np.log(radius).mean()) ** 2)))


def plane_power(maps: np.ndarray, edges: str) -> np.ndarray:
    """Power at every frequency, without rings, (n, H, W)."""
    height, width = maps.shape[-2:]
    window = np.outer(axis_taper(height, edges), axis_taper(width, edges))
    mean = np.sum(window * maps, axis=(1, 2), keepdims=True) / window.sum()
    transform = scipy.fft.fft2(window * (maps - mean))
    if edges == "periodic":
        # The smooth component of Moisan (2011): jumps at the border over the Laplacian.
        jumps = np.zeros_like(maps)
        down, right = maps[:, -1] - maps[:, 0], maps[:, :, -1] - maps[:, :, 0]
        jumps[:, 0] += down
        jumps[:, -1] -= down
        jumps[:, :, 0] += right
        jumps[:, :, -1] -= right
        transform = transform - scipy.fft.fft2(jumps) / boundary_laplacian(height, width)
    return np.asarray(np.abs(transform) ** 2 / np.sum(window**2))


def whittle_plane(power: np.ndarray, side: int, edges: str, inside: np.ndarray) -> np.ndarray:
    """Debiased likelihood with every frequency of `inside` by itself, on a grid of exponents."""
    grid = np.linspace(1.6, 2.4, 81)
    expected = _periodic if edges == "periodic" else partial(_tapered, edges=edges)
    log_expected = np.log([expected(_covariance(side, side, alpha))[inside] for alpha in grid])
    objective = np.log(power[:, inside] @ np.exp(-log_expected).T) + log_expected.mean(axis=1)
    best = np.clip(objective.argmin(axis=1), 1, len(grid) - 2)
    left, middle, right = (objective[np.arange(len(best)), best + step] for step in (-1, 0, 1))
    shift = 0.5 * (left - right) / (left - 2 * middle + right)
    return np.asarray(grid[best] + shift * (grid[1] - grid[0]))


def efficiency(repeats: int, seed: int) -> Rows:
    """Sd of the estimators on one 64 x 64 map of alpha 2, against the two bounds."""
    side, alpha = 64, 2.0
    bounds = {"full": full_bound(side, alpha), "rings": ring_bound(side)}
    print("bounds on the sd:", {key: round(value, 4) for key, value in bounds.items()}, flush=True)
    (maps,) = crops(side, side, [alpha], -(-repeats // PER_FIELD), np.random.default_rng(seed))
    maps = maps.reshape(-1, side, side)
    rows: Rows = []

    def add(edges: str, name: str, found: np.ndarray) -> None:
        sd = float(found.std(ddof=1))
        rows.append(
            {
                "edges": edges,
                "estimator": name,
                "repeats": len(found),
                "bias": found.mean() - alpha,
                "sd": sd,
                "sd_se": sd / np.sqrt(2 * len(found)),
                **{f"over_{key}_bound": sd / value for key, value in bounds.items()},
                "bounds": bounds,
            }
        )
        print(edges, name, f"{sd:.4f}", f"{sd / bounds['rings']:.2f} {sd / bounds['full']:.2f}")

    disc = rings(side, side).index >= 0
    plane = radius_grid(side, side) > 0
    for edges in EDGES:
        power = power_spectrum(torch.from_numpy(maps[:, None]), edges).numpy().astype(np.float64)
        for name in ESTIMATORS:
            add(edges, name, band_of(side, side, edges, 0.0, 0.5).estimate(power, name))
        every = plane_power(maps, edges)
        add(edges, "no rings", whittle_plane(every, side, edges, disc))
        add(edges, "no rings, with corners", whittle_plane(every, side, edges, plane))
    return rows

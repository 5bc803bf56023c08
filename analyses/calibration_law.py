"""Error rates and power of the tests of the law; part of analyses/calibration.py.

Twenty layers see the same images. In a layer, an image has a crop of its own, of the image's
exponent and contrast; so layers share what images have in common, and no more. Crops are drawn from
a store of some thousand for each of many exponents, cut from much larger fields.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy import stats
from simulated import crop_power

from natstats.fits.bands import band_of
from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.law.law import fit_law
from natstats.spectra.expected import expected_spectrum
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of

N_LAYERS = 20
DEPTH = np.arange(1.0, N_LAYERS + 1)
SIZES = (28,) * 7 + (14,) * 7 + (7,) * 6
ALPHA_SD, CONTRAST_SIGMA = 0.3, 0.7
STORE_ALPHAS = np.arange(0.8, 3.21, 0.1)
STORE_FIELDS = 160

Rows = list[dict[str, Any]]


class Store:
    """Ring power of crops by exponent, brought to unit expected power."""

    def __init__(self, side: int, seed: int) -> None:
        self.side = side
        self.table = expected_spectrum(side, side)
        self.members = rings(side, side).n_members
        generator = np.random.default_rng([seed, side])
        drawn = crop_power(side, side, list(STORE_ALPHAS), STORE_FIELDS, generator)
        self.power = np.stack([power.reshape(-1, power.shape[-1]) for power in drawn])

    def _near(self, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of the nearest exponent in store, and what brings its crops to `alpha`."""
        near = np.rint((alpha - STORE_ALPHAS[0]) / 0.1).astype(int).clip(0, len(STORE_ALPHAS) - 1)
        wanted = self.table.log_power(alpha)
        shape = np.exp(wanted - self.table.log_power(STORE_ALPHAS[near]))
        unit = np.average(np.exp(wanted), axis=-1, weights=self.members)
        return near, shape / unit[:, None]

    def draw(self, alpha: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Ring power of a crop for each exponent, (n, n_rings)."""
        near, change = self._near(alpha)
        chosen = self.power[near, generator.integers(self.power.shape[1], size=len(alpha))]
        return np.asarray(chosen * change)

    @cache  # noqa: B019 (a handful of stores, alive to the end)
    def true_exponent(self, mean: float, alpha_sd: float) -> float:
        """Exponent of the mean spectrum of all images with exponents around `mean`.

        The store is the population: what it is off the ideal spectrum, being finite, is no error
        of the estimate.
        """
        quantiles = stats.norm.ppf((np.arange(1001) + 0.5) / 1001)
        near, change = self._near(mean + alpha_sd * quantiles)
        power = np.mean(self.power.mean(axis=1)[near] * change, axis=0)
        band = band_of(self.side, self.side, "sine", 0.0, 0.5)
        return float(band.estimate(power[None], "octave")[0])


def one_law(
    stores: dict[int, Store],
    n_images: int,
    exponents: np.ndarray,
    alpha_sd: float,
    contrast: float,
    scatter: float,
    generator: np.random.Generator,
) -> Any:
    """Measure 20 layers of known exponents once, and fit the law."""
    shift = alpha_sd * generator.standard_normal(n_images)
    amplitude = np.exp(contrast * generator.standard_normal(n_images))
    measured, known = [], []
    for place, (side, alpha) in enumerate(zip(SIZES, exponents, strict=True)):
        power = stores[side].draw(alpha + shift, generator) * amplitude[:, None] ** 2
        layer = Layer(str(place), 0, "conv", place + 1, 1, side, side, 1.0)
        measured.append(LayerSpectrum(layer, spectrum_of(power, side, side, n_groups=128)))
        known.append(stores[side].true_exponent(alpha, alpha_sd) - alpha)
    fits = fit_layers(measured, FitOptions())
    # Where images differ, the exponent of the mean spectrum is not their mean exponent, by an
    # amount that depends on the map size. It is known here, and taken off, so that the truth is a
    # line; the scatter between layers is added on top.
    found = fits.exponents - known + scatter * generator.standard_normal(N_LAYERS)
    return fit_law(DEPTH, found, fits.deviations, [str(side) for side in SIZES])


def rates(repeats: int, seed: int) -> Rows:
    """How often the tests reject what is true, and how often the slope's interval holds it."""
    stores = {side: Store(side, seed) for side in set(SIZES)}
    rows = []
    for n_images in (16, 64, 256):
        for alpha_sd, contrast in ((0.0, 0.0), (ALPHA_SD, CONTRAST_SIGMA)):
            for scatter in (0.0, 0.1):
                row: dict[str, Any] = {
                    "n_images": n_images,
                    "alpha_sd": alpha_sd,
                    "contrast": contrast,
                    "scatter": scatter,
                    "repeats": repeats,
                }
                # Two truths: flat, and rising by 0.03 a layer.
                for truth, slope in (("flat", 0.0), ("linear", 0.03)):
                    generator = np.random.default_rng([seed, n_images, int(10 * scatter), 7])
                    exponents = 2 + slope * (DEPTH - DEPTH.mean())
                    laws = [
                        one_law(stores, n_images, exponents, alpha_sd, contrast, scatter, generator)
                        for _ in range(repeats)
                    ]
                    inside = [law.slope_low < slope < law.slope_high for law in laws]
                    row[f"{truth}: slope covered"] = np.mean(inside)
                    row[f"{truth}: lack of fit"] = np.mean([x.lack_of_fit_p < 0.05 for x in laws])
                    row[f"{truth}: rank p"] = np.mean([x.rank_p < 0.05 for x in laws])
                    verdicts = [law.verdict for law in laws]
                    for verdict in dict.fromkeys(verdicts):
                        row[f"{truth}: {verdict}"] = verdicts.count(verdict) / repeats
                    row[f"{truth}: rises or falls"] = np.mean(
                        [v in ("linear", "rises, not linearly", "falls") for v in verdicts]
                    )
                rows.append(row)
                print(
                    {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()},
                    flush=True,
                )
    return rows


def power(repeats: int, seed: int, n_images: int = 64) -> Rows:
    """How often each verdict is reached, by the true slope."""
    stores = {side: Store(side, seed) for side in set(SIZES)}
    rows = []
    cases: Sequence[tuple[float, float, float]] = (
        (0.0, 0.0, 0.0),
        (ALPHA_SD, CONTRAST_SIGMA, 0.0),
        (ALPHA_SD, CONTRAST_SIGMA, 0.1),
    )
    for alpha_sd, contrast, scatter in cases:
        for slope in (0.0, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04):
            generator = np.random.default_rng([seed, 11])
            exponents = 2 + slope * (DEPTH - DEPTH.mean())
            verdicts = [
                one_law(stores, n_images, exponents, alpha_sd, contrast, scatter, generator).verdict
                for _ in range(repeats)
            ]
            rises = sum(v in ("linear", "rises, not linearly") for v in verdicts)
            low, high = stats.binomtest(rises, repeats).proportion_ci()
            rows.append(
                {
                    "n_images": n_images,
                    "alpha_sd": alpha_sd,
                    "contrast": contrast,
                    "scatter": scatter,
                    "slope": slope,
                    "repeats": repeats,
                    "rises": rises / repeats,
                    "rises_low": low,
                    "rises_high": high,
                    "linear": verdicts.count("linear") / repeats,
                }
            )
            print(rows[-1], flush=True)
    return rows

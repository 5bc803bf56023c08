"""How long it takes to fit 60 layers, with and without 1000 bootstrap resamples.

    python analyses/fit_speed.py

The layers have the map sizes of a ResNet-50 (twelve of 112, sixteen each of 56, 28 and 14 pixels)
and 128 groups of images. Printed and written: seconds of the first fit, which tabulates the
expected spectra, and the median of five more, for both intervals in turn; and of the law.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np

import natstats
from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.fits.records import Fits
from natstats.law.law import fit_law
from natstats.spectra.expected import expected_power, independent_modes
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of

SIZES = [112] * 12 + [56] * 16 + [28] * 16 + [14] * 16
RESULT = Path(__file__).parent / "results" / "fit_speed.json"


def layers(n_images: int = 1024) -> list[LayerSpectrum]:
    """Sixty layers of exponents between 1.5 and 2.5."""
    generator = np.random.default_rng(0)
    measured = []
    for place, side in enumerate(SIZES):
        modes = independent_modes(side, side)
        noise = generator.gamma(modes / 2, 2 / modes, size=(n_images, len(modes)))
        power = expected_power(1.5 + place / 60, side, side) * noise
        layer = Layer(f"layer{place}", 0, "conv", place + 1, 1, side, side, 224 / side)
        measured.append(LayerSpectrum(layer, spectrum_of(power, side, side, n_groups=128)))
    return measured


def law_of(fits: Fits) -> None:
    """The law over all layers."""
    labels = [str(side) for side in SIZES]
    fit_law(np.arange(1.0, 61.0), fits.exponents, fits.deviations, labels)


def main() -> None:
    """Time the fits in turn."""
    measured = layers()
    variants = {
        "jackknife": FitOptions(),
        "bootstrap, 1000 resamples": FitOptions(interval="bootstrap", resamples=1000),
        "bootstrap, 1000 resamples, whittle": FitOptions(
            interval="bootstrap", resamples=1000, estimator="whittle"
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in [*variants, "law"]}
    started = time.perf_counter()
    fits = fit_layers(measured)
    first = time.perf_counter() - started
    for _ in range(5):
        for name, options in variants.items():
            started = time.perf_counter()
            fit_layers(measured, options)
            seconds[name].append(time.perf_counter() - started)
        started = time.perf_counter()
        law_of(fits)
        seconds["law"].append(time.perf_counter() - started)
    record = {
        "command": "python analyses/fit_speed.py",
        "first_fit_seconds": first,
        "median_seconds": {name: statistics.median(found) for name, found in seconds.items()},
        "machine": f"{platform.machine()}, CPU",
        "versions": {"natstats": natstats.__version__, "numpy": np.__version__},
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

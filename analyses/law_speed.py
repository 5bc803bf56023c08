"""How long the verdict on a network of 60 layers takes, and the meta-analysis of 50 such networks.

    OMP_NUM_THREADS=1 python analyses/law_speed.py

After start-up: imports, tables of expected spectra and one run of each kind come first. Layers have
maps of four sizes, 64 groups of images and three kinds; medians of `ROUNDS` rounds. Prints, and
writes analyses/results/law_speed.json.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import natstats
from natstats.spectra.expected import expected_spectrum
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of

RESULT = Path(__file__).parent / "results" / "law_speed.json"
N_LAYERS, N_IMAGES, N_NETWORKS, ROUNDS = 60, 64, 50, 3
SIDES = (56, 28, 14, 7)
KINDS = ("pointwise", "depthwise", "pointwise")


def network(seed: int) -> natstats.Run:
    """A run of known spectra, as a measurement leaves it."""
    generator = np.random.default_rng(seed)
    layers = []
    for place in range(N_LAYERS):
        side = SIDES[place * len(SIDES) // N_LAYERS]
        alpha = 1.5 + 0.01 * place + 0.3 * generator.standard_normal()
        expected = np.exp(expected_spectrum(side, side).log_power(alpha))
        power = expected * generator.gamma(8.0, 1 / 8.0, (N_IMAGES, len(expected)))
        layer = Layer(f"layer{place}", 0, KINDS[place % 3], place + 1, 16, side, side, 56 / side,
                      order=place + 1, receptive_field=float(1 + 2 * place**1.2))  # fmt: skip
        layers.append(LayerSpectrum(layer, spectrum_of(power, side, side, n_groups=64)))
    info = {"name": f"network {seed}", "model": {"name": f"net{seed}", "digest": str(seed)}}
    return natstats.Run(layers, (), info)


def median_of(job: Callable[[], object]) -> float:
    """Median seconds of a job."""
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main() -> None:
    """Time both."""
    one = network(0)
    n = len(one.verdict.specifications.rows)

    def verdict() -> object:
        run = one.refit()
        run.__dict__["fits"] = one.fits
        run.__dict__["layers"] = one.layers
        return run.verdict

    networks = {f"network {seed}": network(seed) for seed in range(N_NETWORKS)}
    record = {
        "command": "OMP_NUM_THREADS=1 python analyses/law_speed.py",
        "machine": f"{platform.machine()}, one thread",
        "natstats": natstats.__version__,
        "layers": N_LAYERS,
        "specifications": n,
        "verdict_seconds": median_of(verdict),
        "networks": N_NETWORKS,
        "meta_analysis_seconds": median_of(lambda: natstats.meta_analysis(networks)),
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()

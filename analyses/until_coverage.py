"""How often an interval holds the truth when a measurement stops as soon as it is narrow enough.

    python analyses/until_coverage.py
    python analyses/until_coverage.py --trials 200

Images come one after the other, in an order without meaning. Their power falls as 1/f^alpha, with
a gain and an exponent of each image's own that spread as those of photographs do, and the scatter
that rings of so many frequencies have. Intervals are looked at when natstats looks
(natstats.measurement.until), and the first look at which all are narrow enough ends it. Printed:
how often the 95 % interval then holds the exponent of the mean power over all images that there
could be, beside the same for as many images without any look, whose intervals are not widened; with
intervals of Wilson. One layer is the hardest case; with several the widest decides when to stop,
and for the others that is nearly a fixed number.

Writes analyses/results/until_coverage.csv.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from natstats.fits.estimators import ESTIMATORS
from natstats.fits.exponents import fit_spectrum
from natstats.fits.options import FitOptions
from natstats.measurement.until import FIRST_LOOK, next_look
from natstats.spectra.frequencies import rings
from natstats.spectra.simulate import spectrum_of

RESULTS = Path(__file__).parent / "results" / "until_coverage.csv"
SIDE, GROUPS, MOST = 32, 128, 20_000

# Of 162 photographs, in grey, and of every sixth layer of MobileNetV2 on them.
GAIN, OWN_EXPONENT = 0.85, 0.34
GAINS, OWN_EXPONENTS = (0.3, 0.6), (0.25, 0.4)


@dataclass(frozen=True)
class Layer:
    """A layer whose images scatter as those of photographs do.

    Attributes:
        alpha: exponent of an image without an own one.
        gain: standard deviation of the logarithm of an image's power.
        own: standard deviation of the exponents of images.
    """

    alpha: float
    gain: float
    own: float

    def power(self, n: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Ring power of n images, (n, n_rings)."""
        ring = rings(SIDE, SIDE)
        log = np.log(ring.frequency / 0.5)
        gain = generator.normal(0, self.gain, (n, 1))
        own = generator.normal(self.alpha, self.own, (n, 1))
        noise = generator.gamma(ring.n_members / 4, 4 / ring.n_members, (n, len(log)))
        return np.exp(gain - own * log) * noise

    def truth(self, fit: FitOptions) -> float:
        """Exponent of the mean power over all images."""
        log = np.log(rings(SIDE, SIDE).frequency / 0.5)
        mean = np.exp(-self.alpha * log + self.own**2 * log**2 / 2)
        many = spectrum_of(np.repeat(mean[None], 2 * FIRST_LOOK, 0), SIDE, SIDE, n_groups=GROUPS)
        return float(fit_spectrum(many, fit).exponent)


def stopped(
    layers: list[Layer], wanted: float, fit: FitOptions, generator: np.random.Generator
) -> tuple[int, list[bool], list[bool]]:
    """Images until it stops, and whether each interval holds the truth, with looks and without."""
    truths = [layer.truth(fit) for layer in layers]
    power = [layer.power(512, generator) for layer in layers]
    n = FIRST_LOOK
    while True:
        while len(power[0]) < n:
            more = min(len(power[0]), MOST)
            power = [
                np.concatenate([own, layer.power(more, generator)])
                for own, layer in zip(power, layers, strict=True)
            ]
        fits = [
            fit_spectrum(spectrum_of(own[:n], SIDE, SIDE, n_groups=GROUPS), fit, is_brief=True)
            for own in power
        ]
        width = np.nanmax([one.high - one.low for one in fits])
        if width <= wanted or n >= MOST:
            break
        n = min(next_look(n, float(width), wanted), MOST)
    plain = replace(fit, stopped=False)
    again = [
        fit_spectrum(
            spectrum_of(layer.power(n, generator), SIDE, SIDE, n_groups=GROUPS),
            plain,
            is_brief=True,
        )
        for layer in layers
    ]
    holds = [
        [one.low <= truth <= one.high for one, truth in zip(own, truths, strict=True)]
        for own in (fits, again)
    ]
    return n, *holds


def main() -> None:
    """Simulate, print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    fit = FitOptions(stopped=True)
    assert fit.estimator in ESTIMATORS
    one = [Layer(2.0, GAIN, OWN_EXPONENT)]
    spread = np.linspace(0, 1, 20)
    twenty = [
        Layer(2 - step, float(np.interp(step, (0, 1), GAINS)), float(np.interp(step, (0, 1), own)))
        for step, own in ((float(step), OWN_EXPONENTS) for step in spread)
    ]
    rows = []
    for name, layers, share in (("1 layer", one, 1), ("20 layers", twenty, 10)):
        for wanted in (0.4, 0.2, 0.1):
            generator = np.random.default_rng(0)
            found = [stopped(layers, wanted, fit, generator) for _ in range(trials // share)]
            row: dict[str, object] = {
                "layers": name,
                "until": wanted,
                "trials": len(found),
                "images_median": int(np.median([n for n, _, _ in found])),
            }
            for place, how in ((1, "stopped"), (2, "fixed")):
                held = [one[place] for one in found]
                flat = np.array(held).ravel()
                low, high = proportion_confint(
                    int(flat.sum() / len(layers)), len(found), method="wilson"
                )
                row |= {f"{how}": flat.mean(), f"{how}_low": low, f"{how}_high": high}
            rows.append(row)
            print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.3f"), flush=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()

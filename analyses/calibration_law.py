"""Error rates and power of the verdict on the law; part of analyses/calibration.py.

Layers see the same images. In a layer, an image has a crop of its own, of the image's exponent and
contrast; so layers share what images have in common, and no more. Crops are drawn from a store of
some thousand for each of many exponents, cut from much larger fields. What is measured so has the
errors of images; a scatter of the layers, of a kind that is known, is added to it:

* autocorrelated in depth (phi from 0 to 0.85), heavy-tailed (t with 3 degrees of freedom);
* alternating between two kinds of layer, 1.8 sd apart;
* stepping by stage: a level of its own for maps of each size, of 2 sd of what is left;
* one outlying layer of 5 sd, the first or the last.

Networks have 17, 26 or 55 layers, with maps of one size or of four. Steps are not drawn where all
maps have one size: nothing then marks a stage, and no test could tell steps from a trend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy import stats
from simulated import crop_power

from natstats.fits.bands import band_of
from natstats.fits.intervals import jackknife_deviations, leave_one_out
from natstats.law.regression import LayerErrors
from natstats.law.trend import line_of, outcome_of, rank_p, usable_layers
from natstats.spectra.expected import expected_spectrum
from natstats.spectra.frequencies import rings

ALPHA_SD, CONTRAST_SIGMA = 0.3, 0.7
STORE_ALPHAS = np.arange(0.8, 3.21, 0.1)
STORE_FIELDS = 160
N_IMAGES = 64
SCATTER = 0.3
"""Standard deviation of the scatter of layers, about that of real networks."""

SIZES = {"one size": (14,), "four sizes": (28, 20, 14, 7)}
LAYERS = (17, 26, 55)
IMAGES = {"alike": (0.0, 0.0), "different": (ALPHA_SD, CONTRAST_SIGMA)}
POWER_LAYERS = (20, 52)
RISES = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Total rises, standard deviations of the scatter."""

Array = np.ndarray
Rows = list[dict[str, Any]]


class Store:
    """Ring power of crops by exponent, brought to unit expected power."""

    def __init__(self, side: int, seed: int) -> None:
        self.side = side
        self.table = expected_spectrum(side, side)
        self.members = rings(side, side).n_members
        self.band = band_of(side, side, "sine", 0.0, 0.5)
        generator = np.random.default_rng([seed, side])
        drawn = crop_power(side, side, list(STORE_ALPHAS), STORE_FIELDS, generator)
        self.power = np.stack([power.reshape(-1, power.shape[-1]) for power in drawn])

    def _near(self, alpha: Array) -> tuple[Array, Array]:
        """Place of the nearest exponent in store, and what brings its crops to `alpha`."""
        near = np.rint((alpha - STORE_ALPHAS[0]) / 0.1).astype(int).clip(0, len(STORE_ALPHAS) - 1)
        wanted = self.table.log_power(alpha)
        shape = np.exp(wanted - self.table.log_power(STORE_ALPHAS[near]))
        unit = np.average(np.exp(wanted), axis=-1, weights=self.members)
        return near, shape / unit[:, None]

    def draw(self, alpha: Array, generator: np.random.Generator) -> Array:
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
        return float(self.band.estimate(power[None], "octave")[0])


@dataclass(frozen=True, eq=False)
class Network:
    """Layers by depth with the side of their maps, and the labels of their stages."""

    sides: tuple[int, ...]

    @classmethod
    def of(cls, n_layers: int, sizes: tuple[int, ...]) -> Network:
        """So many layers, the sizes taking equal parts of the depth."""
        return cls(tuple(sizes[place * len(sizes) // n_layers] for place in range(n_layers)))

    @property
    def labels(self) -> list[str]:
        """What marks the stages."""
        return [str(side) for side in self.sides]

    @property
    def depth(self) -> Array:
        """Depth of the layers, (L,)."""
        return np.arange(1.0, len(self.sides) + 1)

    def measure(
        self, stores: dict[int, Store], images: tuple[float, float], generator: np.random.Generator
    ) -> tuple[Array, Array]:
        """Errors of the exponents that one set of images gives, (L,), and their deviations."""
        alpha_sd, contrast = images
        shift = alpha_sd * generator.standard_normal(N_IMAGES)
        amplitude = np.exp(contrast * generator.standard_normal(N_IMAGES))
        errors, deviations = [], []
        count = np.ones(N_IMAGES)
        for side in self.sides:
            store = stores[side]
            power = store.draw(2.0 + shift, generator) * amplitude[:, None] ** 2
            rows = np.concatenate([power.mean(0, keepdims=True), leave_one_out(power, count)])
            exponent, *left = store.band.estimate(rows, "octave")
            errors.append(exponent - store.true_exponent(2.0, alpha_sd))
            deviations.append(jackknife_deviations(exponent, np.array(left), count))
        return np.array(errors), np.stack(deviations, axis=1)


def autocorrelated(phi: float) -> Callable[[Network, np.random.Generator], Array]:
    """Scatter whose neighbours in depth have the correlation phi."""

    def draw(network: Network, generator: np.random.Generator) -> Array:
        noise = generator.standard_normal(len(network.sides))
        for place in range(1, len(noise)):
            noise[place] = phi * noise[place - 1] + np.sqrt(1 - phi**2) * noise[place]
        return noise

    return draw


def heavy(network: Network, generator: np.random.Generator) -> Array:
    """Scatter by Student's t with three degrees of freedom, of unit variance."""
    return generator.standard_t(3, len(network.sides)) / np.sqrt(3)


def alternating(network: Network, generator: np.random.Generator) -> Array:
    """Two kinds of layer in turn, of unit variance together."""
    n = len(network.sides)
    return 0.9 * (-1.0) ** np.arange(n) + np.sqrt(1 - 0.81) * generator.standard_normal(n)


def stepping(network: Network, generator: np.random.Generator) -> Array:
    """A level for each stage, four fifths of the variance; of unit variance together."""
    level = {side: generator.standard_normal() for side in dict.fromkeys(network.sides)}
    steps = np.array([level[side] for side in network.sides])
    return np.sqrt(0.8) * steps + np.sqrt(0.2) * generator.standard_normal(len(steps))


def outlying(place: int) -> Callable[[Network, np.random.Generator], Array]:
    """Independent scatter with one layer 5 sd off."""

    def draw(network: Network, generator: np.random.Generator) -> Array:
        noise = generator.standard_normal(len(network.sides))
        noise[place] += 5 * generator.choice([-1, 1])
        return noise

    return draw


SCATTERS: dict[str, Callable[[Network, np.random.Generator], Array]] = {
    **{f"phi {phi:g}": autocorrelated(phi) for phi in (0.0, 0.3, 0.5, 0.7, 0.85)},
    "t, 3 dof": heavy,
    "alternating": alternating,
    "steps": stepping,
    "first layer out": outlying(0),
    "last layer out": outlying(-1),
}


def _cells(layers: tuple[int, ...]) -> Iterator[tuple[Network, dict[str, Any]]]:
    for n_layers in layers:
        for sizes, sides in SIZES.items():
            for images in IMAGES:
                yield (
                    Network.of(n_layers, sides),
                    {"layers": n_layers, "maps": sizes, "images": images},
                )


def _tests(
    network: Network, exponents: Array, deviations: Array, slope: float
) -> tuple[str, bool, float]:
    """Outcome, whether the slope's interval holds the truth, and the estimate of phi.

    These are the steps of `fit_law` behind its words "rises", "falls" and "linear law"; its other
    steps (shapes, description) would take most of the time, and change none of that.
    """
    depth, labels = network.depth, network.labels
    layers = usable_layers(depth, exponents, deviations, labels, labels)
    line = _line(network)
    measured = LayerErrors(layers.exponent, layers.deviations)
    fit = measured.regress(line)
    found = fit.coefficient(1)
    low, high = found.interval(0.95)
    outcome = outcome_of(found.mean, found.p(), rank_p(measured, line))
    return outcome, low < slope < high, fit.correlation


@cache
def _line_of(sides: tuple[int, ...]) -> Any:
    network = Network(sides)
    n, labels = len(sides), network.labels
    return line_of(usable_layers(network.depth, network.depth, np.ones((3, n)), labels, labels))


def _line(network: Network) -> Any:
    return _line_of(network.sides)


def _stores(seed: int) -> dict[int, Store]:
    """Crops of every side that a network has."""
    return {side: Store(side, seed) for side in sorted({s for one in SIZES.values() for s in one})}


def rates(repeats: int, seed: int) -> Rows:
    """How often flat exponents are called a trend, and how often the interval holds the slope."""
    stores = _stores(seed)
    rows = []
    for network, cell in _cells(LAYERS):
        generator = np.random.default_rng([seed, cell["layers"], len(set(network.sides)), 7])
        measured = [
            network.measure(stores, IMAGES[cell["images"]], generator) for _ in range(repeats)
        ]
        for name, draw in SCATTERS.items():
            if name == "steps" and cell["maps"] == "one size":
                continue
            found = [
                _tests(network, errors + SCATTER * draw(network, generator), deviations, 0.0)
                for errors, deviations in measured
            ]
            outcomes = [outcome for outcome, _, _ in found]
            false = np.mean([outcome != "no trend" for outcome in outcomes])
            rows.append(
                {
                    **cell,
                    "scatter": name,
                    "repeats": repeats,
                    "false": false,
                    "false_se": np.sqrt(false * (1 - false) / repeats),
                    "covered": np.mean([inside for _, inside, _ in found]),
                    "phi": np.mean([phi for _, _, phi in found]),
                }
            )
            print(_spoken(rows[-1]), flush=True)
    return rows


def power(repeats: int, seed: int) -> Rows:
    """How often a total rise is found, by its size in standard deviations of the scatter."""
    stores = _stores(seed)
    rows = []
    for network, cell in _cells(POWER_LAYERS):
        generator = np.random.default_rng([seed, cell["layers"], len(set(network.sides)), 11])
        measured = [
            network.measure(stores, IMAGES[cell["images"]], generator) for _ in range(repeats)
        ]
        for phi in (0.0, 0.5):
            draws = [SCATTER * autocorrelated(phi)(network, generator) for _ in measured]
            for rise in RISES:
                slope = rise * SCATTER / (len(network.sides) - 1)
                found = [
                    _tests(network, errors + draw + slope * network.depth, deviations, slope)
                    for (errors, deviations), draw in zip(measured, draws, strict=True)
                ]
                outcomes = [outcome for outcome, _, _ in found]
                rises = outcomes.count("rises")
                low, high = stats.binomtest(rises, repeats).proportion_ci()
                rows.append(
                    {
                        **cell,
                        "phi": phi,
                        "rise": rise,
                        "repeats": repeats,
                        "rises": rises / repeats,
                        "rises_low": low,
                        "rises_high": high,
                        "falls": outcomes.count("falls") / repeats,
                        "covered": np.mean([inside for _, inside, _ in found]),
                    }
                )
                print(_spoken(rows[-1]), flush=True)
    return rows


def _spoken(row: dict[str, Any]) -> str:
    return ", ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items())

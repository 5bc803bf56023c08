"""How often the random-weights control calls chance a difference, and what seeds can tell.

    python analyses/control_calibration.py        # a few minutes on one core

In every repeat one network more than there are seeds is drawn, and one of them plays the trained
one: with no effect it is a draw like the others, with an effect its exponents rise with depth, from
nothing at the first layer to four standard deviations of the seeds at the last. The networks are

* simulated: twenty layers whose exponents differ from seed to seed by more as maps shrink, with
  correlations of 0, 0.6 or 0.9 between neighbours, and errors of the images as of 64 groups;
* real: ResNet-20 with random weights of 40 seeds on the photographs of the demo at 32 x 32 pixels,
  of which every repeat draws its own, every one playing the trained one equally often.

Three estimates of the variance of seeds are compared:

* own: of the layer itself, n - 1 degrees of freedom;
* pooled: drawn towards that of all layers of the size of its maps, by empirical Bayes (Smyth 2004,
  Statistical Applications in Genetics and Molecular Biology 3), with d0 + n - 1 degrees of freedom;
* capped: the same, with no more degrees of freedom than n - 1 times the effective number of layers,
  tr(C)^2 / tr(C^2) of their covariance C over seeds, estimated without bias.

The table, analyses/results/control_calibration.csv, has the share of layers with p < 0.05, of
repeats with a layer that is told after Holm's correction, with a mean and with a slope that are.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from scipy import stats

import natstats
from natstats import demo
from natstats.fits.intervals import effective_dof
from natstats.law import seed_variance
from natstats.law.differences import Differences, ErrorSource
from natstats.networks.load import Network, build_network

RESULTS = Path(__file__).parent / "results" / "control_calibration.csv"
N_SEEDS = (3, 5, 10)
EFFECT = 4.0
SIDE = np.repeat([32.0, 16.0, 8.0], [7, 7, 6])
SEED_SD = {32: 0.15, 16: 0.25, 8: 0.3}
IMAGE_SD, N_GROUPS = 0.03, 64

Draw = tuple[np.ndarray, np.ndarray]
"""Exponents (1 + n, L) and deviations (1 + n, G, L) of networks, the trained one first."""


def uncapped(exponents: np.ndarray, side: np.ndarray) -> ErrorSource:
    """As :func:`pooled_seeds`, as if no layer told what another tells."""
    with mock.patch.object(seed_variance, "effective_number", lambda found: found.shape[1]):
        return seed_variance.pooled_seeds(exponents, side)


ESTIMATES: dict[str, Callable[[np.ndarray, np.ndarray], ErrorSource]] = {
    "own": lambda exponents, side: seed_variance.seeds_as_source(exponents),
    "pooled": uncapped,
    "capped": seed_variance.pooled_seeds,
}


def simulated(correlation: float, repeats: int, n: int, rng: np.random.Generator) -> Iterator[Draw]:
    """Networks whose neighbouring layers are correlated, and whose images add errors of theirs."""
    n_layers = len(SIDE)
    lag = np.abs(np.subtract.outer(np.arange(n_layers), np.arange(n_layers)))
    sd = np.array([SEED_SD[side] for side in SIDE])
    root = np.linalg.cholesky(correlation**lag) * sd[:, None]
    for _ in range(repeats):
        deviations = rng.standard_normal((1 + n, N_GROUPS, n_layers)) * IMAGE_SD / np.sqrt(N_GROUPS)
        seeds = rng.standard_normal((1 + n, n_layers)) @ root.T
        yield seeds + deviations.sum(axis=1), deviations


def real(kept: Draw, repeats: int, n: int, rng: np.random.Generator) -> Iterator[Draw]:
    """Networks out of those that were measured, every one the trained one in its turn."""
    exponents, deviations = kept
    for repeat in range(repeats):
        first = repeat % len(exponents)
        others = rng.permutation(np.delete(np.arange(len(exponents)), first))[:n]
        chosen = [first, *others]
        yield exponents[chosen], deviations[chosen]


def measured(n_networks: int) -> tuple[Draw, np.ndarray, np.ndarray]:
    """ResNet-20 with random weights: exponents and deviations, depths and sizes of the maps."""
    exponents, deviations = [], []
    for seed in range(n_networks):
        network = Network(build_network("cifar_resnet20", seed).eval(), "resnet", "none (random)")
        run = natstats.measure(network, demo.photographs(), size=32, batch_size=24)
        inner = [i for i, one in enumerate(run.spectra) if one.layer.kind != "input"]
        exponents.append(run.fits.exponents[inner])
        deviations.append(run.fits.deviations[:, inner])
    layers = [run.spectra[i].layer for i in inner]
    depth = np.array([layer.depth for layer in layers], dtype=np.float64)
    side = np.array([layer.height for layer in layers], dtype=np.float64)
    return (np.array(exponents), np.array(deviations)), depth, side


def layer_p(value: np.ndarray, images: ErrorSource, seeds: ErrorSource) -> np.ndarray:
    """P of every layer, (L,): :meth:`natstats.law.differences.Differences.each`, all at once."""
    parts = [np.sum(one.deviations**2, axis=0) for one in (images, seeds)]
    inverse = parts[0] ** 2 / effective_dof(images.deviations) + parts[1] ** 2 / seeds.dof
    dof = np.minimum((parts[0] + parts[1]) ** 2 / inverse, seeds.dof)
    return np.asarray(2 * stats.t.sf(np.abs(value) / np.sqrt(parts[0] + parts[1]), dof))


def rates(
    draws: Iterator[Draw], depth: np.ndarray, side: np.ndarray, rise: np.ndarray
) -> pd.DataFrame:
    """How often layers, families of layers, the mean and the slope are told from the seeds."""
    every = np.arange(len(depth))
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in ESTIMATES}
    for exponents, deviations in draws:
        trained, seeds = exponents[0] + rise, exponents[1:]
        images = ErrorSource(deviations[0] - deviations[1:].mean(axis=0))
        for name, estimate in ESTIMATES.items():
            source = estimate(seeds, side)
            differences = Differences(trained - seeds.mean(axis=0), [images, source], 0.95)
            p = layer_p(differences.value, images, source)
            if not found[name]:
                np.testing.assert_allclose(p, [one.p for one in differences.each()])
            found[name].append(
                (
                    float(np.mean(p < 0.05)),
                    float(len(p) * p.min() < 0.05),  # Holm's rule for the smallest
                    float(differences.mean(every).p < 0.05),
                    float(differences.slope(depth, every).p < 0.05),
                )
            )
    columns = ["layer", "family", "mean", "slope"]
    means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    frame = pd.DataFrame.from_dict(means, orient="index", columns=columns)
    return frame.rename_axis("estimate").reset_index()


def main() -> None:
    """Run the study, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=600)
    parser.add_argument("--networks", type=int, default=40, help="real ones")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    started = time.time()
    kept, real_depth, real_side = measured(arguments.networks)
    print(f"{arguments.networks} real networks, {time.time() - started:.0f} s", flush=True)
    sd = np.array([SEED_SD[side] for side in SIDE])
    cases = {f"simulated, {correlation:g}": correlation for correlation in (0.0, 0.9)}
    parts = []
    for place, name in enumerate([*cases, "real"]):
        if name == "real":
            depth, side, spread = real_depth, real_side, kept[0].std(axis=0, ddof=1)
        else:
            depth, side, spread = np.arange(1.0, 21.0), SIDE, sd
        for n in N_SEEDS:
            for effect in (0.0, EFFECT):
                rng = np.random.default_rng([arguments.seed, place, n, int(effect)])
                if name == "real":
                    draws = real(kept, arguments.repeats, n, rng)
                else:
                    draws = simulated(cases[name], arguments.repeats, n, rng)
                rise = effect * spread * (depth - depth[0]) / np.ptp(depth)
                part = rates(draws, depth, side, rise)
                cell = {"networks": name, "n_seeds": n, "effect": effect}
                for key, value in reversed(cell.items()):
                    part.insert(0, key, value)
                print(part.to_string(index=False, header=not parts), flush=True)
                parts.append(part.assign(repeats=arguments.repeats))
    pd.concat(parts).round(4).to_csv(arguments.out, index=False)
    print(f"{arguments.out}, {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

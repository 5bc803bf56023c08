"""How far exponents, intervals and the tests of the law can be trusted: simulation studies.

    python analyses/calibration.py            # everything, about an hour and a half
    python analyses/calibration.py bias coverage --repeats 100

Every part prints its table as it goes and writes analyses/results/calibration_PART.json, from which
figures/calibration.py makes docs/calibration.md. Parts:

* bias: of the estimators, by exponent and map size, crops cut from much larger fields;
* coverage: of the intervals, for images alike, of different exponents, of different contrast;
* efficiency: standard deviation of ``whittle`` on one map against the bounds of likelihood theory;
* outer: what the exponent changes by when the field's longest wave is not the assumed one (exact);
* single: scatter and bias of the exponents of single images;
* forms: how often a form other than the power law is flagged, wrongly and rightly;
* law: error rates of the tests of the law, coverage of its slope;
* power: how often a rise is found, by its slope;
* networks: coverage of the mean slope of many networks, rates of the tests between networks.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import calibration_bounds
import calibration_forms
import calibration_law
import calibration_networks
import numpy as np
import scipy
from scipy import stats
from simulated import PER_FIELD, crop_power

import natstats
from natstats.fits.bands import band_of
from natstats.fits.exponents import fit_spectrum
from natstats.fits.options import ESTIMATORS, FitOptions
from natstats.spectra.edges import EDGES
from natstats.spectra.expected import (
    EXPONENT_RANGE,
    OUTER_SCALE,
    expected_power,
    expected_spectrum,
)
from natstats.spectra.frequencies import rings
from natstats.spectra.simulate import spectrum_of

RESULTS = Path(__file__).parent / "results"
N_BATCHES = 8

Rows = list[dict[str, Any]]


def bias(repeats: int, seed: int) -> Rows:
    """Mean error of each estimator on the mean spectrum of 64 images."""
    rows = []
    n_images = 64
    alphas = [0.0, 1.0, 2.0, 3.0, 4.0]
    for height, width in ((7, 7), (14, 14), (28, 28), (56, 56), (112, 112), (16, 64)):
        band = band_of(height, width, "sine", 0.0, 0.5)
        errors: dict[tuple[float, str], list[np.ndarray]] = {}
        for batch in range(N_BATCHES):
            generator = np.random.default_rng([seed, height, width, batch])
            # Crops of one field go to different repeats.
            fields = -(-repeats // (N_BATCHES * PER_FIELD)) * n_images
            powers = crop_power(height, width, alphas, fields, generator)
            for alpha, power in zip(alphas, powers, strict=True):
                mean = power.reshape(-1, n_images, PER_FIELD, power.shape[-1]).mean(1)
                mean = mean.reshape(-1, power.shape[-1])
                for name in ESTIMATORS:
                    errors.setdefault((alpha, name), []).append(band.estimate(mean, name) - alpha)
        for (alpha, name), parts in errors.items():
            # Batches share no field, so their means tell the error of the table itself.
            means = [part.mean() for part in parts]
            whole = np.concatenate(parts)
            rows.append(
                {
                    "height": height,
                    "width": width,
                    "alpha": alpha,
                    "estimator": name,
                    "repeats": len(whole),
                    "n_images": n_images,
                    "bias": whole.mean(),
                    "bias_se": np.std(means, ddof=1) / np.sqrt(N_BATCHES),
                    "sd": whole.std(ddof=1),
                }
            )
            if name != "ols":
                print(
                    f"{height:3d} x {width:<3d} alpha {alpha:g} {name:8s} "
                    f"{whole.mean():+.4f} +- {rows[-1]['bias_se']:.4f}",
                    flush=True,
                )
    return rows


ALPHA_SD, CONTRAST_SIGMA = 0.3, 0.7


def unit_power(alpha: np.ndarray, height: int, width: int) -> np.ndarray:
    """Expected power of the rings together, per frequency: what images are brought to 1 by."""
    expected = np.exp(expected_spectrum(height, width).log_power(alpha))
    return np.average(expected, axis=-1, weights=rings(height, width).n_members)


def true_exponent(height: int, width: int, estimator: str, alpha_sd: float) -> float:
    """Exponent of the mean spectrum of the population of images, by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    alpha = 2 + alpha_sd * nodes
    expected = np.exp(expected_spectrum(height, width).log_power(alpha))
    mean = weights @ (expected / unit_power(alpha, height, width)[:, None])
    return float(band_of(height, width, "sine", 0.0, 0.5).estimate(mean[None], estimator)[0])


def image_sets(
    side: int, repeats: int, n_images: int, alpha_sd: float, generator: np.random.Generator
) -> np.ndarray:
    """Ring power of independent repeats, each of images from different fields, (R, n, n_rings)."""
    n_fields = -(-repeats // PER_FIELD) * n_images
    if alpha_sd:
        alphas = 2 + alpha_sd * generator.standard_normal(n_fields)
        one_each = [crop_power(side, side, [alpha], 1, generator)[0] for alpha in alphas]
        power = np.concatenate(one_each)
    else:
        alphas = np.full(n_fields, 2.0)
        (power,) = crop_power(side, side, [2.0], n_fields, generator)
    power /= unit_power(alphas, side, side)[:, None, None]
    # The k-th crops of all fields, in an order of their own, make up so many repeats: none holds
    # two crops of one field, and no two repeats hold the same fields.
    mixed = [power[generator.permutation(n_fields), k] for k in range(PER_FIELD)]
    sets = np.concatenate(mixed).reshape(-1, n_images, power.shape[-1])
    return sets[:repeats]


def coverage(repeats: int, seed: int) -> Rows:
    """Share of intervals that hold the true exponent, and their width."""
    rows = []
    for side in (14, 28):
        for alpha_sd in (0.0, ALPHA_SD):
            generator = np.random.default_rng([seed, side, int(100 * alpha_sd)])
            sets = image_sets(side, repeats, 256, alpha_sd, generator)
            amplitude = np.exp(CONTRAST_SIGMA * generator.standard_normal(sets.shape[:2]))
            for contrast in (0.0, CONTRAST_SIGMA):
                drawn = sets * amplitude[..., None] ** 2 if contrast else sets
                for n_images in (16, 64, 256):
                    rows += _coverage_cell(drawn[:, :n_images], side, alpha_sd, contrast)
    return rows


def _coverage_cell(drawn: np.ndarray, side: int, alpha_sd: float, contrast: float) -> Rows:
    hits: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for power in drawn:
        spectrum = spectrum_of(power, side, side, n_groups=128)
        for estimator in ("octave", "whittle"):
            options = FitOptions(estimator=estimator)
            fit = fit_spectrum(spectrum, options)
            ends = {"effective dof": (fit.low, fit.high)}
            reach = stats.t.ppf(0.975, np.count_nonzero(spectrum.count) - 1) * fit.standard_error
            ends["plain jackknife-t"] = fit.exponent - reach, fit.exponent + reach
            if estimator == "octave":
                again = fit_spectrum(spectrum, FitOptions(interval="bootstrap"))
                ends["bootstrap-t"] = again.low, again.high
            for interval, (low, high) in ends.items():
                hits.setdefault((estimator, interval), []).append((low, high, fit.dof))
    rows = []
    for (estimator, interval), found in hits.items():
        low, high, dof = np.array(found).T
        truth = true_exponent(side, side, estimator, alpha_sd)
        inside = float(np.mean((low < truth) & (truth < high)))
        rows.append(
            {
                "side": side,
                "n_images": drawn.shape[1],
                "alpha_sd": alpha_sd,
                "contrast": contrast,
                "estimator": estimator,
                "interval": interval,
                "repeats": len(drawn),
                "coverage": inside,
                "coverage_se": np.sqrt(inside * (1 - inside) / len(drawn)),
                "below": float(np.mean(high < truth)),
                "above": float(np.mean(low > truth)),
                "width": float(np.median(high - low)),
                "dof": float(np.median(dof)),
            }
        )
        print(
            f"{side} px, {drawn.shape[1]:3d} images, sd {alpha_sd}, contrast {contrast}, "
            f"{estimator:8s}{interval:18s}{100 * inside:5.1f} % +- "
            f"{100 * rows[-1]['coverage_se']:.1f}, width {rows[-1]['width']:.3f}",
            flush=True,
        )
    return rows


def outer(repeats: int, seed: int) -> Rows:
    """What an exponent reads as when the field's waves are shorter or longer than assumed."""
    rows = []
    for side in (7, 14, 28, 56, 112):
        for edges in EDGES:
            band = band_of(side, side, edges, 0.0, 0.5)
            for alpha in np.arange(0.0, 5.01, 0.5):
                shifts = {}
                for scale in (OUTER_SCALE // 3, 3 * OUTER_SCALE, 9 * OUTER_SCALE):
                    power = expected_power(alpha, side, side, edges, outer_scale=scale)
                    shifts[str(scale)] = float(band.estimate(power[None], "octave")[0] - alpha)
                resolvable = band.is_resolvable(float(alpha))
                rows.append(
                    {
                        "side": side,
                        "edges": edges,
                        "alpha": float(alpha),
                        "shift_by_outer_scale": shifts,
                        "resolvable": resolvable,
                    }
                )
            grid = np.arange(*EXPONENT_RANGE, 0.05)
            good = [a for a in grid if band.is_resolvable(float(a))]
            steady = [a for a in good if abs(band.outer_shift(float(a))) <= 0.1]
            print(
                f"{side} px {edges}: follows from {min(good):.2f} to {max(good):.2f}; "
                f"outer scale matters less than 0.1 up to {max(steady):.2f}",
                flush=True,
            )
            rows[-1] |= {"lowest": min(good), "highest": max(good), "steady_up_to": max(steady)}
    return rows


PARTS: dict[str, tuple[Callable[[int, int], Rows], int]] = {
    "bias": (bias, 512),
    "coverage": (coverage, 2000),
    "efficiency": (calibration_bounds.efficiency, 4000),
    "outer": (outer, 1),
    "single": (calibration_forms.single, 4000),
    "forms": (calibration_forms.rates, 150),
    "law": (calibration_law.rates, 1000),
    "power": (calibration_law.power, 1000),
    "networks": (calibration_networks.rates, 2000),
}
"""The studies, with the repeats of each cell."""


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--repeats", type=int, help="per cell, in place of the part's own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"parts: expected {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
    for name in arguments.parts or PARTS:
        part, usual = PARTS[name]
        repeats = arguments.repeats or usual
        started = time.time()
        rows = part(repeats, arguments.seed)
        record = {
            "command": f"python analyses/calibration.py {name} --repeats {repeats} "
            f"--seed {arguments.seed}",
            "seconds": round(time.time() - started),
            "machine": f"{platform.machine()}, CPU",
            "versions": {
                "natstats": natstats.__version__,
                "numpy": np.__version__,
                "scipy": scipy.__version__,
                "python": platform.python_version(),
            },
            "rows": rows,
        }
        path = arguments.out / f"calibration_{name}.json"
        path.write_text(json.dumps(record, indent=0, default=float) + "\n", encoding="utf-8")
        print(f"{path}, {record['seconds']} s", flush=True)


if __name__ == "__main__":
    main()

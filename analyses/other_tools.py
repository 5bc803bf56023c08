"""The same fields through natstats and through tools that others wrote.

    pip install debiased-spatial-whittle specparam    # in an environment of their own
    python analyses/other_tools.py

* debiased-spatial-whittle (Guillaumin et al.): its expected periodogram against ours, frequency by
  frequency, and its estimate of alpha on the same maps (no taper, the same frequencies, our
  covariance of the ideal field put into its model class).
* specparam in fixed mode, without peaks: its exponent of the same ring power. Its model is a
  straight line in log-log, so it should agree where maps are periodic, and not on crops.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import specparam
import torch
from debiased_spatial_whittle.grids.base import RectangularGrid
from debiased_spatial_whittle.inference.periodogram import ExpectedPeriodogram, Periodogram
from debiased_spatial_whittle.models.base import CovarianceModel, ModelParameter
from scipy import optimize
from simulated import crops

import natstats
from natstats.fits.bands import band_of
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.expected import _covariance, _tapered
from natstats.spectra.frequencies import radius_grid, rings

RESULT = Path(__file__).parent / "results" / "other_tools.json"


class PowerLaw(CovarianceModel):  # type: ignore[misc]
    """Our covariance of the ideal field, as that package wants it."""

    alpha = ModelParameter(default=2.0, bounds=(0.0, 6.0), doc="exponent")
    side = 0

    def _compute(self, lags: np.ndarray) -> np.ndarray:
        table = _covariance(self.side, self.side, float(self.alpha))
        row, column = np.abs(np.rint(lags)).astype(int) % self.side
        # Up to a constant, which only frequency 0 sees.
        return np.asarray(table[row, column] - 2 * table.min())


def estimate_2d(
    power: np.ndarray, model: PowerLaw, expected: ExpectedPeriodogram, inside: np.ndarray
) -> float:
    """Alpha that minimises that package's likelihood, with the best level for every alpha."""
    centre = float(model.alpha)

    def profiled(alpha: float) -> float:
        model.alpha = alpha
        shape = np.real(expected(model))[inside]
        return float(np.log(np.mean(power / shape)) + np.mean(np.log(shape)))

    bounds = (centre - 1, centre + 1)
    found = optimize.minimize_scalar(profiled, bounds=bounds, method="bounded").x
    model.alpha = centre
    return float(found)


def whittle_2d(side: int, alphas: tuple[float, ...], n: int, seed: int) -> list[dict[str, Any]]:
    """Expected periodograms and estimates, one map at a time."""
    grid, periodogram = RectangularGrid(shape=(side, side)), Periodogram()
    expected = ExpectedPeriodogram(grid, periodogram)
    inside = rings(side, side).index >= 0
    rows = []
    for alpha in alphas:
        model = PowerLaw()
        model.side = side
        model.alpha = alpha
        theirs = np.real(expected(model))
        ours = _tapered(_covariance(side, side, alpha), "none")
        (maps,) = crops(side, side, [alpha], -(-n // 16), np.random.default_rng(seed))
        maps = maps.reshape(-1, side, side)[:n]
        found = [estimate_2d(periodogram(one)[inside], model, expected, inside) for one in maps]
        tensor = torch.from_numpy(maps[:, None])
        row: dict[str, Any] = {
            "side": side,
            "alpha": alpha,
            "maps": n,
            "largest_relative_difference_of_expectation": np.abs(theirs / ours - 1)[inside].max(),
            "debiased-spatial-whittle": [np.mean(found), np.std(found, ddof=1)],
        }
        for edges in ("none", "sine"):
            power = power_spectrum(tensor, edges).numpy().astype(float)
            own = band_of(side, side, edges, 0.0, 0.5).estimate(power, "whittle")
            row[f"natstats whittle, {edges}"] = [own.mean(), own.std(ddof=1)]
            row[f"correlation, {edges}"] = np.corrcoef(own, found)[0, 1]
        rows.append(row)
        print({k: np.round(v, 6) for k, v in row.items()}, flush=True)
    return rows


def periodic_fields(side: int, alpha: float, n: int, seed: int) -> np.ndarray:
    """Whole tori, for which a straight line is exact."""
    radius = radius_grid(side, side)
    radius[0, 0] = np.inf
    noise = np.random.default_rng(seed).standard_normal((n, side, side))
    # A flat spectrum would have no zero at DC; the mean is no matter here.
    return np.asarray(np.fft.ifft2(np.fft.fft2(noise) * radius ** (-alpha / 2)).real)


def straight_line(side: int, n: int, seed: int) -> list[dict[str, Any]]:
    """Exponent of the mean spectrum of n maps, periodic ones and crops."""
    frequency = rings(side, side).frequency
    even = np.arange(1, len(frequency) + 1) / side  # that package takes no others
    rows = []
    for alpha in (0.5, 1.0, 2.0, 3.0, 4.0):
        (cut,) = crops(side, side, [alpha], -(-n // 16), np.random.default_rng(seed))
        sets = {
            "periodic": periodic_fields(side, alpha, n, seed),
            "crops": cut.reshape(-1, side, side)[:n],
        }
        for kind, maps in sets.items():
            row: dict[str, Any] = {"side": side, "alpha": alpha, "maps": n, "fields": kind}
            for edges in ("none", "sine"):
                power = power_spectrum(torch.from_numpy(maps[:, None]), edges).double()
                mean = power.mean(0).numpy()
                line = specparam.SpectralModel(aperiodic_mode="fixed", max_n_peaks=0, verbose=False)
                line.fit(even, np.exp(np.interp(np.log(even), np.log(frequency), np.log(mean))))
                row[f"specparam, {edges}"] = float(line.get_params("aperiodic")[-1])
                band = band_of(side, side, edges, 0.0, 0.5)
                for name in ("ols", "octave"):
                    row[f"natstats {name}, {edges}"] = band.estimate(mean[None], name)[0]
            rows.append(row)
            print({k: v if isinstance(v, str) else round(v, 3) for k, v in row.items()}, flush=True)
    return rows


def main() -> None:
    """Run both comparisons."""
    started = time.time()
    record = {
        "command": "python analyses/other_tools.py",
        "debiased-spatial-whittle": whittle_2d(32, (0.5, 1.0, 2.0, 3.0), 160, 0),
        "specparam": straight_line(64, 256, 0),
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("debiased-spatial-whittle", "specparam", "numpy", "scipy")
        }
        | {"natstats": natstats.__version__, "python": platform.python_version()},
        "seconds": round(time.time() - started),
    }
    RESULT.write_text(json.dumps(record, indent=0, default=float) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()

"""How single images spread: intervals that cover whatever the distribution, and none that lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import natstats
from natstats.fits.exponents import fit_layers
from natstats.fits.image_spread import QUANTILES, image_exponents_frame, quantile_ranks, sd_interval
from natstats.fits.options import FitOptions
from natstats.report.pages.results import image_table
from natstats.spectra.expected import expected_power
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of


def layer_of(alphas: np.ndarray, side: int = 14) -> LayerSpectrum:
    """Images of known exponents, without noise."""
    power = np.array([expected_power(alpha, side, side) for alpha in alphas])
    power = power.reshape(len(alphas), side // 2)
    spectrum = spectrum_of(power, side, side)
    return LayerSpectrum(Layer("a", 0, "conv", 1, 1, side, side, 1.0), spectrum)


def row_of(measured: LayerSpectrum, **options: object) -> pd.Series:
    fits = fit_layers([measured], FitOptions(**options))
    return image_exponents_frame([measured], fits).iloc[0]


def test_known_exponents_are_described():
    alphas = 2 + 0.3 * np.random.default_rng(0).standard_normal(100)
    row = row_of(layer_of(alphas))
    assert row.n == 100
    assert row["mean"] == pytest.approx(alphas.mean(), abs=2e-3)
    assert row["sd"] == pytest.approx(alphas.std(ddof=1), abs=2e-3)
    interval = stats.t.interval(0.95, 99, alphas.mean(), alphas.std(ddof=1) / 10)
    assert (row["mean_low"], row["mean_high"]) == pytest.approx(interval, abs=2e-3)
    for quantile in QUANTILES:
        name = f"q{round(100 * quantile):02d}"
        assert row[name] == pytest.approx(np.quantile(alphas, quantile), abs=5e-3)
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("quantile", QUANTILES)
def test_ranks_hold_the_quantile_and_are_the_tightest(quantile, level):
    """The number below the quantile has a binomial tail, here by the incomplete beta function."""
    for n in (1, 2, 5, 17, 72, 73, 200, 1024):
        ranks = quantile_ranks(n, quantile, level)
        # P(B >= r) of n at chance q is I_q(r, n - r + 1).
        at_least = [1.0, *(special.betainc(r, n - r + 1, quantile) for r in range(1, n + 1)), 0.0]
        miss = (1 - level) / 2 + 1e-12
        below = [r for r in range(1, n + 1) if 1 - at_least[r] <= miss]
        above = [r for r in range(1, n + 1) if at_least[r] <= miss]
        assert ranks == ((max(below), min(above)) if below and above else None)


@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential", "standard_cauchy"])
@pytest.mark.parametrize("quantile", [0.05, 0.5])
def test_quantile_intervals_cover_whatever_the_distribution(draw, quantile):
    """In 2000 samples of 100; at least 95 % by construction, with 4 sd of the binomial."""
    samples = np.sort(getattr(np.random.default_rng(0), draw)((2000, 100)), axis=1)
    law = {"standard_normal": stats.norm, "standard_exponential": stats.expon}
    truth = law.get(draw, stats.cauchy).ppf(quantile)
    low, high = quantile_ranks(100, quantile, 0.95)
    hits = np.mean((samples[:, low - 1] <= truth) & (truth <= samples[:, high - 1]))
    assert 0.95 - 4 * np.sqrt(0.05 * 0.95 / 2000) < hits < 0.99


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "lowest"), [(stats.norm(), 0.93), (stats.uniform(), 0.93), (stats.t(7), 0.90)]
)
def test_the_interval_of_the_sd_covers(law, lowest):
    """Bonett's table has 93 to 97 % at n = 50 for these; the chi^2 one has 88 % for t(7)."""
    samples = law.rvs((1000, 50), random_state=np.random.default_rng(1))
    intervals = np.array([sd_interval(sample, 0.95) for sample in samples])
    hits = np.mean((intervals[:, 1] < law.std()) & (law.std() < intervals[:, 2]))
    assert lowest < hits < 0.985
    assert np.all((intervals[:, 1] < intervals[:, 0]) & (intervals[:, 0] < intervals[:, 2]))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 6, 20])
def test_there_is_no_number_without_its_interval(n):
    row = row_of(layer_of(np.linspace(1.5, 2.5, n)))
    assert row.n == n
    for name in ("mean", "sd", *(f"q{round(100 * q):02d}" for q in QUANTILES)):
        parts = row[[name, f"{name}_low", f"{name}_high"]].astype(float)
        assert parts.isna().all() or (parts.notna().all() and parts.iloc[1] <= parts.iloc[2])
    assert np.isfinite(row["mean"]) == (n >= 2)
    assert np.isfinite(row["sd"]) == (n >= 5)
    assert np.isfinite(row["q50"]) == (n >= 6)
    assert np.isnan(row["q05"])


def test_images_that_are_equal_or_missing_do_no_harm():
    assert np.isnan(sd_interval(np.full(20, 2.0), 0.95)).all()
    measured = layer_of(np.full(20, 2.0))
    missing = replace(measured.spectrum, image_power=np.full((20, 7), np.nan, np.float32))
    row = row_of(replace(measured, spectrum=missing))
    assert row.n == 0
    assert np.isnan(row["mean"])


def test_the_level_is_that_of_the_run():
    alphas = np.random.default_rng(0).normal(2, 0.3, 50)
    wide, narrow = (row_of(layer_of(alphas), level=level) for level in (0.95, 0.5))
    for name in ("mean", "sd", "q50"):
        assert (
            wide[f"{name}_low"] < narrow[f"{name}_low"] < narrow[f"{name}_high"]
            < wide[f"{name}_high"]
        )  # fmt: skip


def texts_of(run):
    """The rows of the table on the page."""
    rows = image_table(run.image_exponents, run.options).rows
    return [[cell.text for cell in row] for row in rows]


@pytest.mark.slow
def test_it_is_in_the_run_its_directory_and_its_report(tmp_path):
    run = natstats.Run([layer_of(np.random.default_rng(0).normal(2, 0.3, 80))])
    path = run.save(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.read_csv(path / "image_exponents.csv"), run.image_exponents)
    page = (path / "report.html").read_text(encoding="utf-8")
    ((layer, n, *cells),) = texts_of(run)
    assert (layer, n, len(cells)) == ("a", "80", 5)
    assert all(f">{text}<" in page for text in (layer, n, *cells))
    assert cells[0].startswith(f"{run.image_exponents['mean'][0]:.2f} [")


def test_a_number_that_is_missing_is_a_dash():
    ((*_, low, high),) = texts_of(natstats.Run([layer_of(np.linspace(1, 3, 20))]))
    assert low == high == "–"
    assert texts_of(natstats.Run([layer_of(np.array([2.0]))])) == []

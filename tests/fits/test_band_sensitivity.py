"""Exponent against band: every band fitted as a run in that band would be, and none too narrow."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import natstats
from natstats.fits.band_sensitivity import SIDES, sensitivity_frame
from natstats.fits.exponents import fit_layers, fit_spectrum
from natstats.fits.options import FitOptions
from natstats.spectra.expected import expected_power, independent_modes
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of


def layer_of(truth: np.ndarray, side: int, n: int = 40, noise: bool = True) -> LayerSpectrum:
    modes = independent_modes(side, side)
    scatter = np.random.default_rng(0).gamma(modes / 2, 2 / modes, size=(n, len(truth)))
    power = truth * (scatter if noise else np.ones_like(scatter))
    spectrum = spectrum_of(power, side, side)
    return LayerSpectrum(Layer(f"l{side}", 0, "conv", 1, 1, side, side, 1.0), spectrum)


def frame_of(*layers: LayerSpectrum, options: FitOptions | None = None) -> pd.DataFrame:
    return sensitivity_frame(layers, fit_layers(layers, options))


@pytest.mark.parametrize("estimator", ["octave", "whittle", "ols"])
def test_every_row_is_what_a_fit_in_that_band_gives(estimator):
    options = FitOptions(estimator=estimator, level=0.9)
    measured = layer_of(expected_power(2.0, 28, 28), 28)
    for row in frame_of(measured, options=options).itertuples():
        fit = fit_spectrum(measured.spectrum, replace(options, band=(row.band_low, row.band_high)))
        assert row.n_rings == fit.n_rings
        assert (row.exponent, row.exponent_low, row.exponent_high) == pytest.approx(
            (fit.exponent, fit.low, fit.high)
        )


def test_a_power_law_has_one_exponent_in_every_band():
    frame = frame_of(layer_of(expected_power(2.0, 56, 56), 56, noise=False))
    np.testing.assert_allclose(frame.exponent, 2.0, atol=3e-3)


def test_a_broken_one_has_both_exponents_each_on_its_side():
    frequency = rings(56, 56).frequency
    truth = expected_power(2.0, 56, 56) * np.maximum(1.0, frequency / 0.15) ** -1.5
    frame = frame_of(layer_of(truth, 56, noise=False))
    last = frame.groupby("side").exponent.last()
    assert last["low"] == pytest.approx(3.5, abs=0.05)
    assert last["high"] == pytest.approx(2.0, abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("min_rings", [2, 6])
@pytest.mark.parametrize("band", [(0.0, 0.5), (0.05, 0.4)])
def test_bands_narrow_by_a_third_of_an_octave_to_four_rings(band, min_rings):
    options = FitOptions(band=band, min_rings=min_rings)
    frame = frame_of(layer_of(expected_power(2.0, 112, 112), 112), options=options)
    frequency = rings(112, 112).frequency
    inside = frequency[(frequency >= band[0]) & (frequency <= band[1] + 1e-9)]
    assert frame.n_rings.min() >= max(4, min_rings)
    for side in SIDES:
        own = frame[frame.side == side]
        assert own.n_rings.iloc[0] == len(inside)
        assert (np.diff(own.n_rings) < 0).all()
        fixed = "band_high" if side == "low" else "band_low"
        assert set(own[fixed]) == {inside[-1] if side == "low" else inside[0]}
        wide = own[own[f"band_{side}"].between(8 / 112, 0.4)]
        ratio = np.exp(np.abs(np.diff(np.log(wide[f"band_{side}"]))))
        assert np.all((ratio > 1.1) & (ratio < 1.45))


def test_layers_without_an_exponent_or_four_rings_are_left_out():
    good = layer_of(expected_power(2.0, 14, 14), 14)
    nothing = replace(good, spectrum=replace(good.spectrum, power=0 * good.spectrum.power))
    unknown = replace(good, spectrum=replace(good.spectrum, power=np.nan * good.spectrum.power))
    small = layer_of(expected_power(2.0, 7, 7), 7)
    tiny = layer_of(expected_power(2.0, 5, 5), 5)
    frame = frame_of(nothing, good, unknown, small, tiny)
    assert set(frame.layer) == {"l14"}
    assert frame_of(nothing, unknown, small, tiny).empty
    assert list(frame_of(small).columns) == list(frame.columns)
    assert set(frame_of(layer_of(expected_power(2.0, 14, 14), 14, n=3)).layer) == {"l14"}
    assert frame_of(layer_of(expected_power(2.0, 14, 14), 14, n=1)).empty


def test_an_exponent_beyond_the_table_is_missing():
    """White below, falling by f^-30 above: the highest rings have no exponent."""
    frequency = rings(28, 28).frequency
    truth = expected_power(1.0, 28, 28) * np.maximum(1.0, frequency / 0.3) ** -30
    frame = frame_of(layer_of(truth, 28))
    beyond = frame.exponent.isna()
    assert 0 < beyond.sum() < len(frame)
    assert (frame.exponent_low.isna() == beyond).all()


@pytest.mark.slow
def test_it_is_in_the_run_and_its_directory(tmp_path):
    run = natstats.Run([layer_of(expected_power(2.0, 14, 14), 14)])
    path = run.save(tmp_path / "run")
    pd.testing.assert_frame_equal(pd.read_csv(path / "sensitivity.csv"), run.sensitivity)
    assert "<h2>Is it a power law?</h2>" in (path / "report.html").read_text(encoding="utf-8")
    assert (path / "figures" / "sensitivity.svg").is_file()


@pytest.mark.slow
def test_maps_of_three_rings_are_reported_without_it(tmp_path):
    run = natstats.Run([layer_of(expected_power(2.0, 7, 7), 7)])
    path = run.save(tmp_path / "run")
    assert (path / "sensitivity.csv").read_text().count("\n") == 1
    assert not (path / "figures" / "sensitivity.svg").exists()
    assert "<h2>Is it a power law?</h2>" not in (path / "report.html").read_text(encoding="utf-8")

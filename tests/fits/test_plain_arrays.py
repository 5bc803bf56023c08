"""Fits of plain arrays: what others have measured, with the size of the maps and without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats import FitOptions, fit_layers, fit_spectrum
from natstats.spectra.records import Layer, LayerSpectrum

RNG = np.random.default_rng(0)
F = np.arange(1, 33) / 64.0


def power(alpha, n=40, frequency=F, shape=20):
    return frequency**-alpha * RNG.gamma(shape, 1 / shape, (n, len(frequency)))


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.2, 3.5])
@pytest.mark.parametrize("estimator", ["octave", "whittle", "ols"])
def test_a_power_law_is_found_at_any_frequencies(alpha, estimator):
    for frequency in (F, np.geomspace(0.01, 0.5, 20), np.arange(1.0, 60.0)):
        fit = fit_spectrum(
            frequency, power(alpha, frequency=frequency), FitOptions(estimator=estimator)
        )
        assert fit.exponent == pytest.approx(alpha, abs=0.05)
        assert fit.low < fit.exponent < fit.high
        assert fit.high - fit.low < 0.2
        assert fit.fitted_power.shape == frequency.shape
        assert fit.n_images == 40


def test_an_exact_power_law_has_its_exponent_exactly():
    fit = fit_spectrum(F, np.tile(F**-1.7, (8, 1)))
    assert list(fit.by_estimator.values()) == pytest.approx([1.7] * 3, abs=1e-3)
    assert fit.exponent == pytest.approx(1.7, abs=1e-6)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    hits = 0
    for _ in range(200):
        scatter = RNG.normal(0, 0.2, (40, 1))
        fit = fit_spectrum(F, F ** -(2.0 + scatter) * RNG.gamma(5, 0.2, (40, 32)))
        mean = fit_spectrum(F, F ** -(2.0 + RNG.normal(0, 0.2, (4000, 1))), n_groups=8).exponent
        hits += fit.low < mean < fit.high
    assert 176 <= hits <= 199


def test_with_the_size_it_is_what_the_accumulator_gives():
    fields = torch.from_numpy(natstats.power_law_fields(40, 24, 20, 2.0, seed=0)[:, None]).float()
    accumulator = natstats.SpectrumAccumulator(24, 20, n_groups=16)
    accumulator.update(fields)
    usual = fit_spectrum(accumulator.compute())
    own = natstats.power_spectrum(fields)
    fit = fit_spectrum(natstats.ring_frequencies(24, 20), own, size=(24, 20), n_groups=16)
    assert (fit.exponent, fit.low, fit.high) == pytest.approx(
        (usual.exponent, usual.low, usual.high), rel=1e-5
    )
    assert fit.by_estimator == pytest.approx(usual.by_estimator, rel=1e-5)
    assert fit_spectrum(natstats.ring_frequencies(24, 20), own).exponent != fit.exponent


def test_layers_are_fitted_together():
    steep = power(3.0)
    fits = fit_layers(F, [power(2.0), steep, steep])
    assert fits.exponents == pytest.approx([2.0, 3.0, 3.0], abs=0.05)
    assert fits.covariance[1, 2] == pytest.approx(fits.covariance[1, 1])
    law = natstats.fit_law([1, 2, 3], fits.exponents, fits.deviations, ["a", "a", "a"])
    assert law.n_layers == 3
    other = np.arange(1, 17) / 32.0
    mixed = fit_layers([F, other], [steep, power(1.0, frequency=other)])
    assert mixed.exponents == pytest.approx([3.0, 1.0], abs=0.1)
    stacked = fit_layers(F, np.stack([steep, steep]), options=FitOptions(level=0.5))
    assert stacked.options.level == 0.5
    assert stacked.layers[0].high < fits.layers[1].high


def test_measured_spectra_are_fitted_as_before():
    accumulator = natstats.SpectrumAccumulator(12, 12, n_groups=8)
    accumulator.update(torch.rand(16, 1, 12, 12, generator=torch.Generator().manual_seed(0)))
    spectrum = accumulator.compute()
    options = FitOptions(level=0.8)
    fits = [
        fit_spectrum(spectrum, options),
        fit_spectrum(spectrum, options=options),
        fit_spectrum(spectrum, options, 1.0),
        fit_spectrum(spectrum, options, span=1.0),
    ]
    assert len({(fit.low, fit.high) for fit in fits}) == 1
    layer = LayerSpectrum(Layer("a", 0, "conv", 1, 1, 12, 12, 1.0), spectrum)
    assert fit_layers([layer], options).layers[0].low == fits[0].low
    assert fit_layers([layer], options=options, is_brief=True).layers[0].low == fits[0].low


def test_images_that_are_not_finite_are_left_out():
    values = power(2.0)
    whole = fit_spectrum(F, values[:38], n_groups=40)
    values[38, 3], values[39, 0] = np.nan, np.inf
    fit = fit_spectrum(F, values, n_groups=40)
    assert fit.exponent == pytest.approx(whole.exponent)
    assert fit.n_images == 38
    assert fit.flags[0] == "non-finite (2 images left out)"
    assert len(fit.image_exponents) == 38


def test_a_band_is_of_the_frequencies():
    bent = np.where(F < 0.2, F**-1.0, 0.2**2 * F**-3.0) * RNG.gamma(50, 0.02, (40, 32))
    assert fit_spectrum(F, bent, FitOptions(band=(0.0, 0.19))).exponent == pytest.approx(1, abs=0.1)
    assert fit_spectrum(F, bent, FitOptions(band=(0.21, 0.5))).exponent == pytest.approx(3, abs=0.2)
    assert fit_spectrum(F, bent, FitOptions(band=(0.49, 0.5))).flags == ("too few rings in band",)
    with pytest.raises(natstats.UsageError, match=r"^band: .*take a size"):
        fit_spectrum(F, bent, FitOptions(band="2:12/image"))


@pytest.mark.parametrize(
    ("arguments", "named", "words"),
    [
        ((F, None), {}, "power: expected the power of every image"),
        ((F, F**-2), {}, r"power: .*\(N, 32\); got shape \(32,\)"),
        ((F, power(2.0)[:, :5]), {}, r"power: .*\(N, 32\); got shape \(40, 5\)"),
        ((F, -power(2.0)), {}, "power: expected no negative values"),
        ((F, "x"), {}, "power: expected an array of numbers"),
        ((F[::-1], power(2.0)), {}, "frequencies: expected rising numbers above 0"),
        ((F - F[0], power(2.0)), {}, "frequencies: expected rising numbers above 0"),
        ((F[:1], power(2.0)[:, :1]), {}, "frequencies: expected two or more"),
        ((3, power(2.0)), {}, "frequencies: expected two or more"),
        ((F, power(2.0)), {"size": (64, 64)}, r"frequencies: expected the 32 of .*64, 64"),
        ((F, power(2.0)), {"size": 64}, "size: expected height and width, pixels; got 64"),
        ((F, power(2.0)), {"size": (2, 2)}, "map size: expected at least 5 x 5"),
        ((F, power(2.0)), {"edges": "sin"}, "edges: expected one of"),
        ((F, power(2.0)), {"n_groups": 0}, "n_groups: expected a whole number"),
    ],
)
def test_all_else_is_refused_by_name(arguments, named, words):
    with pytest.raises(natstats.UsageError, match=rf"^{words}"):
        fit_spectrum(*arguments, **named)


@pytest.mark.parametrize(
    ("arguments", "named", "words"),
    [
        ((F, 3), {}, r"power: expected an array \(N, R\) for every layer; got a int"),
        ((F, power(2.0)), {}, r"power: expected an array \(N, R\) for every layer"),
        ((F, [power(2.0), power(2.0, n=3)]), {}, "layer 1 has shape"),
        (
            ([F, F, F], [power(2.0)] * 2),
            {},
            "frequencies: expected one for each of 2",
        ),
        ((F, [power(2.0)] * 2), {"sizes": [(64, 64)]}, "sizes: expected one for each of 2"),
    ],
)
def test_layers_that_do_not_go_together_are_refused(arguments, named, words):
    with pytest.raises(natstats.UsageError, match=words):
        fit_layers(*arguments, **named)
